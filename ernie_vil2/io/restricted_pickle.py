"""Pickles of plain data, read without running anything that they name.

A pickle is a program for a stack machine, and Python's unpickler runs whatever function it names. Here it knows the
operations of texts, numbers, lists, tuples, dicts and NumPy's arrays alone, and NumPy's names mean this
module's own functions; any other operation or name is refused.
"""

import io
import math
import mmap
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import numpy as np

MAX_OPERATIONS = 1_000_000
"""A model of a thousand arrays takes about 30,000; a file of only operations could fill the memory."""
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16)")
_OPERATIONS = {
    "PROTO", "FRAME", "STOP", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "EMPTY_TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3", "TUPLE", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "MARK",
    "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
}  # fmt: skip


class Refused(ValueError):  # noqa: N818  -- named by what has happened
    """The reason why a pickle is not read. What it nests is never in a message: formatting it might not end."""


class Array:
    """What replaces a `numpy.ndarray`: empty until the pickle gives its state."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, column_major, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
            raise Refused("an array whose content is not bytes of a plain type")
        self.value = _array(content, dtype.value, shape, "F" if column_major is True else "C")


class _Dtype:
    """What replaces a `numpy.dtype`: its letter and size, and the byte order that a state adds."""

    def __init__(self, code: Any, *_: Any):
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            kind = ascii(code[:20]) if isinstance(code, str) else f"a {type(code).__name__}"
            raise Refused(f"arrays of type {kind}; only numbers and truth values are read")
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        _, order, subtype, names, fields, *_ = state
        if order not in ("<", ">", "|", "=") or not subtype is names is fields is None:
            raise Refused("a type of array elements that has parts or an unknown byte order")
        self.value = self.value.newbyteorder(order)


def load(
    content: bytes | mmap.mmap,
    names: Mapping[tuple[str, str], Callable[..., Any]] | None = None,
    outside: Callable[[Any], Any] | None = None,
) -> Any:
    """The object that a pickle describes, with an `Array` for each array, over bytes of its own.

    Dicts have texts as keys, and whole numbers where `outside` is given. Containers may be nested to any depth and hold
    themselves: who goes through them must bound that. Memory is that of the content and of at most `MAX_OPERATIONS`
    small objects.

    Args:
        names: what further names mean, by module and name.
        outside: makes the object that a persistent id names, which is not in the pickle, as in PyTorch's files; None:
            it may not have any.

    Raises:
        Refused: it is cut off, damaged, or anything but plain data.
    """
    try:
        for count, (operation, _, position) in enumerate(pickletools.genops(cast(bytes, content))):
            if operation.name not in _OPERATIONS and not (outside and operation.name == "BINPERSID"):
                raise Refused(f"the pickle operation {operation.name}, which plain data does not need")
            if count >= MAX_OPERATIONS:
                raise Refused(f"more than {MAX_OPERATIONS:,} operations")
            end = (position or 0) + 1
        if end != len(content):
            raise Refused(f"{len(content) - end} bytes follow its end")
        unpickler = _Unpickler(content, names or {}, outside)
        value = unpickler.load()
        if unpickler.stack or unpickler.metastack:
            raise Refused("its operations do not add up to one object")
        return value
    except Refused:
        raise
    except Exception as error:  # what a damaged pickle makes of the stack can raise nearly anything
        raise Refused(f"damaged ({type(error).__name__}: {ascii(str(error)[:200])[1:-1]})") from None


_PythonUnpickler: Any = pickle._Unpickler  # its operations are methods, which its types leave out


class _Unpickler(_PythonUnpickler):
    def __init__(
        self,
        content: bytes | mmap.mmap,
        names: Mapping[tuple[str, str], Callable[..., Any]],
        outside: Callable[[Any], Any] | None,
    ):
        if isinstance(content, mmap.mmap):
            content.seek(0)
        super().__init__(content if isinstance(content, mmap.mmap) else io.BytesIO(content))
        self._functions = {**_functions(len(content)), **names}
        self._keys: tuple[type, ...] = (str, int) if outside else (str,)
        if outside:
            self.persistent_load = outside

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in self._functions:
            asked = ascii(f"{module[:100]}.{name[:100]}")[1:-1]
            raise Refused(f"it asks for {asked}, which is not data and could be anything")
        return self._functions[module, name]

    def load_build(self) -> None:
        if int in self._keys and type(self.stack[-2]) is dict:  # attributes, as PyTorch gives a state dict its versions
            self.stack.pop()
            return
        if not isinstance(self.stack[-2], Array | _Dtype):
            raise Refused("a state for something that is not an array")
        super().load_build()

    def load_setitem(self) -> None:
        self._set_items([self.stack.pop(), self.stack.pop()][::-1])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, items: list[Any]) -> None:
        # A tuple as a key would be hashed, at any depth, on the C stack.
        if type(self.stack[-1]) is not dict or not all(type(key) in self._keys for key in items[::2]):
            raise Refused("a dict whose keys are not strings")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    dispatch = _PythonUnpickler.dispatch | {
        pickle.BUILD[0]: load_build, pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems,
    }  # fmt: skip


def _functions(size: int) -> dict[tuple[str, str], Callable[..., Any]]:
    """What the names in a pickle of `size` bytes mean."""
    left = size

    def ndarray() -> None:
        raise Refused("a call of numpy.ndarray, which is named as an argument only")

    def reconstruct(kind: Any, shape: Any, code: Any) -> Array:
        if kind is not ndarray:
            raise Refused("an array of a class of its own")
        return Array()

    def scalar(dtype: _Dtype, content: bytes) -> Any:
        return _array(content, dtype.value, ())[()]

    def encode(text: str, encoding: str) -> bytes:  # bytes before protocol 3
        nonlocal left
        left -= len(text)
        if left < 0 or encoding not in ("latin1", "latin-1"):
            raise Refused("a text in an encoding that is not latin1, or texts that are encoded again and again")
        return text.encode("latin1")

    def as_tuple(items: tuple) -> tuple:  # how Paddle writes its tensors
        if type(items) is not tuple:
            raise Refused("a tuple of something that is not a tuple")
        return items

    multiarray, builtins = ("numpy.core.multiarray", "numpy._core.multiarray"), ("builtins", "__builtin__")
    return {
        ("numpy", "ndarray"): ndarray,
        ("numpy", "dtype"): _Dtype,
        **{(module, "_reconstruct"): reconstruct for module in multiarray},
        **{(module, "scalar"): scalar for module in multiarray},
        ("_codecs", "encode"): encode,
        ("collections", "OrderedDict"): lambda: {},
        **{(module, "tuple"): as_tuple for module in builtins},
        **{(module, "bytes"): lambda: b"" for module in builtins},  # empty ones before protocol 3
    }


def _array(content: bytes, dtype: np.dtype, shape: Any, order: Literal["C", "F"] = "C") -> np.ndarray:
    few = isinstance(shape, tuple) and len(shape) <= 32
    if not few or not all(type(size) is int and 0 <= size < 2**48 for size in shape):
        raise Refused("an array whose shape is not a few whole numbers")
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(content):
        raise Refused(f"an array of shape {shape} takes {needed} bytes, the file gives {len(content)}")
    return np.frombuffer(content, dtype).reshape(shape, order=order)
