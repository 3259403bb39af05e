"""Means over seeds, and differences that are paired over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple


class Spread(NamedTuple):
    """A mean with its 95 % interval; `low` and `high` are None where there is one value alone."""

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def spread(values: Sequence[float]) -> Spread:
    """The mean of some values, one per seed, and Student's 95 % interval of it.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("the mean of no runs is undefined")
    mean, count = fmean(values), len(values)
    if count == 1:
        return Spread(mean, None, None, 1)
    from scipy.stats import t

    half = float(t.ppf(0.975, count - 1)) * stdev(values) / math.sqrt(count)
    return Spread(mean, mean - half, mean + half, count)


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Spread | None:
    """The difference of two models over the seeds that both have; None if there is none such."""
    seeds = sorted(values.keys() & baseline.keys())
    return spread([values[seed] - baseline[seed] for seed in seeds]) if seeds else None


def at(points: Sequence[tuple[float, float]], x: float) -> float | None:
    """A curve's y at x, by the straight line between the points beside it; None outside of it."""
    for (left, below), (right, above) in zip(points, points[1:], strict=False):
        if left <= x <= right:
            return above if right == left else below + (above - below) * (x - left) / (right - left)
    return None
