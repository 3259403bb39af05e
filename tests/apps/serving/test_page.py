"""The page of the model server: its commands, requests and clients work."""

import base64
import json
import re
import shlex
import urllib.error
import urllib.request

import numpy as np
import pytest

from tests.support.commands import succeed
from tests.support.embedding_servers import serve_model
from tests.support.paths import ROOT
from tests.support.small_index import IMAGE
from tests.support.sockets import run_server

PAGE = (ROOT / "docs" / "model_server.md").read_text(encoding="utf-8")
TOKEN = "0123456789abcdef"  # noqa: S105  -- of a server of the test


def list_requests():
    """Yield path and body of each request with curl."""
    for line in re.findall(r"^curl .*", PAGE, re.M):
        _, address, _, body = shlex.split(line)
        yield address.removeprefix("http://127.0.0.1:8000"), json.loads(body)


def test_requests_of_the_page_are_answered(serve, model):
    client, paths = serve({"emoji": model}), []
    for path, body in list_requests():
        paths.append(path)
        assert client.post(path, json=body).status_code == 200
    assert paths == ["/v1/embeddings", "/v1/rerank", "/v1/classify"]


@pytest.mark.thorough
def test_commands_of_the_page_get_embeddings_of_a_server(model, checkpoint, shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^python tools/(\w+)\.py (.*/v1#small.*)", PAGE, re.M)
    assert [command for command, _ in commands] == ["compare", "embed"]
    with serve_model(model, "small") as address:
        names = {"http://127.0.0.1:8000/v1#small": address, "runs/emoji": checkpoint}
        names["demo_data/emoji-test.tar"] = shapes["val"]
        for command, line in commands:
            succeed(command, *[names.get(word, word) for word in shlex.split(line)])
    assert (tmp_path / "teacher" / "image_embeddings.npy").is_file()


@pytest.mark.thorough
def test_command_serves_several_models_with_a_token(checkpoint, model, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    options = [f"emoji={checkpoint}", checkpoint, "--token-file", tmp_path / "token", "--workers", "2"]
    with run_server("serve", tmp_path / "log", *options) as (process, port):
        address = f"http://127.0.0.1:{port}"

        def ask(path, body=None, token=TOKEN):
            content = None if body is None else json.dumps(body).encode()
            headers = {"Authorization": f"Bearer {token}"}
            request = urllib.request.Request(f"{address}{path}", content, headers)  # noqa: S310  -- our own server
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  -- our own server
                return json.load(answer)

        assert [entry["id"] for entry in ask("/v1/models")["data"]] == ["emoji", checkpoint.name]
        with pytest.raises(urllib.error.HTTPError) as refusal:
            ask("/v1/models", token="wrong")  # noqa: S106  -- of a server of the test
        error = json.load(refusal.value)["error"]
        assert refusal.value.code == 401 and error["code"] == "invalid_api_key"
        (row,) = ask("/v1/embeddings", {"model": "emoji", "input": "red", "encoding_format": "base64"})["data"]
        embedding = np.frombuffer(base64.b64decode(row["embedding"]), "<f4")
        np.testing.assert_allclose(embedding, model.encode_texts(["red"])[0], atol=1e-6)
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.parametrize("package", ["openai", "langchain_openai", "llama_index.embeddings.openai_like"])
def test_clients_of_the_page_get_embeddings(package, checkpoint, model, tmp_path, monkeypatch):
    pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "apple.png").write_bytes(IMAGE)
    (code,) = [
        block for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S) if f"from {package} " in block
    ]
    names = {}
    with run_server("serve", tmp_path / "log", f"emoji={checkpoint}") as (_, port):
        exec(code.replace("127.0.0.1:8000", f"127.0.0.1:{port}"), names)  # noqa: S102  -- code of our own pages
    expected = model.encode_texts(["a red apple", "红苹果"])
    if package == "openai":
        np.testing.assert_allclose([row.embedding for row in names["texts"].data], expected, atol=1e-6)
        np.testing.assert_allclose(names["images"].data[0].embedding, model.encode_images([IMAGE])[0], atol=1e-6)
    elif package == "langchain_openai":
        np.testing.assert_allclose(names["vectors"], expected, atol=1e-6)
    else:
        np.testing.assert_allclose(names["vector"], expected[1], atol=1e-6)
