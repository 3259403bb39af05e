"""Batch norms over the rows of all ranks, and their running statistics.

Paddle's `SyncBatchNorm` has no CPU kernel, and its conversion leaves out the older `nn.BatchNorm`, which many
PaddleClas backbones use. The norms here keep Paddle's parameters and buffers, and run its kernel on GPUs.
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
from ernie_vil2.device.cpu_kernels import save_for_backward, sum_channels
from ernie_vil2.parallel import collectives


def find_batch_norms(model: nn.Layer) -> dict[str, nn.Layer]:
    """Return the layers of a model that normalise by batch statistics and keep running ones, by name."""
    # All of Paddle's batch norms call them `_mean` and `_variance`, some as buffers and some as parameters.
    return {
        name: layer
        for name, layer in model.named_sublayers()
        if hasattr(layer, "_mean") and hasattr(layer, "_variance")
    }


def get_running_statistics(model: nn.Layer) -> list[Tensor]:
    """Return the running means and variances of a model's batch norms."""
    statistics = []
    for norm in find_batch_norms(model).values():
        statistics += [norm._mean, norm._variance]
    return statistics


def find_frozen_norms(model: nn.Layer, trained: Collection[str]) -> dict[str, nn.Layer]:
    """Return the batch norms of a model whose weights have all been frozen, by name.

    A norm without weights counts as frozen if the innermost layer around it that has weights is frozen.

    Args:
        model: after freezing.
        trained: names of the parameters that were trained before any was frozen.
    """
    is_trained = {name: not value.stop_gradient for name, value in model.named_parameters() if name in trained}
    frozen_norms = {}
    for name, norm in find_batch_norms(model).items():
        layer_name, states = name, list[bool]()
        while layer_name and not states:
            prefix = f"{layer_name}."
            states = [is_trained[parameter] for parameter in is_trained if parameter.startswith(prefix)]
            layer_name = layer_name.rpartition(".")[0]
        if states and not any(states):
            frozen_norms[name] = norm
    return frozen_norms


@contextmanager
def preserve_statistics(model: nn.Layer) -> Iterator[None]:
    """Restore a model's running statistics at the end of the block.

    For rows that are encoded a second time, which must count only once.
    """
    statistics = get_running_statistics(model)
    values = copy_statistics(statistics)
    try:
        yield
    finally:
        set_statistics(statistics, values)


@paddle.no_grad()
def copy_statistics(statistics: Sequence[Tensor]) -> Tensor:
    """Return the values of running statistics in one vector, by one kernel however many there are."""
    return paddle.concat([value.flatten() for value in statistics]) if statistics else paddle.empty([0])


@paddle.no_grad()
def set_statistics(statistics: Sequence[Tensor], values: Tensor) -> None:
    """Set running statistics to the values that `copy_statistics` returned, in place."""
    start = 0
    for tensor in statistics:
        tensor.set_value(values[start : start + tensor.size].reshape(tensor.shape))
        start += tensor.size


@paddle.no_grad()
def average_statistics(model: nn.Layer) -> None:
    """Set the running statistics of a model's batch norms to their mean over the ranks, in place.

    Data parallel does not touch running statistics, so each rank has statistics of its own rows. Before several ranks
    score a model, or one saves it, the statistics must be those of all rows. Norms that use fixed statistics are left
    out. A collective: every rank must call it; a single process needs no process group.
    """
    statistics = []
    for norm in find_batch_norms(model).values():
        if not norm._use_global_stats:
            statistics += [norm._mean, norm._variance]
    if dist.get_world_size() == 1 or not statistics:
        return
    set_statistics(statistics, collectives.all_reduce(copy_statistics(statistics)) / dist.get_world_size())


def synchronise_norms(model: nn.Layer) -> list[str]:
    """Make a model's batch norms normalise over the rows of all ranks in training, in place.

    The ranks may hold different numbers of rows; Paddle's kernel for GPUs then takes the mean of the ranks' means, so
    that the rows of a rank with fewer rows count a little more. A synchronised norm is a collective, forward and
    backward: every rank must call it.

    Returns:
        Names of the norms of another kind or layout, which are left unchanged.
    """
    unchanged = []
    for name, norm in find_batch_norms(model).items():
        layout = getattr(norm, "_data_format", None) or getattr(norm, "_data_layout", None)
        if type(norm) in _SYNCED_CLASSES and layout in ("NCHW", "NCL", "NC"):
            norm.__class__ = _SYNCED_CLASSES[type(norm)]
        else:
            unchanged.append(name)
    return unchanged


def prepare_norms(model: nn.Layer, ranks: int, training: TrainingConfig) -> list[str]:
    """Synchronise batch norms over the ranks, in place, if `Training.sync_norms` asks for it.

    Returns:
        Lines for the user about norms that do not see the whole global batch.
    """
    norms = [name for name, norm in find_batch_norms(model).items() if not norm._use_global_stats]
    local_norms = norms if ranks > 1 else []
    if ranks > 1 and training.sync_norms:
        local_norms = [name for name in synchronise_norms(model) if name in norms]
    lines = []
    if local_norms:
        names = f"{len(local_norms)}, from {local_norms[0]} to {local_norms[-1]}"
        lines.append(f"batch norms over each rank's own rows: {names}")
    if norms and training.uses_micro_batches(ranks):
        lines.append(f"{len(norms)} batch norms see one micro batch at a time (docs/memory.md)")
    return lines


