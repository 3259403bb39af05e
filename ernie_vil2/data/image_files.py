"""Image files that a table names."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ernie_vil2.data.rows import check_text
from ernie_vil2.data.samples import MAX_BYTES, BadSample, Reason


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
            return read_file(folder / name)
        except FileNotFoundError:
            continue
    raise BadSample(Reason.MISSING_IMAGE, name)


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        FileNotFoundError: there is none.
        BadSample: it cannot be read, it is no ordinary file (a pipe would be waited for without end), or it is longer
            than `MAX_BYTES`.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise BadSample(Reason.UNREADABLE_FILE, f"{path} (not an ordinary file)")
        if found.st_size > MAX_BYTES:
            raise BadSample(Reason.TOO_LARGE, str(path))
        return path.read_bytes()
    except NotADirectoryError as error:
        raise FileNotFoundError(path) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadSample(Reason.UNREADABLE_FILE, f"{path} ({error.strerror})") from error
