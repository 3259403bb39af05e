"""One optimiser step on all ranks: check that all have samples, compute the gradients, update if they are finite.

SIGINT, SIGTERM and SIGHUP end a run after a step, with a checkpoint, on all ranks at the same step. A step whose loss
or gradient is not finite ends the run or is skipped, see `Training.nonfinite`.
"""

import math
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import _C_ops, nn
from tqdm import tqdm

from ernie_vil2.config import Config
from ernie_vil2.data.loader import Batch
from ernie_vil2.data.samples import TooManyBadSamples
from ernie_vil2.device.launch import STOP_EXIT_CODES, CtrlCDetector, find_stop_signals, leave_closed_terminal
from ernie_vil2.device.transfers import copy_to_host, start_host_copy
from ernie_vil2.io.files import save_arrays, write_json
from ernie_vil2.io.run_folder import MODEL
from ernie_vil2.io.terminal import RunError, pluralize
from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.collectives import errors_on_all_ranks, raise_on_all_ranks
from ernie_vil2.parallel.norms import copy_statistics, get_running_statistics, set_statistics
from ernie_vil2.parallel.ranks import HostSums
from ernie_vil2.tasks import Task
from ernie_vil2.training.optimizer import WeightAverage, compute_squared_gradient_norms, set_learning_rate

# Batches skipped in a row before the run ends. If data have been lost, every batch is skipped, and a larger number only
# delays the error.
MAX_SKIPPED_BATCHES = 100


class StopSignals:
    """Context in which the signals of `STOP_EXIT_CODES` are requests that all ranks stop after the same step.

    If one rank alone obeyed a request, the others would wait for it. Each rank therefore adds `count_requests` to what
    the ranks sum on their hosts before every step (`BatchGate`), and passes the sums to `decide`. A second Ctrl-C ends
    the process at once. A process that ignores SIGHUP, as under `nohup`, continues to ignore it.

    Attributes:
        stop_signal: the signal that ends the run, the same on every rank; None: the run continues.
    """

    def __init__(self) -> None:
        self.stop_signal: signal.Signals | None = None
        self._received: set[int] = set()
        self._ctrl_c_detector = CtrlCDetector()

    def __enter__(self) -> Self:
        self._previous_handlers = {number: signal.signal(number, self._handle) for number in find_stop_signals()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: object) -> None:
        if self._ctrl_c_detector.detect_second(number):
            os._exit(STOP_EXIT_CODES[signal.SIGINT])
        self._received.add(number)
        if number == signal.SIGHUP:
            leave_closed_terminal()

    @property
    def exit_code(self) -> int:
        """Exit code of a process whose run a signal has ended; 0 if none has."""
        return STOP_EXIT_CODES[self.stop_signal] if self.stop_signal else 0

    def count_requests(self) -> list[int]:
        """Return 1 for each signal that this rank has received, 0 for the others."""
        return [int(number in self._received) for number in STOP_EXIT_CODES]

    def decide(self, num_requests: Sequence[int]) -> None:
        """Set `stop_signal` by the sums of all ranks' `count_requests`."""
        for number, num_ranks in zip(STOP_EXIT_CODES, num_requests, strict=True):
            if num_ranks:
                self.stop_signal = number
                return
        self.stop_signal = None


