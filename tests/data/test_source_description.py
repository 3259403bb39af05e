"""`prepare --check` shows how the columns of a table are read, and a sample."""

import pytest

from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.readers.columns import find_alternatives, rename_columns
from ernie_vil2.data.source_description import describe_source
from tests.support.image_formats import encode_image, make_smooth_image


def find_line(text: str, beginning: str) -> str:
    return next(line.strip() for line in text.splitlines() if line.strip().startswith(beginning))


def test_columns_and_a_sample_of_a_table_are_shown(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_image(make_smooth_image(3, 5)))
    table = tmp_path / "train.csv"
    table.write_text("图片,商品名称,标题,价格\nmissing.png,坏,坏,0\na.png,玩偶,一只猫,12\n", encoding="utf-8")

    text = describe_source(open_sources(str(table)))

    assert find_line(text, "image ").endswith("图片")
    assert "标题" in find_line(text, "caption ") and "zh" in find_line(text, "caption ")
    assert find_line(text, "fields").removeprefix("fields").strip() == "商品名称, 价格"
    # The first row has no image, so the second one is shown.
    sample = text[text.index("sample 2") :]
    assert "a.png (5 x 3 pixels)" in sample
    assert find_line(sample, "caption_zh").endswith("一只猫") and find_line(sample, "价格").endswith("12")


@pytest.mark.parametrize(("headers", "alternatives"), [
    (["image", "caption_zh"], {}),
    (["图片", "标题", "商品名称", "价格"], {"caption_zh": ["商品名称"]}),
    (["图片", "标题", "title"], {"caption_zh": ["title"]}),
    (["img", "filename", "text", "caption"], {"image": ["filename"]}),
    (["image", "photo", "title", "description"], {"image": ["photo"], "caption": ["description"]}),
])  # fmt: skip
def test_other_columns_for_the_same_thing_are_named(headers, alternatives):
    assert find_alternatives(headers, rename_columns(headers, {}, "table")) == alternatives


def test_named_option_reads_the_other_column(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_image(make_smooth_image(3, 5)))
    table = tmp_path / "train.csv"
    table.write_text("图片,标题,商品名称\na.png,一只猫,玩偶\n", encoding="utf-8")
    choice = find_line(describe_source(open_sources(str(table))), "caption_zh is")
    name, _, header = choice.partition("--columns ")[2].split()[0].partition("=")

    chosen = open_sources(str(table), columns={name: header})
    assert chosen[0].captions["zh"] == "玩偶"


def test_samples_of_shards_are_shown_without_columns():
    text = describe_source(open_sources("demo_data/emoji-val.tar"))
    assert "columns" not in text
    assert find_line(text, "caption_zh").endswith("台风") and find_line(text, "tags_en")
