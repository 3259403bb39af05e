"""Weights in and out: files of named arrays, `.pdparams` and `.safetensors`, and what of them fits a model.

Files are read without running anything that they hold. A `.pdparams` file is a pickle; `io.restricted_pickle` reads it.
Nothing in a file makes it take more than about three times its size in memory, and no more than a short, printable part
of a name or text in it gets into a message.
"""

import json
import math
import mmap
import pickle
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import paddle
from safetensors import SafetensorError, safe_open

from ernie_vil2.io.files import atomic_write, check_ordinary, load_json, parse_json, save_arrays, system_errors_named
from ernie_vil2.io.restricted_pickle import Array, Refused, load
from ernie_vil2.io.terminal import listed, printable
from ernie_vil2.models.weights.torch_files import BFLOAT16, OLD_FORMAT, as_float32, read_torch, write_torch

WeightFormat = Literal["official", "paddlenlp", "ernie_vil2"]  # whose names arrays have, see `formats`
_FIRST_PARTS: dict[str, WeightFormat] = {"visual": "official", "vision_model": "paddlenlp", "image": "ernie_vil2"}
_NAME_TABLE = "StructuredToParameterName@@"
_SPLIT_TABLE = "UnpackBigParamInfor@@"  # Paddle's spelling
INDEX = ".index.json"
"""End of the name of a file that says in which files of its folder the arrays lie, as PaddleNLP cuts large saves."""
MAX_HEADER = 16 << 20  # bytes of a safetensors header; a model of a thousand arrays takes about 100,000
_NUMPY_TYPES: dict[str, Any] = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "BF16": BFLOAT16,
    "F32": "<f4",
    "F64": "<f8",
}
_POPULATE = 23  # MADV_POPULATE_WRITE of Linux, which Python's mmap does not name
_FOREIGN = {
    OLD_FORMAT: "of PyTorch before 1.6; load it there once and save it again with torch.save",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\x00\x00\x00\x00": "Paddle's binary tensor format; save the state dict with paddle.save instead",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run git lfs pull",
    b"<": "a web page, not weights; was the download refused?",
}


class WeightFileError(ValueError):
    """A weight file that is damaged, of another kind, or asks for more than arrays; the message says which and why."""

    def __init__(self, path: str | Path, reason: str):
        super().__init__(f"{path}: {reason}")


class WeightMismatch(ValueError):  # noqa: N818  -- named by what has happened
    """Arrays that are not those of the model, in names that nobody has allowed to differ."""


@dataclass(frozen=True)
class WeightReport:
    """How arrays fit a model, by name."""

    matched: tuple[str, ...] = ()  # in both, of one shape and kind of number
    missing: tuple[str, ...] = ()  # in the model only
    unexpected: tuple[str, ...] = ()  # among the arrays only
    differing: Mapping[str, str] = field(default_factory=dict)  # with what: `array [3, 4], model [3, 5]`
    notes: tuple[str, ...] = ()  # what was done to the arrays before, for a person

    def mismatches(self, allow: Sequence[str] = ()) -> list[str]:
        """The names that do not fit and that no glob pattern of `allow` covers."""
        names = [*self.missing, *self.unexpected, *self.differing]
        return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in allow)]

    def __str__(self) -> str:
        lines = [*self.notes, f"{len(self.matched)} matched"]
        for title, items, separator in self._groups():
            lines.append(f"{len(items)} {title}" + (": " if items else "") + listed(items, 50, separator))
        return "\n".join(f"  {printable(line)}" for line in lines)

    def mismatch(self, bad: Collection[str]) -> str:
        """What does not fit of these names, on one line."""
        groups = self._groups(bad)
        return ", ".join(
            f"{len(items)} {title} ({listed(items, separator=sep)})" for title, items, sep in groups if items
        )

    def _groups(self, among: Collection[str] | None = None) -> Iterator[tuple[str, list[str], str]]:
        """What does not fit, with what goes between two such items."""
        for title, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            yield title, [name for name in names if among is None or name in among], ", "
        shown = {name: f"{printable(name, longest=100)}: {what}" for name, what in self.differing.items()}
        yield "of another shape", [item for name, item in shown.items() if among is None or name in among], "; "


