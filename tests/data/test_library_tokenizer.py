"""Tokenizers of other people's models, against the ids that the authors' own code gave and against the libraries."""

import json
import pickle
import random
import string

import numpy as np
import pytest

from ernie_vil2.data.tokenizer_files import CLIP_BPE, LibraryTokenizer, open_tokenizer
from tests.support.other_families import FOLDERS, OWN, copy_folder
from tests.support.paths import FIXTURES

tokenizers = pytest.importorskip("tokenizers")

# Families of the fixtures, with their dialect and context.
RULES = {
    "hf_clip": ("clip", 77), "hf_clip_laion": ("clip", 24), "hf_chinese_clip": ("bert", 52),
    "hf_chinese_clip_bin": ("bert", 52), "cn_clip_pt": ("cn_clip", 52), "cn_clip_rn50": ("cn_clip", 52),
    "hf_siglip": ("siglip", 64), "hf_siglip2": ("siglip2", 64), "hf_siglip2_naflex": ("siglip2", 64),
    "hf_altclip": ("xlm_roberta", 64), "hf_metaclip2": ("xlm_roberta", 40), "fgclip2": ("siglip2", 64),
    "openclip_flat_quickgelu": ("open_clip", 77), "openclip_flat": ("open_clip", 77),
    "openclip_custom_text": ("open_clip", 77), "openclip_siglip_timm": ("open_clip_canonical", 64),
}  # fmt: skip

# One family of each dialect.
ONE_OF_EACH = {rules: name for name, (rules, _) in RULES.items() if name in FOLDERS}.values()


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_ids_are_those_of_the_authors_code(name):
    folder, (rules, context) = FOLDERS[name], RULES[name]
    texts = json.loads((folder / "inputs" / "texts.json").read_text("utf-8"))
    expected = np.load(folder / "expected.npz")
    for key, length in {"input_ids": context, "input_ids/long": 196}.items():
        if key in expected:
            tokenizer = open_tokenizer(folder, length, rules)
            ids = tokenizer(texts)
            padding = expected[key].shape[1] - ids.shape[1]
            assert padding == 0 or not tokenizer.to_full_length
            ids = np.pad(ids, ((0, 0), (0, padding)), constant_values=tokenizer.pad_id)
            np.testing.assert_array_equal(ids, expected[key])


@pytest.mark.thorough
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_written_and_pickled_tokenizers_give_the_same_ids(name, tmp_path):
    folder, (rules, context) = FOLDERS[name], RULES[name]
    texts = json.loads((folder / "inputs" / "texts.json").read_text("utf-8"))
    tokenizer = open_tokenizer(folder, context, rules)
    for file, text in tokenizer.files().items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    again = open_tokenizer(tmp_path, context, rules)
    copy = pickle.loads(pickle.dumps(tokenizer))  # noqa: S301  -- its own pickle
    for other in (again, copy):
        np.testing.assert_array_equal(other(texts), tokenizer(texts))
        assert other.identity() == tokenizer.identity() and other.pad_id == tokenizer.pad_id
    assert tokenizer.vocab_size == len(tokenizer.tokens) > max(map(max, tokenizer(texts)))


# Texts drawn from all of Unicode, and the ids by OpenCLIP's rules as described, with `regex` in place of the library.
OPEN_CLIP = json.loads((FIXTURES / "tokenization_open_clip.json").read_text("utf-8"))
ODD = ["", " ", "\0", "\x1f\x7f\u200b\u202e", "\ud800", "猫" * 500, "a" * 2000, "👩‍🚒", "</s><|endoftext|>[SEP]"]


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_any_text_becomes_at_most_max_length_ids(name):
    tokenizer, longest = (open_tokenizer(FOLDERS[name], length, RULES[name][0]) for length in (9, 4000))
    for text in [*ODD, *(row["text"] for row in OPEN_CLIP[:20])]:
        ids, whole = tokenizer.encode(text), longest.encode(text)
        assert 1 <= len(ids) <= 9 and max(ids) < tokenizer.vocab_size
        assert tokenizer.cuts(text) == (len(whole) > 9)
        assert (ids[-1] == whole[-1] and ids[:8] == whole[:8]) or (not tokenizer.cuts(text) and ids == whole)
    assert (tokenizer(["", "a cat"]).shape[1] == 9) >= tokenizer.to_full_length


