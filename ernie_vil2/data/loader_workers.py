"""Worker processes that fill the rows of batches ahead of time, in memory that they share with the training process.

Workers are forked, so that they read the same sources without copying them. A forked process has only one of its
parent's threads: what a worker runs must not touch Paddle, because another thread may have held one of Paddle's locks
at the fork. Pixels are written once, into anonymous shared memory, which the limit of `/dev/shm` does not apply to.
Only a row's report, such as its name, goes through a pipe.

Each worker fills the same rows of every batch, whatever the others do. It ends with its parent, even if that is killed:
their pipe closes, and on Linux the kernel kills the worker.
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

from ernie_vil2.device.launch import STOP_EXIT_CODES, exit_when_parent_dies
from ernie_vil2.io.terminal import RunError

Arrays = dict[str, np.ndarray]
RowLayout = Mapping[str, tuple[tuple[int, ...], Any]]
Fill = Callable[[int, Arrays, int], Any]

# Batches that workers may be ahead of their reader: one batch is filled while the other is read. More would take the
# memory of a whole batch each.
NUM_SLOTS = 2

# Seconds between two looks at a worker that is waited for, which bounds how late a stuck or dead one is noticed.
POLL_INTERVAL = 1.0


class WorkerError(RunError):
    """A loader process failed or was killed; the message names the position in the stream."""


def fill_batches(
    fill: Fill,
    layout: RowLayout,
    batch_size: int,
    positions: Iterable[Sequence[int]],
    num_workers: int,
    patience: float = math.inf,
    report_stuck: Callable[[int], Any] = lambda position: None,
) -> Generator[tuple[Arrays, list[Any]], None, None]:
    """Fill batches of rows, in order.

    Args:
        fill: function that fills one row, called with its position in the stream, the arrays and the row's number. It
            returns a report, which goes through a pipe. It must do the same for the same position in any process.
        layout: for each array, by its name, the shape of one row and the type.
        batch_size: rows of a batch.
        positions: for each batch the positions of its rows. Every process iterates over its own copy.
        num_workers: number of worker processes; 0: this process fills a batch when it is requested.
        patience: seconds that a worker may take for a row. If it takes longer, because a disk or server does not
            answer, it is killed, and a new worker continues without that row. Without workers there is no limit.
        report_stuck: function that makes the report of such a row, called with its position.

    Yields:
        The arrays of a batch, `[batch_size, ...]`, valid until the next batch is requested, and the rows' reports.

    Raises:
        WorkerError: a worker failed or was killed, or two rows of one batch took longer than `patience`.
    """
    if not num_workers:
        arrays = {name: np.zeros((batch_size, *shape), dtype) for name, (shape, dtype) in layout.items()}
        for batch in positions:
            yield arrays, [fill(position, arrays, row) for row, position in enumerate(batch)]
        return

    slots: list[Arrays] = []
    for _ in range(NUM_SLOTS):
        slots.append({name: _shared_array((batch_size, *shape), dtype) for name, (shape, dtype) in layout.items()})
    workers: list[_Worker] = []
    hanging_pids: list[int] = []  # killed processes that may end later, after a system call
    positions = iter(positions)
    try:
        for index in range(num_workers):
            workers.append(_Worker(fill, slots, positions, range(index, batch_size, num_workers), workers))
        for number, batch in enumerate(positions):
            reports: list[Any] = [None] * len(batch)
            skipped: dict[int, Any] = {}  # reports of the rows that took too long, by position
            for index in range(num_workers):
                worker = workers[index]
                while (position := worker.wait_for_reports(patience)) is not None:
                    worker.kill(wait=False)
                    hanging_pids.append(worker.pid)
                    if skipped:
                        raise WorkerError(
                            f"no data arrives: nothing came within {patience:g} seconds, twice in one batch "
                            f"({skipped.popitem()[1]}; {report_stuck(position)}). See that its disk or server answers, "
                            "then continue with --resume, or with more Data.patience"
                        )
                    skipped[position] = report_stuck(position)
                    # The new worker fills this batch again, without the row, and goes on with the batches after it.
                    fill_others = partial(_fill_unless_skipped, fill, dict(skipped))
                    remaining = itertools.chain([batch], positions)
                    worker = _Worker(fill_others, slots, remaining, worker.rows, workers, number)
                    workers[index] = worker
                reports[index::num_workers] = worker.receive_reports()
            yield slots[number % NUM_SLOTS], reports
            for worker in workers:
                worker.release_slot()
            hanging_pids = _find_running(hanging_pids)
    finally:
        for worker in workers:
            worker.kill()
        _find_running(hanging_pids)


def _find_running(pids: Sequence[int]) -> list[int]:
    """Return which children have not ended; the kernel forgets those that have."""
    return [pid for pid in pids if not os.waitpid(pid, os.WNOHANG)[0]]


def _fill_unless_skipped(fill: Fill, skipped: Mapping[int, Any], position: int, arrays: Arrays, row: int) -> Any:
    if position in skipped:
        return skipped[position]
    return fill(position, arrays, row)


def _shared_array(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array in memory that forked processes share."""
    dtype = np.dtype(dtype)
    memory = mmap.mmap(-1, max(1, math.prod(shape) * dtype.itemsize))  # mmap refuses a size of 0
    return np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)


