"""/v1 of an index: pages of hits, batches, and changes of items."""

import base64
import json
import re
import shutil

import numpy as np
import pytest
from fastapi.testclient import TestClient

from ernie_vil2.apps.search import api, open_index
from ernie_vil2.apps.search.service import build_app
from ernie_vil2.apps.serving import bodies, image_decoding
from ernie_vil2.apps.serving.routes import EmbeddingsRequest
from ernie_vil2.apps.serving.text_length import MAX_TEXT_LENGTH
from ernie_vil2.io import locks
from tests.support.paths import ROOT
from tests.support.small_index import IMAGE

IN_BASE64 = base64.b64encode(IMAGE).decode()
DATA_URL = f"data:image/png;base64,{IN_BASE64}"


@pytest.fixture
def client(index):
    return TestClient(build_app(index, card_fields=["kind"], title="Shapes"))


@pytest.fixture
def writable(tmp_path, model, shapes_index):
    """Return a copy of the index, and a client of a server that may change it."""
    shutil.copytree(shapes_index, tmp_path / "index")
    with open_index(tmp_path / "index", model) as index:
        yield index, TestClient(build_app(index, writable=True))


def test_offset_continues_after_the_former_page(client):
    def search(path, **params):
        return client.get(f"/v1/{path}", params=params).json()["hits"]

    hits = search("search", q="red", count=16)
    ids = []
    for offset in (0, 6, 12, 18):
        ids += [hit["id"] for hit in search("search", q="red", count=6, offset=offset)]
    assert ids == [hit["id"] for hit in hits]
    assert search("search", q="red", count=6, offset=18) == []
    image_id = hits[0]["id"]
    first, second = search("similar", id=image_id, count=5), search("similar", id=image_id, count=5, offset=5)
    assert first + second == search("similar", id=image_id, count=10)


def test_batch_is_answered_as_single_queries_are(client, index):
    queries = [{"text": "red", "without": "disc"}, {"image": IN_BASE64}, {"image": DATA_URL, "text": "a"}]
    body = client.post("/v1/search/batch", json={"queries": queries, "count": 3, "where": {"kind": "disc"}}).json()
    weighted_queries = [[(1, "red"), (-1, "disc")], [(1, IMAGE)], [(1, IMAGE), (1, "a")]]
    for hits, weighted_query in zip(body["results"], weighted_queries, strict=True):
        expected = index.combined(weighted_query, count=3, where={"kind": "disc"})
        assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
        assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-6)


def test_words_of_the_text_are_found_next_to_its_meaning(writable):
    index, client = writable
    client.post("/v1/items", json={"items": [{"image": IN_BASE64, "id": "shoe", "fields": {"number": "A1-B"}}]})
    for text, image in (("a1-b", None), ("A1-B", IN_BASE64)):
        (expected,) = index.search(texts=[text], word_weight=2.0, count=4)
        query = {"text": text} if image is None else {"text": text, "image": image}
        body = {"queries": [query, {"text": "purple", "without": "a1-b"}], "count": 4, "words": 2, "threshold": 0.99}
        first, second = client.post("/v1/search/batch", json=body).json()["results"]
        assert [hit["id"] for hit in first] == ["shoe"] == [expected[0].id] and first[0]["words"] is True
        assert not any("words" in hit for hit in second)
    hits = client.get("/v1/search", params={"q": "A1-B", "words": 1, "count": 3}).json()["hits"]
    assert [hit.get("words", False) for hit in hits] == [True, False, False]
    # Without the parameter, and with an image alone, only the meaning counts.
    assert not any("words" in hit for hit in client.get("/v1/search", params={"q": "A1-B"}).json()["hits"])
    assert client.post("/v1/search/image", params={"words": 1}, content=IMAGE).status_code == 200
    for weight in (-1, 101, "nan"):
        assert client.get("/v1/search", params={"q": "A1-B", "words": weight}).status_code == 422


