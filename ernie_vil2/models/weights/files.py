"""Read and write files of named arrays (`.pdparams`, `.safetensors`, PyTorch's), and copy arrays into a model.

Reading a file runs nothing that it holds. A `.pdparams` file is a pickle; `io.restricted_pickle` reads it. No file can
make it take more than about three times its size in memory, and messages quote at most a short, printable piece of the
names and texts in it.
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

from ernie_vil2.device.transfers import copy_to_host
from ernie_vil2.io.files import (
    RepeatedKey,
    add_path_to_errors,
    atomic_write,
    load_json,
    parse_json,
    save_arrays,
    stat_regular_file,
)
from ernie_vil2.io.restricted_pickle import ArrayPlaceholder, NotPlainData, load_plain_data
from ernie_vil2.io.terminal import join_names, make_printable
from ernie_vil2.models.weights.positions import fit_positions
from ernie_vil2.models.weights.torch_files import BFLOAT16, OLD_FORMAT, read_torch, write_torch

# Layouts of ERNIE-ViL 2.0, see `formats`, and the first word of an array's name that gives one away.
WeightFormat = Literal["official", "paddlenlp", "ernie_vil2"]
_FORMAT_BY_PREFIX: dict[str, WeightFormat] = {
    "visual": "official",
    "vision_model": "paddlenlp",
    "image": "ernie_vil2",
}

# Tables that paddle.save puts next to the arrays; the spelling is Paddle's.
_NAME_TABLE = "StructuredToParameterName@@"
_PIECE_TABLE = "UnpackBigParamInfor@@"

INDEX_SUFFIX = ".index.json"
"""Suffix of the file that maps arrays to shards: PaddleNLP and transformers split large models over several files."""
MAX_HEADER_BYTES = 16 << 20  # of a safetensors file; the header of a model of a thousand arrays has about 100,000
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
_MADV_POPULATE_WRITE = 23  # of Linux 5.14; Python's mmap has no name for it
_FOREIGN_FILES = {
    OLD_FORMAT: "written by PyTorch before 1.6; load it there once and save it again with torch.save",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\x00\x00\x00\x00": "in Paddle's binary tensor format; save the state dict with paddle.save instead",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run git lfs pull",
    b"<": "a web page, not weights; was the download refused?",
}
"""First bytes of files that are no weights but often lie in their place, and what to do about each."""


def get_folder(path: Path) -> Path:
    """Return the folder of a model that is named by its folder or by its weight file."""
    return path if path.is_dir() else path.parent


class WeightFileError(ValueError):
    """A weight file is damaged, of another kind, or holds more than arrays; the message says which file and why."""

    def __init__(self, path: str | Path, reason: str):
        super().__init__(f"{path}: {reason}")


class WeightMismatch(ValueError):  # noqa: N818  -- named by what has happened
    """Arrays do not fit the model, in names that the caller did not allow to differ."""


@dataclass(frozen=True)
class WeightReport:
    """How a set of arrays fits a model, by name."""

    matched: tuple[str, ...] = ()  # in both, with the same shape and kind of number
    missing: tuple[str, ...] = ()  # in the model only
    unexpected: tuple[str, ...] = ()  # among the arrays only
    differing: Mapping[str, str] = field(default_factory=dict)  # name -> `array [3, 4], model [3, 5]`
    notes: tuple[str, ...] = ()  # lines for the user: how the arrays were adapted before

    def mismatches(self, allow: Sequence[str] = ()) -> list[str]:
        """Return the names that do not fit and that no glob pattern of `allow` covers."""
        names = [*self.missing, *self.unexpected, *self.differing]
        return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in allow)]

    def __str__(self) -> str:
        lines = [*self.notes, f"{len(self.matched)} matched"]
        for title, items, separator in self._groups():
            line = f"{len(items)} {title}"
            if items:
                line += f": {join_names(items, 50, separator)}"
            lines.append(line)
        return "\n".join(f"  {make_printable(line)}" for line in lines)

    def describe_mismatch(self, names: Collection[str]) -> str:
        """Describe on one line what does not fit about these names."""
        sentences = []
        for title, items, separator in self._groups(names):
            if items:
                sentences.append(f"{len(items)} {title} ({join_names(items, separator=separator)})")
        return ", ".join(sentences)

    def _groups(self, names: Collection[str] | None = None) -> Iterator[tuple[str, list[str], str]]:
        """Yield title, items and separator of each kind of mismatch, restricted to `names` unless it is None."""
        for title, group in (("missing", self.missing), ("unexpected", self.unexpected)):
            yield title, [name for name in group if names is None or name in names], ", "
        descriptions = []
        for name, difference in self.differing.items():
            if names is None or name in names:
                descriptions.append(f"{make_printable(name, max_length=100)}: {difference}")
        yield "of another shape", descriptions, "; "


def read_weights(path: str | Path, keep_bfloat16: bool = False) -> dict[str, np.ndarray]:
    """Read the arrays of a `.pdparams`, `.safetensors` or PyTorch file, or of all shards that an index lists.

    The content of a file decides which kind it is, not its name. Entries of a `.pdparams` that are not arrays, such as
    Paddle's table of parameter names, are left out.

    Args:
        path: weight file or index.
        keep_bfloat16: whether to return bfloat16 as `BFLOAT16`; it is converted to float32 otherwise.

    Returns:
        Arrays by name; they may be read-only views of the file.

    Raises:
        FileNotFoundError: the file does not exist.
        WeightFileError: the file is of another kind, cut off, or holds more than plain data.
    """
    if str(path).endswith(INDEX_SUFFIX):
        arrays = _read_shards(Path(path))
    else:
        arrays = _read_file(path)
    if keep_bfloat16:
        return arrays
    return {name: as_float32(array) for name, array in arrays.items()}


def as_float32(array: np.ndarray) -> np.ndarray:
    """Convert an array of bfloat16 to float32, exactly; return any other array as it is."""
    if array.dtype != BFLOAT16:
        return array
    # bfloat16 is the upper half of a float32.
    return (np.ascontiguousarray(array).view("<u2").astype("<u4") << 16).view("<f4").reshape(array.shape)


def _read_file(path: str | Path) -> dict[str, np.ndarray]:
    stat_regular_file(path)
    with add_path_to_errors(path), Path(path).open("rb") as file:
        head = file.read(512)
        if not head:
            raise WeightFileError(path, "the file is empty")

        # A zip archive of PyTorch.
        if head.startswith(b"PK\x03\x04"):
            try:
                return read_torch(path)
            except NotPlainData as error:
                raise WeightFileError(path, f"not plain weights of PyTorch: {error}") from None

        # A pickle of Paddle. A safetensors file, whose first bytes are a length, has a brace in the ninth place.
        if head[8:9] != b"{" and head[0] == pickle.PROTO[0] and not head.startswith(OLD_FORMAT):
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                try:
                    return _collect_arrays(load_plain_data(content), len(content))
                except NotPlainData as error:
                    raise WeightFileError(path, f"not a plain weight file: {error}") from None

    if head[8:9] == b"{":
        return _read_safetensors(path, *struct.unpack("<Q", head[:8]))
    for first_bytes, reason in _FOREIGN_FILES.items():
        if head.startswith(first_bytes):
            raise WeightFileError(path, reason)
    # The signature of a tar archive lies within its first header.
    if head[257:262] == b"ustar":
        raise WeightFileError(path, "a tar archive; unpack it first")
    raise WeightFileError(path, "neither a .pdparams nor a .safetensors file, nor a zip archive of PyTorch")


def write_weights(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as `.pdparams`, which `paddle.load` reads as tensors, or as `.safetensors`; the suffix decides."""
    path = Path(path)
    if path.suffix not in (".pdparams", ".safetensors"):
        raise ValueError(f"{path}: the name must end in .pdparams or .safetensors")
    # reshape: ascontiguousarray turns a scalar into an array of one axis.
    arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    with atomic_write(path) as temporary_path:
        if path.suffix == ".safetensors":
            save_arrays(temporary_path, arrays)
        else:
            with temporary_path.open("wb") as file:
                # Paddle loads the arrays that this table lists as tensors.
                pickle.dump({**arrays, _NAME_TABLE: {name: name for name in arrays}}, file, protocol=4)


