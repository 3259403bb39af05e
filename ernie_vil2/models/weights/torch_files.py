"""PyTorch's files (`.bin`, `.pt`, `.pth`), read and written without PyTorch, and without running what they name.

Since 1.6 PyTorch writes a zip archive that stores, uncompressed, a pickle `data.pkl` and a file of numbers for each
storage that it names; `io.restricted_pickle` reads the pickle. Arrays are views of the file, which is mapped and not
copied. Older files are one pickle after another, and TorchScript archives hold code: both are named and refused.
"""

import math
import mmap
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from ernie_vil2.io.files import check_ordinary, system_errors_named
from ernie_vil2.io.restricted_pickle import Refused, load
from ernie_vil2.io.terminal import printable

OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""What files of PyTorch before 1.6 begin with: a pickle of their magic number."""
MAX_DIRECTORY = 16 << 20  # bytes of the archive's table of files; a model of a thousand arrays takes about 100,000
MAX_PICKLE = 64 << 20
BFLOAT16 = np.dtype("V2")  # what is read for bfloat16, which NumPy has not: two bytes
_STORAGES = {
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


class _Storage:
    """The type of a storage, which is named as an argument only."""

    def __init__(self, dtype: Any):
        self.dtype = np.dtype(dtype)

    def __call__(self, *_: Any) -> Any:
        raise Refused("a call of a type of storage, which is named as an argument only")


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a state dict, or of a training checkpoint's `state_dict`, by name and without `module.` before it.

    bfloat16 is `BFLOAT16`. Refused if the file is of another kind, damaged, or anything but plain data.
    """
    check_ordinary(path)
    with system_errors_named(path), Path(path).open("rb") as file:
        size = file.seek(0, 2)
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    value = load(*_Archive(Path(path), content, size).pickle())
    arrays = value.get("state_dict", value) if isinstance(value, dict) else value
    if not isinstance(arrays, dict):
        raise Refused(f"it holds no dict of arrays but a {type(arrays).__name__}")
    found = {str(name): value for name, value in arrays.items() if isinstance(value, np.ndarray)}
    if not found:
        shown = [printable(str(name), longest=100) for name in list(arrays)[:5]]
        raise Refused(f"no arrays at its top level or in state_dict, only {', '.join(shown) or 'nothing'}")
    if sum(array.nbytes for array in found.values()) > 2 * size:  # twice: weights may be tied
        raise Refused("its arrays share their content, and together are more than twice as large as the file")
    start = "module." if all(name.startswith("module.") for name in found) else ""
    return {name.removeprefix(start): array for name, array in found.items()}


