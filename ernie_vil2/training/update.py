"""One optimiser step on all ranks: whether all have samples, the gradients, and the update if they are finite.

SIGINT, SIGTERM and SIGHUP end a run after a step, with a checkpoint, on all ranks at the same step. A step whose loss
or gradient is not finite ends the run or is left out.
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
from ernie_vil2.device.launch import STOPPED, SecondCtrlC, heard, leave_closed_terminal
from ernie_vil2.device.transfers import fetched
from ernie_vil2.io.files import save_arrays, write_json
from ernie_vil2.io.run_folder import MODEL
from ernie_vil2.io.terminal import RunError, counted
from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.collectives import errors_on_all_ranks, raise_on_all_ranks
from ernie_vil2.parallel.norms import copy_statistics, get_running_statistics, set_statistics
from ernie_vil2.parallel.ranks import HostSums
from ernie_vil2.tasks import Task
from ernie_vil2.training.optimizer import WeightAverage, set_rate, squared_gradient_norms

MOST_SKIPPED = 100
"""Batches that are skipped, one after another, before the run ends."""


class StopSignals:
    """Within its context a signal of `STOPPED` is a request to stop: noted by one rank, agreed by all of them.

    A request that one rank alone acted on would leave the others waiting for it. Each rank therefore adds `requests` to
    what the ranks sum on their hosts before every step (`BatchGate`), and hands the sums to `agree`. Who will not wait
    for that presses Ctrl-C again: it ends the process as it is. A process that ignores SIGHUP, as under `nohup`,
    continues to ignore it.

    Attributes:
        agreed: the signal that ends the run, the same on every rank; None: the run continues.
    """

    def __init__(self) -> None:
        self.agreed: signal.Signals | None = None
        self._noted: set[int] = set()
        self._second_ctrl_c = SecondCtrlC()

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._note) for number in heard()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        if self._second_ctrl_c.is_this(number):
            os._exit(STOPPED[signal.SIGINT])
        self._noted.add(number)
        if number == signal.SIGHUP:
            leave_closed_terminal()

    @property
    def exit_code(self) -> int:
        """Of a process whose run `agreed` has ended; 0 where nothing has."""
        return STOPPED[self.agreed] if self.agreed else 0

    def requests(self) -> list[int]:
        """For each of the signals 1 if this rank has received it, else 0."""
        return [int(number in self._noted) for number in STOPPED]

    def agree(self, requests: Sequence[int]) -> None:
        """Takes the sums of all ranks' `requests`."""
        self.agreed = next((number for number, ranks in zip(STOPPED, requests, strict=True) if ranks), None)


class BatchGate:
    """Lets a batch through to the step if every rank has samples enough in it; otherwise all ranks skip it.

    Bad samples may follow one another, as those of a shard that has been lost, and so fill the whole share of a rank.
    What the ranks exchange goes by the store, which asks no device, and with it the requests to stop.
    """

    def __init__(self, ranks: int, signals: StopSignals):
        self._ranks, self._signals = ranks, signals
        self._sums = HostSums()
        self._in_a_row = 0

    def lets_through(self, samples: int, least: int, error: Exception | None = None) -> bool:
        """Whether all ranks have samples enough, of which this one has `samples`, or an error. A collective.

        Raises:
            Exception: a rank has an error, see `raise_on_all_ranks`.
            TooManyBadSamples: it is the hundredth batch in a row that is skipped.
        """
        enough, failed, *requests = self._sums(samples >= least, error is not None, *self._signals.requests())
        if failed:
            raise_on_all_ranks(error)
        if enough == self._ranks:
            self._in_a_row = 0
            self._signals.agree(requests)
            return True
        self._in_a_row += 1
        if self._in_a_row == MOST_SKIPPED:
            raise TooManyBadSamples(
                f"{MOST_SKIPPED} batches in a row lacked samples that can be used; is the data still there? "
                "The run folder has the reasons in bad_samples.txt; --resume continues from the last checkpoint"
            )
        return False

    def agree_to_stop(self) -> None:
        """Lets the ranks agree on requests to stop between two batches. A collective."""
        self._signals.agree(self._sums(*self._signals.requests()))


