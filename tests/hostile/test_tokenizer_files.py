"""A tokenizer.json at which the library panics, or that makes a long text of a short one, is refused.

So is a sentencepiece model that is damaged or too large.
"""

import base64
import json
import struct
import time

import pytest

from ernie_vil2.data.sentencepiece import MAX_PIECES
from ernie_vil2.data.tokenizer import LibraryTokenizer, open_tokenizer
from ernie_vil2.data.tokenizer_settings import MAX_GROWTH

tokenizers = pytest.importorskip("tokenizers")
SECONDS = 10  # no single step of a test here takes a tenth of that


def write_library(folder, **parts):
    """Write a tokenizer.json of words with other parts."""
    vocabulary = {"[UNK]": 0, "[PAD]": 1, "a": 2}
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106  -- a word of a vocabulary
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(library.to_str()) | parts))
    return folder


def split_at(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def test_a_pattern_at_which_the_library_panics_is_an_error(tmp_path):
    step = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}
    tokenizers_of_it = [open_tokenizer(write_library(tmp_path, **parts), 16, "xlm_roberta")
                        for parts in ({"pre_tokenizer": split_at("(a+)+$")}, {"normalizer": step})]  # fmt: skip
    assert tokenizers_of_it[0].encode("a") == [2]
    start = time.monotonic()
    for compute in (tokenizers_of_it[0].encode, tokenizers_of_it[0].cuts, tokenizers_of_it[1].normalize):
        with pytest.raises(ValueError, match="tokenizers library"):
            compute("a" * 40 + "!")
    assert time.monotonic() - start < SECONDS


def test_a_pattern_that_panics_at_any_text_fails_when_opened(tmp_path):
    pattern = split_at(r"((.|\w|\s)+)+(?!)")
    with pytest.raises(ValueError, match="tokenizers library"):
        open_tokenizer(write_library(tmp_path, pre_tokenizer=pattern), 16, "xlm_roberta")


def replace(content, **pattern):
    return {"type": "Replace", "pattern": pattern or {"String": "a"}, "content": content}


@pytest.mark.parametrize("steps", [
    [replace("x" * MAX_GROWTH, Regex="(?=a)")],
    [{"type": "Sequence", "normalizers": [replace("a" * 20)] * 2}, replace("aa")],
    [{"type": "NFKC"}] * 3,
    [{"type": "Prepend", "prepend": "a" * 300}],
])  # fmt: skip
def test_a_normaliser_that_grows_a_text_is_refused(tmp_path, steps):
    with pytest.raises(ValueError, match="normalizer may make a text"):
        open_tokenizer(write_library(tmp_path, normalizer={"type": "Sequence", "normalizers": steps}), 16, "bert")


def test_splitting_into_bytes_again_and_again_is_refused(tmp_path):
    steps = [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}] * 20
    with pytest.raises(ValueError, match="pre_tokenizer may make a text"):
        open_tokenizer(write_library(tmp_path, pre_tokenizer={"type": "Sequence", "pretokenizers": steps}), 16, "bert")


def test_growth_of_a_table_of_characters_is_its_longest_text():
    """A table that makes one character of a thousand is refused, SentencePiece's own is not."""

    def content(longest):
        table = struct.pack("<I", 1024) + bytes(1024) + b"y\0" + b"x" * longest + b"\0"
        normalizer = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}
        library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106  -- a word of a vocabulary
        return json.dumps(json.loads(library.to_str()) | {"normalizer": normalizer})

    with pytest.raises(ValueError, match="1e\\+03 times as long"):
        LibraryTokenizer(content(1000), 16, "bert")
    assert LibraryTokenizer(content(18), 16, "bert").encode("a") == [0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a text, and no model",
        b"\x0a\x05\x0a\x03ab",  # cut off
        b"\x0a\x03\x0a\x01\xff",  # not UTF-8
        b"\x0a\x03\x0a\x01a\x12\x02\x18\x03",  # of words
        b"\x0b" * 1_000_000,  # groups in groups
        b"\x0a\x00" * (MAX_PIECES + 1),
        b"\x0a\x84\x80\x40\x0a\x80\x80\x40" + b"a" * 2**20 + b"\x12\x02\x18\x02",  # of byte pairs
    ],
    ids=["empty", "text", "cut off", "not UTF-8", "of words", "nested", "too many pieces", "long piece"],
)
def test_a_sentencepiece_model_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "spiece.model").write_bytes(content)
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"vocabulary .*spiece\.model: .*sentencepiece model") as refusal:
        open_tokenizer(tmp_path / "spiece.model", 16, "siglip")
    assert "\n" not in str(refusal.value)
    assert time.monotonic() - start < SECONDS
