"""Short trials of several learning rates and batch sizes on the user's data: `train --tune-rate`."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from ernie_vil2.config import Config, ConfigError, apply_overrides, differences
from ernie_vil2.config.sections import with_native_towers
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.evaluation.intervals import CONFIDENCE_LEVEL, Interval, correct_p_values, estimate_query_difference
from ernie_vil2.evaluation.outcomes import Outcomes, format_difference
from ernie_vil2.io.files import check_version, load_json, write_json
from ernie_vil2.io.run_folder import list_checkpoints, lock_run_folder
from ernie_vil2.io.terminal import join_names
from ernie_vil2.training.checkpoint import FREE_ON_RESUME
from ernie_vil2.training.scoring import ScorerEvaluator, build_evaluators
from ernie_vil2.training.trainer import Trainer
from ernie_vil2.training.update import NotFinite

RATES = (2e-5, 5e-5, 1e-4, 2e-4, 4e-4, 1e-3)
# While the highest rate is clearly the best, it is doubled up to this one.
MAX_RATE = 8e-3
# Rates are first compared with a small batch, with which a trial of few samples has many steps.
SMALL_BATCH = 64
# A trial sees at most 4,096 samples or five epochs. More make the trials slower; fewer favour high rates even more.
MAX_SAMPLES, MAX_EPOCHS = 4096, 5
# A trial has at least so many steps, also with a batch that is large for the data.
MIN_STEPS = 4
VERSION = 1  # of the file of results
# Settings that the choice of a rate does not depend on: trials have their own, or hardly depend on them.
FREE_SETTINGS = (FREE_ON_RESUME - {"Data.val", "Evaluation"}) | {
    "Training.steps",
    "Training.epochs",
    "Schedule.warmup_steps",
    "Data.test",
    "Evaluation.every",
    "Evaluation.at_start",
}
# In the run folder: the results, and the folder of a running trial.
RESULTS_FILE, TRIAL_FOLDER = ".rate_search.json", ".rate_search"


class Trial(NamedTuple):
    """A rate and a batch size, and the score on the validation data after training with them.

    score: None if the trial has not run yet or has failed.
    """

    rate: float
    batch: int
    score: float | None = None

    @property
    def setting(self) -> tuple[float, int]:
        """Rate and batch size."""
        return self.rate, self.batch


class Queries(NamedTuple):
    """Results of a trial's Q validation queries over all languages.

    Attributes:
        ids: ids of the queries, which are the same in all trials.
        values: `[Q]`, contribution of each query to the score.
        clusters: `[Q]`, equal for the queries of one image.
        groups: `[Q]`, equal for queries of one language and direction; the score is the mean over the groups' means.
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
        """Add a trial with its score, and the results of its queries; None: it has failed."""
        self.trials.append(trial)
        if queries is not None:
            self._queries[trial.setting] = queries

    def compute_difference(self, trial: Trial, baseline: Trial) -> Interval | None:
        """Return by how much the score of a trial is above the baseline's; None if the trial or the baseline failed.

        Both answered the same queries, so the interval is that of the paired differences, by the bootstrap of all
        queries of an image together. It leaves out the chance in training itself, because each setting is trained only
        once. But a trial that is not better even on these queries is surely not worth another rate.
        """
        if trial.setting not in self._queries or baseline.setting not in self._queries:
            return None
        queries, baseline_queries = self._queries[trial.setting], self._queries[baseline.setting]
        if queries.ids != baseline_queries.ids:
            raise ValueError("two trials answered different queries; did the validation data change meanwhile?")
        return estimate_query_difference(queries.values, baseline_queries.values, queries.clusters, queries.groups)

    def is_better(self, trial: Trial, baseline: Trial) -> bool:
        """Return whether a trial is better than a baseline by more than the interval of the difference."""
        difference = self.compute_difference(trial, baseline)
        return difference is not None and difference.low is not None and difference.low > 0

    def choose(self) -> Trial | None:
        """Return the best of the trials that are clearly better than the first one, the recipe's; None: there is none.

        The interval of the difference is above 0, and its test holds after Holm's correction: without it, one of ten
        rates that are no better than the recipe's would be chosen by chance in two searches of ten. If the recipe's
        trial failed, the best finished trial is returned.
        """
        recipe, *candidates = self.trials
        if recipe.score is None:
            return find_best(candidates)
        trials: list[Trial] = []
        differences: list[Interval] = []
        p_values: list[float] = []
        for trial in candidates:
            difference = self.compute_difference(trial, recipe)
            if difference is not None and difference.p_value is not None:
                trials.append(trial)
                differences.append(difference)
                p_values.append(difference.p_value)

        better_trials = []
        for trial, difference, p_value in zip(trials, differences, correct_p_values(p_values), strict=True):
            if p_value < 1 - CONFIDENCE_LEVEL and difference.low is not None and difference.low > 0:
                better_trials.append(trial)
        return find_best(better_trials)


