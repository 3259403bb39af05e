"""Simulate how often the 95 % intervals of evaluation/intervals.py hold, and time them next to scipy's.

    python benchmarks/intervals.py
    python benchmarks/intervals.py --draws 1000 --queries 200 --clusters 5

Simulated models answer queries whose difficulty is a normal variable. A part of its variance is shared by the queries
of one image (`IMAGE_SHARE`), and the models agree on a part (`QUERY_SHARE`). True recalls and differences are known.

A row belongs to a recall of the first model. Its columns are shares of `--draws` sets of queries: those whose interval
holds the recall, the difference of two equal models, and the difference of models 3 points apart; and those in which
equal models were called different. The gallery is fixed, as it is for the intervals. A row of 5,000 queries takes a
minute.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap, norm

from ernie_vil2.evaluation.intervals import Interval, estimate_over_queries, estimate_query_difference
from ernie_vil2.io.files import write_text

RECALLS = (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95)  # of the first model
RECALL_GAIN = 0.03  # by which the better model exceeds it
IMAGE_SHARE = 0.4  # share of the variance of difficulty that the queries of an image have in common
QUERY_SHARE = 0.6  # share of the variance of an answer that comes from the difficulty, the rest being the model's
COLUMNS = ("level", "no difference", f"{100 * RECALL_GAIN:.0f} points apart", "called different")
NUM_TIMED_QUERIES = 5000
NUM_TIMED_RESAMPLES = 10_000  # the default of the estimates


def draw_answers(rng: np.random.Generator, clusters: np.ndarray, recalls: Sequence[float]) -> list[np.ndarray]:
    """Draw the answers of models to the same queries.

    Args:
        rng: source of randomness.
        clusters: `[Q]` number of the image of each query.
        recalls: true recall of each model.

    Returns:
        An array `[Q]` of 0 and 100 for each model.
    """
    image_difficulty = rng.standard_normal(clusters[-1] + 1)[clusters]
    query_difficulty = rng.standard_normal(len(clusters))
    difficulty = np.sqrt(IMAGE_SHARE) * image_difficulty + np.sqrt(1 - IMAGE_SHARE) * query_difficulty
    answers = []
    for recall in recalls:
        noise = rng.standard_normal(len(clusters))
        score = np.sqrt(QUERY_SHARE) * difficulty + np.sqrt(1 - QUERY_SHARE) * noise
        answers.append(100.0 * (score < norm.ppf(recall)))
    return answers


def holds(interval: Interval, truth: float) -> bool:
    """Return whether an interval has the true value, with room for rounding."""
    if interval.low is None or interval.high is None:
        return False
    return interval.low <= truth + 1e-9 and truth <= interval.high + 1e-9


def simulate(num_queries: int, cluster_size: int, recall: float, draws: int, resamples: int) -> list[float]:
    """Return the figures of a row, in percent."""
    clusters = np.arange(num_queries) // cluster_size
    counts = np.zeros(len(COLUMNS))
    for draw in range(draws):
        rng = np.random.default_rng([draw, num_queries, cluster_size, round(1000 * recall)])
        first, equal, better = draw_answers(rng, clusters, [recall, recall, recall + RECALL_GAIN])
        level = estimate_over_queries(first, clusters, resamples=resamples)
        no_difference = estimate_query_difference(equal, first, clusters, resamples=resamples)
        gain = estimate_query_difference(better, first, clusters, resamples=resamples)
        counts += [
            holds(level, 100 * recall),
            holds(no_difference, 0),
            holds(gain, 100 * RECALL_GAIN),
            no_difference.p_value is not None and no_difference.p_value < 0.05,
        ]
    return (100 * counts / draws).tolist()


def measure_seconds() -> dict[str, float]:
    """Return the seconds of single intervals, and of scipy's, by name."""
    rng = np.random.default_rng(0)
    first, second = 100 * rng.integers(0, 4, (2, NUM_TIMED_QUERIES)) / 3
    hits = 100.0 * (first > 50)
    clusters = np.arange(NUM_TIMED_QUERIES) // 5
    directions = np.arange(NUM_TIMED_QUERIES) % 2
    resamples = NUM_TIMED_RESAMPLES
    estimates: dict[str, Callable[[], object]] = {
        "R@1": lambda: estimate_over_queries(hits, resamples=resamples),
        "R@1, clusters of 5": lambda: estimate_over_queries(hits, clusters, resamples=resamples),
        "difference of mR, clusters of 5, two directions": lambda: estimate_query_difference(
            first, second, clusters, directions, resamples=resamples
        ),
        "R@1 by scipy.stats.bootstrap": lambda: bootstrap(
            (hits,), np.mean, n_resamples=resamples, batch=200, method="percentile"
        ),
    }
    seconds = {}
    for name, estimate in estimates.items():
        start = time.perf_counter()
        estimate()
        seconds[name] = time.perf_counter() - start
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000, help="simulated sets of queries for each row")
    parser.add_argument("--resamples", type=int, default=2000, help="resamples of an interval; those timed have 10,000")
    parser.add_argument("--queries", type=int, nargs="+", default=[200, 1000, 5000], help="sizes of the sets")
    parser.add_argument("--clusters", type=int, nargs="+", default=[1, 5], help="queries of an image")
    parser.add_argument("--output", type=Path, help="file to which the tables are written as well")
    args = parser.parse_args()
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    show("| 10,000 resamples of 5,000 queries | seconds |\n|---|---:|")
    for name, seconds in measure_seconds().items():
        show(f"| {name} | {seconds:.2f} |")
    show("\n| queries | an image | recall | " + " | ".join(COLUMNS) + " |\n|---:|---:|---:|" + "---:|" * len(COLUMNS))
    for cluster_size in args.clusters:
        for num_queries in args.queries:
            for recall in RECALLS:
                figures = simulate(num_queries, cluster_size, recall, args.draws, args.resamples)
                cells = " | ".join(f"{figure:.1f}" for figure in figures)
                show(f"| {num_queries:,} | {cluster_size} | {100 * recall:.0f} | {cells} |")
    if args.output:
        write_text(args.output, "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
