"""Scorers in the course of a run: what they score and when, rank 0's numbers on every rank, errors that end no run.

`Comparison` scores `Data.test` before and after it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, Protocol, cast

import paddle
import paddle.distributed as dist
from paddle import nn

from ernie_vil2.config import Config, ConfigError
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.preprocessing import Preprocessing
from ernie_vil2.data.tokenizer import TextTokenizer
from ernie_vil2.encoder import ErnieViL2, PaddleBackend, load_model
from ernie_vil2.evaluation.outcomes import Outcomes
from ernie_vil2.evaluation.report import describe_run, write_report
from ernie_vil2.evaluation.scorer import SCORERS, Scorer, ScorerInput, check_options, run_scorer
from ernie_vil2.evaluation.scorers.retrieval import Retrieval
from ernie_vil2.io.run_folder import AFTER, BEFORE, RESULTS, Best, checkpoint_folder
from ernie_vil2.io.terminal import LostRank
from ernie_vil2.models import DualEncoder
from ernie_vil2.parallel import collectives
from ernie_vil2.section import Precision
from ernie_vil2.tasks import Task


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


def encoder_of(
    model: nn.Layer, tokenizer: TextTokenizer, config: Config, precision: Precision | None = None
) -> ErnieViL2:
    """The model of a run, which is a dual encoder where something scores it, as an encoder; by default in the precision
    of its training."""
    precision = precision or config.Training.precision
    backend = PaddleBackend(cast(DualEncoder, model), Preprocessing.from_config(config.Model.image), precision)
    return ErnieViL2(backend, tokenizer, config, config.Evaluation.batch_size)


@dataclass(eq=False)
class Scored:
    """A scorer as an `Evaluator`. The ranks share the encoding; rank 0 alone scores.

    Of benchmarks that are scored each on its own, one that cannot be costs its own numbers, and the mean.

    Args:
        outcomes: gets the outcomes of the queries by result, at each call those of that call, where the scorer has
            them; None: they are not computed.
    """

    scorer: Scorer
    opened: ScorerInput
    config: Config
    tokenizer: TextTokenizer
    outcomes: dict[str, Outcomes] | None = None

    def __post_init__(self) -> None:
        self.best_by = self.opened.best_by or self.scorer.best_by
        self.data: Mapping[str, str] = self.scorer.describe_sizes(self.opened)
        self.benchmarks: Sequence[Benchmark] = []
        if self.scorer.is_held_out:
            self.benchmarks = list(self.opened.benchmarks.values())

    def __call__(self, model: nn.Layer) -> Metrics:
        """As `Evaluator.__call__`: the metrics of the scorer's report."""
        encoder = encoder_of(model, self.tokenizer, self.config)
        if self.outcomes is not None:
            self.outcomes.clear()
        if not self.scorer.is_separable:
            return self._metrics(encoder, self.opened)
        found, failures = [], {}
        for name, benchmark in self.opened.benchmarks.items():
            try:
                found.append(self._metrics(encoder, replace(self.opened, benchmarks={name: benchmark})))
            except LostRank:
                raise
            except Exception as error:
                failures[f"val, {name}"] = str(error) or type(error).__name__
        best_by = self.best_by or ""
        values = {name: value for one in found for name, value in one.values.items() if name != best_by}
        best = [one.values[best_by] for one in found if best_by in one.values]
        if best and len(best) == len(self.opened.benchmarks):
            values[best_by] = fmean(best)
        return Metrics(values, [name for one in found for name in one.shown or ()], failures)

    def _metrics(self, encoder: ErnieViL2, opened: ScorerInput) -> Metrics:
        report = run_scorer(self.scorer, encoder, opened, rank=dist.get_rank(), ranks=dist.get_world_size())
        if self.outcomes is not None and report.make_outcomes:
            self.outcomes.update(report.make_outcomes())
        return Metrics(report.metrics, report.progress_metrics)


