"""What one optimiser step computes before the optimiser acts: the losses, and their gradients in the parameters.

`DirectStep` keeps the activations of all rows of a rank for backward. `CachedStep` keeps those of a micro batch: it
encodes all micro batches without them, computes the gradient of the embeddings, and encodes every micro batch a second
time to carry it on into the parameters (gradient cache, Gao et al. 2021, arXiv 2101.06983). Both give the same
gradients; batch norms are the exception, see `CachedStep`.

A step has two halves, so that the caller can look at the losses of all ranks before anything changes:

    total, pairs = step.forward(views, ids, positions, number)
    step.backward()

`forward` gives this rank's shares of the losses, whose sums over the ranks are the means over the global batch;
`backward` adds to every parameter's `grad` the gradient of the global mean, equal on all ranks, multiplied by the
loss scale where there is a scaler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from contextvars import copy_context
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import nn
from paddle.autograd import PyLayer
from paddle.distributed.fleet.utils import recompute

from ernie_vil2.config import Config
from ernie_vil2.data.augment import ImageNormalization
from ernie_vil2.device.transfers import Sender
from ernie_vil2.losses import check_negatives
from ernie_vil2.models import DualEncoder
from ernie_vil2.parallel import gather_ids, gather_views
from ernie_vil2.parallel.norms import preserve_statistics
from ernie_vil2.tasks.dropout import CounterBasedDropout, NativeDropout

Views = Mapping[str, paddle.Tensor]
Tensors = dict[str, paddle.Tensor]
Losses = tuple[paddle.Tensor, Tensors]  # their weighted sum, and each by name


def build_step(
    model: DualEncoder,
    loss: Callable[..., Losses],
    config: Config,
    parallel: paddle.nn.Layer | None = None,
    scaler: paddle.amp.GradScaler | None = None,
) -> DirectStep:
    """The step that `Training.micro_batch` asks for: cached where it is set, direct where it is null."""
    kind = CachedStep if config.Training.micro_batch else DirectStep
    return kind(model, loss, config, parallel, scaler)


def tie_outputs(total: paddle.Tensor, outputs: Sequence[paddle.Tensor]) -> paddle.Tensor:
    """Return a loss that has a gradient in all outputs of the model: 0 in those that it leaves unused.

    Paddle's data parallel waits for the gradient of every parameter that an output depends on, and breaks off in the
    next step if one has none, as the temperature under a loss of distances. `find_unused_parameters` is no remedy: it
    looks for parameters that no output depends on (data parallel finds those by itself in its first step), not for
    outputs that the loss does without. Zeros cost a few kernels on embeddings; 0 times an output, added to the loss,
    would be NaN where the output is infinite.

    Args:
        total: the loss, a scalar.
        outputs: what the model gave; those without gradient are left alone.
    """
    return _Tied.apply(total, *(output for output in outputs if not output.stop_gradient))


class _Tied(PyLayer):
    @staticmethod
    def forward(ctx: Any, total: paddle.Tensor, *outputs: paddle.Tensor) -> paddle.Tensor:
        ctx.kinds = [(output.shape, output.dtype) for output in outputs]  # the outputs themselves are not kept
        return total.clone()

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        return gradient, *(paddle.zeros(shape, dtype) for shape, dtype in ctx.kinds)


class DirectStep:
    """All rows of this rank in one forward.

    Args:
        model: the two towers.
        loss: over the view pairs, see `MultiViewLoss`.
        config: the run's; seed, precision, and the normalisation of images are read.
        parallel: what `fleet.distributed_model` made of the model; it averages gradients over the ranks.
            None: one process.
        scaler: of float16's gradients.
    """

    _total: paddle.Tensor

    def __init__(
        self,
        model: DualEncoder,
        loss: Callable[..., Losses],
        config: Config,
        parallel: paddle.nn.Layer | None = None,
        scaler: paddle.amp.GradScaler | None = None,
    ):
        self.model = model
        self.parallel = parallel or model
        self.loss = loss
        seed, native = config.Training.seed, config.Training.dropout == "native"
        self.dropout = NativeDropout(seed) if native else CounterBasedDropout(model, seed)
        self.capacity = config.Training.global_batch // dist.get_world_size()
        self.micro_batch = config.Training.micro_batch or self.capacity
        self.recomputes = config.Training.recompute
        if self.recomputes and isinstance(self.dropout, CounterBasedDropout):  # the configuration refuses the other
            recompute_blocks(model, self.dropout)
        self.duplicates = config.Loss.duplicates
        self.precision = config.Training.precision
        dtype = paddle.get_default_dtype() if self.precision == "float32" else self.precision
        self.normalize = ImageNormalization(config.Model.image.mean, config.Model.image.std, dtype)
        self.scaler = scaler
        self._send = Sender()

    @property
    def parts(self) -> int:
        """Micro batches of a step; a rank needs a row for each."""
        return 1

    def forward(
        self, views: Views, ids: np.ndarray, positions: np.ndarray, number: int, **loss_inputs: paddle.Tensor
    ) -> Losses:
        """Return the losses of this rank's rows against those of all ranks. A collective: every rank must call it.

        Args:
            views: those that the loss needs: images `[b, H, W, 3]` uint8 (or `[b, 3, H, W]`, normalised) and token
                ids `[b, L]`.
            ids: int64 `[b, 2]`, image id and text id of each row, on the host.
            positions: int64 `[b]`, position of each row in the global batch; dropout follows from it.
            number: of the optimiser step, from 0.
            loss_inputs: `[b, ...]`, what the loss takes besides embeddings, such as those of a teacher; no gradient
                goes into them.

        Returns:
            This rank's share of the weighted sum, a scalar, and of each pair's loss.

        Raises:
            NoNegatives: on all ranks, where duplicates leave most rows without a negative.
        """
        ids_of_rows, keys = self._on_device(views, ids, positions, number)
        of_all = self._of_all_ranks(ids_of_rows, ids)
        local, scalars = self._encode(self.parallel, views, keys)
        total, pairs = self._score(local, scalars, ids_of_rows, of_all, **loss_inputs)
        self._total = tie_outputs(total, [*local.values(), *scalars.values()])
        return self._total.detach(), pairs

    def backward(self) -> None:
        """Adds the gradients of what `forward` returned. A collective, like it."""
        with preserve_statistics(self.model) if self.recomputes else nullcontext():
            self._scaled(self._total).backward()
        del self._total

    def _on_device(
        self, views: Views, ids: np.ndarray, positions: np.ndarray, number: int
    ) -> tuple[paddle.Tensor, Tensors]:
        """The ids of the rows, and their keys for dropout, in one copy to the device."""
        keys = self.dropout.keys(number, views.keys(), positions)
        columns = self._send(np.column_stack([ids, *keys.values()]))
        of_keys = columns[:, ids.shape[1] :].unbind(axis=1) if keys else []
        return columns[:, : ids.shape[1]], dict(zip(keys, of_keys, strict=True))

    def _encode(
        self, model: paddle.nn.Layer, views: Views, keys: Mapping[str, paddle.Tensor]
    ) -> tuple[Tensors, Tensors]:
        """Embeddings of the views, `[b, D]` float32, and the scalars that the loss learns."""
        pixels = any(view.dtype == paddle.uint8 for view in views.values())
        reduced = self.precision != "float32"
        with (
            self.dropout.rows(keys),
            paddle.amp.auto_cast(enable=reduced, dtype=self.precision if reduced else "float16"),
        ):
            return model(views, self.normalize if pixels else None)

    def _of_all_ranks(self, ids: paddle.Tensor, on_host: np.ndarray) -> Any:
        """What `_score` has to know of all ranks' rows; asked for before the rows are encoded, so that it is there."""
        return gather_ids(ids, on_host, self.capacity)

    def _score(
        self, local: Tensors, scalars: Tensors, ids: paddle.Tensor, of_all: Any, /, **loss_inputs: paddle.Tensor
    ) -> Losses:
        gathered_ids, all_on_host, counts = of_all()
        if self.duplicates != "ignored":
            check_negatives(all_on_host)
        gathered, offset = gather_views(local, counts)
        return self.loss(local, gathered, scalars, ids, gathered_ids, offset, **loss_inputs)

    def _scaled(self, total: paddle.Tensor) -> paddle.Tensor:
        # Data parallel averages gradients over ranks; the loss of a rank is its share of a sum.
        total = total * dist.get_world_size()
        return self.scaler.scale(total) if self.scaler else total


