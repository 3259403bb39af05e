"""/api/v1: batches, embeddings as clients of OpenAI's interface ask for them, and changes of items."""

import base64
import re
import shutil

import numpy as np
import pytest
from fastapi.testclient import TestClient

from ernie_vil2.apps.search import api, image_decoding, open_index
from ernie_vil2.apps.search.service import build_app
from ernie_vil2.io import locks
from tests.support.paths import ROOT
from tests.support.small_index import IMAGE
from tests.support.sockets import RunningServer

IN_BASE64 = base64.b64encode(IMAGE).decode()
DATA_URL = f"data:image/png;base64,{IN_BASE64}"


@pytest.fixture
def client(index):
    return TestClient(build_app(index, card_fields=["kind"]))


@pytest.fixture
def writable(tmp_path, model, shapes_index):
    """An index of its own, and a server that may change it."""
    shutil.copytree(shapes_index, tmp_path / "index")
    with open_index(tmp_path / "index", model) as index:
        yield index, TestClient(build_app(index, writable=True))


def test_answers_go_on_where_the_last_ones_ended(client):
    def ask(path, **params):
        return client.get(f"/api/v1/{path}", params=params).json()["hits"]

    hits = ask("search", q="red", count=16)
    pages = [ask("search", q="red", count=6, offset=start) for start in (0, 6, 12, 18)]
    assert [hit["id"] for page in pages for hit in page] == [hit["id"] for hit in hits] and pages[3] == []
    like = hits[0]["id"]
    first, second = (ask("similar", id=like, count=5, offset=start) for start in (0, 5))
    assert first + second == ask("similar", id=like, count=10)


def test_a_batch_is_answered_as_its_queries_one_by_one(client, index):
    queries = [{"text": "red", "without": "disc"}, {"image": IN_BASE64}, {"image": DATA_URL, "text": "a"}]
    body = client.post("/api/v1/search/batch", json={"queries": queries, "count": 3, "where": {"kind": "disc"}}).json()
    weighted = [[(1, "red"), (-1, "disc")], [(1, IMAGE)], [(1, IMAGE), (1, "a")]]
    for hits, parts in zip(body["results"], weighted, strict=True):
        expected = index.combined(parts, count=3, where={"kind": "disc"})
        assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
        assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-6)


@pytest.mark.parametrize(("path", "body"), [
    ("embeddings", lambda text: {"input": [text] * 20}),
    ("search/batch", lambda text: {"queries": [{"text": text, "without": text}] * 10}),
    ("items", lambda text: {"items": [{"text": text, "id": "a"}] * 20}),
    ("items", lambda text: {"items": [{"text": "a", "fields": {f"{n}": text for n in range(20)}}]}),
])  # fmt: skip
def test_length_of_all_texts_together_is_bounded(writable, monkeypatch, path, body):
    _, client = writable
    monkeypatch.setattr(api, "MAX_CHARACTERS", 20 * 150)
    for length, code in ((100, 200), (151, 422)):
        assert client.post(f"/api/v1/{path}", json=body("a" * length)).status_code == code


def test_values_are_counted_before_a_body_is_parsed(client, monkeypatch):
    def parse(*_, **__):
        raise AssertionError("this body was parsed")

    monkeypatch.setattr(api.EmbeddingsRequest, "model_validate_json", parse)
    for content in (b"[" * 300_000, b'{"input":[' + b"1," * 300_000 + b"1]}", b"{" * 300_000):
        answer = client.post("/api/v1/embeddings", content=content)
        assert answer.status_code == 422 and "values" in answer.json()["detail"]


def test_images_of_a_request_are_few_where_they_are_large(writable, monkeypatch):
    _, client = writable
    monkeypatch.setattr(image_decoding, "MAX_REQUEST_PIXELS", 2 * 32 * 32)
    for count, code in ((2, 200), (3, 422)):
        images = [{"image": IN_BASE64}] * count
        for path, body in (("embeddings", {"input": images}), ("search/batch", {"queries": images}),
                           ("items", {"items": images})):  # fmt: skip
            assert client.post(f"/api/v1/{path}", json=body).status_code == code


