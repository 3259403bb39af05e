"""Retrieval on `Data.val` in the course of a run, by the command line's evaluator."""

from __future__ import annotations

from typing import Any, NamedTuple

import paddle

from ernie_vil2.config import Config
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.sources import open_benchmarks
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.evaluation.encoded import encode_benchmark
from ernie_vil2.evaluation.protocol import Evaluation, score
from ernie_vil2.evaluation.protocols import protocol
from ernie_vil2.parallel.ranks import LostRank


def validation_sets(config: Config) -> dict[str, Benchmark]:
    """What `Evaluation.protocol` scores of `Data.val`, by language: those of the run's in which there are captions."""
    place, views = config.Data.validation, config.Views
    if place is None:
        return {}
    scoring = protocol(config.Evaluation.protocol)
    found = open_benchmarks(
        place.data,
        preferred=views.languages,
        split=place.split,
        images=place.images,
        text_id=place.text_id or config.Data.text_id,
        caption_lines=views.caption_lines if place.caption_lines is None else place.caption_lines,
        default=scoring.split or "val",
    )
    # Captions that name no language are in whatever the run's texts are in.
    return {language or ", ".join(views.languages): scoring.select(each) for language, each in found.items()}


class Scores(NamedTuple):
    """What a run needs of an evaluation: a record for its log, a line for the terminal, and the mean recall, if any."""

    record: dict[str, Any]
    line: str
    mean_recall: float | None


def validate(
    model: ErnieViL2, sets: dict[str, Benchmark], config: Config, rank: int, ranks: int
) -> tuple[dict[str, Scores], dict[str, str]]:
    """Scores every set. A collective: the ranks share the encoding; rank 0 alone scores and has the scores.

    Returns:
        By language the scores, and why there are none: data that cannot be read, embeddings that are not finite.
    """
    scores, failures = {}, {}
    scoring = protocol(config.Evaluation.protocol)
    for language, benchmark in sets.items():
        try:
            encoded = encode_benchmark(model, benchmark, rank=rank, ranks=ranks)
            if rank == 0:
                scores[language] = _scores(score(encoded, scoring, config.Evaluation.block, paddle.get_device()))
        except LostRank:
            raise
        except Exception as error:
            failures[language] = str(error) or type(error).__name__
    return scores, failures


def _scores(evaluation: Evaluation) -> Scores:
    figures = {f"{way.replace('_', ' ')} R@1": one.recall.get("R@1") for way, one in evaluation.results.items()}
    figures |= {"mean recall": evaluation.mean_recall, **evaluation.measures}
    line = ", ".join(f"{name} {value:.1f}" for name, value in figures.items() if value is not None)
    return Scores(evaluation.as_dict(), line, evaluation.mean_recall)
