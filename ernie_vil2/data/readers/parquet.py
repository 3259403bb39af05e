"""Rows of a Parquet file, read in bounded memory: a few hundred bytes of such a file can expand to gigabytes."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ernie_vil2.data.readers.locations import LocalFile
from ernie_vil2.data.samples import MAX_BYTES, BadSample, Reason, check_size
from ernie_vil2.device.extras import require
from ernie_vil2.io.terminal import join_names, print_once, should_show_progress

# Row groups in memory. If rows of more groups are read in turn, a whole group is read again for each row.
MAX_CACHED_GROUPS = 4
MAX_GROUP_BYTES = 2**30  # of a row group in memory, and of the cached ones of a file; larger groups are rejected
# Of the cached groups of all files in a process. A source has up to 128 files open: without this bound, row groups
# would fill the memory in the course of an epoch. A smaller one would have row groups read again and again if the rows
# of a shuffled window are in more of them.
MAX_PROCESS_BYTES = MAX_CACHED_GROUPS * MAX_GROUP_BYTES

# Bounds against files that were made to exhaust the memory or the stack.
MAX_ROWS = 2**40  # of a file
MAX_SCHEMA_ITEMS = 10_000  # items of a list in the footer, such as schema elements and row groups
MAX_DEPTH = 50  # nesting of lists and structs

# Estimates of memory.
OBJECT_BYTES = 64  # of a Python object, without the content of texts and bytes
VALUE_BYTES = 16  # of an Arrow value with its levels, without the content of texts and bytes
SMALL_BYTES = 2**24  # an upper bound below this is taken as the estimate, without counting
# Encodings that store a text as often as it occurs. Others may store it once for many rows.
UNSHARED_ENCODINGS = {"PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "RLE", "BIT_PACKED"}


class ParquetTable:
    """Rows of a Parquet file, such as img2dataset and Hugging Face write, read by row groups.

    Texts and bytes are read as Arrow dictionaries, in which equal values are stored once. So they take no more memory
    than the pages of the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is no Parquet file, has no rows, or has two columns of one name.
    """

    def __init__(self, path: str | Path):
        require(f"{path}, a Parquet file,", "pyarrow")  # the subject of an error's sentence
        self.name = str(path)
        self._file: Any = None
        self._process_id = os.getpid()  # process that opened the file
        self._identity = LocalFile(path).identity()
        self._groups: dict[int, Any] = {}  # Arrow's tables, or the reasons why groups cannot be used
        metadata = self._open().metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        if min(sizes, default=0) < 0 or sum(sizes) > MAX_ROWS:
            raise ValueError(f"{path}: not a Parquet file ({sum(sizes)} rows); is it whole?")
        if not sum(sizes):
            raise ValueError(f"{path}: no rows in this file")
        self._ends = np.cumsum(sizes, dtype=np.int64)  # row after each row group

        # Decide which columns are read.
        schema = self._open().schema_arrow
        repeated_names = [name for name, count in Counter(schema.names).items() if count > 1]
        if repeated_names:
            raise ValueError(f"{path}: several columns are called {repeated_names[0]}; rename all but one of them")
        self.column_names = find_readable_columns(schema)
        self._columns: list[str] | None = None  # columns of a row group to read; None: all
        unreadable_columns = [name for name in schema.names if name not in self.column_names]
        if unreadable_columns:
            self._columns = list(self.column_names)
            if should_show_progress():  # not in other ranks and loader processes, which would all repeat it
                folder = Path(self.name).parent
                print_once(
                    f"{folder}: columns of maps, or nested too deeply, are left out: {join_names(unreadable_columns)}"
                )
        self.release()  # a source may have thousands of files; a file is opened again when a row is read

    def _open(self) -> Any:
        """Return the open file.

        Raises:
            OSError: the file cannot be read, or it has changed since it was opened first.
            ValueError: it is no Parquet file.
        """
        import pyarrow as pa

        # Arrow's file does not survive a fork.
        if self._file is None or self._process_id != os.getpid():
            if LocalFile(self.name).identity() != self._identity:
                raise OSError(f"{self.name} has changed while in use")
            self._source = pa.OSFile(self.name)
            try:
                # Arrow wants the dictionary columns when it opens the file, and only the file's footer tells them.
                metadata = open_parquet(self._source).metadata
                self._dictionary_columns = _find_dictionary_columns(metadata)
                self._file = open_parquet(self._source, self._dictionary_columns)
                self._process_id = os.getpid()
            except UnicodeDecodeError as error:
                raise ValueError(f"{self.name}: the name of a column is not UTF-8; write the file again") from error
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{self.name}: not a Parquet file ({error}); is it whole?") from error
        return self._file

    def __len__(self) -> int:
        return int(self._ends[-1])

    def describe_row(self, index: int) -> str:
        """Return file and row, counted from 0."""
        return f"{self.name.rpartition('/')[2]}:{index}"

    def read_row(self, index: int, names: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the values of a row that are not null, by the names of their columns.

        Args:
            index: number of the row.
            names: new names for some columns, by their names in the file.

        Raises:
            BadSample: its row group is damaged or too large, or Python cannot represent a value.
        """
        name = self.describe_row(index)
        group = int(np.searchsorted(self._ends, index, side="right"))
        table = self._get_group(group)
        if isinstance(table, Reason):
            raise BadSample(table, f"{name} (its row group)")

        # Estimate the size first: a row of a few bytes can expand to gigabytes of Python objects.
        start = int(self._ends[group]) - table.num_rows
        arrow_row = table.slice(index - start, 1)
        num_bytes = 0
        for column in arrow_row.columns:
            num_bytes += sum(map(estimate_python_bytes, column.chunks))
        check_size(num_bytes, MAX_BYTES, name)
        try:
            (row,) = arrow_row.to_pylist()
        except UnicodeDecodeError as error:
            raise BadSample(Reason.NOT_UTF8, name) from error
        # Such as a date after the year 9999, or a time in a zone that does not exist.
        except (ValueError, OverflowError, LookupError) as error:
            raise BadSample(Reason.MALFORMED_ROW, name) from error
        names = names or {}
        return {names.get(column, column): value for column, value in row.items() if value is not None}

    def _get_group(self, group: int) -> Any:
        """Return a row group as `_read_group` does, from the cache if it is there.

        A new row group displaces the oldest ones, of this file and of others, so that the limits of number and memory
        hold.
        """
        cached_group = self._groups.get(group)
        if cached_group is not None:
            return cached_group
        new_group = self._read_group(group)
        self._groups[group] = new_group
        max_groups = MAX_CACHED_GROUPS if self._count_cached_bytes() <= MAX_GROUP_BYTES else 1
        while len(self._groups) > max_groups:
            oldest_group = next(iter(self._groups))
            del self._groups[oldest_group]
        _release_other_groups(self, self._count_cached_bytes())
        return new_group

    def _count_cached_bytes(self) -> int:
        return sum(table.nbytes for table in self._groups.values() if not isinstance(table, Reason))

    def _read_group(self, group: int) -> Any:
        """Return a row group as Arrow's table, or the reason why it cannot be used."""
        from pyarrow import ArrowException

        file = self._open()
        metadata = file.metadata.row_group(group)
        try:
            size = 0
            for number in range(metadata.num_columns):
                column = file.schema.column(number)
                is_dictionary = column.path in self._dictionary_columns
                size += estimate_decoded_bytes(metadata.column(number), column.length, is_dictionary)
            if size > MAX_GROUP_BYTES:
                return Reason.LARGE_GROUP
            # Arrow's own threads do not survive a fork.
            table = file.read_row_group(group, self._columns, use_threads=False)
            if self._columns is not None:
                table = table.select(self._columns)  # a column called m.x is read along with m
            # The footer, from which rows and size were computed, need not be true.
            if table.num_rows != metadata.num_rows:
                return Reason.UNREADABLE_FILE
            return Reason.LARGE_GROUP if table.nbytes > MAX_GROUP_BYTES else table
        except (ArrowException, OSError, ValueError):
            return Reason.UNREADABLE_FILE

    def release(self) -> None:
        """Close the file and free the rows in memory."""
        self._groups = {}
        _bytes_by_table.pop(self, None)
        if self._file is not None:
            self._file.close()
            self._source.close()
            self._file = None

    def __reduce__(self) -> tuple:
        return ParquetTable, (self.name,)


