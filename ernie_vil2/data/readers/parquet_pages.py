"""What a part of a Parquet file takes in memory, told before it is decoded.

A few hundred bytes can stand for gigabytes, and what the footer says of it need not be true. Arrow goes by the headers
of the pages; so does this.
"""

from __future__ import annotations

from typing import Any

HEADER = 2**14  # bytes in which the header of a page must end
DATA, DATA_V2 = 5, 8  # fields of a page's header that hold the header of its data
DICTIONARY, DELTA_BYTE_ARRAY = (2, 8), 7  # encodings
OBJECT = 64  # bytes of a Python object, text and bytes apart
ROUGH = 2**24  # bytes that need no counting
VALUE = 16  # bytes of a value with its levels, texts and bytes apart


def decoded_size(file: Any, chunk: Any, width: int, as_dictionary: bool) -> int:
    """The most bytes that a column of a row group takes once Arrow has decoded it.

    Args:
        file: Arrow's file (`read_at`).
        chunk: the column's metadata.
        width: of a value in bytes, if it is bytes of one length; otherwise 0.
        as_dictionary: texts are read as a dictionary, in which equal values are one.

    Raises:
        ValueError: a page's header makes no sense.
    """
    place = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < place:
        place = chunk.dictionary_page_offset
    end, seen, size, largest = place + chunk.total_compressed_size, 0, 0, 0
    while place < end and seen < chunk.num_values:
        header = _Compact(file.read_at(HEADER, place))
        try:
            page = header.struct()
            unpacked, packed = page[2], page[3]
            data = page.get(DATA) or page.get(DATA_V2)
            values, encoding = (data[1], data[2 if DATA in page else 4]) if data else (0, None)
            if min(unpacked, packed, values) < 0:
                raise ValueError("sizes below zero")
        except (IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"no header of a page at byte {place}") from error
        largest = max(largest, unpacked)
        # A byte may stand for a text that is as long as a page.
        repeats = encoding == DELTA_BYTE_ARRAY or (encoding in DICTIONARY and not as_dictionary)
        size += unpacked + values * (largest if repeats and chunk.physical_type == "BYTE_ARRAY" else max(VALUE, width))
        seen += values
        place += header.place + packed
    return size


def size_in_python(array: Any) -> int:
    """Bytes that the values of an Arrow array take as Python objects, about, told without making one of them.

    A text that stands alone is not counted: it is no longer than its page.
    """
    import pyarrow.compute as pc
    from pyarrow import BaseExtensionType, types

    kind, size = array.type, OBJECT * len(array)
    if len(array) == 1 and not types.is_nested(kind):
        return size
    if isinstance(kind, BaseExtensionType):
        return size_in_python(array.storage)
    if types.is_dictionary(kind):
        if (rough := len(array) * array.dictionary.nbytes) < ROUGH:
            return size + rough
        counts = pc.value_counts(array.indices)
        lengths = pc.binary_length(array.dictionary.take(counts.field("values")))
        return size + (pc.sum(pc.multiply(lengths, counts.field("counts"))).as_py() or 0)
    if types.is_struct(kind):
        return size + sum(size_in_python(array.field(number)) for number in range(kind.num_fields))
    if types.is_nested(kind):  # lists of any kind, maps
        return size + size_in_python(array.flatten())
    if types.is_binary(kind) or types.is_string(kind) or types.is_large_binary(kind) or types.is_large_string(kind):
        return size + (pc.sum(pc.binary_length(array)).as_py() or 0)
    return size


class _Compact:
    """Reads a struct of Thrift's compact protocol as a dict by field number; texts and floats are skipped."""

    def __init__(self, data: bytes):
        self._data, self.place = data, 0

    def struct(self) -> dict[int, Any]:
        """IndexError if the data end before it does; TypeError of what is in no page's header."""
        fields, number = {}, 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._number()
            fields[number] = self._value(head & 15)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind in (3, 7):
            self.place += 1 if kind == 3 else 8
        elif kind in (4, 5, 6):
            return self._number()
        elif kind == 8:
            length = self._varint()
            self.place += length
        elif kind == 12:
            return self.struct()
        else:
            raise TypeError(kind)

    def _byte(self) -> int:
        self.place += 1
        return self._data[self.place - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) >= 128:
            value |= (byte & 127) << shift
            shift += 7
        return value | byte << shift

    def _number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
