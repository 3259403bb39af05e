"""One optimiser step: the task's gradients, a look at them over all ranks, and the update if they are finite."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import _C_ops, nn

from ernie_vil2.config import Config
from ernie_vil2.data.loader import Batch
from ernie_vil2.device.transfers import fetched
from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.norms import copied, running_statistics, set_statistics
from ernie_vil2.tasks import Task
from ernie_vil2.training.optimizer import WeightAverage, set_rate, squared_gradient_norms
from ernie_vil2.training.step_agreement import NonFiniteSteps

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
        self._statistics = running_statistics(task.model)
        self._unsettled: _Step | None = None
        self.losses: dict[str, float] = {}

    def __call__(self, batch: Batch, step: int, rate: float) -> None:
        """Makes optimiser step `step`, from 0, at a learning rate. A collective.

        Raises:
            NotFinite: this step or the one before it was not, see `NonFiniteSteps`.
        """
        self._parallel.train()
        statistics = copied(self._statistics)
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
