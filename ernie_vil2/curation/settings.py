"""The steps of a curation from a YAML file, each with its settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model

from ernie_vil2.config.load import explained, override, read_yaml
from ernie_vil2.config.section import Section
from ernie_vil2.curation.step import STEPS, Step
from ernie_vil2.io.terminal import ConfigError
from ernie_vil2.registry import UnknownName, import_named


def load_steps(path: str | Path, overrides: Iterable[str] = ()) -> list[Step]:
    """The steps that a file names, in ascending order of their cost.

    Args:
        path: YAML with a section for each step; one that is null is left out.
        overrides: `step.key=value` texts, or `step=null`; the value is YAML, and the last one wins.

    Raises:
        ConfigError: there is no such step or setting (with the nearest right one), a value is of the wrong type or out
            of range, the file is not YAML, or no step is left.
    """
    tree: Any = read_yaml(path) or {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: the top level must be steps ({', '.join(STEPS)})")
    overrides = list(overrides)
    named = [str(name) for name in (*tree, *(text.partition("=")[0].partition(".")[0] for text in overrides))]
    origin = " ".join([str(path), *(f"-o {text}" for text in overrides)])
    try:
        import_named(named)
        steps = {name: STEPS.find(name) for name in dict.fromkeys([*STEPS, *named])}
    except UnknownName as error:
        raise ConfigError(f"{origin}: {error}") from None
    fields: dict[str, Any] = {name: (step.Settings | None, None) for name, step in steps.items()}
    whole = create_model("Curation", __base__=Section, **fields)
    for text in overrides:
        override(tree, text, whole)
    try:
        settings = whole.model_validate(tree)
    except ValidationError as error:
        raise explained(error, origin, whole) from None
    made = [step(own) for name, step in steps.items() if (own := getattr(settings, name)) is not None]
    if not made:
        raise ConfigError(f"{origin}: no step is left; name one of {', '.join(STEPS)}")
    return sorted(made, key=lambda step: step.cost)
