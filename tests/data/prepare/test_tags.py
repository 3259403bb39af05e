"""Files of tags: every id has its tags, bad rows are named, and tags of a file replace those of a sample."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.samples import BadSample, Sample, is_blank
from ernie_vil2.data.tags import TagsFile, find_tags_id, join_tags
from tests.support.limits import limit_examples

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="|\t"), min_size=1)
NAMES = TEXTS.filter(lambda name: not is_blank(name))
TAG_LISTS = st.lists(NAMES, max_size=3)


@limit_examples(30)
@given(
    st.dictionaries(NAMES, st.tuples(TAG_LISTS, TAG_LISTS), min_size=1, max_size=8), st.sampled_from(["jsonl", "tsv"])
)
def test_every_id_has_its_tags(tmp_path_factory, rows, suffix):
    path = tmp_path_factory.mktemp("tags") / f"tags.{suffix}"
    lines = ["id\ttags_zh\ttags"] if suffix == "tsv" else []
    for name, (chinese, plain) in rows.items():
        if suffix == "tsv":
            lines.append("\t".join([name, "|".join(chinese), "|".join(plain)]))
        else:
            lines.append(json.dumps({"id": name, "tags_zh": chinese, "tags": plain}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    file = TagsFile(path)
    assert len(file) == len(rows)
    for name, (chinese, plain) in rows.items():
        assert file[name] == {"zh": tuple(chinese), "": tuple(plain)}
    assert file["".join(rows) + "?"] == {}  # an id that no row has


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.jsonl", '{"id": "x", "tags": 3}\n', "a.jsonl:1: malformed tags"),
        ("a.jsonl", '{"id": "x"}\n{"id": "\\ud800"}\n', "a.jsonl:2: not Unicode text"),
        ("a.tsv", "id\ttags\nx\n", "a.tsv:2: malformed row"),
        ("a.tsv", "\nid\ttags\n\nx\ty\r\n \nx\n", "a.tsv:6: malformed row"),
        ("a.tsv", "name\ttags\nx\ty\n", "a.tsv:2: no id"),
        ("a.tsv", "id\ttags\nx\t\udcff\n", "a.tsv:2: not UTF-8"),
        ("a.tsv", "id\ttags\n", "a.tsv: no rows below the column names"),
        ("a.txt", "", ".jsonl, .tsv or .csv"),
    ],
)
def test_error_names_the_line_of_a_bad_row(tmp_path, name, content, error):
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=error):
        TagsFile(tmp_path / name)


def test_blank_lines_of_a_tsv_are_skipped(tmp_path):
    path = tmp_path / "tags.tsv"
    path.write_bytes(b"\xef\xbb\xbfid\ttags\r\n\r\nx\ta|b\r\ny\tc\r\n\r\n")
    file = TagsFile(path)
    assert (len(file), file["x"], file["y"], file[""]) == (2, {"": ("a", "b")}, {"": ("c",)}, {})


def test_tags_id_that_cannot_be_encoded_is_a_bad_sample():
    sample = Sample("image", "text", b"", {}, fields={"number": 7, "url": "\ud800"})
    assert find_tags_id(sample, None) == "image" and find_tags_id(sample, "number") == "7"
    with pytest.raises(BadSample, match="image: not Unicode text"):
        find_tags_id(sample, "url")


def test_tags_of_a_file_replace_those_of_the_same_language(tmp_path):
    lines = '{"id": 7, "tags_zh": ["a"], "tags_en": []}\n{"id": "7", "tags_zh": ["b"]}\n'  # the first row counts
    (tmp_path / "a.jsonl").write_text(lines)
    tags = {"zh": ("old",), "en": ("kept",)}
    assert join_tags(tags, "7", [TagsFile(tmp_path / "a.jsonl")]) == {"zh": ("a",), "en": ("kept",)}
    assert join_tags(tags, "y", [TagsFile(tmp_path / "a.jsonl")]) == tags
