"""A server of an index: one process, or several that share a port and, by memory map, the index."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ernie_vil2.device import runtime
from ernie_vil2.search import connections, metrics
from ernie_vil2.search.batching import KEPT_ANSWERS, MOST_WAITING, Batcher
from ernie_vil2.search.index import Index
from ernie_vil2.search.metrics import Metrics
from ernie_vil2.search.middleware import Access
from ernie_vil2.search.service import about, build_app

END_SECONDS = 8
"""From the signal to end until processes that still run are killed."""
PAUSE_SECONDS = 1.0
"""Before a process that has died is started again."""


@dataclass(frozen=True)
class Settings:
    """How an index is served.

    Attributes:
        port: 0: one that is free.
        workers: processes.
        access: who may ask.
        threshold, roots, shown, writable: as for `build_app`.
        most_waiting, kept: as for `Batcher`, of each process.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    access: Access = field(default_factory=Access)
    threshold: float | None = None
    roots: Sequence[str | Path] = ()
    most_waiting: int = MOST_WAITING
    kept: int = KEPT_ANSWERS
    shown: Sequence[str] = ()
    writable: bool = False


def serve(opening: Callable[[], Index], settings: Settings) -> int:
    """Serves an index until the process is interrupted or terminated, and some seconds longer.

    Args:
        opening: opens the index, once in each process; with several it must be one that can be pickled.

    Returns:
        The exit code: 0, or that of a process that could not begin.

    Raises:
        OSError: the address is in use or not this machine's.
    """
    listeners = connections.listeners(settings.host, settings.port, settings.workers)
    if settings.workers == 1:
        _work(opening, settings, listeners[0])
        return 0
    share = str(max(1, runtime.threads() // settings.workers))
    os.environ |= {"OMP_NUM_THREADS": share, "MKL_NUM_THREADS": share}  # of the processes that are started from here
    return _Supervisor(opening, settings, listeners).run()


def _work(
    opening: Callable[[], Index],
    settings: Settings,
    listener: socket.socket,
    shared: Any = None,
    number: int = 0,
    parent: Connection | None = None,
) -> None:
    """One process; it ends when it is asked to, or when its parent has ended."""
    counts = Metrics(shared, number)
    with opening() as index:
        batcher = Batcher(index, settings.most_waiting, settings.kept, counts)
        app = build_app(
            index, settings.threshold, settings.access, settings.roots, batcher, settings.shown, settings.writable
        )
        server = connections.server(app)
        if parent is not None:
            threading.Thread(target=_end_with, args=[parent, server], daemon=True).start()
        if number == 0:
            address = connections.authority(settings.host, listener.getsockname()[1])
            print(
                f"images in full: {', '.join(map(str, settings.roots))}"
                if settings.roots
                else "thumbnails alone; --root names folders whose images are served in full"
            )
            shown = f"http://{address}{settings.access.root_path}"
            print(f"{about(index)}\n{shown} (Ctrl-C ends it)", flush=True)
        counts.set(metrics.READY, 1)
        connections.run(server, listener)


def _end_with(parent: Connection, server: connections.Server) -> None:
    try:
        parent.recv()
    except EOFError:
        server.should_exit = True


class _Supervisor:
    """Starts the processes, starts again those that die, and ends all of them."""

    def __init__(self, opening: Callable[[], Index], settings: Settings, listeners: Sequence[socket.socket]):
        self._context = multiprocessing.get_context("spawn")  # a fork would take threads and locks of libraries along
        self._shared = self._context.RawArray("d", settings.workers * metrics.LENGTH)
        self._ours, self._theirs = self._context.Pipe()
        self._arguments = [(opening, settings, listener) for listener in listeners]
        self._workers: list[multiprocessing.process.BaseProcess] = []
        self._ended = False

    def run(self) -> int:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._end)
        self._workers = [self._started(number) for number in range(len(self._arguments))]
        code = 0
        while not self._ended:
            wait([worker.sentinel for worker in self._workers], timeout=0.5)
            for number, worker in enumerate(self._workers):
                if worker.is_alive() or self._ended:
                    continue
                if not self._shared[number * metrics.LENGTH + metrics.READY]:
                    self._ended, code = True, worker.exitcode or 1  # it could not begin, and has printed why
                    break
                print(f"worker {number} ended with {worker.exitcode} and is started again", file=sys.stderr, flush=True)
                time.sleep(PAUSE_SECONDS)
                self._workers[number] = self._started(number)
        self._stop()
        return code

    def _started(self, number: int) -> multiprocessing.process.BaseProcess:
        arguments = (*self._arguments[number], self._shared, number, self._theirs)
        self._shared[number * metrics.LENGTH + metrics.READY] = 0
        worker = self._context.Process(target=_work, args=arguments, name=f"search worker {number}")
        worker.start()
        return worker

    def _end(self, *_: Any) -> None:
        self._ended = True

    def _stop(self) -> None:
        for worker in self._workers:
            if worker.is_alive():
                worker.terminate()
        due = time.monotonic() + END_SECONDS
        for worker in self._workers:
            worker.join(max(0.0, due - time.monotonic()))
            if worker.is_alive():
                worker.kill()
                worker.join()
