"""Pickles of plain data, read without running anything that they name.

A pickle is a program for a stack machine, and Python's unpickler calls whatever function it names. The unpickler here
knows only the operations for texts, numbers, lists, tuples, dicts and NumPy's arrays. NumPy's names stand for functions
of this module; any other operation or name is refused.
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

# A model of a thousand arrays takes about 30,000 operations. Without a limit, a file that consists of operations could
# fill the memory.
MAX_OPERATIONS = 1_000_000
# Limits of an array: NumPy's own number of axes (32 before NumPy 2), and sizes whose products are computed quickly.
_MAX_AXES, _MAX_AXIS_SIZE = 32, 2**48
# Bound of whole numbers as keys of a dict. Python hashes a number by its remainder modulo 2**61 - 1: half a million
# larger ones can all have the same hash, and such a dict would take half an hour to fill.
_MAX_KEY = 2**31
# Codes of NumPy for truth values, integers and floating-point numbers, with their size and byte order.
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16)")
# The operations that plain data needs, by their names in pickletools.
_OPERATIONS = {
    "PROTO", "FRAME", "STOP", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "EMPTY_TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3", "TUPLE", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "MARK",
    "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
}  # fmt: skip


class NotPlainData(ValueError):  # noqa: N818  -- named by what has happened
    """A file is damaged or holds more than plain data; the message says why it is not read.

    Messages never quote nested content: formatting it might not end.
    """


class ArrayPlaceholder:
    """Stands for a `numpy.ndarray`; its value is None until the pickle gives its state."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_column_major, content = state
        if not isinstance(dtype, _DtypePlaceholder) or not isinstance(content, bytes):
            raise NotPlainData("an array whose content is not bytes of a plain type")
        order: Literal["C", "F"] = "F" if is_column_major is True else "C"
        self.value = _make_array(content, dtype.value, shape, order)


class _DtypePlaceholder:
    """Stands for a `numpy.dtype`; it is made of letter and size, and its state adds the byte order."""

    def __init__(self, code: Any, *_: Any):
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            description = ascii(code[:20]) if isinstance(code, str) else f"a {type(code).__name__}"
            raise NotPlainData(f"arrays of type {description}; only numbers and truth values are read")
        self.value = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        _, byte_order, subtype, names, fields, *_ = state
        has_parts = not (subtype is None and names is None and fields is None)
        if has_parts or byte_order not in ("<", ">", "|", "="):
            raise NotPlainData("a type of array elements that has parts or an unknown byte order")
        self.value = self.value.newbyteorder(byte_order)


