"""Check that what is read from an index is what was written, by checksums and by the form of the content.

Readers of an index trust none of its files. Content of another form, or with another checksum, raises `DamagedIndex`
with the name of the file; the callers add the folder, and what to do. A checksum finds accidents. It is no signature:
whoever can write the files can write the checksums, too.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.apps.search.collection import MAX_BOUND, DamagedIndex, Item, are_unit_vectors
from ernie_vil2.apps.search.locations import parse_locations
from ernie_vil2.io.files import is_count, is_number, parse_json

CHECKSUM_KEY = "checksum"
CHUNK_SIZE = 1 << 20  # bytes of a file, or coordinates of embeddings, that are in memory at once
MAX_SQLITE_INTEGER = 2**63 - 1  # the largest that a column of SQLite holds
MAX_WIDTH = 1 << 20  # of embeddings; bounds what a damaged index makes a reader allocate
MAX_VALUE_IN_MESSAGE = 100  # characters


def hash_values(*values: str | bytes | int | None) -> bytes:
    """Return a 16-byte digest of values in their order; types and lengths are part of it."""
    # Without types and lengths, ("ab", "c") would have the digest of ("a", "bc"), and 1 that of "1".
    chunks = []
    for value in values:
        if isinstance(value, bytes):
            chunks.append(b"bytes %d %b" % (len(value), value))
        else:
            text = str(value).encode()
            chunks.append(b"%b %d %b" % (type(value).__name__.encode(), len(text), text))
    return hashlib.blake2b(b"".join(chunks), digest_size=16).digest()


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with the checksum of its values as one more value."""
    return {**values, CHECKSUM_KEY: hash_values(json.dumps(values, sort_keys=True)).hex()}


