"""A digest that tells the content of a shard from another's of the same name, without reading all of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import chain
from pathlib import Path

PART = 16_384
"""Bytes that are read at the beginning, in the middle and at the end of a file."""


def fingerprint(paths: Sequence[Path]) -> bytes:
    """Of the files and folders of a shard, 16 bytes; empty for none, as of an address, which would have to be fetched.

    A file's digest is of its size and three parts. A folder's is of its files' names and sizes, and of three of them.

    Raises:
        OSError: a file cannot be read.
    """
    if not paths:
        return b""
    content = blake2b(digest_size=16)
    for path in paths:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file() and not _is_skipped(file.name))
            for file in files:
                content.update(f"{file.relative_to(path)}\t{file.stat().st_size}\n".encode("utf-8", "surrogateescape"))
            files = [files[0], files[len(files) // 2], files[-1]] if files else []
        for part in chain.from_iterable(map(_parts, files)):
            content.update(part)
    return content.digest()


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name == "lock.mdb"  # which LMDB writes when it reads


def _parts(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        yield size.to_bytes(8, "little")
        for start in (0, size // 2, max(0, size - PART)):
            yield os.pread(file.fileno(), PART, start)
