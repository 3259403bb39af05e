"""Tags by id from a file: they are cleaned and stored in shards, and rows that do not match are reported."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.apps.tagging.taggers import clean_list, clean_tag
from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.tags import TagsFile
from tests.support.limits import limit_examples
from tests.support.shapes import draw_shape_members, write_tar


@pytest.fixture
def shard(tmp_path):
    """Write 16 images with names such as red-disc-1-0, where the field `id` is red-disc."""
    return write_tar(tmp_path / "shapes.tar", draw_shape_members(1, seed=1))


def write_rows(path, rows):
    """Write rows of (id, Chinese tags, English tags) in the format of the file name."""
    if path.suffix == ".jsonl":
        lines = [json.dumps({"id": name, "tags_zh": zh, "tags_en": en}) for name, zh, en in rows]
    else:
        tab = "\t" if path.suffix == ".tsv" else ","
        lines = [tab.join(["id", "tags_zh", "tags_en"])]
        lines += [tab.join([name, "|".join(zh), "|".join(en)]) for name, zh, en in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".tsv", ".csv"])
def test_tags_are_cleaned_and_bad_rows_are_reported(run_tool, shard, tmp_path, capsys, suffix):
    rows = [
        ("red-disc-1-0", ["红色 ", "圆", "圆"], ["a  red\u00a0disc", "Cafe\u0301"]),
        ("red-bar-1-0", [], [" ", "bar"]),
        ("red-bar-1-0", [], ["late"]),
        ("blue-bar-1-0", [" "], []),
        ("none-1", ["无"], []),
    ]
    path = write_rows(tmp_path / f"names{suffix}", rows)
    bad_lines = {".jsonl": '{"tags_zh": []}\n{"id": "x", "tags_en": "car"}\n', ".tsv": "x\ty\n", ".csv": "x,y\n"}
    with path.open("a", encoding="utf-8") as file:
        file.write(bad_lines[suffix])
    assert run_tool("file", shard, "--tags", path, "--output", tmp_path / "tags.jsonl") == 0
    tags = TagsFile(tmp_path / "tags.jsonl")
    assert tags["red-disc-1-0"] == {"zh": ("红色", "圆"), "en": ("a red disc", "Café")}
    assert tags["red-bar-1-0"] == {"en": ("bar",)}
    assert len(tags) == 2
    printed = capsys.readouterr().out
    assert "2 of 16 ids have tags" in printed and "tags whose id no sample has: 1 (none-1)\n" in printed
    if suffix == ".jsonl":
        bad_rows = "repeated id: 1 (names.jsonl:3)", "no id: 1 (names.jsonl:6)", "malformed tags: 1 (names.jsonl:7)"
    else:  # the first line holds the names of the columns
        bad_rows = f"repeated id: 1 (names{suffix}:4)", f"malformed row: 1 (names{suffix}:7)"
    assert all(row in printed for row in bad_rows)


def test_tags_by_a_field_are_written_into_shards(run_tool, shard, tmp_path, capsys):
    path = write_rows(tmp_path / "names.csv", [("red-disc", ["红圆"], []), ("blue-cross", ["蓝叉"], ["blue cross"])])
    tags, shards = tmp_path / "tags.jsonl", tmp_path / "shards"
    assert run_tool("file", shard, "--tags", path, "--tags-id", "id", "--output", tags) == 0
    assert run_tool(shard, "--tags", tags, "--tags-id", "id", "--output", shards, command="prepare") == 0
    samples = open_sources([str(shards)])
    tags_by_id = {sample.fields["id"]: sample.tags for sample in map(samples.__getitem__, range(16))}
    assert tags_by_id["red-disc"] == {"zh": ("红圆",), "en": ("red", "disc")}, "the file has no English tags"
    assert tags_by_id["blue-cross"] == {"zh": ("蓝叉",), "en": ("blue cross",)}
    assert tags_by_id["green-bar"] == {"zh": ("绿色", "条"), "en": ("green", "bar")}
    assert run_tool("file", shard, "--tags", path, "--tags-id", "key", "--output", tmp_path / "none.jsonl") == 0
    assert "missing field: 16 (red-disc-1-0, key," in capsys.readouterr().out


@pytest.mark.parametrize(("name", "content"), [("a.txt", "x"), ("a.jsonl", '{"tags": ["a"]}\n'), ("a.jsonl", "")])
def test_file_without_tags_is_refused(run_tool, shard, tmp_path, capsys, name, content):
    (tmp_path / name).write_text(content)
    assert run_tool("file", shard, "--tags", tmp_path / name, "--output", tmp_path / "tags.jsonl") == 2
    assert name in capsys.readouterr().err


@limit_examples(50)
@given(st.lists(st.text(max_size=5), max_size=6))
def test_cleaning_twice_changes_nothing_more(tags):
    cleaned = clean_list(tags)
    assert clean_list(cleaned) == cleaned and len(set(cleaned)) == len(cleaned)
    assert all(clean_tag(tag) in cleaned or not tag.strip() for tag in tags)