class BatchGate:
    """Admits a batch to the step if every rank has enough samples in it; otherwise all ranks skip it.

    A rank may get bad samples only, as from a lost shard. The ranks exchange their counts and requests to stop through
    the store, so no device waits for them.

    Args:
        ranks: number of ranks.
        signals: requests to stop.
    """

    def __init__(self, ranks: int, signals: StopSignals):
        self._ranks, self._signals = ranks, signals
        self._sums = HostSums()
        self._num_skipped_in_a_row = 0

    def admit_batch(self, num_samples: int, min_samples: int, error: Exception | None = None) -> bool:
        """Return whether all ranks have enough samples. A collective.

        Args:
            num_samples: usable samples of this rank.
            min_samples: samples that a rank needs.
            error: error of this rank while it read the batch.

        Raises:
            Exception: a rank has an error, see `raise_on_all_ranks`.
            TooManyBadSamples: `MAX_SKIPPED_BATCHES` batches in a row have been skipped.
        """
        has_enough, has_failed = num_samples >= min_samples, error is not None
        num_ready, num_failed, *num_requests = self._sums(has_enough, has_failed, *self._signals.count_requests())
        if num_failed:
            raise_on_all_ranks(error)
        if num_ready == self._ranks:
            self._num_skipped_in_a_row = 0
            self._signals.decide(num_requests)
            return True
        self._num_skipped_in_a_row += 1
        if self._num_skipped_in_a_row == MAX_SKIPPED_BATCHES:
            raise TooManyBadSamples(
                f"{MAX_SKIPPED_BATCHES} batches in a row lacked samples that can be used; is the data still there? "
                "The run folder has the reasons in bad_samples.txt; --resume continues from the last checkpoint"
            )
        return False

    def agree_to_stop(self) -> None:
        """Decide with the other ranks on requests to stop, between two batches. A collective."""
        self._signals.decide(self._sums(*self._signals.count_requests()))


# Steps skipped in a row before the run ends. A run that has diverged skips every step, and a larger number only delays
# its end.
MAX_NONFINITE_STEPS = 10
# Before this step the share of skipped steps is not judged: of a few steps, one is a large share. A shorter run is
# judged at its end.
MIN_STEPS_FOR_SHARE = 100
MAX_NAMES = 5  # parameters that a message names


class NotFinite(RunError):  # noqa: N818  -- named by what has happened
    """Loss, gradient or weights are NaN or infinite; the message says which, and where the last good weights are."""


