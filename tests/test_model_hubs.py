"""Models by their names on a hub: through huggingface_hub from a server on this machine, and through stand-ins."""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

from ernie_vil2.io import hub
from ernie_vil2.models.weights.stored import find_model
from tests.support.limits import PATIENCE
from tests.support.other_families import FOLDERS
from tests.support.processes import run_process

NAME, COMMIT = "OFA-Sys/chinese-clip-tiny", "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """What the Hugging Face Hub answers about one repository, the folder of `server.folder`."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        path, folder = unquote(self.path.partition("?")[0]), self.server.folder
        self.server.asked.append(path)
        if path.startswith(f"/api/models/{NAME}"):
            names = sorted(file.name for file in folder.iterdir() if file.is_file())
            about = {"id": NAME, "sha": COMMIT, "private": False, "downloads": 1, "likes": 0, "tags": [],
                     "siblings": [{"rfilename": name} for name in names]}  # fmt: skip
            tree = [{"type": "file", "path": name, "oid": name, "size": 1} for name in names]
            return self.answer(json.dumps(tree if "/tree/" in path else about).encode(), "application/json", body)
        file = folder / path.rpartition("/")[2]
        if not path.startswith(f"/{NAME}/resolve/") or not file.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        return self.answer(file.read_bytes(), "application/octet-stream", body)

    def answer(self, content, kind, body):
        self.send_response(200)
        for key, value in {"Content-Length": len(content), "Content-Type": kind, "ETag": f'"{len(content)}"',
                           "X-Repo-Commit": COMMIT}.items():  # fmt: skip
            self.send_header(key, str(value))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.folder, server.asked = FOLDERS["hf_chinese_clip_bin"], []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def fetched(code, tmp_path, endpoint):
    """What a process prints in which huggingface_hub asks this address."""
    environment = os.environ | {
        "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "ERNIE_VIL2_CACHE": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }  # fmt: skip
    return run_process([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=PATIENCE)


LOAD = f"import ernie_vil2; print(ernie_vil2.load_model({NAME!r}, device='cpu').encode_texts(['一只猫']).shape)"


def test_a_model_of_the_hub_is_fetched_once_without_what_it_does_not_need(server, tmp_path):
    pytest.importorskip("huggingface_hub")
    endpoint = f"http://127.0.0.1:{server.server_port}"
    done = fetched(LOAD, tmp_path, endpoint)
    assert done.returncode == 0, done.stderr
    names = {path.rpartition("/")[2] for path in server.asked if "/resolve/" in path}
    assert names == {"config.json", "preprocessor_config.json", "pytorch_model.bin", "vocab.txt"}
    server.shutdown()
    offline = fetched(LOAD, tmp_path, "http://127.0.0.1:9")  # from the cache of huggingface_hub
    assert offline.returncode == 0 and offline.stdout == done.stdout, offline.stderr


def test_without_a_connection_the_files_and_their_folder_are_named(tmp_path):
    pytest.importorskip("huggingface_hub")
    done = fetched(LOAD, tmp_path, "http://127.0.0.1:9")
    error = done.stderr.splitlines()[-1]
    folder = str(tmp_path / "cache" / NAME)
    addresses = f"https://huggingface.co/{NAME}", f"https://modelscope.cn/models/{NAME}"
    for part in ("config.json", "vocab.txt", "pytorch_model.bin", "modelscope is not installed", folder, *addresses):
        assert part in error, error


def test_files_that_a_person_has_put_there_are_used(tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path))
    folder = tmp_path / NAME
    folder.parent.mkdir()
    folder.symlink_to(FOLDERS["hf_chinese_clip_bin"])
    assert find_model(NAME) == folder


def test_modelscope_is_asked_where_the_other_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path))
    asked = {}
    modelscope = ModuleType("modelscope")
    modelscope.HubApi = type("HubApi", (), {"get_model_files": lambda self, name: [
        {"Path": one} for one in ("config.json", "model.safetensors", "model.onnx", "onnx/model.onnx", "vocab.txt")
    ]})  # fmt: skip
    modelscope.snapshot_download = lambda name, allow_patterns: asked.update({name: allow_patterns}) or str(tmp_path)
    monkeypatch.setitem(sys.modules, "modelscope", modelscope)
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: name == "modelscope" or None)
    assert hub.fetch_from_hub(NAME) == tmp_path
    assert asked == {NAME: ["config.json", "vocab.txt", "model.safetensors"]}


def test_the_weights_that_are_taken():
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    both = ["pytorch_model.bin", *shards, "model.safetensors.index.json", "flax_model.msgpack", "config.json"]
    assert hub.wanted(both) == (["config.json"], ["model.safetensors.index.json", *shards])
    assert hub.wanted(["pytorch_model.bin", "tf_model.h5"]) == ([], ["pytorch_model.bin"])
    assert hub.wanted(["clip_cn_vit-b-16.pt", "README.md"]) == (["README.md"], ["clip_cn_vit-b-16.pt"])
    assert hub.wanted(["x/model.safetensors"]) == ([], [])


@pytest.mark.parametrize("source", ["runs/emoji.pdparams", "nowhere", "a/b/c", "../x", "/abs/x", "tests/nothing"])
def test_what_is_a_path_is_not_looked_for_on_a_hub(source, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    assert not hub.is_hub_name(source)
    assert hub.is_hub_name("google/siglip2-base-patch16-256") and hub.is_hub_name(
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    )
