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


def tar(tmp_path, *members):
    return TarSource(write_tar(tmp_path / "a.tar", members))


def test_members_of_one_name_up_to_a_dot_are_one_sample(tmp_path):
    fields = {"caption_zh": "红", "caption_en": "red", "tags_en": ["a", " ", "b"], "kind": "object"}
    source = tar(tmp_path, ("d/1.png", IMAGE), ("d/1.json", json.dumps(fields).encode()), ("d/2.x.txt", b"two"))
    assert len(source) == 2
    sample = source[0]
    assert (sample.image_name, sample.image, sample.caption("zh"), sample.caption("en")) == ("d/1", IMAGE, "红", "red")
    assert sample.tag_list("en") == ("a", "b") and sample.tag_list("zh") == ()
    assert sample.fields["kind"] == "object"
    with pytest.raises(BadSample, match="d/2: no image member"):
        source[1]


def test_the_text_is_named_by_the_field_that_is_asked_for(tmp_path):
    members = [("1.png", IMAGE), ("1.json", b'{"id": 7, "caption": "x"}')]
    path = write_tar(tmp_path / "a.tar", members)
    assert TarSource(path, "id")[0].text_name == "7"
    assert TarSource(path)[0].text_name == "x"
    with pytest.raises(BadSample, match="1, concept: missing field"):
        TarSource(path, "concept")[0]


def test_samples_that_share_an_image_name_it(tmp_path):
    members = [(f"{row}.{kind}", data) for row in (1, 2) for kind, data in
               (("png", IMAGE), ("json", b'{"image_id": "i", "caption": "x"}'))]  # fmt: skip
    assert [tar(tmp_path, *members)[row].image_name for row in (0, 1)] == ["i", "i"]


def test_an_empty_caption_is_bad_when_it_is_asked_for(tmp_path):
    sample = tar(tmp_path, ("1.png", IMAGE), ("1.json", b'{"caption_zh": " ", "caption_en": "x"}'))[0]
    assert sample.caption("en") == "x"
    with pytest.raises(BadSample, match="1: empty caption"):
        sample.caption("zh")


def test_members_of_a_sample_need_not_be_adjacent(tmp_path):
    source = tar(tmp_path, ("1.png", IMAGE), ("2.png", IMAGE), ("2.txt", b"two"), ("1.txt", b"one"))
    assert [(sample.caption("zh"), sample.caption("en")) for sample in read_all(source)] == [("one",) * 2, ("two",) * 2]


def test_a_cut_shard_keeps_samples_before_it_and_is_reported(tmp_path):
    members = [(f"{i}.{kind}", content) for i in range(3) for kind, content in (("png", IMAGE), ("txt", b"x"))]
    whole = write_tar(tmp_path / "whole.tar", members).read_bytes()
    sample = 1024 + -(-len(IMAGE) // 512) * 512 + 512  # two headers, and the data in blocks
    # From here on the end mark is there; what tar adds behind it only fills up.
    for size in [*range(600, 3 * sample + 511, 768), 3 * sample + 511]:
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        samples = read_all(TarSource(tmp_path / "cut.tar"))
        bad = [sample.rpartition(": ")[2] for sample in samples if isinstance(sample, str)]
        assert len(samples) - len(bad) >= size // sample and bad.count("cut shard") == 1


def test_a_bad_tsv_row_is_reported_by_reason_and_line(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"x\ty\tAAAA\n" + b"a\n" + b"a\tb\tabc\n" + b"a\t\xff\tAAAA\n")
    first, *others = read_all(TsvSource(path))
    assert first.image == b"\0\0\0"
    assert others == ["a.tsv:2: malformed row", "a.tsv:3: malformed base64", "a.tsv:4: not UTF-8"]


blanks = st.text(" \t", max_size=3)
columns = st.lists(st.sampled_from(["", " ", "7", "猫 坐", "AAAA", "x y"]), max_size=3).map("\t".join)


@limit_examples(60)
@given(st.sampled_from(["a", "猫 坐", " b"]), columns, st.binary(min_size=1, max_size=9), blanks)
def test_tsv_rows_are_read_as_the_official_reader_reads_them(tmp_path_factory, text, between, image, behind):
    """`line.strip().split("\t")`, of which the first column is the text and the last one the image."""
    line = "\t".join(filter(None, [text, between, base64.b64encode(image).decode()])) + behind
    path = tmp_path_factory.mktemp("tsv") / "a.tsv"
    path.write_text(line + "\n", encoding="utf-8")
    first, *_, last = line.strip().split("\t")
    sample = TsvSource(path)[0]
    assert (sample.caption("zh"), sample.image) == (first, base64.b64decode(last)) == (text.strip(), image)


def test_an_image_of_a_tsv_without_id_is_known_by_its_content(tmp_path):
    (tmp_path / "a.tsv").write_text("x\tAAAA\ny\tAAAA\nz\tAAAB\nz\t\tAAAB\nz\t7\tx\tAAAB\n")
    source = TsvSource(tmp_path / "a.tsv")
    first, second, *others, named = [source[row].image_name for row in range(5)]
    assert first == second != others[0] == others[1] and named == "7"
