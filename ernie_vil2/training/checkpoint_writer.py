"""A thread that writes checkpoints, so that training waits for the copy of its state only."""

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from tqdm import tqdm

from ernie_vil2.parallel.ranks import block_signals
from ernie_vil2.training.checkpoint import Checkpoint, save_checkpoint


class CheckpointWriter:
    """Writer of a run's checkpoints, one at a time, in a thread; as a context it waits at its end for the last one.

    The thread uses no device and no collective: it reads copies in host memory. The main thread raises its errors, so
    that the ranks can agree on them.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path):
        self._run = run
        self._executor = ThreadPoolExecutor(1, "checkpoint")
        self._write: Future[Path] | None = None

    def start(self, checkpoint: Checkpoint) -> None:
        """Start to write a checkpoint; `wait` must have been called for the one before.

        Args:
            checkpoint: what to write; nobody may change its arrays any more.
        """
        # The first call starts the thread. It blocks signals, so that they interrupt the system calls of the main
        # thread, which handles them.
        with block_signals():
            self._write = self._executor.submit(save_checkpoint, self._run, checkpoint)

    def get_error(self) -> Exception | None:
        """Return the error of the newest write without waiting for it; None if it has not failed so far."""
        if self._write is None or not self._write.done():
            return None
        return cast(Exception | None, self._write.exception())

    def wait(self) -> None:
        """Wait until the newest checkpoint is on the disk.

        Raises:
            FullDisk: there is no room for it; other errors of `save_checkpoint` likewise.
        """
        if self._write is not None:
            self._write.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        # A run that ends with an error still leaves the checkpoint that it has begun to write.
        self._executor.shutdown()
        write_error = self.get_error()
        # A run that ends well has called `wait`, which raised an error of the write.
        if write_error is not None and error is not None and write_error is not error:
            tqdm.write(f"warning: {write_error}", sys.stderr)
