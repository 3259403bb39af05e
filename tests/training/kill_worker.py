"""A training process that is killed: by the test, or by itself where a moment is hard to meet from outside."""

import os
import signal
from contextlib import suppress

from ernie_vil2.config import load_config
from ernie_vil2.training import checkpoint
from ernie_vil2.training.trainer import Trainer

with suppress(ImportError):  # what a run imports late is here imported once, by the server of all these processes
    import paddleclas  # noqa: F401
    import paddlenlp.transformers  # noqa: F401


def train(overrides, killed_in=None):
    """Goes on with a run; `killed_in` names a function of `checkpoint` in whose location the process is killed."""
    if killed_in:
        setattr(checkpoint, killed_in, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    Trainer(load_config(None, overrides), resume=True).fit()
