"""Training on what a curation has selected: who is drawn, in which epoch, over groups and after a resume."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ernie_vil2.data.order import SampleOrder, ShardOrder
from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.selection import WeightedDraws, identify_shards, read_selection
from tests.support.shapes import write_tsv
from tests.support.streams import open_stream, read_names, write_shard


def write_selection(folder, paths, weights):
    """Write what a curation of the shards would write, with these weights by text."""
    source = open_sources(list(map(str, paths)))
    (folder / "table").mkdir(parents=True)
    shards, first = [], 0
    for number, identity in enumerate(identify_shards(source)):
        rows = range(identity.samples)
        own = [float(weights.get(source[first + row].text_name, 0)) for row in rows]
        ids = [first + row + 1000 for row in rows]
        table = pa.table({"row": pa.array(rows, "int32"), "weight": own, "id": pa.array(ids, "uint64")})
        parquet.write_table(table, folder / "table" / f"{number:05}.parquet")
        shards.append(identity._asdict() | {"file": f"{number:05}.parquet"})
        first += identity.samples
    (folder / "curation.json").write_text(json.dumps({"version": 1, "shards": shards}))
    return folder


@pytest.fixture
def three(tmp_path):
    firsts = {"a": 0, "b": 10, "c": 20}
    return [write_shard(tmp_path / f"{name}.tsv", range(first, first + 10)) for name, first in firsts.items()]


def test_part_of_the_data_takes_its_part_of_the_table(tmp_path, three):
    folder = write_selection(tmp_path / "curated", three, {"3": 1, "25": 1, "27": 1})
    (tmp_path / "other").mkdir()
    c, a = (path.rename(tmp_path / "other" / path.name) for path in (three[2], three[0]))
    for paths, expected in ((f"[{c}]", ["25", "27"]), (f"[{c}, {a}]", ["25", "27", "3"])):
        chosen = open_stream(paths, f"Data.select={folder}")
        assert sorted(name for _, name in read_names(chosen, range(len(expected)))) == expected


def test_a_weight_is_the_probability_of_being_drawn_in_an_epoch(tmp_path, three):
    weights = {str(number): [1, 0.5, 0.1, 0][number % 4] for number in range(30)}
    folder = write_selection(tmp_path / "curated", three, weights)
    chosen = open_stream(f"[{tmp_path}/*.tsv]", f"Data.select={folder}", "Data.shuffle_buffer=7")
    order, epochs, counts, position = chosen._orders[0][0], 200, Counter(), 0
    while order.window(position)[0] < epochs:
        counts[order.window(position)[0], chosen[position][1].image_name] += 1
        position += 1
    assert set(counts.values()) == {1}
    often = Counter(name for _, name in counts)
    for name, weight in weights.items():
        deviation = np.sqrt(epochs * weight * (1 - weight))
        assert abs(often[name] - epochs * weight) <= 4 * deviation
    expected = sum(weights.values())
    assert chosen.num_samples == round(expected)
    assert abs(position / epochs - expected) < 4 * np.sqrt(sum(w * (1 - w) for w in weights.values()) / epochs)


def test_draws_are_the_same_over_groups_and_after_a_resume(tmp_path, three):
    weights = {str(number): 0.3 + 0.7 * (number % 2) for number in range(30)}
    folder = write_selection(tmp_path / "curated", three, weights)
    drawn = []
    for groups in (1, 2, 3):
        options = [f"Data.select={folder}", f"Data.groups={groups}", "Training.global_batch=6"]
        chosen = open_stream(f"[{tmp_path}/*.tsv]", *options)
        numbers = {0: [], 1: []}
        for order in chosen._orders[0]:
            position = 0
            while (epoch := order.window(position)[0]) < 2:
                numbers[epoch].append(int(chosen._selections[0].numbers[order[position]]))
                position += 1
        drawn.append([sorted(numbers[0]), sorted(numbers[1])])
        resumed = open_stream(f"[{tmp_path}/*.tsv]", *options)
        assert read_names(resumed, range(50, 60)) == read_names(chosen, range(60))[50:]
    assert drawn[0] == drawn[1] == drawn[2] and drawn[0][0] != drawn[0][1]


def test_an_image_comes_as_often_as_the_best_of_its_rows(tmp_path):
    rows = [(f"text {number}", f"image {number // 3}", b"-") for number in range(9)]
    path = write_tsv(tmp_path / "a.tsv", rows)
    folder = write_selection(tmp_path / "curated", [path], {f"text {number}": 1 for number in (0, 1, 5)})
    chosen = open_stream(f"[{path}]", f"Data.select={folder}", "Data.unit=image")
    assert chosen.num_samples == 2
    texts = [chosen[position][1].text_name for position in range(8)]
    assert set(texts) == {"text 0", "text 1", "text 5"}
    assert texts.count("text 5") == 4 and texts.count("text 0") == 2


def test_draws_follow_from_seed_epoch_and_id_alone():
    ids, sizes, weights = np.arange(1000, dtype=np.uint64), np.array([400, 600]), np.full(1000, 0.5)
    draws = WeightedDraws(weights, ids, sizes, seed=3)
    drawn = draws.are_drawn(7, 0, 1000)
    assert np.array_equal(drawn, WeightedDraws(weights, ids[::-1].copy(), sizes, seed=3).are_drawn(7, 0, 1000)[::-1])
    assert not np.array_equal(drawn, draws.are_drawn(8, 0, 1000))
    assert not np.array_equal(drawn, WeightedDraws(weights, ids, sizes, seed=4).are_drawn(7, 0, 1000))
    assert draws.sizes(7).tolist() == [len(draws.rows(7, 0)), len(draws.rows(7, 1))]
    assert 400 < draws.sizes(7).sum() < 600


def test_an_epoch_for_which_nothing_is_drawn_is_passed():
    """Three samples that are each drawn in one of ten epochs, counted by hand, epoch after epoch."""
    ids, sizes = np.arange(3, dtype=np.uint64), np.array([3])
    draws = WeightedDraws(np.full(3, 0.1), ids, sizes, seed=0)
    order = SampleOrder(ShardOrder(sizes, 0, 0, draws))
    expected = [(epoch, {row for row in range(3) if draws.are_drawn(epoch, row, row + 1)}) for epoch in range(60)]
    assert not expected[0][1] and sum(not rows for _, rows in expected) > 20
    position = 0
    for epoch, rows in expected:
        assert {order[position + number] for number in range(len(rows))} == rows
        assert all(order.window(position + number)[0] == epoch for number in range(len(rows)))
        position += len(rows)


def test_what_cannot_be_a_selection_is_named(tmp_path, three):
    folder = write_selection(tmp_path / "curated", three, {})
    other = write_shard(tmp_path / "d.tsv", range(10))
    for data, selection, error in (
        (three[0], tmp_path, "no curation.json"),
        (three[0], folder, "nothing of .*a.tsv was kept"),
        (other, folder, r"not made of d\.tsv"),
        (write_shard(three[1], range(50, 60)), folder, r"not made of b\.tsv"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=error):
            open_stream(f"[{data}]", f"Data.select={selection}")
    (folder / "table" / "00002.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(ValueError, match="00002.parquet"):
        read_selection(folder, open_sources([str(three[2])]))


def test_a_run_goes_on_with_its_own_selection_alone(tmp_path, three):
    first = write_selection(tmp_path / "first", three, {"3": 1, "4": 1})
    second = write_selection(tmp_path / "second", three, {"3": 1, "5": 1})
    begun = open_stream(f"[{tmp_path}/*.tsv]", f"Data.select={first}")
    state = begun.state(1)
    begun.check_state(state)
    for options in ([f"Data.select={second}"], []):
        with pytest.raises(ValueError, match="selection"):
            open_stream(f"[{tmp_path}/*.tsv]", *options).check_state(state)
