"""What the trainer knows of what scores its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from paddle import nn

from ernie_vil2.data.benchmark import Benchmark


class Metrics(NamedTuple):
    """What an evaluator found.

    values: numbers by name; "/" sets apart what belongs together, as in `zh/image_to_text/R@1`.
    shown: names of those that are printed and drawn; all of them are logged. None: all.
    failures: why there are no numbers, by what could not be scored.
    """

    values: Mapping[str, float]
    shown: Sequence[str] | None = None
    failures: Mapping[str, str] = {}


class Evaluator(Protocol):
    """Scores a model.

    Attributes:
        best_by: name of the number that chooses the best checkpoint, the higher the better; None: none of them does.
        data: what is scored, in words by name.
        benchmarks: of whose images none should be trained on; they are looked for in the training data.
    """

    best_by: str | None
    data: Mapping[str, str]
    benchmarks: Sequence[Benchmark]

    def __call__(self, model: nn.Layer) -> Metrics:
        """Scores the model of the run's task, which is in evaluation mode and without gradient.

        A collective: every rank calls it, and what rank 0 returns counts. Whatever it raises ends no run.
        """
