"""The training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import paddle

from ernie_vil2.config import Config
from ernie_vil2.data.loader import Batch, training_batches
from ernie_vil2.data.samples import TooManyBadSamples
from ernie_vil2.device import runtime
from ernie_vil2.io.run_folder import Best, State
from ernie_vil2.models import DualEncoder
from ernie_vil2.models.weights.contract import golden
from ernie_vil2.parallel import average_statistics
from ernie_vil2.parallel.agreement import agreed_errors
from ernie_vil2.parallel.ranks import watched_ranks
from ernie_vil2.tasks import Task, build_task
from ernie_vil2.training.assembly import Parts, assemble
from ernie_vil2.training.checkpoint import Checkpoint, keep_only, note_evaluation, save_checkpoint
from ernie_vil2.training.optimizer import learning_rate, optimizer_arrays, scaler_state
from ernie_vil2.training.scoring import Evaluator, as_lines, build_evaluators, encoder_of
from ernie_vil2.training.step_agreement import check_weights


class Trainer(Parts):
    """One training run, on one process or as one of several ranks: the parts that `assemble` gives, and the loop.

    Args:
        config: the whole configuration.
        resume: go on from the run folder's newest whole checkpoint, or start if there is none.
        extend: with `resume`, whether `Training.steps` may be more than the run's, see `check_changes`.
        compares: whether `Data.test` is scored before and after.
        task, evaluators: make what is trained, and what scores it by name; by default what the configuration names.

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
        super().__init__(**vars(assemble(config, resume, extend, task, evaluators, compares)))

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
            NotFinite: a loss, a gradient or a weight is NaN or infinite; see `Training.nonfinite`.
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
        return self._finished()

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
                checkpoint = Checkpoint(state, self.model, optimizer, self.config, self.task.tokenizer, made)
                save_checkpoint(self.run, checkpoint, self.config.Training.keep_checkpoints)

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
