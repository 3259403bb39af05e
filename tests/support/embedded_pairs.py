"""Benchmarks of a few images and texts with their embeddings."""

import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from tests.support.encoding_model import normalise_rows

PAIRS = [[0, 0], [1, 2], [1, 1], [0, 2]]


def make_encoded_benchmark(images=None, texts=None, pairs=PAIRS):
    """Return two images and three texts with ids as data sets have them: numbers with and without zeros, and names."""
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
    images = normalise_rows(np.asarray(images, np.float32))
    texts = normalise_rows(np.asarray(texts, np.float32))
    names = names or [f"name {row}" for row in range(len(texts))]
    tags = tags or [[]] * len(images)
    benchmark_images = [BenchmarkImage(str(row), bytes, {"tags_en": tags[row]}) for row in range(len(images))]
    captions = [BenchmarkText(name, name) for name in names]
    benchmark = Benchmark("x", benchmark_images, captions, np.array(pairs), BadSampleReport())
    return EncodedBenchmark(benchmark, images, texts, BadSampleReport())


def make_noisy_benchmark(images=30, per_image=2, noise=1.0, seed=0, width=8):
    """Return embeddings of images, and of texts at a distance `noise` from them; the images are always the same."""
    image_embeddings = np.random.default_rng(99).normal(size=[images, width])
    image_rows = np.repeat(np.arange(images), per_image)
    distances = noise * np.random.default_rng(seed).normal(size=[len(image_rows), width])
    text_embeddings = normalise_rows(image_embeddings[image_rows] + distances)
    image_embeddings = normalise_rows(image_embeddings)
    benchmark = Benchmark(
        "x",
        [BenchmarkImage(f"i{row}", bytes, {"kind": "odd" if row % 2 else "even"}) for row in range(images)],
        [BenchmarkText(f"t{row}", f"text {row}") for row in range(len(image_rows))],
        np.stack([image_rows, np.arange(len(image_rows))], axis=1),
        BadSampleReport(),
    )
    return EncodedBenchmark(
        benchmark, image_embeddings.astype(np.float32), text_embeddings.astype(np.float32), BadSampleReport()
    )