def test_embeddings_have_the_form_of_openai(client, model):
    texts = ["red disc", "红色的圆"]
    expected = [*model.encode_texts(texts), model.encode_images([IMAGE])[0]]
    body = client.post("/api/v1/embeddings", json={"input": texts, "model": "any", "user": "somebody"}).json()
    assert body["object"] == "list" and [row["index"] for row in body["data"]] == [0, 1]
    np.testing.assert_allclose([row["embedding"] for row in body["data"]], expected[:2], atol=1e-6)
    assert body["usage"] == {"prompt_tokens": 4 + 6, "total_tokens": 4 + 6}  # with [CLS] and [SEP]
    coded = client.post("/api/v1/embeddings", json={"input": texts[0], "encoding_format": "base64"}).json()
    decoded = np.frombuffer(base64.b64decode(coded["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(decoded, expected[0], atol=1e-6)
    mixed = client.post("/api/v1/embeddings", json={"input": [DATA_URL, {"image": IN_BASE64}, {"text": "red disc"}]})
    rows = [row["embedding"] for row in mixed.json()["data"]]
    np.testing.assert_allclose(rows, [expected[2], expected[2], expected[0]], atol=1e-6)
    assert client.get("/api/v1/models").json()["data"][0]["id"] == body["model"]


def test_items_are_added_replaced_and_removed(writable):
    index, client = writable
    items = [{"image": IN_BASE64, "id": "mine", "fields": {"kind": "new", "price": 3.5}}, {"image": DATA_URL},
             {"text": "purple thing"}]  # fmt: skip
    added = client.post("/api/v1/items", json={"items": items}).json()["added"]
    assert added["images"][0] == "mine" and len(added["images"][1]) == 32 and added["texts"] == ["purple thing"]
    assert len(index.collection("images")) == 18 and len(index.collection("texts")) == 3
    hits = client.post("/api/v1/search/image", params={"count": 2}, content=IMAGE).json()["hits"]
    assert {hit["id"] for hit in hits} == set(added["images"]) and hits[0]["score"] == pytest.approx(1, abs=1e-3)
    assert client.get("/thumbnail", params={"id": "mine"}).content.startswith(b"\x89PNG")
    client.post("/api/v1/items", json={"items": [items[0] | {"fields": {"kind": "newer"}}]})
    images = index.collection("images")
    assert len(images) == 18 and images.get("mine").fields == {"kind": "newer"}
    assert client.delete("/api/v1/items", params={"id": ["mine", "not there"]}).json() == {"removed": 1}
    assert index.collection("images").get("mine") is None and len(index.collection("images")) == 17


def test_a_change_waits_for_the_one_that_another_process_makes(writable, monkeypatch):
    index, client = writable
    monkeypatch.setattr(api, "WRITE_TIMEOUT", 0.2)
    with locks.open_lock_file(index.folder / ".lock"):
        answer = client.post("/api/v1/items", json={"items": [{"image": IN_BASE64}]})
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert client.get("/api/v1/search", params={"q": "red"}).status_code == 200
    assert client.post("/api/v1/items", json={"items": [{"image": IN_BASE64}]}).status_code == 200


def test_a_server_that_is_not_writable_changes_nothing(client):
    assert client.post("/api/v1/items", json={"items": [{"text": "a"}]}).status_code == 404
    assert client.delete("/api/v1/items", params={"id": "a"}).status_code == 404
    assert not [path for path in client.get("/openapi.json").json()["paths"] if "items" in path]


def test_what_a_page_starts_with(client, index, model):
    info = client.get("/api/v1/info").json()
    assert info == {"model": index.title, "dimensions": model.embed_dim, "images": 16, "texts": 2,
                    "thresholds": {"images": None, "texts": None}, "show": ["kind"]}  # fmt: skip
    examples = client.get("/api/v1/examples").json()
    assert len(examples["items"]) == 16 and "a red disc" in examples["texts"]
    assert all(index.collection("images").get(item["id"]) for item in examples["items"])


def test_the_client_of_the_page(writable, tmp_path, model):
    index, _ = writable
    page = ROOT / "docs" / "serving.md"
    (code,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    names = {}
    exec(code, names)  # noqa: S102  -- code of our own pages
    (tmp_path / "image.png").write_bytes(IMAGE)
    with RunningServer(build_app(index, writable=True)) as running:
        client = names["Search"](f"http://127.0.0.1:{running.address[1]}", "token")
        first, second = client.texts("red", "红色", count=3)
        assert len(first) == len(second) == 3
        (hit,) = client.image(tmp_path / "image.png", count=1)
        np.testing.assert_allclose(client.embed("red"), model.encode_texts(["red"]), atol=1e-6)
        assert client.remove(hit["id"], "not there") == 1
