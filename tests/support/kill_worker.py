"""A training process that is killed by the test, or kills itself at a moment that is hard to hit from outside."""

import itertools
import os
import signal
import threading
import time

import visualdl  # noqa: F401  # a run imports it late; imported here, the server of these processes does so once

from ernie_vil2.config import load_config
from ernie_vil2.training import checkpoint
from ernie_vil2.training.run_log import RunLog
from ernie_vil2.training.trainer import Trainer


def train(overrides, killed_in=None, killing_call=1, killed_after=0, pause=0.0):
    """Continue a run.

    Args:
        killed_in: the name of a function of `checkpoint`, in which the process is killed.
        killing_call: the call of it that kills, from 1.
        killed_after: step that must be logged before the process is killed; until then the call waits.
        pause: seconds after each record of the log, so that a kill from outside comes before the end.
    """
    is_logged = threading.Event()
    if killed_in:
        original, calls = getattr(checkpoint, killed_in), itertools.count(1)

        def kill_or_call(*arguments):
            if next(calls) == killing_call:
                is_logged.wait()
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        setattr(checkpoint, killed_in, kill_or_call)
    write = RunLog.write

    def write_slowly(log, kind, step, values):
        write(log, kind, step, values)
        if step >= killed_after:
            is_logged.set()
        time.sleep(pause)

    RunLog.write = write_slowly
    Trainer(load_config(None, overrides), resume=True).fit()
