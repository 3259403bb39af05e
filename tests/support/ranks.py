"""Ranks for tests, forked by a server that imports Paddle and the trainer once: two imports are most of a short run."""

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
    """Where such processes come from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.kill_worker"])
    return context


def run_ranks(target, *arguments, ranks=2):
    """Calls a function of a module, which joins the ranks, on each of several; what one raises is an error here."""
    sys.audit("os.fork")  # which --fast looks for; the server is started by another way
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
        while (running := [one for one in processes if one.exitcode is None]) and time.monotonic() < deadline:
            if any(one.exitcode for one in processes):
                break  # the others would wait for it
            wait([one.sentinel for one in running], timeout=1)
        for process in running:
            process.kill()
            process.join()
        reported = "".join(path.read_text() for path in sorted(Path(folder).iterdir()))
        assert not any(one.exitcode for one in processes), reported or [one.exitcode for one in processes]


def _rank(environment, report, target, arguments):
    os.environ |= environment
    try:
        target(*arguments)
    except BaseException:
        Path(report).write_text(traceback.format_exc())
        raise


def train(overrides):
    """As a rank: a whole run."""
    from ernie_vil2.config import load_config
    from ernie_vil2.training.trainer import Trainer

    assert Trainer(load_config(None, overrides)).fit()
