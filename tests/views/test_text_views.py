from collections import Counter

import numpy as np
import pytest

from ernie_vil2.config import ViewsConfig
from ernie_vil2.data.augment import draw_text, tags_text
from ernie_vil2.data.samples import BadSample, Sample

SAMPLE = Sample(
    "1", "1", b"", {"zh": "红车", "en": "a red car"}, {"zh": ("红色的汽车", "树"), "en": ("red car", "tree")}
)


def drawn(sample=SAMPLE, count=4000, **changes):
    rng = np.random.default_rng(0)
    views = ViewsConfig(**changes)
    return Counter(draw_text(sample, views, rng) for _ in range(count))


def test_tags_come_after_the_prompt_of_their_language():
    views = ViewsConfig()
    assert tags_text(["red car", "tree"], "en", views) == "The picture contains red car, tree"
    assert tags_text(["红色的汽车", "树"], "zh", views) == "图片中包含红色的汽车、树"


def test_caption_or_tags_by_probability():
    texts = drawn(tag_probability=0.3, shuffle_tags=False)
    assert set(texts) == {"红车", "图片中包含红色的汽车、树"}
    assert abs(texts["红车"] / texts.total() - 0.7) < 0.03
    assert set(drawn(tag_probability=0.0)) == {"红车"}
    assert set(drawn(tag_probability=1.0, shuffle_tags=False)) == {"图片中包含红色的汽车、树"}


def test_languages_by_weight():
    texts = drawn(languages={"zh": 1.0, "en": 3.0}, tag_probability=0.0)
    assert abs(texts["a red car"] / texts.total() - 0.75) < 0.03


def test_a_line_of_a_caption_is_drawn_where_lines_are_captions():
    sample = Sample("1", "1", b"", {"zh": " 红车\n\n小车 \n"})
    assert set(drawn(sample)) == {"红车\n\n小车"}
    texts = drawn(sample, caption_lines=True)
    assert set(texts) == {"红车", "小车"} and abs(texts["红车"] / texts.total() - 0.5) < 0.03


def test_shuffled_tags_come_in_every_order():
    texts = drawn(tag_probability=1.0)
    assert set(texts) == {"图片中包含红色的汽车、树", "图片中包含树、红色的汽车"}
    assert abs(texts["图片中包含树、红色的汽车"] / texts.total() - 0.5) < 0.03


def test_without_tags_the_caption_serves():
    assert set(drawn(Sample("1", "1", b"", {"": "x"}), tag_probability=1.0)) == {"x"}


def test_without_any_text_the_sample_is_bad():
    with pytest.raises(BadSample, match="empty caption"):
        drawn(Sample("1", "1", b"", {"en": "only English"}), count=1)
