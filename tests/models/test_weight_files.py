"""Weight files: what Paddle and NumPy write is read exactly, and what is not plain data is refused and never run."""

import builtins
import collections
import io
import json
import os
import pickle
import re
import struct
import sys
import tarfile
import tracemalloc
import zipfile

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ernie_vil2.models.weights.files import WeightFileError, read_weights, write_weights
from tests.support.processes import run_process

ARRAYS = {
    "matrix": np.arange(6, dtype="float32").reshape(2, 3),
    "scalar": np.array(2.5, "float32"),
    "none": np.zeros([0, 4], "float32"),
    "ids": np.array([[1, -2]], "int64"),
    "half": np.array([0.1], "float16"),
    "flags": np.array([True, False]),
}


def equal(found, expected):
    return found.keys() == expected.keys() and all(
        found[name].dtype == array.dtype and found[name].shape == array.shape and np.array_equal(found[name], array)
        for name, array in expected.items()
    )


@pytest.mark.parametrize("suffix", ["pdparams", "safetensors"])
@given(
    arrays=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
        hnp.arrays(
            st.sampled_from(["float32", "float64", "float16", "int64", "int8", "uint8", "bool"]),
            hnp.array_shapes(min_dims=0, min_side=0, max_side=3),
            elements={"allow_nan": False},
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_is_read_back(tmp_path_factory, suffix, arrays):
    path = tmp_path_factory.mktemp("weights") / f"w.{suffix}"
    write_weights(path, arrays)
    assert equal(read_weights(path), arrays)


def test_arrays_in_column_order_and_views_are_written_as_they_look(tmp_path):
    base = np.arange(12, dtype="float32").reshape(3, 4)
    arrays = {"columns": np.asfortranarray(base), "view": base[:, ::2], "turned": base.T}
    for name in ("w.pdparams", "w.safetensors"):
        write_weights(tmp_path / name, arrays)
        assert equal(read_weights(tmp_path / name), arrays)
    with pytest.raises(ValueError, match=r"must end in \.pdparams or \.safetensors"):
        write_weights(tmp_path / "w.bin", arrays)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_paddle_saves_is_read(tmp_path, protocol):
    layer = paddle.nn.Sequential(paddle.nn.Linear(3, 2), paddle.nn.BatchNorm1D(2))
    path = tmp_path / "layer.pdparams"
    paddle.save(layer.state_dict(), str(path), protocol=protocol)
    assert equal(read_weights(path), {name: value.numpy() for name, value in layer.state_dict().items()})


def test_paddle_loads_what_is_written(tmp_path):
    layer = paddle.nn.Linear(3, 2)
    state = {name: value.numpy() for name, value in layer.state_dict().items()}
    write_weights(tmp_path / "layer.pdparams", state)
    loaded = paddle.load(str(tmp_path / "layer.pdparams"))
    assert all(isinstance(value, paddle.Tensor) for value in loaded.values())
    assert equal({name: value.numpy() for name, value in loaded.items()}, state)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("kind", [dict, collections.OrderedDict])
def test_arrays_that_numpy_pickled_are_read(tmp_path, protocol, kind):
    columns = np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3))
    content = kind({**ARRAYS, "columns": columns, "step": 3, "lr": np.float64(0.1), "names": ["a", ("b", None, 2.5)]})
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    assert equal(read_weights(path), {**ARRAYS, "columns": columns})


def test_the_names_of_numpy_2_are_read(tmp_path):
    content = pickle.dumps({"matrix": ARRAYS["matrix"]}, protocol=2).replace(b"numpy.core.", b"numpy._core.")
    (tmp_path / "w.pdparams").write_bytes(content)
    assert equal(read_weights(tmp_path / "w.pdparams"), {"matrix": ARRAYS["matrix"]})


def test_arrays_that_paddle_cut_into_pieces_are_joined(tmp_path):
    whole = np.arange(12, dtype="float32").reshape(3, 4)
    content = {
        "w@@.0": whole.ravel()[:7],
        "w@@.1": whole.ravel()[7:],
        "b": ARRAYS["half"],
        "UnpackBigParamInfor@@": {"w": {"OriginShape": (3, 4), "slices": ["w@@.0", "w@@.1"]}},
    }
    path = tmp_path / "w.pdparams"
    path.write_bytes(pickle.dumps(content, protocol=2))
    assert equal(read_weights(path), {"w": whole, "b": ARRAYS["half"]})


