"""Embeddings of two images and three texts with names as data sets have them."""

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.evaluation.encoded import EncodedBenchmark

PAIRS = [[0, 0], [1, 2], [1, 1], [0, 2]]


def encoded(images=None, texts=None, pairs=PAIRS):
    """Two images and three texts; ids as data sets have them: a number, and names."""
    images = np.array([[0.6, 0.8], [1.0, 0.0]], np.float32) if images is None else images
    texts = np.array([[0.0, 1.0], [-0.6, 0.8], [0.1, 9.9e-5]], np.float32) if texts is None else texts
    return EncodedBenchmark(
        Benchmark(
            "small",
            [BenchmarkImage("1076345", lambda: b""), BenchmarkImage("007", lambda: b"")],
            [BenchmarkText("猫", "一只猫"), BenchmarkText("12", "a cup"), BenchmarkText("13", "a\tcup\n")],
            np.array(pairs),
            BadSampleReport(),
        ),
        images,
        texts,
        BadSampleReport(),
    )


def normalised_pairs(images, texts, pairs, names=None, tags=None):
    """Return embeddings `[N, D]` of images and texts, normalised, as a benchmark; `names` are the texts."""
    images, texts = (np.asarray(side, np.float32) for side in (images, texts))
    images, texts = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (images, texts))
    names = names or [f"name {row}" for row in range(len(texts))]
    fields = [{"tags_en": found} for found in tags or [[]] * len(images)]
    own_images = [BenchmarkImage(str(row), bytes, found) for row, found in enumerate(fields)]
    captions = [BenchmarkText(name, name) for name in names]
    benchmark = Benchmark("x", own_images, captions, np.array(pairs), BadSampleReport())
    return EncodedBenchmark(benchmark, images, texts, BadSampleReport())