def read_weights(path: str | Path, exact: bool = False) -> dict[str, np.ndarray]:
    """The arrays of a `.pdparams`, `.safetensors` or PyTorch file by name; its content shows which it is. Of an index
    the arrays of all shards that it names.

    Entries of a `.pdparams` that are not arrays, such as Paddle's table of parameter names, are left out. The arrays
    may be read-only views of the bytes read.

    Args:
        path: of the file.
        exact: whether bfloat16 stays, as `BFLOAT16`; otherwise it becomes float32.

    Raises:
        FileNotFoundError: there is no such file.
        WeightFileError: it is neither, it is cut off, or it holds anything but plain data.
    """
    arrays = _read_shards(Path(path)) if str(path).endswith(INDEX) else _read_file(path)
    if exact:
        return arrays
    return {name: as_float32(array) if array.dtype == BFLOAT16 else array for name, array in arrays.items()}


def _read_file(path: str | Path) -> dict[str, np.ndarray]:
    check_ordinary(path)
    with system_errors_named(path), Path(path).open("rb") as file:
        head = file.read(512)
        if not head:
            raise WeightFileError(path, "the file is empty")
        if head.startswith(b"PK\x03\x04"):
            try:
                return read_torch(path)
            except Refused as error:
                raise WeightFileError(path, f"not plain weights of PyTorch: {error}") from None
        if head[8:9] != b"{" and head[0] == pickle.PROTO[0] and not head.startswith(OLD_FORMAT):
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                try:
                    return _named_arrays(load(content), len(content))
                except Refused as error:
                    raise WeightFileError(path, f"not a plain weight file: {error}") from None
    if head[8:9] == b"{":
        return _read_safetensors(path, *struct.unpack("<Q", head[:8]))
    for start, kind in _FOREIGN.items():
        if head.startswith(start):
            raise WeightFileError(path, kind)
    if head[257:262] == b"ustar":
        raise WeightFileError(path, "a tar archive; unpack it first")
    raise WeightFileError(path, "neither a .pdparams nor a .safetensors file, nor a zip archive of PyTorch")


