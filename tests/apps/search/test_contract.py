"""Tests that every index type and store must pass, embedded ones and Milvus alike, against a product in NumPy."""

import shutil
from contextlib import closing
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

from ernie_vil2.apps.search.collection import Item
from ernie_vil2.apps.search.local_collection import LocalCollection
from tests.support.small_index import WIDTH, draw_unit_rows

ROWS = 2000
# milvus-lite starts threads of gRPC, which abort processes that later tests fork. So it has a separate run: -m slow.
INDEX_TYPES = ("exact", "ivf", pytest.param("milvus", marks=pytest.mark.slow))


class Storage:
    """A collection that can be closed and opened again, for writing or for reading."""

    def __init__(self, index_type, folder):
        self.index_type, self.folder, self._stores = index_type, folder, []

    def open(self, writable=False):
        if self.index_type == "milvus":
            from ernie_vil2.apps.search.milvus import MilvusStore

            store = MilvusStore(str(self.folder / "index.db"), True)
            if not store.metadata:
                metadata = {"version": 1, "model": "none", "fingerprint": "0", "width": WIDTH}
                store.write_metadata(metadata | {"image_fingerprint": "0", "root": "/"})
            collection = store.collection("images")
            self._stores.append(store)
        else:
            collection = LocalCollection(self.folder / "images", WIDTH, writable)
        self._stores.append(collection)
        return collection

    def build(self, collection, queries, recall=0.95):
        index_type = None if self.index_type == "milvus" else self.index_type
        collection.build_index_type(index_type, lambda: queries, recall, lambda line: None)

    def close(self):
        for store in reversed(self._stores):
            store.close()
        self._stores.clear()


@pytest.fixture(scope="module", params=INDEX_TYPES)
def index_type(request):
    if request.param == "milvus":
        pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    return request.param


@pytest.fixture
def storage(index_type, tmp_path, monkeypatch):
    # Filters that admit up to this many rows are searched exactly. With the usual limit, that would be all filters of
    # these tests, and no index type would filter.
    monkeypatch.setattr("ernie_vil2.apps.search.local_collection.EXACT_UP_TO", 600)
    storage = Storage(index_type, tmp_path)
    yield storage
    storage.close()


def make_item(number):
    fields = {
        "caption_en": f"text {number}",
        "third": number % 3,
        "even": number % 2 == 0,
        "name": f'"{number}" \\ 的',
        "price": number / 2 if number % 5 else "free",
        "date": f"20{number % 90 + 10}-0{number % 9 + 1}-15 {number}",
    }
    return Item(f"{number}", f"content {number}".encode(), fields, [["source", str(number), number]])


def rank_ids(rows, queries, count, allowed=None):
    """Return for each query the ids of the rows with the largest products, best first."""
    scores = queries @ rows.T
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    best_rows = np.argsort(-scores, axis=1)[:, :count]
    return [list(map(str, query_rows)) for query_rows in best_rows.tolist()]


def hit_ids(hits):
    return [hit.id for hit in hits]


def measure_recall(hits, expected):
    """Return the mean share of the expected ids of a query that are among its hits."""
    shares = []
    for query_hits, expected_ids in zip(hits, expected, strict=True):
        shares.append(len(set(hit_ids(query_hits)) & set(expected_ids)) / len(expected_ids))
    return np.mean(shares)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def rows():
    return draw_unit_rows(np.random.default_rng(1), ROWS)


@pytest.fixture(scope="module")
def filled_folder(index_type, rows, tmp_path_factory):
    """Return the folder of a collection of all rows, with its index type built."""
    storage = Storage(index_type, tmp_path_factory.mktemp("filled"))
    collection = storage.open(writable=True)
    for start in range(0, ROWS, 1000):
        collection.add([make_item(number) for number in range(start, start + 1000)], rows[start : start + 1000])
    storage.build(collection, draw_unit_rows(np.random.default_rng(2), 200))
    storage.close()
    return storage.folder


@pytest.fixture
def collection(filled_folder, storage):
    shutil.copytree(filled_folder, storage.folder, dirs_exist_ok=True)
    return storage.open(writable=True)


