"""A server on 127.0.0.1 that holds files, and misbehaves as the first part of a path says: `/503/a.tar`."""

import contextlib
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STALL = threading.Event()  # nobody sets it: who waits for it gives up


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        _, manner, name = self.path.partition("?")[0].split("/")
        manner = self.server.manners.get(name, manner)
        content, got = self.server.files.get(name), self.command == "GET"
        with self.server.counting:
            self.server.asked[self.command, manner] += 1
            if "-then-" in manner:  # so often, and then well
                manner, times = manner.split("-then-")
                if self.server.asked[self.command, self.path] >= int(times):
                    manner = "well"
                self.server.asked[self.command, self.path] += 1
        if content is None:
            manner = "404"
        with contextlib.suppress(OSError):  # who asked has given up
            self.answer(manner, content, got)

    def answer(self, manner, content, got):
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
            if not got:
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
    """Serves `files` by their names; `asked` counts by (command, manner). As a context it runs, with its `address`.

    `manners` of a file by its name come before that of the path.
    """

    daemon_threads, block_on_close = True, False

    def __init__(self, **files):
        """`_` in a name is the dot."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {name.replace("_", "."): content for name, content in files.items()}
        self.manners = {}
        self.asked = Counter()
        self.counting = threading.Lock()  # of the threads that answer
        self.address = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        start_serving(self)
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


def start_serving(server):
    """Let a server answer, in a thread."""
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
