"""Files of named arrays: Paddle's `.pdparams` and `.safetensors`, read without running anything they hold.

A `.pdparams` file is a pickle, and a pickle is a program. Python's unpickler runs it; `read_weights` interprets it
itself, and knows only what the weights of `paddle.save` consist of: arrays, scalars, strings, dicts, lists, tuples.
The names of functions in a file are compared with a short list and stand for what this module does in their place.
"""

from __future__ import annotations

import math
import mmap
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ernie_vil2.files import written_whole

_NAME_TABLE = "StructuredToParameterName@@"
_SPLIT_TABLE = "UnpackBigParamInfor@@"  # Paddle's spelling
_MAX_OPERATIONS = 10_000_000
"""A model of a thousand arrays takes about 30,000; a small file of only operations could fill the memory."""
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16)")
_FOREIGN = {
    b"PK\x03\x04": "a zip archive, perhaps a PyTorch file",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\x00\x00\x00\x00": "Paddle's binary tensor format; save the state dict with paddle.save instead",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run git lfs pull",
    b"<": "a web page, not weights; was the download refused?",
}


class WeightFileError(ValueError):
    """A weight file that is damaged, of another kind, or asks for more than arrays; the message says which and why."""

    def __init__(self, path: str | Path, reason: str):
        super().__init__(f"{path}: {reason}")


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a `.pdparams` or `.safetensors` file by name; its content tells which of the two it is.

    Entries of a `.pdparams` that are no arrays, such as Paddle's table of parameter names, are left out. The arrays
    may be read-only views of the bytes read.

    Raises:
        FileNotFoundError: there is no such file.
        WeightFileError: it is neither, it is cut off, or it holds anything but plain data.
    """
    with open(path, "rb") as file:
        head = file.read(512)
        if not head:
            raise WeightFileError(path, "the file is empty")
        if head[8:9] != b"{" and head[0] == pickle.PROTO[0]:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                try:
                    return _named_arrays(_Pickle(content).load())
                except (_Refused, ValueError, OverflowError) as error:
                    raise WeightFileError(path, f"not a plain weight file: {error}") from None
    if head[8:9] == b"{":
        return _read_safetensors(path)
    for start, kind in _FOREIGN.items():
        if head.startswith(start):
            raise WeightFileError(path, kind)
    if head[257:262] == b"ustar":
        raise WeightFileError(path, "a tar archive; unpack it first")
    raise WeightFileError(path, "neither a .pdparams nor a .safetensors file")


def write_weights(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as `.pdparams`, which `paddle.load` reads as tensors, or as `.safetensors`: the suffix decides.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    if path.suffix not in (".pdparams", ".safetensors"):
        raise ValueError(f"{path}: the name must end in .pdparams or .safetensors")
    arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    with written_whole(path) as aside:
        if path.suffix == ".safetensors":
            save_file(arrays, aside)
        else:
            with open(aside, "wb") as file:
                # What the table names are tensors when Paddle loads the file.
                pickle.dump({**arrays, _NAME_TABLE: {name: name for name in arrays}}, file, protocol=4)


def _read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightFileError(path, f"not a whole safetensors file ({error})") from None
    except (KeyError, TypeError) as error:
        raise WeightFileError(path, f"a type of number that NumPy has not ({error}); convert to float32") from None


class _Refused(Exception):
    """The reason why a pickle is not read."""


class _Dtype:
    """What `numpy.dtype` stands for: its letter and size, and the byte order that a BUILD adds."""

    def __init__(self, code: Any, *_: Any):
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise _Refused(f"arrays of type {code!r}; only numbers and truth values are read")
        self.value = np.dtype(code)

    def build(self, state: Any) -> None:
        _, order, subtype, names, fields, *_ = _sequence(state, 8, "the state of a type")
        if order not in ("<", ">", "|", "=") or (subtype, names, fields) != (None, None, None):
            raise _Refused("a type of array elements that has parts or an unknown byte order")
        self.value = self.value.newbyteorder(order)


class _Array:
    """What `numpy.ndarray` stands for: an empty place that a BUILD fills. Until then `value` is None."""

    value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        _, shape, dtype, column_major, content = _sequence(state, 5, "the state of an array")
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise _Refused("an array whose content is not bytes of a plain type")
        self.value = _array(content, dtype.value, _shape(shape), "F" if column_major is True else "C")


def _array(content: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str = "C") -> np.ndarray:
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(content):
        raise _Refused(f"an array of shape {shape} takes {needed} bytes, the file gives {len(content)}")
    return np.frombuffer(content, dtype).reshape(shape, order=order)


def _shape(shape: Any) -> tuple[int, ...]:
    whole = isinstance(shape, tuple | list) and all(type(size) is int and 0 <= size < 2**48 for size in shape)
    if not whole or len(shape) > 32:
        raise _Refused("an array whose shape is not a few whole numbers")
    return tuple(shape)


def _sequence(value: Any, length: int, what: str) -> tuple:
    if not isinstance(value, tuple) or len(value) != length:
        raise _Refused(f"{what} is not made of {length} parts")
    return value


class _Pickle:
    """Interprets a pickle of plain data on a stack of its own. `_Refused` or ValueError: it is something else."""

    def __init__(self, content: mmap.mmap):
        self.content = content
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.encoded = 0
        numpy_modules = ("numpy.core.multiarray", "numpy._core.multiarray")
        self.functions: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "ndarray"): self._never,  # named as an argument only
            ("numpy", "dtype"): _Dtype,
            **{(module, "_reconstruct"): self._reconstruct for module in numpy_modules},
            **{(module, "scalar"): self._scalar for module in numpy_modules},
            ("_codecs", "encode"): self._encode,
            ("collections", "OrderedDict"): self._empty_dict,
            # How Paddle's tensors and, before protocol 3, empty bytes are written.
            **{(module, "tuple"): self._tuple for module in ("builtins", "__builtin__")},
            **{(module, "bytes"): self._empty_bytes for module in ("builtins", "__builtin__")},
        }

    def load(self) -> Any:
        """The object that the pickle describes."""
        for count, (operation, argument, _) in enumerate(pickletools.genops(self.content)):
            if count > _MAX_OPERATIONS:
                raise _Refused(f"more than {_MAX_OPERATIONS:,} operations")
            perform = getattr(self, f"_op_{operation.name.lower()}", None)
            if perform is not None:
                perform(argument)
            elif operation.name in _LITERALS:
                self.stack.append(argument)
            elif operation.name not in ("PROTO", "FRAME", "STOP"):
                raise _Refused(f"the pickle operation {operation.name}, which weights do not need")
        if len(self.stack) != 1 or self.marks:
            raise _Refused("its operations do not add up to one object")
        if self.content.tell() != len(self.content):
            raise _Refused(f"{len(self.content) - self.content.tell()} bytes follow its end")
        return self.stack[0]

    def _pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise _Refused("an operation lacks its operand")
        return self.stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise _Refused("an operation lacks its operands")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _op_mark(self, _: None) -> None:
        self.marks.append(len(self.stack))

    def _op_none(self, _: None) -> None:
        self.stack.append(None)

    def _op_newtrue(self, _: None) -> None:
        self.stack.append(True)

    def _op_newfalse(self, _: None) -> None:
        self.stack.append(False)

    def _op_empty_dict(self, _: None) -> None:
        self.stack.append({})

    def _op_empty_list(self, _: None) -> None:
        self.stack.append([])

    def _op_empty_tuple(self, _: None) -> None:
        self.stack.append(())

    def _op_tuple(self, _: None) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def _op_tuple1(self, _: None) -> None:
        self.stack.append((self._pop(),))

    def _op_tuple2(self, _: None) -> None:
        last = self._pop()
        self.stack.append((self._pop(), last))

    def _op_tuple3(self, _: None) -> None:
        last, middle = self._pop(), self._pop()
        self.stack.append((self._pop(), middle, last))

    def _op_append(self, _: None) -> None:
        self._extend([self._pop()])

    def _op_appends(self, _: None) -> None:
        self._extend(self._pop_to_mark())

    def _op_setitem(self, _: None) -> None:
        value = self._pop()
        self._update([self._pop(), value])

    def _op_setitems(self, _: None) -> None:
        self._update(self._pop_to_mark())

    def _op_memoize(self, _: None) -> None:
        self._op_binput(len(self.memo))

    def _op_binput(self, number: int) -> None:
        self.memo[number] = self._pop()
        self.stack.append(self.memo[number])

    _op_long_binput = _op_binput

    def _op_binget(self, number: int) -> None:
        if number not in self.memo:
            raise _Refused("a reference to an object that it does not hold")
        self.stack.append(self.memo[number])

    _op_long_binget = _op_binget

    def _op_global(self, name: str) -> None:
        self._function(*name.split(" ", 1))

    def _op_stack_global(self, _: None) -> None:
        name = self._pop()
        self._function(self._pop(), name)

    def _op_reduce(self, _: None) -> None:
        arguments, function = self._pop(), self._pop()
        # By identity: a comparison would be up to what the file has put there.
        if not isinstance(arguments, tuple) or not any(function is known for known in self.functions.values()):
            raise _Refused("a call of something that is no function known here")
        try:
            self.stack.append(function(*arguments))
        except TypeError:
            raise _Refused("a call with arguments that do not belong there") from None

    def _op_build(self, _: None) -> None:
        state, target = self._pop(), self._pop()
        if not isinstance(target, _Array | _Dtype):
            raise _Refused("a state for something that is no array")
        target.build(state)
        self.stack.append(target)

    def _extend(self, items: list[Any]) -> None:
        target = self._pop()
        if not isinstance(target, list):
            raise _Refused("an append to something that is no list")
        target.extend(items)
        self.stack.append(target)

    def _update(self, items: list[Any]) -> None:
        target = self._pop()
        keys = items[::2]
        if not isinstance(target, dict) or len(items) % 2 or not all(isinstance(key, str) for key in keys):
            raise _Refused("a dict whose keys are not strings")
        target.update(zip(keys, items[1::2], strict=True))
        self.stack.append(target)

    def _function(self, module: Any, name: Any) -> None:
        known = isinstance(module, str) and isinstance(name, str) and (module, name) in self.functions
        if not known:
            raise _Refused(f"it asks for {module!s:.100}.{name!s:.100}, which is not data and could be anything")
        self.stack.append(self.functions[module, name])

    def _reconstruct(self, kind: Any, shape: Any, code: Any) -> _Array:
        if kind is not self.functions["numpy", "ndarray"]:
            raise _Refused("an array of a class of its own")
        return _Array()

    def _scalar(self, dtype: Any, content: Any) -> np.generic:
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise _Refused("a scalar whose content is not bytes of a plain type")
        return _array(content, dtype.value, ())[()]

    def _encode(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise _Refused("a text in an encoding that is not latin1")
        # Each text of a file is encoded once; a file that encodes one again and again would fill the memory.
        self.encoded += len(text)
        if self.encoded > len(self.content):
            raise _Refused("texts that are encoded again and again")
        return text.encode("latin1")

    @staticmethod
    def _never() -> None:
        raise _Refused("a call of numpy.ndarray")

    @staticmethod
    def _empty_dict() -> dict:
        return {}

    @staticmethod
    def _empty_bytes() -> bytes:
        return b""

    @staticmethod
    def _tuple(items: Any) -> tuple:
        if not isinstance(items, tuple):
            raise _Refused("a tuple of something that is no tuple")
        return items


_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip


def _named_arrays(content: Any) -> dict[str, np.ndarray]:
    if not isinstance(content, dict):
        raise _Refused(f"it holds no dict of arrays but a {type(content).__name__.strip('_').lower()}")
    split = content.pop(_SPLIT_TABLE, {})
    arrays = {}
    for name, value in content.items():
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], _Array):
            value = value[1]  # a Paddle tensor: its own name and its array
        if isinstance(value, _Array):
            if value.value is None:
                raise _Refused(f"the array {name} has no content")
            arrays[name] = value.value
    _join(arrays, split)
    if not arrays:
        raise _Refused(f"no arrays at its top level, only {', '.join(map(repr, list(content)[:5])) or 'nothing'}")
    return arrays


def _join(arrays: dict[str, np.ndarray], split: Any) -> None:
    """Puts arrays together that Paddle has cut into pieces, which it does above 1 GiB at protocols 2 and 3."""
    try:
        tables = [(name, [arrays.pop(piece) for piece in entry["slices"]], entry["OriginShape"])
                  for name, entry in split.items()]  # fmt: skip
    except (AttributeError, KeyError, TypeError):
        raise _Refused("a table of array pieces that does not fit its arrays") from None
    for name, pieces, shape in tables:
        if not pieces or any(piece.ndim != 1 or piece.dtype != pieces[0].dtype for piece in pieces):
            raise _Refused(f"the pieces of {name} do not fit together")
        arrays[name] = np.concatenate(pieces).reshape(_shape(shape))
