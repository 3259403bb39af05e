"""Training on the rows that a curation selected: how often they are drawn, over groups and after a resume."""

import json
import tracemalloc
from collections import Counter
from dataclasses import replace

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ernie_vil2.data.order import SampleOrder, ShardOrder
from ernie_vil2.data.readers import MAX_OPEN_SHARDS, open_sources
from ernie_vil2.data.selection import Selection, WeightedDraws, describe_shards, identify_shards, read_selection
from tests.support.shapes import write_tsv
from tests.support.streams import open_stream, read_names, write_shard


def write_selection(folder, paths, weights):
    """Write the folder that a curation of the shards would write, with weights by text."""
    source = open_sources(list(map(str, paths)))
    (folder / "table").mkdir(parents=True)
    shards, first = [], 0
    identities = identify_shards(source)
    for number, (identity, description) in enumerate(zip(identities, describe_shards(source, identities), strict=True)):
        rows = range(identity.samples)
        weights_of_rows = [float(weights.get(source[first + row].text_name, 0)) for row in rows]
        ids = [first + row + 1000 for row in rows]  # any distinct numbers
        table = pa.table({"row": pa.array(rows, "int32"), "weight": weights_of_rows, "id": pa.array(ids, "uint64")})
        parquet.write_table(table, folder / "table" / f"{number:05}.parquet")
        shards.append(description | {"file": f"{number:05}.parquet"})
        first += identity.samples
    (folder / "curation.json").write_text(json.dumps({"version": 1, "shards": shards}))
    return folder


@pytest.fixture
def three_shards(tmp_path):
    """Write shards a, b and c with the samples 0 to 29."""
    firsts = {"a": 0, "b": 10, "c": 20}
    return [write_shard(tmp_path / f"{name}.tsv", range(first, first + 10)) for name, first in firsts.items()]


def test_selection_applies_to_some_of_its_shards_in_any_folder(tmp_path, three_shards):
    folder = write_selection(tmp_path / "curated", three_shards, {"3": 1, "25": 1, "27": 1})
    (tmp_path / "moved").mkdir()
    a, _, c = three_shards
    a, c = a.rename(tmp_path / "moved" / a.name), c.rename(tmp_path / "moved" / c.name)
    for paths, expected in ((f"[{c}]", ["25", "27"]), (f"[{c}, {a}]", ["25", "27", "3"])):
        stream = open_stream(paths, f"Data.select={folder}")
        assert sorted(name for _, name in read_names(stream, range(len(expected)))) == expected


def test_weight_is_the_probability_of_a_draw_in_an_epoch(tmp_path, three_shards):
    weights = {str(number): [1, 0.5, 0.1, 0][number % 4] for number in range(30)}
    folder = write_selection(tmp_path / "curated", three_shards, weights)
    stream = open_stream(f"[{tmp_path}/*.tsv]", f"Data.select={folder}", "Data.shuffle_buffer=7")
    order, epochs, draws, position = stream._orders[0][0], 200, Counter(), 0
    while order.locate(position)[0] < epochs:
        draws[order.locate(position)[0], stream[position][1].image_name] += 1
        position += 1
    assert set(draws.values()) == {1}  # never twice in an epoch
    num_epochs_drawn = Counter(name for _, name in draws)

    # Each sample is a draw with its weight as probability: 4 standard deviations of its count, and of their sum.
    for name, weight in weights.items():
        deviation = np.sqrt(epochs * weight * (1 - weight))
        assert abs(num_epochs_drawn[name] - epochs * weight) <= 4 * deviation
    expected_size = sum(weights.values())
    deviation = np.sqrt(sum(weight * (1 - weight) for weight in weights.values()) / epochs)
    assert stream.num_samples == round(expected_size)
    assert abs(position / epochs - expected_size) < 4 * deviation


