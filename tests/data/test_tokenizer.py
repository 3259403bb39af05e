import numpy as np
import pytest

from ernie_vil2.data.tokenizer import ERNIE_VOCABULARY, Tokenizer, pad, read_vocabulary


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(max_length=12)


def test_ids_of_reference_sentences(tokenizer):
    # Ids that the official tokenizer of ERNIE 3.0 gives, without [CLS] and [SEP].
    for text, ids in [
        ("一只猫坐在沙发上。", [7, 297, 1821, 1096, 11, 896, 34, 28, 12043]),
        ("手写的请假条", [247, 519, 5, 647, 1068, 304]),
        ("奔驰汽车G级 SL级", [1750, 2355, 1030, 320, 2715, 222, 8650, 222]),
        ("Ⅷ号楼 50%折扣", [28648, 500, 776, 1024, 12062, 1160, 1834]),
    ]:
        assert tokenizer.encode(text) == [1, *ids, 2]


def test_long_texts_are_cut_and_short_ones_padded(tokenizer):
    ids = tokenizer(["猫" * 50, "猫"])
    assert ids.shape == (2, 12) and ids.dtype == np.int64
    assert ids[0, -1] == 2 and ids[1].tolist() == [1, 1821, 2] + [0] * 9


def test_an_empty_text_and_an_unknown_character(tokenizer):
    assert tokenizer.encode("") == [1, 2]
    assert tokenizer.encode("\U0001f600") == [1, 39979, 2]


def test_both_vocabulary_formats_give_the_same_tokens(tmp_path):
    tokens = read_vocabulary(ERNIE_VOCABULARY)
    plain = tmp_path / "vocab.txt"
    plain.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    assert read_vocabulary(plain) == tokens and len(tokens) == 39980


@pytest.mark.parametrize(
    "text, message",
    [
        ("[PAD]\t0\n[CLS]\t2\n", "ids must be 0 to 1"),
        ("[PAD]\tx\n", "not a number"),
        ("a\nb\n", "missing; is this a vocabulary file"),
        ("[CLS]\n[PAD]\n[SEP]\n[UNK]\n", "must have id 0"),
    ],
)
def test_what_is_no_vocabulary_is_named(tmp_path, text, message):
    path = tmp_path / "odd.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"odd.txt.*{message}"):
        read_vocabulary(path)


def test_pad():
    assert pad([[1, 2], [1, 5, 2]]).tolist() == [[1, 2, 0], [1, 5, 2]]
