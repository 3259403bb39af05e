"""How sure a figure is: 95 % intervals over queries or seeds, paired differences, and how many queries would decide.

A figure of an evaluation is a mean over queries. Its interval is found by the bootstrap: queries are drawn with
replacement, all queries of one image together, as texts of one image are found or missed together. The gallery is
fixed: the interval says how the figure would vary with other queries to this gallery, not with another gallery.

The bootstrap goes by counting. Clusters with equal outcomes are interchangeable, so a resample is how often
each kind of cluster is drawn, and no query is touched.

Interval: the percentile interval, expanded for few clusters as Hesterberg does (What Teachers Should Know About the
Bootstrap, The American Statistician 69, 2015, section 5.3). Test of a difference: the paired randomisation test, which
exchanges the two models at random in each cluster. Several tests: Holm's correction. `benchmarks/intervals.py` measures
how often the intervals hold.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
POWER = 0.8
"""The probability with which `queries_needed` finds a difference."""
_NORMAL = NormalDist()
ROUNDING = 1e-9  # sums of equal floats in another order differ by less
_CELLS = 2**21  # counts that are in memory at a time


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval.

    Attributes:
        mean: the figure itself, not that of the resamples.
        low, high: None where there is one cluster or seed alone.
        count: of queries or seeds.
        error: standard error of the mean; None like `low`.
        p: of a difference of queries the probability of one at least as large between equal models, both sides.
    """

    mean: float
    low: float | None
    high: float | None
    count: int
    error: float | None = None
    p: float | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean of some values, one per seed, and Student's 95 % interval of it.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("the mean of no runs is undefined")
    mean, count = fmean(values), len(values)
    if count == 1:
        return Interval(mean, None, None, 1)
    error = stdev(values) / math.sqrt(count)
    half = _student(count - 1) * error
    return Interval(mean, mean - half, mean + half, count, error)


def paired_seeds(values: Mapping[int, float], baseline: Mapping[int, float]) -> Interval | None:
    """The difference of two models over the seeds that both have; None if there is none such."""
    seeds = sorted(values.keys() & baseline.keys())
    return over_seeds([values[seed] - baseline[seed] for seed in seeds]) if seeds else None


def over_queries(
    values: np.ndarray,
    clusters: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    *,
    bounds: tuple[float, float] = (0.0, 100.0),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A figure with its bootstrap interval.

    Args:
        values: `[Q]`, what each query adds to the figure, such as 100 where it is answered and 0 where not. NaN: the
            query is not of this figure.
        clusters: `[Q]` integers, equal for queries that are drawn together; None: each is drawn on its own.
        groups: `[Q]` integers; the figure is the mean of the means of the groups, such as the two directions. None:
            there is one group.
        bounds: the least and the largest figure that there can be. They count where resamples cannot differ, as every
            cluster has the same mean in each group, whatever the number of its queries. The interval then holds what up
            to a share 1 - 0.025^(1 / clusters) of other outcomes would make of the figure, as for a binomial share
            without a success.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: there is no query.
    """
    kinds = _kinds(values, clusters, groups)
    mean, total = float(kinds.means.mean()), kinds.clusters
    queries = int(np.count_nonzero(~np.isnan(values)))
    if total == 1:
        return Interval(mean, None, None, queries)
    if kinds.are_alike:
        # Of each group on its own, as some clusters may have no query of one.
        others = 1 - ((1 - LEVEL) / 2) ** (1 / kinds.clusters_of_groups)
        low, high = [float((kinds.means + others * (bound - kinds.means)).mean()) for bound in bounds]
        return Interval(mean, low, high, queries, 0.0)
    drawn = np.concatenate(list(_resampled(kinds, resamples, seed)))
    share = _NORMAL.cdf(-math.sqrt(total / (total - 1)) * _student(total - 1))
    low, high = np.quantile(drawn, [share, 1 - share]).tolist()
    return Interval(mean, low, high, queries, float(drawn.std()))


def paired_queries(
    values: np.ndarray,
    baseline: np.ndarray,
    clusters: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    *,
    bounds: tuple[float, float] = (0.0, 100.0),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The difference of two models on the same queries, with its interval and `p`; arguments as for `over_queries`.

    Args:
        bounds: of the figure of one model.

    Raises:
        ValueError: there is no query, or the two do not have the same queries.
    """
    values, baseline = np.asarray(values, float), np.asarray(baseline, float)
    if values.shape != baseline.shape or (np.isnan(values) != np.isnan(baseline)).any():
        raise ValueError("a paired difference needs the same queries of both models")
    difference, span = values - baseline, bounds[1] - bounds[0]
    found = over_queries(difference, clusters, groups, bounds=(-span, span), resamples=resamples, seed=seed)
    kinds = _kinds(difference, clusters, groups)
    return Interval(**{**vars(found), "p": _randomised(kinds, resamples, seed)})


def holm(probabilities: Sequence[float]) -> list[float]:
    """The probabilities of several tests, corrected so that a false verdict among all is as rare as of one (Holm)."""
    order = sorted(range(len(probabilities)), key=probabilities.__getitem__)
    corrected, least = [0.0] * len(order), 0.0
    for position, test in enumerate(order):
        least = max(least, min(1.0, (len(order) - position) * probabilities[test]))
        corrected[test] = least
    return corrected


def queries_needed(difference: Interval, tests: int = 1) -> int | None:
    """How many queries like these find a difference as large as this one with probability `POWER`, two digits of it.

    None where no number can be named: the models differ in nothing that was asked.

    Args:
        tests: among which the difference is to be found; each then has its share of the 5 %.
    """
    if not difference.error or not difference.mean:
        return None
    exact = difference.count * (_units(tests) * difference.error / difference.mean) ** 2
    digits = 10 ** max(0, math.floor(math.log10(max(exact, 1))) - 1)
    return math.ceil(exact / digits) * digits


def least_difference(difference: Interval, tests: int = 1) -> float | None:
    """The smallest difference that so many queries find with probability `POWER`; None where no error is known."""
    return _units(tests) * difference.error if difference.error else None


def _units(tests: int) -> float:
    """Standard errors that a difference must have to be found."""
    return _NORMAL.inv_cdf(1 - (1 - LEVEL) / 2 / tests) + _NORMAL.inv_cdf(POWER)


def _student(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - (1 - LEVEL) / 2))


