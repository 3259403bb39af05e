"""Ranks for tests, forked by a server that imports Paddle and the trainer once: imports are most of a short run."""

import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import wait
from pathlib import Path

from ernie_vil2.device.launch import rank_environments
from ernie_vil2.device.runtime import num_usable_cores
from tests.support.limits import PATIENCE


def make_fork_context():
    """Return a multiprocessing context whose processes are forked from a server with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.kill_worker"])
    return context


def run_ranks(target, *arguments, ranks=2):
    """Call a function of a module on each of several ranks; the function joins them.

    An exception of a rank fails the test, and ends the other ranks, which would wait for it.
    """
    # --fast skips tests that raise this event; a fork server starts its processes without one.
    sys.audit("os.fork")
    threads = str(max(1, num_usable_cores() // ranks))
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for rank, environment in enumerate(rank_environments(ranks)):
            environment |= {"MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
            process = make_fork_context().Process(
                target=_rank, args=(environment, f"{folder}/{rank}", target, arguments)
            )
            process.start()
            processes.append(process)
        deadline = time.monotonic() + PATIENCE
        running = processes
        while running and time.monotonic() < deadline:
            if any(process.exitcode for process in processes):
                break
            wait([process.sentinel for process in running], timeout=1)
            running = [process for process in processes if process.exitcode is None]
        for process in running:
            process.kill()
            process.join()
        tracebacks = "".join(path.read_text() for path in sorted(Path(folder).iterdir()))
        exit_codes = [process.exitcode for process in processes]
        assert not any(exit_codes), tracebacks or exit_codes


def _rank(environment, report, target, arguments):
    os.environ |= environment
    try:
        target(*arguments)
    except BaseException:
        Path(report).write_text(traceback.format_exc())
        raise


def train(overrides):
    """Run a whole training as a rank."""
    from ernie_vil2.config import load_config
    from ernie_vil2.training.trainer import Trainer

    assert Trainer(load_config(None, overrides)).fit()
