"""What a scan of a shard found, kept so that a restart does not read the data again."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np

from ernie_vil2.files import atomic_write
from ernie_vil2.hub import cache_folder

Index = dict[str, np.ndarray]
CHECKSUM = 16  # bytes that stand before the arrays; the archive's own leaves its table of contents out
VERSION = 2  # of what the scans write; another one is scanned anew
WORTH_KEEPING = 0.5  # seconds; a scan that is quicker is repeated instead


def cached_index(kind: str, identity: str, scan: Callable[[], Index]) -> Index:
    """The index of a shard: from the cache folder, or from a scan, which is kept there if it took long.

    Args:
        kind: of index, so that two readers of one file do not meet.
        identity: of the file and its content (`Location.identity`).
    """
    key = blake2b(f"{VERSION} {kind} {identity}".encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    path = cache_folder() / "indexes" / key
    with suppress(OSError):  # a cache that cannot be read only costs time
        kept = path.read_bytes()
        content = kept[CHECKSUM:]
        if kept[:CHECKSUM] == _checksum(content):  # otherwise it is damaged: as if it were not there
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                return dict(stored)
    start = time.monotonic()
    index = scan()
    if time.monotonic() - start > WORTH_KEEPING:
        _keep(path, index)
    return index


def _keep(path: Path, index: Index) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.savez(content, **index)
        with atomic_write(path) as aside, open(aside, "wb") as file:
            file.write(_checksum(content.getbuffer()))
            file.write(content.getbuffer())
    except OSError:  # as above
        pass


def _checksum(content: bytes | memoryview) -> bytes:
    return blake2b(content, digest_size=CHECKSUM).digest()


def pack_names(names: list[str]) -> Index:
    """Texts as two arrays: their UTF-8 bytes in one row, and where each ends."""
    encoded = [name.encode("utf-8", "backslashreplace") for name in names]
    ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
    return {"name_bytes": np.frombuffer(b"".join(encoded), np.uint8), "name_ends": ends}


def unpack_name(index: Index, row: int) -> str:
    """A text of `pack_names` by its number."""
    ends = index["name_ends"]
    return index["name_bytes"][ends[row - 1] if row else 0 : ends[row]].tobytes().decode()
