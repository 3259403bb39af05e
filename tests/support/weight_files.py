"""Pieces of hand-made weight files: pickles, the zip archives of PyTorch, safetensors."""

import json
import pickle
import struct
import zipfile

from tests.support.other_families import OWN


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def raw(value):
    return b"B" + struct.pack("<I", len(value)) + value


def function(module, name):
    return f"c{module}\n{name}\n".encode()


ZEROS = raw(b"\0" * 8)


def array(content=ZEROS, shape=b"K\x02\x85", dtype=None, kind=None, order=b"\x89"):
    """An array of two float32 zeros, as NumPy pickles it, with a part exchanged."""
    dtype = dtype or function("numpy", "dtype") + text("f4") + b"\x89\x88\x87R" + dtype_state()
    kind = kind or function("numpy", "ndarray")
    start = function("numpy.core.multiarray", "_reconstruct") + kind + b"K\0\x85" + raw(b"b") + b"\x87R"
    return start + b"(K\x01" + shape + dtype + order + content + b"tb"


def dtype_state(order="<", fields=b"NNN"):
    return b"(K\x03" + text(order) + fields + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"


def entry(value, name="w"):
    """A pickle of one dict entry."""
    return b"\x80\x04}" + text(name) + value + b"s."


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def calls(function, *arguments, protocol=4):
    return pickle.dumps({"w": Calls(function, *arguments)}, protocol=protocol)


CANARY = "canary"
RUN = f"touch {CANARY}"
PYTHON = f"open({CANARY!r}, 'w').close()"
DTYPE_F4 = function("numpy", "dtype") + text("f4") + b"\x89\x88\x87R"


# Two references to a pair of two references to ..., 2 to the power of 100 texts when it is written out; and a list in a
# list in a list ..., at which Python's own repr ends in a RecursionError.
BOMB = b")" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(100))
WELL = b"]" * 100_000 + b"a" * 99_999


def safetensors(header, content=b"\0" * 8):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + content


def tensor(start, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def torch_archive(path, change=lambda name, content: content, compression=zipfile.ZIP_STORED, more=None):
    """Write Chinese-CLIP's file with other contents; None leaves a file out."""
    source_path = OWN / "cn_clip_pt" / "clip_cn_vit-b-16.pt"
    with zipfile.ZipFile(source_path) as source, zipfile.ZipFile(path, "w", compression) as target:
        for name in source.namelist():
            content = change(name.partition("/")[2], source.read(name))
            if content is not None:
                target.writestr(name, content)
        for name, content in (more or {}).items():
            target.writestr(name, content)
    return path