def write_weights(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as `.pdparams`, which `paddle.load` reads as tensors, or as `.safetensors`, by the suffix."""
    path = Path(path)
    if path.suffix not in (".pdparams", ".safetensors"):
        raise ValueError(f"{path}: the name must end in .pdparams or .safetensors")
    arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    with atomic_write(path) as aside:
        if path.suffix == ".safetensors":
            save_arrays(aside, arrays)
        else:
            with aside.open("wb") as file:
                # What the table names are tensors when Paddle loads the file.
                pickle.dump({**arrays, _NAME_TABLE: {name: name for name in arrays}}, file, protocol=4)


def write_theirs(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as PyTorch's libraries do, bfloat16 among them: `.safetensors`, a state dict in `.bin`, or a
    checkpoint with one in `.pt`."""
    with atomic_write(path) as aside:
        if path.suffix == ".safetensors":
            _write_safetensors(aside, arrays)
        else:
            write_torch(aside, arrays, checkpoint=path.suffix == ".pt")


def _write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """As the library does, which has no bfloat16 for NumPy: the widest numbers first, so that all lie aligned."""
    kinds = {np.dtype(dtype): kind for kind, dtype in _NUMPY_TYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    ordered, end = sorted(arrays.items(), key=lambda item: -item[1].itemsize), 0
    for name, array in ordered:
        start, end = end, end + array.nbytes
        header[name] = {"dtype": kinds[array.dtype], "shape": array.shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, array in ordered:
            file.write(np.ascontiguousarray(array).reshape(-1).view("u1").data)


def detect_format(arrays: Mapping[str, np.ndarray]) -> WeightFormat:
    """Whose names these arrays have; ValueError if they are nobody's."""
    for name in arrays:
        layout = _FIRST_PARTS.get(name.partition(".")[0])
        if layout:
            return layout
    raise ValueError(
        "these are not the weights of an ERNIE-ViL 2.0: no name starts with visual., vision_model. or image.; "
        f"the first are {', '.join(printable(name, longest=100) for name in list(arrays)[:3])}"
    )


def compare_weights(
    model: paddle.nn.Layer, arrays: Mapping[str, np.ndarray], notes: Sequence[str] = ()
) -> WeightReport:
    """How `arrays` fit the parameters and buffers of `model`; changes nothing."""
    state = model.state_dict()
    common = [name for name in state if name in arrays]
    differing = {name: what for name in common if (what := _difference(arrays[name], state[name]))}
    return WeightReport(
        matched=tuple(name for name in common if name not in differing),
        missing=tuple(name for name in state if name not in arrays),
        unexpected=tuple(name for name in arrays if name not in state),
        differing=differing,
        notes=tuple(notes),
    )


def set_weights(
    model: paddle.nn.Layer, arrays: Mapping[str, np.ndarray], allow: Sequence[str] = (), notes: Sequence[str] = ()
) -> WeightReport:
    """Sets the parameters and buffers of `model` that match; the others keep their values.

    Args:
        allow: glob patterns of the names that need not match.
        notes: for the report.

    Raises:
        WeightMismatch: a name or shape that does not match and is not allowed; then nothing was set.
    """
    arrays = dict(arrays)  # each is made once: compared, and set
    report = compare_weights(model, arrays, notes)
    if bad := report.mismatches(allow):
        raise WeightMismatch(f"not the weights of this model: {report.mismatch(set(bad))}")
    state = model.state_dict()
    buffers: dict[tuple[int, ...], np.ndarray] = {}

    def fill(number: int, name: str) -> None:
        value, array = state[name], arrays.pop(name)
        memory = new_memory(value.shape, np.dtype(_numpy_type(value)))
        _copy(array, memory)
        value.get_tensor().set(memory, paddle.CPUPlace(), True)  # which shares the memory
        if number % 16 == 15:  # as this takes time, not after each
            _let_go(array)

    empty = dict.fromkeys(name for name in report.matched if not state[name]._is_initialized())
    with ThreadPoolExecutor(2) as threads:  # most of the time goes into copies and new pages
        list(threads.map(fill, range(len(empty)), empty))
    for name in report.matched:
        if name not in empty:
            array = arrays[name]
            state[name].set_value(_in_order(np.asarray(array, dtype=_numpy_type(state[name])), buffers))
            _let_go(array)
    return report


class _Anonymous(mmap.mmap):
    """Memory of no file, which would read as zeros after `_let_go`."""


def new_memory(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An array of zeros in memory that nothing has used yet.

    Its pages are asked for at once, which takes half the time that Paddle's allocator needs. They are not the
    large ones that NumPy asks for: where a virtual machine has to get these from its host, they take ten times as long.
    """
    pages = _Anonymous(-1, max(1, math.prod(shape) * dtype.itemsize), access=mmap.ACCESS_COPY)
    with suppress(OSError, AttributeError):  # elsewhere than on Linux, or before 5.14
        pages.madvise(_POPULATE)
    return np.ndarray(shape, dtype, pages)


def _in_order(array: np.ndarray, buffers: dict[tuple[int, ...], np.ndarray]) -> np.ndarray:
    """The same, row by row in memory; a transposed matrix in memory that the next one of its shape gets again."""
    if array.flags.c_contiguous:
        return array
    buffer = buffers.setdefault(array.shape, np.empty(array.shape, array.dtype))
    _copy(array, buffer)
    return buffer


def _copy(array: np.ndarray, into: np.ndarray) -> None:
    """A transposed matrix is turned ten times as fast as by NumPy: by OpenCV."""
    array = np.asarray(array, dtype=into.dtype)
    if array.ndim == 2 and array.flags.f_contiguous and not array.flags.c_contiguous and array.dtype == np.float32:
        cv2.transpose(array.T, into)
    else:
        into[...] = array


def _let_go(array: np.ndarray) -> None:
    """What was read of a file under a view leaves the memory, so that it does not hold a model twice."""
    owner: Any = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    if type(owner) is mmap.mmap and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def check_finite(model: paddle.nn.Layer) -> None:
    """ValueError if a parameter or buffer holds NaN or infinity, as a failed training or a damaged file leaves them."""
    for name, value in model.state_dict().items():
        # A sum of finite numbers is finite but for absurd ones, and needs no memory.
        if not np.isfinite(value.sum().item()) and not paddle.isfinite(value).all().item():
            raise ValueError(f"{name} holds numbers that are not finite")


def save_weights(model: paddle.nn.Layer, path: str | Path) -> None:
    """Writes parameters and buffers by their name in the model, as safetensors or `.pdparams`."""
    write_weights(path, {name: value.numpy() for name, value in model.state_dict().items()})


def load_weights(model: paddle.nn.Layer, path: str | Path) -> None:
    """Sets parameters and buffers from a file that `save_weights` wrote; ValueError if it is not whole, or its names or
    shapes are not the model's."""
    arrays = read_weights(path)
    try:
        set_weights(model, arrays)
    except WeightMismatch as error:
        raise WeightMismatch(f"{path}: {error}") from None


def _read_safetensors(path: str | Path, header: int) -> dict[str, np.ndarray]:
    if header > MAX_HEADER:
        raise WeightFileError(path, f"a header of {header:,} bytes; {MAX_HEADER:,} are read")
    try:
        with safe_open(path, framework="numpy"):  # checks the header: the arrays fill the file without a gap
            pass
    except SafetensorError as error:
        reason = printable(str(error), longest=200)
        raise WeightFileError(path, f"not a whole safetensors file ({reason})") from None
    with Path(path).open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    arrays = {}
    for name, about in parse_json(content[8 : 8 + header]).items():
        if name == "__metadata__":
            continue
        kind, (start, end) = about["dtype"], about["data_offsets"]
        if kind not in _NUMPY_TYPES:
            raise WeightFileError(
                path,
                f"{printable(name, longest=100)} is {kind}, a type of number that NumPy has not; convert to float32",
            )
        dtype = np.dtype(_NUMPY_TYPES[kind])
        count = (end - start) // dtype.itemsize
        array = np.frombuffer(content, dtype, count, 8 + header + start) if count else np.empty(0, dtype)
        arrays[name] = array.reshape(about["shape"])
    return arrays


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    try:
        shard_of = load_json(index)["weight_map"]
        shards = sorted(set(shard_of.values()))
        if not shards or any(Path(shard).name != shard or shard.endswith(INDEX) for shard in shards):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightFileError(index, "not an index of shards: a weight_map from arrays to files next to it") from None
    arrays: dict[str, np.ndarray] = {}
    for shard in shards:
        found = _read_file(index.with_name(shard))
        expected = [name for name, file in shard_of.items() if file == shard]
        missing = [printable(name, longest=100) for name in expected if name not in found]
        if missing:
            raise WeightFileError(index.with_name(shard), f"{missing[0]} is not in it, as {index.name} says")
        arrays |= {name: found[name] for name in expected}
    return arrays


def _named_arrays(content: Any, size: int) -> dict[str, np.ndarray]:
    """The arrays of what a pickle of `size` bytes holds."""
    if not isinstance(content, dict):
        raise Refused(f"it holds no dict of arrays but a {type(content).__name__.strip('_').lower()}")
    split = content.pop(_SPLIT_TABLE, {})
    arrays = {}
    for name, value in content.items():
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Array):
            value = value[1]  # a Paddle tensor: its own name and its array
        if isinstance(value, Array):
            if value.value is None:
                raise Refused(f"the array {printable(name, longest=100)} has no content")
            arrays[name] = value.value
    _join(arrays, split)
    if not arrays:
        found = [printable(name, longest=100) for name in list(content)[:5]]
        raise Refused(f"no arrays at its top level, only {', '.join(map(repr, found)) or 'nothing'}")
    if sum(array.nbytes for array in arrays.values()) > 2 * size:  # twice: weights may be tied
        raise Refused("its arrays share their content, and together are more than twice as large as the file")
    return arrays


def _join(arrays: dict[str, np.ndarray], split: Any) -> None:
    """Puts arrays together that Paddle has cut into pieces, which it does above 1 GiB at protocols 2 and 3."""
    try:
        for name, entry in split.items():
            pieces = [arrays.pop(piece) for piece in entry["slices"]]
            if not pieces or any(piece.ndim != 1 or piece.dtype != pieces[0].dtype for piece in pieces):
                raise Refused("pieces of an array that do not fit together")
            arrays[name] = np.concatenate(pieces).reshape(tuple(entry["OriginShape"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Refused("a table of array pieces that does not fit its arrays") from error


def _difference(array: np.ndarray, value: paddle.Tensor) -> str | None:
    ours, theirs = np.dtype(_numpy_type(value)), array.dtype
    kinds = "" if ours.kind == theirs.kind else f"{theirs} "
    if not kinds and list(array.shape) == list(value.shape):
        return None
    return f"array {kinds}{list(array.shape)}, model {f'{ours} ' if kinds else ''}{list(value.shape)}"


def _numpy_type(value: paddle.Tensor) -> str:
    return str(value.dtype).removeprefix("paddle.")
