"""Whether what is read from an index is what was written: checksums, and the forms that content must have.

Whoever reads an index trusts none of its files. What is of another form, or differs from its checksum, is a
`DamagedIndex` that names the file; the callers add the folder and the advice. A checksum finds accidents. It is not a
signature: who can write the files can write the checksums too.

The files of an index type are read and written here: `index_type.json`, what building found, and an index of faiss.
Opening compares the checksum of what it reads anyway: the centroids in front of the rows of the cells, which are mapped
and never read as a whole. `search.checking` compares the rest.
"""

import hashlib
import json
import re
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.apps.search.collection import DamagedIndex, Item, are_unit
from ernie_vil2.apps.search.locations import locations_of
from ernie_vil2.io.files import atomic_write, check_version, is_count, is_number, load_json, parse_json, write_json

CHECKSUM = "checksum"  # the key under which `sealed` keeps it
AT_ONCE = 1 << 20  # bytes of a file, or numbers of embeddings, that are read together

MOST = 2**63 - 1  # the largest number that SQLite keeps
LONGEST = 1 << 16  # characters of `index_type.json`
VERSION = 1  # of `index_type.json`
MOST_BYTES = 1 << 53
_LISTING = "SELECT type, name, sql FROM sqlite_master"


def checksum(*parts: str | bytes | int | None) -> bytes:
    """16 bytes of values in their order, which differ from those of any other values."""
    content = [
        b"bytes %d %b" % (len(part), part)
        if isinstance(part, bytes)
        else b"%b %d %b" % (type(part).__name__.encode(), len(text := str(part).encode()), text)
        for part in parts
    ]
    return hashlib.blake2b(b"".join(content), digest_size=16).digest()


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """An object for JSON with the checksum of its other values."""
    return {**values, CHECKSUM: checksum(json.dumps(values, sort_keys=True)).hex()}


