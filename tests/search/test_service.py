"""The page's server: answers, bounds, and nothing of a stranger's that runs or leads to a file."""

import io
import json
import shutil

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import ernie_vil2
from ernie_vil2.search import middleware, open_index
from ernie_vil2.search.collection import Item
from ernie_vil2.search.fill import add_images, add_texts, build, images_in
from ernie_vil2.search.middleware import LOOPBACK, Access
from ernie_vil2.search.service import build_app
from tests.search.conftest import TOKENS
from tests.support.checkpoints import untrained_checkpoint
from tests.support.image_formats import FILES, forbid_opencv
from tests.support.shapes import SHAPES, draw, png

HOSTILE = '"><script>alert(1)</script>/../../etc/passwd'


@pytest.fixture(scope="module")
def index(tmp_path_factory, model, shapes):
    folder = tmp_path_factory.mktemp("service")
    with open_index(folder / "index", model, writable=True) as index:
        add_images(index, images_in([str(shapes["val"])]))
        add_texts(index, ["red disc", "green square"])
        vector = model.encode_texts(["blue bar"])
        index.collection("images").add([Item(HOSTILE, b"", {"caption_en": HOSTILE}, [["/etc/passwd", "x"]])], vector)
        build(index, "images", None, 0.98, lambda line: None)
    with open_index(folder / "index", model) as index:
        yield index


@pytest.fixture
def client(index):
    return TestClient(build_app(index), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def image():
    return png(draw((200, 30, 30), "disc", np.random.default_rng(0)))


def test_answers(client, index, image):
    body = client.get("/api/v1/search", params={"q": "red disc", "count": 3}).json()
    assert [hit["id"] for hit in body["hits"]] == [hit.id for hit in index.search(texts=["red disc"], count=3)[0]]
    assert body["milliseconds"] > 0
    discs = client.get("/api/v1/search", params={"q": "x", "where": json.dumps({"kind": "disc"})}).json()["hits"]
    assert {hit["fields"]["kind"] for hit in discs} == {"disc"} and len(discs) == 4
    posted = client.post("/api/v1/search/image", params={"without": "bar", "count": 2}, content=image).json()["hits"]
    expected = index.combined([(1, image), (-1, "bar")], count=2)
    assert [hit["id"] for hit in posted] == [hit.id for hit in expected]
    name = discs[0]["id"]
    assert name not in [hit["id"] for hit in client.get("/api/v1/similar", params={"id": name}).json()["hits"]]
    assert len(client.get("/api/v1/tags", params={"id": name}).json()["hits"]) == 2
    assert client.get("/health").json() == {"status": "ok", "model": index.title, "images": 17, "texts": 2}
    assert dict(client.get("/api/v1/facets").json())["kind"] == [[shape, 4] for shape in SHAPES]


def test_a_threshold_leaves_no_tag_where_nothing_is_close_enough(index):
    client = TestClient(build_app(index, threshold=1.0))
    name = client.get("/api/v1/search", params={"q": "red"}).json()["hits"][0]["id"]
    assert client.get("/api/v1/tags", params={"id": name}).json()["hits"] == []


def test_tags_of_an_image_that_is_sent(client, index, image):
    (expected,) = index.search(images=[image], count=1, among="texts")
    body = client.post("/api/v1/tags", params={"count": 1}, content=image).json()
    assert [(hit["id"], hit["score"]) for hit in body["hits"]] == [(hit.id, hit.score) for hit in expected]
    none = TestClient(build_app(index, threshold=1.0)).post("/api/v1/tags", content=image)
    assert none.status_code == 200 and none.json()["hits"] == []
    assert client.post("/api/v1/tags", content=b"<svg/>").status_code == 422


def test_an_image_of_any_format_is_searched_for_without_the_decoders_of_opencv(client, monkeypatch):
    forbid_opencv(monkeypatch)
    for name, file in FILES.items():
        sent = client.post("/api/v1/search/image", params={"count": 2}, content=file)
        assert (sent.status_code, len(sent.json()["hits"])) == (200, 2), name


def test_images_are_served_by_id_and_never_by_path(client, index):
    name = index.search(texts=["red"], where={"kind": "bar"})[0][0].id
    small, large = client.get("/thumbnail", params={"id": name}), client.get("/image", params={"id": name})
    assert small.headers["content-type"] == "image/png" and large.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(large.content)).size == (32, 32)
    assert client.get("/picture", params={"id": name}).status_code == 404
    for path in ("/etc/passwd", "../../etc/passwd", "tests/conftest.py", "", "x" * 20_000):
        assert client.get("/image", params={"id": path}).status_code in (404, 422)
    # Of an item whose location is not an image, nothing is shown.
    leaked = client.get("/image", params={"id": HOSTILE})
    assert leaked.status_code == 404 and b"root:" not in leaked.content