def tune_rate(config: Config) -> Config:
    """Return the configuration with the rate and batch size that were best in short trials.

    The recipe's are tried first, and stay unless others are better by more than the interval of the difference: a
    trial is short, which favours high rates, and a model forgets more with a higher rate. Each trial is a run with a
    whole schedule, scored once, at its end, by the metric that chooses the best checkpoint.

    Args:
        config: configuration of the run, whose folder keeps the results.

    Raises:
        ConfigError: nothing can be scored, the scores are not of single queries, all trials have failed, or the folder
            already holds a run, something else, another process's search, or the results of another configuration.
    """
    if config.Data.val_config is None:
        raise ConfigError("--tune-rate chooses by Data.val: name it, or hold a part out (Data.holdout)")
    if any(stage.learning_rate for stage in config.Training.stages):
        raise ConfigError(
            "--tune-rate chooses Optimizer.learning_rate, which stages with a learning_rate of their own do not use: "
            "remove it from Training.stages"
        )
    path = Path(config.Training.output) / RESULTS_FILE
    if path.is_file():
        record = load_json(path)
        version = record.get("version") if isinstance(record, dict) else None
        check_version(version, VERSION, path, "remove it, and the rates are tried again")
        changed = [name for name, _ in differences(record["settings"], _list_settings(config))]
        if changed:
            raise ConfigError(
                f"{path}: rates were tried with another {join_names(changed, 3)}; remove this file, and they are tried "
                "again"
            )
        best = record["best_trial"] and Trial(*record["best_trial"])
        print(f"rates were tried before ({path})")
    else:
        # The folder is locked, because two searches would remove each other's trials.
        with lock_run_folder(path.parent):
            if list_checkpoints(path.parent):
                raise ConfigError(
                    f"{path.parent} already holds a run with its own rate: leave --tune-rate out, or choose another "
                    "-o Training.output=..."
                )
            best = _search(config, path)

    if best is None:
        print("keeps the rate and batch of the configuration: no other is better by more than its interval")
        return config
    overrides = [f"Optimizer.learning_rate={best.rate!r}", f"Training.global_batch={best.batch}"]
    if config.Tuning.base_batch:
        overrides.append("Tuning.base_batch=null")
    print(f"trains with {' '.join(f'-o {override}' for override in overrides)}")
    return apply_overrides(config, overrides)


def _search(config: Config, path: Path) -> Trial | None:
    """Run the trials, and write their results; return the best one, None if the recipe's rate stays.

    Raises:
        ConfigError: the scores are not of single queries, or all trials have failed.
    """
    samples_per_epoch = SampleStream(config).num_samples
    results = Results()
    for proposed_trial in propose_trials(config, samples_per_epoch, results.trials, results.is_better):
        trial, queries = _run_trial(config, proposed_trial, samples_per_epoch)
        results.add(trial, queries)
        print(_describe_trial(trial, results))
    if find_best(results.trials) is None:
        raise ConfigError("--tune-rate: no trial could be finished; train once without it, to see why")
    best = results.choose()
    settings = _list_settings(config)
    write_json(path, {"version": VERSION, "settings": settings, "trials": results.trials, "best_trial": best})
    return best


def _list_settings(config: Config) -> dict[str, Any]:
    """Return the settings that the choice of a rate depends on, whichever library builds the towers."""
    model = with_native_towers(config.Model)
    tree = {**config.model_dump(mode="json"), "Model": model.model_dump(mode="json")}
    for name in FREE_SETTINGS:
        section, _, key = name.partition(".")
        tree[section].pop(key, None)
    return tree


