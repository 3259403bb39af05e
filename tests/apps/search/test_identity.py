"""Which item an image is: names that several sources share, files that change, sources that grow."""

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
from ernie_vil2.apps.search.add_items import FillResult, add_images, list_images
from ernie_vil2.apps.search.locations import Originals, parse_locations
from tests.support.limits import limit_examples
from tests.support.shapes import encode_png, write_tar
from tests.support.small_index import list_items, make_number_vector, open_number_index

KINDS = ("index", pytest.param("index.db", marks=pytest.mark.slow))
NAMES = ("same.png", "same.png", "other.png")


def digest(number):
    return blake2b(str(number).encode(), digest_size=16).digest()


def write(folder, source, rows):
    """A source of images, as (name, number) each: a folder, a table next to its images, or a shard; what names it."""
    if source.startswith("shard"):
        members = []
        for key, (name, number) in enumerate(rows):
            members += [(f"{key % 2}.png", str(number).encode()),
                        (f"{key % 2}.json", json.dumps({"caption": source, "image_id": name}).encode())]  # fmt: skip
        return str(write_tar(folder / f"{source}.tar", members))
    home = folder / source
    home.mkdir(exist_ok=True)
    for old in home.iterdir():
        old.unlink()
    for name, number in rows:
        (home / name).write_bytes(str(number).encode())
    if source.startswith("folder"):
        return str(home)
    with (home / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["image", "caption"], *((name, source) for name, _ in rows)])
    return str(home / "table.csv")


def path_of(source, name):
    return f"{source}.tar" if source.startswith("shard") else f"{source}/{name}"


def add(index, sources):
    filled = add_images(index, list_images(sources))
    assert not filled.bad_samples.counts
    return filled


ROWS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 3)), min_size=1, max_size=4)
SOURCES = ("shard1", "folder1", "folder2", "table1", "shard2")
CHANGE = st.tuples(st.sampled_from(SOURCES), ROWS)
FILL = st.lists(st.sampled_from(SOURCES), min_size=1, max_size=3, unique=True)
STEPS = st.lists(st.tuples(st.none() | CHANGE, FILL, st.none() | st.integers(0, 5)), min_size=3, max_size=6)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_any_order_of_changes_is_what_a_dictionary_says(kind, monkeypatch):
    monkeypatch.setattr(add_items, "CHUNK_SIZE", 2)

    @limit_examples(15)
    @given(st.fixed_dictionaries(dict.fromkeys(SOURCES, ROWS)), STEPS)
    def holds(sources, steps):
        with TemporaryDirectory() as position, open_number_index(Path(position), kind) as index:
            check(Path(position), index, sources, [one for step in steps for one in step if one is not None])

    holds()


def check(folder, index, sources, steps):
    """An image is its name and number. `positions`: the paths at which it was when these were read last."""
    positions, ids = defaultdict(set), {}
    names = {source: write(folder, source, unique(source, rows)) for source, rows in sources.items()}
    now = {source: unique(source, rows) for source, rows in sources.items()}
    for step in steps:
        if isinstance(step, tuple):
            source, rows = step
            now[source] = unique(source, rows)
            write(folder, source, now[source])
            continue
        encoded = index.model.encoded
        if isinstance(step, int):
            if ids:
                gone = sorted(ids)[step % len(ids)]
                assert index.collection("images").remove([ids[gone]]) == 1
                del positions[gone], ids[gone]
            new = set()
        else:
            add(index, [names[source] for source in step])
            read = [(path_of(source, name), name, number) for source in step for name, number in now[source]]
            for image in list(positions):
                there = {path for path, name, _ in read if name == image[0]}
                positions[image] -= there - {path for path, *own in read if tuple(own) == image}
            for path, *image in read:
                positions[tuple(image)].add(path)
            positions = defaultdict(set, {image: paths for image, paths in positions.items() if paths})
            new = positions.keys() - ids.keys()
        found = list_items(index)
        by_image = {(parse_locations(item)[0].name, item.digest): one for one, item in found.items()}
        assert by_image.keys() == {(name, digest(number)) for name, number in positions}
        assert len(found) == len(positions) == len(index.collection("images"))
        again = {image: by_image[image[0], digest(image[1])] for image in positions}
        assert all(again[image] == ids[image] for image in ids.keys() & positions.keys())
        assert index.model.encoded - encoded == len(new)
        ids = again
        originals = Originals([folder])
        for (name, number), one in ids.items():
            item = found[one]
            assert {position.path for position in parse_locations(item)} == positions[name, number]
            assert one.startswith(name) and np.allclose(
                index.collection("images").get_embedding(one), make_number_vector(number), atol=1e-3
            )
            content = originals.read(item)
            assert content in (None, str(number).encode())
            files = {(path_of(source, name), name, number) for source, rows in now.items() for name, number in rows
                     if not source.startswith("shard")}  # fmt: skip
            if any((path, name, number) in files for path in positions[name, number]):
                assert content is not None


