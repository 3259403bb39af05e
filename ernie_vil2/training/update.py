"""One optimiser step: the task's gradients, a look at them over all ranks, and the update if they are finite."""

from __future__ import annotations

import math

import paddle
import paddle.distributed as dist
from paddle import nn

from ernie_vil2.config import Config
from ernie_vil2.data.loader import Batch
from ernie_vil2.parallel import collectives
from ernie_vil2.parallel.norms import running_statistics, set_statistics
from ernie_vil2.tasks import Task
from ernie_vil2.training.average import WeightAverage
from ernie_vil2.training.nonfinite import NonFiniteSteps
from ernie_vil2.training.sharding import squared_gradient_norm
from ernie_vil2.training.stopping import StopSignals


class Update:
    """Updates a task's model.

    Args:
        task: with its model, prepared.
        parallel: what the ranks' data parallelism made of the model.
        optimizer, scaler: of the gradients of all ranks.
        average: of the weights, which follows them.
        nonfinite: what becomes of steps that are not finite.
        signals: by which a rank asks all to stop; what they agree on travels with the losses.
    """

    def __init__(
        self,
        task: Task,
        parallel: nn.Layer,
        optimizer: paddle.optimizer.Optimizer,
        scaler: paddle.amp.GradScaler,
        average: WeightAverage | None,
        nonfinite: NonFiniteSteps,
        signals: StopSignals,
        config: Config,
    ):
        self._task, self._parallel, self._optimizer, self._scaler = task, parallel, optimizer, scaler
        self._average, self._nonfinite, self._signals = average, nonfinite, signals
        self._sharding = config.Training.sharding
        self._trained = [parameter for parameter in task.model.parameters() if not parameter.stop_gradient]
        self._statistics = running_statistics(task.model)

    def __call__(self, batch: Batch, step: int, rate: float) -> dict[str, float]:
        """Makes optimiser step `step`, from 0, at a learning rate. A collective.

        Returns:
            The losses over the global batch, and the norm of the gradient.

        Raises:
            NotFinite: see `NonFiniteSteps`.
        """
        self._parallel.train()
        statistics = [value.clone() for value in self._statistics]
        own = self._task.forward(batch, step)
        self._task.backward()
        found = self._over_ranks(own | {"gradient_norm": self._squared_norm()})
        found["gradient_norm"] **= 0.5
        finite = all(map(math.isfinite, found.values()))
        if finite or self._is_scaled_too_much(found):
            self._optimizer.set_lr(rate)
            self._scaler.step(self._optimizer)
            self._scaler.update()
            self._task.after_update()
            if self._average:
                self._average.update(step + 1)
            if finite:
                self._nonfinite.in_a_row = 0
        else:
            set_statistics(self._statistics, statistics)
            losses = {name: float(loss) for name, loss in own.items()}
            self._nonfinite.record(step + 1, batch, losses, self._task.model, dist.get_rank())
        self._optimizer.clear_grad()
        return found

    def _squared_norm(self) -> paddle.Tensor:
        """This rank's share of the squared norm of the gradient, before it is clipped. A collective."""
        share = squared_gradient_norm(self._optimizer, self._trained, self._sharding)
        return (share / self._scaler.scale(paddle.ones([])) ** 2).reshape([]).astype(paddle.get_default_dtype())

    def _is_scaled_too_much(self, found: dict[str, float]) -> bool:
        """Whether a gradient is not finite because of float16's loss scale, which the scaler then halves."""
        finite = all(math.isfinite(value) for name, value in found.items() if name != "gradient_norm")
        return self._scaler.is_enable() and finite and float(self._scaler.scale(paddle.ones([]))) > 1

    def _over_ranks(self, losses: dict[str, paddle.Tensor]) -> dict[str, float]:
        """Sums over ranks; requests to stop, of any rank, travel along, so that all stop at the same step."""
        requests = [paddle.full([], request) for request in self._signals.requests()]
        values = paddle.stack([*losses.values(), *requests]).detach()
        if dist.get_world_size() > 1:
            collectives.all_reduce(values)
        sums = values.tolist()  # the one wait of a step for the device
        self._signals.agree(sums[len(losses) :])
        return dict(zip(losses, sums, strict=False))
