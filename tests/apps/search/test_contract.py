"""What every index type and every store must do, embedded ones and Milvus alike, against a product in NumPy."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from ernie_vil2.apps.search.collection import Item
from ernie_vil2.apps.search.local_collection import LocalCollection
from tests.support.small_index import WIDTH, draw_unit_rows

ROWS = 2000
# gRPC's threads, which milvus-lite starts, abort processes that later tests fork: a run of its own, with -m slow.
INDEX_TYPES = ("exact", "ivf", pytest.param("milvus", marks=pytest.mark.slow))


class Storage:
    """A collection that can be closed and opened again, for writing or for reading."""

    def __init__(self, index_type, folder):
        self.index_type, self.folder, self._open = index_type, folder, []

    def open(self, writable=False):
        if self.index_type == "milvus":
            from ernie_vil2.apps.search.milvus import MilvusStore

            store = MilvusStore(str(self.folder / "index.db"), True)
            if not store.about:
                about = {"version": 1, "model": "none", "fingerprint": "0", "width": WIDTH}
                store.describe(about | {"image_fingerprint": "0", "root": "/"})
            collection = store.collection("images")
            self._open.append(store)
        else:
            collection = LocalCollection(self.folder / "images", WIDTH, writable)
        self._open.append(collection)
        return collection

    def build(self, collection, queries, recall=0.95):
        index_type = None if self.index_type == "milvus" else self.index_type
        collection.build_index_type(index_type, lambda: queries, recall, lambda line: None)

    def close(self):
        for store in reversed(self._open):
            store.close()
        self._open.clear()


@pytest.fixture(scope="module", params=INDEX_TYPES)
def index_type(request):
    if request.param == "milvus":
        pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    return request.param


@pytest.fixture
def storage(index_type, tmp_path, monkeypatch):
    # A filter that admits more than these of the few rows of a test is the own affair of the index type.
    monkeypatch.setattr("ernie_vil2.apps.search.local_collection.EXACT_UP_TO", 600)
    storage = Storage(index_type, tmp_path)
    yield storage
    storage.close()


def items(ids):
    return [
        Item(f"{number}", f"content {number}".encode(), {"caption_en": f"text {number}", "third": number % 3,
             "even": number % 2 == 0, "name": f'"{number}" \\ 的', "price": number / 2 if number % 5 else "free",
             "date": f"20{number % 90 + 10}-0{number % 9 + 1}-15 {number}"}, [["source", str(number), number]])
        for number in ids
    ]  # fmt: skip


def best(rows, queries, count, allowed=None):
    """Ids of the largest products, best first."""
    scores = queries @ rows.T
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    return [[str(row) for row in line] for line in np.argsort(-scores, axis=1)[:, :count].tolist()]


def found(hits):
    return [[hit.id for hit in line] for line in hits]


def recall(hits, expected):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found(hits), expected, strict=True)])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def rows():
    return draw_unit_rows(np.random.default_rng(1), ROWS)


@pytest.fixture(scope="module")
def built(index_type, rows, tmp_path_factory):
    """The folder of a collection of all rows."""
    storage = Storage(index_type, tmp_path_factory.mktemp("built"))
    collection = storage.open(writable=True)
    for start in range(0, ROWS, 1000):
        collection.add(items(range(start, start + 1000)), rows[start : start + 1000])
    storage.build(collection, draw_unit_rows(np.random.default_rng(2), 200))
    storage.close()
    return storage.folder


@pytest.fixture
def full(built, storage):
    shutil.copytree(built, storage.folder, dirs_exist_ok=True)
    return storage.open(writable=True)


def test_the_closest_are_found_in_their_order(full, rows, rng):
    queries = draw_unit_rows(rng, 40)
    hits = full.search(queries, 10)
    assert recall(hits, best(rows, queries, 10)) > 0.9
    for line, query in zip(hits, queries, strict=True):
        scores = [hit.score for hit in line]
        assert scores == sorted(scores, reverse=True)
        np.testing.assert_allclose(scores, [rows[int(hit.id)] @ query for hit in line], atol=2e-3)
        assert line[0].fields["caption_en"] == f"text {line[0].id}"
    # The first ones do not depend on how many are asked for, and more answers than items are all items.
    assert [line[0].id for line in full.search(queries, 100)] == [line[0].id for line in full.search(queries, 1)]
    (line,) = full.search(queries[:1], ROWS + 50)
    assert len(line) == ROWS and len({hit.id for hit in line}) == ROWS


NUMBERS = np.arange(ROWS)
PRICED, YEARS = NUMBERS % 5 != 0, NUMBERS % 90 + 2010


@pytest.mark.parametrize("cases", [
    [({"third": 1}, NUMBERS % 3 == 1),
     ({"third": [0, 2], "even": True}, (NUMBERS % 3 != 1) & (NUMBERS % 2 == 0)),
     ({"name": '"7" \\ 的'}, NUMBERS == 7),
     ({"third": ["1", 1]}, NUMBERS % 3 == 1),
     ({"third": 5}, NUMBERS < 0),
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
def test_filters_leave_only_what_they_admit(full, rows, rng, cases):
    queries = draw_unit_rows(rng, 10)
    for where, allowed in cases:
        hits = full.search(queries, 10, where)
        count = min(10, int(allowed.sum()))
        assert {int(hit.id) for line in hits for hit in line} <= set(np.flatnonzero(allowed).tolist()), where
        assert [len(line) for line in hits] == [count] * len(queries), where
        assert not count or recall(hits, best(rows, queries, count, allowed)) > 0.9


def test_items_change_without_building_again(full, rows, rng):
    new, replaced = draw_unit_rows(rng, 2)
    full.add([Item("new", b"n", {"caption_en": "new"})], new[None])
    full.add([Item("5", b"other", {"caption_en": "another five"})], replaced[None])
    assert full.remove(["6", "7", "not there"]) == 2
    assert len(full) == ROWS + 1 - 2
    assert found(full.search(new[None], 1)) == [["new"]]
    hit = full.search(replaced[None], 1)[0][0]
    assert (hit.id, hit.fields["caption_en"]) == ("5", "another five")
    near = full.search(rows[[5, 6, 7]], 3)
    assert not {"6", "7"} & {hit.id for line in near for hit in line}
    assert all(hit.score < 0.999 for line in near for hit in line)


def test_what_was_committed_is_there_when_it_is_opened_again(storage, full, rows, rng):
    queries = draw_unit_rows(rng, 5)
    expected = found(full.search(queries, 10))
    storage.close()
    again = storage.open()
    assert len(again) == ROWS and found(again.search(queries, 10)) == expected
    assert again.get("17").location == [["source", "17", 17]] and again.get("x") is None
    np.testing.assert_allclose(again.get_embedding("17"), rows[17], atol=1e-3)
    assert again.get_embedding("x") is None
    assert again.get_digests(["17", "x"]) == {"17": b"content 17"}


def test_embeddings_that_cannot_be_indexed_are_refused(storage, rng):
    collection = storage.open(writable=True)
    for embeddings, fault in ((np.zeros([2, WIDTH]), "1 items"), (np.full([1, WIDTH], np.nan), "not finite"),
                              (np.full([1, WIDTH], 0.5), "unit length")):  # fmt: skip
        with pytest.raises(ValueError, match=fault):
            collection.add(items([1]), embeddings)
    assert len(collection) == 0 and found(collection.search(draw_unit_rows(rng, 2), 5)) == [[], []]


def test_fields_worth_filtering_by(full):
    facets = {name: sorted(map(tuple, values)) for name, values in full.facets().items()}
    thirds = [(value, int((value == NUMBERS % 3).sum())) for value in range(3)]
    assert facets == {"third": thirds, "even": [(False, ROWS // 2), (True, ROWS // 2)]}
    assert len(full.sample_captions(20)) == 20 and full.sample_embeddings(7).shape[1] == WIDTH


def test_fields_and_locations_change_and_all_else_stays(full, rows, rng):
    (item,) = items([5])
    full.update([replace(item, fields={"title": "五"}, location=[["\udcd0.png", "5"]]), replace(item, id="not there")])
    assert len(full) == ROWS and full.get("not there") is None
    again = full.get("5")
    assert (again.fields, list(again.location), again.digest) == ({"title": "五"}, [["\udcd0.png", "5"]], item.digest)
    np.testing.assert_allclose(full.get_embedding("5"), rows[5], atol=1e-3)
    assert full.search(rows[[5]], 1, {"title": "五"})[0][0].id == "5"
    assert full.field_names() == ["caption_en", "date", "even", "name", "price", "third", "title"]


def test_items_are_found_by_the_name_that_their_ids_begin_with(storage, rng):
    collection = storage.open(writable=True)
    assert collection.find_by_name({"a"}) == {"a": []} and collection.field_names() == []
    ids = ["a", "a (1)", "a (2)", "a(", "a )", "ab", "a%", "a% (1)", 'q"\\的', 'q"\\的 (1)', "a_ (1)"]
    collection.add([Item(one, one.encode(), {"n": one}) for one in ids], draw_unit_rows(rng, len(ids)))
    found = collection.find_by_name({"a", "a%", 'q"\\的', "nobody", *map(str, range(250))})
    assert {name: [item.id for item in of] for name, of in found.items() if of} == {
        "a": ["a", "a (1)", "a (2)"], "a%": ["a%", "a% (1)"], 'q"\\的': ['q"\\的', 'q"\\的 (1)']
    }  # fmt: skip
    assert found["a"][1].digest == b"a (1)" and found["a"][1].fields == {"n": "a (1)"}