def test_draws_are_the_same_over_groups_and_after_a_resume(tmp_path, three_shards):
    weights = {str(number): 0.3 + 0.7 * (number % 2) for number in range(30)}
    folder = write_selection(tmp_path / "curated", three_shards, weights)
    draws_by_groups = []
    for groups in (1, 2, 3):
        options = [f"Data.select={folder}", f"Data.groups={groups}", "Training.global_batch=6"]
        stream = open_stream(f"[{tmp_path}/*.tsv]", *options)
        numbers = {0: [], 1: []}  # of the samples drawn in an epoch
        for order in stream._orders[0]:
            position = 0
            while (epoch := order.locate(position)[0]) < 2:
                numbers[epoch].append(int(stream._selections[0].numbers[order[position]]))
                position += 1
        draws_by_groups.append([sorted(numbers[0]), sorted(numbers[1])])
        resumed = open_stream(f"[{tmp_path}/*.tsv]", *options)
        assert read_names(resumed, range(50, 60)) == read_names(stream, range(60))[50:]
    assert draws_by_groups[0] == draws_by_groups[1] == draws_by_groups[2]
    assert draws_by_groups[0][0] != draws_by_groups[0][1]


@pytest.mark.parametrize("options", [["Data.select=SELECTED"], ["Data.unit=image"]])
def test_window_of_few_samples_a_shard_opens_few_shards(tmp_path, options):
    for shard in range(300):
        rows = [(f"{shard} {row}", f"image of {shard}", b"-") for row in range(10)]
        write_tsv(tmp_path / f"{shard:03}.tsv", rows)
    paths = sorted(tmp_path.glob("*.tsv"))
    folder = write_selection(tmp_path / "curated", paths, {f"{shard} 3": 1 for shard in range(300)})
    stream = open_stream(f"['{tmp_path}/*.tsv']", *[option.replace("SELECTED", str(folder)) for option in options])
    assert stream.num_samples == 300
    num_shards = [len(stream._orders[0][0].window_shards(0, window)) for window in range(3)]
    assert 40 < max(num_shards) <= MAX_OPEN_SHARDS

    # A run of version 1.0, whose state has no window, keeps its order: one window for all samples.
    state = json.loads(json.dumps(stream.state(7)))
    order = [stream.find_sample(position) for position in range(300)]
    stream.restore_state(state)
    assert [stream.find_sample(position) for position in range(300)] == order
    del state["sources"][0]["window"]
    stream.restore_state(state)
    assert len(stream._orders[0][0].window_shards(0, 0)) == 300
    resumed = open_stream(f"['{tmp_path}/*.tsv']", *[option.replace("SELECTED", str(folder)) for option in options])
    resumed.restore_state(stream.state(7))
    positions = range(300)
    assert list(map(resumed.find_sample, positions)) == list(map(stream.find_sample, positions)) != order


def test_image_is_drawn_as_often_as_the_best_of_its_rows(tmp_path):
    rows = [(f"text {number}", f"image {number // 3}", b"-") for number in range(9)]
    path = write_tsv(tmp_path / "a.tsv", rows)
    folder = write_selection(tmp_path / "curated", [path], {f"text {number}": 1 for number in (0, 1, 5)})
    stream = open_stream(f"[{path}]", f"Data.select={folder}", "Data.unit=image")
    assert stream.num_samples == 2
    # Eight positions are four epochs of two images; the texts 0 and 1 of the same image take turns.
    texts = [stream[position][1].text_name for position in range(8)]
    assert set(texts) == {"text 0", "text 1", "text 5"}
    assert texts.count("text 5") == 4 and texts.count("text 0") == 2


def test_draws_depend_on_seed_epoch_and_id_alone():
    ids, sizes, weights = np.arange(1000, dtype=np.uint64), np.array([400, 600]), np.full(1000, 0.5)
    draws = WeightedDraws(weights, ids, sizes, seed=3)
    is_drawn = draws.are_drawn(7, 0, 1000)
    reversed_draws = WeightedDraws(weights, ids[::-1].copy(), sizes, seed=3)
    assert np.array_equal(is_drawn, reversed_draws.are_drawn(7, 0, 1000)[::-1])
    assert not np.array_equal(is_drawn, draws.are_drawn(8, 0, 1000))
    assert not np.array_equal(is_drawn, WeightedDraws(weights, ids, sizes, seed=4).are_drawn(7, 0, 1000))
    assert draws.shard_sizes(7).tolist() == [len(draws.drawn_rows(7, 0)), len(draws.drawn_rows(7, 1))]
    assert 400 < draws.shard_sizes(7).sum() < 600


def test_weight_above_one_counts_as_one():
    draws = WeightedDraws(np.array([1, 3, 7.5]), np.arange(3, dtype=np.uint64), np.array([3]), seed=0)
    assert draws.mean_size == draws.shard_sizes(0).sum() == 3


