"""Tags as texts: cleaned, and lists of them by language from files."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from ernie_vil2.io.files import read_text


def clean(tag: str) -> str:
    """A tag in Unicode's composed form, with one space where there was white space, and none at its ends."""
    return " ".join(unicodedata.normalize("NFC", tag).split())


def clean_list(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags cleaned, each once, in the order of their first occurrence; empty ones are dropped."""
    return tuple(dict.fromkeys(filter(None, map(clean, tags))))


def clean_tags(tags: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Tags by language, cleaned; languages without any are dropped."""
    cleaned = {language: clean_list(found) for language, found in tags.items()}
    return {language: found for language, found in cleaned.items() if found}


def read_names(path: str | Path) -> list[str]:
    """The lines of a UTF-8 text file, cleaned; empty lines between others count.

    Raises:
        OSError: the file cannot be read, or it is no ordinary file.
        ValueError: it is not UTF-8, or too long, or there is no name in it.
    """
    names = [clean(line) for line in read_text(path).rstrip("\n").split("\n")]
    if not any(names):
        raise ValueError(f"{path}: no names in this file")
    return names