# Pieces of hand-made pickles.


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

HOSTILE = {
    # Running something.
    "os.system": (calls(os.system, RUN), "asks for posix.system"),
    "os.system at protocol 2": (calls(os.system, RUN, protocol=2), "asks for posix.system"),
    "os.system at protocol 0": (b"\x80\x02" + calls(os.system, RUN, protocol=0), "the pickle operation|asks for"),
    "eval": (calls(eval, PYTHON), "builtins.eval"),
    "exec": (calls(exec, PYTHON), "builtins.exec"),
    "Paddle's own eval": (entry(function("builtins", "eval") + text(PYTHON) + b"}\x86R"), "builtins.eval"),
    "open": (calls(builtins.open, CANARY, "w"), "io.open"),
    "subprocess": (entry(function("subprocess", "getoutput") + text(RUN) + b"\x85R"), "subprocess.getoutput"),
    "importlib": (entry(function("importlib", "import_module") + text("antigravity") + b"\x85R"), "importlib"),
    "pickle in pickle": (entry(function("pickle", "loads") + raw(calls(os.system, RUN)) + b"\x85R"), "pickle.loads"),
    "numpy.load": (entry(function("numpy", "load") + text("x.npy") + b"\x85R"), "asks for numpy.load"),
    "getattr": (entry(function("builtins", "getattr") + function("os", "system") + text("x") + b"\x86R"), "getattr"),
    "a dotted name": (entry(text("numpy") + text("core.os.system") + b"\x93" + text(RUN) + b"\x85R"), "core.os.system"),
    "a submodule of numpy": (
        entry(function("numpy.testing._private.utils", "runstring") + text(PYTHON) + b"}\x86R"), "runstring"),
    "NEWOBJ": (entry(function("numpy", "dtype") + b")\x81"), "operation NEWOBJ"),
    "NEWOBJ_EX": (entry(function("numpy", "dtype") + b")}\x92"), "operation NEWOBJ_EX"),
    "INST": (b"\x80\x02(" + text(RUN) + b"ios\nsystem\n.", "operation INST"),
    "OBJ": (b"\x80\x02(" + function("os", "system") + text(RUN) + b"o.", "operation OBJ"),
    "a persistent id": (entry(b"Pwhatever\n"), "operation PERSID"),
    "an extension code": (entry(b"\x82\x01"), "operation EXT1"),
    "an out-of-band buffer": (entry(b"\x97"), "operation NEXT_BUFFER"),
    # A known name, abused.
    "an array of a class of its own": (entry(array(kind=text("ndarray"))), "class of its own"),
    "a call of ndarray": (entry(function("numpy", "ndarray") + b")R"), "call of numpy.ndarray"),
    "a call of a text": (entry(text("os.system") + text(RUN) + b"\x85R"), "damaged .TypeError"),
    "a call with odd arguments": (entry(function("numpy.core.multiarray", "scalar") + b")R"), "damaged .TypeError"),
    "a state on a dict": (entry(b"}" + text("__class__") + b"b"), "a state for something that is not an array"),
    "a state on a function": (entry(function("numpy", "ndarray") + b"}b"), "a state for something that is not an"),
    "objects as elements": (
        entry(array(dtype=function("numpy", "dtype") + text("O8") + b"\x89\x88\x87R" + dtype_state("|"))), "type 'O8'"),
    "structured elements": (
        entry(array(dtype=function("numpy", "dtype") + text("V8") + b"\x89\x88\x87R" + dtype_state("|"))), "type 'V8'"),
    "elements with fields": (entry(array(dtype=DTYPE_F4 + dtype_state(fields=b"N" + text("a") + b"}"))), "has parts"),
    "a list of types": (entry(array(dtype=function("numpy", "dtype") + b"]\x89\x88\x87R")), "only numbers"),
    "an encoding of its own": (
        entry(function("_codecs", "encode") + text("aGk=") + text("base64") + b"\x86R"), "not latin1"),
    "an array of a list of objects": (entry(array(content=b"]N\x61")), "not bytes"),
    # Asking for too much.
    "an array larger than its bytes": (entry(array(shape=b"\x8a\x05\0\0\0\0\x40\x85")), "takes 1099511627776 bytes"),
    "a shape below zero": (entry(array(shape=b"J\xff\xff\xff\xff\x85")), "shape is not"),
    "a shape of a truth value": (entry(array(shape=b"\x88\x85")), "shape is not"),
    "forty axes": (entry(array(shape=b"(" + b"K\x01" * 40 + b"t")), "shape is not"),
    "bytes of 4 GiB": (b"\x80\x04}" + text("w") + b"B\xff\xff\xff\xff..", "bytes"),
    "bytes of 2^62": (b"\x80\x04}" + text("w") + b"\x8e" + struct.pack("<Q", 2**62) + b"..", "bytes"),
    "bytes of 2^64": (b"\x80\x04}" + text("w") + b"\x8e" + b"\xff" * 8 + b"..", "bytes"),
    "a text of 2^62": (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"..", "bytes"),
    "a number of 2 GiB": (b"\x80\x04\x8b\xff\xff\xff\x7f.", "not enough data"),
    "a memo of 4 billion": (entry(array() + b"r\xff\xff\xff\xff" + b"j\xfe\xff\xff\xff"), "Memo value not found"),
    "texts encoded again and again": (
        entry(text("x" * 1000) + b"q\0" + (function("_codecs", "encode") + b"h\0" + text("latin1") + b"\x86R") * 50),
        "again and again"),
    "pieces used twice": (
        b"\x80\x02}(" + text("p") + array() + text("UnpackBigParamInfor@@") + b"}" + text("w") + b"}("
        + text("OriginShape") + b"K\x04\x85" + text("slices") + b"](" + text("p") * 2 + b"eusu.", "pieces"),
    **{f"a {where} that is a {what}": (entry(array(**{where: value})), reason)
       for what, value in {"bomb": BOMB, "well": WELL}.items()
       for where, reason in {"shape": "shape is not", "content": "not bytes", "kind": "class of its own"}.items()},
    **{f"a type that is a {what}": (entry(function("numpy", "dtype") + value + b"\x89\x88\x87R"), "arrays of type a ")
       for what, value in {"bomb": BOMB, "well": WELL}.items()},
    "a byte order that is a bomb": (entry(DTYPE_F4 + b"(K\x03" + BOMB + b"NNNK\0K\0K\0tb"), "unknown byte order"),
    "an encoding that is a well": (entry(function("_codecs", "encode") + text("x") + WELL + b"\x86R"), "not latin1"),
    "a bomb at the top": (b"\x80\x04" + BOMB + b".", "no dict of arrays but a tuple"),
    "a bomb and no array": (entry(BOMB), "no arrays at its top level, only 'w'"),
    "a text as a tuple": (entry(function("builtins", "tuple") + text("x" * 1000) + b"\x85R"), "not a tuple"),
    "a name of a megabyte": (entry(b"N", name="n" * 1_000_000), "only 'n{100}[.]{3}'"),
    "a name that clears the screen": (entry(b"N", name="\x1b[2J"), r"only '\\\\u001b\[2J'"),
    "a function whose name clears the screen": (entry(function("os\x1b[2J", "x")), r"asks for os\\x1b\[2J[.]x"),
    "a thousand arrays over the same bytes": (
        b"\x80\x04}(" + text("0") + array(raw(bytes(4000)), b"M\xe8\x03\x85") + b"q\0"
        + b"".join(text(str(n)) + b"h\0" for n in range(1, 1000)) + b"u.", "share their content"),
    "tuples as keys": (b"\x80\x04}" + b")" + b"\x85" * 5000 + b"Ns.", "keys are not strings"),
    "numbers as keys": (b"\x80\x04}K\x01Ns.", "keys are not strings"),
    # Malformed.
    "too few operands": (b"\x80\x04\x87.", "damaged .IndexError"),
    "no mark": (b"\x80\x04t.", "damaged .IndexError"),
    "below the mark": (b"\x80\x04}(s.", "damaged .IndexError"),
    "half an entry": (b"\x80\x04}(" + text("w") + b"u.", "damaged .ValueError"),
    "an append to a dict": (b"\x80\x04}Na.", "damaged .AttributeError"),
    "nothing at the end": (b"\x80\x04.", "damaged .IndexError"),
    "two objects at the end": (b"\x80\x04}}.", "one object"),
    "bytes after the end": (entry(array()) + b"more", "4 bytes follow its end"),
    "an unknown operation": (b"\x80\x04\xff.", "opcode"),
    "a list at the top": (pickle.dumps([ARRAYS["matrix"]], protocol=4), "no dict of arrays but a list"),
    "an array without content": (
        entry(function("numpy.core.multiarray", "_reconstruct") + function("numpy", "ndarray") + b"K\0\x85"
              + raw(b"b") + b"\x87R"), "has no content"),
    "arrays a level down": (pickle.dumps({"model": ARRAYS}, protocol=4), "no arrays at its top level, only 'model'"),
    "a set": (pickle.dumps({"w": {1}}, protocol=4), "operation EMPTY_SET"),
    "invalid UTF-8": (b"\x80\x04X\x02\0\0\0\xff\xfe.", "utf-8"),
}  # fmt: skip