def write_torch_weights(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, bfloat16 among them, as PyTorch's libraries do.

    The suffix of `path` decides: `.safetensors`, a state dict in `.bin`, or a checkpoint that holds one in `.pt`.
    """
    with atomic_write(path) as temporary_path:
        if path.suffix == ".safetensors":
            _write_safetensors(temporary_path, arrays)
        else:
            write_torch(temporary_path, arrays, is_checkpoint=path.suffix == ".pt")


def _write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file; the library itself cannot write bfloat16 from NumPy."""
    type_names = {np.dtype(dtype): type_name for type_name, dtype in _NUMPY_TYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    # The widest numbers first, as the library does, so that every array is aligned.
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    offset = 0
    for name, array in ordered:
        header[name] = {
            "dtype": type_names[array.dtype],
            "shape": array.shape,
            "data_offsets": (offset, offset + array.nbytes),
        }
        offset += array.nbytes
    header_bytes = json.dumps(header).encode()
    # Spaces fill the header up to a multiple of 8 bytes, so that the numbers behind it are aligned.
    header_bytes += b" " * (-len(header_bytes) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header_bytes)) + header_bytes)
        for _, array in ordered:
            file.write(np.ascontiguousarray(array).reshape(-1).view("u1").data)


def detect_format(arrays: Mapping[str, np.ndarray]) -> WeightFormat:
    """Return the layout of ERNIE-ViL 2.0 that the names of the arrays belong to.

    Raises:
        ValueError: they belong to none.
    """
    for name in arrays:
        layout = _FORMAT_BY_PREFIX.get(name.partition(".")[0])
        if layout:
            return layout
    format_names = [make_printable(name, max_length=100) for name in list(arrays)[:3]]
    raise ValueError(
        "these are not the weights of an ERNIE-ViL 2.0: no name starts with visual., vision_model. or image.; "
        f"the first are {', '.join(format_names)}"
    )


