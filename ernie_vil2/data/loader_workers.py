"""Processes that make the rows of batches ahead of their use, in memory that they share with who uses them.

The workers are forked, so that they read the same sources without a copy of them. A fork has only one of its parent's
threads: what a worker runs must not touch Paddle, whose other threads may have had a lock at that moment. Pixels are
written once, into anonymous shared memory, which no limit of `/dev/shm` concerns; only what a row says of itself, such
as its name, goes through a pipe.

Each worker makes the same rows of every batch, whatever the others do. It ends when its parent does, however that
ends: the pipe between them is then closed, and on Linux the kernel kills it.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import mmap
import os
import signal
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection, Pipe
from typing import Any

import numpy as np

from ernie_vil2.device.launch import STOPPED, end_with_parent
from ernie_vil2.io.terminal import RunError

Arrays = dict[str, np.ndarray]
RowLayout = Mapping[str, tuple[tuple[int, ...], Any]]
Fill = Callable[[int, Arrays, int], Any]

AHEAD = 2  # batches that the workers may be ahead
GLANCE = 1.0  # seconds between two looks at a worker that is waited for


class WorkerError(RunError):
    """A loader process failed or was killed; the message names the position in the stream."""


def filled_batches(
    fill: Fill,
    layout: RowLayout,
    rows: int,
    positions: Iterable[Sequence[int]],
    processes: int,
    patience: float = math.inf,
    stuck: Callable[[int], Any] = lambda position: None,
) -> Generator[tuple[Arrays, list[Any]], None, None]:
    """Batches of rows, in order.

    Args:
        fill: makes the row of a position, called with the position, the arrays and the row's number. What it returns
            goes through a pipe. It must do the same for the same position in whichever process.
        layout: by the array's name, the shape of one row and its type.
        rows: rows of a batch.
        positions: for each batch the positions of its rows. Every process goes through its own copy.
        processes: that make rows; 0: this one makes the rows when they are asked for.
        patience: seconds that a row may take. A worker that takes longer, because what it reads from does not answer,
            is killed, and another one continues without that row. This process's own rows may take any time.
        stuck: what is reported of such a row, called with its position.

    Yields:
        The arrays of a batch, `[rows, ...]`, and what `fill` returned for each row. The arrays hold until the next
        batch is asked for.

    Raises:
        WorkerError: a worker failed, something killed it, or a second row takes too long before a batch is whole.
    """
    if not processes:
        arrays = {name: np.zeros((rows, *shape), kind) for name, (shape, kind) in layout.items()}
        for batch in positions:
            yield arrays, [fill(position, arrays, row) for row, position in enumerate(batch)]
        return
    slots = [{name: _shared((rows, *shape), kind) for name, (shape, kind) in layout.items()} for _ in range(AHEAD)]
    workers: list[_Worker] = []
    positions = iter(positions)
    try:
        for number in range(processes):
            workers.append(_Worker(fill, slots, positions, range(number, rows, processes), workers))
        for number, batch in enumerate(positions):
            arrays, reports = slots[number % AHEAD], [None] * len(batch)
            given_up: dict[int, Any] = {}
            for index, worker in enumerate(workers):
                while (position := worker.stuck_at(patience)) is not None:
                    worker.end(wait=False)
                    if given_up:
                        raise WorkerError(
                            f"no data arrives: nothing came within {patience:g} seconds, twice in one batch "
                            f"({given_up.popitem()[1]}; {stuck(position)}). See that its disk or server answers, then "
                            "continue with --resume, or with more Data.patience"
                        )
                    given_up[position] = stuck(position)
                    fill_others = partial(_fill_others, fill, dict(given_up))
                    rest = itertools.chain([batch], positions)
                    workers[index] = worker = _Worker(fill_others, slots, rest, worker.rows, workers, number)
                reports[worker.rows.start :: processes] = worker.reports()
            yield arrays, reports
            for worker in workers:
                worker.release_slot()
    finally:
        for worker in workers:
            worker.end()


def _fill_others(fill: Fill, given_up: Mapping[int, Any], position: int, arrays: Arrays, row: int) -> Any:
    return given_up[position] if position in given_up else fill(position, arrays, row)


def _shared(shape: tuple[int, ...], kind: Any) -> np.ndarray:
    kind = np.dtype(kind)
    memory = mmap.mmap(-1, max(1, math.prod(shape) * kind.itemsize))  # of size 0 there is none
    return np.frombuffer(memory, kind, math.prod(shape)).reshape(shape)


class _Worker:
    """One process, as its parent sees it: makes `rows` of every batch from `first` on, up to `AHEAD` batches ahead."""

    def __init__(
        self,
        fill: Fill,
        slots: Sequence[Arrays],
        positions: Iterable[Sequence[int]],
        rows: range,
        earlier: Sequence[_Worker],
        first: int = 0,
    ):
        self.rows = rows
        self._position = _shared((2,), np.int64)  # and how many rows have been begun
        self._pipe, child = Pipe()
        self._alive, parent = True, os.getpid()
        self.pid = os.fork()
        if self.pid:
            child.close()
            return
        # The child never leaves this block: the frames above are its parent's.
        try:
            end_with_parent(parent, signal.SIGKILL)  # it may hang where it does not notice that the pipe is closed
            gc.freeze()  # the parent's garbage, Paddle's tensors among it, is not the child's to collect
            # The parent decides how a run ends; a signal to the whole group must not end its workers before.
            for number in STOPPED:
                signal.signal(number, signal.SIG_IGN)
            # Were the parent's ends open here as well, no pipe would close with its death.
            for worker in (*earlier, self):
                worker._pipe.close()
            self._work(fill, slots, enumerate(positions, first), first, child)
        finally:
            os._exit(0)

    def _work(
        self,
        fill: Fill,
        slots: Sequence[Arrays],
        positions: Iterable[tuple[int, Sequence[int]]],
        first: int,
        pipe: Connection,
    ) -> None:
        try:
            for number, batch in positions:
                if number >= first + len(slots):
                    pipe.recv()
                reports = self._fill(fill, slots[number % len(slots)], batch)
                pipe.send(reports)
                if isinstance(reports, str):
                    return
        except (EOFError, ConnectionError):
            pass  # the parent is gone

    def _fill(self, fill: Fill, arrays: Arrays, positions: Sequence[int]) -> list[Any] | str:
        reports = []
        try:
            for row in self.rows:
                self._position[:] = positions[row], self._position[1] + 1
                reports.append(fill(positions[row], arrays, row))
        except RunError as error:  # of which the message says all
            return str(error)
        except BaseException:
            return traceback.format_exc()
        return reports

    def stuck_at(self, patience: float) -> int | None:
        """Waits for the next reports; the position whose row takes longer than `patience`, if there is one."""
        waited, begun = 0.0, self._position[1]
        glance = min(GLANCE, patience)
        while self._alive and not self._pipe.poll(glance):
            # Looks, not the clock: whoever suspends the run for a while suspends both sides.
            waited = waited + glance if begun == self._position[1] else 0.0
            begun = self._position[1]
            if waited >= patience:
                return int(self._position[0])
        return None

    def reports(self) -> list[Any]:
        """What the rows of the next batch say of themselves; waits for them."""
        try:
            reports = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._alive = False
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            how = f"code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
            reports = f"it ended with {how}; where memory runs out, use fewer Data.workers"
        if isinstance(reports, str):
            raise WorkerError(
                f"loader process {self.pid} failed at position {self._position[0]} of the stream: {reports}"
            )
        return reports

    def release_slot(self) -> None:
        """Gives the memory of the oldest batch back to the worker."""
        # A dead one: `reports` says so, after the batches that it has finished.
        with contextlib.suppress(ConnectionError):
            self._pipe.send(None)

    def end(self, wait: bool = True) -> None:
        """Kills the process; `wait` for its end, unless it hangs in the system, which may delay that."""
        self._pipe.close()
        if self._alive:
            self._alive = False
            os.kill(self.pid, signal.SIGKILL)  # it holds nothing that could be left half done
            os.waitpid(self.pid, 0 if wait else os.WNOHANG)
