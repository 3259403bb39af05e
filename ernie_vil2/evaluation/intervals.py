"""How sure a figure is: 95 % intervals over queries or seeds, paired differences, and how many queries would decide.

A figure of an evaluation is a mean over queries. Its interval comes from the bootstrap: queries are drawn with
replacement, and all queries of one image are drawn together, because texts of one image tend to be answered alike. The
gallery is fixed: the interval says how the figure would vary with other queries to this gallery, not with another
gallery.

The bootstrap works on counts. Clusters with equal outcomes are interchangeable, so a resample only says how often each
kind of cluster is drawn, and no single query is touched.

Interval: the percentile interval, expanded for few clusters as Hesterberg does (What Teachers Should Know About the
Bootstrap, The American Statistician 69, 2015, section 5.3). Test of a difference: the paired randomisation test, which
exchanges the two models at random in each cluster. Several tests: Holm's correction. `benchmarks/intervals.py` measures
how often the intervals hold.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

import numpy as np

# A p-value of 0.05 then has a standard error of 0.002; twice as many resamples take twice as long.
RESAMPLES = 10_000
CONFIDENCE_LEVEL = 0.95
# Probability with which `count_queries_needed` and `find_detectable_difference` promise to find a difference; 0.8 is
# the usual choice for planning a study.
POWER = 0.8
# Relative difference up to which two sums of floats count as equal: the order of summation changes less.
_ROUNDING = 1e-9
# Bounds the memory of a block of resamples: 2**21 float64 counts are 16 MiB.
_MAX_CELLS = 2**21
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """Mean with its 95 % interval.

    Attributes:
        mean: the figure itself, not the mean of the resamples.
        low, high: ends of the interval; None if there is only one cluster or seed.
        count: number of queries or seeds.
        standard_error: standard error of the mean; None like `low`.
        p_value: for a difference over queries: two-sided probability of a difference at least this large between equal
            models.
    """

    mean: float
    low: float | None
    high: float | None
    count: int
    standard_error: float | None = None
    p_value: float | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def estimate_over_seeds(values: Sequence[float]) -> Interval:
    """Return the mean of values, one per seed, with Student's 95 % interval.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("the mean of no runs is undefined")
    mean, count = fmean(values), len(values)
    if count == 1:
        return Interval(mean, None, None, 1)
    standard_error = stdev(values) / math.sqrt(count)
    half_width = _student_quantile(count - 1) * standard_error
    return Interval(mean, mean - half_width, mean + half_width, count, standard_error)


def estimate_seed_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Interval | None:
    """Return the mean difference of two models over the seeds that both have; None if they share no seed."""
    shared_seeds = sorted(values.keys() & baseline.keys())
    if not shared_seeds:
        return None
    return estimate_over_seeds([values[seed] - baseline[seed] for seed in shared_seeds])


