"""Evaluation during a run: scorers, the steps at which they are due, and the best step so far.

Every rank uses rank 0's metrics, and an error of a scorer does not end the run. `BeforeAfterComparison` scores
`Data.test` before and after training.
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
from ernie_vil2.evaluation.scorer import SCORERS, Scorer, ScorerInput, run_scorer, validate_options
from ernie_vil2.evaluation.scorers.retrieval import Retrieval
from ernie_vil2.io.files import load_json
from ernie_vil2.io.run_folder import AFTER, BEFORE, RESULTS, Best, checkpoint_folder
from ernie_vil2.io.terminal import LostRank
from ernie_vil2.models import DualEncoder
from ernie_vil2.parallel import collectives
from ernie_vil2.section import Precision
from ernie_vil2.tasks import Task


class Metrics(NamedTuple):
    """Result of an evaluator.

    values: metrics by name; "/" divides them into groups, as in `zh/image_to_text/R@1`.
    progress_names: names of the metrics that are printed and drawn; all of them are logged. None: all.
    failures: reasons why metrics are missing, by what could not be scored.
    """

    values: Mapping[str, float]
    progress_names: Sequence[str] | None = None
    failures: Mapping[str, str] = {}


class Evaluator(Protocol):
    """Scores a model.

    Attributes:
        best_by: name of the metric that chooses the best checkpoint, the higher the better; None: no metric does.
        data_sizes: how much is scored, in words by the name of the data.
        benchmarks: held-out sets; the training data are searched for their images.
    """

    best_by: str | None
    data_sizes: Mapping[str, str]
    benchmarks: Sequence[Benchmark]

    def __call__(self, model: nn.Layer) -> Metrics:
        """Score the model of the run's task, which is in evaluation mode and without gradient.

        A collective: every rank calls it, and uses rank 0's result. No error that it raises ends the run, except
        LostRank.
        """


def build_run_encoder(
    model: nn.Layer, tokenizer: TextTokenizer, config: Config, precision: Precision | None = None
) -> ErnieViL2:
    """Wrap the model of a run as an encoder.

    Args:
        model: a dual encoder, because only such models are scored.
        tokenizer: its tokenizer.
        config: configuration of the run.
        precision: precision of the encoder; None: the precision of training.
    """
    precision = precision or config.Training.precision
    backend = PaddleBackend(cast(DualEncoder, model), Preprocessing.from_config(config.Model.image), precision)
    return ErnieViL2(backend, tokenizer, config, config.Evaluation.batch_size)


@dataclass(eq=False)
class ScorerEvaluator:
    """A scorer as an `Evaluator`. The ranks share the encoding; rank 0 alone scores.

    If the scorer can score benchmarks separately, one that fails is skipped; its metrics and the mean are then missing.

    Args:
        scorer: the scorer.
        scorer_input: the data that it has opened.
        config: configuration of the run.
        tokenizer: tokenizer of the model.
        outcomes: a dictionary that each call fills with the outcomes of the queries, by name of the result, if the
            scorer computes outcomes; None: they are not computed.
    """

    scorer: Scorer
    scorer_input: ScorerInput
    config: Config
    tokenizer: TextTokenizer
    outcomes: dict[str, Outcomes] | None = None

    def __post_init__(self) -> None:
        self.best_by = self.scorer_input.best_by or self.scorer.best_by
        self.data_sizes: Mapping[str, str] = self.scorer.describe_sizes(self.scorer_input)
        self.benchmarks: Sequence[Benchmark] = []
        if self.scorer.is_held_out:
            self.benchmarks = list(self.scorer_input.benchmarks.values())

    def __call__(self, model: nn.Layer) -> Metrics:
        """Return the metrics of the scorer's report, see `Evaluator.__call__`."""
        encoder = build_run_encoder(model, self.tokenizer, self.config)
        if self.outcomes is not None:
            self.outcomes.clear()
        if not self.scorer.is_separable:
            return self._score(encoder, self.scorer_input)

        best_by = self.best_by or ""
        values: dict[str, float] = {}
        best_values: list[float] = []
        progress_names: list[str] = []
        failures: dict[str, str] = {}
        for name, benchmark in self.scorer_input.benchmarks.items():
            try:
                metrics = self._score(encoder, replace(self.scorer_input, benchmarks={name: benchmark}))
            except LostRank:
                raise
            except Exception as error:
                # The key is what the failure is reported for: "evaluation on val, zh".
                failures[f"val, {name}"] = str(error) or type(error).__name__
                continue
            for metric, value in metrics.values.items():
                if metric == best_by:
                    best_values.append(value)
                else:
                    values[metric] = value
            progress_names += list_progress_names(metrics)
        # The mean over the benchmarks chooses the best step, so it needs all of them.
        if best_values and len(best_values) == len(self.scorer_input.benchmarks):
            values[best_by] = fmean(best_values)
        return Metrics(values, progress_names, failures)

    def _score(self, encoder: ErnieViL2, scorer_input: ScorerInput) -> Metrics:
        report = run_scorer(self.scorer, encoder, scorer_input, rank=dist.get_rank(), ranks=dist.get_world_size())
        if self.outcomes is not None and report.make_outcomes:
            self.outcomes.update(report.make_outcomes())
        return Metrics(report.metrics, report.progress_metrics)


