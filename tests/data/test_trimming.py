"""Trimmed vocabularies give the same tokens and embeddings for the texts that they are made for."""

import json
import random
from itertools import permutations

import numpy as np
import pytest
from tokenizers import AddedToken

import ernie_vil2
from ernie_vil2.cli import run
from ernie_vil2.config import ViewsConfig
from ernie_vil2.data.augment import format_tags
from ernie_vil2.data.tokenizer import ERNIE_VOCABULARY, WordPieceTokenizer, open_tokenizer, read_vocabulary
from ernie_vil2.data.tokenizer_files import BERT_TOKENS, build_word_pieces
from ernie_vil2.data.trimming import (
    count_missing_tokens,
    find_ids_of_characters,
    find_ids_of_texts,
    list_characters,
    trim_files,
    trim_tokenizer,
)
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.commands import call
from tests.support.other_families import FOLDERS
from tests.support.shapes import TOKENS, draw_shape_members, encode_png

# Fixture -> its dialect and context length.
MODELS = {"hf_clip": ("clip", 60), "hf_chinese_clip_bin": ("bert", 60), "cn_clip_pt": ("cn_clip", 60),
          "hf_siglip": ("siglip", 60), "hf_siglip2_naflex": ("siglip2", 60),
          "openclip_siglip_timm": ("open_clip_canonical", 60)}  # fmt: skip


def read_texts(name):
    return json.loads((FOLDERS[name] / "inputs" / "texts.json").read_text("utf-8"))


def split_into_tokens(tokenizer, text):
    return [tokenizer.tokens[number] for number in tokenizer.encode(text)]


@pytest.fixture(scope="module", params=sorted(MODELS))
def name_and_tokenizer(request):
    rules, length = MODELS[request.param]
    return request.param, open_tokenizer(FOLDERS[request.param], length, rules)


def test_texts_of_a_trimmed_tokenizer_have_the_same_tokens(name_and_tokenizer):
    name, tokenizer = name_and_tokenizer
    for texts in (read_texts(name), read_texts(name)[:6], []):
        ids = find_ids_of_texts(tokenizer, texts)
        small = trim_tokenizer(tokenizer, ids)
        assert small.tokens == [tokenizer.tokens[number] for number in ids]
        for text in texts:
            assert split_into_tokens(small, text) == split_into_tokens(tokenizer, text)
            assert small.cuts(text) == tokenizer.cuts(text)
        assert small.tokens[small.pad_id] == tokenizer.tokens[tokenizer.pad_id]
        assert count_missing_tokens(tokenizer, ids, texts).num_missing == 0
    assert len(ids) < tokenizer.vocab_size


def test_any_text_of_the_languages_has_the_same_tokens(name_and_tokenizer):
    _, tokenizer = name_and_tokenizer
    small = trim_tokenizer(tokenizer, find_ids_of_characters(tokenizer, list_characters(["en"])))
    characters = sorted(list_characters(["en"]))
    rng = random.Random(0)  # noqa: S311  -- no secret
    for length in (1, 3, 10, 40):
        for _ in range(50):
            # Mostly from the first 120 characters, which are ASCII, so that words and merges come up.
            text = "".join(rng.choice(characters[:120] if rng.random() < 0.9 else characters) for _ in range(length))
            assert split_into_tokens(small, text) == split_into_tokens(tokenizer, text), text
    assert small.vocab_size < tokenizer.vocab_size


def test_ernie_trimmed_to_chinese_and_english_has_equal_tokens():
    tokenizer = WordPieceTokenizer(read_vocabulary(ERNIE_VOCABULARY), 60)
    small = trim_tokenizer(tokenizer, find_ids_of_characters(tokenizer, list_characters(["zh", "en"])))
    assert small.vocab_size < tokenizer.vocab_size
    for text in ["一只猫在绿色的草地上", "Café naïve ÜBER", "ＡＢＣ１２３", "mixed 中文 and English"]:
        assert split_into_tokens(small, text) == split_into_tokens(tokenizer, text)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["hf_siglip2_naflex", "cn_clip_pt"])
def test_embeddings_of_a_trimmed_model_are_bit_equal(name, tmp_path, capsys):
    lines = [text for text in read_texts(name) if text and "\n" not in text]
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


