"""Balance of concepts against a list of words, by the rule that is worked out by hand here."""

import numpy as np
import pytest

from ernie_vil2.apps.curation.steps.balance import WordList, _compute_threshold
from tests.support.crawled_pairs import make_distinct_image, write_pair_shard
from tests.support.image_formats import encode_image

CAPTIONS = [*["a cat"] * 8, *["two cats and a dog"] * 2, "a dog on a mat", "a zebra", "a category of dogmas",
            "白色的猫", "猫和狗"]  # fmt: skip


@pytest.fixture
def pairs(tmp_path):
    rows = [(encode_image(make_distinct_image(number, 16)), caption) for number, caption in enumerate(CAPTIONS)]
    (tmp_path / "en.txt").write_text("Cat\ndog\nmat\nice cream\n")
    (tmp_path / "zh.txt").write_text("猫\t100\n狗\n", encoding="utf-8")
    return write_pair_shard(tmp_path / "crawl.tar", rows)


def test_weights_are_those_of_the_rule(tmp_path, pairs, curated):
    text = f"balance: {{words: {{en: {tmp_path}/en.txt, zh: {tmp_path}/zh.txt}}, most: {{en: 2, zh: 2}}}}"
    rows = list(curated([pairs], text).values())
    cat, dog = 2 / 10, 2 / 3
    both = 1 - (1 - cat) * (1 - dog)
    expected = [*[cat] * 8, both, both, 1.0, 0.0, 0.0, 1.0, 1.0]
    assert [row["weight"] for row in rows] == pytest.approx(expected)
    assert [row["reason"] for row in rows if not row["is_kept"]] == ["no concept"] * 2

    rows = list(curated([pairs], text[:-1] + ", unmatched: keep}", "unmatched").values())
    assert [row["weight"] for row in rows] == pytest.approx([weight or 1.0 for weight in expected])


def test_a_draw_is_made_once_with_its_seed(tmp_path, curated):
    rows = [(encode_image(make_distinct_image(number % 40, 16)), f"cat number {number}") for number in range(400)]
    path = write_pair_shard(tmp_path / "many.tar", rows)
    (tmp_path / "en.txt").write_text("cat\n")
    text = f"balance: {{words: {{en: {tmp_path}/en.txt}}, most: {{en: 100}}, by: draw, seed: 1}}"
    first, again = curated([path], text, "first"), curated([path], text, "again")
    kept = [key for key, row in first.items() if row["is_kept"]]
    assert kept == [key for key, row in again.items() if row["is_kept"]]
    assert abs(len(kept) - 100) < 4 * np.sqrt(400 * 0.25 * 0.75)
    assert {row["reason"] for row in first.values()} == {None, "balance of concepts"}
    assert {row["weight"] for row in first.values()} == {0.0, 1.0}
    other = curated([path], text.replace("seed: 1", "seed: 2"), "other")
    assert kept != [key for key, row in other.items() if row["is_kept"]]


def test_english_words_are_whole_and_chinese_ones_are_not(tmp_path):
    (tmp_path / "en.txt").write_text("cat\nice cream\nice\n")
    words = WordList(str(tmp_path / "en.txt"), 5, whole_words=True)
    assert sorted(words.find_words("Cats eat ICE CREAM, concatenated")) == [5, 6, 7]
    (tmp_path / "zh.txt").write_text("猫\n", encoding="utf-8")
    assert list(WordList(str(tmp_path / "zh.txt"), 0, whole_words=False).find_words("两只猫咪")) == [0]
    wordnet = "  1 This software is licensed\nice_cream n 1 2 @ ~ 1 1 07614500\ncat n 8 5 @ 8 1 1\n"
    (tmp_path / "index.noun").write_text(wordnet)
    assert WordList(str(tmp_path / "index.noun"), 0, whole_words=True).words == ["ice cream", "cat"]


def test_one_tail_share_gives_the_threshold():
    """Words of 1, 2, 3, 4 and 90 captions: those of up to 3 have 6 % of the matches."""
    assert _compute_threshold(np.array([90, 4, 0, 3, 2, 1]), 0.06) == 3
    assert _compute_threshold(np.array([90, 4, 0, 3, 2, 1]), 0.07) == 4
    assert _compute_threshold(np.zeros(3, np.int64), 0.06) == 1


def test_words_that_are_not_there(tmp_path, pairs, curated):
    with pytest.raises(FileNotFoundError, match="missing.txt"):
        curated([pairs], f"balance: {{words: {{en: {tmp_path}/missing.txt}}}}")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="empty.txt"):
        curated([pairs], f"balance: {{words: {{en: {tmp_path}/empty.txt}}}}")
