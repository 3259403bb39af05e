"""Work whose failure ends no run: pages, curves, and the scores of validation sets."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


class BestEffort:
    """Lets a run go on when such work fails: every failure is a warning on standard error, and is counted.

    Attributes:
        failures: by what was attempted, how often it failed.
    """

    def __init__(self):
        self.failures: Counter[str] = Counter()

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Ends the block at its first error, and no more than the block. There must be no collective in it."""
        try:
            yield
        except Exception as error:
            self.failed(what, str(error) or type(error).__name__)

    def failed(self, what: str, why: str) -> None:
        """Warns of a failure that has been caught elsewhere."""
        self.failures[what] += 1
        tqdm.write(f"warning: {what}: {why}; the run goes on without (failure {self.failures[what]})", sys.stderr)

    def __str__(self) -> str:
        failures = ", ".join(f"{count} x {what}" for what, count in self.failures.items())
        return f"left out after failures: {failures}"
