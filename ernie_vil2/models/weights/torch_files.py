"""Read and write PyTorch's files (`.bin`, `.pt`, `.pth`) without PyTorch, and without running what they hold.

Since version 1.6 PyTorch writes a zip archive. It stores, uncompressed, a pickle `data.pkl`, and a file of numbers for
each storage that the pickle names. `io.restricted_pickle` reads the pickle; arrays are views of the mapped file. Older
files, which are several pickles in a row, and TorchScript archives, which hold code, are refused with a message that
names their kind.
"""

import math
import mmap
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ernie_vil2.io.files import add_path_to_errors, stat_regular_file
from ernie_vil2.io.restricted_pickle import NotPlainData, load_plain_data
from ernie_vil2.io.terminal import make_printable

TORCH_SUFFIXES = (".pt", ".pth")  # of checkpoints; a state dict is in a `.bin`
OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of files by PyTorch before 1.6: a pickle of their magic number."""
MAX_DIRECTORY_BYTES = 16 << 20  # of the archive's table of files; a model of a thousand arrays has about 100,000
MAX_PICKLE_BYTES = 64 << 20  # bounds the memory that unpickling takes
MAX_AXES = 16  # of a tensor; more than any weight has, and fewer than NumPy's limit
BFLOAT16 = np.dtype("V2")  # stands for bfloat16, which NumPy does not have: two bytes
_STORAGE_TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}

# Signatures of a zip archive.
_FILE_HEADER = b"PK\x03\x04"
_DIRECTORY_END = b"PK\x05\x06"
_LOCATOR_64 = b"PK\x06\x07"
# Keys under which a checkpoint holds the state dict: in most projects, in PE-Core, and (the last two) in EVA-CLIP.
_STATE_KEYS = ("state_dict", "weights", "model", "module")


class _StorageType:
    """Type of a storage; a pickle may name it as an argument, but not call it."""

    def __init__(self, dtype: Any):
        self.dtype = np.dtype(dtype)

    def __call__(self, *_: Any) -> Any:
        raise NotPlainData("a call of a type of storage, which may only be named as an argument")


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of a state dict, or of the one within a checkpoint, see `_STATE_KEYS`.

    Returns:
        Arrays by name, without the `module.` that data parallel puts before all names; bfloat16 as `BFLOAT16`.

    Raises:
        NotPlainData: the file is of another kind, damaged, or holds more than plain data.
    """
    stat_regular_file(path)
    with add_path_to_errors(path), Path(path).open("rb") as file:
        file_size = file.seek(0, 2)
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    value = _Archive(Path(path), content, file_size).unpickle()
    entries = value
    if isinstance(value, dict):
        entries = next((value[key] for key in _STATE_KEYS if isinstance(value.get(key), dict)), value)
    if not isinstance(entries, dict):
        raise NotPlainData(f"it holds no dict of arrays but a {type(entries).__name__}")

    arrays = {str(name): entry for name, entry in entries.items() if isinstance(entry, np.ndarray)}
    if not arrays:
        names = [make_printable(str(name), max_length=100) for name in list(entries)[:5]]
        raise NotPlainData(f"no arrays at its top level or in state_dict, only {', '.join(names) or 'nothing'}")
    # Tied weights are listed twice; a file with more copies was made to fill the memory.
    if sum(array.nbytes for array in arrays.values()) > 2 * file_size:
        raise NotPlainData("its arrays share their content, and together are more than twice as large as the file")
    # Data parallel trains a wrapper, which holds the model as `module`.
    if all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    return arrays


