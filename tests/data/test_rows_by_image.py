"""Images as the units of an epoch: each once, its texts in turn."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.config import load_config
from ernie_vil2.data.order import RowsByImage
from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.stream import SampleStream
from tests.support.limits import examples
from tests.support.published_files import CLIP_FILES, TRAIN_SPLITS, clip_text, json_lines, write
from tests.support.shapes import write_tar

shards = st.lists(st.lists(st.sampled_from([None, *"abc"]), min_size=1, max_size=12), min_size=1, max_size=4)


@examples(40)
@given(shards, st.integers(0, 2**31 - 1))
def test_rows_of_a_unit_are_those_of_its_image_in_turn(named, seed):
    units = RowsByImage(named, seed)
    rows = [(shard, name) for shard, names in enumerate(named) for name in names]
    assert units.shard_sizes == [len({*names} - {None}) + names.count(None) for names in named]
    seen = set()
    for unit in range(len(units)):
        first = units.row(unit, 0)
        shard, name = rows[first]
        own = {row for row, value in enumerate(rows) if value == (shard, name)} if name else {first}
        for turn in range(2):
            epochs = range(turn * len(own), (turn + 1) * len(own))
            assert {units.row(unit, epoch) for epoch in epochs} == own
        seen |= own
    assert seen == set(range(len(rows)))


def test_seeds_and_sources_have_turns_of_their_own():
    def turns(*key):
        units = RowsByImage([["a"] * 12], *key)
        return tuple(units.row(0, epoch) for epoch in range(12))

    assert len({turns(0, 0), turns(1, 0), turns(0, 1)}) == 3
    assert turns(0) == turns(0, 0)  # the first source


def stream(folder, *overrides):
    return SampleStream(load_config(None, [f"Data.train=['{folder}']", "Views.languages={zh: 1.0}", *overrides]))


def names(stream, positions):
    return [stream[position][1].image_name for position in positions]


@pytest.mark.parametrize("layout", ["coco-captions", "chinese-clip"])
def test_each_image_of_a_benchmark_is_once_in_an_epoch(tmp_path, layout):
    files, expected = TRAIN_SPLITS[layout]
    write(tmp_path, files)
    images = sorted({name for name, _, _ in expected})
    found = stream(tmp_path, "Data.unit=image")
    assert found.samples == len(images)
    texts = Counter()
    for epoch in range(4):
        positions = range(epoch * len(images), (epoch + 1) * len(images))
        assert sorted(names(found, positions)) == images
        texts.update(found[position][1].caption("zh") for position in positions)
    assert texts.keys() == {text for _, text, _ in expected}
    assert found.epochs(2 * len(images)) == [2.0]


def test_a_pair_without_its_image_is_a_unit_that_is_counted(tmp_path):
    texts = CLIP_FILES["train_texts.jsonl"] + json_lines(clip_text(9, "x", 77))
    write(tmp_path, CLIP_FILES | {"train_texts.jsonl": texts})
    units = stream(tmp_path, "Data.unit=image")
    assert units.samples == 3
    with pytest.raises(BadSample, match="unmatched image id"):
        names(units, range(3))


def test_tables_and_shards_of_ones_own(tmp_path):
    rows = [{"image": f"{image}.jpg", "text": f"{image}{number}"} for image in "ab" for number in range(3)]
    members = []
    for number, row in enumerate(rows):
        fields = {"caption": row["text"], "image_id": row["image"]}
        members += [(f"{number}.jpg", row["image"].encode()), (f"{number}.json", json.dumps(fields).encode())]
    shard = write_tar(tmp_path / "a.tar", members)
    table = write(tmp_path / "table", {"train.jsonl": json_lines(*rows), "a.jpg": b"a", "b.jpg": b"b"})
    for data in (table, shard):
        assert sorted(names(stream(data, "Data.unit=image"), range(2))) == ["a.jpg", "b.jpg"]
    assert stream(shard).samples == 6
