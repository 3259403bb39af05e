"""Tokenizer files that make the library panic or a text far longer, and damaged sentencepiece models, are refused."""

import base64
import json
import struct
import time

import pytest

from ernie_vil2.data import sentencepiece
from ernie_vil2.data.sentencepiece import MAX_PIECES
from ernie_vil2.data.tokenizer import LibraryTokenizer, open_tokenizer
from ernie_vil2.data.tokenizer_files import CLIP_BPE, MAX_IDS
from ernie_vil2.data.tokenizer_settings import MAX_GROWTH

tokenizers = pytest.importorskip("tokenizers")
SECONDS = 10  # no single step of a test here takes a tenth of that


def write_tokenizer(folder, **steps):
    """Write the tokenizer.json of a tokenizer of words with other steps, and return its folder."""
    vocabulary = {"[UNK]": 0, "[PAD]": 1, "a": 2}
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106  -- a word of a vocabulary
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(library.to_str()) | steps))
    return folder


def make_split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def make_replace(content, **pattern):
    return {"type": "Replace", "pattern": pattern or {"String": "a"}, "content": content}


def test_panic_of_the_library_at_a_text_is_an_error(tmp_path):
    pattern = "(a+)+$"  # backtracks until the library gives up, with a panic
    splitter = open_tokenizer(write_tokenizer(tmp_path, pre_tokenizer=make_split(pattern)), 16, "xlm_roberta")
    normalizer = open_tokenizer(
        write_tokenizer(tmp_path, normalizer=make_replace("b", Regex=pattern)), 16, "xlm_roberta"
    )
    assert splitter.encode("a") == [2]
    start = time.monotonic()
    for compute in (splitter.encode, splitter.cuts, normalizer.normalize):
        with pytest.raises(ValueError, match="tokenizers library"):
            compute("a" * 40 + "!")
    assert time.monotonic() - start < SECONDS


@pytest.mark.parametrize(
    ("vocabulary", "cause"),
    [({}, "empty"), ({"[UNK]": 0, "b": MAX_IDS}, "4,194,304"), ({"[UNK]": 0, "b": 4 * 10**9}, "4,000,000,000")],
)
def test_vocabulary_without_ids_or_with_far_too_many_is_refused(tmp_path, vocabulary, cause):
    write_tokenizer(tmp_path, model={"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"})
    with pytest.raises(ValueError, match=rf"tokenizer\.json.*{cause}"):
        open_tokenizer(tmp_path, 16, "xlm_roberta")
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version\n")
    with pytest.raises(ValueError, match=rf"vocab\.json.*{cause}"):
        open_tokenizer(tmp_path / "vocab.json", 16, "clip")


@pytest.mark.parametrize("rules", ["clip", "open_clip"])
def test_byte_pairs_without_a_special_token_name_it(tmp_path, rules):
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "<|startoftext|>": 1}))
    (tmp_path / "merges.txt").write_text("#version\n")
    with pytest.raises(ValueError, match=r"vocab\.json.*<\|endoftext\|>"):
        open_tokenizer(tmp_path / "vocab.json", 16, rules)


PADDING = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_type_id": 0}


@pytest.mark.parametrize("steps", [
    {"padding": {**PADDING, "pad_id": 3, "pad_token": "[PAD]"}},
    {"post_processor": {"type": "BertProcessing", "sep": ["a", 2], "cls": ["b", 3]}},
])  # fmt: skip
def test_special_id_without_a_token_is_refused(tmp_path, steps):
    with pytest.raises(ValueError, match=r"tokenizer\.json.* 3, which has no token"):
        open_tokenizer(write_tokenizer(tmp_path, **steps), 16, "xlm_roberta")


