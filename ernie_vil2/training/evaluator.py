"""Scorers in the course of a run: what each scores, and what it finds as the trainer takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple, Protocol

import paddle.distributed as dist
from paddle import nn

from ernie_vil2.backends import Eager
from ernie_vil2.config import Config, ConfigError, ScoredConfig
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.preprocessing import Preprocessing
from ernie_vil2.data.tokenizer import Tokenizer
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.evaluation.encoded import encode_benchmark
from ernie_vil2.evaluation.protocols import protocol
from ernie_vil2.evaluation.scorer import Data, Scorer, find_scorer
from ernie_vil2.evaluation.scorers.retrieval import Retrieval
from ernie_vil2.io.terminal import LostRank
from ernie_vil2.registry import UnknownName
from ernie_vil2.tasks import Task

EARLIER_NAMES = {"classification": "zero_shot", "statements": "entailment"}
"""What scorers were called as evaluators; configurations may still say so."""


class Metrics(NamedTuple):
    """What an evaluator found.

    values: numbers by name; "/" divides them into groups, as in `zh/image_to_text/R@1`.
    shown: names of those that are printed and drawn; all of them are logged. None: all.
    failures: why there are no numbers, by what could not be scored.
    """

    values: Mapping[str, float]
    shown: Sequence[str] | None = None
    failures: Mapping[str, str] = {}


class Evaluator(Protocol):
    """Scores a model.

    Attributes:
        best_by: name of the number that chooses the best checkpoint, the higher the better; None: none of them does.
        data: what is scored, in words by name.
        benchmarks: of whose images none should be trained on; they are looked for in the training data.
    """

    best_by: str | None
    data: Mapping[str, str]
    benchmarks: Sequence[Benchmark]

    def __call__(self, model: nn.Layer) -> Metrics:
        """Scores the model of the run's task, which is in evaluation mode and without gradient.

        A collective: every rank calls it, and what rank 0 returns counts. Whatever it raises ends no run.
        """


class Scored:
    """A scorer as an `Evaluator`. The ranks share the encoding; rank 0 alone scores.

    Of benchmarks that are scored each on its own, one that cannot be costs its own numbers, and the mean.
    """

    def __init__(self, scorer: Scorer, opened: Mapping[str, Benchmark], config: Config, tokenizer: Tokenizer):
        self.scorer, self.opened, self.config, self.tokenizer = scorer, opened, config, tokenizer
        self.best_by, self.data = scorer.best_by, scorer.sizes(opened)
        self.benchmarks = list(opened.values()) if scorer.held_out else []

    def __call__(self, model: nn.Layer) -> Metrics:
        """As `Evaluator.__call__`: the metrics of the scorer's report."""
        engine = Eager(model, Preprocessing.of(self.config.Model.image), self.config.Training.precision)
        encoder = ErnieViL2(engine, self.tokenizer, self.config, self.config.Evaluation.batch_size)
        if not self.scorer.separate:
            return self._metrics(encoder, self.opened)
        found, failures = [], {}
        for name, benchmark in self.opened.items():
            try:
                found.append(self._metrics(encoder, {name: benchmark}))
            except LostRank:
                raise
            except Exception as error:
                failures[f"val, {name}"] = str(error) or type(error).__name__
        values = {name: value for one in found for name, value in one.values.items() if name != self.best_by}
        best = [one.values[self.best_by] for one in found if self.best_by in one.values]
        if best and len(best) == len(self.opened):
            values[self.best_by] = fmean(best)
        return Metrics(values, [name for one in found for name in one.shown or ()], failures)

    def _metrics(self, encoder: ErnieViL2, opened: Mapping[str, Benchmark]) -> Metrics:
        rank, ranks = dist.get_rank(), dist.get_world_size()
        encoded = {name: encode_benchmark(encoder, one, rank=rank, ranks=ranks) for name, one in opened.items()}
        if rank:
            return Metrics({})
        report = self.scorer.score(encoded, encoder)
        return Metrics(report.metrics, report.shown)


def build_evaluators(config: Config, task: Task) -> dict[str, Evaluator]:
    """Those of `Evaluation.evaluators`, or else of the task, that have something to score.

    Raises:
        ConfigError: there is no such scorer, or it does not fit the task.
        OSError, ValueError: what one of them scores cannot be read.
    """
    names = task.evaluators if config.Evaluation.evaluators is None else config.Evaluation.evaluators
    built = {name: _build(name, config, task) for name in names}
    return {name: evaluator for name, evaluator in built.items() if evaluator is not None}


def _build(name: str, config: Config, task: Task) -> Evaluator | None:
    name, place = EARLIER_NAMES.get(name, name), config.Data.validation
    try:
        make = find_scorer(name)
    except UnknownName as error:
        raise ConfigError(f"Evaluation.evaluators: {error}") from None
    if name == "zero_shot":
        return Scored(*_open_classes(make, config), config, task.tokenizer)
    if name == "retrieval":
        scorer, opened = open_retrieval(config, place, "val")
    else:
        scorer = make()
        opened = scorer.open(_data(config, place, "val")) if place else {}
    if place is None:
        return None
    if scorer.labels and scorer.statements.labels != getattr(task, "labels", None):
        raise ConfigError(
            f"Data.val: the labels of {scorer.statements.name} are "
            f"{', '.join(scorer.statements.labels)}, which Training.task={config.Training.task} does not "
            "predict"
        )
    return Scored(scorer, opened, config, task.tokenizer)


def open_retrieval(config: Config, place: ScoredConfig | None, default: str) -> tuple[Scorer, dict[str, Benchmark]]:
    """What a protocol scores of some data, by language: those of the run's in which there are captions.

    Args:
        place: `Data.validation` or `Data.tested`; None: there is nothing.
        default: the split, if neither the place nor the protocol names one.
    """
    named = protocol((place and place.protocol) or config.Evaluation.protocol)
    scorer = Retrieval([named.name], block=config.Evaluation.block)
    opened = scorer.open(_data(config, place, default)) if place else {}
    # Captions that name no language are in whatever the run's texts are in.
    return scorer, {language or ", ".join(config.Views.languages): one for language, one in opened.items()}


def _data(config: Config, place: ScoredConfig, default: str) -> Data:
    views = config.Views
    return Data(
        place.data,
        layout=place.layout,
        split=place.split,
        images=place.images,
        text_id=place.text_id or config.Data.text_id,
        caption_lines=views.caption_lines if place.caption_lines is None else place.caption_lines,
        preferred=views.languages,
        default=default,
    )


def _open_classes(make: type[Scorer], config: Config) -> tuple[Scorer, dict[str, Benchmark]]:
    classes = config.Evaluation.classes
    if classes is None:
        raise ConfigError("Evaluation.evaluators: classification scores Evaluation.classes, which names no pictures")
    scorer = make(label=classes.label, names=classes.names, templates=classes.templates)
    return scorer, scorer.open(Data(classes.data, split=classes.split, images=classes.images, default="val"))
