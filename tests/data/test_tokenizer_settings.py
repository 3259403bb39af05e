"""`tokenizer_config.json` next to a vocabulary: what it says is followed as transformers follows it, or refused."""

import json
import time
from pathlib import Path

import pytest

from ernie_vil2.data.tokenizer import open_tokenizer
from ernie_vil2.data.tokenizer_files import LibraryTokenizer
from ernie_vil2.data.tokenizer_settings import MAX_GROWTH
from tests.support.other_families import OWN

tokenizers = pytest.importorskip("tokenizers")
CHINESE = OWN / "hf_chinese_clip_bin"
PEER = json.loads((Path(__file__).parents[1] / "fixtures" / "tokenizer_settings" / "bert.json").read_text("utf-8"))
SECONDS = 10  # no single step of a test here takes a tenth of that


def write_bert(folder, kind="vocab.txt", **settings):
    """Write BERT's vocabulary in either form, with the settings next to it."""
    lines = (CHINESE / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    vocabulary = [*lines, *(entry for entry in PEER["entries"] if entry not in lines)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    if kind == "tokenizer.json":
        content = json.loads(open_tokenizer(folder, 32, "bert").files()["tokenizer.json"])
        content["padding"] = None  # as transformers writes it
        (folder / "tokenizer.json").write_text(json.dumps(content))
        (folder / "vocab.txt").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("kind", ["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize("row", PEER["rows"], ids=lambda row: "-".join(row["settings"]) or "defaults")
def test_berts_normaliser_is_that_of_the_settings(tmp_path, kind, row):
    tokenizer = open_tokenizer(write_bert(tmp_path, kind, **row["settings"]), 32, "bert")
    assert [tokenizer.encode(text) for text in PEER["texts"]] == row["ids"]


@pytest.mark.parametrize(
    "settings",
    [
        {"padding_side": "left"},
        {"truncation_side": "left"},
        {"split_special_tokens": True},
        {"strip_accents": "yes"},
        {"tokenize_chinese_chars": 0},
        {"do_lower_case": None},
        {"pad_token": "<nothing>"},
        {"cls_token": "[SEP]"},
        {"sep_token": {"content": "[CLS]"}},
        {"unk_token": "[MASK]"},
        {"added_tokens_decoder": {"3": {"content": "[PAD]"}}},
        {"added_tokens_decoder": {"3": "[PAD]"}},
        {"added_tokens_decoder": [1]},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_setting_that_is_not_followed_is_named(tmp_path, settings):
    with pytest.raises(ValueError, match=next(iter(settings))) as caught:
        open_tokenizer(write_bert(tmp_path, **settings), 32, "bert")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "rules", "settings"),
    [
        ("hf_clip", "clip", {"eos_token": "<|startoftext|>"}),
        ("hf_clip", "clip", {"bos_token": "<|endoftext|>"}),
        ("hf_clip", "clip", {"add_prefix_space": True}),
        ("hf_siglip", "siglip", {"do_lower_case": False}),
        ("hf_siglip", "siglip", {"eos_token": "<unk>"}),
        ("hf_siglip2_naflex", "siglip2", {"add_eos_token": False}),
        ("hf_siglip2_naflex", "siglip2", {"add_bos_token": True}),
        ("openclip_siglip_timm", "open_clip_canonical", {"padding_side": "left"}),
    ],
)
def test_settings_of_other_tokenizers_are_read_too(tmp_path, name, rules, settings):
    given = json.loads((OWN / name / "tokenizer_config.json").read_text())
    for path in (OWN / name).iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(given | settings))
    with pytest.raises(ValueError, match=next(iter(settings))):
        open_tokenizer(tmp_path, 32, rules)


def write_library(folder, **parts):
    """Write a tokenizer.json of words with other parts."""
    vocabulary = {"[UNK]": 0, "[PAD]": 1, "a": 2}
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106  -- a word of a vocabulary
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(library.to_str()) | parts))
    return folder


def split_at(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def test_a_pattern_at_which_the_library_panics_is_an_error(tmp_path):
    tokenizer = open_tokenizer(write_library(tmp_path, pre_tokenizer=split_at("(a+)+$")), 16, "xlm_roberta")
    assert tokenizer.encode("a") == [2]
    start = time.monotonic()
    for compute in (tokenizer.encode, tokenizer.cuts):
        with pytest.raises(ValueError, match="tokenizers library"):
            compute("a" * 40 + "!")
    assert time.monotonic() - start < SECONDS


def test_a_pattern_that_panics_at_any_text_fails_when_opened(tmp_path):
    pattern = split_at(r"((.|\w|\s)+)+(?!)")
    with pytest.raises(ValueError, match="tokenizers library"):
        open_tokenizer(write_library(tmp_path, pre_tokenizer=pattern), 16, "xlm_roberta")


def test_a_pattern_of_a_normaliser_that_panics_is_an_error(tmp_path):
    step = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}
    tokenizer = open_tokenizer(write_library(tmp_path, normalizer=step), 16, "xlm_roberta")
    with pytest.raises(ValueError, match="tokenizers library"):
        tokenizer.normalized("a" * 40 + "!")


def replace(content, **pattern):
    return {"type": "Replace", "pattern": pattern or {"String": "a"}, "content": content}


@pytest.mark.parametrize(
    "steps",
    [
        [replace("a" * 1_000_000)],
        [replace("aa")] * 40,
        [replace("x" * MAX_GROWTH, Regex="(?=a)")],
        [replace("aa", String="")] * 20,
        [{"type": "Sequence", "normalizers": [replace("a" * 20)] * 2}, replace("aa")],
        [{"type": "NFKC"}] * 3,
        [{"type": "ByteLevel"}] * 5,
        [{"type": "Prepend", "prepend": "a" * 300}],
    ],
)
def test_a_normaliser_that_grows_a_text_is_refused(tmp_path, steps):
    start = time.monotonic()
    with pytest.raises(ValueError, match="normalizer may make a text"):
        open_tokenizer(write_library(tmp_path, normalizer={"type": "Sequence", "normalizers": steps}), 16, "bert")
    assert time.monotonic() - start < SECONDS


def test_splitting_into_bytes_again_and_again_is_refused(tmp_path):
    steps = [{"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}] * 20
    with pytest.raises(ValueError, match="pre_tokenizer may make a text"):
        open_tokenizer(write_library(tmp_path, pre_tokenizer={"type": "Sequence", "pretokenizers": steps}), 16, "bert")


def test_growth_of_a_table_of_characters_is_its_longest_text():
    """A table that makes one character of a thousand is refused, SentencePiece's own is not."""
    import base64
    import struct

    def content(longest):
        table = struct.pack("<I", 1024) + bytes(1024) + b"y\0" + b"x" * longest + b"\0"
        normalizer = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}
        library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106  -- a word of a vocabulary
        return json.dumps(json.loads(library.to_str()) | {"normalizer": normalizer})

    with pytest.raises(ValueError, match="1e\\+03 times as long"):
        LibraryTokenizer(content(1000), 16, "bert")
    assert LibraryTokenizer(content(18), 16, "bert").encode("a") == [0]
