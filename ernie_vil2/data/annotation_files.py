"""Annotation files row by row, so that a row which cannot be read is named and the others are still used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ernie_vil2.data.samples import MAX_BYTES, MAX_TEXT_BYTES
from ernie_vil2.io.files import check_ordinary, parse_json, read_text, system_errors_named

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_JSON_VALUES = 2**24
"""Of a JSON file, by its commas and brackets. The largest of the benchmarks, Karpathy's COCO, has 12 million."""


def numbered_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines that are not blank, each with its name `file:line`, without line end and byte order mark.

    Raises:
        OSError: the file cannot be read, or it is no ordinary file.
        ValueError: a line is longer than `MAX_TEXT_BYTES`.
    """
    check_ordinary(path)
    with system_errors_named(path), open(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_TEXT_BYTES + 1), b""), 1):
            if len(line) > MAX_TEXT_BYTES:
                raise ValueError(f"{path}:{number}: a line of more than {MAX_TEXT_BYTES} bytes; is it the right file?")
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            if line.strip():
                yield f"{path.name}:{number}", line.rstrip(b"\r\n")


def read_json(path: Path, kind: type) -> dict | list:
    """A whole JSON file.

    Raises:
        OSError: it cannot be read, or it is no ordinary file.
        ValueError: it is no JSON, too large or of too many values, or its top level is of another kind.
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
