"""The restricted unpickler reads plain data as Python does, and refuses all other programs."""

import pickle
import pickletools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.io import restricted_pickle

PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(max_size=20)),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)  # fmt: skip


@given(value=PLAIN, protocol=st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_plain_data_is_read(value, protocol):
    assert restricted_pickle.load_plain_data(pickle.dumps(value, protocol)) == value


def draw_operation(code):
    """Return a strategy of an operation with an argument, small enough that some programs make sense."""
    name, number = code.name, st.integers(0, 3)
    start = code.code.encode("latin1")
    if name in ("SHORT_BINUNICODE", "SHORT_BINBYTES", "LONG1"):
        return st.binary(max_size=3).map(lambda content: start + bytes([len(content)]) + content)
    if name in ("BINUNICODE", "BINBYTES"):
        return st.binary(max_size=3).map(lambda content: start + struct.pack("<I", len(content)) + content)
    if name in ("BINUNICODE8", "BINBYTES8"):
        return st.binary(max_size=3).map(lambda content: start + struct.pack("<Q", len(content)) + content)
    if name == "GLOBAL":
        names = [*sorted(restricted_pickle._make_constructors(0)), ("os", "system"), ("builtins", "eval")]
        return st.sampled_from(names).map(lambda name: f"c{name[0]}\n{name[1]}\n".encode())
    size = {None: 0, "uint1": 1, "uint2": 2, "uint4": 4, "int4": 4, "uint8": 8, "float8": 8}
    width = size[code.arg and code.arg.name]
    return number.map(lambda value: start + value.to_bytes(width, "little") if width else start)


ALLOWED_NAMES = restricted_pickle._OPERATIONS - {"FRAME"}
OPERATIONS = [draw_operation(code) for code in pickletools.opcodes if code.name in ALLOWED_NAMES]


@given(program=st.lists(st.one_of(OPERATIONS), max_size=40).map(b"".join))
def test_any_program_is_read_or_refused(program):
    try:
        restricted_pickle.load_plain_data(b"\x80\x04" + program + b".")
    except restricted_pickle.NotPlainData as error:
        assert len(str(error)) < 400 and str(error).isprintable()  # noqa: PT017  -- there may be no error


@pytest.mark.parametrize("factor", [1, -1])
def test_numbers_that_can_share_a_hash_are_no_keys(factor):
    load = restricted_pickle.load_plain_data
    for keys in ([0, 1, 2**31], list(range(1000))):
        content = {factor * key: None for key in keys}
        assert load(pickle.dumps(content, 2), load_persistent=list) == content
    for keys in ([2**61 - 1], [factor * number * (2**61 - 1) for number in range(1000)]):
        with pytest.raises(restricted_pickle.NotPlainData, match="number.* key"):
            load(pickle.dumps(dict.fromkeys(keys), 2), load_persistent=list)


@pytest.mark.parametrize("name", ["__class__", "update"])
def test_pickle_cannot_change_functions_or_classes(name):
    # A state that is set on a function or a class would stay after the pickle was read.
    for module, function in restricted_pickle._make_constructors(0):
        for state in (b"}" + b"X" + struct.pack("<I", len(name)) + name.encode() + b"Ns", b"N}\x86"):
            with pytest.raises(restricted_pickle.NotPlainData, match="a state for something that is not an array"):
                restricted_pickle.load_plain_data(f"\x80\x02c{module}\n{function}\n".encode("latin1") + state + b"b.")
