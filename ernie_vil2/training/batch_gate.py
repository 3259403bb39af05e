"""What happens to a batch that lacks the samples for a step."""

from __future__ import annotations

from ernie_vil2.data.samples import TooManyBadSamples
from ernie_vil2.parallel.agreement import agree
from ernie_vil2.parallel.store import HostSums
from ernie_vil2.training.stopping import StopSignals

MOST_IN_A_ROW = 100


class BatchGate:
    """Lets a batch through to the step if every rank has samples enough in it; otherwise all ranks skip it.

    Bad samples may stand together, as those of a shard that has been lost, and so fill the whole share of a rank.

    What the ranks tell each other of it goes by the store, which asks no device, and with it who was told to stop.

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
