"""Embeddings of two images and three texts with names as data sets have them."""

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.evaluation.encoded import EncodedBenchmark

PAIRS = [[0, 0], [1, 2], [1, 1], [0, 2]]


def make_encoded_benchmark(images=None, texts=None, pairs=PAIRS):
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


def make_normalised_benchmark(images, texts, pairs, names=None, tags=None):
    """Return embeddings `[N, D]` of images and texts, normalised, as a benchmark; `names` are the texts."""
    images, texts = (np.asarray(side, np.float32) for side in (images, texts))
    images, texts = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (images, texts))
    names = names or [f"name {row}" for row in range(len(texts))]
    fields = [{"tags_en": found} for found in tags or [[]] * len(images)]
    own_images = [BenchmarkImage(str(row), bytes, found) for row, found in enumerate(fields)]
    captions = [BenchmarkText(name, name) for name in names]
    benchmark = Benchmark("x", own_images, captions, np.array(pairs), BadSampleReport())
    return EncodedBenchmark(benchmark, images, texts, BadSampleReport())


def make_noisy_benchmark(images=30, per_image=2, noise=1.0, seed=0, width=8):
    """Return embeddings of images, and of texts that are near them by so much noise; the images never differ."""
    own = np.random.default_rng(99).normal(size=[images, width])
    owner = np.repeat(np.arange(images), per_image)
    texts = own[owner] + noise * np.random.default_rng(seed).normal(size=[len(owner), width])
    own, texts = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (own, texts))
    benchmark = Benchmark(
        "x",
        [BenchmarkImage(f"i{row}", bytes, {"kind": "odd" if row % 2 else "even"}) for row in range(images)],
        [BenchmarkText(f"t{row}", f"text {row}") for row in range(len(owner))],
        np.stack([owner, np.arange(len(owner))], axis=1),
        BadSampleReport(),
    )
    return EncodedBenchmark(benchmark, own.astype(np.float32), texts.astype(np.float32), BadSampleReport())