def unique(source, rows):
    """Shards alone have names twice."""
    return rows if source.startswith("shard") else list(dict(rows).items())


def counts(filled: FillResult):
    return filled.num_added, filled.num_replaced, filled.num_refreshed, filled.num_unchanged


def test_equal_names_in_two_sources_are_two_items(tmp_path):
    first, second = (write(tmp_path, f"folder{n}", [("same.png", n), ("own.png", 7)]) for n in (1, 2))
    with open_number_index(tmp_path) as index:
        assert counts(add(index, [first, second])) == (3, 0, 0, 1)  # own.png is the same in both
        ids = {item_id: item.digest for item_id, item in list_items(index).items()}
        assert counts(add(index, [second, first])) == (0, 0, 0, 4)
    (tmp_path / "apart").mkdir()
    with open_number_index(tmp_path / "apart") as index:
        assert [counts(add(index, [source])) for source in (first, second)] == [(2, 0, 0, 0), (1, 0, 0, 1)]
        assert {item_id: item.digest for item_id, item in list_items(index).items()} == ids


def test_a_name_that_looks_like_an_id_of_another_is_its_own(tmp_path):
    other = f"same.png ({digest(2).hex()[:8]})"
    sources = [
        write(tmp_path, f"shard{n}", [row]) for n, row in enumerate([("same.png", 1), (other, 3), ("same.png", 2)])
    ]
    for order in (sources, sources[::-1]):
        with TemporaryDirectory() as position, open_number_index(Path(position)) as index:
            for source in order:
                add(index, [source])
            for source in order:
                assert counts(add(index, [source])) == (0, 0, 0, 1)
            assert len(list_items(index)) == 3


def test_titles_and_prices_are_taken_over_without_encoding(tmp_path):
    table = Path(write(tmp_path, "table1", [("a.png", 1), ("b.png", 2)]))
    folder = str(table.parent)
    table.rename(tmp_path / "kept.csv")

    def tabled(*rows):
        with table.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["image", "caption", "price", "sku"], *rows])

    with open_number_index(tmp_path) as index:
        add(index, [folder])
        assert list_items(index)["a.png"].fields == {"file": "a.png"}
        tabled(("a.png", "red", 3, "00123"), ("b.png", "blue", 4, ""))
        filled = add(index, [folder])
        assert counts(filled) == (0, 0, 2, 0) and "2 refreshed" in str(filled)
        assert list_items(index)["a.png"].fields == {"caption": "red", "price": 3, "sku": "00123"}
        tabled(("a.png", "red", 3, "00123"), ("b.png", "blue", 5, "00124"))
        assert counts(add(index, [str(table)])) == (0, 0, 1, 1)
        assert list_items(index)["b.png"].fields == {"caption": "blue", "price": 5, "sku": "00124"}
        table.unlink()
        assert counts(add(index, [folder])) == (0, 0, 0, 2)  # which knows no more than the files
        assert list_items(index)["b.png"].fields["price"] == 5
        assert index.model.encoded == 2


FILE_NAMES = (
    st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & set(b"/\0")).map(lambda b: b + b".png")
)


@limit_examples(20)
@given(st.lists(FILE_NAMES.filter(lambda name: name[:1] != b"."), min_size=1, max_size=4, unique=True))
def test_files_of_any_name_are_indexed_and_served(names):
    with TemporaryDirectory() as position:
        folder = Path(position, "folder1")
        folder.mkdir()
        for number, name in enumerate(names):
            Path(folder, name.decode("utf-8", "surrogateescape")).write_bytes(str(number).encode())
        with open_number_index(Path(position)) as index:
            assert counts(add(index, [str(folder)])) == (len(names), 0, 0, 0)
            assert counts(add(index, [str(folder)])) == (0, 0, 0, len(names))
            found = list_items(index)
            assert sorted(Originals([position]).read(item) for item in found.values()) == sorted(
                str(number).encode() for number in range(len(names))
            )
            for one in chain(found, (item.fields["file"] for item in found.values())):
                one.encode()


@pytest.mark.parametrize(("name", "shown"), [("苹果.png".encode(), "苹果.png"), (b"caf\xe9.png", r"caf\xe9.png")])
def test_names_are_readable_whatever_their_encoding(tmp_path, name, shown):
    folder = tmp_path / "folder1"
    folder.mkdir()
    Path(folder, os.fsdecode(name)).write_bytes(b"1")
    with open_number_index(tmp_path) as index:
        add(index, [str(folder)])
        assert set(list_items(index)) == {shown} and Originals([tmp_path]).read(list_items(index)[shown]) == b"1"


def test_an_index_in_a_folder_of_any_name(tmp_path, monkeypatch, checkpoint, model, capsys):
    """What a command prints, index.json and locations take names that are not UTF-8."""
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
        assert Originals([home]).read(index.collection("images").get("果.png")) == image.read_bytes()
