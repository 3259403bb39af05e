"""How a run is put together: its parts, each made of those before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import paddle

from ernie_vil2.config import Config, ConfigError
from ernie_vil2.data.loader import SampleRows
from ernie_vil2.data.samples import BadSampleReport
from ernie_vil2.data.stream import SampleStream, watch
from ernie_vil2.device import runtime
from ernie_vil2.io.run_folder import list_checkpoints, owned
from ernie_vil2.models.towers import as_installed
from ernie_vil2.models.weights.initial import with_model_like
from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.agreement import agreed_errors, check_agreement, digest, first_rank_first
from ernie_vil2.parallel.norms import prepare_norms
from ernie_vil2.parallel.ranks import join_ranks
from ernie_vil2.registry import import_named
from ernie_vil2.tasks import Task
from ernie_vil2.training.checkpoint import as_begun, check_changes, find_checkpoint, load_checkpoint, mark_best, recover
from ernie_vil2.training.comparison import Comparison
from ernie_vil2.training.optimizer import (
    WeightAverage,
    build_optimizer,
    check_sharding,
    distribute,
    own_parameters,
    with_steps,
)
from ernie_vil2.training.progress import BestEffort, Progress
from ernie_vil2.training.scoring import Evaluator, Scores
from ernie_vil2.training.step_agreement import BatchGate, NonFiniteSteps, StopSignals
from ernie_vil2.training.update import Update

T = TypeVar("T")


@dataclass(kw_only=True, eq=False, repr=False)
class Parts:
    """The parts of a run on one rank, which is one of several or the only one.

    Attributes:
        config: resolved: with what `Model.like` and `Training.epochs` mean.
        owner: keeps the run folder from other processes until it is closed.
        task: what is trained, with its `model`.
        rows: make rows of a batch from the samples of the stream.
        bad_samples: that this rank could not use.
        best_effort: work whose failure ends no run.
        comparison: of the model before and after training, where there is `Data.test`.
        optimizer, scaler: what the ranks made of the optimiser and of float16's loss scaler.
        average: of the weights, with `Tuning.ema` or `Tuning.initial_share`.
        signals: what has stopped the run, if a signal has.
        gate: lets a batch through to the step.
        scores: the evaluators, and what they found best.
        step: optimiser steps done.
        position: of the next step's first sample in the stream.
    """

    config: Config
    rank: int
    ranks: int
    owner: ExitStack
    task: Task
    rows: SampleRows
    bad_samples: BadSampleReport
    best_effort: BestEffort
    progress: Progress
    comparison: Comparison | None
    optimizer: Any
    scaler: paddle.amp.GradScaler
    average: WeightAverage | None
    signals: StopSignals
    gate: BatchGate
    nonfinite: NonFiniteSteps
    scores: Scores
    update: Update
    step: int = 0
    position: int = 0

    @property
    def run(self) -> Path:
        """The run folder."""
        return Path(self.config.Training.output)

    @property
    def model(self) -> paddle.nn.Layer:
        """What is trained."""
        return self.task.model

    @property
    def stream(self) -> SampleStream:
        """The training data in the order of the run."""
        return self.rows.stream

    @property
    def evaluators(self) -> Mapping[str, Evaluator]:
        """What scores the model, by name."""
        return self.scores.evaluators


def assemble(
    config: Config,
    resume: bool,
    extend: bool,
    build_task: Callable[[Config], Task],
    build_evaluators: Callable[[Config, Task], dict[str, Evaluator]],
    compares: bool = True,
) -> Parts:
    """The parts of a new run, or of one that resumes from its newest complete checkpoint. A collective.

    Arguments and errors are those of `Trainer`.
    """
    runtime.set_device(config.Training.device)
    rank, ranks = join_ranks(config.Training.sharding == "stage1")
    with agreed_errors():
        import_named(config.names)  # those that the user wrote, before what weights say comes to them
    config = first_rank_first(lambda: with_model_like(config))
    _check(config, ranks)
    with ExitStack() as owner:
        checkpoint = _claimed(config, resume, rank, owner)
        with agreed_errors():
            if checkpoint:
                config = as_begun(config, checkpoint)
            else:
                config = config.model_copy(update={"Model": as_installed(config.Model)})
            task = build_task(config)
            rows = task.rows()
        config = with_steps(config, rows.stream.samples)

        best_effort, bad_samples = BestEffort(), BadSampleReport(config.Data.max_bad_share)
        progress = Progress(config, rank, ranks, bad_samples, best_effort)
        lost = None if checkpoint is None else best_effort
        evaluators = _scored(lambda: build_evaluators(config, task), lost, rank) or {}
        comparison = _scored(lambda: Comparison(config, task), lost, rank) if compares and config.Data.tested else None
        if ranks > 1:
            check_agreement(_facts(config, rows.stream, evaluators, checkpoint))
        scoring: list[Evaluator | Comparison] = [*evaluators.values(), *([comparison] if comparison else [])]
        with agreed_errors():
            progress.say(watch(rows.stream, [benchmark for each in scoring for benchmark in each.benchmarks]))

        tuning = config.Tuning
        if checkpoint and not tuning.initial_share:
            with agreed_errors():
                _build(task, config, progress, initialize=False)
        else:
            first_rank_first(lambda: _build(task, config, progress, initialize=True))
        adamw = build_optimizer(task.model, task.parameter_groups(), config.Optimizer)
        scaler = paddle.amp.GradScaler(enable=config.Training.precision == "float16")
        parallel, optimizer, scaler = distribute(task.model, adamw, scaler, config.Training.sharding)
        averages = tuning.ema is not None or tuning.initial_share
        average = WeightAverage(task.model, tuning.ema or 0.0, tuning.initial_share) if averages else None
        signals = StopSignals()
        nonfinite = NonFiniteSteps(Path(config.Training.output), config.Training.nonfinite == "skip")
        parts = Parts(
            config=config,
            rank=rank,
            ranks=ranks,
            owner=owner,
            task=task,
            rows=rows,
            bad_samples=bad_samples,
            best_effort=best_effort,
            progress=progress,
            comparison=comparison,
            optimizer=optimizer,
            scaler=scaler,
            average=average,
            signals=signals,
            gate=BatchGate(ranks, signals),
            nonfinite=nonfinite,
            scores=Scores(evaluators, config),
            update=Update(task, parallel, adamw, optimizer, scaler, average, nonfinite, config),
        )
        if checkpoint:
            with agreed_errors():
                _continue_from(checkpoint, parts, extend)
        progress.say(prepare_norms(task.model, ranks, config.Training))
        task.prepare(parallel, scaler)
        parts.owner = owner.pop_all()  # it stays the owner; what fails before here leaves the folder to others
    return parts


def _check(config: Config, ranks: int) -> None:
    """ValueError, or ConfigError, if this device or so many ranks cannot train so."""
    if config.Training.global_batch % ranks:
        raise ConfigError(
            f"Training.global_batch ({config.Training.global_batch}) must be divisible by the {ranks} ranks"
        )
    runtime.check_precision(config.Training.precision)
    check_sharding(config.Training.sharding, ranks)


def _claimed(config: Config, resume: bool, rank: int, owner: ExitStack) -> Path | None:
    """Makes rank 0 the owner of the run folder. A collective.

    Returns:
        The checkpoint to go on from, None at the beginning of a run.
    """
    run, checkpoint = Path(config.Training.output), None
    with agreed_errors():
        if rank == 0:
            owner.enter_context(owned(run))
            if list_checkpoints(run) and not resume:
                raise ConfigError(
                    f"{run} already holds a run; continue with --resume or choose another -o Training.output=..."
                )
            checkpoint = recover(run)
    return collectives.all_gather_object(checkpoint)[0]


def _scored(build: Callable[[], T], lost: BestEffort | None, rank: int) -> T | None:
    """What is built on data that are scored. A collective.

    Args:
        lost: of a resumed run, which goes on without these data if they are gone.
    """
    try:
        with agreed_errors():
            return build()
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        if lost is None:
            raise
        if rank == 0:
            lost.failed("validation data", str(error))
        return None


def _facts(
    config: Config, stream: SampleStream, evaluators: Mapping[str, Evaluator], checkpoint: Path | None
) -> dict[str, Any]:
    """What the ranks of a run must have in common."""
    here = runtime.environment()
    return {
        **config.model_dump(),
        "training data": dict(zip(stream.names, stream.state(0)["sources"], strict=True)),
        "digest of the first samples": digest(stream),
        "scored data": {name: dict(evaluator.data) for name, evaluator in evaluators.items()},
        "checkpoint": checkpoint.name if checkpoint and checkpoint.is_dir() else None,
        "git revision": here["git"],
        "versions": here["versions"],
    }


def _build(task: Task, config: Config, progress: Progress, initialize: bool) -> None:
    paddle.seed(config.Training.seed)
    progress.say(task.build(initialize))


def _continue_from(checkpoint: Path, parts: Parts, extend: bool) -> None:
    """Sets the parts to where a checkpoint was saved."""
    check_changes(checkpoint, parts.config, extend)
    trained = [parameter for parameter in parts.model.parameters() if not parameter.stop_gradient]
    own = {each.name for each in own_parameters(parts.optimizer, trained, parts.config.Training.sharding)}
    state = load_checkpoint(checkpoint, parts.model, parts.optimizer, parts.average, own)
    parts.stream.check(state["data"])
    parts.step, parts.position, best = state["step"], state["data"]["place"], state["best"]
    best = best if best and find_checkpoint(parts.run, best["step"]) else None
    parts.scores.resume(state["evaluated"], best)
    if state["scaler"]:
        parts.scaler.load_state_dict(state["scaler"])
    parts.nonfinite.skipped, parts.nonfinite.in_a_row = state.get("skipped_steps", (0, 0))
    if parts.rank == 0:
        parts.bad_samples.merge(state["bad_samples"])
        mark_best(parts.run, parts.scores.best_step)
