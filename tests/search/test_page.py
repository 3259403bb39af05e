"""The page in a real browser: Debian's chromium, headless. `python -m pytest -m browser`."""

import shutil
import subprocess
import threading
import time

import pytest
import uvicorn

from ernie_vil2.search import open_index
from ernie_vil2.search.collection import Item
from ernie_vil2.search.fill import add_images, add_texts, pictures
from ernie_vil2.search.service import build_app
from tests.conftest import PATIENCE

HOSTILE = "<img src=x onerror=\"document.title='run'\">"
CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason="needs chromium: apt-get install chromium")]


@pytest.fixture(scope="module")
def address(tmp_path_factory, model, shapes):
    folder = tmp_path_factory.mktemp("page")
    with open_index(folder / "index", model, writable=True) as index:
        add_images(index, pictures([str(shapes["val"])]))
        add_texts(index, ["red disc"])
        vector = model.encode_texts(["blue bar"])
        index.collection("images").add([Item("hostile", b"", {"caption_en": HOSTILE})], vector)
    with open_index(folder / "index", model) as index:
        server = uvicorn.Server(uvicorn.Config(build_app(index), port=0, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join()


def browse(tmp_path, *arguments):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", *arguments]  # fmt: skip
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout


def test_a_sentence_becomes_pictures_and_hostile_captions_stay_text(address, tmp_path):
    dom = browse(tmp_path, "--dump-dom", f"{address}/?q=blue%20bar")
    assert dom.count("<li>") == 17 and "17 pictures in" in dom
    assert "&lt;img src=x onerror=" in dom and "<title>ERNIE-ViL 2.0 search</title>" in dom
    assert 'lang="zh"' in dom and "a blue bar · 蓝色的条" in dom  # languages side by side
    assert '<option value="&quot;disc&quot;">disc (4)</option>' not in dom  # the index was not built, so has no facets


def test_the_api_page_lists_every_path(address, tmp_path):
    dom = browse(tmp_path, "--dump-dom", f"{address}/docs")
    for path in ("GET /api/search", "POST /api/search", "GET /api/similar", "GET /health"):
        assert path in dom


@pytest.mark.parametrize("size", ["1200,900", "390,844"])
def test_a_picture_of_the_page_is_taken_at_the_width_of_a_screen_and_of_a_phone(address, tmp_path, size):
    shot = tmp_path / "page.png"
    browse(tmp_path, f"--screenshot={shot}", f"--window-size={size}", f"{address}/?q=red%20disc")
    assert shot.stat().st_size > 5_000