def unsealed(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The values that were sealed; DamagedIndex, which names `name`, if they differ from their checksum or lack it."""
    kept = {key: value for key, value in values.items() if key != CHECKSUM}
    if sealed(kept) != values:
        raise DamagedIndex(f"{name} differs from its checksum")
    return kept


def parsed(text: Any, kind: type, name: str) -> Any:
    """JSON of a kind; DamagedIndex for anything else."""
    try:
        value = parse_json(text)
    except (ValueError, TypeError) as error:
        raise DamagedIndex(f"{name} is not JSON ({error})") from error
    if not isinstance(value, kind):
        raise DamagedIndex(f"{name} is not a {kind.__name__}")
    return value


def check_is_file(path: Path) -> None:
    """DamagedIndex if this is something other than a file: a pipe would be waited for."""
    if path.exists() and not path.is_file():
        raise DamagedIndex(f"{path.name} is not a file")


def check_about(about: Any, kinds: Sequence[str], name: str) -> dict[str, Any]:
    """What an index with these kinds of collections says of itself, if it has that form."""
    forms: dict[str, Callable[..., Any]] = {
        "version": is_count,
        "model": _is_text,
        "fingerprint": _is_text,
        "width": lambda value: is_count(value, 1, 1 << 20),
        "image_fingerprint": _is_text,
        "root": _is_text,
    }
    if isinstance(about, dict):  # the folders of collections that were compacted
        forms |= {kind: partial(_is_text, form=rf"{kind}-[0-9a-f]{{8}}") for kind in kinds if kind in about}
    return formed(about, forms, name)


def _is_text(value: Any, form: str = "(?s:.*)") -> bool:
    return isinstance(value, str) and re.fullmatch(form, value) is not None


def check_state(state: dict[str, Any], name: str) -> dict[str, Any]:
    """What a collection says of itself, if it has that form; an empty statement is an empty collection."""
    state = {"rows": 0, "count": 0, "generation": 0, "facets": {}} | state
    if len(state) > 4 or not is_count(state["rows"], 0, MOST):
        raise DamagedIndex(f"{name} is of another form")
    forms = {
        "count": lambda value: is_count(value, 0, state["rows"]),
        "generation": lambda value: is_count(value, 0, MOST),
        "facets": lambda value: isinstance(value, dict) and all(map(_are_counted, value.values())),
    }
    return formed(state, forms, name)


def _are_counted(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(one, list) and len(one) == 2 and isinstance(one[0], str | int) and is_count(one[1]) for one in values
    )


def formed(values: Any, forms: Mapping[str, Callable[[Any], Any]], name: str) -> dict[str, Any]:
    """An object of JSON whose values have these forms; DamagedIndex, which names `name`, for anything else."""
    if not isinstance(values, dict):
        raise DamagedIndex(f"{name} is not a JSON object")
    for key, form in forms.items():
        if key not in values:
            raise DamagedIndex(f"{name} has no {key}")
        if not form(values[key]):
            raise DamagedIndex(f"{name} has the {key} {str(values[key])[:100]}")
    return values


def check_rows(embeddings: np.ndarray, rows: Sequence[int] | np.ndarray) -> None:
    """DamagedIndex if one of these embeddings, `[n, D]` of the rows `[n]`, is not a unit vector."""
    if not (unit := are_unit(embeddings)).all():
        raise DamagedIndex(f"rows.f16: row {rows[int(np.argmin(unit))]:,} is not a unit vector")


def item_of(one: Any, digest: Any, fields: Any, location: Any, thumbnail: Any, name: str) -> Item:
    """The item of what its columns hold; DamagedIndex, which names `name`, where they are of another form."""
    if not isinstance(one, str):
        raise DamagedIndex(f"{name} holds an id that is not a text")
    try:
        if not isinstance(digest, bytes) or not (thumbnail is None or isinstance(thumbnail, bytes)):
            raise DamagedIndex("digest or thumbnail is not binary")
        item = Item(one, digest, parsed(fields, dict, "fields"), parsed(location, list, "location"), thumbnail)
        locations_of(item)
    except DamagedIndex as error:
        raise DamagedIndex(f"{name}: item {one[:100]!r}: {error}") from error
    return item


def has_schema(connection: sqlite3.Connection, schema: str) -> bool:
    """Return whether a database has a schema; an empty one has none.

    DamagedIndex if it has anything else, such as a view instead of a table, a trigger, or other columns: reading and
    writing it would run what a stranger wrote.
    """
    found, expected = set(connection.execute(_LISTING)), _entries(schema)
    if extra := found - expected:
        kind, name, _ = min(extra, key=str)
        raise DamagedIndex(f"items.sqlite holds the {kind} {str(name)[:100]!r}, which is not of an index")
    if found and (missing := expected - found):
        kind, name, _ = min(missing, key=str)
        raise DamagedIndex(f"items.sqlite lacks the {kind} {name!r}")
    return bool(found)


@lru_cache
def _entries(schema: str) -> frozenset[tuple[str, str, str | None]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(schema)
        return frozenset(connection.execute(_LISTING))


def crc32(path: Path, size: int) -> int:
    """The CRC-32 of the first bytes of a file, which takes a second for a gigabyte or two."""
    found = 0
    with path.open("rb") as file:
        while size > 0 and (part := file.read(min(size, AT_ONCE))):
            found = zlib.crc32(part, found)
            size -= len(part)
    return found


def parts_of(rows: np.ndarray) -> Iterator[range]:
    """The numbers of the rows `[N, D]`, in parts that fit into memory."""
    step = max(AT_ONCE // rows.shape[1], 1)
    return (range(start, min(start + step, len(rows))) for start in range(0, len(rows), step))


def index_type_in(collection: Path) -> Path:
    """Return the folder of a collection's index type."""
    return collection / "index_type"


def facts_in(folder: Path) -> Path:
    """Return where the folder of an index type says what building it found."""
    return folder / "index_type.json"


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    write_json(facts_in(folder), sealed({"version": VERSION, **facts}), indent=None)


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what building an index type found.

    Raises:
        FileNotFoundError: none was built.
        ValueError: it is of another version, another form, or another checksum.
    """
    path = facts_in(folder)
    check_is_file(path)
    facts = load_json(path, LONGEST)
    if not isinstance(facts, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    check_version(facts.get("version"), VERSION, path.name, "another release built it")
    facts = unsealed(facts, path.name)
    del facts["version"]
    if not isinstance(facts.get("name"), str) or not is_count(facts.get("rows"), 0):
        raise ValueError(f"{path.name} does not name an index type with its rows")
    return facts


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
        "crc32": lambda value: is_count(value, 0, 2**32 - 1),
        "sha256": _is_text,
    }
    formed(facts, forms, "the index type")


def write_index(index: Any, path: Path) -> dict[str, Any]:
    """Writes an index of faiss; returns its file's name and size. OSError where there is no room."""
    import faiss

    with atomic_write(path) as aside:
        try:
            faiss.write_index(index, str(aside))
        except RuntimeError as error:
            raise OSError(f"{path} cannot be written; is the disk full?") from error
        return {"file": path.name, "bytes": aside.stat().st_size}


def read_index(path: Path, facts: Mapping[str, Any], read: int) -> Any:
    """An index of faiss, mapped; RuntimeError or ValueError if it is damaged, as far as the first `read` bytes show."""
    import faiss

    check_is_file(path)
    if (size := path.stat().st_size) != facts["bytes"]:
        raise ValueError(f"{path.name} has {size:,} of {facts['bytes']:,} bytes")  # faiss would map what is missing
    if facts["crc32"] != crc32(path, read):
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
        raise ValueError(f"{facts['file']} is not what the index type describes")