MOST_NOT_FINITE = 10
"""Steps left out, one after another, before the run ends."""
STEPS_BEFORE_SHARE = 100
"""Steps before the share of those left out is judged in the course of a run: at its beginning a few are a large one. A
run that is shorter is judged at its end."""
_SHOWN = 5


class NotFinite(RunError):  # noqa: N818  -- named by what has happened
    """Loss, gradient or weights are NaN or infinite; the message says which, and where the last good weights are."""


class NonFiniteSteps:
    """Ends the run at the first step that is not finite, or leaves such steps out, as `Training.nonfinite` says.

    Args:
        run: the run folder, for the evidence.
        skip: whether they are left out; the tenth in a row ends the run all the same.
        max_share: the largest share of all steps that may be left out, `Training.max_skipped_share`.

    Attributes:
        skipped: steps left out so far.
        in_a_row: of these, since the last update.
    """

    def __init__(self, run: Path, skip: bool, max_share: float = 1.0):
        self._run, self._skip, self._max_share = run, skip, max_share
        self.skipped = 0
        self.in_a_row = 0

    def resume(self, skipped: int, in_a_row: int) -> None:
        """Continue from the counts that a checkpoint holds."""
        self.skipped, self.in_a_row = skipped, in_a_row

    def note_finite(self) -> None:
        """Note that the newest step is finite, which ends a row of steps left out."""
        self.in_a_row = 0

    def record(
        self,
        step: int,
        batch: Batch,
        own: Mapping[str, float],
        gradients: Sequence[str],
        model: paddle.nn.Layer,
        rank: int,
    ) -> None:
        """Saves what led to a step, numbered from 1, that is not finite and has changed no weight. A collective.

        Every rank saves the names of its samples and what is not finite of its `own` losses and of its gradients, by
        the parameters' names; where the run ends, also its batch, and rank 0 the weights.

        Raises:
            NotFinite: the run ends, on all ranks.
        """
        self.skipped += 1
        self.in_a_row += 1
        too_many = step >= STEPS_BEFORE_SHARE and self._exceeds_share(step)
        ends = not self._skip or self.in_a_row == MOST_NOT_FINITE or too_many
        folder = self._run / f"nonfinite_step_{step:08d}"
        found = {
            "losses": {name: loss if math.isfinite(loss) else str(loss) for name, loss in own.items()},
            "gradients": list(gradients),
        }
        with errors_on_all_ranks():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / f"batch_rank{rank}.json", {**found, "names": batch["names"]})
            if ends:
                arrays = {name: np.ascontiguousarray(value) for name, value in batch.items()
                          if isinstance(value, paddle.Tensor | np.ndarray)}  # fmt: skip
                save_arrays(folder / f"batch_rank{rank}.safetensors", arrays)
                if rank == 0:
                    weights = {name: value.numpy() for name, value in model.state_dict().items()}
                    save_arrays(folder / MODEL, weights)
        # Nobody ends before all have saved: the launcher ends the others then.
        what = _described(step, collectives.all_gather_object(found))
        if not ends:
            if rank == 0:
                tqdm.write(f"warning: {what}; the step is left out ({self.skipped} so far), names are in {folder}",
                           sys.stderr)  # fmt: skip
            return
        if self._skip and self.in_a_row == MOST_NOT_FINITE:
            raise NotFinite(
                f"{what}, as those of the {MOST_NOT_FINITE - 1} before; batches and weights are in {folder}"
            )
        if self._skip:
            raise NotFinite(f"{what}; {self._share_in_words(step)}; batches and weights are in {folder}")
        raise NotFinite(
            f"{what}; batches and the weights before it are in {folder}. --resume comes to the same step again, "
            "and leaves it out with -o Training.nonfinite=skip; a lower learning rate needs a new run"
        )

    def check_share(self, steps: int) -> None:
        """Raise NotFinite if too many of all steps of a run that is at its end were left out."""
        if self._skip and self._exceeds_share(steps):
            raise NotFinite(
                f"{self._share_in_words(steps)}. The last checkpoint is as the others left it. Look at the samples "
                f"that {self._run}/nonfinite_step_... names and at Optimizer.learning_rate, and train again"
            )

    def _exceeds_share(self, steps: int) -> bool:
        return self.skipped > self._max_share * steps

    def _share_in_words(self, steps: int) -> str:
        return (
            f"{self.skipped:,} of {counted(steps, 'step')} were not finite and left out, more than "
            f"Training.max_skipped_share = {self._max_share:g} allows"
        )


