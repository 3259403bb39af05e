"""Trimmed vocabularies: the same tokens for the texts that they are for, and the same embeddings."""

import json
import random

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.cli import run
from ernie_vil2.data.tokenizer import ERNIE_VOCABULARY, WordPieceTokenizer, open_tokenizer, read_vocabulary
from ernie_vil2.data.trimming import (
    count_missing_tokens,
    find_ids_of_characters,
    find_ids_of_texts,
    list_characters,
    trim_tokenizer,
)
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.commands import call
from tests.support.other_families import FOLDERS
from tests.support.shapes import TOKENS, draw_shape_members

KINDS = {"hf_clip": ("clip", 60), "hf_chinese_clip_bin": ("bert", 60), "cn_clip_pt": ("cn_clip", 60),
         "hf_siglip": ("siglip", 60), "hf_siglip2_naflex": ("siglip2", 60),
         "openclip_siglip_timm": ("open_clip_canonical", 60)}  # fmt: skip


def texts(name):
    return json.loads((FOLDERS[name] / "inputs" / "texts.json").read_text("utf-8"))


def words(tokenizer, text):
    return [tokenizer.tokens[number] for number in tokenizer.encode(text)]


@pytest.fixture(scope="module", params=sorted(KINDS))
def whole(request):
    rules, length = KINDS[request.param]
    return request.param, open_tokenizer(FOLDERS[request.param], length, rules)


def test_the_texts_that_it_is_for_have_the_same_tokens(whole):
    name, tokenizer = whole
    for chosen in (texts(name), texts(name)[:6], []):
        kept = find_ids_of_texts(tokenizer, chosen)
        small = trim_tokenizer(tokenizer, kept)
        assert small.tokens == [tokenizer.tokens[number] for number in kept]
        for text in chosen:
            assert words(small, text) == words(tokenizer, text) and small.cuts(text) == tokenizer.cuts(text)
        assert small.tokens[small.pad_id] == tokenizer.tokens[tokenizer.pad_id]
        assert count_missing_tokens(tokenizer, kept, chosen).num_missing == 0
    assert len(kept) < tokenizer.vocab_size


def test_any_text_of_the_languages_has_the_same_tokens(whole):
    _, tokenizer = whole
    small = trim_tokenizer(tokenizer, find_ids_of_characters(tokenizer, list_characters(["en"])))
    allowed = sorted(list_characters(["en"]))
    rng = random.Random(0)  # noqa: S311  -- no secret
    for length in (1, 3, 10, 40):
        for _ in range(50):
            text = "".join(rng.choice(allowed[:120] if rng.random() < 0.9 else allowed) for _ in range(length))
            assert words(small, text) == words(tokenizer, text), text
    assert small.vocab_size < tokenizer.vocab_size


def test_the_words_of_ernie_for_chinese_and_english():
    tokenizer = WordPieceTokenizer(read_vocabulary(ERNIE_VOCABULARY), 60)
    small = trim_tokenizer(tokenizer, find_ids_of_characters(tokenizer, list_characters(["zh", "en"])))
    assert small.vocab_size < tokenizer.vocab_size
    for text in ["一只猫在绿色的草地上", "Café naïve ÜBER", "ＡＢＣ１２３", "mixed 中文 and English"]:
        assert words(small, text) == words(tokenizer, text)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["hf_siglip2_naflex", "cn_clip_pt"])
def test_embeddings_of_such_texts_are_the_same_to_the_last_bit(name, tmp_path, capsys):
    lines = [text for text in texts(name) if text and "\n" not in text]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "others.txt").write_text("ΩЖ猫\na cat\n", encoding="utf-8")
    command = [str(FOLDERS[name]), "--texts", str(tmp_path / "texts.txt"), "--output", str(tmp_path / "small"),
               "--held-out", str(tmp_path / "others.txt")]  # fmt: skip
    assert run("trim", command) == 0
    out = capsys.readouterr().out
    model = ernie_vil2.load_model(FOLDERS[name], device="cpu")
    small = ernie_vil2.load_model(tmp_path / "small", device="cpu", verify=True)
    assert f"{small.tokenizer.vocab_size:,} of " in out and "others.txt: " in out
    np.testing.assert_array_equal(small.encode_texts(lines), model.encode_texts(lines))
    images = [path for path in sorted((FOLDERS[name] / "inputs").iterdir()) if path.suffix != ".json"]
    np.testing.assert_array_equal(small.encode_images(images), model.encode_images(images))
    assert small.tokenizer.vocab_size < model.tokenizer.vocab_size


def test_a_vocabulary_and_a_model_hold_the_words_of_the_data(shapes, tmp_path):
    """Against the ids of ERNIE's tokenizer; special tokens are the first lines."""
    whole = write_untrained_checkpoint(tmp_path / "model", [*TOKENS, "猫"])
    for source, output in (([], tmp_path / "words.txt"), ([whole], tmp_path / "small")):
        made = call("trim", *source, "--data", shapes["val"], "--output", output)
        assert made.returncode == 0, made.stderr
    ernie, words_alone = WordPieceTokenizer(None, 60), WordPieceTokenizer(tmp_path / "words.txt", 60)
    assert words_alone.tokens[:5] == ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
    captions = [json.loads(data) for name, data in draw_shape_members(1, seed=1) if name.endswith(".json")]
    sentences = {text for entry in captions for key, text in entry.items() if key.startswith("caption")}
    assert sentences and all(words(words_alone, text) == words(ernie, text) for text in sentences)
    assert "[UNK]" in words(words_alone, "猫 zebra")
    model, small = ernie_vil2.load_model(whole, device="cpu"), ernie_vil2.load_model(tmp_path / "small", device="cpu")
    assert set(model.tokenizer.tokens) - set(small.tokenizer.tokens) == {"猫"}
    sentences = ["a red disc", "a blue bar"]
    np.testing.assert_array_equal(small.encode_texts(sentences), model.encode_texts(sentences))


def test_ways_to_say_what_stays_add_up(tmp_path):
    (tmp_path / "texts.txt").write_text("猫\n", encoding="utf-8")
    languages, lines = ["--keep", "th"], ["--texts", tmp_path / "texts.txt"]
    kept = []
    for options in (languages, lines, languages + lines):
        assert call("trim", *options, "--output", tmp_path / "out.txt").returncode == 0
        kept.append(set(read_vocabulary(tmp_path / "out.txt")))
        (tmp_path / "out.txt").unlink()
    assert kept[2] == kept[0] | kept[1] and kept[2] - kept[0] == {"猫"} and kept[2] > kept[1]
