"""Configurations of earlier versions in the terms of this one.

A file says the version of its keys; one that says none, as a user's own or those of version 1, may be of any, so that a
migration leaves alone what is not old.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

VERSION = 3

Tree = dict[str, Any]


def migrate(tree: Tree) -> list[str]:
    """Brings sections and their keys to this version, in place, and takes the version out.

    Until then a tree has it only if a file says it, as those that this package has written do.

    Returns:
        What a person should know: which key is now called what, or is gone.

    Raises:
        ValueError: it is no version, or one to come.
    """
    version = tree.get("version", 1)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"version: {version!r} is none; configurations have versions 1 to {VERSION}")
    if version > VERSION:
        raise ValueError(
            f"version: {version} is of a later release of this package, which knows up to {VERSION}; install that one"
        )
    remarks = [remark for number in range(version, VERSION) for remark in MIGRATIONS[number](tree)]
    tree.pop("version", None)
    return remarks


def _from_1(tree: Tree) -> list[str]:
    """Samples of one text could stand side by side in the stream, which helped nothing."""
    data = tree.get("Data")
    if not isinstance(data, dict) or "samples_per_text" not in data:
        return []
    if data.pop("samples_per_text") == 1:
        return []
    return ["Data.samples_per_text is gone: all samples are shuffled; Loss.duplicates says what equal texts are"]


def _from_2(tree: Tree) -> list[str]:
    """Batch norms of frozen weights followed the batches. A run that began so goes on so; its user's own file, which
    says no version, means the rule of today, and takes that of its run when it is resumed."""
    tuning = tree.get("Tuning")
    if "version" in tree and isinstance(tuning, dict) and (tuning.get("freeze") or tuning.get("lora")):
        tuning.setdefault("moving_statistics", True)
    return []


MIGRATIONS: dict[int, Callable[[Tree], list[str]]] = {1: _from_1, 2: _from_2}
"""By the version that each leads on from, to the next."""
