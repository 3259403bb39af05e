"""Drawing of texts: captions or tags, languages by weight, lines, and long captions as second text."""

from collections import Counter

import numpy as np
import pytest

from ernie_vil2.config import ViewsConfig
from ernie_vil2.data.augment import draw_texts, format_tags
from ernie_vil2.data.samples import BadSample, Sample

SAMPLE = Sample(
    "1", "1", b"", {"zh": "红车", "en": "a red car"}, {"zh": ("红色的汽车", "树"), "en": ("red car", "tree")}
)


# Shares are compared within 0.04: 3.6 standard deviations or more over 2,000 draws.


def count_texts(sample=SAMPLE, count=2000, **changes):
    """Draw the first text so often and count each."""
    rng = np.random.default_rng(0)
    views = ViewsConfig(**changes)
    return Counter(draw_texts(sample, views, rng)[0] for _ in range(count))


def test_caption_or_tags_are_drawn_by_probability():
    texts = count_texts(tag_probability=0.3, shuffle_tags=False)
    assert set(texts) == {"红车", "图片中包含红色的汽车、树"}
    assert abs(texts["红车"] / texts.total() - 0.7) < 0.04
    assert format_tags(["red car", "tree"], "en", ViewsConfig()) == "The picture contains red car, tree"


def test_only_texts_that_a_sample_has_are_drawn():
    assert set(count_texts(Sample("1", "1", b"", {"": "x"}), tag_probability=1.0, count=9)) == {"x"}
    with pytest.raises(BadSample, match="empty caption"):
        count_texts(Sample("1", "1", b"", {"en": "only English"}), count=1)


def test_languages_are_drawn_by_weight():
    texts = count_texts(languages={"zh": 1.0, "en": 3.0}, tag_probability=0.0)
    assert abs(texts["a red car"] / texts.total() - 0.75) < 0.04


def test_caption_lines_draw_one_line_of_a_caption():
    sample = Sample("1", "1", b"", {"zh": " 红车\n\n小车 \n"})
    assert set(count_texts(sample)) == {"红车\n\n小车"}
    texts = count_texts(sample, caption_lines=True)
    assert set(texts) == {"红车", "小车"} and abs(texts["红车"] / texts.total() - 0.5) < 0.04


def test_shuffled_tags_are_drawn_in_every_order():
    texts = count_texts(tag_probability=1.0)
    assert set(texts) == {"图片中包含红色的汽车、树", "图片中包含树、红色的汽车"}
    assert abs(texts["图片中包含树、红色的汽车"] / texts.total() - 0.5) < 0.04


LONG = Sample(
    "1", "1", b"", {**SAMPLE.captions, "long_en": " a red car\nunder a tree ", "long_zh": "\u200b"}, SAMPLE.tags
)


def draw_pairs(sample=LONG, count=1000, **changes):
    """Draw pairs of texts, each with a generator of its own, as training does for every position."""
    views = ViewsConfig(languages={"en": 1.0}, **changes)
    return [draw_texts(sample, views, np.random.default_rng(number)) for number in range(count)]


def test_second_text_is_the_long_caption_of_the_language():
    pairs = draw_pairs(tag_probability=0.3)
    assert all(first == second for first, second in pairs)
    pairs_with_long = draw_pairs(tag_probability=0.3, long_caption="long")
    assert [first for first, _ in pairs_with_long] == [first for first, _ in pairs]
    assert {second for _, second in pairs_with_long} == {"a red car\nunder a tree"}
    without_language = Sample("1", "1", b"", {"": "车", "long": "树下的红车"})
    assert set(draw_pairs(without_language, long_caption="long")) == {("车", "树下的红车")}


def test_sample_without_a_long_caption_has_equal_texts():
    # The long caption is blank in Chinese, and there is none in English.
    for language, sample in (("zh", LONG), ("en", SAMPLE)):
        views = ViewsConfig(languages={language: 1.0}, long_caption="long", long_first=1.0, tag_probability=0.0)
        assert draw_texts(sample, views, np.random.default_rng(0)) == (sample.captions[language],) * 2


def test_long_caption_comes_first_by_its_probability():
    texts = Counter(draw_pairs(tag_probability=0.0, long_caption="long", long_first=0.25))
    short, long = "a red car", "a red car\nunder a tree"
    assert texts.keys() == {(short, long), (long, short)} and abs(texts[long, short] / texts.total() - 0.25) < 0.04


def test_long_captions_do_not_identify_a_text():
    # Two images with the same short caption have the same text, whatever their long captions are.
    for captions, expected in (
        ({"en": "a cat", "long_en": "a cat on a sofa"}, "a cat"),
        ({"en": "a cat", "long_en": "a cat in the sun"}, "a cat"),
        ({"en": "a cat"}, "a cat"),
        ({"long_en": "a cat in the sun"}, "a cat in the sun"),
    ):
        sample = Sample("1", "\n".join(captions.values()), b"", captions)
        assert sample.text_name_without("long") == expected
    assert Sample("1", "by id", b"", {"en": "a cat"}).text_name_without("long") == "by id"
