"""Epochs over images: an image is drawn once an epoch, with one of its texts in turn."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.data.order import RowsByImage
from ernie_vil2.data.samples import BadSample
from tests.support.limits import limit_examples
from tests.support.published_files import CLIP_FILES, TRAIN_SPLITS, json_lines, make_clip_text, write_files
from tests.support.shapes import write_tar
from tests.support.streams import open_stream, read_names

SHARDS = st.lists(st.lists(st.sampled_from([None, *"abc"]), min_size=1, max_size=12), min_size=1, max_size=4)


@limit_examples(40)
@given(SHARDS, st.integers(0, 2**31 - 1))
def test_all_rows_of_an_image_are_read_in_turn(names_of_shards, seed):
    units = RowsByImage(names_of_shards, seed)
    # A row without a name is an image of its own.
    assert units.shard_sizes == [len({*names} - {None}) + names.count(None) for names in names_of_shards]
    rows = []
    for shard, names in enumerate(names_of_shards):
        rows += [(shard, name) for name in names]
    all_rows_read = set()
    for unit in range(len(units)):
        first = units.row(unit, 0)
        rows_of_image = {first}
        if rows[first][1] is not None:
            rows_of_image = {row for row, key in enumerate(rows) if key == rows[first]}
        for turn in range(2):
            epochs = range(turn * len(rows_of_image), (turn + 1) * len(rows_of_image))
            assert {units.row(unit, epoch) for epoch in epochs} == rows_of_image
        all_rows_read |= rows_of_image
    assert all_rows_read == set(range(len(rows)))


def test_seeds_and_sources_differ_in_the_order_of_texts():
    def read_epochs(*key):
        units = RowsByImage([["a"] * 12], *key)
        return tuple(units.row(0, epoch) for epoch in range(12))

    assert len({read_epochs(0, 0), read_epochs(1, 0), read_epochs(0, 1)}) == 3
    assert read_epochs(0) == read_epochs(0, 0)  # source 0 is the default


@pytest.mark.parametrize("layout", ["coco-captions", "chinese-clip"])
def test_image_of_a_benchmark_is_drawn_once_in_an_epoch(tmp_path, layout):
    files, rows = TRAIN_SPLITS[layout]
    images = sorted({name for name, _, _ in rows})
    units = open_stream(f"[{write_files(tmp_path, files)}]", "Data.unit=image")
    assert units.num_samples == len(images) and units.epochs(2 * len(images)) == [2.0]
    texts = set()
    for epoch in range(4):
        samples = [units[epoch * len(images) + number][1] for number in range(len(images))]
        assert sorted(sample.image_name for sample in samples) == images
        texts.update(sample.caption("zh") for sample in samples)
    assert texts == {text for _, text, _ in rows}


def test_pair_without_its_image_is_a_unit_that_is_counted(tmp_path):
    texts = CLIP_FILES["train_texts.jsonl"] + json_lines(make_clip_text(9, "x", 77))
    write_files(tmp_path, CLIP_FILES | {"train_texts.jsonl": texts})
    units = open_stream(f"[{tmp_path}]", "Data.unit=image")
    assert units.num_samples == 3
    with pytest.raises(BadSample, match="unmatched image id"):
        read_names(units, range(3))


def test_rows_of_tables_and_shards_are_grouped_by_image(tmp_path):
    rows = [{"image": f"{image}.jpg", "text": f"{image}{number}"} for image in "ab" for number in range(3)]
    members = []
    for number, row in enumerate(rows):
        fields = {"caption": row["text"], "image_id": row["image"]}
        members += [(f"{number}.jpg", row["image"].encode()), (f"{number}.json", json.dumps(fields).encode())]
    shard = write_tar(tmp_path / "a.tar", members)
    table = write_files(tmp_path / "table", {"train.jsonl": json_lines(*rows), "a.jpg": b"a", "b.jpg": b"b"})
    for data in (table, shard):
        units = open_stream(f"[{data}]", "Data.unit=image")
        assert sorted(read_names(units, range(2))) == [(0, "a.jpg"), (0, "b.jpg")]
    assert open_stream(f"[{shard}]").num_samples == 6
