import json

import numpy as np
import pytest

from ernie_vil2.data.readers import TarSource
from ernie_vil2.data.samples import BadSample
from tests.support.published_files import read_all
from tests.support.shapes import draw, png, write_tar

IMAGE = png(draw((200, 30, 30), "disc", np.random.default_rng(0)))


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
