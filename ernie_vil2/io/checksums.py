"""`checksums.json`: bytes and SHA-256 of the other files of a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from ernie_vil2.io.files import is_count, load_json

CHECKSUMS = "checksums.json"
MAX_CHARACTERS = 2**20


class DamagedFile(ValueError):
    """A file is not the one that was written; the message says which, and how it differs."""


def sha256(path: Path) -> str:
    """The checksum of a file, as `sha256sum` prints it: about a second for a gigabyte."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Writes the checksums of these files of a folder beside them."""
    sums = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in names}
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")


def check_files(folder: Path, names: Iterable[str]) -> None:
    """Compares these files of a folder with their checksums.

    Raises:
        DamagedFile: one is missing or another than was written, or there are no checksums of it.
    """
    try:
        sums = load_json(folder / CHECKSUMS, MAX_CHARACTERS)
        expected = {name: (sums[name]["bytes"], sums[name]["sha256"]) for name in names}
    except FileNotFoundError:
        raise DamagedFile(f"{CHECKSUMS} is missing") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise DamagedFile(f"{CHECKSUMS} cannot be read") from None
    for name, (size, checksum) in expected.items():
        path = folder / name
        if not path.is_file():
            raise DamagedFile(f"{name} is missing")
        if path.stat().st_size != size:
            wanted = f"{size:,}" if is_count(size, 0, 2**63) else f"what {CHECKSUMS} says"
            raise DamagedFile(f"{name} has {path.stat().st_size:,} bytes instead of {wanted}")
        if sha256(path) != checksum:
            raise DamagedFile(f"{name} differs from its SHA-256 checksum")