@pytest.mark.parametrize(
    ("path", "params", "code"),
    [
        ("/api/v1/search", {"q": " "}, 422),
        ("/api/v1/search", {"q": "x" * 20_000}, 422),
        ("/api/v1/search", {"q": "x", "count": 0}, 422),
        ("/api/v1/search", {"q": "x", "count": 10_000}, 422),
        ("/api/v1/search", {"q": "x", "among": "sounds"}, 422),
        ("/api/v1/search", {"q": "x", "where": "[1]"}, 422),
        ("/api/v1/search", {"q": "x", "where": "[" * 20_000}, 422),
        ("/api/v1/search", {"q": "x", "where": '{"a": {"b": 1}}'}, 422),
        ("/api/v1/search", {"q": "x", "where": '{"a\\"b": 1}'}, 422),
        ("/api/v1/search", {"q": "x", "where": '{"a": 1' + "0" * 30 + "}"}, 422),
        ("/api/v1/search", {"q": "x", "where": json.dumps({"a": list(range(2000))})}, 422),
        ("/api/v1/search", {"q": "x", "where": '{"\\ud800": 1}'}, 422),
        ("/api/v1/search", {"q": "x", "threshold": "nan"}, 422),
        ("/api/v1/similar", {"id": "nobody"}, 404),
        ("/api/v1/tags", {"id": "nobody"}, 404),
        ("/nothing", {}, 404),
    ],
)
def test_bad_questions_are_explained(client, path, params, code):
    response = client.get(path, params=params)
    assert response.status_code == code and "Traceback" not in response.text and len(response.text) < 2000


@pytest.mark.parametrize("depth", [2, 100, 900, 3000])
@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a": ', "}")])
def test_a_filter_of_any_depth_is_explained(client, opened, closed, depth):
    where = f'{{"a": {depth * opened}1{depth * closed}}}'
    response = client.get("/api/v1/search", params={"q": "red", "where": where})
    detail = response.json()["detail"]
    assert response.status_code == 422 and ("takes a text, a number" in detail or "nested too deeply" in detail)


@pytest.mark.parametrize("fields", [1, 100, 101, 999, 1000])
def test_a_filter_of_any_size_never_makes_the_index_look_damaged(client, fields):
    where = json.dumps({f"field {number}": 1 for number in range(fields)})
    response = client.get("/api/v1/search", params={"q": "red", "where": where})
    reason = "no item has a field" if fields <= 100 else f"a filter of {fields:,} fields; at most 100 are taken"
    assert response.status_code == 422 and response.json()["detail"].startswith(reason)


def test_an_index_that_cannot_be_read_now_is_not_to_be_removed(index, monkeypatch, capsys):
    def search(*_, **options):
        raise OSError("items.sqlite: disk I/O error")

    client = TestClient(build_app(index), raise_server_exceptions=False)
    monkeypatch.setattr(index, "closest", search)
    assert client.get("/api/v1/search", params={"q": "red"}).status_code == 503
    log = capsys.readouterr().err
    assert "disk I/O error" in log and "remove" not in log and "Traceback" not in log


