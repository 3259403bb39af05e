"""Routes of models: what they compute, the form of their answers and errors, and the bounds of a request."""

import base64
import re
import tracemalloc

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.apps.serving import bodies, image_decoding
from ernie_vil2.apps.serving.models import choose_names, default_name
from ernie_vil2.io.calibration import Calibration, Threshold
from tests.support.checkpoints import write_checkpoint_with_widths, write_untrained_checkpoint
from tests.support.image_formats import encode_data_url
from tests.support.shapes import draw, encode_png
from tests.support.small_index import IMAGE, TOKENS

IMAGE_URL = encode_data_url(IMAGE)
IN_BASE64 = base64.b64encode(IMAGE).decode()
BLUE_IMAGE = encode_png(draw((30, 30, 200), "bar", np.random.default_rng(1)))
TEXTS = ["red disc", "红色的圆"]
PATHS = ("embeddings", "rerank", "classify")


def make_body(path, contents):
    """Return a request of a route with these texts and images."""
    if path == "embeddings":
        return {"input": contents}
    if path == "rerank":
        return {"query": contents[0], "documents": contents[1:]}
    return {"input": contents[1:], "labels": ["a"]}


def embed(client, **body):
    response = client.post("/v1/embeddings", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_embeddings_have_the_form_of_openai(client, model):
    expected = [*model.encode_texts(TEXTS), model.encode_images([IMAGE])[0]]
    body = embed(client, input=TEXTS, model="shapes", user="somebody")
    assert body["object"] == "list" and body["model"] == "shapes"
    assert [(row["object"], row["index"]) for row in body["data"]] == [("embedding", 0), ("embedding", 1)]
    np.testing.assert_allclose([row["embedding"] for row in body["data"]], expected[:2], atol=1e-6)
    assert body["usage"] == {"prompt_tokens": 4 + 6, "total_tokens": 4 + 6}  # with [CLS] and [SEP]
    rows = embed(client, input=[IMAGE_URL, {"image": IN_BASE64}, {"text": "red disc"}])["data"]
    embeddings = [row["embedding"] for row in rows]
    np.testing.assert_allclose(embeddings, [expected[2], expected[2], expected[0]], atol=1e-6)


def test_long_sentences_of_labels_are_refused_before_they_are_made(client):
    body = {"input": ["red"], "labels": ["x" * 10_000] * 4, "template": "{}" * 2000}
    tracemalloc.start()
    response = client.post("/v1/classify", json=body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert response.status_code == 422 and "characters" in response.json()["error"]["message"]
    assert peak < 2**23  # bytes; the sentences would take ten times as many


def test_base64_embeddings_hold_the_bits_of_the_floats(client):
    # The body that the client of OpenAI sends, which asks for base64 unless it is told otherwise.
    content = '{"input":["red disc","红色的圆"],"model":"shapes","encoding_format":"base64"}'.encode()
    headers = {"content-type": "application/json", "x-stainless-lang": "python", "authorization": "Bearer any"}
    body = client.post("/v1/embeddings", content=content, headers=headers).json()
    encoded = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in body["data"]]
    floats = [np.array(row["embedding"], np.float32) for row in embed(client, input=TEXTS)["data"]]
    np.testing.assert_array_equal(encoded, floats)


def test_dimensions_are_the_widths_of_the_model(serve, tmp_path):
    model = ernie_vil2.load_model(write_checkpoint_with_widths(tmp_path))
    client = serve({"wide": model})
    assert client.get("/v1/models/wide").json()["dimensions"] == list(model.widths)
    for width in model.widths:
        (row,) = embed(client, input="red disc", dimensions=width)["data"]
        np.testing.assert_allclose(row["embedding"], model.encode_texts(["red disc"], width=width)[0], atol=1e-6)
    response = client.post("/v1/embeddings", json={"input": "a", "dimensions": 3})
    assert response.status_code == 422 and response.json()["error"]["param"] == "dimensions"


def test_documents_are_ranked_by_their_cosine(client, model):
    contents = ["green square", IMAGE, "red disc", BLUE_IMAGE]
    embeddings = np.concatenate([model.encode_texts(contents[::2]), model.encode_images(contents[1::2])])[[0, 2, 1, 3]]
    documents = [contents[0], IMAGE_URL, {"text": contents[2]}, {"image": base64.b64encode(BLUE_IMAGE).decode()}]
    for query, vector in (("红色的圆", model.encode_texts(["红色的圆"])[0]), (IMAGE_URL, embeddings[1])):
        cosines = embeddings @ vector
        body = client.post("/v1/rerank", json={"query": query, "documents": documents, "model": "shapes"}).json()
        order = [result["index"] for result in body["results"]]
        assert order == np.argsort(-cosines).tolist()
        np.testing.assert_allclose([result["relevance_score"] for result in body["results"]], cosines[order], atol=1e-6)
        repeated = {result["index"]: result["document"] for result in body["results"] if "document" in result}
        assert repeated == {0: {"text": contents[0]}, 2: {"text": contents[2]}}
    body = client.post(
        "/v1/rerank", json={"query": "a", "documents": ["red", "blue"], "top_n": 1, "return_documents": False}
    ).json()
    (result,) = body["results"]
    assert set(result) == {"index", "relevance_score"}


def test_labels_are_scored_as_by_the_model(client, model):
    labels = ["red", "blue", "红色"]
    expected = model.rank([IMAGE, BLUE_IMAGE], [f"a {label} disc" for label in labels]).probabilities
    request = {"input": [IMAGE_URL, encode_data_url(BLUE_IMAGE)], "labels": labels, "template": "a {} disc"}
    data = client.post("/v1/classify", json=request).json()["data"]
    for entry, probabilities in zip(data, expected, strict=True):
        assert entry["prediction"] == labels[int(np.argmax(probabilities))]
        assert [prediction["label"] for prediction in entry["predictions"]] == labels
        scores = [prediction["score"] for prediction in entry["predictions"]]
        np.testing.assert_allclose(scores, probabilities, atol=1e-5)
        assert entry["score"] == max(scores)
    response = client.post("/v1/classify", json={**request, "template": "a disc"})
    assert response.status_code == 422 and response.json()["error"]["param"] == "template"


def test_input_below_the_calibrated_threshold_has_no_label(client, model, monkeypatch):
    threshold = Threshold(cosine=1.0, precision=90.0, recall=50.0, rejection=60.0)
    calibration = Calibration("", "shapes", 20.0, {"image_to_text": threshold, "text_to_image": threshold})
    monkeypatch.setattr(model, "calibration", calibration)
    (entry,) = client.post("/v1/classify", json={"input": [IMAGE_URL], "labels": ["red"]}).json()["data"]
    assert entry["prediction"] is None and entry["score"] == 0


def test_models_are_named_by_requests(serve, model, tmp_path):
    other = ernie_vil2.load_model(write_untrained_checkpoint(tmp_path, [*TOKENS, "猫"]))
    client = serve({"first": model, "second": other})
    assert [entry["id"] for entry in client.get("/v1/models").json()["data"]] == ["first", "second"]
    for name, served in (("first", model), ("second", other)):
        (row,) = embed(client, input="a cat 猫", model=name)["data"]
        np.testing.assert_allclose(row["embedding"], served.encode_texts(["a cat 猫"])[0], atol=1e-6)
    for response in (
        client.post("/v1/embeddings", json={"input": "a"}),
        client.post("/v1/embeddings", json={"input": "a", "model": "third"}),
        client.get("/v1/models/third"),
    ):
        error = response.json()["error"]
        assert response.status_code == 404 and error["code"] == "model_not_found" and "second" in error["message"]


def test_names_of_models_may_have_a_slash(serve, model):
    client = serve({"org/zh": model})
    for path in ("/v1/models/org/zh", "/v1/models/org%2Fzh"):
        assert client.get(path).json()["id"] == "org/zh"
    assert client.get("/v1/models/org").status_code == 404
    assert client.get("/v1/models/").json() == client.get("/v1/models").json()


def test_models_are_called_by_their_folder_unless_named():
    assert default_name("runs/emoji") == default_name("runs/emoji@best") == "emoji"
    assert default_name("runs/emoji/checkpoints/step_00000500") == "emoji"
    assert choose_names([("zh", "runs/a"), ("", "exports/b")]) == {"zh": "runs/a", "b": "exports/b"}
    with pytest.raises(ValueError, match="runs/a and exports/a"):
        choose_names([("", "runs/a"), ("", "exports/a")])


@pytest.mark.parametrize("source", [".", "./", "@best", "./@newest", "checkpoints/..", "checkpoints/step_00000500"])
def test_model_in_the_current_folder_is_called_by_it(tmp_path, monkeypatch, source):
    run = tmp_path / "emoji"
    (run / "checkpoints/step_00000500").mkdir(parents=True)
    monkeypatch.chdir(run)
    assert default_name(source) == "emoji"


def test_errors_have_the_form_of_openai(client):
    bodies_and_params = [
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": [[1, 2, 3]]}, "input"),
        ({"input": [1, 2, 3]}, "input"),
        ({"input": []}, None),
        ({"input": "a", "speed": "fast"}, "speed"),
        ({}, "input"),
    ]
    for body, param in bodies_and_params:
        response = client.post("/v1/embeddings", json=body)
        error = response.json()["error"]
        assert response.status_code == 422 and set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error" and error["message"]
        if param:
            assert error["param"] == param and param in error["message"]
    error = client.post("/v1/rerank", json={"query": 3, "documents": ["a"]}).json()["error"]
    assert error["param"] == "query"
    assert "check_embedding_ctx_length" in client.post("/v1/embeddings", json={"input": [[1]]}).text
    assert client.get("/nothing").json()["error"]["type"] == "invalid_request_error"


def test_addresses_of_images_are_not_fetched(client):
    response = client.post("/v1/embeddings", json={"input": [{"image": "http://127.0.0.1:1/a.png"}]})
    assert response.status_code == 422 and "fetches" in response.json()["error"]["message"]


@pytest.mark.parametrize("image", ["A", "aGVsbG8é", "data:image/png;base64,图"])
def test_image_that_is_not_base64_is_named_as_such(client, image):
    response = client.post("/v1/embeddings", json={"input": [{"image": image}]})
    assert response.status_code == 422 and "base64" in response.json()["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
def test_requests_are_bounded(client, monkeypatch, path):
    def post(contents):
        return client.post(f"/v1/{path}", json=make_body(path, contents)).status_code

    monkeypatch.setattr(bodies, "MAX_CHARACTERS", 20 * 150)
    monkeypatch.setattr(image_decoding, "MAX_REQUEST_PIXELS", 3 * 32 * 32)
    assert [post(["b" * length] * 20) for length in (100, 160)] == [200, 422]
    assert [post([IMAGE_URL] * count) for count in (3, 5)] == [200, 422]
    assert [post(["a"] * count) for count in (256, 258)] == [200, 422]
    assert post(["a", {"text": "a", "image": IMAGE_URL}]) == 422
    monkeypatch.undo()
    assert post(["a", "a" * 10_001]) == 422
    assert client.post(f"/v1/{path}", content=b"[" * 300_000).status_code == 422


def test_request_larger_than_the_queue_is_refused(serve, model):
    client = serve({"shapes": model}, max_queue=2)
    assert [client.post("/v1/embeddings", json={"input": ["a"] * count}).status_code for count in (2, 3)] == [200, 422]


def test_images_of_refused_requests_are_not_decoded(client, model, monkeypatch):
    def fail(*_):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(type(model.preprocessing), "decode", fail)
    for body in ({"input": IMAGE_URL, "dimensions": 3}, {"input": IMAGE_URL, "model": "other"}):
        assert client.post("/v1/embeddings", json=body).status_code in (404, 422)


def test_page_documents_the_routes_and_loads_nothing_from_other_hosts(client):
    assert client.get("/").url.path == "/docs"
    page = client.get("/docs")
    files = re.findall(r'(?:src|href)="(\w+\.\w+)"', page.text)
    assert {"docs.js", "base.css", "icon.svg", "openapi.json"} <= set(files)
    for path in ("docs", *files):
        response = client.get(f"/{path}")
        assert response.status_code == 200 and "https://" not in response.text
        assert "default-src 'self'" in response.headers["content-security-policy"]


def test_watched_paths_answer(client):
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
    assert client.get("/health").json() == {"status": "ok", "models": ["shapes"]}
    embed(client, input=["a", "b"])
    assert 'ernie_vil2_requests_total{path="/v1/embeddings",status="200"} 1' in client.get("/metrics").text
    assert "/v1/rerank" in client.get("/openapi.json").json()["paths"]


def test_internal_error_is_counted_as_500(client):
    def fail():
        raise RuntimeError("a bug")

    client.app.add_api_route("/image", fail)
    assert client.get("/image").status_code == 500
    assert 'ernie_vil2_requests_total{path="/image",status="500"} 1' in client.get("/metrics").text
