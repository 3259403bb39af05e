"""Where originals are served from: folders that an operator names, whatever an index says."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.apps.search import DamagedIndex, open_index
from ernie_vil2.apps.search.add_items import add_images, list_images
from ernie_vil2.apps.search.collection import Item
from ernie_vil2.apps.search.locations import Originals, compute_digest, parse_locations
from ernie_vil2.apps.search.server import Settings, serve
from ernie_vil2.apps.search.service import build_app
from ernie_vil2.data.readers.locations import pipes_allowed
from tests.support import published_folders
from tests.support.shapes import draw, encode_png, write_tar, write_tsv
from tests.support.small_index import list_items, open_number_index

SECRET = b"a secret that the index's author knows as well"


def item(*location, content=SECRET):
    return Item("x", compute_digest(content), {}, location)


@pytest.fixture
def folders(tmp_path):
    """An allowed folder with links and archives that lead out of it, next to one that is not allowed."""
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    (allowed / "sub").mkdir(parents=True)
    other.mkdir()
    (other / "secret.png").write_bytes(SECRET)
    write_tar(other / "secret.tar", [("0.png", SECRET), ("0.txt", b"a caption")])
    (allowed / "link.png").symlink_to(other / "secret.png")
    (allowed / "sub" / "up").symlink_to("../../other")
    (allowed / "table.csv").write_text("image,caption\nlink.png,a\nsub/up/secret.png,b\n")
    (allowed / "sub" / "0.png").symlink_to(other / "secret.png")
    (allowed / "sub" / "0.txt").write_text("a caption")
    (allowed / "shards").mkdir()
    (allowed / "shards" / "0.tar").symlink_to(other / "secret.tar")
    return allowed, other


LEADING_OUT = ("link.png", "../other/secret.png", "sub/up/secret.png", "sub/../../other/secret.png",
               "{other}/secret.png", "{allowed}/../other/secret.png", "{allowed}/link.png")  # fmt: skip


def test_nothing_outside_the_named_folders_is_served(folders):
    allowed, other = folders
    paths = [path.format(allowed=allowed, other=other) for path in LEADING_OUT]
    shards = [("../other/secret.tar", "x", 0), (f"{other}/secret.tar", "x", 0), ("table.csv", "x", 0),
              ("table.csv", "x", 1), ("sub", "x", 0), ("shards", "x", 0), ("shards/0.tar", "x", 0),
              (".", "x", 0)]  # fmt: skip
    for location in [*((path, "x") for path in paths), *shards]:
        assert Originals([allowed]).read(item(location)) is None, location
        assert Originals([]).read(item(location)) is None, location
    for path in paths:
        assert Originals([allowed, other]).read(item((path, "x"))) == SECRET, path
    for path, _, row in shards[:7]:
        assert Originals([allowed, other]).read(item((path, "x", row))) == SECRET, path
    (other / "secret.png").write_bytes(b"another image by now")
    assert Originals([allowed, other]).read(item(("link.png", "x"))) is None
    with pytest.raises(NotADirectoryError, match="nothing"):
        Originals([allowed / "nothing"])


ADDRESSES = ("http://127.0.0.1:1/a.tar", "https://example.org/a.tar", "s3://bucket/a.tar", "pipe:touch touched",
             "list.txt", "{http://127.0.0.1:1/a.tar,b.tar}", "memory://a.tar")  # fmt: skip


def test_no_location_asks_the_network_or_runs_a_command(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise AssertionError("the network was asked, or a command was run")

    for target in ("socket.socket.connect", "socket.getaddrinfo", "subprocess.run", "subprocess.Popen"):
        monkeypatch.setattr(target, refused)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("http://127.0.0.1:1/a.tar\npipe:touch touched\n")
    with pipes_allowed():
        for location in [*((address, "x") for address in ADDRESSES), *((address, "x", 0) for address in ADDRESSES)]:
            assert Originals([tmp_path]).read(item(location)) is None, location
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=4))
def test_any_value_is_a_list_of_locations_or_damage(location):
    try:
        found = parse_locations(Item("x", b"", {}, location))
    except DamagedIndex as error:
        assert "x" in str(error)  # noqa: PT017  -- there may be no error
        return
    assert len(found) == len(location)
    assert Originals([Path(__file__).parent]).read(Item("x", b"", {}, location)) is None


def tsv(folder):
    write_tsv(folder / "a.tsv", [("a caption", f"{n}", content) for n, content in enumerate(CONTENTS)])


CONTENTS = [encode_png(draw((200, 30, 30), "disc", np.random.default_rng(seed))) for seed in range(2)]
LAYOUTS = (tsv, published_folders.write_coco_cn, published_folders.write_muge)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_originals_of_every_layout_are_found_elsewhere(tmp_path, monkeypatch, layout):
    """The index was filled with relative paths; it is served from a copy at another position."""
    home = tmp_path / "home" / "data"
    home.mkdir(parents=True)
    layout(home)
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setattr(
        "tests.support.small_index.NumberEncoder.decode", lambda self, content, name: np.zeros([8, 8, 3], np.uint8)
    )
    with open_number_index(tmp_path / "home") as index:
        read = [image.load() for image in list_images(["data"])]
        add_images(index, list_images(["data"]))
        shutil.copytree(tmp_path / "home", tmp_path / "away")
        shutil.rmtree(home)
        found = list_items(index)
        originals = Originals([tmp_path / "away"])
        assert {one: originals.read(item) for one, item in found.items()} == {one.name: one.content for one in read}
        assert all(Originals([tmp_path / "home"]).read(item) is None for item in found.values())


@pytest.fixture(scope="module")
def built(tmp_path_factory, model):
    """A folder with images and an index of them, filled from there."""
    home = tmp_path_factory.mktemp("built")
    (home / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (100, 400, 3), np.uint8)
    for n in range(2):
        (home / "photos" / f"{n}.png").write_bytes(encode_png(noise + np.uint8(n)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        with open_index("index", model, writable=True) as index:
            add_images(index, list_images(["photos"]))
    return home


def served(index, name, roots=()):
    response = TestClient(build_app(index, roots=roots)).get("/image", params={"id": name})
    return response.content if response.status_code == 200 else response.status_code


def test_a_server_shows_thumbnails_unless_it_is_given_folders(built, model, tmp_path, monkeypatch, capsys):
    moved = shutil.copytree(built, tmp_path / "moved")
    original = (moved / "photos" / "0.png").read_bytes()
    shutil.rmtree(built / "photos")
    monkeypatch.setattr("ernie_vil2.apps.search.server.run_server", lambda _, listener: listener.close())
    with open_index(moved / "index", model) as index:
        thumbnail = index.collection("images").get("0.png").thumbnail
        assert served(index, "0.png") == thumbnail != original
        assert served(index, "0.png", [moved]) == original
        (moved / "photos" / "0.png").write_bytes((moved / "photos" / "1.png").read_bytes())
        assert served(index, "0.png", [moved]) == thumbnail
        shutil.move(moved / "photos", moved / "index" / "photos")
        assert len(served(index, "1.png")) == len(original)  # in the index's own folder
        assert served(index, "nothing.png") == 404
    for roots in ([], [moved]):
        serve(lambda: open_index(moved / "index", model), Settings(port=0, roots=roots))
    output = capsys.readouterr().out
    assert "thumbnails alone; --root names folders" in output and f"images in full: {moved}" in output
