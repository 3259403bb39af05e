"""Index types by themselves: what they find, how they tune, and a collection under any order of changes."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from tests.support.small_index import draw_unit_rows


def in_few_directions(rng, count, width=64, few=6, off=None):
    """Unit vectors that are large in a few directions only; with `off`, as far as texts are from images."""
    rows = rng.normal(size=(count, width)) * np.where(np.arange(width) < few, 1, 0.05)
    rows += 0 if off is None else off
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@limit_examples(40)
@given(st.integers(1, 60), st.integers(1, 24), st.integers(1, 80), st.integers(0, 2**32 - 1), st.booleans(),
       st.integers(1, 3))  # fmt: skip
def test_an_exact_search_is_the_product(count, width, wanted, seed, filtered, threads):
    rng = np.random.default_rng(seed)
    rows, queries = draw_unit_rows(rng, count, width).astype(np.float16), draw_unit_rows(rng, 3, width)
    allowed = rng.random(count) < 0.5 if filtered else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ernie_vil2.apps.search.index_types.ROWS_PER_THREAD", 1)
        patch.setattr("faiss.omp_get_max_threads", lambda: threads)
        found = Exact(rows).find_candidates(queries, wanted, allowed)
    assert found.shape == (3, wanted)
    scores = queries @ rows.T.astype(np.float32)
    if filtered:
        scores[:, ~allowed] = -np.inf
    for line, score in zip(found, scores, strict=True):
        there = min(wanted, int(np.isfinite(score).sum()))
        assert len(set(line[:there])) == there and (line[there:] == -1).all()
        np.testing.assert_allclose(score[line[:there]], np.sort(score)[::-1][:there], atol=1e-5)


def test_an_exact_search_reads_the_rows_where_they_lie(tmp_path):
    def resident():
        (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("RssAnon"))
        return int(line.split()[1]) / 1024

    count, width = 250_000, 256
    with (tmp_path / "rows.f16").open("wb") as file:
        file.truncate(2 * count * width)  # zeros that take no room
    rows = np.memmap(tmp_path / "rows.f16", np.float16, "r", shape=(count, width))
    Exact(rows[:1000]).find_candidates(np.ones([1, width], np.float32), 10)  # faiss is loaded
    before = resident()
    assert Exact(rows).find_candidates(np.ones([1, width], np.float32), 10).shape == (1, 10)
    assert resident() - before < 20  # MiB of 122


def test_an_index_type_that_was_cut_off_is_named(tmp_path):
    rng = np.random.default_rng(0)
    rows = draw_unit_rows(rng, 500).astype(np.float16)
    for _ in range(2):
        build_index_type("ivf", rows, lambda: draw_unit_rows(rng, 30), 0.9, tmp_path, lambda line: None)
    (file,) = tmp_path.glob("*.faiss")  # of the first nothing is left
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


@pytest.mark.parametrize("recall", [0.8, 0.99])
def test_recall_is_reached_on_queries_unlike_the_rows(tmp_path, recall):
    rng = np.random.default_rng(0)
    off = rng.normal(size=64) * 0.1
    rows = in_few_directions(rng, 4000).astype(np.float16)
    tuned, asked = in_few_directions(rng, 300, off=off), in_few_directions(rng, 100, off=off)
    built = INDEX_TYPES.find("ivf").build(rows, lambda: tuned, recall, tmp_path, lambda line: None)
    opened = INDEX_TYPES.find("ivf").open(rows, tmp_path, built.facts)
    assert opened.facts == built.facts and opened.facts["target_recall"] == recall
    found = rank(rows, asked, opened.find_candidates(asked, NUM_CANDIDATES), 10)[1]
    truth = np.argsort(-(asked @ rows.T.astype(np.float32)), axis=1, kind="stable")[:, :10]
    reached = np.mean([np.isin(b, a).mean() for a, b in zip(found, truth, strict=True)])
    assert reached >= recall - 0.02 and abs(reached - opened.facts["recall"]) < 0.05
    assert opened.facts["directions"] == 16  # a quarter: the other directions distinguish nothing


def test_a_recall_that_is_not_reached_is_a_warning(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows, queries = draw_unit_rows(rng, 2000, 16).astype(np.float16), draw_unit_rows(rng, 300, 16)
    for probe_choices, warned in (((1,), True), ((1, 2000), False)):
        monkeypatch.setattr("ernie_vil2.apps.search.ivf.Ivf.probe_choices", probe_choices)
        lines = []
        facts = INDEX_TYPES.find("ivf").build(rows, lambda: queries, 0.97, tmp_path, lines.append).facts
        warnings = [line for line in lines if line.startswith("warning: ")]
        assert (facts["recall"] < 0.97) == warned == len(warnings)
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
def test_any_changes_leave_what_a_dictionary_holds(operations, seed):
    rng = np.random.default_rng(seed)
    expected: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "images")
        collection = LocalCollection(folder, 8, writable=True)
        for operation, value in operations:
            if operation == "add":
                vectors = draw_unit_rows(rng, len(value), 8)
                collection.add([Item(str(one), b"", {"odd": one % 2 == 1}) for one in value], vectors)
                expected |= {str(one): vector for one, vector in zip(value, vectors, strict=True)}
            elif operation == "remove":
                assert collection.remove([str(one) for one in value]) == len(
                    {str(one) for one in value} & set(expected)
                )
                expected = {key: vector for key, vector in expected.items() if key not in map(str, value)}
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
            np.testing.assert_allclose(
                [hit.score for hit in hits], sorted((expected[key] @ query for key in keys), reverse=True), atol=2e-3
            )
        assert len(collection) == len(expected)
        collection.close()


@pytest.mark.parametrize(("count", "asked"), [(20, True), (21, False)])
def test_index_type_is_asked_for_a_twentieth_of_its_rows(count, asked):
    rows = np.random.default_rng(0).normal(size=[400, 4]).astype("float16")
    calls = []

    def candidates(queries, count, allowed):
        calls.append(count)
        return np.zeros([len(queries), count], np.int64)

    kind = SimpleNamespace(name="ivf", facts={"rows": len(rows)}, find_candidates=candidates)
    snapshot = SimpleNamespace(rows=rows, index_type=kind, prefix_searches={})
    found = find_candidates(snapshot, rows[:2].astype("float32"), count, None, None)
    assert found.shape == (2, count) and calls == [count] * asked


def test_at_least_the_last_half_of_the_items_is_cached(monkeypatch):
    monkeypatch.setattr("ernie_vil2.apps.search.local_collection.MAX_CACHED_ITEMS", 12)
    for count, first in ((10, 0), (14, 6)):
        cache = _ItemCache()
        for row in range(0, count, 2):
            cache.add({row: "hit", row + 1: "hit"})
        assert [row for row in range(count) if cache.get(row)] == list(range(first, count))
    for count, cached in ((6, 6), (7, 0)):  # an answer of more than half is not cached
        cache = _ItemCache()
        cache.add(dict.fromkeys(range(count), "hit"))
        assert sum(cache.get(row) is not None for row in range(count)) == cached


def test_milvus_keeps_its_index_where_another_cannot_be_built():
    collection = MilvusCollection.__new__(MilvusCollection)  # without a client, which would be an AttributeError
    with pytest.raises(UnknownName, match="there is no index type in Milvus 'sq8'; .*known: exact, ivf"):
        collection.build_index_type("sq8", lambda: None, 0.9, print)