def test_closest_items_are_found_in_order(collection, rows, rng):
    queries = draw_unit_rows(rng, 40)
    hits = collection.search(queries, 10)
    assert measure_recall(hits, rank_ids(rows, queries, 10)) > 0.9
    for query_hits, query in zip(hits, queries, strict=True):
        scores = [hit.score for hit in query_hits]
        assert scores == sorted(scores, reverse=True)
        # Rows are stored in 16 bits.
        np.testing.assert_allclose(scores, [rows[int(hit.id)] @ query for hit in query_hits], atol=2e-3)
        assert query_hits[0].fields["caption_en"] == f"text {query_hits[0].id}"
    # The first hit does not depend on the count, and a count above the number of items gives all of them.
    first_of_100 = [query_hits[0].id for query_hits in collection.search(queries, 100)]
    assert first_of_100 == [query_hits[0].id for query_hits in collection.search(queries, 1)]
    (all_hits,) = collection.search(queries[:1], ROWS + 50)
    assert len(all_hits) == ROWS and len({hit.id for hit in all_hits}) == ROWS


NUMBERS = np.arange(ROWS)
PRICED, YEARS = NUMBERS % 5 != 0, NUMBERS % 90 + 2010


@pytest.mark.parametrize("cases", [
    [({"third": 1}, NUMBERS % 3 == 1),
     ({"third": [0, 2], "even": True}, (NUMBERS % 3 != 1) & (NUMBERS % 2 == 0)),
     ({"name": '"7" \\ 的'}, NUMBERS == 7),
     ({"third": ["1", 1]}, NUMBERS % 3 == 1),
     ({"third": 5}, NUMBERS < 0),
     ({"third": []}, NUMBERS < 0),
     ({"unknown": 5}, NUMBERS < 0)],
    [({"price": {"<": 100}}, PRICED & (NUMBERS / 2 < 100)),
     ({"price": {">=": 10.5, "<=": 50}}, PRICED & (NUMBERS / 2 >= 10.5) & (NUMBERS / 2 <= 50)),
     ({"third": {">": 1}, "even": True}, (NUMBERS % 3 > 1) & (NUMBERS % 2 == 0)),
     ({"date": {">=": "2050-01-01"}}, YEARS >= 2050),
     ({"date": {">": "2015-06-01", "<": "2016-01-01"}}, (YEARS == 2015) & (NUMBERS % 9 + 1 >= 6)),
     ({"price": {">": "2000-01-01"}}, NUMBERS < 0),
     ({"name": {">": "2000-01-01"}}, NUMBERS < 0),
     ({"name": {">": 0}}, NUMBERS < 0)],
], ids=["values", "bounds"])  # fmt: skip
def test_filters_admit_only_matching_items(collection, rows, rng, cases):
    queries = draw_unit_rows(rng, 10)
    for where, allowed in cases:
        hits = collection.search(queries, 10, where)
        count = min(10, int(allowed.sum()))
        allowed_ids = set(map(str, np.flatnonzero(allowed).tolist()))
        for query_hits in hits:
            assert set(hit_ids(query_hits)) <= allowed_ids, where
            assert len(query_hits) == count, where
        assert not count or measure_recall(hits, rank_ids(rows, queries, count, allowed)) > 0.9


def test_items_change_without_a_new_build(collection, rows, rng):
    new, replacement = draw_unit_rows(rng, 2)
    collection.add([Item("new", b"n", {"caption_en": "new"})], new[None])
    collection.add([Item("5", b"other", {"caption_en": "another five"})], replacement[None])
    assert collection.remove(["6", "7", "not there"]) == 2
    assert len(collection) == ROWS + 1 - 2
    assert [hit_ids(hits) for hits in collection.search(new[None], 1)] == [["new"]]
    hit = collection.search(replacement[None], 1)[0][0]
    assert (hit.id, hit.fields["caption_en"]) == ("5", "another five")
    # The vectors of the replaced item and of the two removed ones are no longer found.
    for hits in collection.search(rows[[5, 6, 7]], 3):
        assert not {"6", "7"} & set(hit_ids(hits))
        assert all(hit.score < 0.999 for hit in hits)


