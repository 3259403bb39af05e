"""Queries with their best answers, for a person to look at."""

from __future__ import annotations

import numpy as np

from ernie_vil2.evaluation.retrieval import top_matches
from ernie_vil2.evaluation.retrieval_set import RetrievalSet


def example_queries(benchmark: RetrievalSet, language: str, count: int, seed: int, answers: int = 5) -> list[dict]:
    """Captions drawn at random, not picked, with their best images, as `write_report` shows them.

    Equal seeds draw the captions of the same samples from benchmarks of the same data in other languages.

    Raises:
        ValueError: the benchmark has fewer captions than `count`.
    """
    if count > len(benchmark.captions):
        raise ValueError(f"{count} queries asked for, but there are {len(benchmark.captions)} captions")
    rows = np.random.default_rng(seed).choice(len(benchmark.captions), count, replace=False)
    right = set(map(tuple, benchmark.pairs.tolist()))
    indices, scores = top_matches(benchmark.texts[rows], benchmark.images, answers)
    return [
        {
            "query": benchmark.captions[text],
            "query_image": None,
            "language": language,
            "answers": [
                {
                    "image": benchmark.image_samples[image].image,
                    "caption": benchmark.image_samples[image].caption(language),
                    "score": float(score),
                    "correct": (image, int(text)) in right,
                }
                for image, score in zip(images.tolist(), image_scores, strict=True)
            ],
        }
        for text, images, image_scores in zip(rows, indices, scores, strict=True)
    ]
