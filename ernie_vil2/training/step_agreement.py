"""What all ranks agree on before a step: whether each has samples enough for it, and whether a signal ends the run.

SIGINT, SIGTERM and SIGHUP end a run after a step, with a checkpoint, on all ranks at the same step.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from ernie_vil2.data.samples import TooManyBadSamples
from ernie_vil2.device.launch import STOPPED, SecondCtrlC, heard, leave_closed_terminal
from ernie_vil2.parallel.agreement import agree
from ernie_vil2.parallel.store import HostSums

MOST_IN_A_ROW = 100
"""Batches that are skipped, one after another, before the run ends."""


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


class BatchGate:
    """Lets a batch through to the step if every rank has samples enough in it; otherwise all ranks skip it.

    Bad samples may follow one another, as those of a shard that has been lost, and so fill the whole share of a rank.
    What the ranks exchange goes by the store, which asks no device, and with it the requests to stop.

    Args:
        ranks: that share the batch.
        signals: by which a rank asks all to stop.
    """

    def __init__(self, ranks: int, signals: StopSignals):
        self._ranks, self._signals = ranks, signals
        self._sums = HostSums()
        self._in_a_row = 0

    def lets_through(self, samples: int, least: int, error: Exception | None = None) -> bool:
        """Whether all ranks have samples enough. A collective.

        Args:
            samples: that this rank has.
            least: that each rank needs.
            error: that this rank has met in reading them.

        Raises:
            Exception: a rank has met an error, see `agree`.
            TooManyBadSamples: it is the hundredth batch in a row that is skipped.
        """
        enough, failed, *requests = self._sums(samples >= least, error is not None, *self._signals.requests())
        if failed:
            agree(error)
        if enough == self._ranks:
            self._in_a_row = 0
            self._signals.agree(requests)
            return True
        self._in_a_row += 1
        if self._in_a_row == MOST_IN_A_ROW:
            raise TooManyBadSamples(
                f"{MOST_IN_A_ROW} batches in a row lacked samples that can be used; is the data still there? "
                "The run folder has the reasons in bad_samples.txt; --resume goes on from the last checkpoint"
            )
        return False

    def agree_to_stop(self) -> None:
        """Lets the ranks agree on requests to stop between two batches. A collective."""
        self._signals.agree(self._sums(*self._signals.requests()))