def estimate_over_queries(
    values: np.ndarray,
    clusters: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    *,
    bounds: tuple[float, float] = (0.0, 100.0),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return a figure with its bootstrap interval.

    Args:
        values: `[Q]`, what each query contributes to the figure, such as 100 if it is answered and 0 if not. NaN: the
            query does not belong to this figure.
        clusters: `[Q]` integers, equal for queries that are drawn together; None: each query is drawn alone.
        groups: `[Q]` integers; the figure is the mean of the means of the groups, such as the two directions. None:
            there is one group.
        bounds: smallest and largest possible figure. They are used only if all clusters have the same mean in each
            group, so that resamples do not differ. The interval then assumes that a share of up to
            1 - 0.025^(1 / clusters) of all clusters has the smallest or the largest outcome, as the exact interval of
            a binomial share without a success does.
        resamples: number of bootstrap resamples.
        seed: of the random draws.

    Raises:
        ValueError: there is no query.
    """
    kinds = _group_clusters(values, clusters, groups)
    mean, num_clusters = float(kinds.means.mean()), kinds.num_clusters  # the mean of the means of the groups
    num_queries = int(np.count_nonzero(~np.isnan(values)))
    if num_clusters == 1:
        return Interval(mean, None, None, num_queries)

    if kinds.are_alike:
        # Computed for each group, because some clusters may have no query of a group.
        other_shares = 1 - ((1 - CONFIDENCE_LEVEL) / 2) ** (1 / kinds.clusters_per_group)
        low, high = [float((kinds.means + other_shares * (bound - kinds.means)).mean()) for bound in bounds]
        return Interval(mean, low, high, num_queries, 0.0)

    figures = np.concatenate(list(_draw_figures(kinds, resamples, seed)))
    # Hesterberg's expansion: with few clusters, plain percentiles are too narrow, by sqrt((n - 1) / n) and because they
    # correspond to normal quantiles instead of Student's.
    tail = _NORMAL.cdf(-math.sqrt(num_clusters / (num_clusters - 1)) * _student_quantile(num_clusters - 1))
    low, high = np.quantile(figures, [tail, 1 - tail]).tolist()
    return Interval(mean, low, high, num_queries, float(figures.std()))


def estimate_query_difference(
    values: np.ndarray,
    baseline: np.ndarray,
    clusters: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    *,
    bounds: tuple[float, float] = (0.0, 100.0),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the difference of two models on the same queries, with its interval and p-value.

    Args:
        values: `[Q]`, what each query contributes to the figure of the model.
        baseline: `[Q]`, the same for the model that it is compared with.
        clusters: as for `estimate_over_queries`.
        groups: as for `estimate_over_queries`.
        bounds: smallest and largest possible figure of one model.
        resamples: number of resamples of the bootstrap and of the test.
        seed: of the random draws.

    Raises:
        ValueError: there is no query, or the two do not have the same queries.
    """
    values, baseline = np.asarray(values, float), np.asarray(baseline, float)
    if values.shape != baseline.shape or (np.isnan(values) != np.isnan(baseline)).any():
        raise ValueError("a paired difference needs the same queries of both models")
    # A difference of two figures between the bounds lies between -span and span.
    differences, span = values - baseline, bounds[1] - bounds[0]
    # A query whose two values differ by rounding only is answered alike; its sign would count in the test.
    differences[np.abs(differences) <= _ROUNDING * span] = 0.0
    interval = estimate_over_queries(
        differences, clusters, groups, bounds=(-span, span), resamples=resamples, seed=seed
    )
    kinds = _group_clusters(differences, clusters, groups)
    # Gains and losses that cancel out leave a sum such as 1e-16, which is no difference.
    mean = interval.mean if abs(interval.mean) > _ROUNDING * span else 0.0
    return replace(interval, mean=mean, p_value=_randomisation_test(kinds, resamples, seed))


def correct_p_values(p_values: Sequence[float]) -> list[float]:
    """Correct p-values of several tests (Holm), so that any false verdict among all is as rare as for one test."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(order), 0.0
    for position, test in enumerate(order):
        # The smallest p-value is multiplied by the number of tests, the next by one less; the order is kept.
        largest = max(largest, min(1.0, (len(order) - position) * p_values[test]))
        corrected[test] = largest
    return corrected


def count_queries_needed(difference: Interval, num_tests: int = 1) -> int | None:
    """Return how many queries like these would show a difference as large as this one with probability `POWER`.

    Args:
        difference: the difference on the queries at hand.
        num_tests: number of tests; each gets its share of the 5 %.

    Returns:
        The number, rounded up to two digits; None if the models do not differ on any query, or not on average.
    """
    if not difference.standard_error or not difference.mean:
        return None
    exact = difference.count * (_required_errors(num_tests) * difference.standard_error / difference.mean) ** 2
    step = 10 ** max(0, math.floor(math.log10(max(exact, 1))) - 1)
    return math.ceil(exact / step) * step


def find_detectable_difference(difference: Interval, num_tests: int = 1) -> float | None:
    """Return the smallest difference that as many queries show with probability `POWER`; None without an error."""
    if not difference.standard_error:
        return None
    return _required_errors(num_tests) * difference.standard_error


def _required_errors(num_tests: int) -> float:
    """Return how many standard errors a difference must be large to be found with probability `POWER`."""
    return _NORMAL.inv_cdf(1 - (1 - CONFIDENCE_LEVEL) / 2 / num_tests) + _NORMAL.inv_cdf(POWER)


def _student_quantile(degrees_of_freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, 1 - (1 - CONFIDENCE_LEVEL) / 2))


class _ClusterKinds(NamedTuple):
    """Clusters counted by kind: K kinds of clusters with equal outcomes, in G groups of queries.

    Attributes:
        sums: `[K, G]`, sum of the values of a cluster of each kind in each group.
        sizes: `[K, G]`, number of these values.
        counts: `[K]`, how many clusters are of each kind.
    """

    sums: np.ndarray
    sizes: np.ndarray
    counts: np.ndarray

    @property
    def num_clusters(self) -> int:
        return int(self.counts.sum())

    @property
    def clusters_per_group(self) -> np.ndarray:
        """Number of clusters that have a query of each group, `[G]`."""
        return (self.sizes > 0).T @ self.counts

    @property
    def means(self) -> np.ndarray:
        """Mean of each group, `[G]`."""
        return self.sums.T @ self.counts / (self.sizes.T @ self.counts)

    @property
    def are_alike(self) -> bool:
        """Whether all clusters have the same mean in each group, so that all resamples have the same figure."""
        deviations = np.abs(self.sums - self.sizes * self.means)
        return bool((deviations <= _ROUNDING * np.maximum(1, np.abs(self.sums))).all())


def _group_clusters(values: np.ndarray, clusters: np.ndarray | None, groups: np.ndarray | None) -> _ClusterKinds:
    values = np.asarray(values, float)
    is_used = ~np.isnan(values)
    if not is_used.any():
        raise ValueError("the mean of no queries is undefined")
    clusters = np.arange(len(values)) if clusters is None else np.asarray(clusters)
    groups = np.zeros(len(values), np.int64) if groups is None else np.asarray(groups)

    # Number the distinct values, clusters and groups from 0; all arrays are [used queries].
    distinct_values, value_ids = np.unique(values[is_used], return_inverse=True)
    _, cluster_ids = np.unique(clusters[is_used], return_inverse=True)
    group_names, group_ids = np.unique(groups[is_used], return_inverse=True)

    # A cluster's key is the sum of one random 64-bit number for each of its outcomes (value and group). Clusters of
    # equal outcomes have equal keys; other clusters have equal keys with a probability of about 2**-64.
    outcome_ids = value_ids * len(group_names) + group_ids
    num_outcomes = len(distinct_values) * len(group_names)
    outcome_keys = np.random.default_rng(0).integers(2**64, size=num_outcomes, dtype=np.uint64)
    cluster_keys = np.zeros(cluster_ids.max() + 1, np.uint64)
    np.add.at(cluster_keys, cluster_ids, outcome_keys[outcome_ids])
    _, first_clusters, counts = np.unique(cluster_keys, return_index=True, return_counts=True)

    # Sum up the queries of the first cluster of each kind, which stands for the others.
    kind_of_cluster = np.full(len(cluster_keys), -1)
    kind_of_cluster[first_clusters] = np.arange(len(first_clusters))
    (rows,) = np.nonzero(kind_of_cluster[cluster_ids] >= 0)
    cells = (kind_of_cluster[cluster_ids[rows]], group_ids[rows])
    sums, sizes = np.zeros((2, len(first_clusters), len(group_names)))
    np.add.at(sums, cells, distinct_values[value_ids[rows]])
    np.add.at(sizes, cells, 1)
    return _ClusterKinds(sums, sizes, counts)


def _draw_figures(kinds: _ClusterKinds, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the figures of the resamples in blocks; a group without a query in a resample is left out of its mean."""
    random = np.random.default_rng(seed)
    num_clusters, num_kinds = kinds.num_clusters, len(kinds.counts)
    # A number from a multinomial distribution costs as much as several draws of a cluster.
    uses_multinomial = 8 * num_kinds < num_clusters
    kind_of_cluster = np.repeat(np.arange(num_kinds), kinds.counts)
    numbers_per_resample = num_kinds if uses_multinomial else num_clusters
    for count in _block_sizes(resamples, numbers_per_resample):
        if uses_multinomial:
            draws = random.multinomial(num_clusters, kinds.counts / num_clusters, size=count)  # [count, K]
        else:
            # Count the kinds of all resamples at once: each resample has its own range of numbers.
            drawn_kinds = kind_of_cluster[random.integers(num_clusters, size=(count, num_clusters))]
            cells = drawn_kinds + num_kinds * np.arange(count)[:, None]
            draws = np.bincount(cells.ravel(), minlength=count * num_kinds).reshape(count, num_kinds)
        draws = draws.astype(float)
        sizes = draws @ kinds.sizes  # [count, G]
        means = (draws @ kinds.sums) / np.maximum(sizes, 1)
        yield means.sum(axis=1) / np.count_nonzero(sizes, axis=1)


def _randomisation_test(kinds: _ClusterKinds, resamples: int, seed: int) -> float:
    """Return the share of random exchanges of the two models, cluster by cluster, with at least this difference.

    The exchange that was observed counts as one of them, so that the p-value is never 0.
    """
    group_sizes = kinds.sizes.T @ kinds.counts
    contributions = (kinds.sums / group_sizes).mean(axis=1)  # [K], of one cluster to the difference
    # Divided by the largest one, because rounding would blur contributions of 1e-5, those of one among many queries.
    # The largest one is 0 if the models are equal.
    contributions /= np.abs(contributions).max() or 1.0
    contributions = contributions.round(12)
    # An exchange only changes the sign, so kinds of equal absolute contribution are one.
    magnitudes, magnitude_of_kind = np.unique(np.abs(contributions), return_inverse=True)
    counts = np.bincount(magnitude_of_kind, kinds.counts).astype(np.int64)[magnitudes > 0]
    magnitudes = magnitudes[magnitudes > 0]
    # The tolerance is for sums of floats in another order.
    threshold = abs(float(contributions @ kinds.counts)) - _ROUNDING
    random, num_as_large = np.random.default_rng(seed), 0
    for count in _block_sizes(resamples, max(1, len(magnitudes))):
        signed_counts = 2 * random.binomial(counts, 0.5, size=(count, len(magnitudes))) - counts
        num_as_large += int(np.count_nonzero(np.abs(signed_counts @ magnitudes) >= threshold))
    return (1 + num_as_large) / (1 + resamples)


def _block_sizes(resamples: int, cells: int) -> Iterator[int]:
    """Yield how many resamples are computed at once, if each needs so many counts."""
    max_resamples = max(1, _MAX_CELLS // cells)
    for start in range(0, resamples, max_resamples):
        yield min(max_resamples, resamples - start)
