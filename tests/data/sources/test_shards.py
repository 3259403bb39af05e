"""Shards of tar members and rows of TSV files: what makes a sample, and how bad ones are reported."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.readers import TarSource, TsvSource
from ernie_vil2.data.samples import BadSample
from tests.support.limits import limit_examples
from tests.support.published_files import read_all
from tests.support.shapes import draw, encode_png, write_tar

IMAGE = encode_png(draw((200, 30, 30), "disc", np.random.default_rng(0)))


def write_and_open(tmp_path, *members):
    return TarSource(write_tar(tmp_path / "a.tar", members))


def test_members_with_equal_names_up_to_a_dot_are_one_sample(tmp_path):
    fields = {"caption_zh": "红", "caption_en": "red", "tags_en": ["a", " ", "b"], "kind": "object"}
    source = write_and_open(
        tmp_path, ("d/1.png", IMAGE), ("d/1.json", json.dumps(fields).encode()), ("d/2.x.txt", b"two")
    )
    assert len(source) == 2
    sample = source[0]
    assert (sample.image_name, sample.image, sample.caption("zh"), sample.caption("en")) == ("d/1", IMAGE, "红", "red")
    assert sample.tag_list("en") == ("a", "b") and sample.tag_list("zh") == ()
    assert sample.fields["kind"] == "object"
    with pytest.raises(BadSample, match="d/2: no image member"):
        source[1]


def test_text_id_is_the_field_of_that_name(tmp_path):
    members = [("1.png", IMAGE), ("1.json", b'{"id": 7, "caption": "x"}')]
    path = write_tar(tmp_path / "a.tar", members)
    assert TarSource(path, "id")[0].text_name == "7"
    assert TarSource(path)[0].text_name == "x"
    with pytest.raises(BadSample, match="1, concept: missing field"):
        TarSource(path, "concept")[0]


@pytest.mark.parametrize("value", ["NaN", '""', '" "'])
def test_blank_text_ids_do_not_make_one_text(tmp_path, value):
    source = write_and_open(tmp_path, ("1.png", IMAGE), ("1.json", f'{{"id": {value}, "caption": "x"}}'.encode()))
    with pytest.raises(BadSample, match="1, id: missing field"):
        TarSource(source.location, "id")[0]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n"])
def test_end_of_a_text_file_is_no_part_of_its_caption(tmp_path, end):
    assert write_and_open(tmp_path, ("1.png", IMAGE), ("1.txt", b"a\ncat" + end))[0].text_name == "a\ncat"


def test_samples_may_share_an_image_id(tmp_path):
    fields = b'{"image_id": "i", "caption": "x"}'
    members = [("1.png", IMAGE), ("1.json", fields), ("2.png", IMAGE), ("2.json", fields)]
    source = write_and_open(tmp_path, *members)
    assert [source[row].image_name for row in (0, 1)] == ["i", "i"]


def test_null_in_an_object_is_a_field_left_out(tmp_path):
    fields = b'{"image_id": null, "caption": "x", "caption_zh": null, "tags": null}'
    sample = write_and_open(tmp_path, ("1.png", IMAGE), ("1.json", fields))[0]
    assert (sample.image_name, sample.captions, sample.tags) == ("1", {"": "x"}, {})


def test_empty_caption_is_bad_only_when_it_is_read(tmp_path):
    sample = write_and_open(tmp_path, ("1.png", IMAGE), ("1.json", b'{"caption_zh": " ", "caption_en": "x"}'))[0]
    assert sample.caption("en") == "x"
    with pytest.raises(BadSample, match="1: empty caption"):
        sample.caption("zh")


def test_members_of_a_sample_need_not_be_adjacent(tmp_path):
    source = write_and_open(tmp_path, ("1.png", IMAGE), ("2.png", IMAGE), ("2.txt", b"two"), ("1.txt", b"one"))
    assert [(sample.caption("zh"), sample.caption("en")) for sample in read_all(source)] == [("one",) * 2, ("two",) * 2]


def test_index_of_a_shard_holds_only_members_that_are_read(tmp_path):
    members = [("1.png", IMAGE), ("1.txt", b"one"), ("1." + "x" * 10_000, b"")]
    members += [(f"{number}.{number}.jpg", IMAGE) for number in range(2, 102)]
    source = write_and_open(tmp_path, *members)
    sample, *problems = read_all(source)
    assert (sample.image, sample.caption("zh"), problems[0]) == (IMAGE, "one", "2: no image member")
    assert sum(array.nbytes for array in source.index.values()) < 10_000


def test_samples_of_a_truncated_shard_are_read_up_to_its_end(tmp_path):
    members = []
    for number in range(3):
        members += [(f"{number}.png", IMAGE), (f"{number}.txt", b"x")]
    shard = write_tar(tmp_path / "whole.tar", members).read_bytes()
    sample_size = 1024 + -(-len(IMAGE) // 512) * 512 + 512  # two headers, and the contents in blocks of 512 bytes
    # A larger file has the end mark; tar only adds padding after it.
    for size in [*range(600, 3 * sample_size + 511, 768), 3 * sample_size + 511]:
        (tmp_path / "cut.tar").write_bytes(shard[:size])
        samples = read_all(TarSource(tmp_path / "cut.tar"))
        problems = [sample.rpartition(": ")[2] for sample in samples if isinstance(sample, str)]
        assert len(samples) - len(problems) >= size // sample_size and problems.count("cut shard") == 1


def test_bad_tsv_row_is_reported_by_reason_and_line(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"x\ty\tAAAA\n" + b"a\n" + b"a\tb\tabc\n" + b"a\t\xff\tAAAA\n")
    sample, *problems = read_all(TsvSource(path))
    assert sample.image == b"\0\0\0"
    assert problems == ["a.tsv:2: malformed row", "a.tsv:3: malformed base64", "a.tsv:4: not UTF-8"]


BLANKS = st.text(" \t", max_size=3)
COLUMNS = st.lists(st.sampled_from(["", " ", "7", "猫 坐", "AAAA", "x y"]), max_size=3).map("\t".join)


@limit_examples(60)
@given(st.sampled_from(["a", "猫 坐", " b"]), COLUMNS, st.binary(min_size=1, max_size=9), BLANKS)
def test_tsv_row_is_read_as_the_official_reader_reads_it(tmp_path_factory, text, columns, image, blanks):
    line = "\t".join(filter(None, [text, columns, base64.b64encode(image).decode()])) + blanks
    path = tmp_path_factory.mktemp("tsv") / "a.tsv"
    path.write_text(line + "\n", encoding="utf-8")
    first, *_, last = line.strip().split("\t")  # the official reader: text first, image last
    sample = TsvSource(path)[0]
    assert (sample.caption("zh"), sample.image) == (first, base64.b64decode(last)) == (text.strip(), image)


def test_tsv_image_without_an_id_is_identified_by_its_content(tmp_path):
    (tmp_path / "a.tsv").write_text("x\tAAAA\ny\tAAAA\nz\tAAAB\nz\t\tAAAB\nz\t7\tx\tAAAB\n")
    source = TsvSource(tmp_path / "a.tsv")
    names = [source[row].image_name for row in range(5)]
    assert names[0] == names[1] != names[2] == names[3] and names[4] == "7"
