"""What happens to a batch that lacks the samples for a step."""

from __future__ import annotations

from ernie_vil2.data.samples import TooManyBadSamples
from ernie_vil2.parallel.agreement import agree
from ernie_vil2.parallel.gloo import HostSums

MOST_IN_A_ROW = 100


class BatchGate:
    """Lets a batch through to the step if every rank has samples enough in it; otherwise all ranks pass it over.

    Bad samples may stand together, as those of a shard that has been lost, and so fill the whole share of a rank.

    Args:
        ranks: that share the batch.
    """

    def __init__(self, ranks: int):
        self._ranks = ranks
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
        enough, failed = self._sums(samples >= least, error is not None)
        if failed:
            agree(error)
        if enough == self._ranks:
            self._in_a_row = 0
            return True
        self._in_a_row += 1
        if self._in_a_row == MOST_IN_A_ROW:
            raise TooManyBadSamples(
                f"{MOST_IN_A_ROW} batches in a row lacked samples that can be used; is the data still there? "
                "The run folder has the reasons in bad_samples.txt; --resume goes on from the last checkpoint"
            )
        return False
