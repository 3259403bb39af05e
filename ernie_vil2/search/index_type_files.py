"""The files of an index type: `engine.json`, what building found, and an index of faiss; and whether they are damaged.

Opening compares the checksum of what it reads anyway: the centroids in front of the rows of the cells, which are mapped
and never read as a whole. `search.checking` compares the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ernie_vil2.io.files import atomic_write, is_count, is_number, load_json, sha256, write_json
from ernie_vil2.search.integrity import CHECKSUM, check_is_file, crc32, formed, sealed, unsealed

FACTS = "engine.json"
LONGEST = 1 << 16
"""Characters of `engine.json`."""
MOST_BYTES = 1 << 53
REPLACED = {"hnsw": "ivf"}
"""Index types of earlier versions, which are not read any more, and what is built instead of them."""


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    write_json(folder / FACTS, sealed(facts), indent=None)


def read_facts(folder: Path) -> tuple[dict[str, Any], bool]:
    """What building an index type found, and whether a checksum confirms it.

    Raises:
        FileNotFoundError: none was built, or one of `REPLACED`.
        ValueError: it is of another form, or differs from its checksum.
    """
    check_is_file(folder / FACTS)
    facts = load_json(folder / FACTS, LONGEST)
    if isinstance(facts, dict) and facts.get("name") in REPLACED:
        raise FileNotFoundError(f"{folder} has the index type {facts['name']} of an earlier version")
    named = isinstance(facts, dict) and isinstance(facts.get("name"), str)
    if not named or not is_count(facts.get("rows"), 0):
        raise ValueError(f"{FACTS} does not name an index type with its rows")
    return (unsealed(facts, FACTS), True) if CHECKSUM in facts else (facts, False)


def replacement(folder: Path) -> str | None:
    """The index type to build instead of one of `REPLACED`; None where a folder has none of these."""
    try:
        return REPLACED.get(load_json(folder / FACTS, LONGEST)["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_ivf_facts(facts: Mapping[str, Any], width: int, broadest: int) -> None:
    """DamagedIndex or TypeError if facts of cells are missing, of another form or out of their range."""
    forms = {
        "file": lambda value: re.fullmatch(r"\w+-[0-9a-f]{8}\.faiss", value),
        "bytes": lambda value: is_count(value, 1, MOST_BYTES),
        "directions": lambda value: is_count(value, 1, width),
        "cells": lambda value: is_count(value, 1, facts["rows"]),
        "breadth": lambda value: is_count(value, 1, broadest),
        "recall": lambda value: is_number(value, 0, 1),
        "wanted_recall": lambda value: is_number(value, 0, 1),
        "queries": lambda value: is_count(value, 0),
    }
    formed(facts, forms, FACTS)


def write_index(index: Any, path: Path) -> dict[str, Any]:
    """Writes an index of faiss; returns its file's name and size. OSError where there is no room."""
    import faiss

    with atomic_write(path) as aside:
        try:
            faiss.write_index(index, str(aside))
        except RuntimeError as error:
            raise OSError(f"{path} cannot be written; is the disk full?") from error
        return {"file": path.name, "bytes": aside.stat().st_size}


def checksums(path: Path, read: int) -> dict[str, Any]:
    """Of an index of faiss: of the first bytes, which opening reads, and of all."""
    return {"crc32": crc32(path, read), "sha256": sha256(path)}


def read_index(path: Path, facts: Mapping[str, Any], read: int) -> Any:
    """An index of faiss, mapped.

    Raises:
        FileNotFoundError: it is not there.
        RuntimeError, ValueError: it is damaged, as far as the first `read` bytes show.
    """
    import faiss

    check_is_file(path)
    if (size := path.stat().st_size) != facts["bytes"]:
        raise ValueError(f"{path.name} has {size:,} of {facts['bytes']:,} bytes")  # faiss would map what is missing
    if facts.get("crc32") not in (None, crc32(path, read)):
        raise ValueError(f"{path.name} differs from its checksum")
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP)


def check_ivf(index: Any, width: int, facts: Mapping[str, Any]) -> None:
    """ValueError if an index of faiss is not the cells behind a transformation that its facts describe."""
    import faiss

    if not isinstance(index, faiss.IndexPreTransform):
        raise ValueError(f"{facts['file']} holds an index of another kind")
    inner = faiss.downcast_index(index.index)
    count, directions = facts["rows"], facts["directions"]
    fits = (index.d, index.ntotal, inner.ntotal, inner.d) == (width, count, count, directions)
    fits = fits and isinstance(inner, faiss.IndexIVFScalarQuantizer)
    if not (fits and inner.nlist == inner.quantizer.ntotal == facts["cells"]):
        raise ValueError(f"{facts['file']} is not what {FACTS} describes")