def build_evaluators(
    config: Config, task: Task, outcomes: dict[str, dict[str, Outcomes]] | None = None
) -> dict[str, Evaluator]:
    """Return those of `Evaluation.evaluators`, or else of the task, that have something to score.

    Args:
        outcomes: gets by evaluator the outcomes of the queries, see `Scored`; None: they are not computed.

    Raises:
        ConfigError: there is no such scorer, or it does not fit the task.
        OSError, ValueError: what one of them scores cannot be read.
    """
    named = config.Evaluation.options
    if named is None:
        named = {name: {} for name in task.evaluators}
    built: dict[str, Evaluator] = {}
    for name, options in named.items():
        try:
            make = SCORERS.find(name)
            check_options(make, name, options)
        except ValueError as error:
            raise ConfigError(f"Evaluation.evaluators: {error}") from None
        scorer, data = make.from_config(config, config.Data.validation, "val")
        if options:
            scorer = cast(Scorer, replace(cast(Any, scorer), **options))
        if data is None:
            continue
        opened = scorer.open(data)
        if scorer.needs_classifier:
            try:
                scorer.check(opened, cast(ErnieViL2, task), f"Training.task={config.Training.task}")
            except ValueError as error:
                raise ConfigError(f"Data.val: {error}") from None
        outcomes_of_evaluator = None if outcomes is None else outcomes.setdefault(name, {})
        built[name] = Scored(scorer, opened, config, task.tokenizer, outcomes_of_evaluator)
    return built


def scored(name: str, evaluator: Evaluator, model: nn.Layer) -> Metrics:
    """What an evaluator makes of the model, alike on all ranks; what it raises is a failure. A collective."""
    own, error = Metrics({}), None
    model.eval()
    try:
        with paddle.no_grad():
            found = evaluator(model)
        own = found._replace(values={key: float(value) for key, value in found.values.items()})
    except LostRank:
        raise
    except Exception as raised:
        error = str(raised) or type(raised).__name__
    everyone = collectives.all_gather_object((own, error))
    metrics, _ = everyone[0]
    failures = dict(metrics.failures)
    for rank, (_, why) in enumerate(everyone):
        if why is not None:
            failures.setdefault(name, why if rank == 0 else f"rank {rank}: {why}")
    best_by = evaluator.best_by
    if not failures and best_by is not None and not math.isfinite(metrics.values.get(best_by, math.nan)):
        failures[name] = f"no finite {best_by}, by which the best checkpoint is chosen"
    return metrics._replace(failures=failures)


class Scores:
    """The evaluators of a run, when they are due, and which step they found best.

    The first evaluator that has a number to choose by chooses.

    Attributes:
        evaluated: the step of the last evaluation, -1 before the first.
        best: step, metric and value of the best evaluation whose checkpoint is kept, None before the first.
        chooser: name of the evaluator that chooses the best step; None: there is none.
    """

    def __init__(self, evaluators: Mapping[str, Evaluator], config: Config):
        self.evaluators, self._config = evaluators, config
        self.evaluated = -1
        self.best: Best | None = None
        self.chooser = next((name for name, evaluator in evaluators.items() if evaluator.best_by), None)

    def resume(self, evaluated: int, best: Best | None) -> None:
        """Goes on from what a checkpoint holds; a best number of another name is none to compare with."""
        self.evaluated = evaluated
        if best and (not self.chooser or best["metric"] == self.evaluators[self.chooser].best_by):
            self.best = best

    @property
    def best_step(self) -> int | None:
        """The step that was found best."""
        return self.best and self.best["step"]

    def due(self, step: int) -> bool:
        """Whether the model of this step is to be scored."""
        settings, last = self._config.Evaluation, step == self._config.Training.steps
        if not self.evaluators or self.evaluated >= step:
            return False
        if step == 0:
            return settings.at_start
        return bool(settings.every) and (last or step % settings.every == 0)

    @property
    def settled(self) -> bool:
        """Whether `Tuning.patience` is at its end."""
        patience, every = self._config.Tuning.patience, self._config.Evaluation.every
        return bool(patience and self.best and self.evaluated - self.best["step"] >= patience * every)

    def score(self, model: nn.Layer, step: int) -> dict[str, Metrics]:
        """What each evaluator makes of the model of a step. A collective."""
        found = {name: scored(name, evaluator, model) for name, evaluator in self.evaluators.items()}
        self.evaluated = step
        return found

    def improved(self, found: Mapping[str, Metrics]) -> bool:
        """Whether what was found makes the evaluated step the best one, which it then is; step 0 never is."""
        if not self.evaluated or not self.chooser or found[self.chooser].failures:
            return False
        metric = self.evaluators[self.chooser].best_by or ""
        value = found[self.chooser].values[metric]
        if self.best is not None and value <= self.best["value"]:
            return False
        self.best = {"step": self.evaluated, "metric": metric, "value": value}
        return True

    def records(self, found: Mapping[str, Metrics]) -> list[dict[str, Any]]:
        """For the log; what is not finite is null."""
        return [
            {
                "evaluator": name,
                "best_by": self.evaluators[name].best_by,
                "shown": shown(metrics),
                "metrics": {key: value if math.isfinite(value) else None for key, value in metrics.values.items()},
            }
            for name, metrics in found.items()
        ]


