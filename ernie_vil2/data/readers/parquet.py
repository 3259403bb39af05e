"""Rows of a Parquet file, in bounded memory: a few hundred bytes of one can mean gigabytes."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.data.readers.locations import LocalFile
from ernie_vil2.data.samples import MAX_BYTES, BadSample, Reason, check_size
from ernie_vil2.device.extras import require
from ernie_vil2.io.terminal import listed, print_once, shows_progress

KEPT_GROUPS = 4  # row groups that are kept in memory
MAX_GROUP_BYTES = 2**30  # of a row group, and of those that are kept
MAX_ROWS = 2**40  # of a file
MAX_PARTS = 10_000  # parts of a schema, and row groups
MAX_DEPTH = 50  # of lists and structs in each other, as of JSON and YAML
OBJECT = 64  # bytes of a Python object, text and bytes apart
ROUGH = 2**24  # bytes that need no counting
VALUE = 16  # bytes of a value with its levels, texts and bytes apart
ONCE = {"PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "RLE", "BIT_PACKED"}  # encodings that hold each text as often as it occurs


class ParquetTable:
    """Rows of a Parquet file, such as img2dataset and Hugging Face write; read by row groups.

    Texts and bytes are read as dictionaries, in which equal values are one: so they take no more memory than the pages.

    Raises:
        ValueError: it is not a Parquet file, or it has no rows.
    """

    def __init__(self, path: str | Path):
        require(f"{path}, a Parquet file,", "pyarrow")
        self.name = str(path)
        self._file, self._owner = None, os.getpid()
        self._identity = LocalFile(path).identity()
        self._groups: dict[int, Any] = {}
        metadata = self._opened().metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        if min(sizes, default=0) < 0 or sum(sizes) > MAX_ROWS:
            raise ValueError(f"{path}: not a Parquet file ({sum(sizes)} rows); is it whole?")
        if not sum(sizes):
            raise ValueError(f"{path}: no rows in this file")
        self._ends = np.cumsum(sizes, dtype=np.int64)
        schema = self._opened().schema_arrow
        self.column_names = readable_columns(schema)
        self._columns: list[str] | None = None  # of a row group that are read; None: all
        if left_out := [name for name in schema.names if name not in self.column_names]:
            self._columns = list(self.column_names)
            if shows_progress():  # once, not in every process that reads
                folder = Path(self.name).parent
                print_once(f"{folder}: columns of maps, or nested too deeply, are left out: {listed(left_out)}")
        self.release()

    def _opened(self) -> Any:
        import pyarrow as pa

        if self._file is None or self._owner != os.getpid():
            if LocalFile(self.name).identity() != self._identity:
                raise OSError(f"{self.name} has changed while in use")
            try:
                self._source = pa.OSFile(self.name)
                self._dictionaries = _dictionaries(parquet_file(self._source).metadata)
                self._file = parquet_file(self._source, self._dictionaries)
                self._owner = os.getpid()
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{self.name}: not a Parquet file ({error}); is it whole?") from error
        return self._file

    def __len__(self) -> int:
        return int(self._ends[-1])

    def describe_row(self, index: int) -> str:
        """File and row, from 0 on."""
        return f"{self.name.rpartition('/')[2]}:{index}"

    def read_row(self, index: int, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The row's columns, without those that are null; by other `names` where given. BadSample if its row group is
        damaged or too large, or a value has no meaning in Python."""
        name, group = self.describe_row(index), int(np.searchsorted(self._ends, index, side="right"))
        if group not in self._groups:
            self._groups[group] = self._read_group(group)
            few = sum(getattr(kept, "nbytes", 0) for kept in self._groups.values()) <= MAX_GROUP_BYTES
            while len(self._groups) > (KEPT_GROUPS if few else 1):
                del self._groups[next(iter(self._groups))]
        table = self._groups[group]
        if isinstance(table, Reason):
            raise BadSample(table, f"{name} (its row group)")
        start = int(self._ends[group]) - table.num_rows
        row = table.slice(index - start, 1)
        check_size(sum(size_in_python(part) for column in row.columns for part in column.chunks), MAX_BYTES, name)
        try:
            (row,) = row.to_pylist()
        except UnicodeDecodeError as error:
            raise BadSample(Reason.NOT_UTF8, name) from error
        except (ValueError, OverflowError) as error:  # times, mostly
            raise BadSample(Reason.MALFORMED_ROW, name) from error
        return {(names or {}).get(column, column): value for column, value in row.items() if value is not None}

    def _read_group(self, group: int) -> Any:
        """A row group as Arrow's table, or the reason why it cannot be used."""
        from pyarrow import ArrowException

        file = self._opened()
        metadata, size = file.metadata.row_group(group), 0
        try:
            for number in range(metadata.num_columns):
                column = file.schema.column(number)
                size += decoded_size(metadata.column(number), column.length, column.path in self._dictionaries)
            if size > MAX_GROUP_BYTES:
                return Reason.LARGE_GROUP
            # Arrow's own threads do not survive a fork.
            table = file.read_row_group(group, self._columns, use_threads=False)
            if self._columns is not None:
                table = table.select(self._columns)  # a column called m.x is read with m
            return Reason.LARGE_GROUP if table.nbytes > MAX_GROUP_BYTES else table  # a footer need not be true
        except (ArrowException, OSError, ValueError):
            return Reason.UNREADABLE_FILE

    def release(self) -> None:
        """Gives the open file and the rows in memory back."""
        self._groups = {}
        if self._file is not None:
            self._file.close()
            self._source.close()
            self._file = None

    def __reduce__(self) -> tuple:
        return ParquetTable, (self.name,)