# Bytes of the cached row groups of each table, the one whose last row group was read first in front.
_bytes_by_table: WeakKeyDictionary[ParquetTable, int] = WeakKeyDictionary()


def _release_other_groups(table: ParquetTable, num_bytes: int) -> None:
    """Release the oldest row groups of other tables if those in memory exceed `MAX_PROCESS_BYTES` together.

    Args:
        table: the table that has just read a row group.
        num_bytes: bytes of its row groups in memory.
    """
    _bytes_by_table.pop(table, None)  # to the end
    _bytes_by_table[table] = num_bytes
    excess = sum(_bytes_by_table.values()) - MAX_PROCESS_BYTES
    for other_table in list(_bytes_by_table):
        if excess <= 0 or other_table is table:
            break
        # Another thread may release it at the same time, or be reading: it has the row group that it needs.
        excess -= _bytes_by_table.pop(other_table, 0)
        other_table._groups = {}


def find_readable_columns(schema: Any) -> tuple[str, ...]:
    """Return the columns of an Arrow schema that are read: all without maps, unions or more than MAX_DEPTH levels.

    A map is a list of pairs whose keys may repeat. Neither JSON nor a field of a sample has such a value.
    """
    return tuple(field.name for field in schema if _is_readable(field.type))


def _is_readable(arrow_type: Any) -> bool:
    from pyarrow import BaseExtensionType, types

    # A loop instead of recursion: the schema of a stranger's file may be deeper than Python's stack.
    stack = [(arrow_type, 0)]
    while stack:
        arrow_type, depth = stack.pop()
        if isinstance(arrow_type, BaseExtensionType):
            arrow_type = arrow_type.storage_type
        if types.is_struct(arrow_type):
            children = [arrow_type.field(number).type for number in range(arrow_type.num_fields)]
        elif types.is_list(arrow_type) or types.is_large_list(arrow_type) or types.is_fixed_size_list(arrow_type):
            children = [arrow_type.value_type]
        elif types.is_nested(arrow_type):  # maps, unions, list views
            return False
        else:
            children = []
        if children and depth == MAX_DEPTH:
            return False
        stack += [(child, depth + 1) for child in children]
    return True