class _Worker:
    """One worker process, as its parent sees it.

    Args:
        fill: as in `fill_batches`.
        slots: arrays of `NUM_SLOTS` batches, used in turn.
        positions: for each batch, from `first_batch` on, the positions of its rows.
        rows: the rows of every batch that this worker fills.
        workers: the workers before it, whose pipes it closes.
        first_batch: number of the first batch.
    """

    def __init__(
        self,
        fill: Fill,
        slots: Sequence[Arrays],
        positions: Iterable[Sequence[int]],
        rows: range,
        workers: Sequence[_Worker],
        first_batch: int = 0,
    ):
        self.rows = rows
        self._progress = _shared_array((2,), np.int64)  # position of the current row, and how many rows were begun
        self._pipe, child_pipe = Pipe()
        self._is_alive, parent_pid = True, os.getpid()
        self.pid = os.fork()
        if self.pid:
            child_pipe.close()
            return

        # The child must never leave this block: the stack above belongs to its parent.
        try:
            # SIGKILL, because a worker may hang in a system call and never notice that the pipe is closed.
            exit_when_parent_dies(parent_pid, signal.SIGKILL)
            gc.freeze()  # the child must not collect its parent's garbage, which includes Paddle's tensors
            # The parent decides how a run ends; a signal to the whole group must not end its workers before.
            for number in STOP_EXIT_CODES:
                signal.signal(number, signal.SIG_IGN)
            # If the parent's ends stayed open here, the death of the parent would close no pipe.
            for worker in (*workers, self):
                worker._pipe.close()
            self._run(fill, slots, enumerate(positions, first_batch), first_batch, child_pipe)
        finally:
            os._exit(0)

    def _run(
        self,
        fill: Fill,
        slots: Sequence[Arrays],
        batches: Iterable[tuple[int, Sequence[int]]],
        first_batch: int,
        pipe: Connection,
    ) -> None:
        """Fill this worker's rows of every batch and send their reports; a failure is sent as a text."""
        try:
            for number, positions in batches:
                if number >= first_batch + len(slots):
                    pipe.recv()  # wait until the parent releases the slot
                reports = self._fill_rows(fill, slots[number % len(slots)], positions)
                pipe.send(reports)
                if isinstance(reports, str):
                    return
        except (EOFError, ConnectionError):
            pass  # the parent has ended

    def _fill_rows(self, fill: Fill, arrays: Arrays, positions: Sequence[int]) -> list[Any] | str:
        reports = []
        try:
            for row in self.rows:
                self._progress[:] = positions[row], self._progress[1] + 1
                reports.append(fill(positions[row], arrays, row))
        except RunError as error:  # its message needs no traceback
            return str(error)
        except BaseException:
            return traceback.format_exc()
        return reports

    def wait_for_reports(self, patience: float) -> int | None:
        """Wait for the next reports; return a position if its row takes longer than `patience` seconds."""
        waited, rows_begun = 0.0, self._progress[1]
        interval = min(POLL_INTERVAL, patience)
        while self._is_alive and not self._pipe.poll(interval):
            # Intervals are counted instead of reading the clock: a run that is suspended suspends both processes.
            waited = waited + interval if rows_begun == self._progress[1] else 0.0
            rows_begun = self._progress[1]
            if waited >= patience:
                return int(self._progress[0])
        return None

    def receive_reports(self) -> list[Any]:
        """Receive the reports of this worker's rows of the next batch."""
        try:
            reports = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._is_alive = False
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            cause = f"code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"
            reports = f"it ended with {cause}; where memory runs out, use fewer Data.workers"
        if isinstance(reports, str):
            raise WorkerError(
                f"loader process {self.pid} failed at position {self._progress[0]} of the stream: {reports}"
            )
        return reports

    def release_slot(self) -> None:
        """Let the worker use the memory of the oldest batch again."""
        # A dead worker is reported by `receive_reports`, after the batches that it has filled.
        with contextlib.suppress(ConnectionError):
            self._pipe.send(None)

    def kill(self, wait: bool = True) -> None:
        """Kill the process; do not `wait` for its end if it hangs in a system call, which may delay that."""
        self._pipe.close()
        if self._is_alive:
            self._is_alive = False
            os.kill(self.pid, signal.SIGKILL)  # it writes nothing that could remain half-written
            if wait:
                os.waitpid(self.pid, 0)
