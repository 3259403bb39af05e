"""The training run: how its parts are made, each from those before it, and the loop."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import paddle

from ernie_vil2.config import Config, ConfigError
from ernie_vil2.config.sections import as_installed
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.loader import Batch, SampleRows, load_batches
from ernie_vil2.data.samples import BadSampleReport, TooManyBadSamples
from ernie_vil2.data.stream import SampleStream, watch_for_leaks
from ernie_vil2.device import runtime
from ernie_vil2.io.run_folder import Best, State, checkpoint_folder, list_checkpoints, owned
from ernie_vil2.models import DualEncoder
from ernie_vil2.models.weights.initial import resolve_model_like
from ernie_vil2.models.weights.integrity import compute_golden
from ernie_vil2.parallel import average_statistics, collectives
from ernie_vil2.parallel.collectives import check_agreement, errors_on_all_ranks, hash_samples, run_on_first_rank_first
from ernie_vil2.parallel.norms import prepare_norms
from ernie_vil2.parallel.ranks import join_ranks, watch_ranks
from ernie_vil2.registry import import_user_modules
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
    compute_learning_rate,
    distribute,
    gather_optimizer_state,
    get_local_parameters,
    get_scaler_state,
    resolve_steps,
)
from ernie_vil2.training.run_log import BestEffort, Progress
from ernie_vil2.training.scoring import Comparison, Evaluator, Scores, as_lines, build_evaluators, encoder_of
from ernie_vil2.training.update import BatchGate, NonFiniteSteps, StopSignals, Update, check_weights

T = TypeVar("T")
MakeTask = Callable[[Config], Task]
MakeEvaluators = Callable[[Config, Task], dict[str, Evaluator]]


class Trainer:
    """One training run, on one process or as one of several ranks: `assemble` makes its parts, `fit` trains.

    A new run, or one that resumes from its newest complete checkpoint. Making it is a collective.

    Args:
        config: the whole configuration.
        resume: continue from the newest complete checkpoint of the run folder, or start if there is none.
        extend: with `resume`, whether `Training.steps` may be more than the run's, see `check_changes`.
        task, evaluators: make what is trained, and what scores it by name; by default what the configuration names.
        compares: whether `Data.test` is scored before and after.

    Attributes:
        config: resolved: with what `Model.like` and `Training.epochs` mean.
        run: the run folder, which `owner` keeps from other processes until it is closed.
        optimizer, scaler: the optimiser and float16's loss scaler, as the ranks share them.
        signals: the requests to stop; says which signal has stopped the run, if one has.
        step: optimiser steps done.
        position: position in `stream` of the first sample of the next step.

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
        task: MakeTask = build_task,
        evaluators: MakeEvaluators = build_evaluators,
        compares: bool = True,
    ):
        with ExitStack() as owner:
            self.assemble(config, resume, extend, task, evaluators, compares, owner)
            self.owner = owner.pop_all()  # it stays the owner; what fails before here leaves the folder to others

    def assemble(
        self, config: Config, resume: bool, extend: bool, task: MakeTask, evaluators: MakeEvaluators, compares: bool,
        owner: ExitStack
    ) -> None:  # fmt: skip
        """Make the parts of the run, each from those before it. A collective.

        Args:
            config, resume, extend, task, evaluators, compares: as for the class.
            owner: gets the ownership of the run folder.
        """
        self.rank, self.ranks = _join_ranks(config)
        config = _resolve_names(config)
        _check_ranks_and_device(config, self.ranks)

        # The folder is owned before anything in it is read or repaired.
        checkpoint = _claim_run_folder(config, resume, self.rank, owner)
        resumed = checkpoint is not None
        self.config, self.task, self.rows = _open_training_data(config, checkpoint, task)
        self.stream, self.run = self.rows.stream, Path(config.Training.output)

        self.best_effort, self.bad_samples = BestEffort(), BadSampleReport(config.Data.max_bad_share)
        self.progress = Progress(self.config, self.rank, self.bad_samples, self.best_effort)
        self.scores, self.comparison = self._open_scored_data(evaluators, compares, resumed)
        if self.ranks > 1:
            check_agreement(_collect_facts(self.config, self.stream, self.scores.evaluators, checkpoint))
        self._watch_for_scored_images()

        self.model = self._build_model(resumed)
        parallel = self._build_update()
        self.step, self.position = 0, 0
        if checkpoint:
            with errors_on_all_ranks():
                self._resume_from(checkpoint, extend)
        self.progress.say(config.Data.unscored)

        # Last, on the model that the first step sees: norms are exchanged, and the task keeps what it finds.
        self.progress.say(prepare_norms(self.model, self.ranks, config.Training))
        self.task.prepare(parallel, self.scaler)

    def _open_scored_data(
        self, make_evaluators: MakeEvaluators, compares: bool, resumed: bool
    ) -> tuple[Scores, Comparison | None]:
        """Open what evaluators score, and `Data.test`. A collective.

        A resumed run continues without these data if they are gone.
        """
        best_effort = self.best_effort if resumed else None
        evaluators = _open_on_all_ranks(lambda: make_evaluators(self.config, self.task), best_effort, self.rank)
        comparison = None
        if compares and self.config.Data.tested:
            comparison = _open_on_all_ranks(lambda: Comparison(self.config, self.task), best_effort, self.rank)
        return Scores(evaluators or {}, self.config), comparison

    def _watch_for_scored_images(self) -> None:
        """Look for the images of scored benchmarks in the training data, and say what was found. A collective."""
        benchmarks: list[Benchmark] = []
        for evaluator in self.scores.evaluators.values():
            benchmarks += evaluator.benchmarks
        if self.comparison:
            benchmarks += self.comparison.benchmarks
        with errors_on_all_ranks():
            self.progress.say(watch_for_leaks(self.stream, benchmarks))

    def _build_model(self, resumed: bool) -> DualEncoder:
        """Return the task's model, with its initial weights if it needs them. A collective."""

        def build(initialize: bool) -> None:
            paddle.seed(self.config.Training.seed)
            self.progress.say(self.task.build(initialize))

        # A resumed run that mixes in a share of the initial weights needs them again.
        if resumed and not self.config.Tuning.initial_share:
            with errors_on_all_ranks():
                build(initialize=False)
        else:
            run_on_first_rank_first(lambda: build(initialize=True))
        return self.task.model

    def _build_update(self) -> paddle.nn.Layer:
        """Make what updates the model and guards its steps; return the data-parallel model. A collective."""
        training, tuning = self.config.Training, self.config.Tuning
        adamw = build_optimizer(self.model, self.task.parameter_groups(), self.config.Optimizer)
        scaler = paddle.amp.GradScaler(enable=training.precision == "float16")
        parallel, self.optimizer, self.scaler = distribute(self.model, adamw, scaler, training.sharding)
        self.average: WeightAverage | None = None
        if tuning.ema is not None or tuning.initial_share:
            self.average = WeightAverage(self.model, tuning.ema or 0.0, tuning.initial_share)
        self.signals = StopSignals()
        self.gate = BatchGate(self.ranks, self.signals)
        self.nonfinite = NonFiniteSteps(self.run, training.nonfinite == "skip", training.max_skipped_share)
        self.update = Update(
            self.task, parallel, adamw, self.optimizer, self.scaler, self.average, self.nonfinite, self.config
        )
        return parallel

    def _resume_from(self, checkpoint: Path, extend: bool) -> None:
        """Restore the state of the run from a checkpoint."""
        check_changes(checkpoint, self.config, extend)
        trained = [parameter for parameter in self.model.parameters() if not parameter.stop_gradient]
        local_parameters = get_local_parameters(self.optimizer, trained, self.config.Training.sharding)
        local_names = {parameter.name for parameter in local_parameters}
        state = load_checkpoint(checkpoint, self.model, self.optimizer, self.average, local_names)

        self.stream.check_state(state["data"])
        self.position, self.step, best = state["data"]["position"], state["step"], state["best"]
        if best and not checkpoint_folder(self.run, best["step"]).is_dir():
            best = None
        self.scores.resume(state["evaluated"], best)
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
            `signals.stop_signal` says which.

        Raises:
            NotFinite: a loss, a gradient or a weight is NaN or infinite, see `Training.nonfinite`; or more steps were
                left out for it than `Training.max_skipped_share` allows.
            TooManyBadSamples: see `Data.max_bad_share` and `BatchGate`.
            FailedRank: another rank has raised one of these errors, or any other.
            LostRank: another rank has died or is stuck.
            FullDisk: there is no room for a checkpoint.
        """
        with self.owner, self.signals, watch_ranks(), runtime.flushed_denormals():
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
                rate = compute_learning_rate(self.step, self.config)
                self._train_step(batch, rate)
                losses = self.update.finish_pending() if self.progress.due(self.step) else self.update.losses
                self.progress.step(self.step, losses, rate, self._state)
                self._save_and_evaluate()
        settled = f"no better evaluation since step {self.scores.best_step}: ended by Tuning.patience"
        self.progress.end(settled if self.scores.settled else None, self.nonfinite.num_skipped)
        if finished := self._finished():
            self.nonfinite.check_share(self.step)
        return finished

    def _finished(self) -> bool:
        return (self.step >= self.config.Training.steps or self.scores.settled) and not self.scores.due(self.step)

    def _batches(self) -> Iterator[Batch]:
        """The batches of the steps, up to the last or until the run is stopped."""
        training = self.config.Training
        batches = load_batches(self.rows, self.config, self.position, self.rank, self.ranks)
        while self.step < training.steps and not self.signals.stop_signal and not self.scores.settled:
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
            usable = self.gate.admit_batch(len(batch["names"]) if batch else 0, self.task.min_rows, error)
        except TooManyBadSamples:
            with self.best_effort.attempt("report of bad samples"):
                self.bad_samples.write(self.run)
            raise
        return batch if usable else None

    def _state(self) -> dict[str, Any]:
        """Of model, steps and data, for the log."""
        epochs = dict(zip(self.stream.names, self.stream.epochs(self.position), strict=True))
        return {**self.task.get_log_values(), "skipped_steps": self.nonfinite.num_skipped, "epochs": epochs}

    def _save_and_evaluate(self) -> None:
        """What is due after a step: its checkpoint first, as an evaluation may take the process with it."""
        training, due = self.config.Training, self.scores.due(self.step)
        if due and not self.signals.stop_signal:
            self.gate.agree_to_stop()  # before what may take long
        save = self.step == training.steps or self.signals.stop_signal or self.step % training.checkpoint_every == 0
        if save:
            self._save()
        evaluate = due and not self.signals.stop_signal
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
        self.update.finish_pending()
        bad_samples = self.progress.joined_bad_samples()
        average_statistics(self.model)
        check_weights(self.model, self.step)
        optimizer = gather_optimizer_state(self.optimizer, self.model)
        if self.average and self.rank == 0:
            optimizer |= self.average.get_raw_weights()
        state: State = {
            "step": self.step,
            "seed": self.config.Training.seed,
            "ranks": self.ranks,
            "scaler": get_scaler_state(self.scaler),
            "bad_samples": bad_samples.as_dict(),
            "skipped_steps": [self.nonfinite.num_skipped, self.nonfinite.num_in_a_row],
            "data": self.stream.state(self.position),
            "evaluated": self.scores.evaluated,
            "best": self.best,
        }
        with self._scored_weights(), errors_on_all_ranks():
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
                return compute_golden(encoder_of(self.model, self.task.tokenizer, self.config, "float32"))
        return None

    @contextmanager
    def _scored_weights(self) -> Iterator[None]:
        """Within the block the model is what is scored and saved: its average, where there is one. A collective."""
        if self.average is None:
            yield
            return
        with self.average.use_averages():
            average_statistics(self.model)
            yield

    def _evaluate(self, saved: bool) -> None:
        """Scores the model, and keeps the checkpoint of the best step. A collective.

        Args:
            saved: whether this step has its checkpoint.
        """
        self.update.finish_pending()
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


def _join_ranks(config: Config) -> tuple[int, int]:
    """Set the device, and join the ranks; return this process's rank and the number of ranks. A collective."""
    runtime.set_device(config.Training.device)
    return join_ranks(sharded_optimizer=config.Training.sharding == "stage1")