def write_torch(path: str | Path, arrays: Mapping[str, np.ndarray], is_checkpoint: bool) -> None:
    """Write arrays as `torch.save` writes tensors; `torch.load` reads them, also with `weights_only`.

    Args:
        path: file to write.
        arrays: arrays by name.
        is_checkpoint: whether to write a checkpoint as Chinese-CLIP's data-parallel training does: the arrays are its
            `state_dict`, and `module.` precedes each name. Otherwise the file is the state dict itself.
    """
    prefix = "module." if is_checkpoint else ""
    named_arrays = {f"{prefix}{name}": array for name, array in arrays.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:

        def write(name: str, content: bytes | memoryview) -> None:
            # A ZipInfo of our own has no time of writing, so that equal weights give equal files.
            with archive.open(zipfile.ZipInfo(f"archive/{name}"), "w", force_zip64=True) as file:
                file.write(content)

        write("data.pkl", _pickle_state(named_arrays, is_checkpoint))
        write("byteorder", b"little")
        for number, array in enumerate(arrays.values()):
            write(f"data/{number}", np.ascontiguousarray(array).reshape(-1).view("u1").data)
        write("version", b"3\n")


def _pickle_state(arrays: Mapping[str, np.ndarray], is_checkpoint: bool) -> bytes:
    """Return the pickle of a state dict; the content of array number n is in the file `data/n`.

    It is written opcode by opcode, because Python's pickle names a class such as torch.FloatStorage only if it can be
    imported. The protocol is 2, as in PyTorch.
    """
    type_names = {np.dtype(cast(Any, dtype)): type_name for type_name, dtype in _STORAGE_TYPES.items()}
    opcodes = [pickle.EMPTY_DICT, pickle.MARK]
    for number, (name, array) in enumerate(arrays.items()):
        strides = []
        if array.ndim:
            strides = np.cumprod([1, *array.shape[:0:-1]])[::-1].tolist()
        # name: _rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)
        opcodes += [
            _pickle_text(name),
            _pickle_global("torch._utils", "_rebuild_tensor_v2"),
            pickle.MARK,
            # The storage is a persistent id: ("storage", its type, its file, its device, its count of numbers).
            pickle.MARK,
            _pickle_text("storage"),
            _pickle_global("torch", type_names[array.dtype]),
            _pickle_text(str(number)),
            _pickle_text("cpu"),
            _pickle_number(array.size),
            pickle.TUPLE,
            pickle.BINPERSID,
            _pickle_number(0),
            _pickle_tuple(array.shape),
            _pickle_tuple(strides),
            pickle.NEWFALSE,
            _pickle_global("collections", "OrderedDict"),
            pickle.EMPTY_TUPLE,
            pickle.REDUCE,
            pickle.TUPLE,
            pickle.REDUCE,
        ]
    opcodes.append(pickle.SETITEMS)
    if is_checkpoint:
        opcodes = [pickle.EMPTY_DICT, _pickle_text("state_dict"), *opcodes, pickle.SETITEM]
    return b"".join([pickle.PROTO, b"\x02", *opcodes, pickle.STOP])


def _pickle_global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _pickle_text(value: str) -> bytes:
    encoded = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _pickle_number(value: int) -> bytes:
    return pickle.LONG1 + b"\x08" + struct.pack("<q", value)


def _pickle_tuple(values: Sequence[int]) -> bytes:
    return b"".join([pickle.MARK, *map(_pickle_number, values), pickle.TUPLE])


class _Archive:
    """Zip archive of a PyTorch file, whose members are all stored uncompressed."""

    def __init__(self, path: Path, content: mmap.mmap, file_size: int):
        self.content, self.file_size = content, file_size
        _check_directory_size(content, file_size)
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise NotPlainData(f"a damaged zip archive ({make_printable(str(error), max_length=200)})") from None

        names = [entry.filename for entry in entries]
        if any("/code/" in f"/{name}" or name.endswith("constants.pkl") for name in names):
            raise NotPlainData(
                "a TorchScript archive, which holds code; save the state_dict() of the model with torch.save"
            )
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise NotPlainData("a zip archive, but not one of torch.save, which has one data.pkl")
        self.folder = pickles[0].removesuffix("data.pkl")
        self.entries = {entry.filename: entry for entry in entries}
        if self._read_member(f"{self.folder}byteorder", 16) not in (None, b"little"):
            raise NotPlainData("numbers in another byte order than little-endian")

    def unpickle(self) -> Any:
        """Return the content of `data.pkl`, with arrays for tensors; raise NotPlainData if it holds more."""
        content = self._read_member(f"{self.folder}data.pkl", MAX_PICKLE_BYTES)
        if content is None:
            raise NotPlainData("a zip archive without its data.pkl")
        # All that the pickle may name, and what each name becomes.
        constructors: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): self._rebuild_array,
            ("torch._utils", "_rebuild_parameter"): lambda array, *_: array,
            ("torch", "Size"): lambda sizes: sizes,
        }
        for name, dtype in _STORAGE_TYPES.items():
            constructors["torch", name] = _StorageType(dtype)
        return load_plain_data(content, constructors, self._open_storage)

    def _open_storage(self, persistent_id: Any) -> np.ndarray:
        """Return the numbers of a storage, `[count]`, as a view of the file."""
        label, storage_type, name, _, count = persistent_id
        if label != "storage" or not isinstance(storage_type, _StorageType):
            raise NotPlainData("a persistent id that is not a storage's")
        if type(name) is not str or type(count) is not int:
            raise NotPlainData("a persistent id that is not a storage's")
        dtype = storage_type.dtype
        start, size = self._locate(f"{self.folder}data/{name}")
        if count < 0 or count * dtype.itemsize != size:
            raise NotPlainData(f"a storage of {count} numbers whose file has {size} bytes")
        if not count:
            return np.empty(0, dtype)
        return np.frombuffer(self.content, dtype, count, start)

    def _rebuild_array(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
        """Return a view of a storage; offset and strides count numbers, not bytes."""
        if not isinstance(storage, np.ndarray) or len(shape) != len(strides) or len(shape) > MAX_AXES:
            raise NotPlainData("a tensor that is not made of a storage, a shape and strides")
        for number in (offset, *shape, *strides):
            if type(number) is not int or not 0 <= number < 2**48:  # no file has so many numbers
                raise NotPlainData("a tensor whose shape or strides are not whole numbers")

        shape = tuple(shape)
        count = math.prod(shape)
        end = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + 1
        if count and (count > storage.size or end > storage.size):
            raise NotPlainData(f"a tensor of shape {shape} that reaches beyond its storage of {storage.size} numbers")
        if not count:
            return np.empty(shape, storage.dtype)
        if tuple(strides) == _contiguous_strides(shape):
            return storage[offset : offset + count].reshape(shape)
        byte_strides = [stride * storage.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, byte_strides, writeable=False)

    def _read_member(self, name: str, max_bytes: int) -> bytes | None:
        if name not in self.entries:
            return None
        start, size = self._locate(name)
        if size > max_bytes:
            raise NotPlainData(
                f"{make_printable(name, max_length=100)} has {size:,} bytes; at most {max_bytes:,} are read"
            )
        return self.content[start : start + size]

    def _locate(self, name: str) -> tuple[int, int]:
        """Return where the bytes of a member start in the file, and how many there are."""
        entry = self.entries.get(name)
        printable_name = make_printable(name, max_length=100)
        if entry is None:
            raise NotPlainData(f"{printable_name} is not in the archive: the file is damaged")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
            raise NotPlainData(
                f"{printable_name} is compressed or encrypted in the archive, which torch.save never does; it might "
                "unpack to any size"
            )
        # The header of a member has 30 bytes, a name and an extra field, whose lengths are its last numbers.
        header = self.content[entry.header_offset : entry.header_offset + 30]
        if len(header) < 30 or header[:4] != _FILE_HEADER:
            raise NotPlainData(f"no header for {printable_name}: the file is damaged")
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        if start + entry.file_size > self.file_size:
            raise NotPlainData(f"{printable_name} ends behind the end of the file: it is cut off")
        return start, entry.file_size


def _contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _check_directory_size(content: mmap.mmap, file_size: int) -> None:
    """Raise NotPlainData if the table of files would fill the memory; `zipfile` reads all of it at once."""
    # The end record has 22 bytes and a comment of up to 65,536.
    end = content.rfind(_DIRECTORY_END, max(0, file_size - 2**16 - 22))
    if end < 0 or end + 22 > file_size:
        raise NotPlainData("the end of the zip archive is missing: the file is cut off")
    (length,) = struct.unpack("<I", content[end + 12 : end + 16])

    # In a zip64 archive a record of 56 bytes holds the length, and a locator of 20 bytes behind it points to it. Some
    # versions of `zipfile` read the record there, others right before the locator: both must be the same place.
    if length == 0xFFFFFFFF or content[max(0, end - 20) : max(0, end - 16)] == _LOCATOR_64:
        record = end - 76
        if record < 0 or struct.unpack("<Q", content[end - 12 : end - 4]) != (record,):
            raise NotPlainData("the end of the zip archive is damaged")
        (length,) = struct.unpack("<Q", content[record + 40 : record + 48])
    if length > MAX_DIRECTORY_BYTES:
        raise NotPlainData(f"a table of files of {length:,} bytes; at most {MAX_DIRECTORY_BYTES:,} are read")