def test_digest_tells_all_that_changes_what_is_trained_on():
    captions = pa.chunked_array([pa.array([["cut"]], pa.list_(pa.string()))])
    original = Selection(
        np.arange(3), np.array([3]), np.array([1, 0.5, 1]), np.arange(3, dtype=np.uint64), np.array([1]), captions
    )
    assert replace(original, cut_numbers=np.array([2])).digest != original.digest
    assert replace(original, ids=np.array([0, 9, 2], np.uint64)).digest != original.digest
    assert replace(original, ids=np.array([9, 1, 9], np.uint64)).digest == original.digest


@pytest.mark.parametrize("sizes", [[0, 5, 0, 3, 20, 0, 1, 12, 0], [41], [0, 0, 41]])
def test_draws_are_counted_in_chunks(sizes, monkeypatch):
    monkeypatch.setattr("ernie_vil2.data.selection.CHUNK", 8)
    draws = WeightedDraws(np.full(41, 0.6), np.arange(41, dtype=np.uint64), np.array(sizes), seed=1)
    is_drawn = draws.are_drawn(2, 0, 41)
    ends = np.cumsum(sizes)
    expected = [is_drawn[end - size : end].sum() for size, end in zip(sizes, ends, strict=True)]
    assert draws.shard_sizes(2).tolist() == expected


def test_counting_draws_takes_the_memory_of_a_chunk(monkeypatch):
    monkeypatch.setattr("ernie_vil2.data.selection.CHUNK", 2**10)
    draws = WeightedDraws(np.full(10**6, 0.5), np.arange(10**6, dtype=np.uint64), np.full(100, 10**4), seed=0)
    tracemalloc.start()
    draws.shard_sizes(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**6


def test_resume_counts_each_epoch_once_for_all_groups():
    sizes = np.array([400, 600])
    draws = WeightedDraws(np.full(1000, 0.5), np.arange(1000, dtype=np.uint64), sizes, seed=0)
    shard_order = ShardOrder(sizes, 0, 0, draws)
    epochs = [SampleOrder(shard_order, 100, group, 8).locate(30 * 500 // 8)[0] for group in range(8)]
    assert min(epochs) >= 28 and draws.shard_sizes.cache_info().misses == max(epochs) + 1


def test_epoch_without_a_draw_is_skipped():
    ids, sizes = np.arange(3, dtype=np.uint64), np.array([3])
    draws = WeightedDraws(np.full(3, 0.1), ids, sizes, seed=0)
    order = SampleOrder(ShardOrder(sizes, 0, 0, draws))
    # With three rows of weight 0.1, about three quarters of the epochs are empty.
    rows_of_epochs = []
    for epoch in range(60):
        rows_of_epochs.append({row for row in range(3) if draws.are_drawn(epoch, row, row + 1)})
    assert not rows_of_epochs[0] and rows_of_epochs.count(set()) > 20
    position = 0
    for epoch, rows in enumerate(rows_of_epochs):
        assert {order[position + number] for number in range(len(rows))} == rows
        assert all(order.locate(position + number)[0] == epoch for number in range(len(rows)))
        position += len(rows)


def test_error_names_the_data_that_a_selection_does_not_fit(tmp_path, three_shards):
    folder = write_selection(tmp_path / "curated", three_shards, {})
    uncurated = write_shard(tmp_path / "d.tsv", range(10))
    for data, selection, error in (
        (three_shards[0], tmp_path, "no curation.json"),
        (three_shards[0], folder, "nothing of .*a.tsv was kept"),
        (uncurated, folder, r"not made of d\.tsv"),
        (write_shard(three_shards[1], range(50, 60)), folder, r"not made of b\.tsv"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=error):
            open_stream(f"[{data}]", f"Data.select={selection}")
    (folder / "table" / "00002.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(ValueError, match="00002.parquet"):
        read_selection(folder, open_sources([str(three_shards[2])]))


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (lambda table: table.drop_columns(["weight"]), "weight"),
        (lambda table: table.drop_columns(["row"]), "row"),
        (lambda table: table.drop_columns(["id"]), "id"),
        (lambda table: table.append_column("cut_captions", [["a"] * 10]), "not a part of a curation"),
        (lambda table: table.set_column(1, "weight", [["a"] * 10]), "not a part of a curation"),
        (lambda table: table.sort_by([("weight", "descending")]), "order of the samples"),
        (lambda table: table.set_column(0, "row", [[5] * 10]), "order of the samples"),
    ],
    ids=["no weight", "no row", "no id", "cuts", "texts", "sorted", "repeated"],
)
def test_damaged_table_of_a_selection_is_named(tmp_path, three_shards, change, culprit):
    folder = write_selection(tmp_path / "curated", three_shards, {"3": 1, "7": 1})
    path = folder / "table" / "00000.parquet"
    parquet.write_table(change(parquet.read_table(path)), path)
    with pytest.raises(ValueError, match=rf"00000\.parquet.*{culprit}"):
        read_selection(folder, open_sources(str(three_shards[0])))


def test_selection_of_data_that_are_divided_is_refused(tmp_path):
    path = write_tsv(tmp_path / "a.tsv", [(str(number), str(number), b"%d" % number) for number in range(20)])
    folder = write_selection(tmp_path / "curated", [path], {str(number): 1 for number in range(20)})
    with pytest.raises(ValueError, match=r"Data\.holdout divides"):
        open_stream(f"[{path}]", f"Data.select={folder}", "Data.holdout={val: 0.2}")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"shards": [{"name": "a.tsv"}]},
        {"shards": 7},
        {"shards": [{"name": "", "samples": 0, "content": "", "file": 7}]},
    ],
)
def test_damaged_description_of_a_selection_is_named(tmp_path, three_shards, content):
    folder = write_selection(tmp_path / "curated", three_shards, {"3": 1})
    (folder / "curation.json").write_text(json.dumps({"version": 1, **content}))
    with pytest.raises(ValueError, match=r"curation\.json"):
        read_selection(folder, open_sources(str(three_shards[0])))