def unseal(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the values without their checksum; DamagedIndex with `name` if it is missing or does not match."""
    content = {key: value for key, value in values.items() if key != CHECKSUM_KEY}
    if seal(content) != values:
        raise DamagedIndex(f"{name} differs from its checksum")
    return content


def parse_json_as(kind: type, text: Any, name: str) -> Any:
    """Return a JSON value of the type `kind`; DamagedIndex with `name` for anything else."""
    try:
        value = parse_json(text)
    except (ValueError, TypeError) as error:
        raise DamagedIndex(f"{name} is not JSON ({error})") from error
    if not isinstance(value, kind):
        raise DamagedIndex(f"{name} is not a {kind.__name__}")
    return value


def check_form(values: Any, checks: Mapping[str, Callable[[Any], bool]], name: str) -> dict[str, Any]:
    """Return a JSON value if it is an object with the right values; keys without a check are allowed.

    Args:
        values: the JSON value.
        checks: functions that return whether a value is right, by the keys that the object must have.
        name: name of the object for errors.

    Raises:
        DamagedIndex: the value is no object, lacks a key, or has a wrong value.
    """
    if not isinstance(values, dict):
        raise DamagedIndex(f"{name} is not a JSON object")
    for key, is_valid in checks.items():
        if key not in values:
            raise DamagedIndex(f"{name} has no {key}")
        if not is_valid(values[key]):
            raise DamagedIndex(f"{name} has the {key} {str(values[key])[:MAX_VALUE_IN_MESSAGE]}")
    return values


def is_text(value: Any, pattern: str = "(?s:.*)") -> bool:
    """Return whether a value is a text that matches a pattern as a whole; by default any text does."""
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def check_is_file(path: Path) -> None:
    """Raise DamagedIndex if a path is not a regular file: opening a pipe would wait for a writer."""
    if path.exists() and not path.is_file():
        raise DamagedIndex(f"{path.name} is not a file")


def check_metadata(metadata: Any, kinds: Sequence[str], name: str) -> dict[str, Any]:
    """Return the description of an index if it has the right form.

    Args:
        metadata: a JSON value.
        kinds: kinds of collections that the index may have.
        name: name of the description for errors.

    Raises:
        DamagedIndex: the description is of another form.
    """
    checks: dict[str, Callable[..., bool]] = {
        "version": is_count,
        "model": is_text,
        "fingerprint": is_text,
        "width": lambda value: is_count(value, 1, MAX_WIDTH),
        "image_fingerprint": is_text,
        "root": is_text,
    }
    if isinstance(metadata, dict):
        for kind in kinds:
            if kind in metadata:  # only a collection that was compacted has a folder of another name
                checks[kind] = partial(is_text, pattern=rf"{kind}-[0-9a-f]{{8}}")
    return check_form(metadata, checks, name)


def check_state(state: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the state of a collection, with defaults for missing keys, if it has the right form.

    Raises:
        DamagedIndex: the state is of another form; the error names it `name`.
    """
    # A collection without items need not have a state.
    empty_state: dict[str, Any] = {"rows": 0, "count": 0, "generation": 0, "facets": {}, "ranges": {}}
    has_unknown_keys = not state.keys() <= empty_state.keys()
    state = empty_state | state
    if has_unknown_keys or not is_count(state["rows"], 0, MAX_SQLITE_INTEGER):
        raise DamagedIndex(f"{name} is of another form")
    checks: dict[str, Callable[[Any], bool]] = {
        "count": lambda value: is_count(value, 0, state["rows"]),
        "generation": lambda value: is_count(value, 0, MAX_SQLITE_INTEGER),
        "facets": _are_facets,
        "ranges": _are_ranges,
    }
    return check_form(state, checks, name)


def _are_facets(value: Any) -> bool:
    """Return whether a value has the form of `FieldSummary.facets`."""
    if not isinstance(value, dict):
        return False
    for pairs in value.values():
        if not isinstance(pairs, list):
            return False
        for pair in pairs:
            is_pair = isinstance(pair, list) and len(pair) == 2
            if not (is_pair and isinstance(pair[0], str | int) and is_count(pair[1])):
                return False
    return True


def _are_ranges(value: Any) -> bool:
    """Return whether a value has the form of `FieldSummary.ranges`."""
    if not isinstance(value, dict):
        return False
    for bounds in value.values():
        if not (isinstance(bounds, list) and len(bounds) == 2):
            return False
        if not all(is_number(bound, -MAX_BOUND, MAX_BOUND) for bound in bounds):
            return False
    return True


def check_rows(embeddings: np.ndarray, rows: Sequence[int] | np.ndarray) -> None:
    """Raise DamagedIndex with the row of an embedding that is not a unit vector.

    Args:
        embeddings: `[n, D]`.
        rows: `[n]`, their rows in the file of embeddings.
    """
    is_unit = are_unit_vectors(embeddings)
    if not is_unit.all():
        raise DamagedIndex(f"rows.f16: row {rows[int(np.argmin(is_unit))]:,} is not a unit vector")


def parse_item(item_id: Any, digest: Any, fields: Any, location: Any, thumbnail: Any, name: str) -> Item:
    """Return the item that these columns of a database hold.

    Raises:
        DamagedIndex: a column is of another form; the error has `name` and the id.
    """
    parsed_fields = parse_fields(item_id, digest, fields, name)
    try:
        if not isinstance(thumbnail, bytes | None):
            raise DamagedIndex("the thumbnail is not binary")
        item = Item(item_id, digest, parsed_fields, parse_json_as(list, location, "location"), thumbnail)
        parse_locations(item)  # raises if a location is of another form
    except DamagedIndex as error:
        raise DamagedIndex(f"{name}: item {item_id[:MAX_VALUE_IN_MESSAGE]!r}: {error}") from error
    return item


def parse_fields(item_id: Any, digest: Any, fields: Any, name: str) -> dict[str, Any]:
    """Return the fields of an item, and check the columns with its id and digest: all that an answer shows.

    Raises:
        DamagedIndex: one of the columns is of another form; the error has `name` and the id.
    """
    if not isinstance(item_id, str):
        raise DamagedIndex(f"{name} holds an id that is not a text")
    try:
        if not isinstance(digest, bytes):
            raise DamagedIndex("the digest is not binary")
        return parse_json_as(dict, fields, "fields")
    except DamagedIndex as error:
        raise DamagedIndex(f"{name}: item {item_id[:MAX_VALUE_IN_MESSAGE]!r}: {error}") from error


def compute_crc32(path: Path, size: int) -> int:
    """Return the CRC-32 of the first `size` bytes of a file, or of all of a shorter one; 1 to 2 GB take a second."""
    crc32 = 0
    with path.open("rb") as file:
        while size > 0:
            chunk = file.read(min(size, CHUNK_SIZE))
            if not chunk:
                break
            crc32 = zlib.crc32(chunk, crc32)
            size -= len(chunk)
    return crc32


def split_rows(rows: np.ndarray) -> Iterator[range]:
    """Yield ranges that together are all row numbers of `[N, D]`; the rows of a range fit into memory."""
    num_rows = max(CHUNK_SIZE // rows.shape[1], 1)
    for start in range(0, len(rows), num_rows):
        yield range(start, min(start + num_rows, len(rows)))