def shown(metrics: Metrics) -> list[str]:
    """The names of the numbers that are printed and drawn."""
    return [name for name in metrics.values if metrics.shown is None or name in metrics.shown]


def as_lines(found: Mapping[str, Metrics]) -> list[str]:
    """For the terminal, one for the numbers of each first part of their names: `zh: image_to_text/R@1 47.3, ...`."""
    groups: dict[tuple[str, str], list[str]] = {}
    for evaluator, metrics in found.items():
        for name in shown(metrics):
            group, _, rest = name.partition("/") if "/" in name else ("", "", name)
            groups.setdefault((evaluator, group), []).append(f"{rest} {metrics.values[name]:.4g}")
    return [f"{group}: {', '.join(numbers)}".removeprefix(": ") for (_, group), numbers in groups.items()]


class Comparison:
    """Scores `Data.test` with the weights that training began with, and with those that it found best.

    The results lie in the run's folder of results, where reports look.

    Raises:
        ConfigError: the task is not scored by retrieval.
        OSError, ValueError: nothing can be read of the data.
    """

    def __init__(self, config: Config, task: Task):
        if not task.has_embeddings:
            raise ConfigError(
                f"Data.test is scored by retrieval, which Training.task={config.Training.task} is not; leave it out"
            )
        self._config, self._tokenizer, self._run = config, task.tokenizer, Path(config.Training.output)
        tested = config.Data.tested
        self._scorer, data = Retrieval.from_config(config, tested, "test")
        if tested is None or data is None:
            raise ConfigError("Data.test names no data to score")
        self._data = tested.data
        self._opened = self._scorer.open(data)

    @property
    def benchmarks(self) -> list[Benchmark]:
        """What is scored."""
        return list(self._opened.benchmarks.values())

    def before(self, model: nn.Layer) -> str:
        """Scores a dual encoder as training begins with it; a line for people for each language."""
        encoder = encoder_of(model, self._tokenizer, self._config)
        return self._score(BEFORE, encoder, self._config.Model.weights or "initial weights")

    @property
    def lacks_after(self) -> bool:
        """Whether the result at the end is not there yet."""
        return not (self._run / RESULTS / f"{AFTER}.json").is_file()

    def after(self, step: int) -> str:
        """Likewise the checkpoint of a step."""
        folder = checkpoint_folder(self._run, step)
        model = load_model(
            folder, batch_size=self._config.Evaluation.batch_size, precision=self._config.Training.precision
        )
        return self._score(AFTER, model, str(folder))

    def _score(self, name: str, model: ErnieViL2, source: str) -> str:
        scorer, opened = self._scorer, self._opened
        if isinstance(scorer, Retrieval):
            scorer = replace(scorer, title=name)
        if len(self.benchmarks) == 1:
            opened = replace(opened, benchmarks={"": self.benchmarks[0]})
        report = run_scorer(scorer, model, opened)
        write_report(report, self._run / RESULTS, name, describe_run(source, self._data, {}, None))
        return "\n".join(f"{label}: {_line(one['result'])}" for label, one in report.record["results"].items())


def _line(result: Mapping[str, Any]) -> str:
    figures = {f"{way.replace('_', ' ')} R@1": recalls.get("R@1") for way, recalls in result.items() if "_to_" in way}
    figures |= {"mean recall": result["mR"], **result.get("measures", {})}
    return ", ".join(f"{name} {value:.1f}" for name, value in figures.items() if value is not None)
