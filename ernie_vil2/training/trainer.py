"""The training run: how its components are built, each from the ones before it, and the training loop."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import paddle

from ernie_vil2.config import Config, ConfigError
from ernie_vil2.config.sections import with_installed_towers
from ernie_vil2.config.stages import describe_stage, enter_stage, find_borders, resolve_stages
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.loader import Batch, SampleRows, load_batches
from ernie_vil2.data.samples import BadSampleReport, TooManyBadSamples
from ernie_vil2.data.stream import SampleStream, watch_for_leaks
from ernie_vil2.device import runtime
from ernie_vil2.device.transfers import copy_to_host
from ernie_vil2.io.run_folder import CONFIG, Best, State, checkpoint_folder, list_checkpoints, lock_run_folder
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
    choose_checkpoint,
    find_stage_of_checkpoint,
    link_best,
    load_checkpoint,
    recover_checkpoint,
    remove_old_checkpoints,
    restore_towers,
    save_evaluation,
    set_aside_cooled,
)
from ernie_vil2.training.checkpoint_writer import CheckpointWriter
from ernie_vil2.training.optimizer import (
    WeightAverage,
    build_optimizer,
    check_sharding,
    compute_cooldown_start,
    compute_learning_rate,
    distribute,
    gather_optimizer_state,
    get_local_parameters,
    get_scaler_state,
    resolve_steps,
)
from ernie_vil2.training.run_log import BestEffort, Progress
from ernie_vil2.training.scoring import (
    BeforeAfterComparison,
    Evaluations,
    Evaluator,
    build_evaluators,
    build_run_encoder,
    format_metrics,
)
from ernie_vil2.training.stages import check_folder, check_towers
from ernie_vil2.training.teacher import with_local_teacher
from ernie_vil2.training.update import BatchGate, NonFiniteSteps, StopSignals, Update, check_weights

T = TypeVar("T")
MakeTask = Callable[[Config], Task]
MakeEvaluators = Callable[[Config, Task], dict[str, Evaluator]]


class Trainer:
    """A training run on one process, or one rank of a run on several: `assemble` builds it, `fit` trains.

    It is a new run, or one that resumes from its newest complete checkpoint. Creating it is a collective.

    With `Training.stages`, a stage ends with a checkpoint, and everything that depends on the sizes of a stage is built
    anew and continues from there. So it makes no difference whether a run is stopped at a border.

    Args:
        config: the whole configuration.
        resume: continue from the newest complete checkpoint of the run folder, or start if there is none.
        can_extend: with `resume`, whether `Training.steps` may be more than the run's, see `choose_checkpoint`.
        make_task: makes what is trained; by default the task that the configuration names.
        make_evaluators: makes what scores it, by name; by default the scorers that the configuration names.
        should_score_test: whether `Data.test` is scored before and after training.

    Attributes:
        config: the configuration of the current stage, with `Model.like` and `Training.epochs` resolved.
        sample_rows: makes the rows of a batch, one from each sample.
        num_ranks: number of ranks.
        run: the run folder.
        folder_lock: keeps the run folder from other processes until it is closed.
        optimizer: the optimiser, wrapped for several ranks.
        scaler: float16's loss scaler, wrapped for several ranks.
        checkpoint_writer: writes the checkpoints of rank 0 while training goes on; idle on other ranks.
        signals: requests to stop; knows which signal has stopped the run.
        step: optimiser steps done.
        position: position in `stream` of the first sample of the next step.

    Raises:
        ConfigError: ranks that do not divide the batch; a precision or sharding that this device does not support; a
            folder that another process trains into, that holds a run although `resume` is not set, or that holds
            something else; or a configuration that differs from the resumed run's.
        DamagedCheckpoint: there are checkpoints, but all are damaged.
    """

    def __init__(
        self,
        config: Config,
        resume: bool = False,
        can_extend: bool = False,
        make_task: MakeTask = build_task,
        make_evaluators: MakeEvaluators = build_evaluators,
        should_score_test: bool = True,
    ):
        with ExitStack() as folder_lock:
            self.assemble(config, resume, can_extend, make_task, make_evaluators, should_score_test, folder_lock)
            # The lock outlives this block only if nothing above has failed.
            self.folder_lock = folder_lock.pop_all()

    def assemble(
        self, config: Config, resume: bool, can_extend: bool, make_task: MakeTask, make_evaluators: MakeEvaluators,
        should_score_test: bool, folder_lock: ExitStack
    ) -> None:  # fmt: skip
        """Build the components of the run, each from the ones before it. A collective.

        Args:
            config: as for the class.
            resume: as for the class.
            can_extend: as for the class.
            make_task: as for the class.
            make_evaluators: as for the class.
            should_score_test: as for the class.
            folder_lock: receives the lock of the run folder.
        """
        self.rank, self.num_ranks = _join_ranks(config)
        config = resolve_stages(_resolve_names(config))
        _check_ranks_and_device(config, self.num_ranks)
        self._run_config, self._make_task, self._make_evaluators = config, make_task, make_evaluators
        self._should_score_test, self.run = should_score_test, Path(config.Training.output)

        # The folder is locked before anything in it is read or repaired.
        checkpoint = _claim_run_folder(config, resume, self.rank, folder_lock)
        self.best_effort, self.checkpoint_writer = BestEffort(), CheckpointWriter(self.run)
        if len(config.Training.stages) > 1:
            with errors_on_all_ranks():
                check_towers(config)
                check_folder(self.run, self.rank)
        self.signals = StopSignals()
        # The gate counts in the store of the ranks, where the counts of a second gate would be confused with its own.
        self.batch_gate = BatchGate(self.num_ranks, self.signals)

        self._open_stage(_find_stage(checkpoint, self.rank), checkpoint)
        if checkpoint:
            # Not before, because the steps of a run in epochs follow from its data.
            newest = checkpoint
            checkpoint = _choose_checkpoint(self.run, newest, self.config, can_extend, self.rank)
            if checkpoint != newest:
                self._open_stage(_find_stage(checkpoint, self.rank), checkpoint)
        self._assemble_stage(checkpoint)

    def _open_stage(self, number: int, checkpoint: Path | None) -> None:
        """Open the training data of a stage. A collective.

        Args:
            number: number of the stage, from 0.
            checkpoint: checkpoint from which the stage continues; None: the run begins.
        """
        # A resumed run may have other stages than the checkpoint, which `choose_checkpoint` refuses by name.
        stages = self._run_config.Training.stages
        self.stage = min(number, max(0, len(stages) - 1))
        stage_config = enter_stage(self._run_config, self.stage)
        self.config, self.task, self.sample_rows = _open_training_data(stage_config, checkpoint, self._make_task)
        self.stream, self.last_step = self.sample_rows.stream, find_borders(self.config)[self.stage]

    def _assemble_stage(self, checkpoint: Path | None) -> None:
        """Build the components of the stage that is open, each from the ones before it. A collective.

        Args:
            checkpoint: checkpoint from which the stage continues; None: the run begins.
        """
        config, is_resumed = self.config, checkpoint is not None
        self.bad_samples = BadSampleReport(config.Data.max_bad_share)
        self.progress = Progress(config, self.rank, self.bad_samples, self.best_effort)
        self.evaluations, self.comparison = self._open_scored_data(is_resumed)
        if self.num_ranks > 1:
            check_agreement(_collect_facts(config, self.stream, self.evaluations.evaluators, checkpoint))
        self._find_leaked_images()

        self.model = self._build_model(is_resumed)
        parallel = self._build_update()
        self.step, self.position = 0, 0
        if checkpoint:
            with errors_on_all_ranks():
                self._resume_from(checkpoint)
            self.evaluations.agree()
        self.progress.print_lines(config.Data.warnings)
        if config.Training.stages:
            self.progress.print_lines([describe_stage(config, self.stage)])

        # These come last, because `prepare_norms` replaces layers and `task.prepare` keeps references to layers.
        self.progress.print_lines(prepare_norms(self.model, self.num_ranks, config.Training))
        self.task.prepare(parallel, self.scaler)

    def _enter_next_stage(self) -> None:
        """Build the next stage, which continues from the checkpoint of the last step. A collective."""
        checkpoint = checkpoint_folder(self.run, self.step)
        # The devices hold one model at a time.
        del self.task, self.sample_rows, self.stream, self.model, self.optimizer, self.scaler, self.average, self.update
        del self.evaluations, self.comparison
        gc.collect()
        self._open_stage(self.stage + 1, checkpoint)
        self._assemble_stage(checkpoint)

    def _open_scored_data(self, is_resumed: bool) -> tuple[Evaluations, BeforeAfterComparison | None]:
        """Open the data of the evaluators, and `Data.test`. A collective.

        A resumed run continues without these data if they can no longer be read.
        """
        failure_report = self.best_effort if is_resumed else None
        make_evaluators = self._make_evaluators
        evaluators = _open_on_all_ranks(lambda: make_evaluators(self.config, self.task), failure_report, self.rank)
        comparison = None
        if self._should_score_test and self.config.Data.test_config:
            comparison = _open_on_all_ranks(
                lambda: BeforeAfterComparison(self.config, self.task), failure_report, self.rank
            )
        return Evaluations(evaluators or {}, self.config), comparison

    def _find_leaked_images(self) -> None:
        """Look for the images of scored benchmarks in the training data, and print what was found. A collective."""
        benchmarks: list[Benchmark] = []
        for evaluator in self.evaluations.evaluators.values():
            benchmarks += evaluator.benchmarks
        if self.comparison:
            benchmarks += self.comparison.benchmarks
        with errors_on_all_ranks():
            self.progress.print_lines(watch_for_leaks(self.stream, benchmarks))

    def _build_model(self, is_resumed: bool) -> DualEncoder:
        """Return the task's model, with its initial weights if it needs them. A collective."""

        def build(initialize: bool) -> None:
            paddle.seed(self.config.Training.seed)
            self.progress.print_lines(self.task.build(initialize))

        # A resumed run that mixes in a share of the initial weights needs them again.
        if is_resumed and not self.config.Tuning.initial_share:
            with errors_on_all_ranks():
                build(initialize=False)
        else:
            # Rank 0 may download the weights, which the other ranks then find.
            run_on_first_rank_first(lambda: build(initialize=True))
        return self.task.model

    def _build_update(self) -> paddle.nn.Layer:
        """Build what updates the model and guards its steps; return the data-parallel model. A collective."""
        training, tuning = self.config.Training, self.config.Tuning
        adamw = build_optimizer(self.model, self.task.parameter_groups(), self.config.Optimizer)
        scaler = paddle.amp.GradScaler(enable=training.precision == "float16")
        parallel, self.optimizer, self.scaler = distribute(self.model, adamw, scaler, training.sharding)
        # With a decay of 0 the average is the current weights, mixed with the share of the initial weights.
        self.average: WeightAverage | None = None
        if tuning.ema is not None or tuning.initial_share:
            self.average = WeightAverage(self.model, tuning.ema or 0.0, tuning.initial_share)
        self.nonfinite_steps = NonFiniteSteps(self.run, training.nonfinite == "skip", training.max_skipped_share)
        self.update = Update(
            self.task, parallel, adamw, self.optimizer, self.scaler, self.average, self.nonfinite_steps, self.config
        )
        return parallel

    def _resume_from(self, checkpoint: Path) -> None:
        """Restore the state of the run from a checkpoint."""
        # A sharded optimiser loads only the state of the parameters that this rank owns.
        trained = [parameter for parameter in self.model.parameters() if not parameter.stop_gradient]
        local_parameters = get_local_parameters(self.optimizer, trained, self.config.Training.sharding)
        local_names = {parameter.name for parameter in local_parameters}
        state = load_checkpoint(checkpoint, self.model, self.optimizer, self.average, local_names)

        self.stream.restore_state(state["data"])
        self.position, self.step, best = state["data"]["position"], state["step"], state["best"]
        # Scores of models of another image size do not choose the best model of this stage.
        if find_stage_of_checkpoint(checkpoint) != self.stage:
            best = None
        # The checkpoint of the best step may have been removed by hand.
        if best and not checkpoint_folder(self.run, best["step"]).is_dir():
            best = None
        self.evaluations.resume(state["evaluated_step"], best)
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.nonfinite_steps.resume(*state["skipped_steps"])
        if self.rank == 0:
            self.bad_samples.merge(state["bad_samples"])
            self.progress.print_lines(set_aside_cooled(self.run, self.step))
            link_best(self.run, self.evaluations.best_step)

    @property
    def best(self) -> Best | None:
        """Step, metric and value of the best evaluation whose checkpoint exists, None before the first."""
        return self.evaluations.best

    def fit(self) -> bool:
        """Train up to `Training.steps`, with evaluations, log and checkpoints on the way.

        Returns:
            True if the run is finished. False if a signal stopped it, which `signals.stop_signal` names; its checkpoint
            is then saved.

        Raises:
            NotFinite: a loss, a gradient or a weight is NaN or infinite, see `Training.nonfinite`; or more steps were
                skipped for it than `Training.max_skipped_share` allows.
            TooManyBadSamples: see `Data.max_bad_share` and `BatchGate`.
            FailedRank: another rank has raised an error.
            LostRank: another rank has died or is stuck.
            FullDisk: there is no room for a checkpoint.
        """
        # The writer is left after `watch_ranks`: if all ranks end with an error, rank 0 may still write when the others
        # are gone, and must not take them for lost.
        with self.folder_lock, self.signals, self.checkpoint_writer, watch_ranks(), runtime.flush_denormals():
            first_step = self.step
            # Rank 0 scores alone; the other ranks wait for it in their first collective.
            comparison = self.comparison if self.rank == 0 else None
            if comparison and first_step == 0:
                with self.best_effort.attempt("Data.test, before"):
                    print(comparison.score_before(self.model))
            is_finished = self._train()
            while is_finished and self.last_step < self.config.Training.steps:
                if self.signals.stop_signal:  # in the last step of the stage
                    return False
                self._enter_next_stage()
                is_finished = self._train()
            comparison = self.comparison if self.rank == 0 else None
            best_step = self.evaluations.best_step or self.step
            if comparison and is_finished and (self.step > first_step or comparison.lacks_result_after(best_step)):
                with self.best_effort.attempt("Data.test, after"):
                    print(comparison.score_after(best_step))
            return is_finished

    def _train(self) -> bool:
        """Run the steps of the stage; return whether it is finished, and with the last one the run. A collective."""
        if self._is_finished():
            self.nonfinite_steps.check_share(self.step)
            return True
        if self.rank == 0 and paddle.get_device() == "cpu":
            print(runtime.summarize_switches())
        with self.progress.open(self.step, self.evaluations.evaluated_step):
            # An evaluation is due here at the start, or if the run was stopped between a step and its evaluation.
            if self.evaluations.is_due(self.step):
                with self.progress.meter.pause():
                    self._evaluate(is_saved=self.step > 0)
                    self.progress.write_reports()
            for batch in self._batches():
                rate = compute_learning_rate(self.step, self.config)
                self._train_step(batch, rate)
                # A record waits for the losses of this step. The bar shows the latest losses that the device has
                # already sent, so that the step is not delayed.
                if self.progress.is_record_due(self.step):
                    losses = self.update.finish_pending()
                else:
                    losses = self.update.losses
                self.progress.finish_step(self.step, losses, rate, self._get_log_state)
                self._save_and_evaluate()
            self._finish_saving()
        is_finished = self._is_finished()
        if is_finished and self.last_step < self.config.Training.steps:
            return True  # the summary follows the last stage
        reason = None
        if self.evaluations.is_out_of_patience:
            reason = f"no better evaluation since step {self.evaluations.best_step}: ended by Tuning.patience"
        self.progress.print_summary(reason, self.nonfinite_steps.num_skipped)
        if is_finished:
            self.nonfinite_steps.check_share(self.step)
        return is_finished

    def _is_finished(self) -> bool:
        has_ended = self.step >= self.last_step or self.evaluations.is_out_of_patience
        return has_ended and not self.evaluations.is_due(self.step)

    def _batches(self) -> Iterator[Batch]:
        """Yield the batches of the steps, up to the last one of the stage or until the run is stopped."""
        training = self.config.Training
        batches = load_batches(self.sample_rows, self.config, self.position, self.rank, self.num_ranks)
        while self.step < self.last_step and not self.signals.stop_signal and not self.evaluations.is_out_of_patience:
            batch = self._next_batch(batches)
            # A skipped batch counts as well, so that the next one has other samples.
            self.position += training.global_batch
            if batch is not None:
                yield batch

    def _next_batch(self, batches: Iterator[Batch]) -> Batch | None:
        """Return the next batch, and count its bad samples; None if a rank has too few usable ones. A collective."""
        # An error of the loader, or of the checkpoint that is being written, is passed to the gate, which raises it on
        # all ranks.
        batch, error = None, self.checkpoint_writer.get_error()
        if error is None:
            try:
                with self.progress.meter.measure_wait():
                    batch = next(batches)
                self.bad_samples.add(num_read=batch["rows"], bad=batch["bad"], remarks=batch["remarks"])
            except Exception as raised:
                error = raised
        num_samples = len(batch["names"]) if batch else 0
        try:
            is_admitted = self.batch_gate.admit_batch(num_samples, self.task.min_rows, error)
        except TooManyBadSamples:
            with self.best_effort.attempt("report of bad samples"):
                self.bad_samples.write(self.run)
            raise
        return batch if is_admitted else None

    def _get_log_state(self) -> dict[str, Any]:
        """Return the state of model, steps and data for the log."""
        epochs = dict(zip(self.stream.names, self.stream.epochs(self.position), strict=True))
        state = {**self.task.get_log_values(), "skipped_steps": self.nonfinite_steps.num_skipped, "epochs": epochs}
        if self.config.Training.stages:
            state["stage"] = self.stage + 1
        return state

    def _save_and_evaluate(self) -> None:
        """Save and evaluate after a step if they are due."""
        training, is_evaluation_due = self.config.Training, self.evaluations.is_due(self.step)
        # An evaluation may take long, so requests to stop are obeyed before it.
        if is_evaluation_due and not self.signals.stop_signal:
            self.batch_gate.agree_to_stop()
        is_stopped = self.signals.stop_signal is not None
        # The next stage continues from the last checkpoint, and a run is extended from the one before its cooldown.
        is_landmark = self.step in (self.last_step, compute_cooldown_start(self.config))
        should_save = is_landmark or is_stopped or self.step % training.checkpoint_every == 0
        # Save before evaluating, because an evaluation may crash the process.
        if should_save:
            is_pause = is_evaluation_due or is_stopped or self.step == self.last_step
            self._save(with_golden=is_pause)
        should_evaluate = is_evaluation_due and not is_stopped
        if should_evaluate:
            with self.progress.meter.pause():
                self._evaluate(is_saved=should_save)
        # The run ends here, so its last step needs a checkpoint.
        if self.evaluations.is_out_of_patience and not should_save:
            self._save(with_golden=True)
        if should_save or should_evaluate:
            self.progress.write_reports()

    def _train_step(self, batch: Batch, rate: float) -> None:
        self.update(batch, self.step, rate)
        self.step += 1

    def _save(self, with_golden: bool) -> None:
        """Copy the state after the current step, and start to write it as a checkpoint. A collective.

        Args:
            with_golden: whether the checkpoint gets golden embeddings. The model computes them here, so they are for
                steps after which training pauses anyway: it evaluates, or a stage or the run ends.
        """
        self.update.finish_pending()
        bad_samples = self.progress.gather_bad_samples()
        # Until now each rank has the running statistics (of batch norms) of its own rows alone.
        average_statistics(self.model)
        check_weights(self.model, self.step)
        # A second copy of the state would take as much memory again, so the checkpoint before must be written first.
        self._finish_saving()
        optimizer_state = gather_optimizer_state(self.optimizer, self.model)
        # The averages are saved as the model's weights, and the weights themselves with the optimiser's state.
        if self.average and self.rank == 0:
            optimizer_state |= self.average.get_raw_weights()
        state: State = {
            "step": self.step,
            "seed": self.config.Training.seed,
            "ranks": self.num_ranks,
            "scaler": get_scaler_state(self.scaler),
            "bad_samples": bad_samples.as_dict(),
            "skipped_steps": [self.nonfinite_steps.num_skipped, self.nonfinite_steps.num_in_a_row],
            "data": self.stream.state(self.position),
            "evaluated_step": self.evaluations.evaluated_step,
            "best": self.best,
        }
        with self._use_averages(), errors_on_all_ranks():
            if self.rank == 0:
                golden = self._compute_golden() if with_golden else None
                weights = {name: copy_to_host(value) for name, value in self.model.state_dict().items()}
                checkpoint = Checkpoint(state, weights, optimizer_state, self.config, self.task.tokenizer, golden)
                self.checkpoint_writer.start(checkpoint)

    def _finish_saving(self) -> None:
        """Wait until the last checkpoint is on the disk; raise its error on all ranks. A collective."""
        with errors_on_all_ranks():
            self.checkpoint_writer.wait()

    def _compute_golden(self) -> dict[str, Any] | None:
        """Return the model's float32 embeddings of a few inputs; no collective.

        None if the model has no embeddings or computing them failed; the checkpoint is saved anyway.
        """
        if isinstance(self.model, DualEncoder):
            with self.best_effort.attempt("golden embeddings"):
                return compute_golden(build_run_encoder(self.model, self.task.tokenizer, self.config, "float32"))
        return None

    @contextmanager
    def _use_averages(self) -> Iterator[None]:
        """Use the averages as the model's weights within the block, if the run has averages. A collective."""
        if self.average is None:
            yield
            return
        with self.average.use_averages():
            # The averages include running statistics, which differ between the ranks, too.
            average_statistics(self.model)
            yield

    def _evaluate(self, is_saved: bool) -> None:
        """Score the model, and keep the checkpoint of the best step. A collective.

        Args:
            is_saved: whether this step already has a checkpoint.
        """
        self._finish_saving()  # an evaluation may end the process, for example if memory runs out
        self.update.finish_pending()
        average_statistics(self.model)
        with self._use_averages():
            metrics = self.evaluations.evaluate(self.model, self.step)
        self.progress.record_evaluation(self.step, self.evaluations.make_records(metrics), format_metrics(metrics))
        failures: dict[str, str] = {}
        for evaluator_metrics in metrics.values():
            failures |= evaluator_metrics.failures
        if self.rank == 0:
            for data_name, reason in failures.items():
                self.best_effort.report_failure(f"evaluation on {data_name}", reason)

        if self.evaluations.update_best(metrics) and not is_saved:
            # The new checkpoint records the evaluation, and saving it removes old checkpoints.
            self._save(with_golden=True)
        elif is_saved and not failures and self.rank == 0:
            # A failed evaluation is not recorded, so that a resumed run repeats it.
            with self.best_effort.attempt("note of the evaluation"):
                save_evaluation(self.run, self.step, self.best)
                remove_old_checkpoints(self.run, self.config, self.evaluations.best_step)


