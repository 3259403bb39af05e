"""A training process that is killed by the test, or kills itself at a moment that is hard to hit from outside."""

import os
import signal
import time

import visualdl  # noqa: F401  # a run imports it late; imported here, the server of these processes does so once

from ernie_vil2.config import load_config
from ernie_vil2.training import checkpoint
from ernie_vil2.training.run_log import RunLog
from ernie_vil2.training.trainer import Trainer


def train(overrides, killed_in=None, pause=0.0):
    """Continue a run.

    Args:
        killed_in: the name of a function of `checkpoint`; calling it kills the process.
        pause: seconds after each record of the log, so that a kill from outside comes before the end.
    """
    if killed_in:
        setattr(checkpoint, killed_in, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    write = RunLog.write

    def write_slowly(log, *record):
        write(log, *record)
        time.sleep(pause)

    RunLog.write = write_slowly
    Trainer(load_config(None, overrides), resume=True).fit()
