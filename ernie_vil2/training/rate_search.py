"""A few learning rates and batches tried on the data at hand, each for a short time: `train --tune-rate`."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ernie_vil2.config import Config, ConfigError, with_overrides
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.io.files import load_json, write_json
from ernie_vil2.training.step_agreement import NotFinite
from ernie_vil2.training.trainer import Trainer

RATES = (2e-5, 5e-5, 1e-4, 2e-4, 4e-4, 1e-3)
HIGHEST = 8e-3
"""Up to which the rate is doubled while the highest one is the best."""
SMALL_BATCH = 64
SAMPLES = 4096
"""That a trial sees at most."""
EPOCHS, FEWEST_STEPS = 5, 4
KEPT, TRIALS = ".rate_search.json", ".rate_search"
"""In the run folder: what was found, and the trials while they run."""


class Trial(NamedTuple):
    """A rate and a batch, and what the validation data scored after them; None: the trial failed."""

    rate: float
    batch: int
    score: float | None = None


def tune_rate(config: Config) -> Config:
    """The configuration with the rate and batch that were best in short trials, which are kept in the run folder.

    Six rates are tried with a small batch, and higher ones while the highest is the best; then the best and its
    neighbours with the configured batch. Each trial is a run of its own with a whole schedule, scored once, at its end,
    by what chooses the best checkpoint. Of equal scores the lower rate counts.

    Raises:
        ConfigError: there is nothing to score by, or no trial could be finished.
    """
    if config.Data.validation is None:
        raise ConfigError("--tune-rate chooses by Data.val: name it, or hold a part out (Data.holdout)")
    kept = Path(config.Training.output) / KEPT
    if kept.is_file():
        found = [Trial(*trial) for trial in load_json(kept)["trials"]]
        print(f"rates were tried before ({kept})")
    else:
        samples = SampleStream(config).samples
        found = []
        for trial in _trials(config, samples, found):
            score = _score(config, trial, samples)
            found.append(trial._replace(score=score))
            shown = "did not finish" if score is None else f"{score:.2f}"
            print(f"rate {trial.rate:g}, batch {trial.batch}: {shown}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, {"trials": found})
    best = best_of(found)
    if best is None:
        raise ConfigError("--tune-rate: no trial could be finished; train once without it, to see why")
    overrides = [f"Optimizer.learning_rate={best.rate!r}", f"Training.global_batch={best.batch}"]
    if config.Tuning.base_batch:
        overrides.append("Tuning.base_batch=null")
    if config.Training.micro_batch and config.Training.micro_batch >= best.batch:
        overrides.append("Training.micro_batch=null")
    print(f"trains with {' '.join(f'-o {one}' for one in overrides)}")
    return with_overrides(config, overrides)


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The trial of the best score, of equal ones that of the lowest rate; None if none was finished."""
    finished = [trial for trial in trials if trial.score is not None]
    return max(finished, key=lambda trial: (trial.score, -trial.rate), default=None)


def _trials(config: Config, samples: int, found: Sequence[Trial]) -> Iterator[Trial]:
    """What is tried next, from what was found so far."""
    small = min(SMALL_BATCH, max(2, samples // 2))
    rates = list(RATES)
    yield from (Trial(rate, small) for rate in rates)
    while (best := best_of(found)) and best.rate == rates[-1] < HIGHEST:
        rates.append(2 * best.rate)
        yield Trial(rates[-1], small)
    batch = min(config.Training.global_batch, max(2, samples // 2))
    if best is None or batch == small:
        return
    number = rates.index(best.rate)
    for rate in rates[max(0, number - 1) : number + 2]:
        yield Trial(rate, batch)


def _score(config: Config, trial: Trial, samples: int) -> float | None:
    seen = min(SAMPLES, EPOCHS * samples)
    steps = max(FEWEST_STEPS, seen // trial.batch)
    folder = Path(config.Training.output) / TRIALS
    micro = config.Training.micro_batch
    short = with_overrides(
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
    shutil.rmtree(folder, ignore_errors=True)
    try:
        trainer = Trainer(short, compares=False)
        if not trainer.fit():
            raise KeyboardInterrupt
        return trainer.best and trainer.best["value"]
    except NotFinite:
        return None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