def check_weights(model: paddle.nn.Layer, step: int) -> None:
    """For weights that are about to be saved.

    Raises:
        NotFinite: names those that are NaN or infinite.
    """
    state = {name: value for name, value in model.state_dict().items() if paddle.is_floating_point(value)}
    if not paddle.stack([paddle.isfinite(value).all() for value in state.values()]).all():
        raise NotFinite(
            f"the weights after step {step} are not finite ({_listed(not_finite(state))}): they are not saved, and the "
            "checkpoints before stay. Look at Optimizer.learning_rate and Optimizer.epsilon"
        )


def not_finite(values: Mapping[str, paddle.Tensor]) -> list[str]:
    """Names of the tensors in which a value is NaN or infinite."""
    return [name for name, value in values.items() if not paddle.isfinite(value).all()]


def _described(step: int, everyone: Sequence[dict[str, Any]]) -> str:
    """Says of the ranks' evidence what is not finite, and where."""
    losses = [
        f"rank {rank}: {', '.join(f'{name} {loss}' for name, loss in own['losses'].items())}"
        for rank, own in enumerate(everyone)
        if any(isinstance(loss, str) for loss in own["losses"].values())
    ]
    if losses:
        return f"the loss of step {step} is not finite ({'; '.join(losses)})"
    parameters = list(dict.fromkeys(name for own in everyone for name in own["gradients"]))
    return f"the gradient of step {step} is not finite ({_listed(parameters) or 'its norm is too large for float32'})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + f" and {len(names) - _SHOWN:,} others" * (len(names) > _SHOWN)


NORM = "gradient_norm"


@dataclass
class _Step:
    """A step of which the host does not know yet whether it was finite.

    Attributes:
        number: from 1.
        batch: it was made of.
        own: the losses of this rank's rows.
        parameters: P of those that are trained.
        squares: `[P]`, of their gradients.
        statistics: running ones, as they were before.
        values: gives the losses over the global batch and the squared norm of the gradient.
    """

    number: int
    batch: Batch
    own: dict[str, paddle.Tensor]
    parameters: list[paddle.Tensor]
    squares: paddle.Tensor
    statistics: paddle.Tensor
    values: Callable[[], np.ndarray]


