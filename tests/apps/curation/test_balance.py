"""Balance of concepts by a list of words: weights that are computed by hand, and draws."""

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


def test_weights_follow_the_rule(tmp_path, pairs, curated):
    text = f"balance: {{words: {{en: {tmp_path}/en.txt, zh: {tmp_path}/zh.txt}}, most: {{en: 2, zh: 2}}}}"
    rows = list(curated([pairs], text).values())
    # A word of more than two captions keeps a pair with the probability 2 / captions; mats are in one caption only. A
    # pair stays unless all of its words drop it. Zebra and category are no words of the list.
    cat, dog = 2 / 10, 2 / 3
    cat_and_dog = 1 - (1 - cat) * (1 - dog)
    expected = [*[cat] * 8, cat_and_dog, cat_and_dog, 1.0, 0.0, 0.0, 1.0, 1.0]
    assert [row["weight"] for row in rows] == pytest.approx(expected)
    assert [row["reason"] for row in rows if not row["is_kept"]] == ["no concept"] * 2

    rows = list(curated([pairs], text[:-1] + ", unmatched: keep}", "unmatched").values())
    assert [row["weight"] for row in rows] == pytest.approx([weight or 1.0 for weight in expected])


def test_draw_depends_only_on_its_seed(tmp_path, curated):
    rows = [(encode_image(make_distinct_image(number % 40, 16)), f"cat number {number}") for number in range(400)]
    path = write_pair_shard(tmp_path / "many.tar", rows)
    (tmp_path / "en.txt").write_text("cat\n")
    text = f"balance: {{words: {{en: {tmp_path}/en.txt}}, most: {{en: 100}}, by: draw, seed: 1}}"

    def list_kept(table):
        return [key for key, row in table.items() if row["is_kept"]]

    table = curated([path], text, "first")
    keys = list_kept(table)
    assert keys == list_kept(curated([path], text, "again"))
    assert abs(len(keys) - 100) < 4 * np.sqrt(400 * 0.25 * 0.75)  # four deviations of the binomial distribution
    assert {row["reason"] for row in table.values()} == {None, "balance of concepts"}
    assert {row["weight"] for row in table.values()} == {0.0, 1.0}
    assert keys != list_kept(curated([path], text.replace("seed: 1", "seed: 2"), "other"))


def test_english_words_match_whole_and_chinese_ones_anywhere(tmp_path):
    (tmp_path / "en.txt").write_text("cat\nice cream\nice\n")
    words = WordList(str(tmp_path / "en.txt"), 5, whole_words=True)
    assert sorted(words.find_words("Cats eat ICE CREAM, concatenated")) == [5, 6, 7]
    (tmp_path / "zh.txt").write_text("猫\n", encoding="utf-8")
    assert list(WordList(str(tmp_path / "zh.txt"), 0, whole_words=False).find_words("两只猫咪")) == [0]
    wordnet = "  1 This software is licensed\nice_cream n 1 2 @ ~ 1 1 07614500\ncat n 8 5 @ 8 1 1\n"
    (tmp_path / "index.noun").write_text(wordnet)
    assert WordList(str(tmp_path / "index.noun"), 0, whole_words=True).words == ["ice cream", "cat"]


def test_words_of_a_list_end_at_line_ends_only(tmp_path):
    (tmp_path / "words.txt").write_bytes("dog\x85house\r\ncat\u2028\n".encode())
    assert WordList(str(tmp_path / "words.txt"), 0, whole_words=True).words == ["dog\x85house", "cat"]


def test_accents_are_letters_however_they_are_written(tmp_path):
    (tmp_path / "words.txt").write_text("cafe\ncafe\u0301\npi\u00f1ata\n", encoding="utf-8")
    words = WordList(str(tmp_path / "words.txt"), 0, whole_words=True)
    assert list(words.find_words("caf\u00e9 of a pin\u0303ata")) == [1, 2]
    assert list(words.find_words("cafe\u0301 of a pi\u00f1ata")) == [1, 2]


def test_tail_share_gives_the_threshold():
    # Words of 1, 2, 3, 4 and 90 captions: the words of up to 3 captions have 6 % of the matches.
    assert _compute_threshold(np.array([90, 4, 0, 3, 2, 1]), 0.06) == 3
    assert _compute_threshold(np.array([90, 4, 0, 3, 2, 1]), 0.07) == 4
    assert _compute_threshold(np.zeros(3, np.int64), 0.06) == 1


def test_missing_and_empty_word_lists_are_named(tmp_path, pairs, curated):
    with pytest.raises(FileNotFoundError, match="missing.txt"):
        curated([pairs], f"balance: {{words: {{en: {tmp_path}/missing.txt}}}}")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="empty.txt"):
        curated([pairs], f"balance: {{words: {{en: {tmp_path}/empty.txt}}}}")


def test_a_bound_for_a_language_without_words_is_named(tmp_path, pairs, curated):
    text = f"balance: {{words: {{en: {tmp_path}/en.txt}}, most: {{en: 2, cn: 2}}}}"
    with pytest.raises(ValueError, match="balance.most: cn"):
        curated([pairs], text)
