"""A few learning rates and batches tried on the data at hand, each for a short time: `train --tune-rate`."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from ernie_vil2.config import Config, ConfigError, apply_overrides
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.evaluation.intervals import CONFIDENCE_LEVEL, Interval, correct_p_values, estimate_query_difference
from ernie_vil2.evaluation.outcomes import Outcomes, format_difference
from ernie_vil2.io.files import check_version, load_json, write_json
from ernie_vil2.training.scoring import ScorerEvaluator, build_evaluators
from ernie_vil2.training.trainer import Trainer
from ernie_vil2.training.update import NotFinite

RATES = (2e-5, 5e-5, 1e-4, 2e-4, 4e-4, 1e-3)
HIGHEST = 8e-3
"""Up to which the rate is doubled while the highest one is clearly the best."""
SMALL_BATCH = 64
SAMPLES = 4096
"""That a trial sees at most."""
EPOCHS, FEWEST_STEPS = 5, 4
VERSION = 1  # of the file of trials
KEPT, TRIALS = ".rate_search.json", ".rate_search"
"""In the run folder: what was found, and the trials while they run."""


class Trial(NamedTuple):
    """A rate and a batch, and what the validation data scored after them; None: the trial failed."""

    rate: float
    batch: int
    score: float | None = None

    @property
    def setting(self) -> tuple[float, int]:
        """What was tried."""
        return self.rate, self.batch


class Queries(NamedTuple):
    """What the validation queries of a trial found, over all languages.

    Attributes:
        ids: of the queries, by which those of two trials are the same.
        values: `[Q]`, what each adds to the score.
        clusters: `[Q]`, equal for the queries of one image.
        groups: `[Q]`, equal for those whose mean is one part of the score: a language and a direction.
    """

    ids: list[str]
    values: np.ndarray
    clusters: np.ndarray
    groups: np.ndarray


class Results:
    """Finished trials, and whether one is better than another by more than chance."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []
        self._queries: dict[tuple[float, int], Queries] = {}

    def add(self, trial: Trial, queries: Queries | None) -> None:
        """Take a trial with its score, and with what its queries found if it was finished."""
        self.trials.append(trial)
        if queries is not None:
            self._queries[trial.setting] = queries

    def difference(self, trial: Trial, baseline: Trial) -> Interval | None:
        """Return by how much the score of one trial is above that of another; None if one of them failed.

        Both answered the same queries, so that the interval is that of the paired differences, by the bootstrap of all
        queries of an image together. It knows nothing of the chance in a training itself, of which there is one a
        trial: what is not better even on these queries is surely not worth another rate.
        """
        if trial.setting not in self._queries or baseline.setting not in self._queries:
            return None
        own, other = self._queries[trial.setting], self._queries[baseline.setting]
        if own.ids != other.ids:
            raise ValueError("two trials answered different queries; did the validation data change meanwhile?")
        return estimate_query_difference(own.values, other.values, own.clusters, own.groups)

    def is_better(self, trial: Trial, baseline: Trial) -> bool:
        """Return whether a trial is better than another by more than the interval of the difference."""
        difference = self.difference(trial, baseline)
        return difference is not None and difference.low is not None and difference.low > 0

    def choose(self) -> Trial | None:
        """Return the best of the trials that are clearly better than the first one, the recipe's; None: there is none.

        The interval of the difference is above 0, and its test holds after Holm's correction: without it, one of ten
        rates that are no better than the recipe's would be chosen by chance in two searches of ten. If the recipe's
        trial failed, any that was finished will do.
        """
        recipe, *others = self.trials
        if recipe.score is None:
            return best_of(others)
        trials: list[Trial] = []
        differences: list[Interval] = []
        p_values: list[float] = []
        for trial in others:
            difference = self.difference(trial, recipe)
            if difference is not None and difference.p_value is not None:
                trials.append(trial)
                differences.append(difference)
                p_values.append(difference.p_value)

        better = []
        for trial, difference, p in zip(trials, differences, correct_p_values(p_values), strict=True):
            if p < 1 - CONFIDENCE_LEVEL and difference.low is not None and difference.low > 0:
                better.append(trial)
        return best_of(better)


