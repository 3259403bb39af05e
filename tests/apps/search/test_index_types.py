"""Index types: what they find, how they are tuned, and a collection under random changes."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.apps.search import ivf
from ernie_vil2.apps.search.collection import Item
from ernie_vil2.apps.search.index_types import (
    INDEX_TYPES,
    NUM_CANDIDATES,
    Exact,
    build_index_type,
    open_index_type,
    rank,
)
from ernie_vil2.apps.search.local_collection import LocalCollection, _ItemCache, find_candidates
from ernie_vil2.apps.search.milvus import MilvusCollection
from ernie_vil2.registry import UnknownName
from tests.support.limits import limit_examples
from tests.support.processes import read_memory
from tests.support.small_index import draw_unit_rows


def draw_rows_of_low_rank(rng, count, offset=0.0):
    """Return unit vectors in which six of 64 numbers are large, moved by an offset as texts are from images."""
    rows = rng.normal(size=(count, 64)) * np.where(np.arange(64) < 6, 1, 0.05) + offset
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@limit_examples(40)
@given(st.integers(1, 60), st.integers(1, 24), st.integers(1, 80), st.integers(0, 2**32 - 1), st.booleans(),
       st.integers(1, 3))  # fmt: skip
def test_exact_search_ranks_by_the_product(count, width, num_hits, seed, is_filtered, num_threads):
    rng = np.random.default_rng(seed)
    rows, queries = draw_unit_rows(rng, count, width).astype(np.float16), draw_unit_rows(rng, 3, width)
    allowed = rng.random(count) < 0.5 if is_filtered else None
    with pytest.MonkeyPatch.context() as patch:
        # A thread for every row, so that the hits of several threads are merged even here.
        patch.setattr("ernie_vil2.apps.search.index_types.ROWS_PER_THREAD", 1)
        patch.setattr("faiss.omp_get_max_threads", lambda: num_threads)
        candidates = Exact(rows).find_candidates(queries, num_hits, allowed)
    assert candidates.shape == (3, num_hits)
    scores = queries @ rows.T.astype(np.float32)
    if is_filtered:
        scores[:, ~allowed] = -np.inf
    for query_rows, query_scores in zip(candidates, scores, strict=True):
        # Where fewer rows are allowed than hits are requested, -1 fills the rest.
        num_rows = min(num_hits, int(np.isfinite(query_scores).sum()))
        assert len(set(query_rows[:num_rows])) == num_rows and (query_rows[num_rows:] == -1).all()
        best_scores = np.sort(query_scores)[::-1][:num_rows]
        np.testing.assert_allclose(query_scores[query_rows[:num_rows]], best_scores, atol=1e-5)


def test_exact_search_does_not_copy_the_rows(tmp_path):
    count, width = 250_000, 256
    with (tmp_path / "rows.f16").open("wb") as file:
        file.truncate(2 * count * width)  # a hole of 122 MiB, which takes no room on the disk
    rows = np.memmap(tmp_path / "rows.f16", np.float16, "r", shape=(count, width))
    Exact(rows[:1000]).find_candidates(np.ones([1, width], np.float32), 10)  # loads faiss
    initial = read_memory("RssAnon")  # without the pages of files, as those of the rows
    assert Exact(rows).find_candidates(np.ones([1, width], np.float32), 10).shape == (1, 10)
    assert read_memory("RssAnon") - initial < 20  # a copy would take 122 MiB


def test_truncated_index_type_is_named_and_a_missing_one_is_exact(tmp_path):
    rng = np.random.default_rng(0)
    rows = draw_unit_rows(rng, 500).astype(np.float16)
    for _ in range(2):
        build_index_type("ivf", rows, lambda: draw_unit_rows(rng, 30), 0.9, tmp_path, lambda line: None)
    (file,) = tmp_path.glob("*.faiss")  # the second build has removed the file of the first
    assert open_index_type(rows, tmp_path).name == "ivf"
    content = file.read_bytes()
    for damaged in (content[: len(content) // 2], bytes(len(content))):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="build the index again"):
            open_index_type(rows, tmp_path)
    file.unlink()
    assert open_index_type(rows, tmp_path).name == "exact"


@pytest.mark.parametrize(("limit", "expected"), [(40, "exact"), (39, "ivf")])
def test_rows_up_to_the_limit_are_searched_exactly(tmp_path, monkeypatch, limit, expected):
    monkeypatch.setattr("ernie_vil2.apps.search.local_collection.EXACT_UP_TO", limit)
    rows = draw_unit_rows(np.random.default_rng(0), 40, 8)
    collection = LocalCollection(tmp_path, 8, writable=True)
    collection.add([Item(str(number), b"", {}) for number in range(40)], rows)
    collection.build_index_type(None, lambda: rows, 0.9, lambda line: None)
    assert collection._snapshot.index_type.name == expected
    collection.close()


@pytest.mark.parametrize("count", [5, 250])
def test_closest_rows_are_those_of_all_blocks(monkeypatch, count):
    monkeypatch.setattr("ernie_vil2.apps.search.ivf.BLOCK_SIZE", 40)
    rng = np.random.default_rng(0)
    rows, queries = draw_unit_rows(rng, count, 8).astype(np.float16), draw_unit_rows(rng, 3, 8)
    expected = np.full([3, NUM_CANDIDATES], -1)
    order = np.argsort(-(queries @ rows.T.astype(np.float32)), axis=1)[:, :NUM_CANDIDATES]
    expected[:, : order.shape[1]] = order
    np.testing.assert_array_equal(ivf._find_closest(ivf._convert_blocks(rows), queries), expected)


@pytest.mark.parametrize("recall", [0.8, 0.99])
def test_target_recall_is_reached_on_queries_unlike_the_rows(tmp_path, recall):
    rng = np.random.default_rng(0)
    offset = rng.normal(size=64) * 0.1
    rows = draw_rows_of_low_rank(rng, 4000).astype(np.float16)
    tuning_queries, queries = draw_rows_of_low_rank(rng, 300, offset), draw_rows_of_low_rank(rng, 100, offset)
    built = INDEX_TYPES.find("ivf").build(rows, lambda: tuning_queries, recall, tmp_path, lambda line: None)
    index_type = INDEX_TYPES.find("ivf").open(rows, tmp_path, built.facts)
    assert index_type.facts == built.facts and index_type.facts["target_recall"] == recall
    top_rows = rank(rows, queries, index_type.find_candidates(queries, NUM_CANDIDATES), 10)[1]
    expected = np.argsort(-(queries @ rows.T.astype(np.float32)), axis=1, kind="stable")[:, :10]
    recalls = [np.isin(best, hits).mean() for hits, best in zip(top_rows, expected, strict=True)]
    # Margins, because 100 queries give an estimate of the recall.
    assert np.mean(recalls) >= recall - 0.02 and abs(np.mean(recalls) - index_type.facts["recall"]) < 0.05
    assert index_type.facts["directions"] == 16  # a quarter: the other directions distinguish nothing


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_ivf_of_one_row_can_be_opened(tmp_path):
    rows = draw_unit_rows(np.random.default_rng(0), 1)
    build_index_type("ivf", rows.astype(np.float16), lambda: rows, 0.9, tmp_path, lambda line: None)
    index_type = open_index_type(rows.astype(np.float16), tmp_path)
    assert index_type.find_candidates(rows, 1).tolist() == [[0]] and index_type.facts["recall"] == 1


def test_missed_target_recall_is_a_warning(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows, queries = draw_unit_rows(rng, 2000, 16).astype(np.float16), draw_unit_rows(rng, 300, 16)
    for probe_choices, num_warnings in (((1,), 1), ((1, 2000), 0)):
        monkeypatch.setattr("ernie_vil2.apps.search.ivf.Ivf.probe_choices", probe_choices)
        lines = []
        facts = INDEX_TYPES.find("ivf").build(rows, lambda: queries, 0.97, tmp_path, lines.append).facts
        warnings = [line for line in lines if line.startswith("warning: ")]
        assert len(warnings) == num_warnings
        assert (facts["recall"] < 0.97) == (num_warnings == 1)
        assert all(f"{facts['recall']:.4f}" in line and "0.97" in line for line in warnings)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.integers(0, 30), min_size=1, max_size=12)),
        st.tuples(st.just("remove"), st.lists(st.integers(0, 30), min_size=1, max_size=6)),
        st.tuples(st.just("build"), st.sampled_from(["exact", "ivf", None])),
        st.tuples(st.just("open"), st.none()),
    ),
    min_size=1,
    max_size=10,
)


@limit_examples(25)
@given(OPERATIONS, st.integers(0, 2**32 - 1))
def test_any_changes_leave_the_items_of_a_dictionary(operations, seed):
    rng = np.random.default_rng(seed)
    expected: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "images")
        collection = LocalCollection(folder, 8, writable=True)
        for operation, value in operations:
            if operation == "add":
                vectors = draw_unit_rows(rng, len(value), 8)
                collection.add([Item(str(number), b"", {"odd": number % 2 == 1}) for number in value], vectors)
                expected |= {str(number): vector for number, vector in zip(value, vectors, strict=True)}
            elif operation == "remove":
                ids = [str(number) for number in value]
                assert collection.remove(ids) == len(set(ids) & set(expected))
                expected = {key: vector for key, vector in expected.items() if key not in ids}
            elif operation == "build" and expected:
                queries = draw_unit_rows(rng, 30, 8)
                collection.build_index_type(value, lambda queries=queries: queries, 0.95, lambda line: None)
            elif operation == "open":
                collection.close()
                collection = LocalCollection(folder, 8, writable=True)
        (query,) = draw_unit_rows(rng, 1, 8)
        for where, keys in (({}, list(expected)), ({"odd": True}, [key for key in expected if int(key) % 2])):
            (hits,) = collection.search(query[None], 100, where)
            assert {hit.id for hit in hits} == set(keys)
            scores = sorted((expected[key] @ query for key in keys), reverse=True)
            np.testing.assert_allclose([hit.score for hit in hits], scores, atol=2e-3)
        assert len(collection) == len(expected)
        collection.close()


# More than a twentieth of the 400 rows is searched exactly.
@pytest.mark.parametrize(("count", "calls"), [(20, [20]), (21, [])])
def test_index_type_searches_for_up_to_a_twentieth_of_its_rows(count, calls):
    rows = np.random.default_rng(0).normal(size=[400, 4]).astype("float16")
    requested_counts = []

    def record_call(queries, count, allowed):
        requested_counts.append(count)
        return np.zeros([len(queries), count], np.int64)

    index_type = SimpleNamespace(name="ivf", facts={"rows": len(rows)}, find_candidates=record_call)
    snapshot = SimpleNamespace(rows=rows, index_type=index_type, prefix_searches={})
    candidates = find_candidates(snapshot, rows[:2].astype("float32"), count, None, None)
    assert candidates.shape == (2, count) and requested_counts == calls


def test_cache_holds_at_least_the_last_half_of_its_items(monkeypatch):
    monkeypatch.setattr("ernie_vil2.apps.search.local_collection.MAX_CACHED_ITEMS", 12)
    # Items are added two at a time; at the 13th the older half is dropped.
    for count, first in ((10, 0), (14, 6)):
        cache = _ItemCache()
        for row in range(0, count, 2):
            cache.add({row: "hit", row + 1: "hit"})
        assert [row for row in range(count) if cache.get(row)] == list(range(first, count))
    for count, cached in ((6, 6), (7, 0)):  # an answer of more than half is not cached
        cache = _ItemCache()
        cache.add(dict.fromkeys(range(count), "hit"))
        assert sum(cache.get(row) is not None for row in range(count)) == cached


def test_items_with_long_fields_are_not_cached(tmp_path):
    rows = draw_unit_rows(np.random.default_rng(0), 2)
    collection = LocalCollection(tmp_path, rows.shape[1], writable=True)
    collection.add([Item("short", b"", {"n": 0}), Item("long", b"", {"text": "a" * 20_000})], rows)
    for _ in range(2):
        assert {hit.id for hit in collection.search(rows[:1], 2)[0]} == {"short", "long"}
    assert [collection._snapshot.items.get(row) is not None for row in range(2)] == [True, False]
    collection.close()


class ClearedMasks(dict):
    """Masks that another thread clears between any two operations."""

    def __contains__(self, key):
        is_present = super().__contains__(key)
        self.clear()
        return is_present


def test_filter_is_found_while_another_thread_clears_the_masks(tmp_path):
    rows = draw_unit_rows(np.random.default_rng(0), 2)
    collection = LocalCollection(tmp_path, rows.shape[1], writable=True)
    collection.add([Item("a", b"", {"n": 0}), Item("b", b"", {"n": 1})], rows)
    collection._snapshot.filter_masks = ClearedMasks()
    for _ in range(2):
        assert [hit.id for hit in collection.search(rows[:1], 2, {"n": 1})[0]] == ["b"]
    collection.close()


def test_milvus_refuses_an_unknown_index_type():
    # The collection has no client: an index that were dropped before the check would raise AttributeError.
    collection = MilvusCollection.__new__(MilvusCollection)
    with pytest.raises(UnknownName, match="there is no index type in Milvus 'sq8'; .*known: exact, ivf"):
        collection.build_index_type("sq8", lambda: None, 0.9, print)
