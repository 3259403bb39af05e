"""Original images are served only from folders that the operator names, whatever the locations in an index are."""

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
from ernie_vil2.apps.search.command import open_search
from ernie_vil2.apps.search.locations import OriginalImages, compute_digest, parse_locations
from ernie_vil2.apps.search.service import build_app
from ernie_vil2.apps.serving.metrics import Metrics
from ernie_vil2.apps.serving.middleware import Access
from ernie_vil2.cli import make_parser
from ernie_vil2.data.readers.locations import pipes_allowed
from tests.support import published_folders
from tests.support.shapes import draw, encode_png, write_tar, write_tsv
from tests.support.small_index import list_items, open_number_index

SECRET = b"a secret that the index's author knows as well"


def make_item(*location, content=SECRET):
    return Item("x", compute_digest(content), {}, location)


@pytest.fixture
def folders(tmp_path):
    """Return an allowed folder, with links and archives that lead out of it, and another one beside it."""
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    (allowed / "sub").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.png").write_bytes(SECRET)
    write_tar(outside / "secret.tar", [("0.png", SECRET), ("0.txt", b"a caption")])
    (allowed / "link.png").symlink_to(outside / "secret.png")
    (allowed / "sub" / "up").symlink_to("../../outside")
    (allowed / "table.csv").write_text("image,caption\nlink.png,a\nsub/up/secret.png,b\n")
    (allowed / "sub" / "0.png").symlink_to(outside / "secret.png")
    (allowed / "sub" / "0.txt").write_text("a caption")
    (allowed / "shards").mkdir()
    (allowed / "shards" / "0.tar").symlink_to(outside / "secret.tar")
    return allowed, outside


PATHS_OUTSIDE = ("link.png", "../outside/secret.png", "sub/up/secret.png", "sub/../../outside/secret.png",
                 "{outside}/secret.png", "{allowed}/../outside/secret.png", "{allowed}/link.png")  # fmt: skip


def test_files_outside_the_named_folders_are_not_served(folders):
    allowed, outside = folders
    paths = [path.format(allowed=allowed, outside=outside) for path in PATHS_OUTSIDE]
    shards = [("../outside/secret.tar", "x", 0), (f"{outside}/secret.tar", "x", 0), ("table.csv", "x", 0),
              ("table.csv", "x", 1), ("sub", "x", 0), ("shards", "x", 0), ("shards/0.tar", "x", 0),
              (".", "x", 0)]  # fmt: skip
    for location in [*((path, "x") for path in paths), *shards]:
        assert OriginalImages([allowed]).read(make_item(location)) is None, location
        assert OriginalImages([]).read(make_item(location)) is None, location
    # The same locations lead to the secret if both folders are named.
    for path in paths:
        assert OriginalImages([allowed, outside]).read(make_item((path, "x"))) == SECRET, path
    for path, _, row in shards[:7]:
        assert OriginalImages([allowed, outside]).read(make_item((path, "x", row))) == SECRET, path
    (outside / "secret.png").write_bytes(b"another image by now")
    assert OriginalImages([allowed, outside]).read(make_item(("link.png", "x"))) is None
    with pytest.raises(NotADirectoryError, match="nothing"):
        OriginalImages([allowed / "nothing"])


ADDRESSES = ("http://127.0.0.1:1/a.tar", "https://example.org/a.tar", "s3://bucket/a.tar", "pipe:touch touched",
             "list.txt", "{http://127.0.0.1:1/a.tar,b.tar}", "memory://a.tar")  # fmt: skip


def test_locations_use_no_network_and_run_no_command(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("the network was asked, or a command was run")

    for target in ("socket.socket.connect", "socket.getaddrinfo", "subprocess.run", "subprocess.Popen"):
        monkeypatch.setattr(target, fail)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("http://127.0.0.1:1/a.tar\npipe:touch touched\n")
    with pipes_allowed():
        for location in [*((address, "x") for address in ADDRESSES), *((address, "x", 0) for address in ADDRESSES)]:
            assert OriginalImages([tmp_path]).read(make_item(location)) is None, location
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=4))
def test_any_location_of_an_item_is_parsed_or_is_damage(location):
    try:
        locations = parse_locations(Item("x", b"", {}, location))
    except DamagedIndex as error:
        assert "x" in str(error)  # noqa: PT017  -- there may be no error
        return
    assert len(locations) == len(location)
    assert OriginalImages([Path(__file__).parent]).read(Item("x", b"", {}, location)) is None


