from collections import Counter

import numpy as np
import pytest

from ernie_vil2.config import ViewsConfig
from ernie_vil2.data.augment import draw_texts, format_tags
from ernie_vil2.data.samples import BadSample, Sample

SAMPLE = Sample(
    "1", "1", b"", {"zh": "红车", "en": "a red car"}, {"zh": ("红色的汽车", "树"), "en": ("red car", "tree")}
)


def drawn(sample=SAMPLE, count=2000, **changes):
    rng = np.random.default_rng(0)
    views = ViewsConfig(**changes)
    return Counter(draw_texts(sample, views, rng)[0] for _ in range(count))


def test_caption_or_tags_by_probability():
    texts = drawn(tag_probability=0.3, shuffle_tags=False)
    assert set(texts) == {"红车", "图片中包含红色的汽车、树"}
    assert abs(texts["红车"] / texts.total() - 0.7) < 0.04
    assert format_tags(["red car", "tree"], "en", ViewsConfig()) == "The picture contains red car, tree"


def test_what_a_sample_lacks_is_not_drawn():
    assert set(drawn(Sample("1", "1", b"", {"": "x"}), tag_probability=1.0, count=9)) == {"x"}
    with pytest.raises(BadSample, match="empty caption"):
        drawn(Sample("1", "1", b"", {"en": "only English"}), count=1)


def test_languages_by_weight():
    texts = drawn(languages={"zh": 1.0, "en": 3.0}, tag_probability=0.0)
    assert abs(texts["a red car"] / texts.total() - 0.75) < 0.04


def test_a_line_of_a_caption_is_drawn_where_lines_are_captions():
    sample = Sample("1", "1", b"", {"zh": " 红车\n\n小车 \n"})
    assert set(drawn(sample)) == {"红车\n\n小车"}
    texts = drawn(sample, caption_lines=True)
    assert set(texts) == {"红车", "小车"} and abs(texts["红车"] / texts.total() - 0.5) < 0.04


def test_shuffled_tags_come_in_every_order():
    texts = drawn(tag_probability=1.0)
    assert set(texts) == {"图片中包含红色的汽车、树", "图片中包含树、红色的汽车"}
    assert abs(texts["图片中包含树、红色的汽车"] / texts.total() - 0.5) < 0.04


LONG = Sample(
    "1", "1", b"", {**SAMPLE.captions, "long_en": " a red car\nunder a tree ", "long_zh": "\u200b"}, SAMPLE.tags
)


def both(sample=LONG, count=1000, **changes):
    """By position, as training draws: what is drawn at one leaves the next one as it is."""
    views = ViewsConfig(languages={"en": 1.0}, **changes)
    return [draw_texts(sample, views, np.random.default_rng(number)) for number in range(count)]


def test_the_second_text_is_the_long_caption_of_the_language():
    plain, long = both(tag_probability=0.3), both(tag_probability=0.3, long_caption="long")
    assert all(first == second for first, second in plain)
    assert [first for first, _ in long] == [first for first, _ in plain]
    assert {second for _, second in long} == {"a red car\nunder a tree"}
    without_language = Sample("1", "1", b"", {"": "车", "long": "树下的红车"})
    assert set(both(without_language, long_caption="long")) == {("车", "树下的红车")}


def test_a_sample_without_a_long_caption_has_one_text_twice():
    """Here it is blank in Chinese, and there is none in English."""
    for language, sample in (("zh", LONG), ("en", SAMPLE)):
        views = ViewsConfig(languages={language: 1.0}, long_caption="long", long_first=1.0, tag_probability=0.0)
        assert draw_texts(sample, views, np.random.default_rng(0)) == (sample.captions[language],) * 2


def test_images_are_contrasted_with_the_long_caption_in_turn():
    texts = Counter(both(tag_probability=0.0, long_caption="long", long_first=0.25))
    short, long = "a red car", "a red car\nunder a tree"
    assert texts.keys() == {(short, long), (long, short)} and abs(texts[long, short] / texts.total() - 0.25) < 0.04


def test_long_captions_do_not_name_a_text():
    """Two images of one short caption hold the same text, whatever their long ones say."""
    named = [Sample("1", "\n".join(own.values()), b"", own) for own in (
        {"en": "a cat", "long_en": "a cat on a sofa"}, {"en": "a cat", "long_en": "a cat in the sun"},
        {"en": "a cat"}, {"long_en": "a cat in the sun"})]  # fmt: skip
    names = [sample.text_name_without("long") for sample in named]
    assert names == ["a cat", "a cat", "a cat", "a cat in the sun"]
    assert Sample("1", "by id", b"", {"en": "a cat"}).text_name_without("long") == "by id"
