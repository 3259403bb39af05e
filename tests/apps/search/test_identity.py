"""Identity of items: names that several sources share, files that change, and files of any name."""

import csv
import json
import os
from collections import defaultdict
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2 import cli as commands
from ernie_vil2.apps.search import add_items, open_index
from ernie_vil2.apps.search.add_items import UpdateResult, add_images, list_images, sync_images
from ernie_vil2.apps.search.locations import MAX_LOCATIONS, OriginalImages, parse_locations
from tests.support.limits import limit_examples
from tests.support.shapes import encode_png, write_tar
from tests.support.small_index import list_items, make_number_vector, open_number_index

KINDS = ("index", pytest.param("index.db", marks=pytest.mark.slow))
NAMES = ("same.png", "same.png", "other.png")


def compute_digest(number):
    return blake2b(str(number).encode(), digest_size=16).digest()


def write_source(folder, source, rows):
    """Write images, as (name, number) each, and return the path to index.

    The name of the source says what is written: a folder, a table next to its images, or a shard.
    """
    if source.startswith("shard"):
        members = []
        for key, (name, number) in enumerate(rows):
            members += [(f"{key % 2}.png", str(number).encode()),
                        (f"{key % 2}.json", json.dumps({"caption": source, "image_id": name}).encode())]  # fmt: skip
        return str(write_tar(folder / f"{source}.tar", members))
    home = folder / source
    home.mkdir(exist_ok=True)
    for path in home.iterdir():
        path.unlink()
    for name, number in rows:
        (home / name).write_bytes(str(number).encode())
    if source.startswith("folder"):
        return str(home)
    with (home / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["image", "caption"], *((name, source) for name, _ in rows)])
    return str(home / "table.csv")


def image_path(source, name):
    """Return the path of an image in the folder of its source; images of a shard have the shard's."""
    return f"{source}.tar" if source.startswith("shard") else f"{source}/{name}"


def add_sources(index, sources):
    result = add_images(index, list_images(sources))
    assert not result.bad_samples.counts
    return result


ROWS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 3)), min_size=1, max_size=4)
SOURCES = ("shard1", "folder1", "folder2", "table1", "shard2")
CHANGE = st.tuples(st.sampled_from(SOURCES), ROWS)
FILL = st.lists(st.sampled_from(SOURCES), min_size=1, max_size=3, unique=True)
# Each step: perhaps another content of a source, a fill from some sources, perhaps the removal of an item.
STEPS = st.lists(st.tuples(st.none() | CHANGE, FILL, st.none() | st.integers(0, 5)), min_size=3, max_size=6)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_any_order_of_changes_gives_the_items_of_a_dictionary(kind, monkeypatch):
    monkeypatch.setattr(add_items, "CHUNK_SIZE", 2)

    @limit_examples(15)
    @given(st.fixed_dictionaries(dict.fromkeys(SOURCES, ROWS)), STEPS)
    def check_examples(sources, steps):
        operations = [operation for operation in chain.from_iterable(steps) if operation is not None]
        with TemporaryDirectory() as home, open_number_index(Path(home), kind) as index:
            check_against_dictionary(Path(home), index, sources, operations)

    check_examples()


def check_against_dictionary(folder, index, sources, operations):
    """Apply operations to an index and to a dictionary, and compare both after each.

    The dictionary has for every image, which is its name and number, the paths at which it was when they were last
    read.
    """
    rows_of = {source: drop_repeated_names(source, rows) for source, rows in sources.items()}
    source_paths = {source: write_source(folder, source, rows) for source, rows in rows_of.items()}
    paths_of, ids = defaultdict(set), {}
    for operation in operations:
        if isinstance(operation, tuple):  # a change of a source, which the index has not read yet
            source, rows = operation
            rows_of[source] = drop_repeated_names(source, rows)
            write_source(folder, source, rows_of[source])
            continue
        num_encoded = index.model.encoded
        new_images = set()
        if isinstance(operation, int):  # a removal
            if ids:
                image = sorted(ids)[operation % len(ids)]
                assert index.collection("images").remove([ids[image]]) == 1
                del paths_of[image], ids[image]
        else:
            add_sources(index, [source_paths[source] for source in operation])
            update_paths(paths_of, rows_of, operation)
            new_images = paths_of.keys() - ids.keys()

        # The items are the images of the dictionary; an image keeps its id, and is encoded once.
        items = list_items(index)
        ids_by_image = {(parse_locations(item)[0].name, item.digest): item_id for item_id, item in items.items()}
        assert ids_by_image.keys() == {(name, compute_digest(number)) for name, number in paths_of}
        assert len(items) == len(paths_of) == len(index.collection("images"))
        new_ids = {(name, number): ids_by_image[name, compute_digest(number)] for name, number in paths_of}
        assert all(new_ids[image] == ids[image] for image in ids.keys() & paths_of.keys())
        assert index.model.encoded - num_encoded == len(new_images)
        ids = new_ids

        originals = OriginalImages([folder])
        files = set()
        for source, rows in rows_of.items():
            if not source.startswith("shard"):
                files.update((image_path(source, name), name, number) for name, number in rows)
        for (name, number), item_id in ids.items():
            item = items[item_id]
            assert {location.path for location in parse_locations(item)} == paths_of[name, number]
            assert item_id.startswith(name)
            embedding = index.collection("images").get_embedding(item_id)
            assert np.allclose(embedding, make_number_vector(number), atol=1e-3)  # it is stored in 16 bits
            content = originals.read(item)
            assert content in (None, str(number).encode())
            # An original is there as long as one of the files has its content.
            if any((path, name, number) in files for path in paths_of[name, number]):
                assert content is not None


