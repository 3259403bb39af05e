"""/api/v1: batches, embeddings as clients of OpenAI's interface ask for them, and changes of items."""

import base64
import json
import re
import threading

import numpy as np
import pytest
from fastapi.testclient import TestClient

from ernie_vil2.io import locks
from ernie_vil2.search import api, image_decoding, open_index
from ernie_vil2.search.fill import add_images, add_texts, build, images_in
from ernie_vil2.search.service import build_app
from tests.support.paths import ROOT
from tests.support.shapes import draw, png
from tests.support.sockets import Running

IMAGE = png(draw((200, 30, 30), "disc", np.random.default_rng(0)))
IN_BASE64 = base64.b64encode(IMAGE).decode()
DATA_URL = f"data:image/png;base64,{IN_BASE64}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model, shapes):
    folder = tmp_path_factory.mktemp("api") / "index"
    with open_index(folder, model, writable=True) as index:
        add_images(index, images_in([str(shapes["val"])]))
        add_texts(index, ["red disc", "green square"])
        build(index, "images", None, 0.98, lambda line: None)
    return folder


@pytest.fixture
def index(folder, model):
    with open_index(folder, model) as index:
        yield index


@pytest.fixture
def client(index):
    return TestClient(build_app(index, shown=["kind"]))


@pytest.fixture
def changing(tmp_path, model, shapes):
    """An index of its own, and a server that may change it."""
    with open_index(tmp_path / "index", model, writable=True) as writer:
        add_images(writer, images_in([str(shapes["val"])]))
    with open_index(tmp_path / "index", model) as index:
        yield index, TestClient(build_app(index, writable=True))


def test_answers_go_on_where_the_last_ones_ended(client):
    whole = client.get("/api/v1/search", params={"q": "red", "count": 16}).json()["hits"]
    parts = [client.get("/api/v1/search", params={"q": "red", "count": 6, "offset": start}).json()["hits"]
             for start in (0, 6, 12, 18)]  # fmt: skip
    assert [hit["id"] for part in parts for hit in part] == [hit["id"] for hit in whole] and parts[3] == []
    params = {"id": whole[0]["id"], "count": 5}
    first, second = (client.get("/api/v1/similar", params=params | {"offset": n}).json()["hits"] for n in (0, 5))
    both = client.get("/api/v1/similar", params=params | {"count": 10}).json()["hits"]
    assert first + second == both


def test_a_batch_is_answered_as_its_queries_one_by_one(client, index):
    queries = [
        {"text": "red"},
        {"text": "red", "without": "disc"},
        {"image": IN_BASE64},
        {"image": DATA_URL, "text": "a"},
    ]
    body = client.post("/api/v1/search/batch", json={"queries": queries, "count": 3, "where": {"kind": "disc"}}).json()
    expected = [[(1, "red")], [(1, "red"), (-1, "disc")], [(1, IMAGE)], [(1, IMAGE), (1, "a")]]
    for hits, parts in zip(body["results"], expected, strict=True):
        wanted = index.combined(parts, count=3, where={"kind": "disc"})
        assert [hit["id"] for hit in hits] == [hit.id for hit in wanted]
        assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in wanted], abs=1e-6)
    sent = client.post("/api/v1/search/image", params={"count": 3}, content=IMAGE)
    assert [hit["id"] for hit in sent.json()["hits"]] == [hit.id for hit in index.combined([(1, IMAGE)], count=3)]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("search/batch", {"queries": []}),
        ("search/batch", {"queries": [{"text": " "}]}),
        ("search/batch", {"queries": [{"text": "a"}] * 65}),
        ("search/batch", {"queries": [{"text": "a"}], "among": "sounds"}),
        ("search/batch", {"queries": [{"text": "a"}], "where": {"no": [[1]]}}),
        ("search/batch", {"queries": [{"image": "####"}]}),
        ("search/batch", {"queries": [{"image": base64.b64encode(b"<svg/>").decode()}]}),
        ("search/batch", {"queries": [{"text": "a" * 20_000}]}),
        ("embeddings", {"input": []}),
        ("embeddings", {"input": ["a"] * 257}),
        ("embeddings", {"input": [[1, 2, 3]]}),
        ("embeddings", {"input": [{}]}),
        ("embeddings", {"input": "a", "dimensions": 3}),
        ("embeddings", {"input": "data:image/png;base64,no"}),
        ("embeddings", [1]),
    ],
)
def test_what_cannot_be_asked_is_422_with_a_reason(client, path, body):
    answer = client.post(f"/api/v1/{path}", json=body)
    assert answer.status_code == 422 and answer.json()["detail"]


