"""JSON as all of the package reads it: a key that occurs twice and values nested too deeply are errors of one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ernie_vil2.files import MAX_CHARACTERS, read_text

MAX_NUMBER = 1e300


class RepeatedKey(ValueError):
    """A key that occurs twice in one object: the standard library would take the last, and drop what came first."""


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        RepeatedKey: an object has a key twice.
        ValueError: it is not JSON, or its values are nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("values are nested too deeply") from None


def load_json(path: str | Path, most: int = MAX_CHARACTERS) -> Any:
    """What a JSON file says.

    Raises:
        OSError: it cannot be read, or it is not an ordinary file: a pipe in its place is not waited for.
        ValueError: as of `parse_json`, or it is not UTF-8 or has more than `most` characters; the message names it.
    """
    text = read_text(path, most)
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None


def is_number(value: Any, least: float = -MAX_NUMBER, most: float = MAX_NUMBER) -> bool:
    """Whether a value is a number in these bounds; JSON also gives truth values, NaN, and integers of any length."""
    return type(value) in (int, float) and least <= value <= most


def is_count(value: Any, least: int = 1, most: int = 2**31 - 1) -> bool:
    """Whether a value is a whole number in these bounds."""
    return type(value) is int and least <= value <= most


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise RepeatedKey(f"the key {twice[:100]!r} occurs twice in one object")
    return made