# Bodies of 20 copies of a text, so that texts of 150 characters are the longest.
@pytest.mark.parametrize(("path", "make_body"), [
    ("embeddings", lambda text: {"input": [text] * 20}),
    ("search/batch", lambda text: {"queries": [{"text": text, "without": text}] * 10}),
    ("items", lambda text: {"items": [{"text": text, "id": "a"}] * 20}),
    ("items", lambda text: {"items": [{"text": "a", "fields": {f"{n}": text for n in range(20)}}]}),
])  # fmt: skip
def test_total_length_of_the_texts_is_bounded(writable, monkeypatch, path, make_body):
    _, client = writable
    monkeypatch.setattr(bodies, "MAX_CHARACTERS", 20 * 150)
    for length, code in ((100, 200), (151, 422)):
        assert client.post(f"/v1/{path}", json=make_body("a" * length)).status_code == code


def test_text_is_as_long_as_an_index_can_encode(writable):
    index, client = writable
    for length, code in ((MAX_TEXT_LENGTH, 200), (MAX_TEXT_LENGTH + 1, 422)):
        assert client.post("/v1/items", json={"items": [{"text": "a" * length, "id": str(length)}]}).status_code == code
    assert index.collection("texts").get(str(MAX_TEXT_LENGTH + 1)) is None