def write_torch(path: str | Path, arrays: Mapping[str, np.ndarray], checkpoint: bool) -> None:
    """Writes arrays as `torch.save` writes tensors; `torch.load` reads them, also with `weights_only`.

    They are a state dict, or the `state_dict` of a checkpoint of parallel training, each name after `module.`, as
    Chinese-CLIP keeps them.
    """
    named = {f"module.{name}" if checkpoint else name: array for name, array in arrays.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:

        def write(name: str, content: bytes | memoryview) -> None:
            with archive.open(zipfile.ZipInfo(f"archive/{name}"), "w", force_zip64=True) as file:  # without its time
                file.write(content)

        write("data.pkl", _pickled(named, checkpoint))
        write("byteorder", b"little")
        for number, array in enumerate(arrays.values()):
            write(f"data/{number}", np.ascontiguousarray(array).reshape(-1).view("u1").data)
        write("version", b"3\n")


def _pickled(arrays: Mapping[str, np.ndarray], checkpoint: bool) -> bytes:
    """By hand, since Python's pickle writes names of modules only that can be imported. Protocol 2, as PyTorch."""
    kinds = {np.dtype(cast(Any, dtype)): kind for kind, dtype in _STORAGES.items()}
    out = [pickle.EMPTY_DICT, pickle.MARK]
    for number, (name, array) in enumerate(arrays.items()):
        strides = np.cumprod([1, *array.shape[:0:-1]])[::-1].tolist() if array.ndim else []
        out += [
            _text(name),
            _global("torch._utils", "_rebuild_tensor_v2"),
            pickle.MARK,
            pickle.MARK,
            _text("storage"),
            _global("torch", kinds[array.dtype]),
            _text(str(number)),
            _text("cpu"),
            _number(array.size),
            pickle.TUPLE,
            pickle.BINPERSID,
            _number(0),
            _tuple(array.shape),
            _tuple(strides),
            pickle.NEWFALSE,
            _global("collections", "OrderedDict"),
            pickle.EMPTY_TUPLE,
            pickle.REDUCE,
            pickle.TUPLE,
            pickle.REDUCE,
        ]
    out.append(pickle.SETITEMS)
    if checkpoint:
        out = [pickle.EMPTY_DICT, _text("state_dict"), *out, pickle.SETITEM]
    return b"".join([pickle.PROTO, b"\x02", *out, pickle.STOP])


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(value: str) -> bytes:
    encoded = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _number(value: int) -> bytes:
    return pickle.LONG1 + b"\x08" + struct.pack("<q", value)


def _tuple(values: Sequence[int]) -> bytes:
    return b"".join([pickle.MARK, *map(_number, values), pickle.TUPLE])


def as_float32(array: np.ndarray) -> np.ndarray:
    """An array of bfloat16 as float32, exactly; others as they are."""
    if array.dtype != BFLOAT16:
        return array
    return (np.ascontiguousarray(array).view("<u2").astype("<u4") << 16).view("<f4").reshape(array.shape)


class _Archive:
    """The zip archive: where its files lie, if all are stored as they are."""

    def __init__(self, path: Path, content: mmap.mmap, size: int):
        self.content, self.size = content, size
        _check_directory(content, size)
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise Refused(f"a damaged zip archive ({printable(str(error), longest=200)})") from None
        pickles = [entry.filename for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl"]
        if any("/code/" in f"/{entry.filename}" or entry.filename.endswith("constants.pkl") for entry in entries):
            raise Refused("a TorchScript archive, which holds code; save the state_dict() of the model with torch.save")
        if len(pickles) != 1:
            raise Refused("a zip archive, but not one of torch.save, which has one data.pkl")
        self.folder = pickles[0].removesuffix("data.pkl")
        self.entries = {entry.filename: entry for entry in entries}
        if self._bytes(f"{self.folder}byteorder", 16) not in (None, b"little"):
            raise Refused("numbers in another byte order than little-endian")

    def pickle(self) -> tuple[bytes, dict[tuple[str, str], Callable[..., Any]], Callable[[Any], Any]]:
        """What `restricted_pickle.load` takes."""
        content = self._bytes(f"{self.folder}data.pkl", MAX_PICKLE)
        if content is None:
            raise Refused("a zip archive without its data.pkl")
        names: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch", name): _Storage(dtype) for name, dtype in _STORAGES.items()
        }
        names["torch._utils", "_rebuild_tensor_v2"] = self._tensor
        names["torch._utils", "_rebuild_parameter"] = lambda tensor, *_: tensor
        names["torch", "Size"] = lambda sizes: sizes
        return content, names, self._storage

    def _storage(self, key: Any) -> np.ndarray:
        kind, storage, name, _, count = key
        if kind != "storage" or not isinstance(storage, _Storage) or type(name) is not str or type(count) is not int:
            raise Refused("a persistent id that is not a storage's")
        start, size = self._span(f"{self.folder}data/{name}")
        if count < 0 or count * storage.dtype.itemsize != size:
            raise Refused(f"a storage of {count} numbers whose file has {size} bytes")
        return np.frombuffer(self.content, storage.dtype, count, start) if count else np.empty(0, storage.dtype)

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
        numbers = [offset, *shape, *strides]
        if not isinstance(storage, np.ndarray) or len(shape) != len(strides) or len(shape) > 16:
            raise Refused("a tensor that is not made of a storage, a shape and strides")
        if not all(type(number) is int and 0 <= number < 2**48 for number in numbers):
            raise Refused("a tensor whose shape or strides are not whole numbers")
        count = math.prod(shape)
        reach = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True)) + 1
        if count and (count > storage.size or reach > storage.size):
            raise Refused(f"a tensor of shape {tuple(shape)} that reaches beyond its storage of {storage.size} numbers")
        if not count:
            return np.empty(tuple(shape), storage.dtype)
        if tuple(strides) == _strides(tuple(shape)):
            return storage[offset : offset + count].reshape(tuple(shape))
        steps = [step * storage.itemsize for step in strides]
        return np.lib.stride_tricks.as_strided(storage[offset:], tuple(shape), steps, writeable=False)

    def _bytes(self, name: str, most: int) -> bytes | None:
        if name not in self.entries:
            return None
        start, size = self._span(name)
        if size > most:
            raise Refused(f"{printable(name, longest=100)} has {size:,} bytes; {most:,} are read")
        return self.content[start : start + size]

    def _span(self, name: str) -> tuple[int, int]:
        """Where the bytes of a file in the archive start, and how many there are."""
        entry = self.entries.get(name)
        shown = partial(printable, name, longest=100)
        if entry is None:
            raise Refused(f"{shown()} is not in the archive: the file is damaged")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
            raise Refused(
                f"{shown()} is compressed or encrypted in the archive, as torch.save writes none; it might "
                "unpack to any size"
            )
        header = self.content[entry.header_offset : entry.header_offset + 30]
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise Refused(f"no header for {shown()}: the file is damaged")
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        if start + entry.file_size > self.size:
            raise Refused(f"{shown()} ends behind the end of the file: it is cut off")
        return start, entry.file_size


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of an array whose rows follow one another."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _check_directory(content: mmap.mmap, size: int) -> None:
    """Refuses a table of files that would fill the memory; `zipfile` reads it whole."""
    end = content.rfind(b"PK\x05\x06", max(0, size - 2**16 - 22))
    if end < 0 or end + 22 > size:
        raise Refused("the end of the zip archive is missing: the file is cut off")
    (length,) = struct.unpack("<I", content[end + 12 : end + 16])
    if length == 0xFFFFFFFF or content[max(0, end - 20) : max(0, end - 16)] == b"PK\x06\x07":
        (record,) = struct.unpack("<Q", content[end - 12 : end - 4]) if end >= 20 else (size,)
        if record + 56 > size:
            raise Refused("the end of the zip archive is damaged")
        (length,) = struct.unpack("<Q", content[record + 40 : record + 48])
    if length > MAX_DIRECTORY:
        raise Refused(f"a table of files of {length:,} bytes; {MAX_DIRECTORY:,} are read")