def deep_sizes(schema):
    """The bounds of all lists in the description of a body, and None for a list without one."""
    if isinstance(schema, list):
        return [size for value in schema for size in deep_sizes(value)]
    if not isinstance(schema, dict):
        return []
    sizes = [schema.get("maxItems")] if schema.get("type") == "array" else []
    return sizes + [size for value in schema.values() for size in deep_sizes(value)]


def test_every_list_of_a_request_is_bounded(changing):
    _, client = changing
    paths = client.get("/openapi.json").json()["paths"]
    described = [
        (method.get("requestBody", {}), method.get("parameters", []))
        for path in paths.values()
        for method in path.values()
    ]
    sizes = deep_sizes(list(map(list, described)))
    assert len(sizes) == 5 and None not in sizes  # queries, inputs, items, a field of an item, and ids


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("embeddings", {"input": list(range(100_000))}),
        ("embeddings", {"input": [{}] * 100_000}),
        ("embeddings", {"input": ["a"] * 100_000}),
        ("embeddings", {"input": list(range(400_000))}),
        ("search/batch", {"queries": list(range(100_000))}),
        ("search/batch", {"queries": [{"text": "a"}] * 100_000}),
        ("search/batch", {"queries": [{"text": "a"}], "where": {"a": list(range(100_000))}}),
        ("search/batch", {"queries": [{"text": "a"}], "where": {str(number): 1 for number in range(10_000)}}),
        ("search/batch", {"queries": [{"text": "a"}], "where": {"b" * 50_000: {}}}),
        ("search/batch", {"queries": [{"text": "a"}], "where": {"a": "b" * 100_000}}),
        ("items", {"items": list(range(100_000))}),
        ("items", {"items": [{"text": "a", "fields": {str(number): {} for number in range(10_000)}}]}),
        ("items", {"items": [{"text": "a", "fields": {str(number): {} for number in range(100)}}]}),
        ("items", {"items": [{"text": "a", "fields": {"a" * 100_000: {}}}]}),
        ("items", {"items": [{"text": "a", "fields": {"a": list(range(100_000))}}]}),
        ("items", {"items": [{"text": "a", "fields": {"a": ["b"] * 100_000}}]}),
        ("embeddings", {"input": "a", "encoding_format": "b" * 100_000}),
    ],
)
def test_errors_are_few_and_do_not_repeat_the_input(changing, path, body):
    _, client = changing
    answer = client.post(f"/api/v1/{path}", json=body)
    assert answer.status_code == 422 and len(answer.content) < 4096
    detail = answer.json()["detail"]
    assert isinstance(detail, str) or 1 <= len(detail) <= 10
    assert isinstance(detail, str) or all(set(error) == {"type", "loc", "msg"} for error in detail)


def test_errors_of_a_query_string_do_not_repeat_it(client):
    answer = client.get("/api/v1/search", params={"q": "a", "count": "b" * 10_000})
    assert answer.status_code == 422 and len(answer.content) < 1000
    assert answer.json()["detail"][0]["loc"] == ["query", "count"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("embeddings", lambda text: {"input": [text] * 20}),
        ("search/batch", lambda text: {"queries": [{"text": text, "without": text}] * 10}),
        ("items", lambda text: {"items": [{"text": text, "id": "a"}] * 20}),
        ("items", lambda text: {"items": [{"text": "a", "fields": {"b": [text] * 20}}]}),
        ("items", lambda text: {"items": [{"text": "a", "fields": {f"{n}": text for n in range(20)}}]}),
    ],
)
def test_length_of_all_texts_together_is_bounded(changing, monkeypatch, path, body):
    _, client = changing
    monkeypatch.setattr(api, "MOST_CHARACTERS", 20 * 150)
    for length, code in ((100, 200), (151, 422)):
        assert client.post(f"/api/v1/{path}", json=body("a" * length)).status_code == code