class NonFiniteSteps:
    """Ends the run at the first step that is not finite, or skips such steps, as `Training.nonfinite` says.

    Args:
        run: the run folder, where evidence is saved.
        skip: whether such steps are skipped; the last of `MAX_NONFINITE_STEPS` in a row still ends the run.
        max_share: largest share of all steps that may be skipped, `Training.max_skipped_share`.

    Attributes:
        num_skipped: steps skipped so far.
        num_in_a_row: steps skipped since the last update.
    """

    def __init__(self, run: Path, skip: bool, max_share: float = 1.0):
        self._run, self._skip, self._max_share = run, skip, max_share
        self.num_skipped = 0
        self.num_in_a_row = 0

    def resume(self, num_skipped: int, num_in_a_row: int) -> None:
        """Continue from the counts of a checkpoint."""
        self.num_skipped, self.num_in_a_row = num_skipped, num_in_a_row

    def record_finite(self) -> None:
        """Record that the newest step is finite."""
        self.num_in_a_row = 0

    def record_nonfinite(
        self,
        step: int,
        batch: Batch,
        local_losses: Mapping[str, float],
        gradient_names: Sequence[str],
        model: paddle.nn.Layer,
        rank: int,
    ) -> None:
        """Save the evidence of a step that is not finite; it has changed no weight. A collective.

        Every rank saves the names of its samples, its losses, and the names of the parameters whose gradients are not
        finite. If the run ends, every rank also saves its batch, and rank 0 the weights.

        Args:
            step: number of the step, from 1.
            batch: the batch of this rank.
            local_losses: losses of this rank's rows.
            gradient_names: parameters whose gradient on this rank is not finite.
            model: the model.
            rank: number of this rank.

        Raises:
            NotFinite: the run ends, on all ranks.
        """
        self.num_skipped += 1
        self.num_in_a_row += 1
        has_diverged = self.num_in_a_row == MAX_NONFINITE_STEPS
        exceeds_share = step >= MIN_STEPS_FOR_SHARE and self._exceeds_share(step)
        ends_run = not self._skip or has_diverged or exceeds_share

        folder = self._run / f"nonfinite_step_{step:08d}"
        evidence: dict[str, Any] = {"losses": {}, "gradients": list(gradient_names)}
        for name, loss in local_losses.items():
            evidence["losses"][name] = loss if math.isfinite(loss) else str(loss)  # JSON has no NaN
        with errors_on_all_ranks():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / f"batch_rank{rank}.json", {**evidence, "names": batch["names"]})
            if ends_run:
                arrays = {}
                for name, value in batch.items():
                    if isinstance(value, paddle.Tensor | np.ndarray):
                        arrays[name] = np.ascontiguousarray(value)
                save_arrays(folder / f"batch_rank{rank}.safetensors", arrays)
                if rank == 0:
                    weights = {name: copy_to_host(value) for name, value in model.state_dict().items()}
                    save_arrays(folder / MODEL, weights)

        # This gather also makes all ranks wait until all have saved: the launcher ends the others when one ends.
        cause = _describe_cause(step, collectives.all_gather_object(evidence))
        if not ends_run:
            if rank == 0:
                tqdm.write(f"warning: {cause}; the step is left out ({self.num_skipped} so far), names are in {folder}",
                           sys.stderr)  # fmt: skip
            return
        if not self._skip:
            raise NotFinite(
                f"{cause}; batches and the weights before it are in {folder}. --resume comes to the same step again, "
                "and leaves it out with -o Training.nonfinite=skip; a lower learning rate needs a new run"
            )
        if has_diverged:
            raise NotFinite(
                f"{cause}, as those of the {MAX_NONFINITE_STEPS - 1} before; batches and weights are in {folder}"
            )
        raise NotFinite(f"{cause}; {self._describe_share(step)}; batches and weights are in {folder}")

    def check_share(self, steps: int) -> None:
        """Raise NotFinite if too many of all steps of a run were skipped; called at its end."""
        if self._skip and self._exceeds_share(steps):
            raise NotFinite(
                f"{self._describe_share(steps)}. The last checkpoint has the other updates. Look at the samples "
                f"that {self._run}/nonfinite_step_... names and at Optimizer.learning_rate, and train again"
            )

    def _exceeds_share(self, steps: int) -> bool:
        return self.num_skipped > self._max_share * steps

    def _describe_share(self, steps: int) -> str:
        return (
            f"{self.num_skipped:,} of {pluralize(steps, 'step')} were not finite and left out, more than "
            f"Training.max_skipped_share = {self._max_share:g} allows"
        )


def check_weights(model: paddle.nn.Layer, step: int) -> None:
    """Raise NotFinite, with the names of the weights, if a weight that is about to be saved is NaN or infinite."""
    weights = {name: value for name, value in model.state_dict().items() if paddle.is_floating_point(value)}
    # In the usual case all weights are finite, and a single transfer from the device tells that.
    if not paddle.stack([paddle.isfinite(value).all() for value in weights.values()]).all():
        names = [name for name, value in weights.items() if not paddle.isfinite(value).all()]
        raise NotFinite(
            f"the weights after step {step} are not finite ({_list_names(names)}): they are not saved, and the "
            "checkpoints before stay. Look at Optimizer.learning_rate and Optimizer.epsilon"
        )


def _describe_cause(step: int, evidence_of_ranks: Sequence[dict[str, Any]]) -> str:
    """Return what is not finite, and on which ranks or in which parameters."""
    losses = []
    for rank, evidence in enumerate(evidence_of_ranks):
        if any(isinstance(loss, str) for loss in evidence["losses"].values()):
            values = ", ".join(f"{name} {loss}" for name, loss in evidence["losses"].items())
            losses.append(f"rank {rank}: {values}")
    if losses:
        return f"the loss of step {step} is not finite ({'; '.join(losses)})"
    names: dict[str, None] = {}  # an ordered set
    for evidence in evidence_of_ranks:
        names |= dict.fromkeys(evidence["gradients"])
    cause = _list_names(list(names)) or "its norm is too large for float32"
    return f"the gradient of step {step} is not finite ({cause})"


