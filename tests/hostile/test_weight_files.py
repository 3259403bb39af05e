"""Damaged and hostile weight files are refused in one line; nothing in them runs, and memory stays bounded."""

import builtins
import json
import os
import pickle
import re
import struct
import sys
import zipfile
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.models.weights import torch_files
from ernie_vil2.models.weights.files import INDEX_SUFFIX, WeightFileError, read_weights, write_weights
from tests.support.processes import run_process
from tests.support.weight_files import (
    BOMB,
    CANARY,
    DEEP_LIST,
    DTYPE_F4,
    PYTHON_CODE,
    SHELL_COMMAND,
    describe_tensor,
    make_safetensors,
    pickle_array,
    pickle_bytes,
    pickle_call,
    pickle_dtype_state,
    pickle_entry,
    pickle_function,
    pickle_text,
    write_torch_archive,
)

ARRAYS = {
    "matrix": np.arange(6, dtype="float32").reshape(2, 3),
    "none": np.zeros([0, 4], "float32"),
    "flags": np.array([True, False]),
}


HOSTILE = {
    # They run something.
    "os.system": (pickle_call(os.system, SHELL_COMMAND), "asks for posix.system"),
    "Paddle's own eval": (
        pickle_entry(pickle_function("builtins", "eval") + pickle_text(PYTHON_CODE) + b"}\x86R"),
        "builtins.eval",
    ),
    "open": (pickle_call(builtins.open, CANARY, "w"), "io.open"),
    "pickle in pickle": (
        pickle_entry(
            pickle_function("pickle", "loads") + pickle_bytes(pickle_call(os.system, SHELL_COMMAND)) + b"\x85R"
        ),
        "pickle.loads",
    ),
    "getattr": (
        pickle_entry(
            pickle_function("builtins", "getattr") + pickle_function("os", "system") + pickle_text("x") + b"\x86R"
        ),
        "getattr",
    ),
    "a dotted name": (
        pickle_entry(
            pickle_text("numpy") + pickle_text("core.os.system") + b"\x93" + pickle_text(SHELL_COMMAND) + b"\x85R"
        ),
        "core.os.system",
    ),
    "NEWOBJ": (pickle_entry(pickle_function("numpy", "dtype") + b")\x81"), "operation NEWOBJ"),
    "INST": (b"\x80\x02(" + pickle_text(SHELL_COMMAND) + b"ios\nsystem\n.", "operation INST"),
    "a persistent id": (pickle_entry(b"Pwhatever\n"), "operation PERSID"),
    # They abuse an allowed name.
    "an array of a class of its own": (pickle_entry(pickle_array(kind=pickle_text("ndarray"))), "class of its own"),
    "a call of ndarray": (pickle_entry(pickle_function("numpy", "ndarray") + b")R"), "call of numpy.ndarray"),
    "a call of a text": (
        pickle_entry(pickle_text("os.system") + pickle_text(SHELL_COMMAND) + b"\x85R"),
        "damaged .TypeError",
    ),
    "a state on a dict": (
        pickle_entry(b"}" + pickle_text("__class__") + b"b"),
        "a state for something that is not an array",
    ),
    "objects as elements": (
        pickle_entry(
            pickle_array(
                dtype=pickle_function("numpy", "dtype") + pickle_text("O8") + b"\x89\x88\x87R" + pickle_dtype_state("|")
            )
        ),
        "type 'O8'",
    ),
    "elements with fields": (
        pickle_entry(pickle_array(dtype=DTYPE_F4 + pickle_dtype_state(fields=b"N" + pickle_text("a") + b"}"))),
        "has parts",
    ),
    "an encoding of its own": (
        pickle_entry(pickle_function("_codecs", "encode") + pickle_text("aGk=") + pickle_text("base64") + b"\x86R"),
        "not latin1",
    ),
    # They ask for too much memory.
    "an array larger than its bytes": (
        pickle_entry(pickle_array(shape=b"\x8a\x05\0\0\0\0\x40\x85")),
        "takes 1099511627776 bytes",
    ),
    "a number of 2 GiB": (b"\x80\x04\x8b\xff\xff\xff\x7f.", "not enough data"),
    "forty axes": (pickle_entry(pickle_array(shape=b"(" + b"K\x01" * 40 + b"t")), "shape is not"),
    "bytes of 2^64": (b"\x80\x04}" + pickle_text("w") + b"\x8e" + b"\xff" * 8 + b"..", "bytes"),
    "a memo of 4 billion": (
        pickle_entry(pickle_array() + b"r\xff\xff\xff\xff" + b"j\xfe\xff\xff\xff"),
        "Memo value not found",
    ),
    "texts encoded again and again": (
        pickle_entry(
            pickle_text("x" * 1000)
            + b"q\0"
            + (pickle_function("_codecs", "encode") + b"h\0" + pickle_text("latin1") + b"\x86R") * 50
        ),
        "again and again",
    ),
    "pieces used twice": (
        b"\x80\x02}("
        + pickle_text("p")
        + pickle_array()
        + pickle_text("UnpackBigParamInfor@@")
        + b"}"
        + pickle_text("w")
        + b"}("
        + pickle_text("OriginShape")
        + b"K\x04\x85"
        + pickle_text("slices")
        + b"]("
        + pickle_text("p") * 2
        + b"eusu.",
        "pieces",
    ),
    "a text as a tuple": (
        pickle_entry(pickle_function("builtins", "tuple") + pickle_text("x" * 1000) + b"\x85R"),
        "not a tuple",
    ),
    "a name that clears the screen": (pickle_entry(b"N", name="\x1b[2J"), r"only '\\\\u001b\[2J'"),
    "a thousand arrays over the same bytes": (
        b"\x80\x04}("
        + pickle_text("0")
        + pickle_array(pickle_bytes(bytes(4000)), b"M\xe8\x03\x85")
        + b"q\0"
        + b"".join(pickle_text(str(n)) + b"h\0" for n in range(1, 1000))
        + b"u.",
        "share their content",
    ),
    "tuples as keys": (b"\x80\x04}" + b")" + b"\x85" * 5000 + b"Ns.", "keys are not strings"),
    # They are malformed.
    "an array without content": (
        pickle_entry(
            pickle_function("numpy.core.multiarray", "_reconstruct")
            + pickle_function("numpy", "ndarray")
            + b"K\0\x85"
            + pickle_bytes(b"b")
            + b"\x87R"
        ),
        "has no content",
    ),
    "arrays a level down": (pickle.dumps({"model": ARRAYS}, protocol=4), "no arrays at its top level, only 'model'"),
}
# Values that take far more memory than their bytes, or are nested deeply, in every position of an array.
for name, value in {"bomb": BOMB, "well": DEEP_LIST}.items():
    for position, reason in {"shape": "shape is not", "content": "not bytes", "kind": "class of its own"}.items():
        HOSTILE[f"a {position} that is a {name}"] = pickle_entry(pickle_array(**{position: value})), reason
    dtype = pickle_function("numpy", "dtype") + value + b"\x89\x88\x87R"
    HOSTILE[f"a type that is a {name}"] = pickle_entry(dtype), "arrays of type a "


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickle_is_refused_and_nothing_runs(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, reason = HOSTILE[name]
    path = tmp_path / "w.pdparams"
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=rf"w\.pdparams: not a plain weight file: .*({reason})"):
        read_weights(path)
    assert not (tmp_path / CANARY).exists()