def test_values_are_counted_before_a_body_is_parsed(client, monkeypatch):
    def parse(*_, **__):
        raise AssertionError("this body was parsed")

    monkeypatch.setattr(api.Embeddings, "model_validate_json", parse)
    for content in (b"[" * 300_000, b'{"input":[' + b"1," * 300_000 + b"1]}", b"{" * 300_000):
        answer = client.post("/api/v1/embeddings", content=content)
        assert answer.status_code == 422 and "values" in answer.json()["detail"]


def test_bodies_are_read_and_written_beside_the_event_loop(changing, monkeypatch):
    _, client = changing
    threads = {}

    def note_thread(name):
        work = getattr(api, name)

        def noted(*arguments):
            threads[name] = threading.current_thread().name
            return work(*arguments)

        monkeypatch.setattr(api, name, noted)

    for name in ("_read_batch", "_read_embeddings", "_write_embeddings", "_read_items"):
        note_thread(name)
    client.post("/api/v1/search/batch", json={"queries": [{"text": "red"}]})
    client.post("/api/v1/embeddings", json={"input": "red"})
    client.post("/api/v1/items", json={"items": [{"text": "red"}]})
    assert len(threads) == 4 and all(thread.startswith("prepare") for thread in threads.values())


def test_images_of_a_request_are_few_where_they_are_large(changing, monkeypatch):
    _, client = changing
    monkeypatch.setattr(image_decoding, "MAX_REQUEST_PIXELS", 2 * 32 * 32)
    for count, code in ((2, 200), (3, 422)):
        bodies = {
            "embeddings": {"input": [DATA_URL] * count},
            "search/batch": {"queries": [{"image": IN_BASE64}] * count},
            "items": {"items": [{"image": IN_BASE64}] * count},
        }
        for path, body in bodies.items():
            assert client.post(f"/api/v1/{path}", json=body).status_code == code


def test_embeddings_have_the_form_of_openai(client, model):
    texts = ["red disc", "红色的圆"]
    expected = model.encode_texts(texts)
    body = client.post("/api/v1/embeddings", json={"input": texts, "model": "any", "user": "somebody"}).json()
    assert body["object"] == "list" and [one["index"] for one in body["data"]] == [0, 1]
    np.testing.assert_allclose([one["embedding"] for one in body["data"]], expected, atol=1e-6)
    assert body["usage"] == {"prompt_tokens": 4 + 6, "total_tokens": 4 + 6}  # with [CLS] and [SEP]
    coded = client.post("/api/v1/embeddings", json={"input": texts[0], "encoding_format": "base64"}).json()
    decoded = np.frombuffer(base64.b64decode(coded["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(decoded, expected[0], atol=1e-6)
    pixels = client.post("/api/v1/embeddings", json={"input": [DATA_URL, {"image": IN_BASE64}, {"text": "red disc"}]})
    rows = [one["embedding"] for one in pixels.json()["data"]]
    np.testing.assert_allclose(rows[0], model.encode_images([IMAGE])[0], atol=1e-6)
    np.testing.assert_allclose(rows[1], rows[0], atol=1e-6)
    np.testing.assert_allclose(rows[2], expected[0], atol=1e-6)
    assert client.get("/api/v1/models").json()["data"][0]["id"] == body["model"]


def test_items_are_added_replaced_and_removed(changing):
    index, client = changing
    items = [{"image": IN_BASE64, "id": "mine", "fields": {"kind": "new", "price": 3.5}}, {"image": DATA_URL},
             {"text": "purple thing"}]  # fmt: skip
    added = client.post("/api/v1/items", json={"items": items}).json()["added"]
    assert added["images"][0] == "mine" and len(added["images"][1]) == 32 and added["texts"] == ["purple thing"]
    assert len(index.collection("images")) == 18 and len(index.collection("texts")) == 1
    hits = client.post("/api/v1/search/image", params={"count": 2}, content=IMAGE).json()["hits"]
    assert {hit["id"] for hit in hits} == set(added["images"]) and hits[0]["score"] == pytest.approx(1, abs=1e-3)
    assert client.get("/thumbnail", params={"id": "mine"}).content.startswith(b"\x89PNG")
    client.post("/api/v1/items", json={"items": [items[0] | {"fields": {"kind": "newer"}}]})
    assert len(index.collection("images")) == 18 and index.collection("images").get("mine").fields == {"kind": "newer"}
    assert client.delete("/api/v1/items", params={"id": ["mine", "not there"]}).json() == {"removed": 1}
    assert index.collection("images").get("mine") is None and len(index.collection("images")) == 17


def test_a_change_waits_for_the_one_that_another_process_makes(changing, monkeypatch):
    index, client = changing
    monkeypatch.setattr(api, "WRITING_SECONDS", 0.2)
    with locks.owned(index.folder / ".lock"):
        answer = client.post("/api/v1/items", json={"items": [{"image": IN_BASE64}]})
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert client.get("/api/v1/search", params={"q": "red"}).status_code == 200
    assert client.post("/api/v1/items", json={"items": [{"image": IN_BASE64}]}).status_code == 200


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"image": IN_BASE64, "text": "a"},
        {"image": "no"},
        {"text": "  "},
        {"text": "a", "id": ""},
        {"text": "a", "id": "x" * 2000},
        {"text": "a", "fields": {"deep": {"a": 1}}},
        {"text": "a", "fields": {"number": float("nan")}},
    ],
)
def test_what_is_not_an_item_is_not_added(changing, item):
    index, client = changing
    answer = client.post("/api/v1/items", content=json.dumps({"items": [{"text": "good"}, item]}))
    assert answer.status_code == 422 and not index.has("texts")