def open_parquet(source: Any, dictionary_columns: Sequence[str] = ()) -> Any:
    """Open a path or file as Arrow's `ParquetFile`, which reads some columns as dictionaries; raise Arrow's errors."""
    from pyarrow.parquet import ParquetFile

    # Arrow walks through the schema, a tree, by recursion. The limit keeps its stack from overflowing.
    return ParquetFile(source, read_dictionary=dictionary_columns, thrift_container_size_limit=MAX_SCHEMA_ITEMS)


def _find_dictionary_columns(metadata: Any) -> list[str]:
    """Return the columns of texts or bytes whose encodings Arrow can read as dictionaries."""
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    names: list[str] = []
    for number in range(metadata.num_columns):
        column = metadata.schema.column(number)
        if column.physical_type != "BYTE_ARRAY":
            continue
        encodings: set[str] = set()
        for group in groups:
            encodings.update(group.column(number).encodings)
        if not any("DELTA" in encoding for encoding in encodings):
            names.append(column.path)
    return names


def estimate_decoded_bytes(chunk: Any, width: int, is_dictionary: bool) -> int:
    """Return the most bytes that a column of a row group takes once Arrow has decoded it, according to the footer.

    Args:
        chunk: metadata of the column in the row group.
        width: bytes of a value, if all have the same length; otherwise 0.
        is_dictionary: texts are read as a dictionary, in which equal values are stored once.
    """
    stored_bytes = chunk.total_uncompressed_size
    # If a text is stored once for many rows, each value may be as long as all stored bytes together.
    is_repeated = (
        chunk.physical_type == "BYTE_ARRAY" and not is_dictionary and not UNSHARED_ENCODINGS.issuperset(chunk.encodings)
    )
    bytes_per_value = stored_bytes if is_repeated else max(VALUE_BYTES, width)
    return stored_bytes + chunk.num_values * bytes_per_value


def estimate_python_bytes(array: Any) -> int:
    """Return about how many bytes the values of an Arrow array take as Python objects, without making them.

    The content of a single text is not counted: it is no longer than its page, which Arrow holds in memory already.
    """
    import pyarrow.compute as pc
    from pyarrow import BaseExtensionType, types

    arrow_type = array.type
    # An extension, such as a tensor, becomes the values of its storage, which may be a list.
    if isinstance(arrow_type, BaseExtensionType):
        return estimate_python_bytes(array.storage)
    size = OBJECT_BYTES * len(array)
    if len(array) == 1 and not types.is_nested(arrow_type):
        return size
    if types.is_dictionary(arrow_type):
        upper_bound = len(array) * array.dictionary.nbytes
        if upper_bound < SMALL_BYTES:
            return size + upper_bound
        counts = pc.value_counts(array.indices)
        lengths = pc.binary_length(array.dictionary.take(counts.field("values")))
        content_bytes = pc.sum(pc.multiply(lengths, counts.field("counts"))).as_py()
        return size + (content_bytes or 0)  # None if all values are null
    if types.is_struct(arrow_type):
        return size + sum(estimate_python_bytes(array.field(number)) for number in range(arrow_type.num_fields))
    if types.is_nested(arrow_type):  # lists of any kind; `find_readable_columns` excludes maps
        return size + estimate_python_bytes(array.flatten())
    is_text = types.is_string(arrow_type) or types.is_large_string(arrow_type)
    if is_text or types.is_binary(arrow_type) or types.is_large_binary(arrow_type):
        content_bytes = pc.sum(pc.binary_length(array)).as_py()
        return size + (content_bytes or 0)  # None if all values are null
    return size