def test_run_resumes_with_its_own_selection_only(tmp_path, three_shards):
    first = write_selection(tmp_path / "first", three_shards, {"3": 1, "4": 1})
    second = write_selection(tmp_path / "second", three_shards, {"3": 1, "5": 1})
    stream = open_stream(f"[{tmp_path}/*.tsv]", f"Data.select={first}")
    state = stream.state(1)
    stream.restore_state(state)
    for options in ([f"Data.select={second}"], []):
        with pytest.raises(ValueError, match="selection"):
            open_stream(f"[{tmp_path}/*.tsv]", *options).restore_state(state)


def test_remote_shards_of_one_name_are_told_apart_by_address(tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    for server in ("curated", "moved"):
        for number, name in enumerate("ab"):
            content = write_shard(tmp_path / f"{name}.tsv", range(10 * number, 10 * number + 10)).read_bytes()
            memory.pipe(f"/{server}/{name}/0.tsv", content)
            memory.pipe(f"/{server}/0.tsv", content)
    folder = write_selection(tmp_path / "selection", ["memory://curated/{a,b}/0.tsv"], {"3": 1, "15": 1, "17": 1})

    for server in ("curated", "moved"):
        for names, expected in (("b", ["15", "17"]), ("a", ["3"]), ("{b,a}", ["15", "17", "3"])):
            source = open_sources([f"memory://{server}/{names}/0.tsv"])
            selection = read_selection(folder, source)
            assert [source[number].image_name for number in selection.numbers] == expected
    with pytest.raises(ValueError, match=r"memory://moved/0\.tsv may be any of them"):
        read_selection(folder, open_sources(["memory://moved/0.tsv"]))

    # Version 1.0 told them apart by their order.
    about = json.loads((folder / "curation.json").read_text())
    for shard in about["shards"]:
        del shard["address"]
    (folder / "curation.json").write_text(json.dumps(about))
    assert read_selection(folder, open_sources(["memory://curated/{a,b}/0.tsv"])).numbers.tolist() == [3, 15, 17]


def test_shard_that_was_curated_twice_has_a_table_each(tmp_path):
    path = write_shard(tmp_path / "a.tsv", range(10))
    folder = write_selection(tmp_path / "selection", [path, path], {"3": 1})
    table = parquet.read_table(folder / "table" / "00001.parquet")
    parquet.write_table(table.set_column(1, "weight", [[0.0] * 10]), folder / "table" / "00001.parquet")
    assert read_selection(folder, open_sources([str(path)] * 2)).numbers.tolist() == [3]