def build_evaluators(
    config: Config, task: Task, outcomes: dict[str, dict[str, Outcomes]] | None = None
) -> dict[str, Evaluator]:
    """Build the evaluators that `Evaluation.evaluators` names, by default the task's; those without data are left out.

    Args:
        config: configuration of the run.
        task: its task.
        outcomes: a dictionary to fill with `ScorerEvaluator.outcomes` by evaluator; None: they are not computed.

    Raises:
        ConfigError: there is no such scorer, or it does not fit the task.
        OSError: data that cannot be read.
        ValueError: data that cannot be used.
    """
    options_by_name = config.Evaluation.options
    if options_by_name is None:
        options_by_name = {name: {} for name in task.evaluators}
    evaluators: dict[str, Evaluator] = {}
    for name, options in options_by_name.items():
        try:
            scorer_class = SCORERS.find(name)
            options = validate_options(scorer_class, name, options)
        except ValueError as error:
            raise ConfigError(f"Evaluation.evaluators: {error}") from None
        scorer, data_spec = scorer_class.from_config(config, config.Data.val_config, "val")
        # Options that are not set here keep the values that the scorer took from the configuration.
        if options:
            scorer = cast(Scorer, replace(cast(Any, scorer), **options))
        if data_spec is None:
            continue
        scorer_input = scorer.open(data_spec)
        if scorer.needs_classifier:
            # The model is not built yet. This check looks only at its labels, and the task has the same labels.
            try:
                scorer.check(scorer_input, cast(ErnieViL2, task), f"Training.task={config.Training.task}")
            except ValueError as error:
                raise ConfigError(f"Data.val: {error}") from None
        evaluator_outcomes = None if outcomes is None else outcomes.setdefault(name, {})
        evaluators[name] = ScorerEvaluator(scorer, scorer_input, config, task.tokenizer, evaluator_outcomes)
    return evaluators


def run_evaluator(name: str, evaluator: Evaluator, model: nn.Layer) -> Metrics:
    """Return an evaluator's metrics, the same on all ranks; an error becomes one of their failures. A collective.

    Args:
        name: name of the evaluator.
        evaluator: the evaluator.
        model: the model, which is put into evaluation mode.

    Raises:
        LostRank: another rank is lost.
    """
    metrics, error_text = Metrics({}), None
    model.eval()
    try:
        with paddle.no_grad():
            metrics = evaluator(model)
        # Values are converted here, so that a value that is not a number is a failure, too.
        metrics = metrics._replace(values={key: float(value) for key, value in metrics.values.items()})
    except LostRank:
        raise
    # A scorer may be the user's own; none of its errors ends a long run.
    except Exception as error:
        metrics, error_text = Metrics({}), str(error) or type(error).__name__

    # The result has the metrics of rank 0, and the failures of all ranks.
    results = collectives.all_gather_object((metrics, error_text))
    metrics, _ = results[0]
    failures = dict(metrics.failures)
    for rank, (_, error_text) in enumerate(results):
        if error_text is not None:
            failures.setdefault(name, error_text if rank == 0 else f"rank {rank}: {error_text}")
    best_by = evaluator.best_by
    if not failures and best_by is not None and not math.isfinite(metrics.values.get(best_by, math.nan)):
        failures[name] = f"no finite {best_by}, by which the best checkpoint is chosen"
    return metrics._replace(failures=failures)


