"""Tokenizers of other libraries' models, compared with the ids of the authors' code and with the libraries."""

import json
import pickle
import random
import string

import numpy as np
import pytest

from ernie_vil2.data.tokenizer import LibraryTokenizer, open_tokenizer
from ernie_vil2.data.tokenizer_files import CLIP_BPE
from tests.support.other_families import FAMILY_FIXTURES, FOLDERS, copy_folder
from tests.support.paths import FIXTURES

tokenizers = pytest.importorskip("tokenizers")

# Family of the fixtures -> its dialect and context length.
RULES = {
    "hf_clip": ("clip", 77), "hf_clip_laion": ("clip", 24), "hf_chinese_clip": ("bert", 52),
    "hf_chinese_clip_bin": ("bert", 52), "cn_clip_pt": ("cn_clip", 52), "cn_clip_rn50": ("cn_clip", 52),
    "hf_siglip": ("siglip", 64), "hf_siglip2": ("siglip2", 64), "hf_siglip2_naflex": ("siglip2", 64),
    "hf_altclip": ("xlm_roberta", 64), "hf_metaclip2": ("xlm_roberta", 40), "fgclip2": ("siglip2", 64),
    "openclip_flat_quickgelu": ("open_clip", 77), "openclip_flat": ("open_clip", 77),
    "openclip_custom_text": ("open_clip", 77), "openclip_siglip_timm": ("open_clip_canonical", 64),
    "hf_clip_sharded_bin": ("clip", 77), "openclip_eva02": ("open_clip", 77), "openclip_pe": ("open_clip", 32),
    "openclip_clipa": ("open_clip_without_sep", 32), "pe_pt": ("open_clip", 40),
    "openclip_xlmr": ("open_clip_hf", 77), "eva_pt": ("open_clip", 77),
    "openclip_convnext": ("open_clip", 32), "openclip_nllb": ("open_clip_hf", 77),
    "openclip_bert_timm": ("open_clip_hf", 64), "hf_vision_text_dual": ("bert", 64),
    "hf_vision_text_dual_clip": ("bert", 48),
}  # fmt: skip

# The last family of each dialect.
FAMILY_OF_EACH_DIALECT = {rules: name for name, (rules, _) in RULES.items() if name in FOLDERS}.values()


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_ids_equal_those_of_the_authors_code(name):
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
@pytest.mark.parametrize("name", FAMILY_OF_EACH_DIALECT)
def test_written_and_pickled_tokenizers_give_equal_ids(name, tmp_path):
    folder, (rules, context) = FOLDERS[name], RULES[name]
    texts = json.loads((folder / "inputs" / "texts.json").read_text("utf-8"))
    tokenizer = open_tokenizer(folder, context, rules)
    for file, text in tokenizer.files().items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    reopened = open_tokenizer(tmp_path, context, rules)
    unpickled = pickle.loads(pickle.dumps(tokenizer))  # noqa: S301  -- pickled here
    for copy in (reopened, unpickled):
        np.testing.assert_array_equal(copy(texts), tokenizer(texts))
        assert copy.identity() == tokenizer.identity() and copy.pad_id == tokenizer.pad_id
    assert tokenizer.vocab_size == len(tokenizer.tokens) > np.max(tokenizer(texts))


# Texts drawn from all of Unicode with their ids, computed by OpenCLIP's description with `regex`, without the library.
OPEN_CLIP = json.loads((FIXTURES / "tokenization_open_clip.json").read_text("utf-8"))
ODD_TEXTS = ["", " ", "\0", "\x1f\x7f\u200b\u202e", "\ud800", "猫" * 500, "a" * 2000, "👩‍🚒", "</s><|endoftext|>[SEP]"]


