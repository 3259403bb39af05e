"""Damaged and hostile files of an index: searches answer rightly or name the damage, and `check` finds all of it."""

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
from ernie_vil2.apps.search.collection import Item, WordQueries
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
WORDS = WordQueries(["text 7", "text", "7", "399", "text 3", "nothing"])
ABOUT = {"version": 1, "model": "none", "fingerprint": "0" * 32, "width": WIDTH, "image_fingerprint": "", "root": "/"}
INDEX_TYPE = "images/index_type/index_type.json"


def write_index(folder, index_type, about=ABOUT, embeddings=EMBEDDINGS):
    store = FolderStore(folder, writable=True)
    store.write_metadata(about)
    images = store.collection("images")
    for start in range(0, ROWS, 150):
        rows = slice(start, start + 150)
        images.add(list(ITEMS.values())[rows], embeddings[rows])
    images.build_index_type(index_type, lambda: QUERIES, 0.9, lambda line: None)
    images.remove(REMOVED)
    images.close()
    store.close()
    (folder / ".lock").unlink()
    return folder


@pytest.fixture(scope="module", params=["exact", "ivf"])
def intact_index(request, tmp_path_factory):
    # By default, so few rows are searched exactly, whatever the index type.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ernie_vil2.apps.search.local_collection.EXACT_UP_TO", 20)
        yield write_index(tmp_path_factory.mktemp(request.param) / "index", request.param)


def read_answers(folder):
    """Return the hits of searches with and without filters, items by their ids, the facets and the number of items."""
    store = FolderStore(folder, writable=False)
    images = store.collection("images")
    try:
        hits = [images.search(QUERIES, 8, where) for where in (None, {"third": [0, 1]}, {"caption_en": "text 7"})]
        hits.append(images.search(QUERIES, 8, words=WORDS))
        ids = ["0", "3", "150", "399"]
        return hits, {item_id: images.get(item_id) for item_id in ids}, images.summarize_fields(), len(images)
    finally:
        images.close()


read_intact_answers = cache(read_answers)


def read_tables(folder):
    """Return the rows of all tables of a collection's database, or None if SQLite cannot read it."""
    try:
        with closing(sqlite3.connect(folder / "images/items.sqlite")) as connection:
            # Not those of FTS5: counters in them may change without changing any answer.
            query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'words_%'"
            names = [name for (name,) in connection.execute(query)]
            return {name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for name in names}  # noqa: S608  -- a value that the test has written
    except (sqlite3.Error, MemoryError):
        return None


read_intact_tables = cache(read_tables)


def check_answers(answers):
    """Check that answers hold nothing that was not indexed. They may lack items."""
    searches, items, _, count = answers
    assert count == ROWS - len(REMOVED)
    for hits in searches:
        for query, query_hits in zip(QUERIES, hits, strict=True):
            assert len({hit.id for hit in query_hits}) == len(query_hits)
            for hit in query_hits:
                assert hit.id not in REMOVED and hit.fields == ITEMS[hit.id].fields
                score = float(EMBEDDINGS[int(hit.id)].astype(np.float16) @ query)
                assert hit.score == pytest.approx(score, abs=1e-3)
    for item_id, item in items.items():
        assert item is None or item == ITEMS[item_id]


def damage_bytes(content, kind, position, seed):
    """Return a content with damage of a kind at a position between 0 and 1."""
    start, rng = int(position * (len(content) - 1)), np.random.default_rng(seed)
    content = bytearray(content)
    if kind == "bit":
        content[start] ^= 1 << rng.integers(8)
    elif kind == "cut":
        del content[start:]
    elif kind == "random":
        content[start : start + 16] = rng.bytes(len(content[start : start + 16]))
    else:
        content[start : start + 100] = {"zeros": b"\0", "ones": b"\xff"}[kind] * len(content[start : start + 100])
    return bytes(content)


