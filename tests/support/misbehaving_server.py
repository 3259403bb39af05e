"""A file server on 127.0.0.1 that misbehaves as the first folder of a path says: `/503/a.tar`."""

import contextlib
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STALL = threading.Event()  # is never set: waiting for it is a stall


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        _, manner, name = self.path.partition("?")[0].split("/")
        manner = self.server.manners.get(name, manner)
        content = self.server.files.get(name)
        with self.server.count_lock:
            self.server.request_counts[self.command, manner] += 1
            if "-then-" in manner:  # "503-then-2": two requests misbehave, later ones do not
                manner, times = manner.split("-then-")
                if self.server.request_counts[self.command, self.path] >= int(times):
                    manner = "well"
                self.server.request_counts[self.command, self.path] += 1
        if content is None:
            manner = "404"
        with contextlib.suppress(OSError):  # the client has given up
            self.answer(manner, content, has_body=self.command == "GET")

    def answer(self, manner, content, has_body):
        if manner.isdigit():
            self.send_response(int(manner))
            self.send_header("Location", self.path)
            self.end_headers()
        elif manner == "garbage":
            self.wfile.write(b"\x1b[2Jno HTTP\n" * 99)
        else:
            self.send_response(200)
            if manner not in ("endless", "unannounced"):
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if not has_body:
                return
            if manner in ("well", "unannounced"):
                self.wfile.write(content)
            elif manner == "endless":
                while True:
                    self.wfile.write(bytes(2**16))
            else:
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
            if manner == "stalls":
                STALL.wait(60)
            while manner == "trickles":
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.01)


class MisbehavingServer(ThreadingHTTPServer):
    """Server of files; it runs within a `with` block.

    Attributes:
        files: name -> content.
        manners: name -> how the server misbehaves for this file; it goes before the manner in the path.
        request_counts: (method, manner) -> number of requests.
        address: its URL, without a slash at the end.
    """

    daemon_threads, block_on_close = True, False

    def __init__(self, **files):
        """Make a server of files; `_` in a name stands for the dot."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {name.replace("_", "."): content for name, content in files.items()}
        self.manners = {}
        self.request_counts = Counter()
        self.count_lock = threading.Lock()  # every request is answered in a thread of its own
        self.address = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        start_serving(self)
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


def start_serving(server):
    """Answer the requests to a server in a thread."""
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
