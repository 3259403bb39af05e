"""How often the 95 % intervals of evaluation/intervals.py hold, by simulation, and how long one takes.

    python benchmarks/intervals.py
    python benchmarks/intervals.py --draws 1000 --queries 200 --clusters 5

Two models answer queries of which each is as hard as a normal variable says, in part shared by the queries of one image
(`CLUSTER` of its variance) and in part by the models (`MODELS`); true recalls and differences are known. A row is a
recall of the first model; printed is the share of `--draws` sets of queries whose interval holds the true value: of the
recall, of the difference of two equal models, and of the difference of models 3 points apart. The fourth column is how
often equal models were called different. The gallery does not vary: neither does the interval say how it would.
A row of 5,000 queries takes a minute.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap, norm

from ernie_vil2.evaluation.intervals import Interval, estimate_over_queries, estimate_query_difference
from ernie_vil2.io.files import write_text

RECALLS = (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95)
APART = 0.03
CLUSTER, MODELS = 0.4, 0.6
COLUMNS = ("level", "no difference", f"{100 * APART:.0f} points apart", "called different")


def answers(random: np.random.Generator, queries: int, size: int, recalls: list[float]) -> list[np.ndarray]:
    """100 or 0 for each query and model."""
    image = np.repeat(random.standard_normal(queries // size), size)
    own = random.standard_normal(queries)
    hard = np.sqrt(CLUSTER) * image + np.sqrt(1 - CLUSTER) * own
    return [
        100.0 * (np.sqrt(MODELS) * hard + np.sqrt(1 - MODELS) * random.standard_normal(queries) < norm.ppf(recall))
        for recall in recalls
    ]


def holds(found: Interval, truth: float) -> bool:
    return found.low is not None and found.high is not None and found.low <= truth + 1e-9 and truth - 1e-9 <= found.high


def coverage(queries: int, size: int, recall: float, draws: int, resamples: int) -> list[float]:
    """Return the figures of one row, in percent."""
    clusters = np.arange(queries) // size
    counts = np.zeros(4)
    for draw in range(draws):
        random = np.random.default_rng([draw, queries, size, round(1000 * recall)])
        first, equal, better = answers(random, queries, size, [recall, recall, recall + APART])
        level = estimate_over_queries(first, clusters, resamples=resamples)
        same = estimate_query_difference(equal, first, clusters, resamples=resamples)
        apart = estimate_query_difference(better, first, clusters, resamples=resamples)
        counts += [
            holds(level, 100 * recall),
            holds(same, 0),
            holds(apart, 100 * APART),
            same.p_value is not None and same.p_value < 0.05,
        ]
    return (100 * counts / draws).tolist()


def timing(queries: int = 5000, resamples: int = 10_000) -> Iterator[str]:
    """Return the seconds of one interval and of scipy's, in this run."""
    random = np.random.default_rng(0)
    first, second = (100 * random.integers(0, 4, queries) / 3 for _ in range(2))
    both = np.arange(queries) % 2
    hits = 100.0 * (first > 50)
    for name, make in (
        ("R@1", lambda: estimate_over_queries(hits, resamples=resamples)),
        ("R@1, clusters of 5", lambda: estimate_over_queries(hits, np.arange(queries) // 5, resamples=resamples)),
        ("difference of mR, clusters of 5, two directions",
         lambda: estimate_query_difference(first, second, np.arange(queries) // 5, both, resamples=resamples)),
        ("R@1 by scipy.stats.bootstrap",
         lambda: bootstrap((hits,), np.mean, n_resamples=resamples, batch=200, method="percentile")),
    ):  # fmt: skip
        start = time.perf_counter()
        make()
        yield f"| {name} | {time.perf_counter() - start:.2f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=2000, help="of each interval; the timing is of 10,000")
    parser.add_argument("--queries", type=int, nargs="+", default=[200, 1000, 5000])
    parser.add_argument("--clusters", type=int, nargs="+", default=[1, 5], help="queries of an image")
    parser.add_argument("--output", type=Path, help="a file for the tables as well")
    args = parser.parse_args()
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    show("| 10,000 resamples of 5,000 queries | seconds |\n|---|---:|")
    for line in timing():
        show(line)
    show("\n| queries | an image | recall | " + " | ".join(COLUMNS) + " |\n|---:|---:|---:|" + "---:|" * len(COLUMNS))
    for size in args.clusters:
        for queries in args.queries:
            for recall in RECALLS:
                found = coverage(queries, size, recall, args.draws, args.resamples)
                show(
                    " | ".join([f"| {queries:,} | {size} | {100 * recall:.0f}", *(f"{one:.1f}" for one in found)])
                    + " |"
                )
    if args.output:
        write_text(args.output, "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
