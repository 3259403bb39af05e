"""SIGINT, SIGTERM and SIGHUP end a run after a step, with a checkpoint, on all ranks at the same step."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from ernie_vil2.launch import STOPPED, SecondCtrlC, heard, leave_closed_terminal


class StopSignals:
    """Within its context signals of `STOPPED` are wishes: noted by the rank that hears them, granted by all together.

    A wish that one rank alone acted on would leave the others waiting for it. Each rank therefore adds `wishes` to what
    it sums over ranks in every step, and hands the sums to `grant`. Who will not wait for that presses Ctrl-C again:
    it ends the process as it is. A process that ignores SIGHUP, as under `nohup`, goes on to ignore it.

    Attributes:
        granted: the signal that ends the run, the same on every rank; None: the run goes on.
    """

    def __init__(self):
        self.granted: signal.Signals | None = None
        self._noted: set[int] = set()
        self._second_ctrl_c = SecondCtrlC()

    def __enter__(self) -> StopSignals:
        self._previous = {number: signal.signal(number, self._note) for number in heard()}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        if self._second_ctrl_c.is_this(number):
            os._exit(STOPPED[number])
        self._noted.add(number)
        if number == signal.SIGHUP:
            leave_closed_terminal()

    def wishes(self) -> list[float]:
        """For each of the signals 1 if this rank has received it, else 0."""
        return [float(number in self._noted) for number in STOPPED]

    def grant(self, wishes: Sequence[float]) -> None:
        """Takes the sums of all ranks' `wishes`."""
        self.granted = next((number for number, ranks in zip(STOPPED, wishes, strict=True) if ranks), None)
