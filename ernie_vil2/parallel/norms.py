"""Batch norms over all ranks' rows, and the running statistics that they gather.

Paddle's `SyncBatchNorm` has no CPU kernel, and its conversion leaves out the older `nn.BatchNorm`, which many
PaddleClas backbones use. These norms keep Paddle's parameters and buffers, and on GPUs run its kernel.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import paddle
import paddle.distributed as dist
from paddle import Tensor, _C_ops, nn
from paddle.autograd import PyLayer
from paddle.nn import functional as F

from ernie_vil2.config import TrainingConfig
from ernie_vil2.device.cpu_kernels import channel_sums, keep
from ernie_vil2.parallel import collectives


def batch_norms(model: nn.Layer) -> dict[str, nn.Layer]:
    """The layers of a model that normalise by statistics of the batch, and gather running ones, by name."""
    # Paddle's batch norms hold them under these names, some kinds as buffers and some as parameters.
    return {
        name: layer
        for name, layer in model.named_sublayers()
        if hasattr(layer, "_mean") and hasattr(layer, "_variance")
    }


def running_statistics(model: nn.Layer) -> list[Tensor]:
    """The running means and variances of a model's batch norms."""
    return [value for norm in batch_norms(model).values() for value in (norm._mean, norm._variance)]


def moving_statistics(model: nn.Layer) -> list[Tensor]:
    """Those of `running_statistics` that follow the batches in training."""
    norms = [norm for norm in batch_norms(model).values() if not norm._use_global_stats]
    return [value for norm in norms for value in (norm._mean, norm._variance)]


def frozen_norms(model: nn.Layer, trained: Collection[str]) -> dict[str, nn.Layer]:
    """The batch norms of a model of which no weight learns any more, by name.

    A norm without weights is frozen with those of the innermost layer around it that has any.

    Args:
        trained: names of the parameters that were to learn before any was frozen.
    """
    learns = {name: not value.stop_gradient for name, value in model.named_parameters() if name in trained}
    frozen = {}
    for name, norm in batch_norms(model).items():
        layer, own = name, list[bool]()
        while layer and not own:
            own = [learns[parameter] for parameter in learns if parameter.startswith(f"{layer}.")]
            layer = layer.rpartition(".")[0]
        if own and not any(own):
            frozen[name] = norm
    return frozen


@contextmanager
def frozen_statistics(model: nn.Layer) -> Iterator[None]:
    """Forwards of a model within the block leave no trace in its running statistics.

    For rows that are encoded a second time: they count once.
    """
    statistics = running_statistics(model)
    before = copied(statistics)
    try:
        yield
    finally:
        set_statistics(statistics, before)


@paddle.no_grad()
def copied(statistics: Sequence[Tensor]) -> Tensor:
    """The values of `running_statistics`, however many there are by one kernel."""
    return paddle.concat([value.flatten() for value in statistics]) if statistics else paddle.empty([0])


@paddle.no_grad()
def set_statistics(statistics: Sequence[Tensor], values: Tensor) -> None:
    """Gives `running_statistics` the values that `copied` gave, in place."""
    start = 0
    for running in statistics:
        running.set_value(values[start : start + running.size].reshape(running.shape))
        start += running.size


@paddle.no_grad()
def average_statistics(model: nn.Layer) -> None:
    """Sets the running means and variances of a model's batch norms to their mean over the ranks, in place.

    Data parallel leaves them alone, so that each rank has those of its own rows. Before a model is scored by several
    ranks, or saved by one, they have to be those of all rows; those that training leaves alone are left alone here. A
    collective: every rank must call it; a single process needs no process group.
    """
    statistics = moving_statistics(model)
    if dist.get_world_size() == 1 or not statistics:
        return
    set_statistics(statistics, collectives.all_reduce(copied(statistics)) / dist.get_world_size())


def synchronise_norms(model: nn.Layer) -> list[str]:
    """Lets a model's batch norms see the rows of all ranks when it trains, forward and backward, in place.

    The ranks may hold different numbers of rows; Paddle's kernel for GPUs then takes the mean of the ranks' means, so
    that the rows of a rank that has lost some count a little more. A synchronised norm is a collective: every rank must
    call it.

    Returns:
        Names of the norms that are of another kind or layout, and were left as they are.
    """
    left = []
    for name, norm in batch_norms(model).items():
        layout = getattr(norm, "_data_format", None) or getattr(norm, "_data_layout", None)
        if type(norm) in _SYNCED and layout in ("NCHW", "NCL", "NC"):
            norm.__class__ = _SYNCED[type(norm)]
        else:
            left.append(name)
    return left