class CachedStep(DirectStep):
    """The rows of this rank in micro batches: memory grows with `Training.micro_batch`, not with the global batch.

    The number of micro batches is the same on every rank, as many as `Training.micro_batch` rows each make it for the
    rank's share of the global batch; their rows are shared out evenly. Dropout is that of the direct step, row by row.

    A batch norm sees one micro batch at a time (with `Training.sync_norms` that of all ranks), in both encodings the
    same one. Gradients are exact for this definition, which the direct step's is not; every micro batch counts once
    in the running statistics.

    Raises:
        ValueError: by `forward`, where a rank has fewer rows than micro batches.
    """

    @property
    def parts(self) -> int:
        return -(-self.capacity // self.micro_batch)

    def forward(
        self, views: Views, ids: np.ndarray, positions: np.ndarray, number: int, **loss_inputs: paddle.Tensor
    ) -> Losses:
        if len(positions) < self.parts:
            raise ValueError(
                f"{len(positions)} rows cannot be shared out over {self.parts} micro batches; "
                "raise Training.micro_batch, or look at the samples that could not be used"
            )
        ids_of_rows, keys = self._on_device(views, ids, positions, number)
        of_all = self._of_all_ranks(ids_of_rows, ids)
        self._rows = views, keys
        encoded = []
        with paddle.no_grad():
            for _, part, part_keys in self._micro_batches():
                embeddings, scalars = self._encode(self.model, part, part_keys)
                encoded.append(embeddings)
        self._embeddings = {name: paddle.concat([part[name] for part in encoded]) for name in encoded[0]}
        self._scalars = scalars
        for leaf in (*self._embeddings.values(), *self._scalars.values()):
            leaf.stop_gradient = False
        total, pairs = self._score(self._embeddings, self._scalars, ids_of_rows, of_all, **loss_inputs)
        self._total = tie_outputs(total, [*self._embeddings.values(), *self._scalars.values()])
        return self._total.detach(), pairs

    def backward(self) -> None:
        self._scaled(self._total).backward()
        of_rows, of_scalars = (
            {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
            for leaves in (self._embeddings, self._scalars)
        )
        with preserve_statistics(self.model):
            for index, (rows, part, keys) in enumerate(self._micro_batches()):
                # Only what goes through the data-parallel wrapper is reduced over ranks: all that has been added up.
                last = index == self.parts - 1
                embeddings, scalars = self._encode(self.parallel if last else self.model, part, keys)
                # Their sum is a scalar whose gradient in the parameters is that of the loss.
                products = [(embeddings[name] * gradient[rows]).sum() for name, gradient in of_rows.items()]
                if last:
                    products += [(scalars[name] * gradient).sum() for name, gradient in of_scalars.items()]
                paddle.add_n(products).backward()
        del self._total, self._embeddings, self._scalars, self._rows

    def _micro_batches(self) -> Iterator[tuple[slice, Views, Tensors]]:
        """Which rows a micro batch holds, their views, and their keys for dropout."""
        views, keys = self._rows
        count = next(iter(views.values())).shape[0]
        bounds = [count * part // self.parts for part in range(self.parts + 1)]
        for rows in map(slice, bounds, bounds[1:]):
            part, own = ({name: value[rows] for name, value in values.items()} for values in (views, keys))
            yield rows, part, own


def recompute_blocks(model: DualEncoder, dropout: CounterBasedDropout) -> None:
    """Makes the blocks of a dual encoder's towers recompute themselves in backward, in place.

    Blocks are a transformer's layers, or the repeated parts of a convolutional network; see the towers' `blocks`.
    The second run draws the same dropout. In evaluation, and without gradient, nothing changes.

    Args:
        dropout: what the model draws from.
    """
    for tower in (model.image, model.text):
        for block in tower.blocks:
            # Past `__setattr__`: PaddleNLP puts a wrapper of its own around a forward that is set on its layers.
            block.__dict__["forward"] = _recomputing(block, block.forward, dropout)


def _recomputing(block: nn.Layer, forward: Callable, dropout: CounterBasedDropout) -> Callable:
    def recomputing(*args: Any, **kwargs: Any) -> Any:
        if not (block.training and paddle.is_grad_enabled()):
            return forward(*args, **kwargs)
        # The second run is in backward, where what was set for the first is over: what of the texts is padding, too.
        state, context, again = dropout.state, copy_context(), False

        def run(*inputs: Any, **options: Any) -> Any:
            nonlocal again
            if not again:
                again = True
                return forward(*inputs, **options)
            with dropout.replay(state):
                return context.run(forward, *inputs, **options)

        # By hooks, not re-entrant: a first block's images need no gradient, its parameters do.
        return recompute(run, *args, preserve_rng_state=False, use_reentrant=False, **kwargs)

    return recomputing
