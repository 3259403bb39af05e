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
    """Writes the checkpoints of a run in a thread, one at a time; a context that ends when the last one is written.

    The thread uses no device and no collective: it reads copies in host memory, and its errors are raised by the main
    thread, where the ranks agree on them.

    Args:
        run: the run folder.
    """

    def __init__(self, run: Path):
        self._run = run
        self._executor = ThreadPoolExecutor(1, "checkpoint")
        self._write: Future[Path] | None = None

    def start(self, checkpoint: Checkpoint) -> None:
        """Start to write a checkpoint, whose arrays nobody changes any more; the one before has been waited for."""
        # The first call starts the thread. Signals are handled by the main thread, whose system calls they interrupt.
        with block_signals():
            self._write = self._executor.submit(save_checkpoint, self._run, checkpoint)

    def get_error(self) -> Exception | None:
        """Return the error of the newest write, without waiting; None if it goes on or has succeeded."""
        if self._write is None or not self._write.done():
            return None
        return cast(Exception | None, self._write.exception())

    def wait(self) -> None:
        """Wait until the newest checkpoint is on the disk, or raise the error of its write."""
        if self._write is not None:
            self._write.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        # A run that ends by an error or like a crash still leaves the checkpoint that it has begun to write.
        self._executor.shutdown()
        write_error = self.get_error()
        if write_error is not None and error is not None and write_error is not error:
            tqdm.write(f"warning: {write_error}", sys.stderr)
