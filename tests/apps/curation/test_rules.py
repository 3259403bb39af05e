"""Rules of captions and images, languages, and the settings of steps."""

import json
from datetime import date

import numpy as np
import pytest

from ernie_vil2.apps.curation import STEPS, Rule, Step, load_steps
from ernie_vil2.apps.curation.languages import detect_language
from ernie_vil2.io.terminal import ConfigError
from ernie_vil2.section import Section
from tests.support.crawled_pairs import make_distinct_image, write_pair_shard
from tests.support.image_formats import encode_image
from tests.support.paths import ROOT


@pytest.mark.parametrize(("language", "text"), [
    ("en", "red shoe"), ("en", "café table in the sun"), ("en", "Vitamin C 500 mg"), ("en", "Illustration: top hat"),
    ("en", "llama, vicuña, alpaca, tame animal"), ("en", "ten o’clock"), ("other", "le chat sur la table"),
    ("other", "unser Plakat mit den Spielsachen und dem Hund"), ("zh", "iPhone 手机壳"),
    ("zh", "苹果 Apple 笔记本电脑"), ("other", "白い猫がソファに座っている"), ("other", "소파에 앉은 고양이"),
    ("other", "кошка на диване"), ("other", "Müllabfuhr"), ("other", "12345"), ("other", "một con mèo trắng"),
    ("en", "Los Angeles skyline"), ("en", "Big Sur, California"), ("en", "Zürich Hauptbahnhof clock"),
    ("other", "Große Brücke"), ("other", "東京駅前広場"), ("other", "浅草雷門前桜並木"), ("zh", "台北101大樓夜景"),
    ("zh", "紅色的郵筒立在街角"), ("zh", "日本东京浅草寺雷门"),
])  # fmt: skip
def test_language_of_a_caption_is_recognised(language, text):
    assert detect_language(text) == language


def test_every_dropped_pair_has_a_reason(tmp_path, curated):
    flat = np.full((64, 64, 3), 200, np.uint8)
    rows = [
        (encode_image(make_distinct_image(0)), "a red shoe on the table"),
        (encode_image(make_distinct_image(1)), "IMG_0001.JPG"),
        (encode_image(make_distinct_image(2)), "eine rote Katze auf dem Sofa"),
        (encode_image(make_distinct_image(3)), "ab"),
        (encode_image(make_distinct_image(4)[:20]), "a very wide photograph"),
        (encode_image(make_distinct_image(5)[:8, :8]), "a very small photograph"),
        (encode_image(flat), "a picture of a lamp"),
        (b"\x89PNG\r\n\x1a\n broken", "a picture that is broken"),
        (encode_image(make_distinct_image(0)), "a red shoe on the table, seen from above"),
        (encode_image(make_distinct_image(6)), "win a prize, everybody"),
        (encode_image(make_distinct_image(7)), "Win a prize - everybody!"),
        (encode_image(make_distinct_image(8)), "一只白色的猫坐在沙发上"),
    ]
    table = curated(
        [write_pair_shard(tmp_path / "crawl.tar", rows)],
        "text_rules: {images_of_a_caption: 1}\nimage_rules: {short_side: 32, aspect: 3}\nexact_duplicates: {}",
    )
    assert [(row["step"], row["reason"]) for row in table.values()] == [
        ("exact_duplicates", "copy of an image"),
        ("text_rules", "file name"),
        ("text_rules", "other language"),
        ("text_rules", "caption too short"),
        ("image_rules", "image too small"),
        ("image_rules", "image too small"),
        ("image_rules", "blank image"),
        ("unreadable", "broken image"),
        (None, None),
        ("text_rules", "caption of many images"),
        ("text_rules", "caption of many images"),
        (None, None),
    ]
    for row in table.values():
        assert row["is_kept"] == (row["reason"] is None) and row["weight"] == float(row["is_kept"])
    copy = next(iter(table.values()))
    assert copy["nearest"] == 8 and copy["nearest_key"].endswith("8")


class EvenSides(Step):
    """Step of a user, which drops images with an odd side."""

    name, cost, columns = "even_sides", 2, {"odd": "bool"}

    class Settings(Section):
        reason: str = "an odd side"
        since: date | None = None

    def measure(self, pair):
        return {"odd": bool(pair.image.height % 2 or pair.image.width % 2)}

    def rules(self):
        yield Rule(self.settings.reason, "odd")


def test_user_step_is_named_by_its_import_path(tmp_path, curated):
    rows = [(encode_image(make_distinct_image(size, size)), "a picture of a shed") for size in (64, 65)]
    text = "text_rules: {}\ntests.apps.curation.test_rules:EvenSides: {reason: one side isn't even}"
    table = list(curated([write_pair_shard(tmp_path / "crawl.tar", rows)], text).values())
    assert [(row["step"], row["reason"], row["odd"]) for row in table] == [
        (None, None, False), ("even_sides", "one side isn't even", True),
    ]  # fmt: skip


def test_settings_of_a_user_step_are_written_as_json(tmp_path, curated):
    pairs = write_pair_shard(tmp_path / "crawl.tar", [(encode_image(make_distinct_image(0)), "a picture of a shed")])
    curated([pairs], "tests.apps.curation.test_rules:EvenSides: {since: 2021-01-31}")
    about = json.loads((tmp_path / "curated" / "curation.json").read_text())
    assert about["steps"]["even_sides"]["since"] == "2021-01-31"


@pytest.mark.parametrize(("text", "message"), [
    ("text_rule: {}", "text_rules"), ("text_rules: {wordz: 3}", "text_rules.words"), ("text_rules: null", "no step"),
    ("[a]", "the top level"), ("os:system: {}", "os:system"), ("ernie_vil2.apps.curation:Step: {}", "curation:Step"),
])  # fmt: skip
def test_invalid_settings_are_refused(steps, text, message):
    with pytest.raises(ConfigError, match=message):
        steps(text)


def test_overrides_change_settings_and_remove_steps(steps):
    rules = "exact_duplicates: {}\ntext_rules: {words: 2}\nimage_rules: {}"
    text_rules, duplicates = steps(rules, "image_rules=null", "text_rules.words=4")
    assert (text_rules.name, duplicates.name) == ("text_rules", "exact_duplicates")
    assert text_rules.settings.words == 4
    user_step = "tests.apps.curation.test_rules:EvenSides"
    (even_sides,) = steps("text_rules: {}", f"{user_step}.reason=uneven", "text_rules=null")
    assert (even_sides.name, even_sides.settings.reason) == ("even_sides", "uneven")


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "curate").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_curation_loads(path):
    assert load_steps(path)


def test_note_lists_every_setting_of_the_steps():
    note = (ROOT / "docs" / "notes" / "curation.md").read_text(encoding="utf-8")
    for name in STEPS:
        step = STEPS.find(name)
        if step.__module__.startswith("ernie_vil2."):
            missing = [key for key in step.Settings.model_fields if f"| `{name}` | `{key}` |" not in note]
            assert missing == []
