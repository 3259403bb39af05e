"""Retrieval on `Data.val`, by its protocol or the one that `Evaluation.protocol` names."""

from __future__ import annotations

from statistics import fmean

import paddle
import paddle.distributed as dist
from paddle import nn

from ernie_vil2.backends import Eager
from ernie_vil2.config import Config, ScoredConfig
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.preprocessing import Preprocessing
from ernie_vil2.data.readers import open_benchmarks
from ernie_vil2.data.tokenizer import Tokenizer
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.evaluation.encoded import encode_benchmark
from ernie_vil2.evaluation.protocol import Evaluation, Protocol, score
from ernie_vil2.evaluation.protocols import protocol
from ernie_vil2.evaluators.evaluator import Metrics
from ernie_vil2.io.errors import LostRank
from ernie_vil2.io.terminal import counted
from ernie_vil2.tasks import Task

MEAN = "mean_recall"
LOGGED_ALONE = ("R@5", "mR", "MRR")
"""Of each language; the others are printed and drawn as well."""


def scored_sets(config: Config, place: ScoredConfig | None, default: str) -> tuple[Protocol, dict[str, Benchmark]]:
    """What a protocol scores of some data, by language: those of the run's in which there are captions.

    Args:
        place: `Data.validation` or `Data.tested`; None: there is nothing.
        default: the split, if neither the place nor the protocol names one.
    """
    views, scoring = config.Views, protocol((place and place.protocol) or config.Evaluation.protocol)
    if place is None:
        return scoring, {}
    found = open_benchmarks(
        place.data,
        layout=place.layout,
        preferred=views.languages,
        split=place.split,
        images=place.images,
        text_id=place.text_id or config.Data.text_id,
        caption_lines=views.caption_lines if place.caption_lines is None else place.caption_lines,
        default=scoring.split or default,
    )
    # Captions that name no language are in whatever the run's texts are in.
    return scoring, {language or ", ".join(views.languages): scoring.select(each) for language, each in found.items()}


class Retrieval:
    """Scores a dual encoder language by language; the best checkpoint is that of the best mean recall over languages.

    The ranks share the encoding; rank 0 alone scores. What cannot be scored, as data that have become unreadable or
    embeddings that are not finite, costs the numbers of its language, and the mean.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer, scoring: Protocol, sets: dict[str, Benchmark]):
        self.config, self.tokenizer, self.protocol, self.sets = config, tokenizer, scoring, sets
        self.benchmarks = list(sets.values())
        self.best_by = MEAN if self.protocol.directions else None
        self.data = {
            language: f"{counted(len(benchmark.images), 'image')}, {counted(len(benchmark.texts), 'text')}"
            for language, benchmark in sets.items()
        }

    def __call__(self, model: nn.Layer) -> Metrics:
        """As `Evaluator.__call__`: `zh/image_to_text/R@1`, `zh/mR`, further measures of the protocol, `mean_recall`."""
        engine = Eager(model, Preprocessing.of(self.config.Model.image), self.config.Training.precision)
        encoder = ErnieViL2(engine, self.tokenizer, self.config, self.config.Evaluation.batch_size)
        rank, ranks = dist.get_rank(), dist.get_world_size()
        block, device = self.config.Evaluation.block, paddle.get_device()
        values, failures = {}, {}
        for language, benchmark in self.sets.items():
            try:
                encoded = encode_benchmark(encoder, benchmark, rank=rank, ranks=ranks)
                if rank == 0:
                    found = _figures(score(encoded, self.protocol, block, device))
                    values |= {f"{language}/{name}": value for name, value in found.items()}
            except LostRank:
                raise
            except Exception as error:
                failures[f"val, {language}"] = str(error) or type(error).__name__
        means = [values[f"{language}/mR"] for language in self.sets if f"{language}/mR" in values]
        if means and len(means) == len(self.sets):
            values[MEAN] = fmean(means)
        shown = [name for name in values if name.rpartition("/")[2] not in LOGGED_ALONE]
        return Metrics(values, shown, failures)


def build_retrieval(config: Config, task: Task) -> Retrieval | None:
    """The evaluator of a run with `Data.val`."""
    scoring, sets = scored_sets(config, config.Data.validation, "val")
    return Retrieval(config, task.tokenizer, scoring, sets) if sets else None


def _figures(evaluation: Evaluation) -> dict[str, float]:
    """Recalls by direction, their two-way mean, and what else the protocol measures."""
    values = evaluation.as_dict()
    recalls = {f"{way}/{name}": value for way in evaluation.results for name, value in values[way].items()}
    mean = {} if values["mR"] is None else {"mR": values["mR"]}
    return {**recalls, **mean, **evaluation.measures}
