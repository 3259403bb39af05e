"""Retrieval by short embeddings: prefixes of a model trained with Loss.widths next to PCA of one trained without.

    python tools/study.py configs/ablation/widths.yaml    # trains what it reads: E without widths and W with them
    python -m experiments.widths

PCA is fitted for each model of E on training images and their captions, as the index type ivf does it on an index: the
directions in which both sides are largest. For each width it prints R@10 of texts that ask for images, the mean over
the study's tests and the seeds: by the short vectors alone, and of their first candidates ranked by whole vectors.
Differences are paired over the seeds, with Student's 95 % intervals. The same figures go into widths.json.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from ernie_vil2.data.readers import open_sources
from ernie_vil2.device.extras import require
from ernie_vil2.encoder import load_model, truncate_embeddings
from ernie_vil2.evaluation.encoded import encode_benchmark
from ernie_vil2.evaluation.intervals import estimate_seed_difference
from ernie_vil2.io.files import atomic_write, write_json
from ernie_vil2.io.run_folder import RESULTS, list_checkpoints
from experiments.ablation.definition import Study, read_study
from experiments.ablation.measure import open_tests
from experiments.ablation.tables import Table, as_markdown, shown

WAYS = ("W, prefix", "E, PCA", "E, prefix")
ANSWERS, TRAIN = 10, "train"
Rows = tuple[np.ndarray, np.ndarray]  # of images and of texts


Embedded = Mapping[str, np.ndarray]
"""Of one model: `TEST/images`, `TEST/texts` and `TEST/pairs` (`[P, 2]`, image and text), and likewise `train`."""


def directions(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """`[D, D]`, orthonormal rows: the directions in which embeddings `[N, D]` of both sides are largest."""
    second_moment = sum(side.T.astype(np.float64) @ side / len(side) for side in (images, texts))
    return np.ascontiguousarray(np.linalg.eigh(second_moment)[1].T[::-1])


def recall(whole: Rows, short: Rows, pairs: np.ndarray, candidates: int | None = None) -> float:
    """R@10 in percent of the texts that ask for images.

    Args:
        whole, short: images and texts as embeddings `[N, D]` and as short vectors `[N, d]`.
        pairs: `[P, 2]`, image and text.
        candidates: so many images of each text are found by the short vectors, and ranked by the whole ones; None: the
            short ones rank them.
    """
    scores = short[1] @ short[0].T
    if candidates is not None:
        found = np.argsort(-scores, axis=1, kind="stable")[:, :candidates]
        among = np.full_like(scores, -np.inf)
        np.put_along_axis(among, found, np.take_along_axis(whole[1] @ whole[0].T, found, axis=1), axis=1)
        scores = among
    first = np.argsort(-scores, axis=1, kind="stable")[:, :ANSWERS]
    positive = np.zeros(scores.shape, bool)
    positive[pairs[:, 1], pairs[:, 0]] = True
    return 100 * float(np.take_along_axis(positive, first, axis=1).any(axis=1)[positive.any(axis=1)].mean())


def figures(of: Mapping[str, Embedded], width: int, candidates: int | None) -> dict[str, float]:
    """R@10 of each of `WAYS` at one width, the mean over the tests, of the models of one seed."""

    def mean(model: str, rotation: np.ndarray | None) -> float:
        found = []
        for test in sorted({name.partition("/")[0] for name in of[model]} - {TRAIN}):
            whole = of[model][f"{test}/images"], of[model][f"{test}/texts"]
            rotated = whole if rotation is None else (whole[0] @ rotation.T, whole[1] @ rotation.T)
            short = truncate_embeddings(rotated[0], width), truncate_embeddings(rotated[1], width)
            found.append(recall(whole, short, of[model][f"{test}/pairs"], candidates))
        return fmean(found)

    pca = directions(of["E"][f"{TRAIN}/images"], of["E"][f"{TRAIN}/texts"])
    return {"W, prefix": mean("W", None), "E, PCA": mean("E", pca), "E, prefix": mean("E", None)}


def embedded(path: Path, study: Study, samples: int) -> Embedded:
    """What a model makes of the study's tests and of some of its training icons, kept next to its other results."""
    kept = path.parents[1] / RESULTS / "widths.npz"
    if not kept.exists():
        model, found = load_model(path), dict[str, np.ndarray]()
        for name, benchmark in open_tests(study.definition).benchmarks.items():
            encoded = encode_benchmark(model, benchmark)
            pairs = encoded.benchmark.pairs
            found |= {
                f"{name}/images": encoded.image_embeddings,
                f"{name}/texts": encoded.text_embeddings,
                f"{name}/pairs": pairs,
            }
        source = open_sources([model.config.Data.sources[0].data[0]])
        rows = np.linspace(0, len(source) - 1, min(samples, len(source)), dtype=int).tolist()
        icons = [source[row] for row in rows]
        found[f"{TRAIN}/images"] = model.encode_images([icon.image for icon in icons])
        found[f"{TRAIN}/texts"] = model.encode_texts([icon.caption(study.definition.language) for icon in icons])
        with atomic_write(kept) as aside, aside.open("wb") as file:
            arrays: dict[str, Any] = found  # a name might be an option of savez, say the types of NumPy 2
            np.savez(file, **arrays)
    return dict(np.load(kept))


def report(found: Mapping[tuple[int, bool], Mapping[int, Mapping[str, float]]]) -> str:
    """A table in Markdown; `found` has, by width and whether ranked again, for each seed the figures of `WAYS`."""
    rows = []
    for (width, reranked), of_seeds in found.items():
        by_way = {way: {seed: one[way] for seed, one in of_seeds.items()} for way in WAYS}
        means = [f"{fmean(by_way[way].values()):.1f}" for way in WAYS]
        difference = estimate_seed_difference(by_way["W, prefix"], by_way["E, PCA"])
        how = "whole vectors" if reranked else "these"
        rows.append([str(width), how, *means, shown(difference).removesuffix(" *")])
    return as_markdown(Table("R@10, %", ["width", "ranked by", *WAYS, "W, prefix - E, PCA"], rows))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="configs/ablation/widths.yaml", metavar="FILE")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="of widths.json; default: the study's")
    parser.add_argument("--samples", type=int, default=3000, help="training icons that PCA is fitted on")
    parser.add_argument("--candidates", type=int, default=100, help="that are ranked by whole vectors")
    args = parser.parse_args(arguments)
    require("the intervals of a study", "scipy")

    study = read_study(args.study)
    trained, widths = dict[int, dict[str, Path]](), list[int]()
    for run in study.runs():
        widths = run.config.Loss.widths or widths
        if made := list_checkpoints(run.folder):
            trained.setdefault(run.seed, {})[run.model] = made[-1]
    found: dict[tuple[int, bool], dict[int, dict[str, float]]] = {}
    for seed, checkpoints in trained.items():
        if checkpoints.keys() != {"E", "W"}:
            print(f"seed {seed}: only {', '.join(checkpoints)} is trained; it is left out", file=sys.stderr)
            continue
        of = {name: embedded(path, study, args.samples) for name, path in checkpoints.items()}
        for width, reranked in product(widths, (False, True)):
            found.setdefault((width, reranked), {})[seed] = figures(of, width, args.candidates if reranked else None)
    if not found:
        raise SystemExit(f"nothing to compare: first run python tools/study.py {args.study}")
    print(report(found))
    rows = [{"width": width, "reranked": reranked, "seeds": {str(seed): one for seed, one in of_seeds.items()}}
            for (width, reranked), of_seeds in found.items()]  # fmt: skip
    write_json((args.output or study.output) / "widths.json", {"candidates": args.candidates, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
