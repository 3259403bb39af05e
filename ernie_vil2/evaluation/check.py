"""Reads a benchmark through before anything is encoded, and says what is missing, broken or unlike the protocol."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage
from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import BadSample, BadSampleReport, first_names

CHUNK = 256  # images that are handed to the threads at once


@dataclass(frozen=True)
class CheckReport:
    """What there is, and what is wrong with it.

    `counts` are the images, texts and pairs of the benchmark; `texts_per_image` says how many images have how many
    texts. `rows` are the entries of the annotations, with repeated, unmatched and empty ones by reason, `files` the
    images that were decoded. `differences` are sentences: what the protocol expects otherwise.
    """

    name: str
    counts: Mapping[str, int]
    texts_per_image: Mapping[int, int]
    images_without_text: Sequence[str]
    texts_without_image: Sequence[str]
    rows: BadSampleReport
    files: BadSampleReport
    expected: Mapping[str, int] = field(default_factory=dict)
    differences: Sequence[str] = ()

    @property
    def good(self) -> bool:
        """Every entry and every image can be used, and the counts are those of the protocol."""
        return not (self.differences or self.rows.counts or self.files.counts)

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "name": self.name,
            "good": self.good,
            "counts": dict(self.counts),
            "expected": dict(self.expected),
            "differences": list(self.differences),
            "texts_per_image": {str(texts): images for texts, images in self.texts_per_image.items()},
            "images_without_text": list(self.images_without_text),
            "texts_without_image": list(self.texts_without_image),
            "annotations": self.rows.as_dict(),
            "images": self.files.as_dict(),
        }

    def __str__(self) -> str:
        shares = ", ".join(f"{texts} ({images:,} images)" for texts, images in self.texts_per_image.items())
        lines = [
            f"{self.name}: " + ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items()),
            f"texts per image: {shares}",
            _without("images without a text, in the gallery only", self.images_without_text),
            _without("texts without an image, in the gallery only", self.texts_without_image),
            f"entries of the annotations: {self.rows}",
            f"images: {self.files}",
            *self.differences,
        ]
        if self.expected and not self.differences:
            lines.append("the counts are those of the protocol")
        return "\n".join(filter(None, lines))


def check_benchmark(
    benchmark: Benchmark,
    expected: Mapping[str, int] | None = None,
    progress: Callable[[int], object] = lambda images: None,
    workers: int | None = None,
) -> CheckReport:
    """Reads and decodes every image, and compares the counts with those that a protocol expects.

    Args:
        benchmark: as a reader or a protocol's selection gives it.
        expected: numbers of `images`, `texts` or `pairs`; what is not named is not compared.
        progress: called with the number of images just done.
        workers: threads that decode (OpenCV lets them run side by side); None: as many as there are processors.

    Raises:
        ValueError: `expected` names something else.
    """
    counts = {"images": len(benchmark.images), "texts": len(benchmark.texts), "pairs": len(benchmark.pairs)}
    expected = dict(expected or {})
    unknown = expected.keys() - counts.keys()
    if unknown:
        raise ValueError(f"expected counts of {', '.join(sorted(unknown))}; there are counts of {', '.join(counts)}")
    texts_of_image = np.bincount(benchmark.pairs[:, 0], minlength=counts["images"])
    images_of_text = np.bincount(benchmark.pairs[:, 1], minlength=counts["texts"])
    files = _decode_all(benchmark.images, progress, workers)
    differences = [
        _difference(kind, counts[kind], number) for kind, number in expected.items() if counts[kind] != number
    ]
    if expected and files.counts:
        differences.append(f"{files.counts.total():,} of the {counts['images']:,} images cannot be used, see above.")
    return CheckReport(
        benchmark.name,
        counts,
        dict(sorted(Counter(texts_of_image.tolist()).items())),
        [benchmark.images[row].id for row in np.flatnonzero(texts_of_image == 0)],
        [benchmark.texts[row].id for row in np.flatnonzero(images_of_text == 0)],
        benchmark.rows,
        files,
        expected,
        differences,
    )


def _decode_all(
    images: Sequence[BenchmarkImage], progress: Callable[[int], object], workers: int | None
) -> BadSampleReport:
    report = BadSampleReport()
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            report.add(len(chunk), filter(None, pool.map(_problem, chunk)))
            progress(len(chunk))
    return report


def _problem(image: BenchmarkImage) -> tuple[str, str] | None:
    try:
        decode_image(image.read(), image.id)
    except BadSample as problem:
        return problem.reason, problem.name
    except OSError as problem:
        return f"unreadable image ({problem.strerror})", image.id
    return None


def _difference(kind: str, here: int, expected: int) -> str:
    by = f"{abs(here - expected):,} {'more' if here > expected else 'fewer'}"
    return f"The protocol expects {expected:,} {kind}; here are {here:,}, {by}."


def _without(what: str, ids: Sequence[str]) -> str:
    return f"{what}: {first_names(len(ids), ids[: BadSampleReport.NAMES])}" if ids else ""
