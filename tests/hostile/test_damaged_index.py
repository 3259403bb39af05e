"""Damage of an index: what opening and searching see of it, and that `check` sees all of it."""

import json
import os
import re
import shutil
import sqlite3
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2 import cli as commands
from ernie_vil2.apps.search import DamagedIndex, OtherModel, integrity, open_index
from ernie_vil2.apps.search.checking import check_index
from ernie_vil2.apps.search.collection import Item
from ernie_vil2.apps.search.items import hash_block, hash_item
from ernie_vil2.apps.search.local_collection import LocalCollection
from ernie_vil2.apps.search.store import FolderStore
from tests.support.limits import limit_examples
from tests.support.small_index import WIDTH, draw_unit_rows

ROWS = 400
RNG = np.random.default_rng(5)
EMBEDDINGS = draw_unit_rows(RNG, ROWS)
QUERIES = draw_unit_rows(RNG, 6)
ITEMS = {
    str(row): Item(str(row), bytes([row % 256]) * 16, {"caption_en": f"text {row}", "third": row % 3},
                   [["a.tar", str(row), row]],
                   bytes(RNG.integers(0, 256, 6000 if row % 50 == 0 else 60, np.uint8)))
    for row in range(ROWS)
}  # fmt: skip
REMOVED = ["3", "4"]
ABOUT = {"version": 1, "model": "none", "fingerprint": "0" * 32, "width": WIDTH, "image_fingerprint": "", "root": "/"}
INDEX_TYPE = "images/index_type/index_type.json"


def made(folder, index_type, about=ABOUT, embeddings=EMBEDDINGS):
    store = FolderStore(folder, writable=True)
    store.describe(about)
    images = store.collection("images")
    for start in range(0, ROWS, 150):
        chosen = slice(start, start + 150)
        images.add(list(ITEMS.values())[chosen], embeddings[chosen])
    images.build_index_type(index_type, lambda: QUERIES, 0.9, lambda line: None)
    images.remove(REMOVED)
    images.close()
    store.close()
    (folder / ".lock").unlink()
    return folder


@pytest.fixture(scope="module", params=["exact", "ivf"])
def whole(request, tmp_path_factory):
    # A filter that admits few rows, and a count beyond what an index type proposes, are answered exactly.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ernie_vil2.apps.search.local_collection.EXACT_UP_TO", 20)
        yield made(tmp_path_factory.mktemp(request.param) / "index", request.param)


def answers(folder):
    """Hits of searches with and without a filter, items by their ids, and the facets."""
    store = FolderStore(folder, writable=False)
    images = store.collection("images")
    try:
        hits = [images.search(QUERIES, 8, where) for where in (None, {"third": [0, 1]}, {"caption_en": "text 7"})]
        ids = ["0", "3", "150", "399"]
        return hits, {one: images.get(one) for one in ids}, images.facets(), len(images)
    finally:
        images.close()


answers_of_whole = cache(answers)


def tables(folder):
    """All that SQLite reads in a collection's database; None where it reads nothing."""
    try:
        with closing(sqlite3.connect(folder / "images/items.sqlite")) as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for name in names}  # noqa: S608  -- a value that the test has written
    except (sqlite3.Error, MemoryError):
        return None


tables_of_whole = cache(tables)


def assert_true(found):
    """What was answered may lack an item, but says nothing that was not indexed."""
    searches, items, _, count = found
    assert count == ROWS - len(REMOVED)
    for hits in searches:
        for query, line in zip(QUERIES, hits, strict=True):
            assert len({hit.id for hit in line}) == len(line)
            for hit in line:
                assert hit.id not in REMOVED and hit.fields == ITEMS[hit.id].fields
                assert hit.score == pytest.approx(float(EMBEDDINGS[int(hit.id)].astype(np.float16) @ query), abs=1e-3)
    for name, item in items.items():
        assert item is None or item == ITEMS[name]