def compare_weights(
    model: paddle.nn.Layer, arrays: Mapping[str, np.ndarray], notes: Sequence[str] = ()
) -> WeightReport:
    """Compare arrays with the parameters and buffers of a model; change nothing."""
    state = model.state_dict()
    matched, differing = [], {}
    for name, value in state.items():
        if name not in arrays:
            continue
        difference = _describe_difference(arrays[name], value)
        if difference:
            differing[name] = difference
        else:
            matched.append(name)
    return WeightReport(
        matched=tuple(matched),
        missing=tuple(name for name in state if name not in arrays),
        unexpected=tuple(name for name in arrays if name not in state),
        differing=differing,
        notes=tuple(notes),
    )


def set_weights(
    model: paddle.nn.Layer, arrays: Mapping[str, np.ndarray], allow: Sequence[str] = (), notes: Sequence[str] = ()
) -> WeightReport:
    """Copy arrays into the parameters and buffers of a model that match; the others keep their values.

    Args:
        model: the model to change.
        arrays: arrays by the names of the model's state.
        allow: glob patterns of names that need not match.
        notes: lines for the report.

    Raises:
        WeightMismatch: a name or shape does not match and is not allowed to differ; then nothing was copied.
    """
    arrays = dict(arrays)  # a lazy mapping would compute each array twice: to compare it, and to copy it
    report = compare_weights(model, arrays, notes)
    mismatches = report.mismatches(allow)
    if mismatches:
        raise WeightMismatch(f"not the weights of this model: {report.describe_mismatch(set(mismatches))}")
    state = model.state_dict()

    # Parameters made under paddle.LazyGuard have no memory yet. They get memory of ours, which Paddle then uses without
    # a copy (zero_copy of Tensor.set; _is_initialized is private, looked at in Paddle 3.3.1).
    lazy_names = [name for name in report.matched if not state[name]._is_initialized()]

    def fill(number: int, name: str) -> None:
        value, array = state[name], arrays.pop(name)
        memory = allocate_array(value.shape, np.dtype(_numpy_type(value)))
        _copy_into(array, memory)
        value.get_tensor().set(memory, paddle.CPUPlace(), True)
        if number % 16 == 15:  # releasing takes time, so not after every array
            _release_pages(array)

    # Two threads: most of the time goes into copying and into new pages, where NumPy and the system let others run.
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(fill, range(len(lazy_names)), lazy_names))

    buffers: dict[tuple[tuple[int, ...], np.dtype], np.ndarray] = {}
    # All others are copied by Paddle, which wants them contiguous; fill() has removed the lazy ones.
    for name in report.matched:
        if name in arrays:
            array = arrays[name]
            state[name].set_value(_make_contiguous(np.asarray(array, dtype=_numpy_type(state[name])), buffers))
            _release_pages(array)
    return report


