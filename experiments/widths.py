"""Compare retrieval by short embeddings: prefixes of a model trained with Loss.widths, and PCA of one trained without.

    python tools/study.py configs/ablation/widths.yaml    # train E without widths and W with them
    python -m experiments.widths

PCA is fitted for each model E on training images and their captions, as the index type ivf does it on an index: its
directions are those in which both sides are largest. The command prints R@10 of texts that ask for images for each
width, the mean over the study's tests and the seeds. The short vectors rank the images alone, or find candidates that
whole vectors rank. Differences are paired over the seeds, with Student's 95 % intervals. The figures are also written
to widths.json.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

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
from experiments.ablation.tables import Table, format_interval, format_markdown

METHODS = ("W, prefix", "E, PCA", "E, prefix")
NUM_ANSWERS = 10  # of R@10
TRAIN = "train"
"""Name of the training icons among the tests."""
EmbeddedTests = Mapping[str, np.ndarray]
"""Embeddings by a model: `TEST/images`, `TEST/texts` and `TEST/pairs` (`[P, 2]`, image and text) of each test, and the
images and texts of the training icons."""


class Sides(NamedTuple):
    """Vectors of images, `[N, D]`, and of texts, `[M, D]`."""

    images: np.ndarray
    texts: np.ndarray

    def rotate(self, directions: np.ndarray) -> "Sides":
        """Return the coordinates along directions, `[D, D]`."""
        return Sides(self.images @ directions.T, self.texts @ directions.T)

    def truncate(self, width: int) -> "Sides":
        """Return the first coordinates, normalised anew."""
        return Sides(truncate_embeddings(self.images, width), truncate_embeddings(self.texts, width))


def fit_pca(sides: Sides) -> np.ndarray:
    """Return the directions in which both sides are largest, in descending order: orthonormal rows, `[D, D]`."""
    second_moment = np.zeros((sides.images.shape[1],) * 2)
    for vectors in sides:
        second_moment += vectors.T.astype(np.float64) @ vectors / len(vectors)
    _, directions = np.linalg.eigh(second_moment)  # in ascending order, as columns
    return np.ascontiguousarray(directions.T[::-1])


def compute_recall(whole: Sides, short: Sides, pairs: np.ndarray, num_candidates: int | None = None) -> float:
    """Return R@10, in percent, of texts that ask for images.

    Args:
        whole: whole vectors.
        short: short vectors of the same images and texts.
        pairs: image and text that belong together, `[P, 2]`.
        num_candidates: number of images that the short vectors find for each text, and whole vectors rank; None: the
            short vectors rank all images.
    """
    scores = short.texts @ short.images.T
    if num_candidates is not None:
        candidates = np.argsort(-scores, axis=1, kind="stable")[:, :num_candidates]
        whole_scores = whole.texts @ whole.images.T
        scores = np.full_like(scores, -np.inf)
        np.put_along_axis(scores, candidates, np.take_along_axis(whole_scores, candidates, axis=1), axis=1)
    answers = np.argsort(-scores, axis=1, kind="stable")[:, :NUM_ANSWERS]
    is_positive = np.zeros(scores.shape, bool)
    is_positive[pairs[:, 1], pairs[:, 0]] = True
    is_found = np.take_along_axis(is_positive, answers, axis=1).any(axis=1)
    is_query = is_positive.any(axis=1)
    return 100 * float(is_found[is_query].mean())


def average_recall(
    embedded: EmbeddedTests, width: int, num_candidates: int | None, directions: np.ndarray | None = None
) -> float:
    """Return the mean R@10 over the tests of a model's vectors of some width.

    Args:
        embedded: embeddings by the model.
        width: width of the short vectors.
        num_candidates: see `compute_recall`.
        directions: directions that replace the coordinates of the embeddings, `[D, D]`.
    """
    tests = {name.partition("/")[0] for name in embedded} - {TRAIN}
    recalls = []
    for test in sorted(tests):
        whole = Sides(embedded[f"{test}/images"], embedded[f"{test}/texts"])
        rotated = whole if directions is None else whole.rotate(directions)
        recalls.append(compute_recall(whole, rotated.truncate(width), embedded[f"{test}/pairs"], num_candidates))
    return fmean(recalls)


def compare_methods(
    embedded_by_e: EmbeddedTests, embedded_by_w: EmbeddedTests, width: int, num_candidates: int | None
) -> dict[str, float]:
    """Return the mean R@10 of each of `METHODS` at one width, of the models of one seed."""
    directions = fit_pca(Sides(embedded_by_e[f"{TRAIN}/images"], embedded_by_e[f"{TRAIN}/texts"]))
    return {
        "W, prefix": average_recall(embedded_by_w, width, num_candidates),
        "E, PCA": average_recall(embedded_by_e, width, num_candidates, directions),
        "E, prefix": average_recall(embedded_by_e, width, num_candidates),
    }


def embed_tests(checkpoint: Path, study: Study, num_icons: int) -> EmbeddedTests:
    """Return the embeddings of the study's tests and of some training icons, which are stored in the run's folder."""
    path = checkpoint.parents[1] / RESULTS / f"widths-{checkpoint.name}-{num_icons}.npz"
    if not path.exists():
        model = load_model(checkpoint)
        arrays: dict[str, Any] = {}
        for name, benchmark in open_tests(study.definition).benchmarks.items():
            encoded = encode_benchmark(model, benchmark)
            arrays[f"{name}/images"] = encoded.image_embeddings
            arrays[f"{name}/texts"] = encoded.text_embeddings
            arrays[f"{name}/pairs"] = encoded.benchmark.pairs
        source = open_sources([model.config.Data.sources[0].data[0]])
        rows = np.linspace(0, len(source) - 1, min(num_icons, len(source)), dtype=int).tolist()
        icons = [source[row] for row in rows]
        captions = [icon.caption(study.definition.language) for icon in icons]
        arrays[f"{TRAIN}/images"] = model.encode_images([icon.image for icon in icons])
        arrays[f"{TRAIN}/texts"] = model.encode_texts(captions)
        with atomic_write(path) as temporary_path, temporary_path.open("wb") as file:
            np.savez(file, **arrays)
    return dict(np.load(path))


class Setting(NamedTuple):
    """Width of the short vectors, and whether whole vectors rank the candidates that they find."""

    width: int
    is_reranked: bool


def format_report(recalls: Mapping[Setting, Mapping[int, Mapping[str, float]]]) -> str:
    """Return a table in Markdown of the recalls of each setting, by seed and method."""
    rows = []
    for setting, recalls_by_seed in recalls.items():
        recalls_by_method: dict[str, dict[int, float]] = {method: {} for method in METHODS}
        for seed, recalls_of_seed in recalls_by_seed.items():
            for method in METHODS:
                recalls_by_method[method][seed] = recalls_of_seed[method]
        means = [f"{fmean(values.values()):.1f}" for values in recalls_by_method.values()]
        difference = estimate_seed_difference(recalls_by_method["W, prefix"], recalls_by_method["E, PCA"])
        ranking = "whole vectors" if setting.is_reranked else "these"
        rows.append([str(setting.width), ranking, *means, format_interval(difference).removesuffix(" *")])
    return format_markdown(Table("R@10, %", ["width", "ranked by", *METHODS, "W, prefix - E, PCA"], rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="configs/ablation/widths.yaml", metavar="FILE")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder of widths.json; default: the study's")
    parser.add_argument("--samples", type=int, default=3000, help="number of training icons that PCA is fitted on")
    parser.add_argument("--candidates", type=int, default=100, help="number of images that whole vectors rank")
    args = parser.parse_args(arguments)
    require("the intervals of a study", "scipy")

    study = read_study(args.study)
    checkpoints_by_seed: dict[int, dict[str, Path]] = {}
    widths: list[int] = []
    for run in study.runs():
        widths = run.config.Loss.widths or widths
        checkpoints = list_checkpoints(run.folder)
        if checkpoints:
            checkpoints_by_seed.setdefault(run.seed, {})[run.model] = checkpoints[-1]

    recalls: dict[Setting, dict[int, dict[str, float]]] = {}
    for seed, checkpoint_of in checkpoints_by_seed.items():
        if checkpoint_of.keys() != {"E", "W"}:
            print(f"seed {seed}: only {', '.join(checkpoint_of)} is trained; it is left out", file=sys.stderr)
            continue
        embedded_by_e = embed_tests(checkpoint_of["E"], study, args.samples)
        embedded_by_w = embed_tests(checkpoint_of["W"], study, args.samples)
        for width in widths:
            for is_reranked in (False, True):
                recalls_by_seed = recalls.setdefault(Setting(width, is_reranked), {})
                num_candidates = args.candidates if is_reranked else None
                recalls_by_seed[seed] = compare_methods(embedded_by_e, embedded_by_w, width, num_candidates)
    if not recalls:
        raise SystemExit(f"nothing to compare: first run python tools/study.py {args.study}")

    print(format_report(recalls))
    rows = []
    for setting, recalls_by_seed in recalls.items():
        seeds = {str(seed): recalls_of_seed for seed, recalls_of_seed in recalls_by_seed.items()}
        rows.append({"width": setting.width, "reranked": setting.is_reranked, "seeds": seeds})
    write_json((args.output or study.output) / "widths.json", {"candidates": args.candidates, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