def find_best(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the best score, of equal scores the lowest rate; None if no trial was finished."""
    finished = [trial for trial in trials if trial.score is not None]
    return max(finished, key=lambda trial: (trial.score, -trial.rate), default=None)


def propose_trials(
    config: Config,
    samples_per_epoch: int,
    finished_trials: Sequence[Trial],
    is_better: Callable[[Trial, Trial], bool],
) -> Iterator[Trial]:
    """Yield the next trial: the recipe, then rates with a small batch, then the best ones with the recipe's batch.

    Args:
        config: configuration of the run.
        samples_per_epoch: samples of an epoch.
        finished_trials: the trials so far with their scores, to which the caller adds each yielded trial.
        is_better: whether a trial is better than another by more than chance.
    """
    max_batch = max(2, samples_per_epoch // 2)
    small_batch, batch = min(SMALL_BATCH, max_batch), min(config.Training.global_batch, max_batch)
    base_batch = config.Tuning.base_batch
    rate_scale = config.Training.global_batch / base_batch if base_batch else 1
    recipe = Trial(config.Optimizer.learning_rate * rate_scale, batch)
    yield recipe
    rates = sorted({*RATES, recipe.rate})
    for rate in rates:
        if (rate, small_batch) != recipe.setting:
            yield Trial(rate, small_batch)

    # A model forgets more with a higher rate: the highest must gain clearly before a still higher one is tried.
    small_trials = {trial.rate: trial for trial in finished_trials if trial.batch == small_batch}
    best = find_best(list(small_trials.values()))
    while best and best.rate == rates[-1] <= MAX_RATE / 2 and is_better(best, small_trials[rates[-2]]):
        rates.append(2 * best.rate)
        yield Trial(rates[-1], small_batch)
        small_trials = {trial.rate: trial for trial in finished_trials if trial.batch == small_batch}
        best = find_best(list(small_trials.values()))

    # The best rate and its neighbours with the recipe's batch.
    if best is None or batch == small_batch:
        return
    position = rates.index(best.rate)
    for rate in rates[max(0, position - 1) : position + 2]:
        if (rate, batch) != recipe.setting:
            yield Trial(rate, batch)


def pool_queries(outcomes: Mapping[str, Outcomes]) -> Queries:
    """Return the queries of all languages as one set; the mean of its groups' means is the mean of the languages.

    An image is one cluster, whatever the language of the texts that it is asked for, or that ask for it.
    """
    ids: list[str] = []
    clusters: list[str] = []
    groups: list[str] = []
    values: list[np.ndarray] = []
    for language, outcome in outcomes.items():
        group_numbers = outcome.groups.get(outcome.main_figure, np.zeros(len(outcome.query_ids), np.int64))
        # The queries of an image share a number in `clusters`; the query that is the image itself has its id, too.
        image_names = {}
        for number, query_id in zip(outcome.clusters, outcome.query_ids, strict=True):
            if query_id.startswith("image_to_"):
                image_names[int(number)] = query_id
        ids += [f"{language} {query_id}" for query_id in outcome.query_ids]
        clusters += [image_names.get(int(number), f"{language} {number}") for number in outcome.clusters]
        groups += [f"{language} {number}" for number in group_numbers]
        values.append(outcome.figures[outcome.main_figure])
    return Queries(
        ids,
        np.concatenate(values),
        np.unique(clusters, return_inverse=True)[1],
        np.unique(groups, return_inverse=True)[1],
    )


def _run_trial(config: Config, trial: Trial, samples_per_epoch: int) -> tuple[Trial, Queries | None]:
    """Train a trial; return it with its score, and the results of its queries, or unchanged and None if it failed."""
    num_samples = min(MAX_SAMPLES, MAX_EPOCHS * samples_per_epoch)
    steps = max(MIN_STEPS, num_samples // trial.batch)
    folder = Path(config.Training.output) / TRIAL_FOLDER
    # Not an override: YAML would read a part of some folder names only, such as those with a # after a space.
    training = config.Training.model_copy(update={"output": str(folder)})
    trial_config = apply_overrides(
        config.model_copy(update={"Training": training}),
        [
            f"Optimizer.learning_rate={trial.rate!r}",
            f"Training.global_batch={trial.batch}",
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
        make_evaluators = partial(build_evaluators, outcomes=outcomes)
        trainer = Trainer(trial_config, make_evaluators=make_evaluators, should_score_test=False)
        chooser = trainer.evaluations.chooser
        if chooser is None:
            raise ConfigError("--tune-rate compares single queries, which what scores this run does not give")
        if not trainer.fit():
            raise KeyboardInterrupt  # a signal has stopped the trial, and so stops the search
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


def _describe_trial(trial: Trial, results: Results) -> str:
    """Return a line about a trial, with its difference from the first one."""
    setting = f"rate {trial.rate:g}, batch {trial.batch}"
    if trial.score is None:
        return f"{setting}: did not finish"
    if trial is results.trials[0]:
        return f"{setting}: {trial.score:.2f}, by the configuration"
    difference = results.compute_difference(trial, results.trials[0])
    if difference is None or difference.low is None or difference.high is None:
        return f"{setting}: {trial.score:.2f}"
    interval = f"95 % interval {format_difference(difference.low)} to {format_difference(difference.high)}"
    return f"{setting}: {trial.score:.2f} ({format_difference(difference.mean)}, {interval})"