def allocate_array(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Return an array of zeros in new memory.

    All its pages are requested at once, which takes half the time of Paddle's allocator. They are small pages: NumPy
    asks for huge ones, which take ten times as long where a virtual machine has to get them from its host.
    """
    pages = mmap.mmap(-1, max(1, math.prod(shape) * dtype.itemsize), access=mmap.ACCESS_COPY)
    with suppress(OSError, AttributeError):  # not Linux, or Linux before 5.14: pages come when they are written to
        pages.madvise(_MADV_POPULATE_WRITE)
    return np.ndarray(shape, dtype, pages)


def _make_contiguous(array: np.ndarray, buffers: dict[tuple[tuple[int, ...], np.dtype], np.ndarray]) -> np.ndarray:
    """Return the array row by row in memory; a transposed one is copied into a buffer that later arrays reuse.

    Args:
        array: the array.
        buffers: buffers by shape and type; a missing one is added.
    """
    if array.flags.c_contiguous:
        return array
    key = array.shape, array.dtype
    if key not in buffers:
        buffers[key] = np.empty(array.shape, array.dtype)
    _copy_into(array, buffers[key])
    return buffers[key]


def _copy_into(array: np.ndarray, target: np.ndarray) -> None:
    array = np.asarray(array, dtype=target.dtype)
    is_transposed = array.ndim == 2 and array.flags.f_contiguous and not array.flags.c_contiguous
    if is_transposed and array.dtype == np.float32:
        cv2.transpose(array.T, target)  # ten times as fast as NumPy
    else:
        target[...] = array


def _release_pages(array: np.ndarray) -> None:
    """Drop the pages of a file mapped for reading that an array is a view of: the model is not in memory twice."""
    # A view of a view of ... a mapped file.
    owner: Any = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    # Memory without a file, and changes of a private mapping that a caller has made, would turn into zeros.
    if isinstance(owner, mmap.mmap) and memoryview(owner).readonly and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def check_finite(model: paddle.nn.Layer) -> None:
    """Raise ValueError if a parameter or buffer holds NaN or infinity, as after a failed training."""
    for name, value in model.state_dict().items():
        # The sum needs no memory, and is finite unless a number is not, or the numbers are absurdly large.
        if not np.isfinite(value.sum().item()) and not paddle.isfinite(value).all().item():
            raise ValueError(f"{name} holds numbers that are not finite")


def save_weights(model: paddle.nn.Layer, path: str | Path) -> None:
    """Write parameters and buffers by their names in the model, as safetensors or `.pdparams`."""
    write_weights(path, {name: copy_to_host(value) for name, value in model.state_dict().items()})


def load_weights(model: paddle.nn.Layer, path: str | Path, resizes_positions: bool = False) -> None:
    """Set parameters and buffers from a file that `save_weights` wrote.

    Args:
        model: the model.
        path: the file.
        resizes_positions: whether positions of images may be of another image size, and are then resized.

    Raises:
        ValueError: the file is damaged, or its names or shapes are not the model's.
    """
    arrays = read_weights(path)
    if resizes_positions:
        arrays = fit_positions(arrays, {name: value.shape for name, value in model.state_dict().items()})
    try:
        set_weights(model, arrays)
    except WeightMismatch as error:
        raise WeightMismatch(f"{path}: {error}") from None


def _read_safetensors(path: str | Path, header_size: int) -> dict[str, np.ndarray]:
    if header_size > MAX_HEADER_BYTES:
        raise WeightFileError(path, f"its header has {header_size:,} bytes; at most {MAX_HEADER_BYTES:,} are read")
    try:
        # The library checks the header: the arrays fill the file without a gap.
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        reason = make_printable(str(error), max_length=200)
        raise WeightFileError(path, f"not a whole safetensors file ({reason})") from None

    with Path(path).open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        header = parse_json(content[8 : 8 + header_size])
    except RepeatedKey as error:  # the library takes the last of several entries
        raise WeightFileError(path, f"its header is damaged: {error}") from None
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        type_name, (start, end) = entry["dtype"], entry["data_offsets"]
        if type_name not in _NUMPY_TYPES:
            raise WeightFileError(
                path,
                f"{make_printable(name, max_length=100)} is {type_name}, a type that NumPy does not have; convert it "
                "to float32",
            )
        # Offsets count from the end of the header, which follows 8 bytes with its length.
        dtype = np.dtype(_NUMPY_TYPES[type_name])
        count = (end - start) // dtype.itemsize
        if count:
            array = np.frombuffer(content, dtype, count, 8 + header_size + start)
        else:
            array = np.empty(0, dtype)
        try:
            arrays[name] = array.reshape(entry["shape"])
        except ValueError as error:  # more axes, or with an axis of size 0 larger ones, than NumPy allows
            raise WeightFileError(
                path, f"{make_printable(name, max_length=100)} has a shape that NumPy does not allow: {error}"
            ) from None
    return arrays


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    try:
        names_by_shard: dict[str, list[str]] = {}
        for name, shard in load_json(index)["weight_map"].items():
            names_by_shard.setdefault(shard, []).append(name)
        if not names_by_shard or not all(map(_is_shard_name, names_by_shard)):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightFileError(index, "not an index of shards: a weight_map from arrays to files next to it") from None

    arrays: dict[str, np.ndarray] = {}
    for shard, names in sorted(names_by_shard.items()):
        arrays_in_shard = _read_file(index.with_name(shard))
        missing = [name for name in names if name not in arrays_in_shard]
        if missing:
            missing_name = make_printable(missing[0], max_length=100)
            raise WeightFileError(index.with_name(shard), f"{missing_name} is not in it, as {index.name} says")
        # Arrays that the index does not list are left out.
        arrays |= {name: arrays_in_shard[name] for name in names}
    return arrays


def _is_shard_name(name: str) -> bool:
    """Return whether a name can be that of a file next to the index: no path that leads elsewhere, no other index."""
    # A name that is not printable may hold a NUL or half of a character, which no file name does.
    is_file_name = name not in ("", "..") and name.isprintable() and Path(name).name == name
    return is_file_name and not name.endswith(INDEX_SUFFIX)


def _collect_arrays(content: Any, file_size: int) -> dict[str, np.ndarray]:
    """Return the arrays in the unpickled content of a `.pdparams` file."""
    if not isinstance(content, dict):
        raise NotPlainData(f"it holds no dict of arrays but a {type(content).__name__.strip('_').lower()}")
    piece_table = content.pop(_PIECE_TABLE, {})
    arrays = {}
    for name, value in content.items():
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], ArrayPlaceholder):
            value = value[1]  # a Paddle tensor is saved as its name and its array
        if isinstance(value, ArrayPlaceholder):
            if value.value is None:
                raise NotPlainData(f"the array {make_printable(name, max_length=100)} has no content")
            arrays[name] = value.value
    _join_pieces(arrays, piece_table)
    # Paddle stores bfloat16 as uint16, and takes uint16 for it when it loads a file.
    arrays = {name: array.view(BFLOAT16) if array.dtype == "<u2" else array for name, array in arrays.items()}

    if not arrays:
        names = [make_printable(name, max_length=100) for name in list(content)[:5]]
        raise NotPlainData(f"no arrays at its top level, only {', '.join(map(repr, names)) or 'nothing'}")
    # Tied weights are listed twice; a file with more copies was made to fill the memory.
    if sum(array.nbytes for array in arrays.values()) > 2 * file_size:
        raise NotPlainData("its arrays share their content, and together are more than twice as large as the file")
    return arrays


def _join_pieces(arrays: dict[str, np.ndarray], piece_table: Any) -> None:
    """Join arrays that Paddle cuts into pieces, as it does above 1 GiB with pickle protocols 2 and 3, in place."""
    try:
        for name, entry in piece_table.items():
            pieces = [arrays.pop(piece) for piece in entry["slices"]]
            if not pieces or any(piece.ndim != 1 or piece.dtype != pieces[0].dtype for piece in pieces):
                raise NotPlainData("pieces of an array that do not fit together")
            arrays[name] = np.concatenate(pieces).reshape(tuple(entry["OriginShape"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NotPlainData("a table of array pieces that does not fit its arrays") from error


def _describe_difference(array: np.ndarray, value: paddle.Tensor) -> str | None:
    model_type, array_type = np.dtype(_numpy_type(value)), array.dtype
    # The width may differ, such as float16 and float32: the array is converted. Integers are no floats.
    if model_type.kind != array_type.kind:
        return f"array {array_type} {list(array.shape)}, model {model_type} {list(value.shape)}"
    if list(array.shape) != list(value.shape):
        return f"array {list(array.shape)}, model {list(value.shape)}"
    return None


def _numpy_type(value: paddle.Tensor) -> str:
    return str(value.dtype).removeprefix("paddle.")
