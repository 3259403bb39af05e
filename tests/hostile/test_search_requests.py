"""Requests to the server of an index that are malformed or far too large: a short answer explains them."""

import base64
import json
import re

import pytest
from fastapi.testclient import TestClient

from ernie_vil2.apps.search import open_index
from ernie_vil2.apps.search.service import build_app
from tests.support.small_index import IMAGE, TEXTS, fill_index

IN_BASE64 = base64.b64encode(IMAGE).decode()
MANY = list(range(100_000))
FIELDS = {str(number): {} for number in range(100)}
MANY_FIELDS = {str(number): {} for number in range(10_000)}
BAD_QUERIES = [[], [{"text": " "}], [{"text": "a"}] * 65, [{"image": "####"}],
               [{"image": base64.b64encode(b"<svg/>").decode()}], MANY]  # fmt: skip
BAD_FILTERS = [{"no": [[1]]}, {"a": MANY}, MANY_FIELDS]
BAD_INPUTS = [[], ["a"] * 257, [[1, 2, 3]], [{}], "data:image/png;base64,no", MANY * 4]
BAD_ITEMS = [{}, {"image": IN_BASE64, "text": "a"}, {"text": "  "}, {"text": "a", "id": "x" * 2000}]
BAD_FIELDS = [{"deep": {"a": 1}}, {"number": float("nan")}, FIELDS, {"a" * 100_000: {}}, {"a": MANY}]
BODIES = [
    [1],
    *[{"queries": queries} for queries in BAD_QUERIES],
    *[{"queries": [{"text": "a"}], "where": where} for where in BAD_FILTERS],
    {"queries": [{"text": "a"}], "among": "sounds"},
    *[{"input": inputs} for inputs in BAD_INPUTS],
    {"input": "a", "dimensions": 3},
    {"input": "a", "encoding_format": "b" * 100_000},
    # A valid item precedes each bad one: it must not be added.
    *[{"items": [{"text": "good"}, item]} for item in BAD_ITEMS],
    *[{"items": [{"text": "good"}, {"text": "a", "fields": fields}]} for fields in BAD_FIELDS],
]
PATHS = {"queries": "search/batch", "input": "embeddings", "items": "items"}

BAD_JSON_FILTERS = ["[1]", "[" * 20_000, '{"a": {"b": 1}}', '{"a\\"b": 1}', '{"a": 1' + "0" * 30 + "}",
                    json.dumps({"a": list(range(2000))}), '{"\\ud800": 1}',
                    '{"a": {"<": 1' + "0" * 400 + "}}", '{"a": ' + "[" * 900 + "1" + "]" * 900 + "}"]  # fmt: skip
for count in (1, 100, 101):  # of fields that no item has
    BAD_JSON_FILTERS.append(json.dumps(dict.fromkeys(map(str, range(count)), 1)))
QUERIES = [
    {"q": " "},
    {"q": "x" * 20_000},
    *[{"q": "x", "count": count} for count in (0, 10_000, "b" * 10_000)],
    {"q": "x", "threshold": "nan"},
    *[{"q": "x", "where": where} for where in BAD_JSON_FILTERS],
]


@pytest.fixture(scope="module")
def client(tmp_path_factory, model, shapes):
    folder = fill_index(tmp_path_factory.mktemp("requests") / "index", model, shapes["val"], TEXTS)
    with open_index(folder, model) as index:
        yield TestClient(build_app(index, writable=True), raise_server_exceptions=False)


def check_explanation(response):
    """Check that a response has a short reason."""
    assert response.status_code == 422 and len(response.content) < 4096
    assert response.json()["error"]["message"] and "Traceback" not in response.text


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_bad_body_is_explained_and_changes_nothing(client, body):
    path = PATHS[next(iter(body))] if isinstance(body, dict) else "embeddings"
    check_explanation(client.post(f"/v1/{path}", content=json.dumps(body)))
    assert client.get("/health").json()["texts"] == len(TEXTS)


@pytest.mark.parametrize("where", ['{"\\ud800": 1}', '{"kind": "\\ud800"}', '{"kind": {"<": "2025-01-31\\ud800"}}'])
def test_filter_that_is_not_unicode_is_named(client, where):
    response = client.get("/v1/search", params={"q": "x", "where": where})
    check_explanation(response)
    assert re.search(r"field|kind", response.json()["error"]["message"])


@pytest.mark.parametrize("params", QUERIES, ids=range(len(QUERIES)))
def test_bad_query_is_explained(client, params):
    check_explanation(client.get("/v1/search", params=params))