def write_two_images(folder):
    write_tsv(folder / "a.tsv", [("a caption", f"{n}", content) for n, content in enumerate(CONTENTS)])


CONTENTS = [encode_png(draw((200, 30, 30), "disc", np.random.default_rng(seed))) for seed in range(2)]
WRITERS = (write_two_images, published_folders.write_coco_cn, published_folders.write_muge)


@pytest.mark.parametrize("write_data", WRITERS)
def test_originals_of_a_moved_index_are_found(tmp_path, monkeypatch, write_data):
    home = tmp_path / "home" / "data"
    home.mkdir(parents=True)
    write_data(home)
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setattr(
        "tests.support.small_index.NumberEncoder.decode", lambda self, content, name: np.zeros([8, 8, 3], np.uint8)
    )
    with open_number_index(tmp_path / "home") as index:
        # The index is filled from a relative path, and its originals are read from a copy elsewhere.
        records = [image.load() for image in list_images(["data"])]
        add_images(index, list_images(["data"]))
        shutil.copytree(tmp_path / "home", tmp_path / "away")
        shutil.rmtree(home)
        items = list_items(index)
        originals = OriginalImages([tmp_path / "away"])
        contents = {item_id: originals.read(item) for item_id, item in items.items()}
        assert contents == {record.name: record.content for record in records}
        assert all(OriginalImages([tmp_path / "home"]).read(item) is None for item in items.values())


@pytest.fixture(scope="module")
def home(tmp_path_factory, model):
    """Return a folder with two images and an index of them, which was filled from there."""
    home = tmp_path_factory.mktemp("home")
    (home / "photos").mkdir()
    # Noise as PNG is larger than a thumbnail may be, so that thumbnail and original differ.
    noise = np.random.default_rng(0).integers(0, 255, (100, 400, 3), np.uint8)
    for n in range(2):
        (home / "photos" / f"{n}.png").write_bytes(encode_png(noise + np.uint8(n)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        with open_index("index", model, writable=True) as index:
            add_images(index, list_images(["photos"]))
    return home


def request_image(index, name, roots=()):
    """Return the image that a server answers with, or the code of its error."""
    response = TestClient(build_app(index, roots=roots)).get("/image", params={"id": name})
    return response.content if response.status_code == 200 else response.status_code


def test_server_without_folders_answers_with_thumbnails(home, model, checkpoint, tmp_path):
    moved = shutil.copytree(home, tmp_path / "moved")
    original = (moved / "photos" / "0.png").read_bytes()
    shutil.rmtree(home / "photos")
    with open_index(moved / "index", model) as index:
        thumbnail = index.collection("images").get("0.png").thumbnail
        assert request_image(index, "0.png") == thumbnail != original
        assert request_image(index, "0.png", [moved]) == original
        # A file that no longer has the content that was indexed is not an original.
        (moved / "photos" / "0.png").write_bytes((moved / "photos" / "1.png").read_bytes())
        assert request_image(index, "0.png", [moved]) == thumbnail
        shutil.move(moved / "photos", moved / "index" / "photos")
        assert len(request_image(index, "1.png")) == len(original)  # the folder of the index itself is allowed
        assert request_image(index, "nothing.png") == 404
    arguments = ["serve", "--index", str(moved / "index"), "--checkpoint", str(checkpoint)]
    for options, folder in (([], "--root"), (["--root", str(moved)], str(moved))):
        args = make_parser("search").parse_args([*arguments, *options])
        with open_search(args, Metrics(), Access()) as application:
            assert folder in application.summary
