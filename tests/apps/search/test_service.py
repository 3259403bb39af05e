"""The page's server: answers, bounds, and nothing of a stranger's that runs or leads to a file."""

import io
import json
import shutil

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from ernie_vil2 import load_model
from ernie_vil2.apps.search import open_index
from ernie_vil2.apps.search.add_items import optimize_collection
from ernie_vil2.apps.search.collection import Item
from ernie_vil2.apps.search.service import build_app
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.image_formats import FILES, forbid_opencv
from tests.support.shapes import SHAPES
from tests.support.small_index import IMAGE, TOKENS, fill_index

HOSTILE = '"><script>alert(1)</script>/../../etc/passwd'


@pytest.fixture(scope="module")
def index(tmp_path_factory, model, shapes_index):
    folder = tmp_path_factory.mktemp("service") / "index"
    shutil.copytree(shapes_index, folder)
    with open_index(folder, model, writable=True) as index:
        item = Item(HOSTILE, b"", {"caption_en": HOSTILE}, [["/etc/passwd", "x"]])
        index.collection("images").add([item], model.encode_texts(["blue bar"]))
        optimize_collection(index, "images", None, 0.98, lambda line: None)
    with open_index(folder, model) as index:
        yield index


@pytest.fixture
def client(index):
    return TestClient(build_app(index), raise_server_exceptions=False)


def test_answers(client, index):
    body = client.get("/api/v1/search", params={"q": "red disc", "count": 3}).json()
    assert [hit["id"] for hit in body["hits"]] == [hit.id for hit in index.search(texts=["red disc"], count=3)[0]]
    assert body["milliseconds"] > 0
    discs = client.get("/api/v1/search", params={"q": "x", "where": json.dumps({"kind": "disc"})}).json()["hits"]
    assert {hit["fields"]["kind"] for hit in discs} == {"disc"} and len(discs) == 4
    posted = client.post("/api/v1/search/image", params={"without": "bar", "count": 2}, content=IMAGE).json()["hits"]
    expected = index.combined([(1, IMAGE), (-1, "bar")], count=2)
    assert [hit["id"] for hit in posted] == [hit.id for hit in expected]
    name = discs[0]["id"]
    assert name not in [hit["id"] for hit in client.get("/api/v1/similar", params={"id": name}).json()["hits"]]
    assert len(client.get("/api/v1/tags", params={"id": name}).json()["hits"]) == 2
    assert {client.get(f"/api/v1/{path}", params={"id": "nobody"}).status_code for path in ("similar", "tags")} == {404}
    assert client.get("/health").json() == {"status": "ok", "model": index.title, "images": 17, "texts": 2}
    assert dict(client.get("/api/v1/facets").json())["kind"] == [[shape, 4] for shape in SHAPES]


def test_tags_of_an_image_that_is_sent(client, index):
    (expected,) = index.search(images=[IMAGE], count=1, among="texts")
    body = client.post("/api/v1/tags", params={"count": 1}, content=IMAGE).json()
    assert [(hit["id"], hit["score"]) for hit in body["hits"]] == [(hit.id, hit.score) for hit in expected]
    assert client.post("/api/v1/tags", content=b"<svg/>").status_code == 422


def test_no_tag_is_below_the_threshold(index):
    client = TestClient(build_app(index, threshold=1.0))
    name = client.get("/api/v1/search", params={"q": "red"}).json()["hits"][0]["id"]
    for answer in (client.get("/api/v1/tags", params={"id": name}), client.post("/api/v1/tags", content=IMAGE)):
        assert answer.status_code == 200 and answer.json()["hits"] == []


def test_queries_of_any_format_are_not_decoded_by_opencv(client, monkeypatch):
    forbid_opencv(monkeypatch)
    for name, file in FILES.items():
        sent = client.post("/api/v1/search/image", params={"count": 2}, content=file)
        assert (sent.status_code, len(sent.json()["hits"])) == (200, 2), name


def test_images_are_served_by_id_and_never_by_path(client, index):
    name = index.search(texts=["red"], where={"kind": "bar"})[0][0].id
    small, large = (client.get(path, params={"id": name}) for path in ("/thumbnail", "/image"))
    assert small.headers["content-type"] == "image/png" and large.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(large.content)).size == (32, 32)
    for path in ("/etc/passwd", "../../etc/passwd", "tests/conftest.py", "", "x" * 20_000):
        assert client.get("/image", params={"id": path}).status_code in (404, 422)
    # Of an item whose location is not an image, nothing is shown.
    leaked = client.get("/image", params={"id": HOSTILE})
    assert leaked.status_code == 404 and b"root:" not in leaked.content


def test_thumbnails_are_cached_by_their_content(client):
    hit = client.get("/api/v1/search", params={"q": "red", "where": '{"kind": "disc"}'}).json()["hits"][0]
    lasting = client.get("/thumbnail", params={"id": hit["id"], "version": hit["version"]})
    assert "immutable" in lasting.headers["cache-control"]
    for version in ("", "0" * 32):
        other = client.get("/thumbnail", params={"id": hit["id"], "version": version})
        assert other.headers["cache-control"] == "no-cache" and other.content == lasting.content
    tag = lasting.headers["etag"]
    again = client.get("/thumbnail", params={"id": hit["id"]}, headers={"If-None-Match": tag})
    assert again.status_code == 304 and again.content == b"" and again.headers["etag"] == tag


def test_an_index_that_cannot_be_read_now_is_not_to_be_removed(index, client, monkeypatch, capsys):
    def search(*_, **options):
        raise OSError("items.sqlite: disk I/O error")

    monkeypatch.setattr(index, "search_embeddings", search)
    assert client.get("/api/v1/search", params={"q": "red"}).status_code == 503
    log = capsys.readouterr().err
    assert "disk I/O error" in log and "remove" not in log and "Traceback" not in log


def test_pages_load_nothing_from_elsewhere(client):
    for path in ("/", "/docs", "/page.js", "/docs.js", "/words.js", "/page.css"):
        response = client.get(path)
        assert response.status_code == 200 and "http://" not in response.text and "https://" not in response.text
        policy = response.headers["content-security-policy"]
        assert "innerHTML" not in response.text and "default-src 'self'" in policy and "unsafe" not in policy
    answer = client.get("/api/v1/search", params={"q": "blue bar", "count": 1})
    assert answer.json()["hits"][0]["id"] == HOSTILE and answer.headers["content-type"] == "application/json"


def test_a_bad_index_beneath_the_server_is_not_the_clients_fault(tmp_path, model, shapes, shapes_index, capsys):
    folder = tmp_path / "index"
    shutil.copytree(shapes_index, folder)
    with open_index(folder, model) as reader:
        client = TestClient(build_app(reader), raise_server_exceptions=False)
        shutil.rmtree(folder)
        fill_index(folder, load_model(write_untrained_checkpoint(tmp_path, [*TOKENS, "猫"])), shapes["val"])
        for path, params in (("/api/v1/search", {"q": "red"}), ("/health", {}), ("/thumbnail", {"id": "x"})):
            response = client.get(path, params=params)
            assert response.status_code == 503 and str(tmp_path) not in response.text
        assert "is an index of" in capsys.readouterr().err
        shutil.rmtree(folder)
        shutil.copytree(shapes_index, folder)
        assert client.get("/readyz").json() == {"status": "ok"}
        (folder / "index.json").write_text("{")
        codes = [client.get(path).status_code for path in ("/health", "/health", "/readyz", "/healthz")]
        assert codes == [503, 503, 503, 200]
