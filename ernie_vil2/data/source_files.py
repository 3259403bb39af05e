"""Files of a data set as they lie on disk: annotations row by row, and images.

A row or an image that cannot be read is named, and the others are still used.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from ernie_vil2.data.samples import MAX_BYTES, MAX_TEXT_BYTES, BadSample, Reason, check_size, check_text, is_id
from ernie_vil2.io.files import check_ordinary, parse_json, read_text, system_errors_named

T = TypeVar("T")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_JSON_VALUES = 2**24
"""Of a JSON file, by its commas and brackets. The largest of the benchmarks, Karpathy's COCO, has 12 million."""
IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff"})


def numbered_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines that are not blank, each with its name `file:line`, without line end and byte order mark.

    Raises:
        OSError: the file cannot be read, or it is not an ordinary file.
        ValueError: a line is longer than `MAX_TEXT_BYTES`.
    """
    check_ordinary(path)
    with system_errors_named(path), path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_TEXT_BYTES + 1), b""), 1):
            if len(line) > MAX_TEXT_BYTES:
                raise ValueError(f"{path}:{number}: a line of more than {MAX_TEXT_BYTES} bytes; is it the right file?")
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            if line.strip():
                yield f"{path.name}:{number}", line.rstrip(b"\r\n")


def read_json(path: Path, kind: type[T]) -> T:
    """A whole JSON file.

    Raises:
        OSError: it cannot be read, or it is not an ordinary file.
        ValueError: it is not JSON, too large or of too many values, or its top level is of another kind.
    """
    text = read_text(path, MAX_BYTES)
    values = sum(map(text.count, ",[{"))
    if values > MAX_JSON_VALUES:
        raise ValueError(f"{path}: more than {MAX_JSON_VALUES:,} values; is this the right file?")
    try:
        content = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error}); is the download whole?") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path}: the top level is a {type(content).__name__}, where a {kind.__name__} is expected")
    return content


def open_embeddings(path: Path) -> np.ndarray:
    """A `.npy` file of embeddings, `[rows, width]`, as a memory map; errors name it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds something else.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a whole .npy file of numbers ({error}); extract again") from error
    if array.ndim != 2 or array.dtype.kind != "f":
        raise ValueError(f"{path}: {array.dtype} of shape {array.shape}; embeddings are float32 [rows, width]")
    return array


def check_widths(where: str | Path, images: np.ndarray, texts: np.ndarray) -> None:
    """ValueError, which names the folder or file, if embeddings of images and of texts are not of one width."""
    if images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"{where}: image embeddings are {images.shape[1]} wide, text embeddings {texts.shape[1]}; both must come "
            "from one model"
        )


def values_of(row: object, where: str, *ids: str, **kinds: type) -> list[Any]:
    """The values of a JSON object: ids, as texts, and those of the given types, by their keys.

    BadSample if it is not an object, or does not hold these.
    """
    if not isinstance(row, dict) or not all(isinstance(row.get(key), kind) for key, kind in kinds.items()):
        raise BadSample(Reason.MALFORMED_ROW, where)
    if not all(is_id(row.get(key)) for key in ids):
        raise BadSample(Reason.MALFORMED_ROW, where)
    return [*(str(row[key]) for key in ids), *(row[key] for key in kinds)]


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
    return os.sep.join(map(_readable, path.split(os.sep)))  # noqa: PTH118, PTH206  -- a text to show


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


def found_image(folders: Sequence[Path], *names: str) -> tuple[Path, bytes]:
    """The file of the first name that a folder has, in the first folder that has it, with its bytes; else BadSample."""
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
        BadSample: it cannot be read, it is not an ordinary file, or it is longer than `most` (as `check_size`).
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