class _Kinds(NamedTuple):
    """Clusters of equal outcomes as one kind: by kind and group the sum and the number of values, and how many."""

    sums: np.ndarray  # [K, G]
    sizes: np.ndarray  # [K, G]
    counts: np.ndarray  # [K]

    @property
    def clusters(self) -> int:
        """How many clusters there are."""
        return int(self.counts.sum())

    @property
    def clusters_of_groups(self) -> np.ndarray:
        """For each group the number of clusters that have a query of it, `[G]`."""
        return (self.sizes > 0).T @ self.counts

    @property
    def means(self) -> np.ndarray:
        """The mean of each group, `[G]`."""
        return self.sums.T @ self.counts / (self.sizes.T @ self.counts)

    @property
    def are_alike(self) -> bool:
        """Return whether every cluster has the mean of the group, in each group that it has, so that resamples have."""
        deviations = np.abs(self.sums - self.sizes * self.means)
        return bool((deviations <= ROUNDING * np.maximum(1, np.abs(self.sums))).all())


def _kinds(values: np.ndarray, clusters: np.ndarray | None, groups: np.ndarray | None) -> _Kinds:
    values = np.asarray(values, float)
    used = ~np.isnan(values)
    if not used.any():
        raise ValueError("the mean of no queries is undefined")
    levels, level = np.unique(values[used], return_inverse=True)
    own = np.arange(len(values)) if clusters is None else np.asarray(clusters)
    _, owner = np.unique(own[used], return_inverse=True)
    some = np.zeros(len(values), np.int64) if groups is None else np.asarray(groups)
    names, group = np.unique(some[used], return_inverse=True)
    # The sum of random numbers, one for each outcome, is equal for equal sets of outcomes, and for no others.
    outcome = level * len(names) + group
    random = np.random.default_rng(0).integers(2**64, size=len(levels) * len(names), dtype=np.uint64)
    keys = np.zeros(owner.max() + 1, np.uint64)
    np.add.at(keys, owner, random[outcome])
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    kind = np.full(len(keys), -1)
    kind[first] = np.arange(len(first))
    (shown,) = np.nonzero(kind[owner] >= 0)
    cells = (kind[owner[shown]], group[shown])
    sums, sizes = np.zeros((2, len(first), len(names)))
    np.add.at(sums, cells, levels[level[shown]])
    np.add.at(sizes, cells, 1)
    return _Kinds(sums, sizes, counts)


def _resampled(kinds: _Kinds, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """The figure of each resample, some at a time; a group without a query in a resample is left out of its mean."""
    random, total, every = np.random.default_rng(seed), kinds.clusters, len(kinds.counts)
    few, kind = 8 * every < total, np.repeat(np.arange(every), kinds.counts)
    for count in _portions(resamples, every if few else total):
        if few:
            drawn = random.multinomial(total, kinds.counts / total, size=count)
        else:  # a number from a multinomial distribution costs as much as several draws
            cells = kind[random.integers(total, size=(count, total))] + every * np.arange(count)[:, None]
            drawn = np.bincount(cells.ravel(), minlength=count * every).reshape(count, every)
        drawn = drawn.astype(float)
        sizes = drawn @ kinds.sizes
        means = (drawn @ kinds.sums) / np.maximum(sizes, 1)
        yield means.sum(axis=1) / np.count_nonzero(sizes, axis=1)


def _randomised(kinds: _Kinds, resamples: int, seed: int) -> float:
    """The share of random exchanges of the two models, cluster by cluster, that differ as much, this one included."""
    groups = kinds.sizes.T @ kinds.counts
    added = (kinds.sums / groups).mean(axis=1)  # by one cluster of each kind
    sizes, kind = np.unique(np.abs(added).round(12), return_inverse=True)
    counts = np.bincount(kind, kinds.counts).astype(np.int64)[sizes > 0]
    sizes = sizes[sizes > 0]
    least = abs(float(added @ kinds.counts)) - 1e-9 * sizes.max(initial=0)  # sums of floats in another order
    random, reached = np.random.default_rng(seed), 0
    for count in _portions(resamples, max(1, len(sizes))):
        flips = 2 * random.binomial(counts, 0.5, size=(count, len(sizes))) - counts
        reached += int(np.count_nonzero(np.abs(flips @ sizes) >= least))
    return (1 + reached) / (1 + resamples)


def _portions(resamples: int, cells: int) -> Iterator[int]:
    """The resamples in portions, with so many cells each."""
    most = max(1, _CELLS // cells)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)
