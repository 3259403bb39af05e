"""The best answers to every query of a retrieval, also of those whose right answers nobody knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ernie_vil2.data.benchmark import BenchmarkImage, BenchmarkText
from ernie_vil2.evaluation.embedding_files import whole_numbers
from ernie_vil2.evaluation.protocol import Evaluation
from ernie_vil2.evaluation.retrieval import DirectionResult


def best_answers(evaluations: Mapping[str, Evaluation], k: int, device: str = "cpu") -> Iterator[dict[str, Any]]:
    """For each query its k best answers, best first.

    `{"result", "direction", "query_id", "query", "answers": [{"id", "score"}, ...]}`
    """
    for label, evaluation in evaluations.items():
        for direction, result in evaluation.results.items():
            for query, answers in _answers(evaluation, result, k, device):
                yield {
                    "result": label,
                    "direction": direction,
                    "query_id": query.id,
                    "query": query.text if isinstance(query, BenchmarkText) else query.id,
                    "answers": [{"id": answer, "score": score} for answer, score in answers],
                }


def predictions(evaluation: Evaluation, k: int, device: str = "cpu") -> Iterator[dict[str, Any]]:
    """The k best images of every text in the form of Chinese-CLIP and MUGE: `{"text_id", "image_ids"}`.

    The ids are those of `whole_numbers`; where they are not the benchmark's own, these follow them, as `name` and
    `image_names`.
    """
    benchmark = evaluation.encoded.benchmark
    images, texts = (
        {row.id: number for row, number in zip(side, whole_numbers(side), strict=True)}
        for side in (benchmark.images, benchmark.texts)
    )
    for query, answers in _answers(evaluation, evaluation.results["text_to_image"], k, device):
        names = [name for name, _ in answers]
        entry = {"text_id": texts[query.id], "image_ids": [images[name] for name in names]}
        if str(entry["text_id"]) != query.id:
            entry["name"] = query.id
        if list(map(str, entry["image_ids"])) != names:
            entry["image_names"] = names
        yield entry


def _answers(
    evaluation: Evaluation, result: DirectionResult, k: int, device: str
) -> Iterator[tuple[BenchmarkImage | BenchmarkText, list[tuple[str, float]]]]:
    """Every query with the ids and scores of its best answers."""
    queries, gallery = map(evaluation.encoded.benchmark.side, result.asked.sides)
    places = np.arange(len(result.asked.left))
    best = result.best_answers(evaluation.encoded.sides, places, min(k, len(result.asked.right)), device)
    for row, *found in zip(result.asked.left, *(one.tolist() for one in best), strict=True):
        yield (
            queries[row],
            [(gallery[result.asked.right[place]].id, score) for place, score in zip(*found, strict=True) if place >= 0],
        )