def _resolve_names(config: Config) -> Config:
    """Import the parts that the configuration names, and resolve `Model.like`. A collective."""
    # Before the names that come with weights are read: only those that the user wrote are imported.
    with errors_on_all_ranks():
        import_user_modules(config.names)
    return run_on_first_rank_first(lambda: resolve_model_like(config))


def _check_ranks_and_device(config: Config, ranks: int) -> None:
    """Raise ConfigError if so many ranks of this device cannot run the configuration."""
    training = config.Training
    if training.global_batch % ranks:
        raise ConfigError(f"Training.global_batch ({training.global_batch}) must be divisible by the {ranks} ranks")
    runtime.check_precision(training.precision)
    check_sharding(training.sharding, ranks)


def _claim_run_folder(config: Config, resume: bool, rank: int, owner: ExitStack) -> Path | None:
    """Make rank 0 the owner of the run folder. A collective.

    Returns:
        The checkpoint to continue from, None at the beginning of a run.
    """
    run, checkpoint = Path(config.Training.output), None
    with errors_on_all_ranks():
        if rank == 0:
            owner.enter_context(owned(run))
            if list_checkpoints(run) and not resume:
                raise ConfigError(
                    f"{run} already holds a run; continue with --resume or choose another -o Training.output=..."
                )
            checkpoint = recover(run)
    return collectives.all_gather_object(checkpoint)[0]