def test_a_length_without_room_and_odd_files_are_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    for path, length, culprit in (
        (tmp_path, 16, "tokenizer.json"),
        (CLIP_BPE, 2, "no room"),
        ("/no", 16, "/no"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=culprit):
            open_tokenizer(path, length, "open_clip")


def test_ids_are_those_of_open_clip():
    tokenizer = open_tokenizer(CLIP_BPE, 2000, "open_clip")
    for row in OPEN_CLIP:
        assert tokenizer.encode(row["text"]) == [49406, *row["ids"], 49407], row["text"]


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_sentencepiece_model_gives_the_ids_of_its_library(kind, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    rng = random.Random(1)  # noqa: S311  -- no secret
    words = ["".join(rng.choice("aeioutnrsl猫狗红") for _ in range(rng.randrange(1, 6))) for _ in range(300)]
    lines = [" ".join(rng.choice(words) for _ in range(8)) for _ in range(400)]
    gemma = kind == "bpe"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(tmp_path / "tokenizer"), model_type=kind, minloglevel=2,
        vocab_size=500 if gemma else 160, byte_fallback=gemma, pad_id=0, eos_id=1, bos_id=2 if gemma else -1,
        unk_id=3 if gemma else 2, pad_piece="<pad>", eos_piece="<eos>" if gemma else "</s>", bos_piece="<bos>",
        **({"add_dummy_prefix": False, "remove_extra_whitespaces": False, "normalization_rule_name": "identity"}
           if gemma else {}),
    )  # fmt: skip
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    ours = open_tokenizer(tmp_path / "tokenizer.model", 500, "siglip2" if gemma else "siglip")
    for text in [*lines[:50], "", "  two  spaces ", "ＡＢＣ unknown Ω", "a,b.c! don't", *words[:50]]:
        cleaned = text.lower()
        if not gemma:
            cleaned = " ".join(cleaned.translate(str.maketrans("", "", string.punctuation)).split())
        assert ours.encode(text) == [*library.encode(cleaned), 1], text


def test_the_files_that_a_folder_may_hold_agree(tmp_path):
    """`vocab.json` and `merges.txt` are read as the `tokenizer.json` that was written for them."""
    merges = ["c a", "ca t</w>", "d o", "do g</w>"]
    byte = [*map(chr, [*range(33, 127), *range(161, 173), *range(174, 256)]), *map(chr, range(256, 324))]
    tokens = [*byte, *(f"{one}</w>" for one in byte), *(pair.replace(" ", "") for pair in merges), "<|startoftext|>",
              "<|endoftext|>"]  # fmt: skip
    (tmp_path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    made = open_tokenizer(tmp_path, 16, "clip")
    assert [made.tokens[number] for number in made.encode("A  Cat, dogs")] == [
        "<|startoftext|>", "a</w>", "cat</w>", ",</w>", "do", "g", "s</w>", "<|endoftext|>",
    ]  # fmt: skip
    assert made.pad_id == len(tokens) - 1 and made.unknown_id is None
    other = open_tokenizer(tmp_path, 16, "open_clip")
    assert isinstance(other, LibraryTokenizer) and other.pad_id == 0
    assert other.encode("A&nbsp;Cat") == made.encode("a cat") != made.encode("A&nbsp;Cat")
    assert other.tokens[-2:] == ["<start_of_text>", "<end_of_text>"]


# `tokenizer_config.json` next to a vocabulary: it is followed as transformers follows it, or refused.
CHINESE = OWN / "hf_chinese_clip_bin"
PEER = json.loads((FIXTURES / "tokenizer_settings" / "bert.json").read_text("utf-8"))


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


BAD_SETTINGS = [
    {"padding_side": "left"}, {"split_special_tokens": True}, {"strip_accents": "yes"}, {"do_lower_case": None},
    {"pad_token": "<nothing>"}, {"sep_token": {"content": "[CLS]"}},
    {"added_tokens_decoder": {"3": {"content": "[PAD]"}}}, {"added_tokens_decoder": [1]},
]  # fmt: skip


@pytest.mark.parametrize("settings", BAD_SETTINGS, ids=lambda settings: next(iter(settings)))
def test_a_setting_that_is_not_followed_is_named(tmp_path, settings):
    with pytest.raises(ValueError, match=next(iter(settings))) as caught:
        open_tokenizer(write_bert(tmp_path, **settings), 32, "bert")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "rules", "settings"),
    [
        ("hf_clip", "clip", {"eos_token": "<|startoftext|>"}),
        ("hf_clip", "clip", {"add_prefix_space": True}),
        ("hf_siglip", "siglip", {"do_lower_case": False}),
        ("hf_siglip2_naflex", "siglip2", {"add_bos_token": True}),
        ("openclip_siglip_timm", "open_clip_canonical", {"padding_side": "left"}),
    ],
)
def test_settings_of_other_tokenizers_are_read_too(tmp_path, name, rules, settings):
    folder = copy_folder(OWN / name, tmp_path / "model", "tokenizer_config.json", **settings)
    with pytest.raises(ValueError, match=next(iter(settings))):
        open_tokenizer(folder, 32, rules)