@pytest.mark.parametrize("path", ["/", "/health", "/page.js", "/api/v1/search?q=red", "/nothing"])
def test_head_is_get_without_its_content(client, path):
    got, head = client.get(path), client.head(path)
    lengths = [answer.headers.get("content-length") for answer in (got, head)] if "search" not in path else [1, 1]
    assert head.status_code == got.status_code and head.content == b"" and lengths[0] == lengths[1]
    assert head.headers["content-type"] == got.headers["content-type"] and "x-content-type-options" in head.headers


def test_uploads_are_bounded(client, monkeypatch):
    monkeypatch.setattr(middleware, "MOST_BYTES", 1000)
    assert client.post("/api/v1/search/image", content=b"x" * 1001).status_code == 413
    bomb = b"\x89PNG\r\n\x1a\n" + bytes.fromhex("0000000d49484452000100000001000008020000")
    for content in (bomb, b"", b"<svg/>", b"%PDF-1.4"):
        response = client.post("/api/v1/search/image", content=content)
        assert response.status_code == 422 and response.json()["detail"]


def test_pages_load_nothing_from_elsewhere_and_hostile_text_is_data(client):
    for path in ("/", "/docs", "/page.js", "/docs.js", "/words.js", "/page.css"):
        response = client.get(path)
        assert response.status_code == 200 and "http://" not in response.text and "https://" not in response.text
        policy = response.headers["content-security-policy"]
        assert "innerHTML" not in response.text and "default-src 'self'" in policy and "unsafe" not in policy
    answer = client.get("/api/v1/search", params={"q": "blue bar", "count": 1})
    assert answer.json()["hits"][0]["id"] == HOSTILE and answer.headers["content-type"] == "application/json"


def test_an_index_that_is_damaged_or_of_another_model_beneath_the_server_is_not_a_fault_of_the_client(
    tmp_path, model, shapes, capsys
):
    def built(maker):
        shutil.rmtree(tmp_path / "index", ignore_errors=True)
        with open_index(tmp_path / "index", maker, writable=True) as writer:
            add_images(writer, images_in([str(shapes["val"])]))

    built(model)
    with open_index(tmp_path / "index", model) as reader:
        client = TestClient(build_app(reader), raise_server_exceptions=False)
        assert client.get("/health").json()["images"] == 16
        built(ernie_vil2.load_model(untrained_checkpoint(tmp_path, [*TOKENS, "猫"])))
        for path, params in (("/api/v1/search", {"q": "red"}), ("/health", {}), ("/thumbnail", {"id": "x"})):
            response = client.get(path, params=params)
            assert response.status_code == 503 and str(tmp_path) not in response.text
        assert "is an index of" in capsys.readouterr().err
        built(model)
        assert client.get("/health").json()["images"] == 16
        (tmp_path / "index" / "index.json").write_text("{")
        assert [client.get("/health").status_code for _ in range(2)] == [503, 503]


def test_another_name_does_not_lead_here(index):
    client = TestClient(build_app(index, access=Access(LOOPBACK)), base_url="http://127.0.0.1:8000")
    assert client.get("/health").status_code == 200
    for host, code in (("localhost:80", 200), ("[::1]:8000", 200), ("evil.example", 400), ("[::2]", 400)):
        assert client.get("/health", headers={"host": host}).status_code == code


def test_the_server_follows_an_index_that_is_changed_beneath_it(tmp_path, model, shapes):
    with open_index(tmp_path / "index", model, writable=True) as writer:
        add_images(writer, images_in([str(shapes["val"])]))
        with open_index(tmp_path / "index", model) as reader:
            client = TestClient(build_app(reader))
            assert client.get("/health").json()["images"] == 16
            gone = client.get("/api/v1/search", params={"q": "red"}).json()["hits"][0]["id"]
            writer.collection("images").remove([gone])
            build(writer, "images", "ivf", 0.9, lambda line: None)
            hits = client.get("/api/v1/search", params={"q": "red"}).json()["hits"]
            assert len(hits) == 15 and gone not in {hit["id"] for hit in hits}