class Evaluations:
    """Evaluators of a run, when they are due, and the best step so far.

    The first evaluator with a metric that can choose the best step chooses it.

    Args:
        evaluators: the evaluators by name.
        config: configuration of the run.

    Attributes:
        evaluated_step: step of the last evaluation, -1 before the first.
        best: step, metric and value of the best evaluation whose checkpoint exists; None: there is none yet.
        chooser: name of the evaluator that chooses the best step; None: there is none.
    """

    def __init__(self, evaluators: Mapping[str, Evaluator], config: Config):
        self.evaluators, self._config = evaluators, config
        self.evaluated_step = -1
        self.best: Best | None = None
        self.chooser = next((name for name, evaluator in evaluators.items() if evaluator.best_by), None)

    def resume(self, evaluated_step: int, best: Best | None) -> None:
        """Continue from the values in a checkpoint."""
        self.evaluated_step = evaluated_step
        # A best value of another metric cannot be compared, so it is dropped. Without a chooser nothing will be
        # compared, and the best step stays.
        if best and (not self.chooser or best["metric"] == self.evaluators[self.chooser].best_by):
            self.best = best

    def agree(self) -> None:
        """Continue on all ranks from the evaluations that rank 0 knows of. A collective.

        Other machines may have copies of the run folder without the last evaluation or the best checkpoint, and the
        ranks must evaluate, save and stop at the same steps.
        """
        self.evaluated_step, self.best = collectives.all_gather_object((self.evaluated_step, self.best))[0]

    @property
    def best_step(self) -> int | None:
        """Best step so far, None before the first."""
        return self.best and self.best["step"]

    def is_due(self, step: int) -> bool:
        """Return whether the model of this step is to be evaluated."""
        settings, is_last = self._config.Evaluation, step == self._config.Training.steps
        if not self.evaluators or self.evaluated_step >= step:
            return False
        if step == 0:
            return settings.at_start
        return bool(settings.every) and (is_last or step % settings.every == 0)

    @property
    def is_out_of_patience(self) -> bool:
        """Whether `Tuning.patience` evaluations have passed without a better one."""
        patience, every = self._config.Tuning.patience, self._config.Evaluation.every
        return bool(patience and self.best and self.evaluated_step - self.best["step"] >= patience * every)

    def evaluate(self, model: nn.Layer, step: int) -> dict[str, Metrics]:
        """Return each evaluator's metrics of the model of a step. A collective."""
        metrics = {name: run_evaluator(name, evaluator, model) for name, evaluator in self.evaluators.items()}
        self.evaluated_step = step
        return metrics

    def update_best(self, metrics: Mapping[str, Metrics]) -> bool:
        """Make the evaluated step the best if its metric beats the best so far; return whether it did."""
        if self.evaluated_step == 0:  # step 0 has no checkpoint
            return False
        if not self.chooser or metrics[self.chooser].failures:
            return False
        metric = self.evaluators[self.chooser].best_by or ""
        value = metrics[self.chooser].values[metric]
        if self.best is not None and value <= self.best["value"]:
            return False
        self.best = {"step": self.evaluated_step, "metric": metric, "value": value}
        return True

    def make_records(self, metrics: Mapping[str, Metrics]) -> list[dict[str, Any]]:
        """Return a record for the log for each evaluator; numbers that are not finite become null."""
        records = []
        for name, evaluator_metrics in metrics.items():
            values = evaluator_metrics.values
            record = {
                "evaluator": name,
                "best_by": self.evaluators[name].best_by,
                "progress_metrics": list_progress_names(evaluator_metrics),
                "metrics": {key: value if math.isfinite(value) else None for key, value in values.items()},
            }
            records.append(record)
        return records


def list_progress_names(metrics: Metrics) -> list[str]:
    """Return the names of the metrics that are printed and drawn."""
    names = metrics.progress_names
    return [name for name in metrics.values if names is None or name in names]