def update_paths(paths_of, rows_of, sources):
    """Change the paths of images to those that are known after sources were read."""
    read_rows = []
    for source in sources:
        read_rows += [(image_path(source, name), name, number) for name, number in rows_of[source]]
    for image, paths in paths_of.items():
        # An image has left a path that holds its name with another content.
        paths_of_name = {path for path, name, _ in read_rows if name == image[0]}
        paths -= paths_of_name - {path for path, name, number in read_rows if (name, number) == image}
    for path, name, number in read_rows:
        paths_of[name, number].add(path)
    for image in [image for image, paths in paths_of.items() if not paths]:
        del paths_of[image]


def drop_repeated_names(source, rows):
    """Return the rows that a source can hold: only a shard has several images of a name."""
    return rows if source.startswith("shard") else list(dict(rows).items())


def counts(result: UpdateResult):
    return result.num_added, result.num_replaced, result.num_refreshed, result.num_unchanged


def test_equal_names_in_two_sources_are_two_items(tmp_path):
    first = write_source(tmp_path, "folder1", [("same.png", 1), ("own.png", 7)])
    second = write_source(tmp_path, "folder2", [("same.png", 2), ("own.png", 7)])
    with open_number_index(tmp_path) as index:
        assert counts(add_sources(index, [first, second])) == (3, 0, 0, 1)  # own.png has the same content in both
        ids = {item_id: item.digest for item_id, item in list_items(index).items()}
        assert counts(add_sources(index, [second, first])) == (0, 0, 0, 4)
    (tmp_path / "apart").mkdir()
    with open_number_index(tmp_path / "apart") as index:
        assert [counts(add_sources(index, [source])) for source in (first, second)] == [(2, 0, 0, 0), (1, 0, 0, 1)]
        assert {item_id: item.digest for item_id, item in list_items(index).items()} == ids


def test_name_that_equals_the_id_of_another_image_is_distinct(tmp_path):
    # The second image that is named same.png gets this id, unless it is the name of an image.
    later_id = f"same.png ({compute_digest(2).hex()[:8]})"
    rows = [("same.png", 1), (later_id, 3), ("same.png", 2)]
    sources = [write_source(tmp_path, f"shard{n}", [row]) for n, row in enumerate(rows)]
    for order in (sources, sources[::-1]):
        with TemporaryDirectory() as home, open_number_index(Path(home)) as index:
            for source in order:
                add_sources(index, [source])
            for source in order:
                assert counts(add_sources(index, [source])) == (0, 0, 0, 1)
            assert len(list_items(index)) == 3


def test_image_stays_when_more_files_than_are_stored_have_moved(tmp_path):
    folders = [tmp_path / f"folder{number}" for number in range(2 * MAX_LOCATIONS)]
    for folder in folders[:MAX_LOCATIONS]:
        write_source(tmp_path, folder.name, [("same.png", 1)])
    with open_number_index(tmp_path) as index:
        add_images(index, list_images(folders[:MAX_LOCATIONS]))
        for number, folder in enumerate(folders):
            name = "other.png" if number < MAX_LOCATIONS else "same.png"
            write_source(tmp_path, folder.name, [(name, 1)])
        sync_images(index, folders)
        items = list_items(index)
        assert set(items) == {"other.png", "same.png"}
        paths = {location.path for location in parse_locations(items["same.png"])}
        assert paths == {f"{folder.name}/same.png" for folder in folders[MAX_LOCATIONS:]}


