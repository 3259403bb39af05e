"""Files of data sets on a local disk: annotations row by row, and images.

An error names the row or image that cannot be read; the others are still used.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from ernie_vil2.data.samples import MAX_BYTES, MAX_TEXT_BYTES, BadSample, Reason, check_size, check_text, is_id
from ernie_vil2.io.files import add_path_to_errors, parse_json, read_text, stat_regular_file
from ernie_vil2.io.terminal import print_once

T = TypeVar("T")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Limit of a JSON file's values, counted by its commas and brackets, which bounds the memory of the Python objects. The
# largest benchmark, Karpathy's COCO, has 12 million.
MAX_JSON_VALUES = 2**24

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"})


def read_numbered_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the lines that are not blank, each with its name `file:line`, without line end and byte order mark.

    Raises:
        OSError: the file cannot be read, or it is not an ordinary file.
        ValueError: a line is longer than `MAX_TEXT_BYTES`.
    """
    stat_regular_file(path)
    with add_path_to_errors(path), path.open("rb") as file:
        number = 0
        # One byte more than allowed, to see that a line is too long without reading all of it.
        while line := file.readline(MAX_TEXT_BYTES + 1):
            number += 1
            if len(line) > MAX_TEXT_BYTES:
                raise ValueError(f"{path}:{number}: a line of more than {MAX_TEXT_BYTES} bytes; is it the right file?")
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            if line.strip():
                yield f"{path.name}:{number}", line.rstrip(b"\r\n")


def read_json(path: Path, kind: type[T]) -> T:
    """Read a whole JSON file whose top level is of type `kind`.

    Raises:
        OSError: the file cannot be read, or it is not an ordinary file.
        ValueError: the file is not JSON, it is too large or has too many values, or its top level is of another type.
    """
    text = read_text(path, MAX_BYTES)
    num_values = text.count(",") + text.count("[") + text.count("{")
    if num_values > MAX_JSON_VALUES:
        raise ValueError(f"{path}: more than {MAX_JSON_VALUES:,} values; is this the right file?")
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error}); is the download whole?") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path}: the top level is a {type(content).__name__}, where a {kind.__name__} is expected")
    return content


def open_embeddings(path: Path) -> np.ndarray:
    """Open a `.npy` file of embeddings `[rows, width]` as a memory map.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is not an ordinary file, or holds something else.
    """
    try:
        stat_regular_file(path)  # NumPy would wait for the writer of a pipe
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a whole .npy file of numbers ({error}); extract again") from error
    if array.ndim != 2 or array.dtype.kind != "f":
        raise ValueError(f"{path}: {array.dtype} of shape {array.shape}; embeddings are float32 [rows, width]")
    return array


def check_widths(location: str | Path, images: np.ndarray, texts: np.ndarray) -> None:
    """Raise ValueError, with the folder or file, if embeddings of images and texts have different widths."""
    if images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"{location}: image embeddings are {images.shape[1]} wide, text embeddings {texts.shape[1]}; both must "
            "come from one model"
        )


def extract_values(row: object, name: str, *ids: str, **types: type) -> list[Any]:
    """Return values of a JSON object by their keys.

    Args:
        row: the object.
        name: name of the row, for the error.
        ids: keys of ids, which are returned as texts.
        types: types of further values, by key.

    Raises:
        BadSample: the row is not an object, or a value is missing or of another type.
    """
    if not isinstance(row, dict):
        raise BadSample(Reason.MALFORMED_ROW, name)
    for key, expected_type in types.items():
        if not isinstance(row.get(key), expected_type):
            raise BadSample(Reason.MALFORMED_ROW, name)
    for key in ids:
        if not is_id(row.get(key)):
            raise BadSample(Reason.MALFORMED_ROW, name)
    return [str(row[key]) for key in ids] + [row[key] for key in types]


def list_image_files(folder: Path) -> list[Path]:
    """Return the files with a suffix of images in a folder and its subfolders, in order.

    Names that begin with a dot are skipped: archives from macOS hold a `._1.jpg` that is no image for each `1.jpg`.
    A folder that cannot be read is skipped with a warning: on many disks there is a `lost+found`.
    """

    def warn(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            print_once(f"warning: {error.filename}: {error.strerror}; images in it are left out")

    paths = []
    for root, folders, files in os.walk(folder, onerror=warn):
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # os.walk enters what is left here
        for name in sorted(files):
            if not name.startswith(".") and name.rpartition(".")[2].lower() in IMAGE_SUFFIXES:
                paths.append(Path(root, name))
    return paths


def decode_path(path: str) -> str:
    """Return a path as a text that can be written to a file, a database or an answer.

    Python's own form of a name that is not UTF-8 cannot. Such names are decoded as GBK, in which Chinese Windows writes
    them, or else shown with escapes.
    """
    return os.sep.join(map(_decode_name, path.split(os.sep)))  # noqa: PTH118, PTH206  -- a text to show


def _decode_name(name: str) -> str:
    content = os.fsencode(name)
    for encoding in ("utf-8", "gbk"):
        with suppress(UnicodeDecodeError):
            return content.decode(encoding)
    return content.decode("utf-8", "backslashreplace")


def check_inside(name: str) -> None:
    """Raise BadSample if a relative path is empty or leads out of its folder."""
    check_text(name)
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise BadSample(Reason.OUTSIDE_FOLDER, name)


def read_first_image(folders: Sequence[Path], *names: str) -> tuple[Path, bytes]:
    """Read the first image that exists, trying each name in all folders before the next name.

    Returns:
        The path of the image, and its bytes.

    Raises:
        BadSample: no folder has an image of these names, or it cannot be read.
    """
    for name in names:
        for folder in folders:
            try:
                return folder / name, read_file(folder / name)
            except FileNotFoundError:
                continue
    raise BadSample(Reason.MISSING_IMAGE, names[0])


def read_file(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a file.

    Raises:
        FileNotFoundError: there is no such file.
        BadSample: the file cannot be read, is not an ordinary file, or is longer than `max_bytes` (as `check_size`).
    """
    try:
        check_size(stat_regular_file(path).st_size, max_bytes, str(path))
        return path.read_bytes()
    except BadSample:
        raise
    except (NotADirectoryError, ValueError) as error:  # ValueError: no file has such a name, as with a zero byte
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadSample(Reason.UNREADABLE_FILE, f"{path} ({error.strerror})") from error