@limit_examples(100)
@given(
    file=st.sampled_from(["index.json", "rows.f16", "items.sqlite", "index_type.json", ".faiss"]),
    kind=st.sampled_from(["bit", "bit", "cut", "random", "zeros", "ones"]),
    position=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_damaged_bytes_falsify_no_answer_and_are_found(intact_index, tmp_path_factory, file, kind, position, seed):
    folder = tmp_path_factory.mktemp("damaged") / "index"
    shutil.copytree(intact_index, folder)
    paths = [path for path in folder.rglob("*") if path.name.endswith(file)]
    if not paths:  # the index type exact has no file of faiss
        shutil.rmtree(folder)
        return
    content = paths[0].read_bytes()
    changed = damage_bytes(content, kind, position, seed)
    paths[0].write_bytes(changed)

    # A search answers rightly, or it names the damage.
    expected = read_intact_answers(intact_index)
    answers = None
    try:
        answers = read_answers(folder)
    except DamagedIndex as error:
        assert str(folder) in str(error)  # noqa: PT017  -- there may be no error
    if answers is not None:
        check_answers(answers)
        if file in ("index.json", "index_type.json"):
            assert answers == expected

    # `check` finds every damage: of a database, whatever changes its tables; of binary files, any byte.
    if file in (".faiss", "rows.f16"):
        is_harmless = changed == content
    elif file == "items.sqlite":
        is_harmless = answers == expected and read_tables(folder) == read_intact_tables(intact_index)
    else:
        is_harmless = changed == content or answers == expected
    assert is_harmless or check_index(folder).faults
    shutil.rmtree(folder)


def execute_sql(folder, *statements, **values):
    with closing(sqlite3.connect(folder / "images/items.sqlite")) as connection, connection:
        for statement in statements:
            connection.execute(statement, values)


def seal_values(values):
    """Return values with their checksum in place of a former one."""
    return integrity.seal({key: value for key, value in values.items() if key != integrity.CHECKSUM_KEY})


def write_checksums(folder):
    """Write the checksums of the present content of an index, as a stranger can who has changed it."""
    for path in (folder / "index.json", folder / INDEX_TYPE):
        if path.is_file():
            path.write_text(json.dumps(seal_values(json.loads(path.read_text()))))
    rows_path, database = folder / "images/rows.f16", folder / "images/items.sqlite"
    if not (rows_path.is_file() and database.is_file()):
        return
    rows = np.fromfile(rows_path, np.float16).reshape(ROWS, -1)
    with suppress(sqlite3.Error, ValueError), closing(sqlite3.connect(database)) as connection, connection:
        state = {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM state")}
        sealed = [(key, json.dumps(value)) for key, value in seal_values(state).items()]
        connection.executemany("REPLACE INTO state VALUES (?, ?)", sealed)
    with suppress(sqlite3.Error, ValueError), closing(sqlite3.connect(database)) as connection, connection:
        connection.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        records = list(connection.execute("SELECT row, id, digest, fields, location, thumbnail FROM items"))
        checksums = []
        for row, *values, thumbnail in records:
            item_checksum = hash_item((row, *values), rows[row % ROWS])
            checksums.append((row, item_checksum, integrity.hash_values(thumbnail)))
        connection.execute("DELETE FROM checksums")
        connection.executemany("INSERT INTO checksums VALUES (?, ?, ?)", checksums)
        connection.execute("DELETE FROM blocks")
        connection.execute("INSERT INTO blocks VALUES (0, ?, ?)", (ROWS, hash_block(rows, range(ROWS))))


@pytest.mark.parametrize(("rows", "message"), [([7, 3, 7, 5], "a row twice"), ([0, 3, 0], "a row twice"),
                                               ([3, ROWS], "not there"), ([3, -2], "not there")])  # fmt: skip
def test_impossible_rows_of_an_index_type_are_damage(tmp_path, monkeypatch, rows, message):
    monkeypatch.setattr("ernie_vil2.apps.search.local_collection.EXACT_UP_TO", 20)
    collection = LocalCollection(write_index(tmp_path / "index", "ivf") / "images", WIDTH)

    def propose_rows(self, queries, count, allowed=None):
        """Return impossible rows for the first query, and possible ones for the others."""
        possible_rows = list(range(10, 10 + len(rows)))
        return np.array([rows, *[possible_rows] * (len(queries) - 1)])

    monkeypatch.setattr(type(collection._snapshot.index_type), "find_candidates", propose_rows)
    monkeypatch.setattr("ernie_vil2.apps.search.local_collection.NUM_CANDIDATES", 1)
    with pytest.raises(DamagedIndex, match=message):
        collection.search(QUERIES, 1)
    collection.close()


def set_row(folder, row, value):
    """Multiply a stored row by a number, or replace it by an array."""
    rows = np.memmap(folder / "images/rows.f16", np.float16, "r+", shape=(ROWS, WIDTH))
    rows[row] = value * rows[row] if np.isscalar(value) else value
    rows.flush()


def set_json(name, /, **values):
    """Return a function that changes values of a JSON file of an index."""

    def damage(folder):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


def replace_by_pipe(name):
    """Return a function that replaces a file of an index by a pipe."""

    def damage(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


VIEW = "CREATE VIEW items AS SELECT row, id, digest, fields, location, thumbnail FROM hidden"
TRIGGER = "CREATE TRIGGER one AFTER INSERT ON items BEGIN DELETE FROM items; END"
FORMS = {
    "a view": lambda f: execute_sql(f, "ALTER TABLE items RENAME TO hidden", VIEW),
    "a trigger": lambda f: execute_sql(f, TRIGGER),
    "another table": lambda f: execute_sql(f, "CREATE TABLE more (x)"),
    "an id of bytes": lambda f: execute_sql(f, "UPDATE items SET id = CAST(id AS BLOB)"),
    "fields not JSON": lambda f: execute_sql(f, "UPDATE items SET fields = '{'"),
    "deep fields": lambda f: execute_sql(f, "UPDATE items SET fields = :deep", deep='{"a": ' + "[" * 100_000),
    "a location of numbers": lambda f: execute_sql(f, "UPDATE items SET location = '[1, 2]'"),
    "a thumbnail of text": lambda f: execute_sql(f, "UPDATE items SET thumbnail = 'x'"),
    "a negative row": lambda f: execute_sql(f, "UPDATE items SET row = -5 WHERE row = 399"),
    "items lost": lambda f: execute_sql(f, "DELETE FROM items WHERE row % 2"),
    "rows of text": lambda f: execute_sql(f, "UPDATE state SET value = '\"many\"' WHERE key = 'rows'"),
    "too many rows": lambda f: execute_sql(f, f"UPDATE state SET value = '{10**30}' WHERE key = 'rows'"),  # noqa: S608  -- a value that the test has written
    "facets of another form": lambda f: execute_sql(
        f, "UPDATE state SET value = '{\"a\": [[{}, 1]]}' WHERE key = 'facets'"
    ),
    "a pipe for a database": replace_by_pipe("images/items.sqlite"),
    "rows not finite": lambda f: [set_row(f, row, np.nan) for row in range(ROWS)],
    "long rows": lambda f: [set_row(f, row, 508.0) for row in range(ROWS)],
    "another width": set_json("index.json", width=WIDTH + 1),
    "a pipe for the model": replace_by_pipe("index.json"),
    "a pipe for the index type": replace_by_pipe(INDEX_TYPE),
    "an index type that is not known": set_json(INDEX_TYPE, name="fast"),
    "an index type that is a module": set_json(INDEX_TYPE, name="PIL:Image"),
    "no cells of faiss to probe": set_json(INDEX_TYPE, num_probes=0),
    "a file of elsewhere for faiss": set_json(INDEX_TYPE, file="../../rows.f16"),
    "a recall of faiss that is not finite": set_json(INDEX_TYPE, recall=float("nan")),
}


def read_index_type(folder):
    return json.loads((folder / INDEX_TYPE).read_text())["name"]


@pytest.fixture
def index_folder(intact_index, tmp_path):
    return shutil.copytree(intact_index, tmp_path / "index")


@pytest.mark.parametrize("name", FORMS)
def test_malformed_content_with_valid_checksums_is_damage(index_folder, name):
    if "faiss" in name and read_index_type(index_folder) == "exact":
        pytest.skip("it has no file of faiss")
    FORMS[name](index_folder)
    write_checksums(index_folder)
    with pytest.raises(DamagedIndex, match=str(index_folder)):
        read_answers(index_folder)
    assert check_index(index_folder).faults


@pytest.mark.parametrize("name", ["a view", "a trigger", "another table"])
def test_writer_runs_no_trigger_of_a_foreign_database(index_folder, name):
    FORMS[name](index_folder)
    write_checksums(index_folder)
    content = read_tables(index_folder)
    with pytest.raises(DamagedIndex, match="items.sqlite"):
        LocalCollection(index_folder / "images", WIDTH, writable=True)
    assert read_tables(index_folder) == content


def test_foreign_schema_is_refused_at_every_refresh(index_folder):
    # A reader looks at the schema only after a commit, and must not forget what it has refused.
    images = FolderStore(index_folder, writable=False).collection("images")
    images.refresh()
    with closing(sqlite3.connect(index_folder / "images" / "items.sqlite")) as connection, connection:
        connection.execute("CREATE VIEW foreign_view AS SELECT 1")
    for _ in range(2):
        with pytest.raises(DamagedIndex, match="foreign_view"):
            images.refresh()
    images.close()


def test_file_of_another_version_is_named(index_folder):
    for name, change in {
        "index.json": set_json("index.json", version=None),
        "index_type.json": set_json(INDEX_TYPE, version=2),
        "items.sqlite": lambda folder: execute_sql(folder, "PRAGMA user_version = 99"),
    }.items():
        folder = shutil.copytree(index_folder, index_folder.with_name(name))
        change(folder)
        write_checksums(folder)
        with pytest.raises(DamagedIndex, match=rf"{name} names (version|no version)"):
            read_answers(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: execute_sql(f, "UPDATE items SET fields = '{\"third\": 2}' WHERE row = 9"), "item '9'"),
        (lambda f: execute_sql(f, "UPDATE items SET thumbnail = x'00' WHERE row = 9"), "item '9'"),
        (lambda f: execute_sql(f, "DELETE FROM checksums WHERE row = 9"), "item '9'"),
        (lambda f: execute_sql(f, "DELETE FROM items WHERE row = 9"), "has 397 of 398 items"),
        (
            lambda f: execute_sql(f, "INSERT INTO checksums VALUES (1000, x'00', x'00')"),
            "has 399 checksums of 398 items",
        ),
        (lambda f: execute_sql(f, "DELETE FROM blocks WHERE first = 150"), "the rows from 150 on"),
        (lambda f: execute_sql(f, "UPDATE blocks SET stop = 1000"), "the rows from 0 on"),
        (lambda f: set_row(f, 9, 0.995), "rows.f16: the rows 0 to 149"),
        (lambda f: set_row(f, 9, np.inf), "1 of the rows 0 to 399 are not unit vectors"),
        (lambda f: execute_sql(f, "DROP TABLE blocks"), "lacks the table 'blocks'"),
        (lambda f: [p.unlink() for p in f.rglob("*.faiss")], r"ivf-\w+.faiss is missing"),
        (lambda f: shutil.rmtree(f / "images/index_type"), None),
    ],
)
def test_check_names_every_damaged_file(index_folder, capsys, damage, message):
    folder = Path(index_folder)
    if read_index_type(folder) == "exact":
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


def test_index_of_another_width_than_its_model_is_damaged(tmp_path, model):
    about = ABOUT | {"fingerprint": model.fingerprint, "width": model.embed_dim + 1}
    (tmp_path / "index.json").write_text(json.dumps(integrity.seal(about)))
    with pytest.raises(DamagedIndex, match=f"index.json has the width {model.embed_dim + 1}, but its model"):
        open_index(tmp_path, model)
    (tmp_path / "index.json").write_text(json.dumps(integrity.seal(about | {"fingerprint": "other"})))
    with pytest.raises(OtherModel):
        open_index(tmp_path, model)
