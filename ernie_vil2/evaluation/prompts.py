"""Names of classes as texts: prompts by templates, and one embedding of them per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.readers.labelled import read_list

SLOTS = ("{c}", "{}")
"""Where the name stands in a template; the former is CLIP_benchmark's."""
OWN = Path(__file__).with_name("templates")
"""Our own templates, a file per language."""


def read_templates(language: str, place: str | None = None) -> tuple[str, ...]:
    """The templates in a file, or our own in a language.

    Args:
        place: as for `read_list`; None: our own.

    Raises:
        OSError: the file cannot be read.
        ValueError: there are none, or one has no slot for the name.
    """
    if place is None and not (OWN / f"{language}.txt").is_file():
        known = ", ".join(sorted(path.stem for path in OWN.iterdir()))
        raise ValueError(f"there are no templates in {language or 'no language'} here, only in {known}; give a file")
    found = read_list(place or str(OWN / f"{language}.txt"))
    if isinstance(found, dict):
        raise ValueError(f"{place}: templates are a list, not texts by label")
    for template in found:
        if not any(slot in template for slot in SLOTS):
            raise ValueError(f"{place}: template {template!r} has no slot; put {SLOTS[1]} where the name belongs")
    return tuple(found)


def choose_templates(labelled: Benchmark, places: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Templates in every language of the classes' names.

    Args:
        places: files by language, see `read_templates`; the other languages have our own.

    Raises:
        OSError, ValueError: see `read_templates`; or a file is for a language in which there are no names.
    """
    languages = list(labelled.texts[0].fields)
    if extra := places.keys() - set(languages):
        raise ValueError(f"templates in {', '.join(sorted(extra))}, but the names are in {', '.join(languages)}")
    return {language: read_templates(language, places.get(language)) for language in languages}


def repeated(templates: Sequence[str]) -> list[str]:
    """Those that stand several times; each counts as often as it stands, as elsewhere."""
    return [template for template, count in Counter(templates).items() if count > 1]


def prompts(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every name in every template, `[C * T]`, class by class."""
    return [_filled(template, name) for name in names for template in templates]


def _filled(template: str, name: str) -> str:
    for slot in SLOTS:
        template = template.replace(slot, name)
    return template


def class_embeddings(embeddings: np.ndarray, templates: int) -> np.ndarray:
    """The normalised mean of the normalised embeddings of every class's prompts: `[C * T, D]` to `[C, D]` float32.

    So do CLIP_benchmark, open_clip and Chinese-CLIP.
    """
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    means = rows.reshape(-1, templates, rows.shape[1]).mean(axis=1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)