class _SyncedNorm(nn.Layer):
    """Mixin that normalises over the rows of all ranks; `_SYNCED_CLASSES` combines it with Paddle's batch norms."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[B, C, ...]` over all axes but C and over the ranks."""
        if not self.training or self._use_global_stats:
            return super().forward(x)
        # A norm may have been made without a weight or a bias.
        weight = paddle.ones_like(self._mean) if self.weight is None else self.weight
        bias = paddle.zeros_like(self._mean) if self.bias is None else self.bias
        normalize = self._normalize_by_kernel if x.place.is_gpu_place() else self._normalize_by_collectives
        y = normalize(x, weight, bias)
        activation = getattr(self, "_act", None)  # only `nn.BatchNorm` has one
        return getattr(F, activation)(y) if activation else y

    def _normalize_by_kernel(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # The kernel behind `nn.SyncBatchNorm` (as of Paddle 3.3.1), which sums over the ranks on the device's stream.
        arguments = self._mean, self._variance, weight, bias, False, self._momentum, self._epsilon
        return _C_ops.sync_batch_norm_(x, *arguments, "NCHW", False, False)[0]

    def _normalize_by_collectives(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        with paddle.no_grad(), paddle.amp.auto_cast(enable=False):
            mean, variance, count = _gather_statistics(x.astype(self._mean.dtype))
            for running, value in ((self._mean, mean), (self._variance, variance)):
                running.set_value(running * self._momentum + value * (1 - self._momentum))
        return _Normalize.apply(x, weight, bias, mean, variance, count, self._epsilon)


class _Normalize(PyLayer):
    """Autograd function of batch normalisation by statistics of all ranks, which depend on every row."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, count: Tensor, epsilon: float
    ) -> Tensor:
        save_for_backward(ctx, x, weight, mean, variance, count)
        # Paddle wants None as the gradient of an input that needs none.
        ctx.stop_gradients = [tensor.stop_gradient for tensor in (x, weight, bias)]
        ctx.epsilon = epsilon
        return F.batch_norm(x, mean, variance, weight, bias, epsilon=epsilon)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, weight, mean, variance, count = ctx.saved_tensor()
        ones, zeros = paddle.ones_like(mean), paddle.zeros_like(mean)
        # `F.batch_norm` with chosen statistics and weights stands for elementwise arithmetic by channel here.
        normalized = F.batch_norm(x, mean, variance, ones, zeros, epsilon=ctx.epsilon)
        float32_gradient = gradient.astype(mean.dtype)
        weight_gradient = sum_channels(float32_gradient * normalized.astype(mean.dtype))
        bias_gradient = sum_channels(float32_gradient)
        global_sums = collectives.all_reduce(paddle.stack([weight_gradient, bias_gradient]), wait=False)  # [2, C]

        # The gradient through mean and variance, to which every row of every rank contributes.
        along_mean, average_gradient = global_sums / count
        scale = weight / paddle.sqrt(variance + ctx.epsilon)
        centred = F.batch_norm(gradient, average_gradient, ones, scale, zeros, epsilon=0.0)
        x_gradient = centred - F.batch_norm(normalized, zeros, ones, scale * along_mean, zeros, epsilon=0.0)

        gradients = x_gradient, weight_gradient, bias_gradient
        returned = [None if stop else value for stop, value in zip(ctx.stop_gradients, gradients, strict=True)]
        return *returned, None, None, None


def _gather_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and variance of each channel over all ranks, `[C]`, and the number of elements of a channel."""
    count = x.size / x.shape[1]
    mean = sum_channels(x) / count
    ones, zeros = paddle.ones_like(mean), paddle.zeros_like(mean)
    centred = F.batch_norm(x, mean, ones, ones, zeros, epsilon=0.0)
    variance = sum_channels(paddle.square(centred)) / count
    local = paddle.concat([mean, variance, paddle.full([1], count, mean.dtype)])
    gathered = collectives.all_gather(local.unsqueeze(0), wait=False)  # [ranks, 2C + 1]
    counts = gathered[:, -1:]
    means, variances = gathered[:, :-1].chunk(2, axis=1)
    total = counts.sum()
    mean = (counts * means).sum(axis=0) / total
    # The variance has two parts: the variances within the ranks, and the variance between their means.
    variance = (counts * (variances + paddle.square(means - mean))).sum(axis=0) / total
    return mean, variance, total


# Paddle's batch norms and their synchronised subclasses, to which the class of a norm is changed.
_SYNCED_CLASSES: dict[type[nn.Layer], type] = {
    kind: type(f"Synced{kind.__name__}", (_SyncedNorm, kind), {})
    for kind in (nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D)
}
