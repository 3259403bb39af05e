"""Image files: those that a table names, and those of a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from ernie_vil2.data.samples import MAX_BYTES, BadSample, Reason, check_size, check_text
from ernie_vil2.io.files import check_ordinary

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"})


def image_files(folder: Path) -> list[Path]:
    """The files in a folder and those within it whose names end as those of images; hidden folders are left out."""
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(root, name) for name in sorted(files) if name.rpartition(".")[2].lower() in IMAGE_SUFFIXES]
    return found


def readable(path: str) -> str:
    """A path as text. Names that are not UTF-8 are read as GBK, as Chinese Windows writes them, or shown with escapes.

    Python's own form of such names cannot be written to a file, a database or an answer.
    """
    return os.sep.join(map(_readable, path.split(os.sep)))


def _readable(name: str) -> str:
    content = os.fsencode(name)
    for encoding in ("utf-8", "gbk"):
        with suppress(UnicodeDecodeError):
            return content.decode(encoding)
    return content.decode("utf-8", "backslashreplace")


def check_inside(name: str) -> None:
    """BadSample if the name of a file leads out of its folder, or is none."""
    check_text(name)
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise BadSample(Reason.OUTSIDE_FOLDER, name)


def read_image(folders: Sequence[Path], *names: str) -> bytes:
    """The bytes of `found_image`."""
    return found_image(folders, *names)[1]


def found_image(folders: Sequence[Path], *names: str) -> tuple[Path, bytes]:
    """The file of the first name that a folder has, in the first folder that has it; BadSample if none has."""
    for name in names:
        for folder in folders:
            try:
                return folder / name, read_file(folder / name)
            except FileNotFoundError:
                continue
    raise BadSample(Reason.MISSING_IMAGE, names[0])


def read_file(path: Path, most: int = MAX_BYTES) -> bytes:
    """The bytes of a file.

    Raises:
        FileNotFoundError: there is none.
        BadSample: it cannot be read, it is no ordinary file, or it is longer than `most` (as `check_size`).
    """
    try:
        check_size(check_ordinary(path).st_size, most, str(path))
        return path.read_bytes()
    except NotADirectoryError as error:
        raise FileNotFoundError(path) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadSample(Reason.UNREADABLE_FILE, f"{path} ({error.strerror})") from error