class Update:
    """Updates a task's model by steps that are finite.

    Where a step that is not finite ends the run (`Training.nonfinite=stop`), the device itself spares the weights: such
    gradients become 0, and the rate with them. The host learns of it while the next step is on its way, or when it asks
    by `settled`, and waits for the device only then. Where such steps are left out, which is to leave no trace in the
    optimiser either, and with float16's loss scale, the host waits for each.

    Args:
        task: with its model, prepared.
        parallel: what the ranks' data parallelism made of the model.
        adamw: the optimiser of this rank.
        optimizer, scaler: what the ranks made of it and of the loss scaler.
        average: of the weights, which follows them.
        nonfinite: what becomes of steps that are not finite.

    Attributes:
        losses: of the newest step that is known, over the global batch, and the norm of its gradient.
    """

    def __init__(
        self,
        task: Task,
        parallel: nn.Layer,
        adamw: paddle.optimizer.AdamW,
        optimizer: paddle.optimizer.Optimizer,
        scaler: paddle.amp.GradScaler,
        average: WeightAverage | None,
        nonfinite: NonFiniteSteps,
        config: Config,
    ):
        self._task, self._parallel, self._adamw, self._optimizer = task, parallel, adamw, optimizer
        self._scaler, self._average, self._nonfinite = scaler, average, nonfinite
        self._waits = config.Training.nonfinite == "skip"
        self._sharding = config.Training.sharding
        self._trained = [parameter for parameter in task.model.parameters() if not parameter.stop_gradient]
        self._statistics = get_running_statistics(task.model)
        self._unsettled: _Step | None = None
        self.losses: dict[str, float] = {}

    def __call__(self, batch: Batch, step: int, rate: float) -> None:
        """Makes optimiser step `step`, from 0, at a learning rate. A collective.

        Raises:
            NotFinite: this step or the one before it was not, see `NonFiniteSteps`.
        """
        self._parallel.train()
        statistics = copy_statistics(self._statistics)
        own = self._task.forward(batch, step)
        self.settled()  # the step before: the device is busy with this one
        self._task.backward()
        parameters, squares = squared_gradient_norms(self._optimizer, self._trained, self._sharding)
        squares = squares / self._scaler.scale(paddle.ones([])) ** 2
        values = self._over_ranks([*own.values(), squares.sum()])
        self._unsettled = _Step(step + 1, batch, own, parameters, squares, statistics, fetched(values))
        if self._waits or self._scaler.is_enable():
            losses = self.settled()
            if _finite(losses) or self._is_scaled_too_much(losses):
                set_rate(self._adamw, rate)
                self._apply(step)
        else:
            finite = paddle.isfinite(values).all()
            _clear_unless(finite, [each.grad for each in self._trained if each.grad is not None])
            set_rate(self._adamw, rate, finite.astype(paddle.get_default_dtype()))
            self._apply(step)
        self._optimizer.clear_grad()

    def settled(self) -> dict[str, float]:
        """Waits for the newest step; what `losses` then is. A collective.

        Raises:
            NotFinite: see `NonFiniteSteps`.
        """
        step, self._unsettled = self._unsettled, None
        if step is None:
            return self.losses
        self.losses = dict(zip([*step.own, NORM], step.values().tolist(), strict=True))
        self.losses[NORM] **= 0.5
        if _finite(self.losses):
            self._nonfinite.note_finite()
        elif not self._is_scaled_too_much(self.losses):
            set_statistics(self._statistics, step.statistics)
            losses = {name: float(loss) for name, loss in step.own.items()}
            names = {id(parameter): name for name, parameter in self._task.model.named_parameters()}
            bad = ~np.isfinite(step.squares.numpy())
            gradients = [names[id(each)] for each, is_bad in zip(step.parameters, bad, strict=True) if is_bad]
            self._nonfinite.record(step.number, step.batch, losses, gradients, self._task.model, dist.get_rank())
        return self.losses

    def _apply(self, step: int) -> None:
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._task.after_update()
        if self._average:
            self._average.update(step + 1)

    def _is_scaled_too_much(self, found: dict[str, float]) -> bool:
        """Whether a gradient is not finite because of float16's loss scale, which the scaler then halves."""
        finite = _finite({name: value for name, value in found.items() if name != NORM})
        return self._scaler.is_enable() and finite and float(self._scaler.scale(paddle.ones([]))) > 1

    def _over_ranks(self, shares: Sequence[paddle.Tensor]) -> paddle.Tensor:
        """Scalars, each summed over the ranks."""
        values = paddle.stack([share.reshape([]).astype(paddle.get_default_dtype()) for share in shares]).detach()
        return collectives.all_reduce(values) if dist.get_world_size() > 1 else values


def _finite(losses: dict[str, float]) -> bool:
    return all(map(math.isfinite, losses.values()))


@paddle.no_grad()
def _clear_unless(finite: paddle.Tensor, gradients: list[paddle.Tensor]) -> None:
    """Makes gradients 0, in place, unless a bool on the device is true; by a kernel of Paddle's loss scaling."""
    if gradients:
        one, zero = paddle.ones([1]), paddle.zeros([1], "int32")
        _C_ops.update_loss_scaling_(gradients, ~finite.reshape([1]), one, zero, zero.clone(), 1, 1, 2.0, 0.5, True)