def test_there_are_enough_attacks_and_the_pieces_make_a_valid_file(tmp_path):
    assert len(HOSTILE) >= 20
    path = tmp_path / "w.pdparams"
    path.write_bytes(entry(array()))
    assert equal(read_weights(path), {"w": np.zeros(2, "float32")})
    assert np.array_equal(pickle.loads(path.read_bytes())["w"], np.zeros(2))  # noqa: S301  -- what it does to the unsuspecting is the test


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] * name.endswith("a well")) for name in HOSTILE]
)
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, reason = HOSTILE[name]
    path = tmp_path / "w.pdparams"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(WeightFileError, match=rf"w\.pdparams: not a plain weight file: .*({reason})"):
        read_weights(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not (tmp_path / CANARY).exists()
    assert peak < 20e6


def test_no_hostile_file_takes_the_memory_or_the_screen(tmp_path):
    """In a process that has 100 MB next to what it needs to start; a message is a line of a few hundred characters."""
    names = [*HOSTILE, "operations", "lists"]
    contents = [content for content, _ in HOSTILE.values()]
    contents += [b"\x80\x04" + b"N" * 5_000_000 + b".", b"\x80\x04" + b"]" * 900_000 + b"."]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.pdparams").write_bytes(content)
    (tmp_path / "read.py").write_text(WITHIN_BOUNDS)
    command = [sys.executable, "read.py", str(len(contents))]
    child = run_process(command, cwd=tmp_path, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-2000:]
    printed = [line for line in child.stdout.split("\n") if line.startswith("refused ")]
    assert len(printed) == len(names), child.stdout[-2000:]
    assert max(map(len, printed)) < 400 and all(line.isprintable() for line in printed)
    assert not (tmp_path / CANARY).exists()


WITHIN_BOUNDS = """
import resource, sys
from ernie_vil2.models.weights.files import WeightFileError, read_weights
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 100_000_000,) * 2)
for number in range(int(sys.argv[1])):
    try:
        read_weights(f"{number}.pdparams")
    except WeightFileError as error:
        print("refused", error)
"""


def test_the_attacks_are_real(tmp_path, monkeypatch):
    """Python's own unpickler runs them: the canary would be seen."""
    monkeypatch.chdir(tmp_path)
    for name in ("os.system", "exec", "open", "subprocess", "pickle in pickle"):
        pickle.loads(HOSTILE[name][0])  # noqa: S301  -- what it does to the unsuspecting is the test
        assert (tmp_path / CANARY).exists(), name
        (tmp_path / CANARY).unlink()


@pytest.mark.thorough
def test_deep_nesting_and_cycles_do_no_harm(tmp_path):
    path = tmp_path / "w.pdparams"
    for nested in (b"]" * 200_000 + b"a" * 199_999, b")" + b"\x85" * 200_000, b"]q\x01h\x01a"):
        path.write_bytes(b"\x80\x04}(" + text("w") + array() + text("nested") + nested + b"u.")
        assert list(read_weights(path)) == ["w"]


def test_endless_operations_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ernie_vil2.io.restricted_pickle.MAX_OPERATIONS", 1000)
    path = tmp_path / "w.pdparams"
    path.write_bytes(b"\x80\x04" + b"N" * 2000 + b".")
    with pytest.raises(WeightFileError, match="more than 1,000 operations"):
        read_weights(path)


@pytest.mark.parametrize("suffix", ["pdparams", "safetensors"])
def test_every_truncation_is_refused(tmp_path, suffix):
    whole, part = tmp_path / f"whole.{suffix}", tmp_path / f"part.{suffix}"
    write_weights(whole, ARRAYS)
    content = whole.read_bytes()
    for length in range(len(content)):
        part.write_bytes(content[:length])
        with pytest.raises(WeightFileError, match=re.escape(str(part))):
            read_weights(part)


@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("weights") / "w.pdparams"
    content = bytearray(pickle.dumps({**ARRAYS, "names": {"a": "b"}}, protocol=data.draw(st.sampled_from([2, 4]))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        found = read_weights(path)
    except WeightFileError:
        return
    assert all(type(value) is np.ndarray and value.dtype != object for value in found.values())


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", b"x")
    return buffer.getvalue()


def tarred():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("data.pkl"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (zipped(), "not plain weights of PyTorch: "),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "PyTorch before 1.6"),
        (tarred(), "tar archive"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\0" * 600, "binary tensor format"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<html>404</html>", "web page"),
        (b"GLOBAL", "neither a .pdparams nor a .safetensors"),
        (b"cos\nsystem\n(S'touch canary'\ntR.", "neither a .pdparams nor a .safetensors"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path, content, reason):
    path = tmp_path / "w.pdparams"
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=f"w.pdparams: .*{reason}"):
        read_weights(path)


def safetensors(header, content=b"\0" * 8):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + content


def tensor(start, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b'{"w": 1}',
        struct.pack("<Q", 10**9) + b'{"w": 1}' * 10,
        safetensors({"a": tensor(0, 8, [2]), "b": tensor(4, 8)}),  # overlapping
        safetensors({"a": tensor(0, 4)}),  # bytes that belong to none
        safetensors({"a": tensor(0, 2**60, [2**58])}),
        safetensors({"a": tensor(0, 8, [2**62, 2**62])}),
        safetensors({"a": tensor(0, 8, [3])}),
        safetensors(b'{"a":' + b"[" * 100_000),
        safetensors(b"{broken"),
    ],
)
def test_a_hostile_safetensors_file_is_refused(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match="w.safetensors: "):
        read_weights(path)


@pytest.mark.parametrize(("kind", "count"), [
    *((kind, 8) for kind in ("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ")),
    ("F4", 16), ("C64", 1),
])  # fmt: skip
def test_a_type_of_number_that_numpy_has_not_is_named(tmp_path, kind, count):
    """Whether ml_dtypes, which has some of them, is installed or not; the array that has it is named as well."""
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors({"a": tensor(0, 4), "b": tensor(4, 12, [count], kind)}, bytes(12)))
    with pytest.raises(WeightFileError, match=f"w.safetensors: b is {kind}, a type of number that NumPy has not"):
        read_weights(path)


def test_bfloat16_becomes_float32_exactly(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors({"a": tensor(0, 8, [2, 2], "BF16")}, bytes.fromhex("803f 00c0 0000 4940")))
    (found,) = read_weights(path).values()
    assert found.dtype == np.float32 and found.tolist() == [[1.0, -2.0], [0.0, 3.140625]]


def test_weights_that_are_a_pipe_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "w.safetensors")
    with pytest.raises(OSError, match="not an ordinary file"):
        read_weights(tmp_path / "w.safetensors")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "none.pdparams")