def _open_training_data(
    config: Config, checkpoint: Path | None, make_task: MakeTask
) -> tuple[Config, Task, SampleRows]:
    """Return the configuration with its final towers and steps, the task, and its rows. A collective."""
    with errors_on_all_ranks():
        if checkpoint:
            config = as_begun(config, checkpoint)
        else:
            config = config.model_copy(update={"Model": as_installed(config.Model)})
        task = make_task(config)
        rows = task.open_rows()
    return resolve_steps(config, rows.stream.num_samples), task, rows


def _open_on_all_ranks(build: Callable[[], T], best_effort: BestEffort | None, rank: int) -> T | None:
    """Return what is built on data that are scored. A collective.

    Args:
        build: opens the data.
        best_effort: notes data that cannot be opened, instead of an error; the result is then None. None: an error
            ends the run.
        rank: that of this process.
    """
    try:
        with errors_on_all_ranks():
            return build()
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        if best_effort is None:
            raise
        if rank == 0:
            best_effort.failed("validation data", str(error))
        return None


def _collect_facts(
    config: Config, stream: SampleStream, evaluators: Mapping[str, Evaluator], checkpoint: Path | None
) -> dict[str, Any]:
    """Return what the ranks of a run must have in common."""
    here = runtime.environment()
    return {
        **config.model_dump(),
        "training data": dict(zip(stream.names, stream.state(0)["sources"], strict=True)),
        "digest of the first samples": hash_samples(stream),
        "scored data": {name: dict(evaluator.data) for name, evaluator in evaluators.items()},
        "checkpoint": checkpoint.name if checkpoint and checkpoint.is_dir() else None,
        "git revision": here["git"],
        "versions": here["versions"],
    }