@pytest.mark.parametrize("name", FAMILY_OF_EACH_DIALECT)
def test_any_text_becomes_at_most_max_length_ids(name):
    rules = RULES[name][0]
    tokenizer = open_tokenizer(FOLDERS[name], 9, rules)
    uncut_tokenizer = open_tokenizer(FOLDERS[name], 4000, rules)  # longer than any of the texts
    texts = ODD_TEXTS + [row["text"] for row in OPEN_CLIP[:20]]
    for text in texts:
        ids, uncut_ids = tokenizer.encode(text), uncut_tokenizer.encode(text)
        assert 1 <= len(ids) <= 9 and max(ids) < tokenizer.vocab_size
        assert tokenizer.cuts(text) == (len(uncut_ids) > 9)
        if tokenizer.cuts(text):
            assert ids[-1] == uncut_ids[-1] and ids[:8] == uncut_ids[:8]  # the end mark stays
        else:
            assert ids == uncut_ids
    if tokenizer.to_full_length:
        assert tokenizer(["", "a cat"]).shape[1] == 9


def test_error_names_the_bad_file_or_length(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    for path, length, culprit in (
        (tmp_path, 16, "tokenizer.json"),
        (CLIP_BPE, 2, "no room"),
        ("/no", 16, "/no"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=culprit):
            open_tokenizer(path, length, "open_clip")


def test_ids_of_any_unicode_text_equal_open_clips():
    tokenizer = open_tokenizer(CLIP_BPE, 2000, "open_clip")
    for row in OPEN_CLIP:
        assert tokenizer.encode(row["text"]) == [49406, *row["ids"], 49407], row["text"]


# Options of SentencePiece for small models of the kinds of SigLIP and of Gemma, whose tokenizer SigLIP 2 has.
SIGLIP_TRAINING = {
    "model_type": "unigram", "vocab_size": 160, "byte_fallback": False, "bos_id": -1, "unk_id": 2, "eos_piece": "</s>",
}  # fmt: skip
GEMMA_TRAINING = {
    "model_type": "bpe", "vocab_size": 500, "byte_fallback": True, "bos_id": 2, "unk_id": 3, "eos_piece": "<eos>",
    "add_dummy_prefix": False, "remove_extra_whitespaces": False, "normalization_rule_name": "identity",
}  # fmt: skip


def make_word(rng):
    return "".join(rng.choice("aeioutnrsl猫狗红") for _ in range(rng.randrange(1, 6)))


@pytest.mark.parametrize(("rules", "options"), [("siglip", SIGLIP_TRAINING), ("siglip2", GEMMA_TRAINING)])
def test_sentencepiece_model_gives_the_ids_of_its_library(rules, options, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    rng = random.Random(1)  # noqa: S311  -- no secret
    words = [make_word(rng) for _ in range(300)]
    lines = [" ".join(rng.choice(words) for _ in range(8)) for _ in range(400)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(tmp_path / "tokenizer"), minloglevel=2, pad_id=0, eos_id=1,
        pad_piece="<pad>", bos_piece="<bos>", **options,
    )  # fmt: skip
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    tokenizer = open_tokenizer(tmp_path / "tokenizer.model", 500, rules)
    for text in [*lines[:50], "", "  two  spaces ", "ＡＢＣ unknown Ω", "a,b.c! don't", *words[:50]]:
        cleaned = text.lower()
        if rules == "siglip":  # its texts have no punctuation
            cleaned = " ".join(cleaned.translate(str.maketrans("", "", string.punctuation)).split())
        assert tokenizer.encode(text) == [*library.encode(cleaned), 1], text


def test_vocab_and_merges_are_read_as_a_tokenizer_json(tmp_path):
    merges = ["c a", "ca t</w>", "d o", "do g</w>"]
    # CLIP's alphabet of bytes: those that print stand for themselves, the others are shifted beyond 255.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(code) for code in [*printable, *range(256, 324)]]
    tokens = [*alphabet, *(f"{character}</w>" for character in alphabet), *(pair.replace(" ", "") for pair in merges),
              "<|startoftext|>", "<|endoftext|>"]  # fmt: skip
    (tmp_path / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    clip = open_tokenizer(tmp_path, 16, "clip")
    assert [clip.tokens[number] for number in clip.encode("A  Cat, dogs")] == [
        "<|startoftext|>", "a</w>", "cat</w>", ",</w>", "do", "g", "s</w>", "<|endoftext|>",
    ]  # fmt: skip
    assert clip.pad_id == len(tokens) - 1 and clip.unknown_id is None
    open_clip = open_tokenizer(tmp_path, 16, "open_clip")
    assert isinstance(open_clip, LibraryTokenizer) and open_clip.pad_id == 0
    # Only OpenCLIP's rules read a character reference of HTML.
    assert open_clip.encode("A&nbsp;Cat") == clip.encode("a cat") != clip.encode("A&nbsp;Cat")
    assert open_clip.tokens[-2:] == ["<start_of_text>", "<end_of_text>"]


# Settings in `tokenizer_config.json` next to a vocabulary are applied as transformers applies them, or refused.
CHINESE = FAMILY_FIXTURES / "hf_chinese_clip_bin"
BERT_CASES = json.loads((FIXTURES / "tokenizer_settings" / "bert.json").read_text("utf-8"))


def write_bert(folder, kind="vocab.txt", **settings):
    """Write BERT's vocabulary in one of two formats, with the settings next to it."""
    lines = (CHINESE / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    vocabulary = [*lines, *(entry for entry in BERT_CASES["entries"] if entry not in lines)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    if kind == "tokenizer.json":
        content = json.loads(open_tokenizer(folder, 32, "bert").files()["tokenizer.json"])
        content["padding"] = None  # as transformers writes it
        (folder / "tokenizer.json").write_text(json.dumps(content))
        (folder / "vocab.txt").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_sep_becomes_zero_wherever_it_stands():
    bert, clipa = (open_tokenizer(CHINESE / "vocab.txt", 9, rules) for rules in ("bert", "open_clip_without_sep"))
    sep_id = bert.tokens.index("[SEP]")
    for text in ("", "红色的圆", "红 [SEP] 圆", "红" * 20):
        ids = [0 if token_id == sep_id else token_id for token_id in bert.encode(text)]
        assert clipa.encode(text) == ids and sep_id in bert.encode(text)
        assert clipa([text]).tolist() == [ids + [0] * (9 - len(ids))]
        assert clipa.cuts(text) == bert.cuts(text)


@pytest.mark.parametrize("kind", ["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize("row", BERT_CASES["rows"], ids=lambda row: "-".join(row["settings"]) or "defaults")
def test_bert_settings_give_the_ids_of_transformers(tmp_path, kind, row):
    tokenizer = open_tokenizer(write_bert(tmp_path, kind, **row["settings"]), 32, "bert")
    assert [tokenizer.encode(text) for text in BERT_CASES["texts"]] == row["ids"]


BAD_SETTINGS = [
    {"padding_side": "left"}, {"split_special_tokens": True}, {"strip_accents": "yes"}, {"do_lower_case": None},
    {"pad_token": "<nothing>"}, {"sep_token": {"content": "[CLS]"}},
    {"added_tokens_decoder": {"3": {"content": "[PAD]"}}}, {"added_tokens_decoder": [1]},
]  # fmt: skip


@pytest.mark.parametrize("settings", BAD_SETTINGS, ids=lambda settings: next(iter(settings)))
def test_error_names_a_setting_that_is_not_supported(tmp_path, settings):
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
        ("openclip_siglip_timm", "open_clip_canonical", {"src_lang": "<unk>"}),
        ("openclip_siglip_timm", "open_clip_canonical", {"legacy_behaviour": True}),
    ],
)
def test_unsupported_settings_of_other_dialects_are_refused(tmp_path, name, rules, settings):
    folder = copy_folder(FAMILY_FIXTURES / name, tmp_path / "model", "tokenizer_config.json", **settings)
    with pytest.raises(ValueError, match=next(iter(settings))):
        open_tokenizer(folder, 32, rules)