def damaged_bytes(content, kind, at, seed):
    at, rng = int(at * (len(content) - 1)), np.random.default_rng(seed)
    content = bytearray(content)
    if kind == "bit":
        content[at] ^= 1 << rng.integers(8)
    elif kind == "cut":
        del content[at:]
    elif kind == "random":
        content[at : at + 16] = rng.bytes(len(content[at : at + 16]))
    else:
        content[at : at + 100] = {"zeros": b"\0", "ones": b"\xff"}[kind] * len(content[at : at + 100])
    return bytes(content)


@limit_examples(100)
@given(
    file=st.sampled_from(["index.json", "rows.f16", "items.sqlite", "index_type.json", ".faiss"]),
    kind=st.sampled_from(["bit", "bit", "cut", "random", "zeros", "ones"]),
    at=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_damaged_bytes_change_no_answer_and_are_seen(whole, tmp_path_factory, file, kind, at, seed):
    folder = tmp_path_factory.mktemp("damaged") / "index"
    shutil.copytree(whole, folder)
    paths = [path for path in folder.rglob("*") if path.name.endswith(file)]
    if not paths:  # the index type exact has no file of faiss
        shutil.rmtree(folder)
        return
    content = paths[0].read_bytes()
    changed = damaged_bytes(content, kind, at, seed)
    paths[0].write_bytes(changed)
    expected = answers_of_whole(whole)
    answered = None
    try:
        answered = answers(folder)
    except DamagedIndex as error:
        assert str(folder) in str(error)  # noqa: PT017  -- there may be no error
    if answered is not None:
        assert_true(answered)
        if file in ("index.json", "index_type.json"):
            assert answered == expected
    harmless = changed == content or answered == expected
    if file in (".faiss", "rows.f16"):
        harmless = changed == content
    elif file == "items.sqlite":
        harmless = tables(folder) == tables_of_whole(whole)
    assert harmless or check_index(folder).faults
    shutil.rmtree(folder)


def sql(folder, *statements, **values):
    with closing(sqlite3.connect(folder / "images/items.sqlite")) as connection, connection:
        for statement in statements:
            connection.execute(statement, values)


def seal(folder):
    """Give an index the checksums of what it holds by now, as a stranger can who changes it."""
    for path in (folder / "index.json", folder / INDEX_TYPE):
        if path.is_file():
            values = json.loads(path.read_text())
            path.write_text(
                json.dumps(
                    integrity.seal({key: value for key, value in values.items() if key != integrity.CHECKSUM_KEY})
                )
            )
    rows_path, database = folder / "images/rows.f16", folder / "images/items.sqlite"
    if not (rows_path.is_file() and database.is_file()):
        return
    rows = np.fromfile(rows_path, np.float16).reshape(ROWS, -1)
    with suppress(sqlite3.Error, ValueError), closing(sqlite3.connect(database)) as connection, connection:
        state = {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM state")}
        state = integrity.seal({key: value for key, value in state.items() if key != integrity.CHECKSUM_KEY})
        connection.executemany("REPLACE INTO state VALUES (?, ?)", [(k, json.dumps(v)) for k, v in state.items()])
    with suppress(sqlite3.Error, ValueError), closing(sqlite3.connect(database)) as connection, connection:
        connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        records = list(connection.execute("SELECT row, id, digest, fields, location, thumbnail FROM items"))
        sums = [(one[0], hash_item(one[:-1], rows[one[0] % ROWS]), integrity.hash_values(one[-1])) for one in records]
        connection.execute("DELETE FROM checksums")
        connection.executemany("INSERT INTO checksums VALUES (?, ?, ?)", sums)
        connection.execute("DELETE FROM blocks")
        connection.execute("INSERT INTO blocks VALUES (0, ?, ?)", (ROWS, hash_block(rows, range(ROWS))))


@pytest.mark.parametrize(("rows", "message"), [([7, 3, 7, 5], "a row twice"), ([0, 3, 0], "a row twice"),
                                               ([3, ROWS], "not there"), ([3, -2], "not there")])  # fmt: skip
def test_an_index_type_that_proposes_nonsense_is_damaged(tmp_path, monkeypatch, rows, message):
    monkeypatch.setattr("ernie_vil2.apps.search.local_collection.EXACT_UP_TO", 20)
    collection = LocalCollection(made(tmp_path / "index", "ivf") / "images", WIDTH)

    def candidates(self, queries, count, allowed=None):
        right = list(range(10, 10 + len(rows)))
        return np.array([rows, *[right] * (len(queries) - 1)])  # for the first query alone

    monkeypatch.setattr(type(collection._snapshot.index_type), "find_candidates", candidates)
    monkeypatch.setattr("ernie_vil2.apps.search.local_collection.NUM_CANDIDATES", 1)
    with pytest.raises(DamagedIndex, match=message):
        collection.search(QUERIES, 1)
    collection.close()


def set_row(folder, row, value):
    rows = np.memmap(folder / "images/rows.f16", np.float16, "r+", shape=(ROWS, WIDTH))
    rows[row] = value * rows[row] if np.isscalar(value) else value
    rows.flush()


def set_json(name, /, **values):
    def damage(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


def replaced_by(kind, name):
    def damage(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name) if kind == "pipe" else (folder / name).mkdir()

    return damage


VIEW = "CREATE VIEW items AS SELECT row, id, digest, fields, location, thumbnail FROM hidden"
TRIGGER = "CREATE TRIGGER one AFTER INSERT ON items BEGIN DELETE FROM items; END"
FORMS = {
    "a view": lambda f: sql(f, "ALTER TABLE items RENAME TO hidden", VIEW),
    "a trigger": lambda f: sql(f, TRIGGER),
    "another table": lambda f: sql(f, "CREATE TABLE more (x)"),
    "an id of bytes": lambda f: sql(f, "UPDATE items SET id = CAST(id AS BLOB)"),
    "fields not JSON": lambda f: sql(f, "UPDATE items SET fields = '{'"),
    "deep fields": lambda f: sql(f, "UPDATE items SET fields = :deep", deep='{"a": ' + "[" * 100_000),
    "a location of numbers": lambda f: sql(f, "UPDATE items SET location = '[1, 2]'"),
    "a thumbnail of text": lambda f: sql(f, "UPDATE items SET thumbnail = 'x'"),
    "a negative row": lambda f: sql(f, "UPDATE items SET row = -5 WHERE row = 399"),
    "items lost": lambda f: sql(f, "DELETE FROM items WHERE row % 2"),
    "rows of text": lambda f: sql(f, "UPDATE state SET value = '\"many\"' WHERE key = 'rows'"),
    "too many rows": lambda f: sql(f, f"UPDATE state SET value = '{10**30}' WHERE key = 'rows'"),  # noqa: S608  -- a value that the test has written
    "facets of another form": lambda f: sql(f, "UPDATE state SET value = '{\"a\": [[{}, 1]]}' WHERE key = 'facets'"),
    "a pipe for a database": replaced_by("pipe", "images/items.sqlite"),
    "rows not finite": lambda f: [set_row(f, row, np.nan) for row in range(ROWS)],
    "long rows": lambda f: [set_row(f, row, 508.0) for row in range(ROWS)],
    "another width": set_json("index.json", width=WIDTH + 1),
    "a pipe for the model": replaced_by("pipe", "index.json"),
    "a pipe for the index type": replaced_by("pipe", INDEX_TYPE),
    "an index type that is not known": set_json(INDEX_TYPE, name="fast"),
    "an index type that is a module": set_json(INDEX_TYPE, name="PIL:Image"),
    "no cells of faiss to probe": set_json(INDEX_TYPE, num_probes=0),
    "a file of elsewhere for faiss": set_json(INDEX_TYPE, file="../../rows.f16"),
    "a recall of faiss that is not finite": set_json(INDEX_TYPE, recall=float("nan")),
}


def index_type_of(folder):
    return json.loads((folder / INDEX_TYPE).read_text())["name"]


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "index")


@pytest.mark.parametrize("name", FORMS)
def test_content_of_another_form_is_damage_under_right_checksums(copied, name):
    if "faiss" in name and index_type_of(copied) == "exact":
        pytest.skip("it has no file of faiss")
    FORMS[name](copied)
    seal(copied)
    with pytest.raises(DamagedIndex, match=str(copied)):
        answers(copied)
    assert check_index(copied).faults


@pytest.mark.parametrize("name", ["a view", "a trigger", "another table"])
def test_a_writer_runs_nothing_of_a_strangers_database(copied, name):
    FORMS[name](copied)
    seal(copied)
    before = tables(copied)
    with pytest.raises(DamagedIndex, match="items.sqlite"):
        LocalCollection(copied / "images", WIDTH, writable=True)
    assert tables(copied) == before


def test_another_version_of_a_file_is_refused_by_its_name(copied):
    for name, change in {
        "index.json": set_json("index.json", version=None),
        "index_type.json": set_json(INDEX_TYPE, version=2),
        "items.sqlite": lambda folder: sql(folder, "PRAGMA user_version = 2"),
    }.items():
        folder = shutil.copytree(copied, copied.with_name(name))
        change(folder)
        seal(folder)
        with pytest.raises(DamagedIndex, match=rf"{name} names (version|no version)"):
            answers(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: sql(f, "UPDATE items SET fields = '{\"third\": 2}' WHERE row = 9"), "item '9'"),
        (lambda f: sql(f, "UPDATE items SET thumbnail = x'00' WHERE row = 9"), "item '9'"),
        (lambda f: sql(f, "DELETE FROM checksums WHERE row = 9"), "item '9'"),
        (lambda f: sql(f, "DELETE FROM items WHERE row = 9"), "has 397 of 398 items"),
        (lambda f: sql(f, "INSERT INTO checksums VALUES (1000, x'00', x'00')"), "has 399 checksums of 398 items"),
        (lambda f: sql(f, "DELETE FROM blocks WHERE first = 150"), "the rows from 150 on"),
        (lambda f: sql(f, "UPDATE blocks SET stop = 1000"), "the rows from 0 on"),
        (lambda f: set_row(f, 9, 0.995), "rows.f16: the rows 0 to 149"),
        (lambda f: set_row(f, 9, np.inf), "1 of the rows 0 to 399 are not unit vectors"),
        (lambda f: sql(f, "DROP TABLE blocks"), "lacks the table 'blocks'"),
        (lambda f: [p.unlink() for p in f.rglob("*.faiss")], r"ivf-\w+.faiss is missing"),
        (lambda f: shutil.rmtree(f / "images/index_type"), None),
    ],
)
def test_check_reads_all_and_names_what_is_damaged(copied, capsys, damage, message):
    folder = Path(copied)
    if index_type_of(folder) == "exact":
        pytest.skip("the damages are of an index with a file of faiss")
    assert commands.run("search", ["check", "--index", str(folder)]) == 0
    assert "398 items, 400 rows of width 16; no damage" in capsys.readouterr().out
    damage(folder)
    assert commands.run("search", ["check", "--index", str(folder)]) == int(message is not None)
    printed = capsys.readouterr()
    assert printed.err == ""
    if message:
        first, *faults = printed.out.splitlines()
        assert "damaged" in first
        assert any(Path(fault).is_relative_to(folder) for fault in faults) and re.search(message, printed.out)


def test_an_index_of_another_width_than_its_models_is_damaged(tmp_path, model):
    about = ABOUT | {"fingerprint": model.fingerprint, "width": model.embed_dim + 1}
    (tmp_path / "index.json").write_text(json.dumps(integrity.seal(about)))
    with pytest.raises(DamagedIndex, match=f"index.json has the width {model.embed_dim + 1}, but its model"):
        open_index(tmp_path, model)
    (tmp_path / "index.json").write_text(json.dumps(integrity.seal(about | {"fingerprint": "other"})))
    with pytest.raises(OtherModel):
        open_index(tmp_path, model)
