"""Models by their names on a hub: huggingface_hub with a server on this machine, and a stand-in for ModelScope."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from urllib.parse import unquote

import pytest

from ernie_vil2.io import hub
from ernie_vil2.models.weights.format import find_model
from tests.support.limits import PATIENCE
from tests.support.misbehaving_server import start_serving
from tests.support.other_families import FOLDERS
from tests.support.paths import ROOT
from tests.support.processes import run_process

NAME, COMMIT = "OFA-Sys/chinese-clip-tiny", "0123456789abcdef0123456789abcdef01234567"
NOWHERE = "http://127.0.0.1:9"
FETCH = f"from ernie_vil2.io import hub; print(hub.fetch_from_hub({NAME!r}))"


class HubHandler(BaseHTTPRequestHandler):
    """Handler that answers as the Hugging Face Hub does for one repository, the files in `server.folder`."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET(has_body=False)

    def do_GET(self, has_body=True):
        path, folder = unquote(self.path.partition("?")[0]), self.server.folder
        self.server.requested_paths.append(path)
        file = folder / path.rpartition("/")[2]
        if path.startswith(f"/api/models/{NAME}"):
            names = sorted(file.name for file in folder.iterdir() if file.is_file())
            answer = {"id": NAME, "sha": COMMIT, "private": False, "downloads": 1, "likes": 0, "tags": [],
                      "siblings": [{"rfilename": name} for name in names]}  # fmt: skip
            if "/tree/" in path:
                answer = [{"type": "file", "path": name, "oid": name, "size": 1} for name in names]
            self.answer(200, json.dumps(answer).encode(), "application/json", has_body)
        elif path.startswith(f"/{NAME}/resolve/") and file.is_file():
            self.answer(200, file.read_bytes(), "application/octet-stream", has_body)
        else:
            self.answer(404, b"", "text/plain", has_body)

    def answer(self, status, content, kind, has_body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", kind)
        self.send_header("ETag", f'"{len(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if has_body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), HubHandler) as server:
        server.folder, server.requested_paths = FOLDERS["hf_chinese_clip_bin"], []
        start_serving(server)
        yield server
        server.shutdown()


def run_fetch(tmp_path, endpoint):
    """Fetch the model in a process whose huggingface_hub uses this address."""
    environment = os.environ | {
        "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "ERNIE_VIL2_CACHE": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }  # fmt: skip
    command = [sys.executable, "-c", FETCH]
    return run_process(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)


def test_model_is_fetched_once_with_the_files_it_needs(server, tmp_path):
    pytest.importorskip("huggingface_hub")

    # Without a connection the error names the files and where they belong.
    failed = run_fetch(tmp_path, NOWHERE)
    error = failed.stderr.splitlines()[-1]
    for culprit in ("config.json", "pytorch_model.bin", str(tmp_path / "cache" / NAME), f"huggingface.co/{NAME}"):
        assert culprit in error, error

    fetched = run_fetch(tmp_path, f"http://127.0.0.1:{server.server_port}")
    assert fetched.returncode == 0, fetched.stderr
    names = {path.rpartition("/")[2] for path in server.requested_paths if "/resolve/" in path}
    assert names == {"config.json", "preprocessor_config.json", "pytorch_model.bin", "vocab.txt"}

    offline = run_fetch(tmp_path, NOWHERE)  # from the cache of huggingface_hub
    assert offline.returncode == 0 and offline.stdout == fetched.stdout, offline.stderr


def test_files_that_a_user_put_into_the_cache_are_used(tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path))
    folder = tmp_path / NAME
    folder.parent.mkdir()
    folder.symlink_to(FOLDERS["hf_chinese_clip_bin"])
    assert find_model(NAME) == folder


def test_modelscope_is_used_without_huggingface_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path))
    patterns_by_model = {}
    names = ("config.json", "model.safetensors", "model.onnx", "onnx/model.onnx", "vocab.txt")

    def download(name, allow_patterns):
        patterns_by_model[name] = allow_patterns
        return str(tmp_path)

    modelscope = ModuleType("modelscope")
    files = [{"Path": name} for name in names]
    modelscope.HubApi = type("HubApi", (), {"get_model_files": lambda self, name: files})
    modelscope.snapshot_download = download
    monkeypatch.setitem(sys.modules, "modelscope", modelscope)
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: name == "modelscope" or None)
    assert hub.fetch_from_hub(NAME) == tmp_path
    assert patterns_by_model == {NAME: ["config.json", "vocab.txt", "model.safetensors"]}


def test_safetensors_are_preferred_to_other_weights():
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    files = ["pytorch_model.bin", *shards, "model.safetensors.index.json", "flax_model.msgpack", "config.json"]
    assert hub.select_files(files) == (["config.json"], ["model.safetensors.index.json", *shards])
    assert hub.select_files(["pytorch_model.bin", "tf_model.h5"]) == ([], ["pytorch_model.bin"])
    assert hub.select_files(["clip_cn_vit-b-16.pt", "README.md"]) == (["README.md"], ["clip_cn_vit-b-16.pt"])
    assert hub.select_files(["x/model.safetensors"]) == ([], [])


def test_path_is_not_looked_for_on_a_hub(monkeypatch):
    monkeypatch.chdir(ROOT)
    for source in ("runs/emoji.pdparams", "nowhere", "a/b/c", "../x", "/abs/x", "tests/nothing"):
        assert not hub.is_hub_name(source), source
    assert hub.is_hub_name("laion/CLIP-ViT-B-32-laion2B-s34B-b79K")
