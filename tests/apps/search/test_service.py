"""The server of the search page: its answers, and that hostile ids and fields neither run nor lead to a file."""

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


def test_answers_are_those_of_the_index(client, index):
    body = client.get("/v1/search", params={"q": "red disc", "count": 3}).json()
    assert [hit["id"] for hit in body["hits"]] == [hit.id for hit in index.search(texts=["red disc"], count=3)[0]]
    assert body["milliseconds"] > 0
    discs = client.get("/v1/search", params={"q": "x", "where": json.dumps({"kind": "disc"})}).json()["hits"]
    assert {hit["fields"]["kind"] for hit in discs} == {"disc"} and len(discs) == 4
    hits = client.post("/v1/search/image", params={"without": "bar", "count": 2}, content=IMAGE).json()["hits"]
    expected = index.combined([(1, IMAGE), (-1, "bar")], count=2)
    assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
    image_id = discs[0]["id"]
    similar = client.get("/v1/similar", params={"id": image_id}).json()["hits"]
    assert image_id not in [hit["id"] for hit in similar]
    assert len(client.get("/v1/tags", params={"id": image_id}).json()["hits"]) == 2
    for path in ("similar", "tags"):
        assert client.get(f"/v1/{path}", params={"id": "nobody"}).status_code == 404
    assert client.get("/health").json() == {"status": "ok", "model": index.title, "images": 17, "texts": 2}
    assert client.get("/v1/facets").json()["facets"]["kind"] == [[shape, 4] for shape in SHAPES]


def test_tags_of_an_uploaded_image_are_those_of_the_index(client, index):
    (expected,) = index.search(images=[IMAGE], count=1, among="texts")
    body = client.post("/v1/tags", params={"count": 1}, content=IMAGE).json()
    assert [(hit["id"], hit["score"]) for hit in body["hits"]] == [(hit.id, hit.score) for hit in expected]
    assert client.post("/v1/tags", content=b"<svg/>").status_code == 422


def test_tags_below_the_threshold_are_left_out(index):
    client = TestClient(build_app(index, threshold=1.0))
    image_id = client.get("/v1/search", params={"q": "red"}).json()["hits"][0]["id"]
    for response in (client.get("/v1/tags", params={"id": image_id}), client.post("/v1/tags", content=IMAGE)):
        assert response.status_code == 200 and response.json()["hits"] == []


def test_uploaded_images_are_never_decoded_by_opencv(client, monkeypatch):
    forbid_opencv(monkeypatch)
    for name, file in FILES.items():
        response = client.post("/v1/search/image", params={"count": 2}, content=file)
        assert (response.status_code, len(response.json()["hits"])) == (200, 2), name


def test_images_are_served_by_id_and_never_by_path(client, index):
    image_id = index.search(texts=["red"], where={"kind": "bar"})[0][0].id
    thumbnail = client.get("/thumbnail", params={"id": image_id})
    image = client.get("/image", params={"id": image_id})
    assert thumbnail.headers["content-type"] == "image/png" and image.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(image.content)).size == (32, 32)
    for path in ("/etc/passwd", "../../etc/passwd", "tests/conftest.py", "", "x" * 20_000):
        assert client.get("/image", params={"id": path}).status_code in (404, 422)
    # The location of this item is /etc/passwd, which is not an image: nothing of it is sent.
    response = client.get("/image", params={"id": HOSTILE})
    assert response.status_code == 404 and b"root:" not in response.content


def test_original_that_browsers_do_not_show_is_replaced_by_its_thumbnail(tmp_path, model):
    (tmp_path / "images").mkdir()
    Image.open(io.BytesIO(IMAGE)).save(tmp_path / "images" / "scan.tiff")
    folder = fill_index(tmp_path / "index", model, tmp_path / "images")
    with open_index(folder, model) as index:
        client = TestClient(build_app(index, roots=[tmp_path / "images"]))
        for address in ("/image", "/thumbnail"):
            answer = client.get(address, params={"id": "scan.tiff"})
            assert answer.status_code == 200 and answer.headers["content-type"] == "image/webp"


def test_thumbnail_is_cached_for_good_only_by_its_version(client):
    hit = client.get("/v1/search", params={"q": "red", "where": '{"kind": "disc"}'}).json()["hits"][0]
    immutable = client.get("/thumbnail", params={"id": hit["id"], "version": hit["version"]})
    assert "immutable" in immutable.headers["cache-control"]
    # Without the version, or with one of a former content, the browser has to ask each time.
    for version in ("", "0" * 32):
        response = client.get("/thumbnail", params={"id": hit["id"], "version": version})
        assert response.headers["cache-control"] == "no-cache" and response.content == immutable.content
    etag = immutable.headers["etag"]
    response = client.get("/thumbnail", params={"id": hit["id"]}, headers={"If-None-Match": etag})
    assert response.status_code == 304 and response.content == b"" and response.headers["etag"] == etag


def test_unreadable_index_answers_503_without_advice_to_remove(index, client, monkeypatch, capsys):
    def fail(*_, **options):
        raise OSError("items.sqlite: disk I/O error")

    monkeypatch.setattr(index, "search_embeddings", fail)
    assert client.get("/v1/search", params={"q": "red"}).status_code == 503
    log = capsys.readouterr().err
    assert "disk I/O error" in log and "remove" not in log and "Traceback" not in log


def test_pages_load_nothing_from_other_hosts(client):
    for path in ("/", "/docs", "/page.js", "/docs.js", "/words.js", "/page.css", "/base.css"):
        response = client.get(path)
        assert response.status_code == 200 and "http://" not in response.text and "https://" not in response.text
        policy = response.headers["content-security-policy"]
        assert "innerHTML" not in response.text and "default-src 'self'" in policy and "unsafe" not in policy
    answer = client.get("/v1/search", params={"q": "blue bar", "count": 1})
    assert answer.json()["hits"][0]["id"] == HOSTILE and answer.headers["content-type"] == "application/json"


def test_damaged_index_is_reported_as_a_fault_of_the_server(tmp_path, model, shapes, shapes_index, capsys):
    folder = tmp_path / "index"
    shutil.copytree(shapes_index, folder)
    with open_index(folder, model) as reader:
        client = TestClient(build_app(reader), raise_server_exceptions=False)
        # An index of another model takes the place of the one that is served.
        shutil.rmtree(folder)
        fill_index(folder, load_model(write_untrained_checkpoint(tmp_path, [*TOKENS, "猫"])), shapes["val"])
        for path, params in (("/v1/search", {"q": "red"}), ("/health", {}), ("/thumbnail", {"id": "x"})):
            response = client.get(path, params=params)
            assert response.status_code == 503 and str(tmp_path) not in response.text
        assert "is an index of" in capsys.readouterr().err
        shutil.rmtree(folder)
        shutil.copytree(shapes_index, folder)
        assert client.get("/readyz").json() == {"status": "ok"}
        (folder / "index.json").write_text("{")
        codes = [client.get(path).status_code for path in ("/health", "/health", "/readyz", "/healthz")]
        assert codes == [503, 503, 503, 200]  # /healthz only says that the process answers
