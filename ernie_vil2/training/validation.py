"""Retrieval on `Data.val` in the course of a run, by the command line's evaluator."""

from __future__ import annotations

import paddle

from ernie_vil2.config import Config
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.sources import open_benchmark
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.evaluation.encoded import encode_benchmark
from ernie_vil2.evaluation.evaluator import Evaluation, score
from ernie_vil2.evaluation.protocols import protocol
from ernie_vil2.parallel.ranks import LostRank


def validation_sets(config: Config) -> dict[str, Benchmark]:
    """What `Evaluation.protocol` scores of `Data.val`, by language; a benchmark's folder is of every language."""
    place = config.Data.validation
    if place is None:
        return {}
    scoring = protocol(config.Evaluation.protocol)
    options = {"split": place.split, "images": place.images, "text_id": place.text_id or config.Data.text_id}
    return {
        language: scoring.select(
            open_benchmark(place.data, language=language, default=scoring.split or "val", **options)
        )
        for language in config.Views.languages
    }


def validate(
    model: ErnieViL2, sets: dict[str, Benchmark], config: Config, rank: int, ranks: int
) -> tuple[dict[str, Evaluation], dict[str, str]]:
    """Scores every set. A collective: the ranks share the encoding; rank 0 alone scores and has the results.

    Returns:
        By language the results, and why there is none: data that cannot be read, embeddings that are not finite.
    """
    results, failures = {}, {}
    scoring = protocol(config.Evaluation.protocol)
    for language, benchmark in sets.items():
        try:
            encoded = encode_benchmark(model, benchmark, rank=rank, ranks=ranks)
            if rank == 0:
                results[language] = score(encoded, scoring, config.Evaluation.block, paddle.get_device())
        except LostRank:
            raise
        except Exception as error:
            failures[language] = str(error) or type(error).__name__
    return results, failures