def load_plain_data(
    content: bytes | mmap.mmap,
    constructors: Mapping[tuple[str, str], Callable[..., Any]] | None = None,
    load_persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the object that a pickle describes, with an `ArrayPlaceholder` for each array, which has its own memory.

    Keys of dicts are texts; with `load_persistent` they may be whole numbers up to 2**31, too. Containers may be nested
    to any depth and contain themselves, so whoever walks through them must set a limit. The result takes the memory of
    the content and of at most `MAX_OPERATIONS` small objects.

    Args:
        content: the pickle.
        constructors: functions for further names, by module and name.
        load_persistent: returns the object for a persistent id, whose content is outside of the pickle, as in PyTorch's
            files; None: persistent ids are refused.

    Raises:
        NotPlainData: the pickle is cut off, damaged, or holds anything but plain data.
    """
    try:
        # Every operation is checked before any of them is executed.
        for count, (operation, _, position) in enumerate(pickletools.genops(cast(bytes, content))):
            is_persistent_id = load_persistent is not None and operation.name == "BINPERSID"
            if operation.name not in _OPERATIONS and not is_persistent_id:
                raise NotPlainData(f"the pickle operation {operation.name}, which plain data does not need")
            if count >= MAX_OPERATIONS:
                raise NotPlainData(f"more than {MAX_OPERATIONS:,} operations")
            end = (position or 0) + 1
        if end != len(content):
            raise NotPlainData(f"{len(content) - end} bytes follow its end")

        unpickler = _Unpickler(content, constructors or {}, load_persistent)
        value = unpickler.load()
        if unpickler.stack or unpickler.metastack:
            raise NotPlainData("its operations do not add up to one object")
        return value
    except NotPlainData:
        raise
    except Exception as error:  # a damaged pickle brings the stack into a state in which nearly anything can be raised
        raise NotPlainData(f"damaged ({type(error).__name__}: {ascii(str(error)[:200])[1:-1]})") from None


# The unpickler in C cannot be restricted by operation. This one, written in Python, has a method for each operation,
# which its types leave out.
_PythonUnpickler: Any = pickle._Unpickler


class _Unpickler(_PythonUnpickler):
    def __init__(
        self,
        content: bytes | mmap.mmap,
        constructors: Mapping[tuple[str, str], Callable[..., Any]],
        load_persistent: Callable[[Any], Any] | None,
    ):
        if isinstance(content, mmap.mmap):
            content.seek(0)
            file: Any = content
        else:
            file = io.BytesIO(content)
        super().__init__(file)
        self._constructors = {**_make_constructors(len(content)), **constructors}
        self._key_types: tuple[type, ...] = (str,)
        if load_persistent:
            self._key_types = (str, int)
            self.persistent_load = load_persistent

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in self._constructors:
            escaped_name = ascii(f"{module[:100]}.{name[:100]}")[1:-1]
            raise NotPlainData(f"it asks for {escaped_name}, which is not data and could be anything")
        return self._constructors[module, name]

    def load_build(self) -> None:
        # PyTorch gives a state dict attributes, its versions, which are dropped.
        if int in self._key_types and type(self.stack[-2]) is dict:
            self.stack.pop()
            return
        if not isinstance(self.stack[-2], ArrayPlaceholder | _DtypePlaceholder):
            raise NotPlainData("a state for something that is not an array")
        super().load_build()

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        # A tuple as a key would be hashed recursively, and deep nesting would overflow the C stack.
        has_valid_keys = all(type(key) in self._key_types for key in keys)
        if type(self.stack[-1]) is not dict or not has_valid_keys:
            raise NotPlainData("a dict whose keys are not strings")
        if any(type(key) is int and abs(key) > _MAX_KEY for key in keys):
            raise NotPlainData("a dict with a number above 2**31 as a key")
        self.stack[-1].update(zip(keys, values, strict=True))

    dispatch = _PythonUnpickler.dispatch | {
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }


def _make_constructors(num_bytes: int) -> dict[tuple[str, str], Callable[..., Any]]:
    """Return the functions for the names that a pickle of this size may use, by module and name."""
    remaining_characters = num_bytes

    def ndarray() -> None:
        raise NotPlainData("a call of numpy.ndarray, which is named as an argument only")

    def reconstruct(array_type: Any, shape: Any, code: Any) -> ArrayPlaceholder:
        if array_type is not ndarray:
            raise NotPlainData("an array of a class of its own")
        return ArrayPlaceholder()

    def scalar(dtype: _DtypePlaceholder, content: bytes) -> Any:
        return _make_array(content, dtype.value, ())[()]

    # Pickles before protocol 3 store bytes as a text and its encoding. A text that is named again and again would be
    # encoded each time, so all of them together are limited to the size of the pickle.
    def encode(text: str, encoding: str) -> bytes:
        nonlocal remaining_characters
        remaining_characters -= len(text)
        if remaining_characters < 0 or encoding not in ("latin1", "latin-1"):
            raise NotPlainData("a text in an encoding that is not latin1, or texts that are encoded again and again")
        return text.encode("latin1")

    # Paddle writes a tensor as a tuple of its name and its array.
    def make_tuple(items: tuple) -> tuple:
        if type(items) is not tuple:
            raise NotPlainData("a tuple of something that is not a tuple")
        return items

    constructors: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "ndarray"): ndarray,
        ("numpy", "dtype"): _DtypePlaceholder,
        ("_codecs", "encode"): encode,
        ("collections", "OrderedDict"): lambda: {},
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # before and since NumPy 2
        constructors[module, "_reconstruct"] = reconstruct
        constructors[module, "scalar"] = scalar
    for module in ("builtins", "__builtin__"):  # since and before protocol 3
        constructors[module, "tuple"] = make_tuple
        constructors[module, "bytes"] = lambda: b""  # empty bytes before protocol 3
    return constructors


def _make_array(content: bytes, dtype: np.dtype, shape: Any, order: Literal["C", "F"] = "C") -> np.ndarray:
    is_short_tuple = isinstance(shape, tuple) and len(shape) <= _MAX_AXES
    if not is_short_tuple or not all(type(size) is int and 0 <= size < _MAX_AXIS_SIZE for size in shape):
        raise NotPlainData("an array whose shape is not a few whole numbers")
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes != len(content):
        raise NotPlainData(f"an array of shape {shape} takes {num_bytes} bytes, the file gives {len(content)}")
    return np.frombuffer(content, dtype).reshape(shape, order=order)
