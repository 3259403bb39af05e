"""Pieces of hand-made weight files: opcodes of pickles, the zip archives of PyTorch, safetensors."""

import json
import pickle
import struct
import zipfile

from tests.support.other_families import FAMILY_FIXTURES


def pickle_text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def pickle_bytes(value):
    return b"B" + struct.pack("<I", len(value)) + value


def pickle_function(module, name):
    return f"c{module}\n{name}\n".encode()


ZEROS = pickle_bytes(b"\0" * 8)


def pickle_array(content=ZEROS, shape=b"K\x02\x85", dtype=None, kind=None, order=b"\x89"):
    """Return an array of two float32 zeros as NumPy pickles it, perhaps with a piece exchanged."""
    dtype = dtype or pickle_function("numpy", "dtype") + pickle_text("f4") + b"\x89\x88\x87R" + pickle_dtype_state()
    kind = kind or pickle_function("numpy", "ndarray")
    start = pickle_function("numpy.core.multiarray", "_reconstruct") + kind + b"K\0\x85" + pickle_bytes(b"b") + b"\x87R"
    return start + b"(K\x01" + shape + dtype + order + content + b"tb"


def pickle_dtype_state(order="<", fields=b"NNN"):
    return b"(K\x03" + pickle_text(order) + fields + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"


def pickle_entry(value, name="w"):
    """Return a pickle of a dict with one entry."""
    return b"\x80\x04}" + pickle_text(name) + value + b"s."


class CallOnLoad:
    """Object whose pickle calls `function` with `arguments` when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def pickle_call(function, *arguments, protocol=4):
    return pickle.dumps({"w": CallOnLoad(function, *arguments)}, protocol=protocol)


CANARY = "canary"
SHELL_COMMAND = f"touch {CANARY}"
PYTHON_CODE = f"open({CANARY!r}, 'w').close()"
DTYPE_F4 = pickle_function("numpy", "dtype") + pickle_text("f4") + b"\x89\x88\x87R"


# A pair of two references to a pair of two references to ...: 2 to the power of 100 texts when it is written out.
BOMB = b")" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(100))
# A list in a list in a list ..., for which Python's repr ends in a RecursionError.
DEEP_LIST = b"]" * 100_000 + b"a" * 99_999


def make_safetensors(header, content=b"\0" * 8):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + content


def describe_tensor(start, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def write_torch_archive(path, change=lambda name, content: content, compression=zipfile.ZIP_STORED, more=None):
    """Write Chinese-CLIP's file with changed members; a member for which `change` returns None is left out."""
    source_path = FAMILY_FIXTURES / "cn_clip_pt" / "clip_cn_vit-b-16.pt"
    with zipfile.ZipFile(source_path) as source, zipfile.ZipFile(path, "w", compression) as target:
        for name in source.namelist():
            content = change(name.partition("/")[2], source.read(name))
            if content is not None:
                target.writestr(name, content)
        for name, content in (more or {}).items():
            target.writestr(name, content)
    return path