def test_committed_items_are_read_after_reopening(storage, collection, rows, rng):
    queries = draw_unit_rows(rng, 5)
    expected = [hit_ids(hits) for hits in collection.search(queries, 10)]
    storage.close()
    reader = storage.open()
    assert len(reader) == ROWS and [hit_ids(hits) for hits in reader.search(queries, 10)] == expected
    assert reader.get("17").location == [["source", "17", 17]] and reader.get("x") is None
    np.testing.assert_allclose(reader.get_embedding("17"), rows[17], atol=1e-3)
    assert reader.get_embedding("x") is None
    assert reader.get_digests(["17", "x"]) == {"17": b"content 17"}


def test_invalid_embeddings_are_refused(storage, rng):
    empty = storage.open(writable=True)
    for embeddings, fault in ((np.zeros([2, WIDTH]), "1 items"), (np.full([1, WIDTH], np.nan), "not finite"),
                              (np.full([1, WIDTH], 0.5), "unit length")):  # fmt: skip
        with pytest.raises(ValueError, match=fault):
            empty.add([make_item(1)], embeddings)
    assert len(empty) == 0 and empty.search(draw_unit_rows(rng, 2), 5) == [[], []]


def test_changes_without_items_are_none(storage, rows):
    collection = storage.open(writable=True)
    for _ in range(2):
        collection.add([], np.empty([0, WIDTH], np.float32))
        collection.update([])
        assert collection.remove([]) == 0
    collection.add([make_item(0)], rows[:1])
    assert len(collection) == 1


