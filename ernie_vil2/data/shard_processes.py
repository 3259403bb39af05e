"""Processes that do a task for each of many shards, with a progress bar of the samples read."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar, cast

import cv2

from ernie_vil2.device.launch import exit_when_parent_dies
from ernie_vil2.io.progress import progress_bar
from ernie_vil2.io.terminal import RunError

T = TypeVar("T")

CountSamples = Callable[[int], None]
"""Function that a task calls with the number of samples read since the last call.

It raises KeyboardInterrupt in the task when the parent stops.
"""

REFRESH_INTERVAL = 0.5  # seconds between two updates of the bar


class KilledProcess(RunError):  # noqa: N818  -- named by what has happened
    """A process was killed; the message says what to do."""


class _Process:
    """The task of a pool's process, inherited by the fork, because a closure cannot be sent through a pipe."""

    task: Callable[[int], Any]


def map_shards(
    task: Callable[[int, CountSamples], T],
    shards: Sequence[int],
    num_processes: int,
    description: str,
    num_samples: int,
) -> list[T]:
    """Do a task for every shard, and return the results in order.

    Args:
        task: function of a shard's number and a `CountSamples`, called in any of the processes, which are forked.
        shards: numbers of the shards.
        num_processes: number of processes.
        description: label of the bar, such as "writing".
        num_samples: number of samples of all shards, for the bar.

    Raises:
        KilledProcess: a process was killed.
    """
    if not shards:
        return []
    context = multiprocessing.get_context("fork")
    num_read, is_stopped = context.Value("q", 0), context.Value("b", 0, lock=False)

    def count(samples: int) -> None:
        if is_stopped.value:
            raise KeyboardInterrupt
        with num_read.get_lock():
            num_read.value += samples

    pool = ProcessPoolExecutor(
        min(num_processes, len(shards)),
        context,
        initializer=_initialize_process,
        initargs=(os.getpid(), lambda shard: task(shard, count)),
    )
    bar = progress_bar(description=description, unit="sample", total=num_samples)
    results, remaining, running = dict[int, T](), iter(shards), dict[Future, int]()
    with bar:
        try:
            while len(results) < len(shards):
                # Two shards for each process: the next one waits while the first is read.
                for shard in islice(remaining, 2 * num_processes - len(running)):
                    running[pool.submit(_run_task, shard)] = shard
                finished, _ = wait(running, REFRESH_INTERVAL, FIRST_COMPLETED)
                bar.update(num_read.value - bar.n)
                for future in finished:
                    results[running.pop(future)] = future.result()
            return [results[shard] for shard in shards]
        except BrokenProcessPool as error:
            raise KilledProcess(
                "a process was killed, perhaps for its memory; run again, with fewer --processes, to continue"
            ) from error
        finally:
            is_stopped.value = 1
            pool.shutdown(wait=True, cancel_futures=True)


def _initialize_process(parent_pid: int, task: Callable[[int], Any]) -> None:
    exit_when_parent_dies(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    cv2.setNumThreads(0)  # processes are the parallelism here
    _Process.task = staticmethod(task)


def _run_task(shard: int) -> Any:
    return cast(Any, _Process.task(shard))