def _list_names(names: Sequence[str]) -> str:
    text = ", ".join(names[:MAX_NAMES])
    if len(names) > MAX_NAMES:
        text += f" and {len(names) - MAX_NAMES:,} others"
    return text


GRADIENT_NORM = "gradient_norm"


@dataclass
class _PendingStep:
    """A step that the host has not checked yet for numbers that are not finite.

    Attributes:
        number: number of the step, from 1.
        batch: its batch.
        local_losses: losses of this rank's rows.
        parameters: P trained parameters.
        squared_norms: `[P]`, squared norms of their gradients.
        statistics: running statistics before the step.
        wait_for_values: waits for the device; returns the losses over the global batch, then the squared norm of the
            gradient.
    """

    number: int
    batch: Batch
    local_losses: dict[str, paddle.Tensor]
    parameters: list[paddle.Tensor]
    squared_norms: paddle.Tensor
    statistics: paddle.Tensor
    wait_for_values: Callable[[], np.ndarray]


class Update:
    """Updates a task's model by steps that are finite.

    If a step that is not finite ends the run (`Training.nonfinite=stop`), the device itself protects the weights: it
    sets such gradients and the learning rate to 0. The host learns of it while the next step is running, or when it
    calls `finish_pending`, and does not wait for the device otherwise. If such steps are skipped, they must leave no
    trace in the optimiser, so the host waits for each step; it also waits with float16's loss scale.

    Args:
        task: the task with its model, prepared.
        parallel: the model wrapped for data parallelism.
        adamw: the optimiser of this rank.
        optimizer: the optimiser wrapped for several ranks.
        scaler: the loss scaler wrapped for several ranks.
        average: average of the weights, which is updated with them.
        nonfinite_steps: policy for steps that are not finite.
        config: configuration of the run.

    Attributes:
        losses: losses over the global batch and gradient norm of the newest step that the host knows.
    """

    def __init__(
        self,
        task: Task,
        parallel: nn.Layer,
        adamw: paddle.optimizer.AdamW,
        optimizer: paddle.optimizer.Optimizer,
        scaler: paddle.amp.GradScaler,
        average: WeightAverage | None,
        nonfinite_steps: NonFiniteSteps,
        config: Config,
    ):
        self._task, self._parallel, self._adamw, self._optimizer = task, parallel, adamw, optimizer
        self._scaler, self._average, self._nonfinite_steps = scaler, average, nonfinite_steps
        self._skips_steps = config.Training.nonfinite == "skip"
        self._sharding = config.Training.sharding
        self._trained = [parameter for parameter in task.model.parameters() if not parameter.stop_gradient]
        self._statistics = get_running_statistics(task.model)
        self._pending: _PendingStep | None = None
        self.losses: dict[str, float] = {}

    def __call__(self, batch: Batch, step: int, rate: float) -> None:
        """Run one optimiser step. A collective.

        Args:
            batch: the batch of this rank.
            step: number of the step, from 0.
            rate: learning rate.

        Raises:
            NotFinite: this step or the previous one was not finite, see `NonFiniteSteps`.
        """
        self._parallel.train()
        # The forward changes running statistics, which a step that is skipped restores.
        statistics = copy_statistics(self._statistics)
        local_losses = self._task.forward(batch, step)
        # The previous step is finished only here, where the device is busy with this one.
        self.finish_pending()
        self._task.backward()

        # Sum the losses and the gradient norm over all ranks. Gradients are multiplied by the loss scale.
        parameters, squared_norms = compute_squared_gradient_norms(self._optimizer, self._trained, self._sharding)
        squared_norms = squared_norms / self._get_loss_scale() ** 2
        values = self._sum_over_ranks([*local_losses.values(), squared_norms.sum()])
        self._pending = _PendingStep(
            step + 1, batch, local_losses, parameters, squared_norms, statistics, start_host_copy(values)
        )

        if self._skips_steps or self._scaler.is_enable():
            losses = self.finish_pending()
            # The scaler itself skips the update if its scale was too large, and lowers it.
            if _are_finite(losses) or self._is_scale_too_large(losses):
                set_learning_rate(self._adamw, rate)
                self._apply(step)
        else:
            is_finite = paddle.isfinite(values).all()
            gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
            _clear_unless_finite(is_finite, gradients)
            set_learning_rate(self._adamw, rate, is_finite.astype(paddle.get_default_dtype()))
            self._apply(step)
        self._optimizer.clear_grad()

    def finish_pending(self) -> dict[str, float]:
        """Wait for the newest step; record whether it was finite, and return its `losses`. A collective.

        Raises:
            NotFinite: see `NonFiniteSteps`.
        """
        step, self._pending = self._pending, None
        if step is None:
            return self.losses
        self.losses = dict(zip([*step.local_losses, GRADIENT_NORM], step.wait_for_values().tolist(), strict=True))
        self.losses[GRADIENT_NORM] **= 0.5
        if _are_finite(self.losses):
            self._nonfinite_steps.record_finite()
        elif not self._is_scale_too_large(self.losses):
            set_statistics(self._statistics, step.statistics)
            local_losses = {name: float(loss) for name, loss in step.local_losses.items()}
            names = {id(parameter): name for name, parameter in self._task.model.named_parameters()}
            gradient_names = []
            for parameter, is_finite in zip(step.parameters, np.isfinite(step.squared_norms.numpy()), strict=True):
                if not is_finite:
                    gradient_names.append(names[id(parameter)])
            self._nonfinite_steps.record_nonfinite(
                step.number, step.batch, local_losses, gradient_names, self._task.model, dist.get_rank()
            )
        return self.losses

    def _apply(self, step: int) -> None:
        self._scaler.step(self._optimizer)
        self._scaler.update()
        # The average comes last, so that it averages the weights within their bounds.
        self._task.after_update()
        if self._average:
            self._average.update(step + 1)

    def _is_scale_too_large(self, losses: dict[str, float]) -> bool:
        """Return whether the gradient is not finite because of float16's loss scale, which the scaler then halves."""
        has_finite_losses = _are_finite({name: value for name, value in losses.items() if name != GRADIENT_NORM})
        return self._scaler.is_enable() and has_finite_losses and float(self._get_loss_scale()) > 1

    def _get_loss_scale(self) -> paddle.Tensor:
        return self._scaler.scale(paddle.ones([]))  # 1 without float16

    def _sum_over_ranks(self, scalars: Sequence[paddle.Tensor]) -> paddle.Tensor:
        """Return the sums of S scalars over the ranks, `[S]`."""
        values = paddle.stack([scalar.reshape([]).astype(paddle.get_default_dtype()) for scalar in scalars]).detach()
        return collectives.all_reduce(values) if dist.get_world_size() > 1 else values


def _are_finite(losses: dict[str, float]) -> bool:
    return all(map(math.isfinite, losses.values()))


@paddle.no_grad()
def _clear_unless_finite(is_finite: paddle.Tensor, gradients: list[paddle.Tensor]) -> None:
    """Set gradients to 0, in place, unless a bool on the device is true.

    Multiplying by 0 would keep NaN, and the host cannot branch without waiting for the device. A private kernel of
    Paddle's loss scaling does it (as of Paddle 3.3.1).
    """
    if gradients:
        # The kernel also adapts a loss scale. Its state and rules are the further arguments; the last one, stop_update,
        # says that it stays as it is.
        scale, num_good, num_bad = paddle.ones([1]), paddle.zeros([1], "int32"), paddle.zeros([1], "int32")
        is_bad = ~is_finite.reshape([1])
        _C_ops.update_loss_scaling_(gradients, is_bad, scale, num_good, num_bad, 1, 1, 2.0, 0.5, True)