def test_values_are_counted_before_a_body_is_parsed(client, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("this body was parsed")

    monkeypatch.setattr(EmbeddingsRequest, "model_validate_json", fail)
    for content in (b"[" * 300_000, b'{"input":[' + b"1," * 300_000 + b"1]}", b"{" * 300_000):
        response = client.post("/v1/embeddings", content=content)
        assert response.status_code == 422 and "values" in response.json()["error"]["message"]


def test_total_pixels_of_a_request_are_bounded(writable, monkeypatch):
    _, client = writable
    monkeypatch.setattr(image_decoding, "MAX_REQUEST_PIXELS", 2 * 32 * 32)
    for count, code in ((2, 200), (3, 422)):
        images = [{"image": IN_BASE64}] * count
        for path, body in (("embeddings", {"input": images}), ("search/batch", {"queries": images}),
                           ("items", {"items": images})):  # fmt: skip
            assert client.post(f"/v1/{path}", json=body).status_code == code


def test_server_of_an_index_has_the_routes_of_models(client, model):
    (served,) = client.get("/v1/models").json()["data"]
    body = client.post("/v1/embeddings", json={"input": "red", "model": served["id"]}).json()
    np.testing.assert_allclose(body["data"][0]["embedding"], model.encode_texts(["red"])[0], atol=1e-6)
    documents = client.post("/v1/rerank", json={"query": "red", "documents": ["red", DATA_URL]}).json()["results"]
    assert [document["index"] for document in documents] == [0, 1]


def test_unknown_parameters_are_named(writable):
    _, client = writable
    responses = {
        "treshold": client.get("/v1/search", params={"q": "red", "treshold": 0.3}),
        "words": client.get("/v1/similar", params={"id": "red-disc-2-0", "words": 1}),
        "size": client.get("/v1/info", params={"size": 3}),
        "limit": client.post("/v1/search/batch", json={"queries": [{"text": "a"}], "limit": 3}),
        "queries.0.txt": client.post("/v1/search/batch", json={"queries": [{"text": "a", "txt": "b"}]}),
        "items.0.field": client.post("/v1/items", json={"items": [{"text": "a", "field": {}}]}),
        "kind": client.delete("/v1/items", params={"id": "a", "kind": "texts"}),
    }
    for name, response in responses.items():
        assert response.status_code == 422 and response.json()["error"]["param"] == name
    assert "threshold" in responses["treshold"].json()["error"]["message"]


def test_items_are_added_replaced_and_removed(writable):
    index, client = writable
    items = [{"image": IN_BASE64, "id": "mine", "fields": {"kind": "new", "price": 3.5}}, {"image": DATA_URL},
             {"text": "purple thing"}]  # fmt: skip
    added = client.post("/v1/items", json={"items": items}).json()["added"]
    assert added["images"][0] == "mine" and len(added["images"][1]) == 32 and added["texts"] == ["purple thing"]
    assert len(index.collection("images")) == 18 and len(index.collection("texts")) == 3
    hits = client.post("/v1/search/image", params={"count": 2}, content=IMAGE).json()["hits"]
    assert {hit["id"] for hit in hits} == set(added["images"]) and hits[0]["score"] == pytest.approx(1, abs=1e-3)
    assert client.get("/thumbnail", params={"id": "mine"}).content.startswith(b"\x89PNG")
    client.post("/v1/items", json={"items": [items[0] | {"fields": {"kind": "newer"}}]})
    images = index.collection("images")
    assert len(images) == 18 and images.get("mine").fields == {"kind": "newer"}
    assert client.delete("/v1/items", params={"id": ["mine", "not there"]}).json() == {"removed": 1}
    assert index.collection("images").get("mine") is None and len(index.collection("images")) == 17


@pytest.mark.parametrize("name", ["back\\slash", "end\\", "dots.and spaces", "línea\n"])
def test_filter_finds_fields_of_any_name(writable, name):
    _, client = writable
    items = [{"image": IN_BASE64, "id": f"item {number}", "fields": {name: number}} for number in range(2)]
    assert client.post("/v1/items", json={"items": items}).status_code == 200
    for condition in (1, {">": 0}):
        params = {"q": "red", "where": json.dumps({name: condition})}
        hits = client.get("/v1/search", params=params).json()["hits"]
        assert [hit["id"] for hit in hits] == ["item 1"]


def test_change_of_a_removed_index_creates_no_other(writable):
    index, client = writable
    shutil.rmtree(index.folder)
    assert client.post("/v1/items", json={"items": [{"text": "red"}]}).status_code == 503
    assert client.delete("/v1/items", params={"id": "red"}).status_code == 503
    assert not index.folder.exists()


def test_change_waits_for_the_lock_of_another_process(writable, monkeypatch):
    index, client = writable
    monkeypatch.setattr(api, "WRITE_TIMEOUT", 0.2)
    with locks.open_lock_file(index.folder / ".lock"):
        response = client.post("/v1/items", json={"items": [{"image": IN_BASE64}]})
        assert response.status_code == 503 and response.headers["retry-after"]
        assert client.get("/v1/search", params={"q": "red"}).status_code == 200
    assert client.post("/v1/items", json={"items": [{"image": IN_BASE64}]}).status_code == 200


def test_read_only_server_has_no_routes_that_change_items(client):
    assert client.post("/v1/items", json={"items": [{"text": "a"}]}).status_code == 404
    assert client.delete("/v1/items", params={"id": "a"}).status_code == 404
    assert not [path for path in client.get("/openapi.json").json()["paths"] if "items" in path]


def test_info_and_examples_of_the_start_page(client, index, model):
    info = client.get("/v1/info").json()
    assert info == {"title": "Shapes", "model": index.title, "dimensions": model.embed_dim, "images": 16, "texts": 2,
                    "thresholds": {"images": None, "texts": None}, "show": ["kind"], "words": True}  # fmt: skip
    examples = client.get("/v1/examples").json()
    assert len(examples["items"]) == 16 and "a red disc" in examples["texts"]
    assert all(index.collection("images").get(item["id"]) for item in examples["items"])


def test_request_in_the_documentation_is_answered(client):
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    path, body = re.search(r"^curl http://127.0.0.1:8000(\S+) -d '(.*)'$", page, re.M).groups()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}  # that of curl
    response = client.post(path, content=body.encode(), headers=headers)
    assert [len(hits) for hits in response.json()["results"]] == [3]
