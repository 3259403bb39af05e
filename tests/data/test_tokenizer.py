"""ERNIE's WordPiece tokenizer, compared with the official code and PaddleNLP; reading of vocabularies."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.tokenizer import ERNIE_VOCABULARY, WordPieceTokenizer, read_vocabulary
from tests.support.limits import limit_examples


@pytest.fixture(scope="module")
def tokenizer():
    return WordPieceTokenizer(max_length=200)


@pytest.fixture(scope="module")
def paddlenlp(tmp_path_factory):
    """Return our tokenizer with PaddleNLP's rules, and PaddleNLP's own, both with the packaged vocabulary."""
    from paddlenlp.transformers import ErnieViLTokenizer

    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "vocab.txt").write_text("\n".join(read_vocabulary(ERNIE_VOCABULARY)), encoding="utf-8")
    return WordPieceTokenizer(max_length=200, rules="paddlenlp"), ErnieViLTokenizer.from_pretrained(str(folder))


# Ids that the tokenizer in the official release's code gives, without [CLS] and [SEP].
OFFICIAL = json.loads((Path(__file__).parents[1] / "fixtures" / "tokenization_official.json").read_text("utf-8"))


@pytest.mark.parametrize("case", OFFICIAL, ids=lambda case: case["text"][:12])
def test_ids_equal_those_of_the_official_code(tokenizer, case):
    assert tokenizer.encode(case["text"]) == [1, *case["ids"], 2]


SPECIAL_TEXTS = ["[MASK]", "[CLS]", "[PAD]", "[UNK]", "[SEP]", "[mask]", "Σ", "ΑΣ ", "©®", "²Øŋ", "\u00ad\n"]
PIECES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(SPECIAL_TEXTS)


@pytest.mark.thorough
@limit_examples(200)
@given(text=st.lists(PIECES, max_size=6).map("".join))
def test_ids_of_any_text_equal_paddlenlps_with_its_rules(paddlenlp, text):
    tokenizer, paddlenlp_tokenizer = paddlenlp
    assert tokenizer.encode(text) == paddlenlp_tokenizer(text)["input_ids"]


def test_words_of_more_than_100_characters_are_unknown(tokenizer):
    assert tokenizer.encode("a" * 101) == [1, 39979, 2]
    assert 39979 not in tokenizer.encode("a" * 100)


def test_long_texts_are_cut_and_short_ones_padded():
    tokenizer = WordPieceTokenizer(max_length=12)
    ids = tokenizer(["猫" * 50, "猫"])
    assert ids.shape == (2, 12) and ids.dtype == np.int64
    assert ids[0, -1] == 2 and ids[1].tolist() == [1, 1821, 2] + [0] * 9
    assert tokenizer(["", "猫 猫"]).tolist() == [[1, 2, 0, 0], [1, 1821, 1821, 2]]  # as long as the longest


def test_both_formats_of_vocabulary_give_the_same_tokens(tmp_path):
    tokens = read_vocabulary(ERNIE_VOCABULARY)
    plain = tmp_path / "vocab.txt"
    plain.write_text("\n".join(tokens) + "\n", encoding="utf-8-sig")  # with the mark that Windows editors add
    assert read_vocabulary(plain) == tokens == WordPieceTokenizer(plain).tokens and len(tokens) == 39980


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"[PAD]\t0\n[CLS]\t2\n", "ids must be 0 to 1"),
        (b"[CLS]\n[PAD]\n[SEP]\n[UNK]\n", "must have id 0"),
        ("[PAD]\n沙发\n".encode("gbk"), "UTF-8"),
        (None, "no such file"),
    ],
)
def test_error_names_a_file_that_is_not_a_vocabulary(tmp_path, content, fault):
    path = tmp_path / "odd.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=f"odd.txt.*{fault}"):
        read_vocabulary(path)


@pytest.mark.parametrize(
    ("tokens", "culprit"), [([], r"0 tokens: \[CLS\], .*\[UNK\]"), (["[CLS]", "[PAD]", "[SEP]", "[UNK]"], "id 0")]
)
def test_list_that_is_not_a_vocabulary_is_refused(tokens, culprit):
    with pytest.raises(ValueError, match=culprit):
        WordPieceTokenizer(tokens)