def test_a_server_that_is_not_writable_changes_nothing(client, index):
    assert client.post("/api/v1/items", json={"items": [{"text": "a"}]}).status_code == 404
    assert client.delete("/api/v1/items", params={"id": "a"}).status_code == 404
    assert not [path for path in client.get("/openapi.json").json()["paths"] if "items" in path]


def test_what_a_page_starts_with(client, index, model):
    info = client.get("/api/v1/info").json()
    assert info == {"model": index.title, "dimensions": model.embed_dim, "images": 16, "texts": 2,
                    "thresholds": {"images": None, "texts": None}, "show": ["kind"]}  # fmt: skip
    examples = client.get("/api/v1/examples").json()
    assert len(examples["items"]) == 16 and "a red disc" in examples["texts"]
    ids = {one["id"] for one in examples["items"]}
    assert all(index.collection("images").get(one) for one in ids)


def test_the_description_names_every_body_and_answer(client):
    described = client.get("/openapi.json").json()
    paths = described["paths"]
    assert {path for path in paths if path.startswith("/api")} == {
        f"/api/v1/{name}" for name in ("search", "search/image", "search/batch", "similar", "tags", "facets", "info",
                                       "examples", "models", "embeddings")
    }  # fmt: skip
    body = paths["/api/v1/search/batch"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "$ref" not in json.dumps(body) and body["properties"]["queries"]["items"]["properties"]["text"]
    answer = paths["/api/v1/search"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    assert set(described["components"]["schemas"][answer.rpartition("/")[2]]["properties"]) == {"hits", "milliseconds"}


def test_the_client_of_the_page(changing, tmp_path, model):
    index, _ = changing
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    assert len(code.strip().splitlines()) <= 35
    names = {}
    exec(code, names)  # noqa: S102  -- code of our own pages
    (tmp_path / "image.png").write_bytes(IMAGE)
    with Running(build_app(index, writable=True)) as running:
        client = names["Search"](f"http://127.0.0.1:{running.address[1]}", "token")
        first, second = client.texts("red", "红色", count=3)
        assert len(first) == len(second) == 3
        (hit,) = client.image(tmp_path / "image.png", count=1)
        np.testing.assert_allclose(client.embed("red"), model.encode_texts(["red"]), atol=1e-6)
        assert client.remove(hit["id"], "not there") == 1
