"""SIGINT, SIGTERM and SIGHUP end a run after a step, with a checkpoint, on all ranks at the same step."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from ernie_vil2.device.launch import STOPPED, SecondCtrlC, heard, leave_closed_terminal


class StopSignals:
    """Within its context a signal of `STOPPED` is a request to stop: noted by one rank, agreed by all of them.

    A request that one rank alone acted on would leave the others waiting for it. Each rank therefore adds `requests` to
    what the ranks sum on their hosts before every step (`BatchGate`), and hands the sums to `agree`. Who will not wait
    for that presses Ctrl-C again: it ends the process as it is. A process that ignores SIGHUP, as under `nohup`,
    continues to ignore it.

    Attributes:
        agreed: the signal that ends the run, the same on every rank; None: the run continues.
    """

    def __init__(self):
        self.agreed: signal.Signals | None = None
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

    def requests(self) -> list[int]:
        """For each of the signals 1 if this rank has received it, else 0."""
        return [int(number in self._noted) for number in STOPPED]

    def agree(self, requests: Sequence[int]) -> None:
        """Takes the sums of all ranks' `requests`."""
        self.agreed = next((number for number, ranks in zip(STOPPED, requests, strict=True) if ranks), None)
