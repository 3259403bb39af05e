"""Files of lines: TSV and JSON lines."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from itertools import accumulate
from typing import BinaryIO, ClassVar

import numpy as np

from ernie_vil2.data.annotation_files import BYTE_ORDER_MARK
from ernie_vil2.data.readers.indexed_file import Index, IndexedFile
from ernie_vil2.data.samples import MAX_BYTES, MAX_TEXT_BYTES, BadSample, Reason

PIECE = 2**20  # bytes of a line that are looked at together
MAX_LINE = 2**29  # bytes; a line of less, but too many for a row, is a bad sample
MAX_COLUMNS = 1000  # more are left together


class Lines(IndexedFile):
    """Lines of a file by number, found by offset: a line that holds an image can be megabytes long.

    Raises:
        ValueError: the file is empty.
    """

    kind = "lines"
    longest: ClassVar[int] = MAX_BYTES

    def _scan(self) -> Index:
        with self.location.open() as file:
            bounds = np.fromiter(accumulate((size for size, _ in measured_lines(file, self.name)), initial=0), np.int64)
        if len(bounds) == 1:
            raise ValueError(f"{self.name}: no rows in this file; is it whole?")
        return {"bounds": bounds}

    def _rows(self, index: Index) -> int:
        return len(index["bounds"]) - 1

    def row_name(self, index: int) -> str:
        """File and line, for a person who looks for the row."""
        return f"{self.name.rpartition('/')[2]}:{index + 1}"

    def line(self, index: int, first: int | None = None) -> bytes:
        """A line without its end and without byte order mark; `first` reads that many of its bytes alone.

        Raises:
            BadSample: it is too long (`check_size`).
        """
        start, end = self.index["bounds"][index : index + 2].tolist()
        size = end - start if first is None else min(first, end - start)
        line = self._bytes(start, size, Lines.row_name(self, index), self.longest)
        return (line if index else line.removeprefix(BYTE_ORDER_MARK)).rstrip(b"\r\n")

    def columns(self, index: int, first: int | None = None) -> list[bytes]:
        """The columns of a TSV line; `first` reads that many of its bytes alone, so that the last column is cut."""
        return self.line(index, first).split(b"\t", MAX_COLUMNS)


class TextLines(Lines):
    """Lines without images."""

    longest = MAX_TEXT_BYTES


def measured_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, bool]]:
    """Bytes of each line, its end included, and whether it is blank; a line of any length takes little memory.

    Raises:
        ValueError: a line does not end, as in a file that is no text.
    """
    size, blank = 0, True
    while piece := file.readline(PIECE):
        size += len(piece)
        if size > MAX_LINE:
            raise ValueError(f"{name}: a line of more than {MAX_LINE >> 20} MiB; is it a text file?")
        blank = blank and piece.isspace()
        if piece.endswith(b"\n"):
            yield size, blank
            size, blank = 0, True
    if size:
        yield size, blank


def decode_base64(text: bytes, name: str) -> bytes:
    """What base64 stands for, in the standard or the URL-safe alphabet, with blanks; BadSample if it is none."""
    # b64decode drops characters that it does not know unless told to validate.
    text = text.replace(b"-", b"+").replace(b"_", b"/")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:  # blanks, perhaps; looking for them in every image would take half as long as decoding it
        try:
            return base64.b64decode(b"".join(text.split()), validate=True)
        except binascii.Error as error:
            raise BadSample(Reason.MALFORMED_BASE64, name) from error