def tune_rate(config: Config) -> Config:
    """Return the configuration with the rate and batch to train with, after short trials of several.

    The recipe's own are tried first, and stay unless others are better by more than the interval of the difference: a
    trial is short, which favours high rates, and a higher rate costs more of what the model could do before. Each trial
    is a run of its own with a whole schedule, scored once, at its end, by what chooses the best checkpoint.

    Args:
        config: of the run, whose folder keeps what was found.

    Raises:
        ConfigError: there is nothing to score by, what scores gives no single queries, or no trial could be finished.
    """
    if config.Data.validation is None:
        raise ConfigError("--tune-rate chooses by Data.val: name it, or hold a part out (Data.holdout)")
    path = Path(config.Training.output) / KEPT
    if path.is_file():
        record = load_json(path)
        version = record.get("version") if isinstance(record, dict) else None
        check_version(version, VERSION, path, "remove it, and the rates are tried again")
        chosen = record["chosen"] and Trial(*record["chosen"])
        print(f"rates were tried before ({path})")
    else:
        samples = SampleStream(config).num_samples
        results = Results()
        for trial in propose_trials(config, samples, results.trials, results.is_better):
            scored, queries = _score(config, trial, samples)
            results.add(scored, queries)
            print(_in_words(scored, results))
        if best_of(results.trials) is None:
            raise ConfigError("--tune-rate: no trial could be finished; train once without it, to see why")
        chosen = results.choose()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"version": VERSION, "trials": results.trials, "chosen": chosen})
    if chosen is None:
        print("keeps the rate and batch of the configuration: no other is better by more than its interval")
        return config
    overrides = [f"Optimizer.learning_rate={chosen.rate!r}", f"Training.global_batch={chosen.batch}"]
    if config.Tuning.base_batch:
        overrides.append("Tuning.base_batch=null")
    if config.Training.micro_batch and config.Training.micro_batch >= chosen.batch:
        overrides.append("Training.micro_batch=null")
    print(f"trains with {' '.join(f'-o {override}' for override in overrides)}")
    return apply_overrides(config, overrides)


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial of the best score, of equal ones that of the lowest rate; None if none was finished."""
    finished = [trial for trial in trials if trial.score is not None]
    return max(finished, key=lambda trial: (trial.score, -trial.rate), default=None)


def propose_trials(
    config: Config, samples: int, finished: Sequence[Trial], is_better: Callable[[Trial, Trial], bool]
) -> Iterator[Trial]:
    """Yield what is tried next: the recipe, then rates with a small batch, then the best ones with the recipe's batch.

    Args:
        config: of the run.
        samples: of an epoch.
        finished: the trials so far with their scores, which grow from one to the next.
        is_better: whether a trial is better than another by more than chance.
    """
    largest = max(2, samples // 2)
    small, batch = min(SMALL_BATCH, largest), min(config.Training.global_batch, largest)
    recipe = Trial(_peak_rate(config), batch)
    yield recipe
    rates = sorted({*RATES, recipe.rate})
    for rate in rates:
        if (rate, small) != recipe.setting:
            yield Trial(rate, small)

    # A higher rate costs more of the old task: the highest must gain clearly before a still higher one is tried.
    with_small = {trial.rate: trial for trial in finished if trial.batch == small}
    best = best_of(list(with_small.values()))
    while best and best.rate == rates[-1] < HIGHEST and is_better(best, with_small[rates[-2]]):
        rates.append(2 * best.rate)
        yield Trial(rates[-1], small)
        with_small = {trial.rate: trial for trial in finished if trial.batch == small}
        best = best_of(list(with_small.values()))

    if best is None or batch == small:
        return
    position = rates.index(best.rate)
    for rate in rates[max(0, position - 1) : position + 2]:
        if (rate, batch) != recipe.setting:
            yield Trial(rate, batch)


def _peak_rate(config: Config) -> float:
    """Return the peak learning rate of a run, with what `Tuning.base_batch` makes of it."""
    training, base_batch = config.Training, config.Tuning.base_batch
    return config.Optimizer.learning_rate * (training.global_batch / base_batch if base_batch else 1)


def pool_queries(outcomes: Mapping[str, Outcomes]) -> Queries:
    """Return the queries of all languages as one set, the mean of whose groups' means is the mean of the languages.

    An image is one cluster whatever the language of the texts that it is asked for, or that ask for it.
    """
    ids: list[str] = []
    clusters: list[str] = []
    groups: list[str] = []
    values: list[np.ndarray] = []
    for language, outcome in outcomes.items():
        group = outcome.groups.get(outcome.main_figure, np.zeros(len(outcome.query_ids), np.int64))
        # The queries of an image have its number; the image's own query has its id, too.
        names = {
            int(number): query
            for number, query in zip(outcome.clusters, outcome.query_ids, strict=True)
            if query.startswith("image_to_")
        }
        ids += [f"{language} {query}" for query in outcome.query_ids]
        clusters += [names.get(int(number), f"{language} {number}") for number in outcome.clusters]
        groups += [f"{language} {number}" for number in group]
        values.append(outcome.figures[outcome.main_figure])
    return Queries(
        ids,
        np.concatenate(values),
        np.unique(clusters, return_inverse=True)[1],
        np.unique(groups, return_inverse=True)[1],
    )


def _score(config: Config, trial: Trial, samples: int) -> tuple[Trial, Queries | None]:
    """Train a trial, and return it with its score and with what its queries found; without them if it failed."""
    seen = min(SAMPLES, EPOCHS * samples)
    steps = max(FEWEST_STEPS, seen // trial.batch)
    folder = Path(config.Training.output) / TRIALS
    micro = config.Training.micro_batch
    short = apply_overrides(
        config,
        [
            f"Optimizer.learning_rate={trial.rate!r}",
            f"Training.global_batch={trial.batch}",
            f"Training.micro_batch={micro if micro and micro < trial.batch else 'null'}",
            f"Training.output={folder}",
            f"Training.steps={steps}",
            "Training.epochs=null",
            f"Training.checkpoint_every={steps}",
            f"Schedule.warmup_steps={steps // 10}",
            "Tuning.base_batch=null",
            "Tuning.patience=null",
            f"Evaluation.every={steps}",
            "Evaluation.at_start=false",
        ],
    )
    outcomes: dict[str, dict[str, Outcomes]] = {}
    shutil.rmtree(folder, ignore_errors=True)
    try:
        trainer = Trainer(short, make_evaluators=partial(build_evaluators, outcomes=outcomes), should_compare=False)
        chooser = trainer.evaluations.chooser
        if chooser is None:
            raise ConfigError("--tune-rate compares single queries, which what scores this run does not give")
        if not trainer.fit():
            raise KeyboardInterrupt
        if trainer.best is None:
            return trial, None
        if not outcomes[chooser]:
            scorer = cast(ScorerEvaluator, trainer.evaluations.evaluators[chooser]).scorer
            raise ConfigError(
                f"--tune-rate compares single queries, which {type(scorer).__name__} does not give; set "
                "Optimizer.learning_rate, or name another of Evaluation.evaluators first"
            )
        return trial._replace(score=trainer.best["value"]), pool_queries(outcomes[chooser])
    except NotFinite:
        return trial, None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _in_words(trial: Trial, results: Results) -> str:
    """Return a line for people on a trial, with its difference to the first one."""
    setting = f"rate {trial.rate:g}, batch {trial.batch}"
    if trial.score is None:
        return f"{setting}: did not finish"
    if trial is results.trials[0]:
        return f"{setting}: {trial.score:.2f}, by the configuration"
    difference = results.difference(trial, results.trials[0])
    if difference is None or difference.low is None or difference.high is None:
        return f"{setting}: {trial.score:.2f}"
    interval = f"95 % interval {format_difference(difference.low)} to {format_difference(difference.high)}"
    return f"{setting}: {trial.score:.2f} ({format_difference(difference.mean)}, {interval})"