def test_hostile_pickles_are_refused_within_100_mb_and_one_line(tmp_path):
    contents = [content for content, _ in HOSTILE.values()]
    # Five million operations, and 900,000 lists.
    contents += [b"\x80\x04" + b"N" * 5_000_000 + b".", b"\x80\x04" + b"]" * 900_000 + b"."]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.pdparams").write_bytes(content)
    (tmp_path / "read.py").write_text(READ_WITHIN_100_MB)
    command = [sys.executable, "read.py", str(len(contents))]
    child = run_process(command, cwd=tmp_path, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr[-2000:]
    lines = [line for line in child.stdout.split("\n") if line.startswith("refused ")]
    assert len(lines) == len(contents), child.stdout[-2000:]
    assert max(map(len, lines)) < 400 and all(line.isprintable() for line in lines)
    assert not (tmp_path / CANARY).exists()


# The process may allocate 100 MB beyond what it needs to start.
READ_WITHIN_100_MB = """
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


def test_deep_nesting_and_cycles_beside_the_weights_are_ignored(tmp_path):
    path = tmp_path / "w.pdparams"
    for nested in (b"]" * 200_000 + b"a" * 199_999, b")" + b"\x85" * 200_000, b"]q\x01h\x01a"):
        path.write_bytes(b"\x80\x04}(" + pickle_text("w") + pickle_array() + pickle_text("nested") + nested + b"u.")
        assert list(read_weights(path)) == ["w"]


@pytest.mark.parametrize("suffix", ["pdparams", "safetensors"])
def test_weight_file_truncated_anywhere_is_refused(tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    write_weights(path, ARRAYS)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(WeightFileError, match=re.escape(str(path))):
            read_weights(path)


@given(data=st.data())
def test_damaged_pickle_gives_arrays_or_is_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("weights") / "w.pdparams"
    content = bytearray(pickle.dumps({**ARRAYS, "names": {"a": "b"}}, protocol=data.draw(st.sampled_from([2, 4]))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        arrays = read_weights(path)
    except WeightFileError:
        return
    assert all(type(value) is np.ndarray and value.dtype != object for value in arrays.values())


@pytest.mark.parametrize("content", [
    struct.pack("<Q", 2**63) + b'{"w": 1}',
    make_safetensors({"a": describe_tensor(0, 8, [2]), "b": describe_tensor(4, 8)}),  # overlapping
    make_safetensors({"a": describe_tensor(0, 4)}),  # bytes that belong to no tensor
    make_safetensors({"a": describe_tensor(0, 8, [2**62, 2**62])}),
    make_safetensors(b'{"a":' + b"[" * 100_000),
    make_safetensors(b'{"a": %(a)s, "a": %(a)s}' % {b"a": json.dumps(describe_tensor(0, 8, [2])).encode()}),
    make_safetensors({"a": describe_tensor(0, 8, [1] * 100 + [2])}),
    make_safetensors({"a": describe_tensor(0, 8, [2]), "b": describe_tensor(8, 8, [0, 2**62, 8])}),
])  # fmt: skip
def test_hostile_safetensors_file_is_refused(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match="w.safetensors: "):
        read_weights(path)


@pytest.mark.parametrize("name", ["", ".", "..", "../w.pdparams", "a\0b", "\ud800", f"other{INDEX_SUFFIX}", None, []])
def test_index_that_names_no_file_next_to_it_is_refused(tmp_path, name):
    index = tmp_path / f"w{INDEX_SUFFIX}"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(WeightFileError, match="w.index.json: not an index"):
        read_weights(index)


def test_pipe_in_place_of_weights_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "w.safetensors")
    with pytest.raises(OSError, match="not an ordinary file"):
        read_weights(tmp_path / "w.safetensors")


def replace_member(member, change):
    """Return a change of an archive of PyTorch: the content of one of its members is passed to a function."""
    return lambda name, content: change(content) if name == member else content


SHELL_CALL = pickle_call(os.system, SHELL_COMMAND)
TORCH = {
    "a call": (lambda path: write_torch_archive(path, replace_member("data.pkl", lambda _: SHELL_CALL)), "system"),
    "compressed": (lambda path: write_torch_archive(path, compression=zipfile.ZIP_DEFLATED), "compressed"),
    "code": (lambda path: write_torch_archive(path, more={"model/code/__torch__.py": "x"}), "TorchScript"),
    "no storage": (
        lambda path: write_torch_archive(path, replace_member("data/3", lambda _: None)),
        "data/3",
    ),
    "a short storage": (
        lambda path: write_torch_archive(path, replace_member("data/3", lambda content: content[:-4])),
        "a storage of .* numbers",
    ),
    "an end that is lost": (
        lambda path: path.write_bytes(write_torch_archive(path).read_bytes()[:-100]),
        "missing|damaged",
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_hostile_archive_of_pytorch_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_archive, reason = TORCH[name]
    write_archive(tmp_path / "w.pt")
    with pytest.raises(WeightFileError, match=rf"w\.pt: .*({reason})"):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / CANARY).exists()


def test_tensor_beyond_its_storage_is_refused(tmp_path):
    def enlarge_shape(content):
        """Change the shape of text_projection in the pickle from 24 x 16 to 255 x 255."""
        start = content.index(b"_rebuild_tensor_v2")
        position = content.index(b"K\x18K\x10\x86", start)  # BININT1 24, BININT1 16, TUPLE2
        return content[:position] + b"K\xffK\xff\x86" + content[position + 5 :]

    change = Mock(side_effect=enlarge_shape)
    write_torch_archive(tmp_path / "w.pt", replace_member("data.pkl", change))
    with pytest.raises(WeightFileError, match="reaches beyond its storage"):
        read_weights(tmp_path / "w.pt")
    change.assert_called_once()


def test_too_large_directory_of_an_archive_is_refused(tmp_path):
    path = write_torch_archive(tmp_path / "w.pt")
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\x05\x06")  # the record that holds the size of the directory
    content[end + 12 : end + 16] = struct.pack("<I", 1 << 31)
    path.write_bytes(bytes(content))
    with pytest.raises(WeightFileError, match="2,147,483,648 bytes"):
        read_weights(path)


def make_zip64(path, record_size=None):
    """Turn an archive into a zip64 one; with `record_size` the locator points to a second record with this size."""
    content = path.read_bytes()
    end = content.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack("<HLL", content[end + 10 : end + 20])
    decoy = b""
    if record_size is not None:
        decoy = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, record_size, start)
    directory_start = start + len(decoy)
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, directory_start)
    record_start = start if decoy else directory_start + size
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, record_start, 1)
    new_end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(content[:start] + decoy + content[start : start + size] + record + locator + new_end)
    return path


def test_directory_of_a_zip64_archive_is_measured_where_it_is_read(tmp_path, monkeypatch):
    path = make_zip64(write_torch_archive(tmp_path / "w.pt"))
    assert read_weights(path).keys() == read_weights(write_torch_archive(tmp_path / "plain.pt")).keys()
    monkeypatch.setattr(torch_files, "MAX_DIRECTORY_BYTES", 100)
    with pytest.raises(WeightFileError, match="a table of files"):
        read_weights(path)
    # `zipfile` ignores the locator, which could point to a record with a smaller size.
    with pytest.raises(WeightFileError, match="damaged"):
        read_weights(make_zip64(write_torch_archive(tmp_path / "decoy.pt"), record_size=10))
