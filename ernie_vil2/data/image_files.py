"""Image files that a table names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ernie_vil2.data.rows import check_text
from ernie_vil2.data.samples import BadSample, Reason


def check_inside(name: str) -> None:
    """BadSample if the name of a file leads out of its folder, or is none."""
    check_text(name)
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise BadSample(Reason.OUTSIDE_FOLDER, name)


def read_image(folders: Sequence[Path], name: str) -> bytes:
    """The file of a name in the first folder that has it; BadSample if none has."""
    for folder in folders:
        try:
            return (folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
    raise BadSample(Reason.MISSING_IMAGE, name)
