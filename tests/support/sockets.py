"""Servers of an index in a thread or a process, and clients that talk to them over bare sockets."""

import gc
import logging
import os
import re
import socket
import struct
import sys
import threading
from contextlib import contextmanager, suppress
from subprocess import STDOUT, TimeoutExpired

from ernie_vil2.apps.serving import server
from tests.support.limits import PATIENCE, wait_until
from tests.support.paths import ROOT
from tests.support.processes import start_process


class RunningServer:
    """Server in a thread; it runs within a `with` block.

    Attributes:
        address: host and port.
        tracebacks: records of its log that have a traceback.
    """

    def __init__(self, app, host="127.0.0.1", trusted_proxies=()):
        self.listener = server.listen(host, 0)
        self.address = self.listener.getsockname()[:2]
        self.server = server.make_server(app, trusted_proxies)
        self.tracebacks = []
        self._thread = threading.Thread(target=self.server.run, args=([self.listener],), daemon=True)

    def __enter__(self):
        self._handler = logging.Handler()
        self._handler.emit = lambda record: self.tracebacks.append(record) if record.exc_info else None
        for name in ("uvicorn.error", "asyncio"):
            logging.getLogger(name).addHandler(self._handler)
        self._thread.start()
        wait_until(lambda: self.server.started)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self._thread.join(PATIENCE)
        for name in ("uvicorn.error", "asyncio"):
            logging.getLogger(name).removeHandler(self._handler)
        assert not self._thread.is_alive()

    def connect(self, content=b""):
        """Open a connection, send a content over it, and return it."""
        client = socket.create_connection(self.address, PATIENCE)
        client.sendall(content)
        return client

    def ask(self, content):
        """Send a content, and return all bytes that come back until the server closes the connection."""
        with self.connect(content) as client:
            return receive_all(client)


@contextmanager
def serve_command(folder, checkpoint, log, *options):
    """Run `tools/search.py serve` in a process, and yield the process and its port."""
    arguments = ["serve", "--index", folder, "--checkpoint", checkpoint, *options]
    with run_server("search", log, *arguments) as server:
        yield server


@contextmanager
def run_server(tool, log, *arguments):
    """Run a command that serves in a process, and yield the process and its port."""
    command = [sys.executable, f"tools/{tool}.py", *arguments, "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with log.open("wb") as file:
        process = start_process(command, cwd=ROOT, env=environment, stdout=file, stderr=STDOUT)
    try:
        wait_until(lambda: process.poll() is not None or "Ctrl-C ends it" in log.read_text())
        assert process.poll() is None, log.read_text()
        yield process, int(re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())[1])
    finally:
        process.terminate()
        with suppress(TimeoutExpired):
            process.wait(PATIENCE)
        process.kill()
        process.wait()


def receive_all(client):
    """Return all bytes that come over a connection until it is closed."""
    chunks = []
    try:
        while chunk := client.recv(65536):
            chunks.append(chunk)
    except ConnectionError:  # the server has closed it before it had read the whole request
        pass
    return b"".join(chunks)


def read_answer(client):
    """Read a response that ends with the word "answer"; the connection stays open."""
    content = b""
    while not content.endswith(b"answer"):
        content += client.recv(65536)
        assert content


def make_request(method="GET", path="/health", content=b"", length=None, close=True, host="127.0.0.1"):
    """Return the bytes of a request; `length` is its Content-Length, by default the length of the content."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    if content or length is not None:
        lines.append(f"Content-Length: {len(content) if length is None else length}")
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + content


def reset_connection(client):
    """Close a connection as a dying client does: at once, with a reset, whatever is still unread."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@contextmanager
def disable_garbage_collection():
    """Keep reference cycles alive in the block: a server must not rely on the collector, which may run late."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