def prepare_norms(model: nn.Layer, ranks: int, training: TrainingConfig) -> list[str]:
    """Synchronises batch norms over the ranks, in place, where `Training.sync_norms` asks for it.

    Returns:
        Which rows they see, for people, where that is not the global batch.
    """
    norms = [name for name, norm in batch_norms(model).items() if not norm._use_global_stats]
    left = norms if ranks > 1 else []
    if ranks > 1 and training.sync_norms:
        left = [name for name in synchronise_norms(model) if name in norms]
    lines = [f"batch norms over each rank's own rows: {len(left)}, from {left[0]} to {left[-1]}"] if left else []
    if norms and training.micro_batch:
        lines.append(f"{len(norms)} batch norms see one micro batch at a time (docs/memory.md)")
    return lines


class _Synced(nn.Layer):
    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, ...]`, normalised over all axes but C and over the ranks."""
        if not self.training or self._use_global_stats:
            return super().forward(x)
        y = self._by_kernel(x) if x.place.is_gpu_place() else self._by_collectives(x)
        act = getattr(self, "_act", None)
        return getattr(F, act)(y) if act else y

    def _by_kernel(self, x: Tensor) -> Tensor:
        """As `nn.SyncBatchNorm`, which sums over the ranks on the device's own stream."""
        arguments = self._mean, self._variance, self.weight, self.bias, False, self._momentum, self._epsilon
        return _C_ops.sync_batch_norm_(x, *arguments, "NCHW", False, False)[0]

    def _by_collectives(self, x: Tensor) -> Tensor:
        with paddle.no_grad(), paddle.amp.auto_cast(enable=False):
            mean, variance, count = _statistics(x.astype(self._mean.dtype))
            for running, value in ((self._mean, mean), (self._variance, variance)):
                running.set_value(running * self._momentum + value * (1 - self._momentum))
        return _Normalise.apply(x, self.weight, self.bias, mean, variance, count, self._epsilon)


class _Normalise(PyLayer):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, count: Tensor, epsilon: float
    ) -> Tensor:
        keep(ctx, x, weight, mean, variance, count)
        ctx.fixed = [tensor.stop_gradient for tensor in (x, weight, bias)]  # Paddle wants None for these
        ctx.epsilon = epsilon
        return F.batch_norm(x, mean, variance, weight, bias, epsilon=epsilon)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, weight, mean, variance, count = ctx.saved_tensor()
        one, zero = paddle.ones_like(mean), paddle.zeros_like(mean)
        normalised = F.batch_norm(x, mean, variance, one, zero, epsilon=ctx.epsilon)
        wide = gradient.astype(mean.dtype)
        own = paddle.stack([channel_sums(wide * normalised.astype(mean.dtype)), channel_sums(wide)])  # [2, C]
        total = collectives.all_reduce(own.clone(), wait=False)
        # The chain through mean and variance, which every row of every rank has a share in.
        along, average = total / count
        scale = weight / paddle.sqrt(variance + ctx.epsilon)
        centred = F.batch_norm(gradient, average, one, scale, zero, epsilon=0.0)
        found = centred - F.batch_norm(normalised, zero, one, scale * along, zero, epsilon=0.0), own[0], own[1]
        asked = [None if fixed else gradient for fixed, gradient in zip(ctx.fixed, found, strict=True)]
        return *asked, None, None, None


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each channel over all ranks, and the number of elements of each."""
    count = x.size / x.shape[1]
    mean = channel_sums(x) / count
    one, zero = paddle.ones_like(mean), paddle.zeros_like(mean)
    variance = channel_sums(paddle.square(F.batch_norm(x, mean, one, one, zero, epsilon=0.0))) / count
    own = paddle.concat([mean, variance, paddle.full([1], count, mean.dtype)])
    joined = collectives.all_gather(own.unsqueeze(0), wait=False)  # [ranks, 2C + 1]
    counts, (means, variances) = joined[:, -1:], joined[:, :-1].chunk(2, axis=1)
    total = counts.sum()
    mean = (counts * means).sum(axis=0) / total
    return mean, (counts * (variances + paddle.square(means - mean))).sum(axis=0) / total, total


_SYNCED: dict[type[nn.Layer], type] = {
    kind: type(f"Synced{kind.__name__}", (_Synced, kind), {}) for kind in (nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D)
}
