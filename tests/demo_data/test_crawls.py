"""The scripts of demo_data/crawls write crawls whose truth speaks of the rows that are there."""

import csv
import importlib
import json
import random
import subprocess
import sys
import tarfile

import pytest
from PIL import Image

from tests.support.paths import DEMO_DATA

SCRIPTS = [path for path in sorted((DEMO_DATA / "crawls").glob("*.py")) if "__main__" in path.read_text("utf-8")]


def import_crawl_script(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DEMO_DATA / "crawls"))
        return importlib.import_module(name)


def make_crawl(script, folder):
    command = [sys.executable, str(script), "--output", str(folder), "--rows", "300"]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603


def read_members(path):
    with tarfile.open(path) as shard:
        return {member.name: shard.extractfile(member).read() for member in shard}


@pytest.fixture(scope="module", params=SCRIPTS, ids=lambda path: path.stem)
def script(request):
    return request.param


@pytest.fixture(scope="module")
def crawl(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp(script.stem)
    make_crawl(script, folder)
    return folder


@pytest.fixture
def truth(crawl):
    with (crawl / "truth.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_equal_arguments_give_equal_bytes(script, crawl, tmp_path):
    make_crawl(script, tmp_path)
    names = [path.relative_to(crawl) for path in sorted(crawl.rglob("*")) if path.is_file()]
    assert names == [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert all((crawl / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_truth_has_the_keys_of_the_shards(crawl, truth):
    records = []
    for path in sorted(crawl.glob("*.tar")):
        members = read_members(path)
        stems = [name.split(".")[0] for name in members]
        assert sorted(stems) == sorted(2 * list(dict.fromkeys(stems)))  # an image and a JSON each
        records += [json.loads(content) for name, content in members.items() if name.endswith(".json")]
    assert [record["key"] for record in records] == [row["key"] for row in truth]
    assert all(record["caption"] for record in records)


def test_truth_refers_to_existing_rows(crawl, truth):
    keys = {row["key"] for row in truth}
    test_keys = {name.split(".")[0] for name in read_members(crawl / "benchmark" / "test.tar")}
    assert not keys & test_keys
    for row in truth:
        targets = test_keys if row["group"] == "leak" else keys
        if row["group"] in ("copy", "leak", "local"):
            assert row["of"] in targets
        assert row["of"] in {"", *targets}
        assert row["like"] in {"", *keys, *test_keys}
        assert row["keep"] in {"", *keys}


def test_half_of_a_crawl_is_good(truth):
    groups = [row["group"] for row in truth]
    assert set(groups) <= {"good", "copy", "text", "image", "mismatch", "leak", "local"}
    assert groups.count("good") * 2 >= len(groups) * 0.95  # rounding at so few rows


def test_captions_to_trim_hold_the_clean_caption(crawl, truth):
    captions = {}
    for path in crawl.glob("*.tar"):
        for name, content in read_members(path).items():
            if name.endswith(".json"):
                captions[name.split(".")[0]] = json.loads(content)["caption"]
    trimmed = [row for row in truth if row["clean"]]
    assert trimmed
    for row in trimmed:
        assert row["kind"].startswith("good_with_")
        assert row["clean"] in captions[row["key"]]
        assert row["clean"] != captions[row["key"]]


def test_shards_of_an_earlier_longer_crawl_are_removed(tmp_path):
    making = import_crawl_script("making")
    crawl = making.Crawl(random.Random(0))  # noqa: S311
    row = crawl.add(Image.new("RGB", (8, 8)), "a caption")
    (tmp_path / "00001.tar").write_bytes(b"of somebody else")
    crawl.write(tmp_path)
    assert (tmp_path / "00001.tar").read_bytes() == b"of somebody else"
    crawl.rows = [row] * (making.ROWS_PER_SHARD + 1)
    crawl.write(tmp_path)
    crawl.rows = [row]
    crawl.write(tmp_path)
    assert [path.name for path in tmp_path.glob("*.tar")] == ["00000.tar"]


def test_folder_without_photographs_and_too_few_rows_are_refused(tmp_path, monkeypatch, capsys):
    making = import_crawl_script("making")
    for option, value in (("--images", tmp_path / "gone"), ("--rows", 20)):
        monkeypatch.setattr(sys, "argv", ["shop.py", "--output", str(tmp_path), option, str(value)])
        with pytest.raises(SystemExit):
            making.parse_arguments("")
        assert f"{option}: " in capsys.readouterr().err
    (tmp_path / "peak.JPG").write_bytes(b"")
    assert [path.name for path in making.list_photographs(tmp_path)] == ["peak.JPG"]


def test_cards_come_again_when_all_were_made():
    pictures = import_crawl_script("social_pictures")
    making = import_crawl_script("making")
    rng = random.Random(0)  # noqa: S311
    shelf = pictures.Shelf(("emoji-val.tar",))
    studio = pictures.Studio(shelf, making.PhotoSource(None, rng, 1), making.Signs(None), rng)
    num_quotes = len(pictures.texts.QUOTES) * len(pictures.texts.COLOURS)
    for _ in range(num_quotes + 1):
        studio.make_quote()
    assert len(studio.designs) == num_quotes
    num_posts = len(pictures.texts.POSTS) * len(pictures.texts.HANDLES)
    for _ in range(num_posts + 1):
        studio.make_text_post()
    assert len(studio.designs) == num_quotes + num_posts


def test_plates_of_one_thing_end_with_the_drawings():
    encyclopedia = import_crawl_script("encyclopedia")
    making = import_crawl_script("making")
    rng = random.Random(0)  # noqa: S311
    cabinet = encyclopedia.Cabinet(("emoji-val.tar",), rng)
    draughtsman = encyclopedia.Draughtsman(cabinet, making.Signs(None), rng)
    library = encyclopedia.Library(making.Crawl(rng), draughtsman, draughtsman, None, None, None, 300)
    for drawings in cabinet.drawings.values():
        cabinet.used += drawings
        drawings.clear()
    assert len(library.make_other_style()) == 2
