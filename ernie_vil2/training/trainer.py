"""The training run: how its parts are made, each of those before it, and the loop."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import paddle

from ernie_vil2.config import Config, ConfigError
from ernie_vil2.data.loader import Batch, training_batches
from ernie_vil2.data.samples import BadSampleReport, TooManyBadSamples
from ernie_vil2.data.stream import SampleStream, watch
from ernie_vil2.device import runtime
from ernie_vil2.io.run_folder import Best, State, checkpoint_folder, list_checkpoints, owned
from ernie_vil2.models import DualEncoder
from ernie_vil2.models.towers import as_installed
from ernie_vil2.models.weights.contract import golden
from ernie_vil2.models.weights.initial import with_model_like
from ernie_vil2.parallel import average_statistics, collectives
from ernie_vil2.parallel.collectives import agreed_errors, check_agreement, digest, first_rank_first
from ernie_vil2.parallel.norms import prepare_norms
from ernie_vil2.parallel.ranks import join_ranks, watched_ranks
from ernie_vil2.registry import import_named
from ernie_vil2.tasks import Task, build_task
from ernie_vil2.training.checkpoint import (
    Checkpoint,
    as_begun,
    check_changes,
    keep_only,
    load_checkpoint,
    mark_best,
    note_evaluation,
    recover,
    save_checkpoint,
)
from ernie_vil2.training.optimizer import (
    WeightAverage,
    build_optimizer,
    check_sharding,
    distribute,
    learning_rate,
    optimizer_arrays,
    own_parameters,
    scaler_state,
    with_steps,
)
from ernie_vil2.training.run_log import BestEffort, Progress
from ernie_vil2.training.scoring import Comparison, Evaluator, Scores, as_lines, build_evaluators, encoder_of
from ernie_vil2.training.step_agreement import BatchGate, NonFiniteSteps, StopSignals, check_weights
from ernie_vil2.training.update import Update

T = TypeVar("T")


class Trainer:
    """One training run, on one process or as one of several ranks.

    A new run, or one that resumes from its newest complete checkpoint. Making it is a collective.

    Args:
        config: the whole configuration.
        resume: go on from the run folder's newest whole checkpoint, or start if there is none.
        extend: with `resume`, whether `Training.steps` may be more than the run's, see `check_changes`.
        compares: whether `Data.test` is scored before and after.
        task, evaluators: make what is trained, and what scores it by name; by default what the configuration names.

    Attributes:
        config: resolved: with what `Model.like` and `Training.epochs` mean.
        run: its folder, which `owner` keeps from other processes until it is closed.
        optimizer, scaler: what the ranks made of the optimiser and of float16's loss scaler.
        signals: what has stopped the run, if a signal has.
        step: optimiser steps done.
        position: of the next step's first sample in `stream`.

    Raises:
        ConfigError: ranks that do not divide the batch, a precision or sharding that this device lacks, a folder that
            another process trains into, that holds a run and `resume` is not set, or that holds something else, or a
            configuration that differs from the run's own.
        DamagedCheckpoint: there are checkpoints and none is whole.
    """

    def __init__(
        self,
        config: Config,
        resume: bool = False,
        extend: bool = False,
        task: Callable[[Config], Task] = build_task,
        evaluators: Callable[[Config, Task], dict[str, Evaluator]] = build_evaluators,
        compares: bool = True,
    ):
        runtime.set_device(config.Training.device)
        self.rank, self.ranks = join_ranks(config.Training.sharding == "stage1")
        with agreed_errors():
            import_named(config.names)  # those that the user wrote, before what weights say comes to them
        config = first_rank_first(lambda: with_model_like(config))
        if config.Training.global_batch % self.ranks:
            raise ConfigError(
                f"Training.global_batch ({config.Training.global_batch}) must be divisible by the {self.ranks} ranks"
            )
        runtime.check_precision(config.Training.precision)
        check_sharding(config.Training.sharding, self.ranks)
        with ExitStack() as owner:
            checkpoint = _claimed(config, resume, self.rank, owner)
            with agreed_errors():
                if checkpoint:
                    config = as_begun(config, checkpoint)
                else:
                    config = config.model_copy(update={"Model": as_installed(config.Model)})
                self.task = task(config)
                self.rows = self.task.rows()
            self.stream = self.rows.stream
            self.config, self.run = with_steps(config, self.stream.samples), Path(config.Training.output)

            self.best_effort, self.bad_samples = BestEffort(), BadSampleReport(config.Data.max_bad_share)
            self.progress = Progress(self.config, self.rank, self.bad_samples, self.best_effort)
            lost = None if checkpoint is None else self.best_effort
            scored = _scored(lambda: evaluators(self.config, self.task), lost, self.rank) or {}
            compares = compares and bool(config.Data.tested)
            self.comparison = _scored(lambda: Comparison(self.config, self.task), lost, self.rank) if compares else None
            if self.ranks > 1:
                check_agreement(_facts(self.config, self.stream, scored, checkpoint))
            scoring: list[Evaluator | Comparison] = [*scored.values(), *([self.comparison] if self.comparison else [])]
            with agreed_errors():
                self.progress.say(watch(self.stream, [benchmark for each in scoring for benchmark in each.benchmarks]))
            self.scores = Scores(scored, self.config)

            parallel = self._build(resumed=checkpoint is not None)
            self.step, self.position = 0, 0
            if checkpoint:
                with agreed_errors():
                    self._continue_from(checkpoint, extend)
            self.progress.say(config.Data.unscored)
            self.progress.say(prepare_norms(self.model, self.ranks, config.Training))
            self.task.prepare(parallel, self.scaler)
            self.owner = owner.pop_all()  # it stays the owner; what fails before here leaves the folder to others

    def _build(self, resumed: bool) -> paddle.nn.Layer:
        """Makes the model and what updates it; gives what data parallel made of the model. A collective."""
        config, task, tuning = self.config, self.task, self.config.Tuning

        def build(initialize: bool) -> None:
            paddle.seed(config.Training.seed)
            self.progress.say(task.build(initialize))

        if resumed and not tuning.initial_share:
            with agreed_errors():
                build(initialize=False)
        else:
            first_rank_first(lambda: build(initialize=True))
        self.model = task.model
        adamw = build_optimizer(task.model, task.parameter_groups(), config.Optimizer)
        scaler = paddle.amp.GradScaler(enable=config.Training.precision == "float16")
        parallel, self.optimizer, self.scaler = distribute(task.model, adamw, scaler, config.Training.sharding)
        averages = tuning.ema is not None or tuning.initial_share
        self.average = WeightAverage(task.model, tuning.ema or 0.0, tuning.initial_share) if averages else None
        self.signals = StopSignals()
        self.gate = BatchGate(self.ranks, self.signals)
        self.nonfinite = NonFiniteSteps(
            self.run, config.Training.nonfinite == "skip", config.Training.max_skipped_share
        )
        self.update = Update(task, parallel, adamw, self.optimizer, self.scaler, self.average, self.nonfinite, config)
        return parallel

    def _continue_from(self, checkpoint: Path, extend: bool) -> None:
        """Goes to where a checkpoint was saved."""
        check_changes(checkpoint, self.config, extend)
        trained = [parameter for parameter in self.model.parameters() if not parameter.stop_gradient]
        own = {each.name for each in own_parameters(self.optimizer, trained, self.config.Training.sharding)}
        state = load_checkpoint(checkpoint, self.model, self.optimizer, self.average, own)
        self.stream.check(data := state["data"])
        self.position, self.step, best = data["position"], state["step"], state["best"]
        kept = best and checkpoint_folder(self.run, best["step"]).is_dir()
        self.scores.resume(state["evaluated"], best if kept else None)
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.nonfinite.resume(*state["skipped_steps"])
        if self.rank == 0:
            self.bad_samples.merge(state["bad_samples"])
            mark_best(self.run, self.scores.best_step)

    @property
    def best(self) -> Best | None:
        """Step, metric and value of the best evaluation whose checkpoint is kept, None before the first."""
        return self.scores.best

    def fit(self) -> bool:
        """Trains up to `Training.steps`, with evaluation, log and checkpoints on the way.

        Returns:
            True when the run is finished, False when SIGINT or SIGTERM stopped it; then its checkpoint is saved, and
            `signals.agreed` says which.

        Raises:
            NotFinite: a loss, a gradient or a weight is NaN or infinite, see `Training.nonfinite`; or more steps were
                left out for it than `Training.max_skipped_share` allows.
            TooManyBadSamples: see `Data.max_bad_share` and `BatchGate`.
            FailedRank: another rank has raised one of these errors, or any other.
            LostRank: another rank has died or is stuck.
            FullDisk: there is no room for a checkpoint.
        """
        with self.owner, self.signals, watched_ranks(), runtime.flushed_denormals():
            began = self.step
            compared = self.comparison if self.rank == 0 else None
            if compared and began == 0:
                with self.best_effort.attempt("Data.test, before"):
                    print(compared.before(self.model))
            finished = self._train()
            if compared and finished and (self.step > began or compared.lacks_after):
                with self.best_effort.attempt("Data.test, after"):
                    print(compared.after(self.scores.best_step or self.step))
            return finished

    def _train(self) -> bool:
        if self._finished():
            self.nonfinite.check_share(self.step)
            return True
        if self.rank == 0 and paddle.get_device() == "cpu":
            print(runtime.summary())
        with self.progress.shown(self.step, self.scores.evaluated):
            if self.scores.due(self.step):  # at the start, or the run was stopped where it would have been evaluated
                with self.progress.meter.paused():
                    self._evaluate(saved=self.step > 0)
                    self.progress.write_reports()
            for batch in self._batches():
                rate = learning_rate(self.step, self.config)
                self._train_step(batch, rate)
                losses = self.update.settled() if self.progress.due(self.step) else self.update.losses
                self.progress.step(self.step, losses, rate, self._state)
                self._save_and_evaluate()
        settled = f"no better evaluation since step {self.scores.best_step}: ended by Tuning.patience"
        self.progress.end(settled if self.scores.settled else None, self.nonfinite.skipped)
        if finished := self._finished():
            self.nonfinite.check_share(self.step)
        return finished

    def _finished(self) -> bool:
        return (self.step >= self.config.Training.steps or self.scores.settled) and not self.scores.due(self.step)

    def _batches(self) -> Iterator[Batch]:
        """The batches of the steps, up to the last or until the run is stopped."""
        training = self.config.Training
        batches = training_batches(self.rows, self.config, self.position, self.rank, self.ranks)
        while self.step < training.steps and not self.signals.agreed and not self.scores.settled:
            batch = self._next(batches)
            self.position += training.global_batch
            if batch is not None:
                yield batch

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        """The next batch, its bad samples counted; None if a rank has too few others for a step. A collective."""
        batch, error = None, None
        try:
            with self.progress.meter.waiting():
                batch = next(batches)
            self.bad_samples.add(batch["rows"], batch["bad"], batch["remarks"])
        except Exception as raised:
            error = raised
        try:
            usable = self.gate.lets_through(len(batch["names"]) if batch else 0, self.task.least_rows, error)
        except TooManyBadSamples:
            with self.best_effort.attempt("report of bad samples"):
                self.bad_samples.write(self.run)
            raise
        return batch if usable else None

    def _state(self) -> dict[str, Any]:
        """Of model, steps and data, for the log."""
        epochs = dict(zip(self.stream.names, self.stream.epochs(self.position), strict=True))
        return {**self.task.logged(), "skipped_steps": self.nonfinite.skipped, "epochs": epochs}

    def _save_and_evaluate(self) -> None:
        """What is due after a step: its checkpoint first, as an evaluation may take the process with it."""
        training, due = self.config.Training, self.scores.due(self.step)
        if due and not self.signals.agreed:
            self.gate.agree_to_stop()  # before what may take long
        save = self.step == training.steps or self.signals.agreed or self.step % training.checkpoint_every == 0
        if save:
            self._save()
        evaluate = due and not self.signals.agreed
        if evaluate:
            with self.progress.meter.paused():
                self._evaluate(saved=bool(save))
        if self.scores.settled and not save:
            self._save()
        if save or evaluate:
            self.progress.write_reports()

    def _train_step(self, batch: Batch, rate: float) -> None:
        self.update(batch, self.step, rate)
        self.step += 1

    def _save(self) -> None:
        self.update.settled()
        bad_samples = self.progress.joined_bad_samples()
        average_statistics(self.model)
        check_weights(self.model, self.step)
        optimizer = optimizer_arrays(self.optimizer, self.model)
        if self.average and self.rank == 0:
            optimizer |= self.average.raw()
        state: State = {
            "step": self.step,
            "seed": self.config.Training.seed,
            "ranks": self.ranks,
            "scaler": scaler_state(self.scaler),
            "bad_samples": bad_samples.as_dict(),
            "skipped_steps": [self.nonfinite.skipped, self.nonfinite.in_a_row],
            "data": self.stream.state(self.position),
            "evaluated": self.scores.evaluated,
            "best": self.best,
        }
        with self._scored_weights(), agreed_errors():
            if self.rank == 0:
                made = self._golden()
                save_checkpoint(
                    self.run, Checkpoint(state, self.model, optimizer, self.config, self.task.tokenizer, made)
                )

    def _golden(self) -> dict[str, Any] | None:
        """What the model as it is computes in float32, of a few inputs and without a collective. None: it embeds
        nothing, or failed to, which costs no checkpoint."""
        if isinstance(self.model, DualEncoder):
            with self.best_effort.attempt("golden embeddings"):
                return golden(encoder_of(self.model, self.task.tokenizer, self.config, "float32"))
        return None

    @contextmanager
    def _scored_weights(self) -> Iterator[None]:
        """Within the block the model is what is scored and saved: its average, where there is one. A collective."""
        if self.average is None:
            yield
            return
        with self.average.in_place():
            average_statistics(self.model)
            yield

    def _evaluate(self, saved: bool) -> None:
        """Scores the model, and keeps the checkpoint of the best step. A collective.

        Args:
            saved: whether this step has its checkpoint.
        """
        self.update.settled()
        average_statistics(self.model)
        with self._scored_weights():
            found = self.scores.score(self.model, self.step)
        self.progress.evaluation(self.step, self.scores.records(found), as_lines(found))
        failures = {what: why for metrics in found.values() for what, why in metrics.failures.items()}
        if self.rank == 0:
            for what, why in failures.items():
                self.best_effort.failed(f"evaluation on {what}", why)
        if self.scores.improved(found) and not saved:
            self._save()
        elif saved and not failures and self.rank == 0:
            with self.best_effort.attempt("note of the evaluation"):
                note_evaluation(self.run, self.step, self.best)
                keep_only(self.run, self.config.Training.keep_checkpoints, self.scores.best_step)


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
