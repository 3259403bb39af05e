"""Queries with their best answers, for a person to look at."""

from __future__ import annotations

import numpy as np

from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.retrieval import top_matches


def example_queries(encoded: EncodedBenchmark, language: str, count: int, seed: int, answers: int = 5) -> list[dict]:
    """Texts drawn at random, not picked, with their best images, as `write_report` shows them.

    Equal seeds draw the texts of the same samples from benchmarks of the same data in other languages.

    Raises:
        ValueError: the benchmark has fewer texts than `count`.
    """
    benchmark = encoded.benchmark
    if count > len(benchmark.texts):
        raise ValueError(f"{count} queries asked for, but there are {len(benchmark.texts)} captions")
    rows = np.random.default_rng(seed).choice(len(benchmark.texts), count, replace=False)
    right = set(map(tuple, benchmark.pairs.tolist()))
    caption = {image: benchmark.texts[text].text for image, text in reversed(benchmark.pairs.tolist())}
    indices, scores = top_matches(encoded.texts[rows], encoded.images, min(answers, len(encoded.images)))
    return [
        {
            "query": benchmark.texts[text].text,
            "query_image": None,
            "language": language,
            "answers": [
                {
                    "image": benchmark.images[image].read(),
                    "caption": caption.get(image, benchmark.images[image].id),
                    "score": float(score),
                    "correct": (image, int(text)) in right,
                }
                for image, score in zip(images.tolist(), image_scores, strict=True)
            ],
        }
        for text, images, image_scores in zip(rows, indices, scores, strict=True)
    ]