def readable_columns(schema: Any) -> tuple[str, ...]:
    """Return the names of the columns of an Arrow schema that rows are read of: those without a map in them.

    A map is a list of pairs, whose keys may repeat: neither JSON nor a field of a sample has such a value.
    """
    return tuple(field.name for field in schema if _is_readable(field.type))


def _is_readable(kind: Any) -> bool:
    from pyarrow import BaseExtensionType, types

    # Not by recursion: a stranger's schema may be deeper than Python's stack.
    waiting = [(kind, 0)]
    while waiting:
        kind, depth = waiting.pop()
        if isinstance(kind, BaseExtensionType):
            kind = kind.storage_type
        if types.is_struct(kind):
            inner = [kind.field(number).type for number in range(kind.num_fields)]
        elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            inner = [kind.value_type]
        else:
            inner = []
            if types.is_nested(kind):
                return False
        if inner and depth == MAX_DEPTH:
            return False
        waiting += [(each, depth + 1) for each in inner]
    return True


def parquet_file(source: Any, dictionaries: Sequence[str] = ()) -> Any:
    """Arrow's `ParquetFile` of a path or file, some columns of which are read as dictionaries; errors as Arrow's."""
    from pyarrow.parquet import ParquetFile

    # A schema is a tree that Arrow goes through on the stack.
    return ParquetFile(source, read_dictionary=dictionaries, thrift_container_size_limit=MAX_PARTS)


def _dictionaries(metadata: Any) -> list[str]:
    """The columns of texts or bytes, but for those of an encoding that Arrow does not read as dictionaries."""
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    columns = [metadata.schema.column(number) for number in range(metadata.num_columns)]
    return [
        column.path
        for number, column in enumerate(columns)
        if column.physical_type == "BYTE_ARRAY"
        and not any("DELTA" in encoding for group in groups for encoding in group.column(number).encodings)
    ]


def decoded_size(chunk: Any, width: int, as_dictionary: bool) -> int:
    """The most bytes that a column of a row group takes once Arrow has decoded it, by what the footer says.

    Args:
        chunk: the column's metadata.
        width: of a value in bytes, if it is bytes of one length; otherwise 0.
        as_dictionary: texts are read as a dictionary, in which equal values are one.
    """
    unpacked = chunk.total_uncompressed_size
    # A byte may mean a text that is as long as all of them.
    repeats = chunk.physical_type == "BYTE_ARRAY" and not as_dictionary and not ONCE.issuperset(chunk.encodings)
    return unpacked + chunk.num_values * (unpacked if repeats else max(VALUE, width))


def size_in_python(array: Any) -> int:
    """About the bytes that the values of an Arrow array take as Python objects, of which none is made for this.

    A single text is not counted: it is no longer than its page.
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
    if types.is_nested(kind):  # lists of any kind; there are no maps, see `readable_columns`
        return size + size_in_python(array.flatten())
    if types.is_binary(kind) or types.is_string(kind) or types.is_large_binary(kind) or types.is_large_string(kind):
        return size + (pc.sum(pc.binary_length(array)).as_py() or 0)
    return size