def format_metrics(metrics: Mapping[str, Metrics]) -> list[str]:
    """Return a line for the terminal for each group of metrics, such as `zh: image_to_text/R@1 47.3, ...`.

    Args:
        metrics: metrics by evaluator.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for evaluator, evaluator_metrics in metrics.items():
        for name in list_progress_names(evaluator_metrics):
            group, separator, short_name = name.partition("/")
            if not separator:
                group, short_name = "", name
            number = f"{short_name} {evaluator_metrics.values[name]:.4g}"
            groups.setdefault((evaluator, group), []).append(number)
    lines = []
    for (_, group), numbers in groups.items():
        prefix = f"{group}: " if group else ""
        lines.append(prefix + ", ".join(numbers))
    return lines


class BeforeAfterComparison:
    """Scores `Data.test` with the weights before training, and with the best weights after it.

    The results are written into the run's folder of results, where reports look for them.

    Raises:
        ConfigError: the task cannot be scored by retrieval, or there is nothing to score.
        OSError: data that cannot be read.
        ValueError: data that cannot be used.
    """

    def __init__(self, config: Config, task: Task):
        if not task.has_embeddings:
            raise ConfigError(
                "Data.test is scored by retrieval, but the models of "
                f"Training.task={config.Training.task} have no embeddings; remove Data.test"
            )
        self._config, self._tokenizer, self._run_folder = config, task.tokenizer, Path(config.Training.output)
        test_config = config.Data.test_config
        self._scorer, data_spec = Retrieval.from_config(config, test_config, "test")
        if test_config is None or data_spec is None:
            raise ConfigError("Data.test names no data to score")
        self._data_names = test_config.data
        self._scorer_input = self._scorer.open(data_spec)

    @property
    def benchmarks(self) -> list[Benchmark]:
        """Benchmarks that are scored."""
        return list(self._scorer_input.benchmarks.values())

    def score_before(self, model: nn.Layer) -> str:
        """Score a dual encoder before training; return a line for each language."""
        encoder = build_run_encoder(model, self._tokenizer, self._config)
        return self._score(BEFORE, encoder, self._config.Model.weights or "initial weights")

    def lacks_result_after(self, step: int) -> bool:
        """Return whether the result of the checkpoint of a step has not been written yet.

        A run that was extended and killed has one of an earlier checkpoint.
        """
        try:
            record = load_json(self._run_folder / RESULTS / f"{AFTER}.json")
            return Path(record["model"]).name != checkpoint_folder(self._run_folder, step).name
        except (OSError, ValueError, KeyError, TypeError):
            return True

    def score_after(self, step: int) -> str:
        """Score the checkpoint of a step after training; return a line for each language."""
        folder = checkpoint_folder(self._run_folder, step)
        batch_size, precision = self._config.Evaluation.batch_size, self._config.Training.precision
        encoder = load_model(folder, batch_size=batch_size, precision=precision)
        return self._score(AFTER, encoder, str(folder))

    def _score(self, name: str, encoder: ErnieViL2, source: str) -> str:
        scorer, scorer_input = self._scorer, self._scorer_input
        # The protocol may have named another scorer, which has no such title.
        if isinstance(scorer, Retrieval):
            scorer = replace(scorer, title=name)
        # A single benchmark needs no name in the output.
        if len(self.benchmarks) == 1:
            scorer_input = replace(scorer_input, benchmarks={"": self.benchmarks[0]})
        report = run_scorer(scorer, encoder, scorer_input)
        write_report(
            report, self._run_folder / RESULTS, name, describe_run(source, self._data_names, settings={}, files=None)
        )
        results = report.record["results"].items()
        return "\n".join(f"{label}: {_format_result(entry['result'])}" for label, entry in results)


def _format_result(result: Mapping[str, Any]) -> str:
    """Return the recalls of both directions and the other measures of a result, in one line."""
    figures = {}
    for direction, recalls in result.items():
        if "_to_" in direction:
            figures[f"{direction.replace('_', ' ')} R@1"] = recalls.get("R@1")
    figures |= {"mean recall": result["mR"], **result.get("measures", {})}
    return ", ".join(f"{name} {value:.1f}" for name, value in figures.items() if value is not None)