def test_vocabulary_and_model_are_trimmed_to_the_words_of_data(shapes, tmp_path):
    checkpoint = write_untrained_checkpoint(tmp_path / "model", [*TOKENS, "猫"])
    for source, output in (([], tmp_path / "words.txt"), ([checkpoint], tmp_path / "small")):
        result = call("trim", *source, "--data", shapes["val"], "--output", output)
        assert result.returncode == 0, result.stderr

    # The vocabulary gives the tokens of ERNIE's whole one for every caption of the data.
    ernie, trimmed = WordPieceTokenizer(None, 60), WordPieceTokenizer(tmp_path / "words.txt", 60)
    assert trimmed.tokens[:5] == ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
    sentences = set()
    for name, data in draw_shape_members(1, seed=1):  # the validation data
        if name.endswith(".json"):
            sentences.update(text for key, text in json.loads(data).items() if key.startswith("caption"))
    assert sentences
    for sentence in sentences:
        assert split_into_tokens(trimmed, sentence) == split_into_tokens(ernie, sentence)
    assert "[UNK]" in split_into_tokens(trimmed, "猫 zebra")

    # The model lacks the only word that is not in the data.
    model = ernie_vil2.load_model(checkpoint, device="cpu")
    small = ernie_vil2.load_model(tmp_path / "small", device="cpu")
    assert set(model.tokenizer.tokens) - set(small.tokenizer.tokens) == {"猫"}
    sentences = ["a red disc", "a blue bar"]
    np.testing.assert_array_equal(small.encode_texts(sentences), model.encode_texts(sentences))


def test_words_of_tags_and_lines_are_kept_where_they_stand(tmp_path):
    # In Gemma's vocabulary a word behind a space is another token than at the beginning of a text.
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))
    row = {"image": "a.png", "caption_en": " quick\nbrown", "tags_en": ["wooden", "dog", "apple"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    folder = FOLDERS["hf_siglip2_naflex"]
    result = call("trim", folder, "--data", tmp_path / "a.jsonl", "--output", tmp_path / "small")
    assert result.returncode == 0, result.stderr
    model, small = (ernie_vil2.load_model(path, device="cpu") for path in (folder, tmp_path / "small"))
    tags = [format_tags(words, "en", ViewsConfig()) for words in permutations(row["tags_en"])]
    for text in ["quick\nbrown", "quick", "brown", *tags]:
        assert split_into_tokens(small.tokenizer, text) == split_into_tokens(model.tokenizer, text), text
    assert small.tokenizer.vocab_size < model.tokenizer.vocab_size


def test_tokens_of_languages_and_of_texts_add_up(tmp_path):
    (tmp_path / "texts.txt").write_text("猫\n", encoding="utf-8")

    def trim(*options):
        """Return the tokens that remain with these options."""
        assert call("trim", *options, "--output", tmp_path / "out.txt").returncode == 0
        tokens = set(read_vocabulary(tmp_path / "out.txt"))
        (tmp_path / "out.txt").unlink()
        return tokens

    of_language = trim("--keep", "th")
    of_texts = trim("--texts", tmp_path / "texts.txt")
    of_both = trim("--keep", "th", "--texts", tmp_path / "texts.txt")
    assert of_both == of_language | of_texts and of_both - of_language == {"猫"} and of_both > of_texts


def test_added_tokens_beyond_a_vocab_txt_are_trimmed_too(tmp_path):
    tokens = [*BERT_TOKENS, "cat", "dog"]
    library = build_word_pieces(tokens, 100, BERT_TOKENS)
    library.add_tokens([AddedToken("<new>")])
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    tokenizer = open_tokenizer(tmp_path, 16, "bert")
    ids = find_ids_of_texts(tokenizer, ["a dog"])

    trim_files(tmp_path, {old_id: new_id for new_id, old_id in enumerate(ids)}, "bert")

    assert (tmp_path / "vocab.txt").read_text().split() == [*BERT_TOKENS, "dog"]
    trimmed = open_tokenizer(tmp_path, 16, "bert")
    assert trimmed.tokens == [*BERT_TOKENS, "dog", "<new>"]
    expected = split_into_tokens(tokenizer, "a dog <new>")
    assert split_into_tokens(trimmed, "a dog <new>") == expected


@pytest.mark.parametrize("version", ["", "#version: 0.2\n"])
def test_merges_are_trimmed_with_and_without_a_version(tmp_path, version):
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4}))
    (tmp_path / "merges.txt").write_text(f"{version}a b\nb c\n")
    trim_files(tmp_path, {1: 0, 2: 1, 4: 2}, "clip")
    assert (tmp_path / "merges.txt").read_text() == f"{version}b c\n"
    assert json.loads((tmp_path / "vocab.json").read_text()) == {"b": 0, "c": 1, "bc": 2}


def test_damaged_merges_name_the_file_and_the_line(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "ab": 2}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\na b c\n")
    with pytest.raises(ValueError, match=r"merges\.txt, line 3"):
        trim_files(tmp_path, {0: 0, 1: 1, 2: 2}, "clip")