def _join_ranks(config: Config) -> tuple[int, int]:
    """Set the device, and join the ranks; return this process's rank and the number of ranks. A collective."""
    runtime.set_device(config.Training.device)
    return join_ranks(sharded_optimizer=config.Training.sharding == "stage1")


def _resolve_names(config: Config) -> Config:
    """Import the modules that the configuration names, and resolve `Model.like`. A collective."""
    # The import comes before `Model.like` is resolved, which adds names from a folder of weights. So modules that only
    # such a folder names are never imported.
    with errors_on_all_ranks():
        import_user_modules(config.component_names)
    return run_on_first_rank_first(lambda: resolve_model_like(config))


def _check_ranks_and_device(config: Config, ranks: int) -> None:
    """Raise ConfigError if this number of ranks on this device cannot run the configuration."""
    training = config.Training
    if training.global_batch % ranks:
        raise ConfigError(f"Training.global_batch ({training.global_batch}) must be divisible by the {ranks} ranks")
    runtime.check_precision(training.precision)
    check_sharding(training.sharding, ranks, is_cpu=paddle.get_device() == "cpu")


def _claim_run_folder(config: Config, resume: bool, rank: int, folder_lock: ExitStack) -> Path | None:
    """Lock the run folder on rank 0. A collective.

    Returns:
        The checkpoint from which the run resumes; None: the run begins.
    """
    run, checkpoint = Path(config.Training.output), None
    with errors_on_all_ranks():
        if rank == 0:
            folder_lock.enter_context(lock_run_folder(run))
            if list_checkpoints(run) and not resume:
                raise ConfigError(
                    f"{run} already holds a run; continue with --resume or choose another -o Training.output=..."
                )
            checkpoint = recover_checkpoint(run)
    return collectives.all_gather_object(checkpoint)[0]