@pytest.mark.parametrize("content", [b"#version", CLIP_BPE.read_bytes()[:1000]], ids=["plain", "cut"])
def test_damaged_file_of_merges_is_named(tmp_path, content):
    (tmp_path / "merges.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"merges\.gz.*gzip"):
        open_tokenizer(tmp_path / "merges.gz", 77, "open_clip")


def test_panic_of_the_library_at_any_text_is_found_when_opened(tmp_path):
    pattern = make_split(r"((.|\w|\s)+)+(?!)")
    with pytest.raises(ValueError, match="tokenizers library"):
        open_tokenizer(write_tokenizer(tmp_path, pre_tokenizer=pattern), 16, "xlm_roberta")


@pytest.mark.parametrize("steps", [
    [make_replace("x" * MAX_GROWTH, Regex="(?=a)")],
    [{"type": "Sequence", "normalizers": [make_replace("a" * 20)] * 2}, make_replace("aa")],
    [{"type": "NFKC"}] * 3,
    [{"type": "Prepend", "prepend": "a" * 300}],
])  # fmt: skip
def test_normalizer_that_makes_texts_far_longer_is_refused(tmp_path, steps):
    with pytest.raises(ValueError, match="normalizer may make a text"):
        open_tokenizer(write_tokenizer(tmp_path, normalizer={"type": "Sequence", "normalizers": steps}), 16, "bert")


def test_repeated_splitting_into_bytes_is_refused(tmp_path):
    steps = [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}] * 20
    with pytest.raises(ValueError, match="pre_tokenizer may make a text"):
        open_tokenizer(
            write_tokenizer(tmp_path, pre_tokenizer={"type": "Sequence", "pretokenizers": steps}), 16, "bert"
        )


def make_template(num_entries, num_ids, num_texts=1):
    """Return a template with an entry, which has so many ids, so many times before the text."""
    special_token = {"SpecialToken": {"id": "x", "type_id": 0}}
    text, second_text = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [special_token] * num_entries + [text] * num_texts,
        "pair": [text, second_text],
        "special_tokens": {"x": {"id": "x", "ids": [2] * num_ids, "tokens": ["a"] * num_ids}},
    }


@pytest.mark.parametrize(
    ("template", "cause"),
    [(make_template(2000, 2000), "adds 4,000,000 ids"), (make_template(0, 1, num_texts=1000), "1000 times")],
    ids=["ids", "texts"],
)
@pytest.mark.parametrize("is_nested", [False, True])
def test_template_that_makes_a_text_far_longer_is_refused(tmp_path, template, cause, is_nested):
    processor = {"type": "Sequence", "processors": [template]} if is_nested else template
    write_tokenizer(tmp_path, post_processor=processor)
    with pytest.raises(ValueError, match=f"tokenizer.json: its post_processor .*{cause}"):
        open_tokenizer(tmp_path, 16, "bert")


def test_template_without_its_entries_is_refused(tmp_path):
    content = json.loads((write_tokenizer(tmp_path) / "tokenizer.json").read_text())
    content["post_processor"] = make_template(1, 1) | {"special_tokens": {}}
    with pytest.raises(ValueError, match="tokenizers library"):
        LibraryTokenizer(json.dumps(content), 16, "bert")


def test_template_with_several_ids_is_followed(tmp_path):
    write_tokenizer(tmp_path, post_processor=make_template(2, 3))
    assert open_tokenizer(tmp_path, 16, "bert").encode("a") == [2] * 7


def test_growth_of_a_character_table_is_its_longest_text():
    def make_content(longest):
        """Return a tokenizer.json whose table turns a character into so many."""
        table = struct.pack("<I", 1024) + bytes(1024) + b"y\0" + b"x" * longest + b"\0"
        normalizer = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}
        library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106  -- a word of a vocabulary
        return json.dumps(json.loads(library.to_str()) | {"normalizer": normalizer})

    with pytest.raises(ValueError, match="1e\\+03 times as long"):
        LibraryTokenizer(make_content(1000), 16, "bert")
    assert LibraryTokenizer(make_content(18), 16, "bert").encode("a") == [0]  # 18, as in the table of SentencePiece


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
def test_invalid_sentencepiece_model_is_refused(tmp_path, content):
    (tmp_path / "spiece.model").write_bytes(content)
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"vocabulary .*spiece\.model: .*sentencepiece model") as error:
        open_tokenizer(tmp_path / "spiece.model", 16, "siglip")
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < SECONDS


def test_sentencepiece_model_of_too_many_merges_is_refused(tmp_path, monkeypatch):
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    model = ModelProto()
    model.trainer_spec.model_type = model.trainer_spec.BPE
    for length in range(1, 6):
        model.pieces.add(piece="a" * length, score=-length)
    path = tmp_path / "tokenizer.model"
    path.write_bytes(model.SerializeToString())
    num_merges = 1 + 2 + 3 + 4  # a piece of five characters can be cut in four places
    monkeypatch.setattr(sentencepiece, "MAX_MERGES", num_merges)
    assert open_tokenizer(path, 16, "siglip2").encode("aaaaa") == [4]
    monkeypatch.setattr(sentencepiece, "MAX_MERGES", num_merges - 1)
    with pytest.raises(ValueError, match=r"tokenizer\.model.* merges"):
        open_tokenizer(path, 16, "siglip2")
