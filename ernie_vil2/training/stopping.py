"""SIGINT and SIGTERM end a run after a step, with a checkpoint, on all ranks at the same step."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from ernie_vil2.launch import STOPPED


class StopSignals:
    """Within its context, SIGINT and SIGTERM are wishes: noted by the rank that receives them, granted by all together.

    A wish that one rank alone acted on would leave the others waiting for it. Each rank therefore adds `wishes` to what
    it sums over ranks in every step, and hands the sums to `grant`.

    Attributes:
        granted: the signal that ends the run, the same on every rank; None: the run goes on.
    """

    def __init__(self):
        self.granted: signal.Signals | None = None
        self._noted: set[int] = set()

    def __enter__(self) -> StopSignals:
        self._previous = {number: signal.signal(number, self._note) for number in STOPPED}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        self._noted.add(number)

    def wishes(self) -> list[float]:
        """For each of the signals 1 if this rank has received it, else 0."""
        return [float(number in self._noted) for number in STOPPED]

    def grant(self, wishes: Sequence[float]) -> None:
        """Takes the sums of all ranks' `wishes`."""
        self.granted = next((number for number, ranks in zip(STOPPED, wishes, strict=True) if ranks), None)