def _find_stage(checkpoint: Path | None, rank: int) -> int:
    """Return the stage of the checkpoint on rank 0; 0 if the run begins. A collective."""
    stage = 0
    with errors_on_all_ranks():
        if rank == 0 and checkpoint:
            stage = find_stage_of_checkpoint(checkpoint)
    return collectives.all_gather_object(stage)[0]


def _choose_checkpoint(run: Path, newest: Path, config: Config, can_extend: bool, rank: int) -> Path:
    """Return the checkpoint of rank 0 from which the run resumes. A collective."""
    checkpoint = newest
    with errors_on_all_ranks():
        if rank == 0:
            checkpoint = choose_checkpoint(run, newest, config, can_extend)
    return collectives.all_gather_object(checkpoint)[0]


def _open_training_data(
    config: Config, checkpoint: Path | None, make_task: MakeTask
) -> tuple[Config, Task, SampleRows]:
    """Return the configuration with its final towers and steps, the task, and the task's rows. A collective."""
    with errors_on_all_ranks():
        # A machine may lack the checkpoint of rank 0: the ranks compare what they have later, and name that machine.
        if checkpoint and (checkpoint / CONFIG).is_file():
            config = restore_towers(config, checkpoint)
        else:
            config = config.model_copy(update={"Model": with_installed_towers(config.Model)})
    # Rank 0 asks the teacher's server, and the other ranks find the folder. Checkpoints name the server.
    task_config = run_on_first_rank_first(lambda: with_local_teacher(config))
    with errors_on_all_ranks():
        task = make_task(task_config)
        rows = task.open_rows()
    return resolve_steps(config, rows.stream.num_samples), task, rows


def _open_on_all_ranks(open_data: Callable[[], T], failure_report: BestEffort | None, rank: int) -> T | None:
    """Open data that are scored. A collective.

    Args:
        open_data: opens the data.
        failure_report: where to report data that cannot be read; the result is then None. Without it, the error is
            raised.
        rank: rank of this process.
    """
    try:
        with errors_on_all_ranks():
            return open_data()
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        if failure_report is None:
            raise
        if rank == 0:
            failure_report.report_failure("validation data", str(error))
        return None


def _collect_facts(
    config: Config, stream: SampleStream, evaluators: Mapping[str, Evaluator], checkpoint: Path | None
) -> dict[str, Any]:
    """Return what the ranks of a run must have in common."""
    environment = runtime.describe_environment()
    return {
        **config.model_dump(),
        "training data": dict(zip(stream.names, stream.state(0)["sources"], strict=True)),
        "digest of the first samples": hash_samples(stream),
        "scored data": {name: dict(evaluator.data_sizes) for name, evaluator in evaluators.items()},
        # None on a rank that does not see the disk of rank 0.
        "checkpoint": checkpoint.name if checkpoint and checkpoint.is_dir() else None,
        "git revision": environment["git"],
        "versions": environment["versions"],
    }