def test_changed_fields_are_stored_without_encoding_again(tmp_path):
    table = Path(write_source(tmp_path, "table1", [("a.png", 1), ("b.png", 2)]))
    folder = str(table.parent)
    table.rename(tmp_path / "kept.csv")  # at first, the folder has no table

    def write_table(*rows):
        with table.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["image", "caption", "price", "sku"], *rows])

    with open_number_index(tmp_path) as index:
        add_sources(index, [folder])
        assert list_items(index)["a.png"].fields == {"file": "a.png"}
        write_table(("a.png", "red", 3, "00123"), ("b.png", "blue", 4, ""))
        result = add_sources(index, [folder])
        assert counts(result) == (0, 0, 2, 0) and "2 refreshed" in str(result)
        assert list_items(index)["a.png"].fields == {"caption": "red", "price": 3, "sku": "00123"}
        write_table(("a.png", "red", 3, "00123"), ("b.png", "blue", 5, "00124"))
        assert counts(add_sources(index, [str(table)])) == (0, 0, 1, 1)
        assert list_items(index)["b.png"].fields == {"caption": "blue", "price": 5, "sku": "00124"}
        table.unlink()
        assert counts(add_sources(index, [folder])) == (0, 0, 0, 2)  # files without a table leave the fields
        assert list_items(index)["b.png"].fields["price"] == 5
        assert index.model.encoded == 2


FILE_NAMES = (
    st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & set(b"/\0")).map(lambda b: b + b".png")
)


@limit_examples(20)
@given(st.lists(FILE_NAMES.filter(lambda name: name[:1] != b"."), min_size=1, max_size=4, unique=True))
def test_files_of_any_name_are_indexed_and_served(names):
    with TemporaryDirectory() as home:
        folder = Path(home, "folder1")
        folder.mkdir()
        for number, name in enumerate(names):
            Path(folder, name.decode("utf-8", "surrogateescape")).write_bytes(str(number).encode())
        with open_number_index(Path(home)) as index:
            assert counts(add_sources(index, [str(folder)])) == (len(names), 0, 0, 0)
            assert counts(add_sources(index, [str(folder)])) == (0, 0, 0, len(names))
            items = list_items(index)
            contents = sorted(OriginalImages([home]).read(item) for item in items.values())
            assert contents == sorted(str(number).encode() for number in range(len(names)))
            for item_id, item in items.items():
                item_id.encode()  # raises an error unless it is Unicode
                item.fields["file"].encode()


@pytest.mark.parametrize(("name", "expected_id"), [("苹果.png".encode(), "苹果.png"), (b"caf\xe9.png", r"caf\xe9.png")])
def test_ids_are_readable_in_any_encoding_of_the_name(tmp_path, name, expected_id):
    folder = tmp_path / "folder1"
    folder.mkdir()
    Path(folder, os.fsdecode(name)).write_bytes(b"1")
    with open_number_index(tmp_path) as index:
        add_sources(index, [str(folder)])
        items = list_items(index)
        assert set(items) == {expected_id} and OriginalImages([tmp_path]).read(items[expected_id]) == b"1"


# Output of commands, index.json and locations have to hold names that are not UTF-8.
def test_index_in_a_folder_whose_name_is_not_utf8_works(tmp_path, monkeypatch, checkpoint, model, capsys):
    home = tmp_path / "\udcb9\udcfb"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setattr("ernie_vil2.apps.search.index.load_model", lambda source, **_: model)
    image = home / "\udcff" / "\udcb9\udcfb.png"
    image.parent.mkdir()
    image.write_bytes(encode_png(np.zeros([32, 32, 3], np.uint8)))
    arguments = ["--index", "index", "--checkpoint", str(checkpoint), "--data", "\udcff"]
    for expected in ("1 added, 0 unchanged", "0 added, 1 unchanged"):
        assert commands.run("search", ["build", *arguments]) == 0
        assert expected in capsys.readouterr().out
    assert commands.run("search", ["query", "--index", "index", "red"]) == 0
    assert "果.png" in capsys.readouterr().out
    with open_index(home / "index", model) as index:
        assert OriginalImages([home]).read(index.collection("images").get("果.png")) == image.read_bytes()
