"""Servers of embeddings: ours in a thread, and one that follows a script of misbehaviour."""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from tests.support.misbehaving_server import start_serving

WIDTH = 4


@contextmanager
def serve_model(model, name="shapes"):
    """Serve a model of this process by our own server, and yield its address."""
    from ernie_vil2.apps.serving.application import build_app
    from ernie_vil2.apps.serving.batching import Batcher
    from ernie_vil2.apps.serving.models import ServedModel, ServedModels
    from tests.support.sockets import RunningServer

    app = build_app(ServedModels([ServedModel(name, model, Batcher(model, 256))]))
    with RunningServer(app) as running:
        host, port = running.address
        yield f"http://{host}:{port}/v1#{name}"


def embed(content):
    """Return an embedding of norm 2 that follows from the text, or the data: URL of an image."""
    row = np.random.default_rng(list(content.encode())).normal(size=WIDTH)
    return (2 * row / np.linalg.norm(row)).astype(np.float32)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.server.description is None:
            self.send(404, {"detail": "Not Found"})
        else:
            self.send(200, self.server.description)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(body)
            self.server.tokens.append(self.headers.get("Authorization"))
            answer = self.server.script.pop(0) if self.server.script else None
        if answer is None:
            self.send(200, {"data": make_entries(body)})
        else:
            answer(self, body)

    def send(self, status, content, **headers):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)


def make_entries(body):
    """Return the entries of a right answer to a request, in the format that it asks for."""
    entries = []
    for number, content in enumerate(body["input"]):
        row = embed(content)
        value = row.tolist()
        if body.get("encoding_format") == "base64":
            value = base64.b64encode(row.tobytes()).decode()
        entries.append({"object": "embedding", "index": number, "embedding": value})
    return entries


class ScriptedServer(ThreadingHTTPServer):
    """A server of embeddings that answers as it should, except where its script says otherwise.

    Attributes:
        script: for each of the next POSTs a function of the handler and the body that answers, or None.
        description: answer to a GET; None: 404.
        requests: bodies of all POSTs.
        tokens: their Authorization headers.
    """

    daemon_threads, block_on_close = True, False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script, self.requests, self.tokens = [], [], []
        self.description = None
        self.lock = threading.Lock()
        self.address = f"http://127.0.0.1:{self.server_port}/v1#m"

    @property
    def inputs(self):
        """All texts and images that it was asked for, without the probe."""
        return [content for body in self.requests for content in body["input"] if content != "a"]

    def __enter__(self):
        start_serving(self)
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
