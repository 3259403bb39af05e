"""A task done for many shards by several processes, with a bar of the samples that they have read."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar, cast

import cv2
from tqdm import tqdm

from ernie_vil2.device.launch import end_with_parent
from ernie_vil2.io.terminal import RunError

T = TypeVar("T")
Count = Callable[[int], None]
"""Called by a task with the samples that it has read since; it ends the task with KeyboardInterrupt where the parent
stops."""
REFRESH = 0.5  # seconds between two looks at the progress


class KilledProcess(RunError):  # noqa: N818  -- named by what has happened
    """A process was killed; the message says what to do."""


class _Process:
    """What a process of the pool has from its parent: by the fork, not by a pipe."""

    task: Callable[[int], Any]


def each_shard(
    task: Callable[[int, Count], T], shards: Sequence[int], processes: int, what: str, samples: int
) -> list[T]:
    """The task's result for every shard, in order.

    Args:
        task: called with the number of a shard and with `Count`, in any of the processes, which are forked for it.
        what: is done, for the bar.
        samples: of all shards, for the bar.

    Raises:
        KilledProcess: something killed a process.
    """
    if not shards:
        return []
    context = multiprocessing.get_context("fork")
    done, stopped = context.Value("q", 0), context.Value("b", 0, lock=False)

    def count(read: int) -> None:
        if stopped.value:
            raise KeyboardInterrupt
        with done.get_lock():
            done.value += read

    pool = ProcessPoolExecutor(
        min(processes, len(shards)),
        context,
        initializer=_begin,
        initargs=(os.getpid(), lambda shard: task(shard, count)),
    )
    bar = tqdm(desc=what, total=samples, unit="sample", dynamic_ncols=True, file=sys.stdout)
    results, left, running = dict[int, T](), iter(shards), dict[Future, int]()
    with bar:
        try:
            while len(results) < len(shards):
                for shard in islice(left, 2 * processes - len(running)):
                    running[pool.submit(_run, shard)] = shard
                finished, _ = wait(running, REFRESH, FIRST_COMPLETED)
                bar.update(done.value - bar.n)
                for future in finished:
                    results[running.pop(future)] = future.result()
            return [results[shard] for shard in shards]
        except BrokenProcessPool as error:
            raise KilledProcess(
                "a process was killed, perhaps for its memory; run again, with fewer --processes, to continue"
            ) from error
        finally:
            stopped.value = 1
            pool.shutdown(wait=True, cancel_futures=True)


def _begin(parent: int, task: Callable[[int], Any]) -> None:
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    cv2.setNumThreads(0)  # processes are the parallelism here
    _Process.task = staticmethod(task)


def _run(shard: int) -> Any:
    return cast(Any, _Process.task(shard))
