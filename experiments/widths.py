"""Retrieval by short embeddings: prefixes of a model trained with Loss.widths next to PCA of one trained without.

    python tools/study.py configs/ablation/widths.yaml    # trains what it reads: E without widths and W with them
    python -m experiments.widths

PCA is fitted for each model of E on training images and their captions, as the index type ivf does it on an index: the
directions in which both sides are largest. For each width it prints R@10 of texts that ask for images, the mean over
the study's tests and the seeds: by the short vectors alone, and of their first candidates ranked by whole vectors.
Differences are paired over the seeds, with Student's 95 % intervals. The same figures go into widths.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from ernie_vil2.backends import prefixes
from ernie_vil2.data.readers import open_sources
from ernie_vil2.device.extras import require
from ernie_vil2.encoder import ErnieViL2, load_model
from ernie_vil2.evaluation.encoded import EncodedBenchmark, encode_benchmark
from ernie_vil2.evaluation.intervals import Interval, over_seeds, paired_seeds
from ernie_vil2.io.files import write_json
from ernie_vil2.io.run_folder import list_checkpoints
from experiments.ablation.definition import Study, read_study
from experiments.ablation.measure import open_tests

WAYS = ("W, prefix", "E, PCA", "E, prefix")
ANSWERS = 10


class Embedded(NamedTuple):
    """Embeddings of the tests by one model; of E the directions of PCA `[D, D]`, the largest first."""

    tests: Mapping[str, EncodedBenchmark]
    directions: np.ndarray | None


def directions(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """`[D, D]`, orthonormal rows: the directions in which embeddings `[N, D]` of both sides are largest."""
    second_moment = sum(side.T.astype(np.float64) @ side / len(side) for side in (images, texts))
    return np.ascontiguousarray(np.linalg.eigh(second_moment)[1].T[::-1])


def recall(encoded: EncodedBenchmark, images: np.ndarray, texts: np.ndarray, candidates: int | None = None) -> float:
    """R@10 in percent of the texts that ask for images, by short vectors `[N, d]`.

    Args:
        candidates: so many images of each text are found by the short vectors, and ranked by the whole ones; None: the
            short ones rank them.
    """
    scores = texts @ images.T
    if candidates is not None and candidates < scores.shape[1]:
        found = np.argpartition(-scores, candidates, axis=1)[:, :candidates]
        among = np.full_like(scores, -np.inf)
        whole = encoded.texts @ encoded.images.T
        np.put_along_axis(among, found, np.take_along_axis(whole, found, axis=1), axis=1)
        scores = among
    first = np.argsort(-scores, axis=1, kind="stable")[:, :ANSWERS]
    positive = np.zeros(scores.shape, bool)
    positive[encoded.benchmark.pairs[:, 1], encoded.benchmark.pairs[:, 0]] = True
    asked = positive.any(axis=1)
    return 100 * float(np.take_along_axis(positive, first, axis=1).any(axis=1)[asked].mean())


def figures(of: Mapping[str, Embedded], width: int, candidates: int | None) -> dict[str, float]:
    """R@10 of each of `WAYS` at one width, the mean over the tests, of the models of one seed."""

    def mean(model: str, rotation: np.ndarray | None) -> float:
        found = []
        for encoded in of[model].tests.values():
            sides = (encoded.images, encoded.texts)
            if rotation is not None:
                sides = tuple(side @ rotation.T.astype(np.float32) for side in sides)
            found.append(recall(encoded, *(prefixes(side, width) for side in sides), candidates))
        return fmean(found)

    return {"W, prefix": mean("W", None), "E, PCA": mean("E", of["E"].directions), "E, prefix": mean("E", None)}


def embedded(model: ErnieViL2, study: Study, samples: int) -> Embedded:
    """Embeddings of the study's tests and, of a model without widths, PCA of its first training icons."""
    tests = open_tests(study.definition).benchmarks
    encoded = {name: encode_benchmark(model, benchmark) for name, benchmark in tests.items()}
    if len(model.widths) > 1:
        return Embedded(encoded, None)
    source = open_sources([model.config.Data.sources[0].data[0]])
    chosen = [source[row] for row in np.linspace(0, len(source) - 1, min(samples, len(source)), dtype=int).tolist()]
    images = model.encode_images([one.image for one in chosen])
    texts = model.encode_texts([one.caption(study.definition.language) for one in chosen])
    return Embedded(encoded, directions(images, texts))


def report(found: Mapping[tuple[int, bool], Mapping[int, Mapping[str, float]]]) -> str:
    """A table in Markdown; `found` has, by width and whether ranked again, for each seed the figures of `WAYS`."""
    lines = [f"| width | ranked by | {' | '.join(WAYS)} | W, prefix - E, PCA |", "| ---: | --- |" + " ---: |" * 4]
    for (width, reranked), of_seeds in found.items():
        by_way = {way: {seed: one[way] for seed, one in of_seeds.items()} for way in WAYS}
        means = [f"{over_seeds(list(by_way[way].values())).mean:.1f}" for way in WAYS]
        difference = paired_seeds(by_way["W, prefix"], by_way["E, PCA"])
        how = "whole vectors" if reranked else "these"
        lines.append(f"| {width} | {how} | {' | '.join(means)} | {_shown(difference)} |")
    return "\n".join(lines)


def _shown(difference: Interval | None) -> str:
    if difference is None or difference.low is None:
        return "-" if difference is None else f"{difference.mean:+.1f}"
    return f"{difference.mean:+.1f} [{difference.low:+.1f}, {difference.high:+.1f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="configs/ablation/widths.yaml", metavar="FILE")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="of widths.json; default: the study's")
    parser.add_argument("--samples", type=int, default=5000, help="training icons that PCA is fitted on")
    parser.add_argument("--candidates", type=int, default=100, help="that are ranked by whole vectors")
    args = parser.parse_args(arguments)
    require("the intervals of a study", "scipy")

    study = read_study(args.study)
    trained: dict[int, dict[str, Path]] = {}
    for run in study.runs():
        if checkpoints := list_checkpoints(run.folder):
            trained.setdefault(run.seed, {})[run.model] = checkpoints[-1]
    found: dict[tuple[int, bool], dict[int, dict[str, float]]] = {}
    for seed, checkpoints in trained.items():
        if checkpoints.keys() != {"E", "W"}:
            print(f"seed {seed}: only {', '.join(checkpoints)} is trained; it is left out", file=sys.stderr)
            continue
        models = {name: load_model(path) for name, path in checkpoints.items()}
        of = {name: embedded(model, study, args.samples) for name, model in models.items()}
        for width in models["W"].widths:
            for reranked in (False, True):
                one = figures(of, width, args.candidates if reranked else None)
                found.setdefault((width, reranked), {})[seed] = one
    if not found:
        raise SystemExit(f"nothing to compare: first run python tools/study.py {args.study}")
    print(report(found))
    rows = [{"width": width, "reranked": reranked, "seeds": {str(seed): one for seed, one in of_seeds.items()}}
            for (width, reranked), of_seeds in found.items()]  # fmt: skip
    write_json((args.output or study.output) / "widths.json", {"candidates": args.candidates, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