def test_fields_with_few_values_are_counted_and_others_have_bounds(collection):
    summary = collection.summarize_fields()
    facets = {name: sorted(map(tuple, values)) for name, values in summary.facets.items()}
    thirds = [(value, int((value == NUMBERS % 3).sum())) for value in range(3)]
    assert facets == {"third": thirds, "even": [(False, ROWS // 2), (True, ROWS // 2)]}
    prices = NUMBERS[NUMBERS % 5 > 0] / 2
    assert {name: tuple(bounds) for name, bounds in summary.ranges.items()} == {"price": (prices.min(), prices.max())}
    assert len(collection.sample_captions(20)) == 20 and collection.sample_embeddings(7).shape[1] == WIDTH


def test_update_changes_only_fields_and_locations(collection, rows, rng):
    item = make_item(5)
    fields, location = {"title": "五"}, [["\udcd0.png", "5"]]
    collection.update([replace(item, fields=fields, location=location), replace(item, id="not there")])
    assert len(collection) == ROWS and collection.get("not there") is None
    updated = collection.get("5")
    assert (updated.fields, list(updated.location), updated.digest) == (fields, location, item.digest)
    np.testing.assert_allclose(collection.get_embedding("5"), rows[5], atol=1e-3)
    assert collection.search(rows[[5]], 1, {"title": "五"})[0][0].id == "5"
    assert collection.field_names() == ["caption_en", "date", "even", "name", "price", "third", "title"]


def test_ids_are_found_and_removed_whatever_they_hold(storage, rng):
    collection = storage.open(writable=True)
    ids = ["it's", 'q"q', "back\\s", "line\nend", "\0", "x'] or id in ['a", "a"]
    collection.add([Item(item_id, item_id.encode()) for item_id in ids], draw_unit_rows(rng, len(ids)))
    assert collection.get_digests([*ids, "x"]) == {item_id: item_id.encode() for item_id in ids}
    for item_id in ids:
        assert collection.get(item_id).digest == item_id.encode() and collection.get_embedding(item_id) is not None
    collection.update([Item(item_id, item_id.encode(), {"title": item_id}) for item_id in ids])
    assert collection.get("it's").fields == {"title": "it's"}
    assert collection.remove(ids[:-1]) == len(ids) - 1
    assert hit_ids(collection.iterate_items()) == ["a"]


def test_samples_hold_what_removals_have_left(collection):
    remaining_ids = {str(number) for number in range(ROWS) if number % 100 == 7}
    collection.remove([str(number) for number in range(ROWS) if str(number) not in remaining_ids])
    sampled_ids = hit_ids(collection.sample_items(24))
    assert len(sampled_ids) == len(set(sampled_ids)) == len(remaining_ids)
    assert set(sampled_ids) == remaining_ids and len(collection.sample_captions(8)) == 8


@pytest.mark.slow
def test_name_of_a_file_may_begin_like_an_address(tmp_path, monkeypatch):
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    from ernie_vil2.apps.search.milvus import MilvusStore

    monkeypatch.chdir(tmp_path)
    store = MilvusStore("httpd.db", writable=True)
    store.close()
    assert (tmp_path / "httpd.db").exists()


@pytest.mark.slow
def test_reader_in_milvus_goes_on_when_a_writer_has_ended(tmp_path, monkeypatch):
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    from ernie_vil2.apps.search.milvus import MilvusStore

    monkeypatch.chdir(tmp_path)
    with closing(MilvusStore(str(tmp_path / "index.db"), writable=True)) as store:
        with closing(MilvusStore("./index.db", writable=True)) as writer:
            writer.write_metadata({"version": 1, "width": WIDTH})
        store.metadata = writer.metadata
        assert len(store.collection("images")) == 0


@pytest.mark.slow
def test_errors_of_milvus_name_its_address(tmp_path, rng):
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    from milvus_lite.server_manager import server_manager_instance

    from ernie_vil2.apps.search.milvus import MAX_ID_LENGTH, MilvusStore

    address = str(tmp_path / "index.db")
    with closing(MilvusStore(address, writable=True)) as store:
        store.write_metadata({"version": 1, "width": WIDTH})
        collection = store.collection("images")
        with pytest.raises(OSError, match="id"):
            collection.add([Item("a" * (MAX_ID_LENGTH + 1), b"")], draw_unit_rows(rng, 1))
        server_manager_instance.release_server(address)
        for use in (len, lambda images: images.search(draw_unit_rows(rng, 1), 1), lambda images: images.field_names()):
            with pytest.raises(OSError, match=address):
                use(collection)


@pytest.mark.slow
def test_reader_of_a_missing_index_in_milvus_leaves_nothing_behind(tmp_path, monkeypatch):
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    from milvus_lite.server_manager import server_manager_instance

    from ernie_vil2.apps.search.milvus import MilvusStore

    address = str(tmp_path / "index.db")
    with pytest.raises(FileNotFoundError, match="build"):
        MilvusStore(address, writable=False)
    assert not list(tmp_path.iterdir())
    # A writer that was killed when it had created the collection of the description, and not written it yet.
    with closing(MilvusStore(address, writable=True)) as store:
        monkeypatch.setattr(store._client, "upsert", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.write_metadata({"version": 1})
    with monkeypatch.context() as patched:
        release = Mock(wraps=server_manager_instance.release_server)
        patched.setattr(server_manager_instance, "release_server", release)
        with pytest.raises(FileNotFoundError, match="build"):
            MilvusStore(address, writable=False)
        release.assert_called_once_with(address)
    with closing(MilvusStore(address, writable=True)) as store:
        store.write_metadata({"version": 1})


def test_items_of_a_name_have_it_as_id_or_with_a_suffix(storage, rng):
    collection = storage.open(writable=True)
    assert collection.find_by_name({"a"}) == {"a": []} and collection.field_names() == []
    ids = ["a", "a (1)", "a (2)", "a(", "a )", "ab", "a%", "a% (1)", 'q"\\的', 'q"\\的 (1)', "a_ (1)"]
    collection.add([Item(item_id, item_id.encode(), {"n": item_id}) for item_id in ids], draw_unit_rows(rng, len(ids)))
    items = collection.find_by_name({"a", "a%", 'q"\\的', "nobody", *map(str, range(250))})
    ids_of_names = {name: hit_ids(named_items) for name, named_items in items.items() if named_items}
    assert ids_of_names == {
        "a": ["a", "a (1)", "a (2)"], "a%": ["a%", "a% (1)"], 'q"\\的': ['q"\\的', 'q"\\的 (1)']
    }  # fmt: skip
    assert items["a"][1].digest == b"a (1)" and items["a"][1].fields == {"n": "a (1)"}
