"""What one optimiser step computes before the optimiser acts: the losses, and their gradients in the parameters.

`DirectStep` keeps the activations of all rows of a rank for backward. `CachedStep` keeps those of a micro batch: it
encodes all micro batches without keeping activations, computes the gradient of the embeddings, and encodes every micro
batch a second time to carry that gradient on into the parameters (gradient cache, Gao et al. 2021, arXiv 2101.06983).
Both give the same gradients; batch norms are the exception, see `CachedStep`.

A step has two halves, so that the caller can look at the losses of all ranks before anything changes:

    total, pairs = step.forward(views, ids, positions, step_index)
    step.backward()

`forward` returns this rank's shares of the losses, whose sums over the ranks are the means over the global batch;
`backward` adds the gradient of the global mean to every parameter's `grad`, equal on all ranks, multiplied by the
loss scale if there is a scaler.
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
from ernie_vil2.parallel import gather_ids, gather_rows, gather_views
from ernie_vil2.parallel.norms import preserve_statistics
from ernie_vil2.tasks.dropout import CounterBasedDropout, NativeDropout
from ernie_vil2.towers.layers.transformer import Transformer

Views = Mapping[str, paddle.Tensor]
Tensors = dict[str, paddle.Tensor]
Losses = tuple[paddle.Tensor, Tensors]  # the weighted sum, and the losses by name


def build_step(
    model: DualEncoder,
    loss: Callable[..., Losses],
    config: Config,
    parallel: paddle.nn.Layer | None = None,
    scaler: paddle.amp.GradScaler | None = None,
) -> DirectStep:
    """Build a cached step if a rank has more rows than `Training.micro_batch`, otherwise a direct one.

    Arguments are those of `DirectStep`.
    """
    kind = CachedStep if config.Training.uses_micro_batches(dist.get_world_size()) else DirectStep
    return kind(model, loss, config, parallel, scaler)


def tie_outputs(total: paddle.Tensor, outputs: Sequence[paddle.Tensor]) -> paddle.Tensor:
    """Return the loss with every output of the model in its graph; outputs that it does not use get a zero gradient.

    Paddle's data parallel waits for the gradient of every parameter that an output depends on, and fails in the next
    step if a gradient is missing. An example is the temperature, which a loss of distances does not use.
    `find_unused_parameters` does not help: it looks for parameters that no output depends on (data parallel finds those
    by itself in its first step), not for outputs that the loss does not use. Zeros cost a few kernels on embeddings; 0
    times an output, added to the loss, would be NaN where the output is infinite.

    Args:
        total: the loss, a scalar.
        outputs: outputs of the model; those without gradient are ignored.
    """
    return _TieOutputs.apply(total, *(output for output in outputs if not output.stop_gradient))


class _TieOutputs(PyLayer):
    """Autograd function of `tie_outputs`."""

    @staticmethod
    def forward(ctx: Any, total: paddle.Tensor, *outputs: paddle.Tensor) -> paddle.Tensor:
        # Shapes and types are enough; keeping the outputs would hold their memory until backward.
        ctx.shapes_and_types = [(output.shape, output.dtype) for output in outputs]
        return total.clone()

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
        return gradient, *(paddle.zeros(shape, dtype) for shape, dtype in ctx.shapes_and_types)


class DirectStep:
    """A step that encodes all rows of this rank in one forward.

    Args:
        model: the two towers.
        loss: the loss over the view pairs, see `MultiViewLoss`.
        config: configuration of the run.
        parallel: the model wrapped by `fleet.distributed_model`, which averages gradients over the ranks.
            None: one process.
        scaler: loss scaler of float16.
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
        seed = config.Training.seed
        self.dropout: CounterBasedDropout | NativeDropout
        if config.Training.dropout == "native":
            self.dropout = NativeDropout(seed)
        else:
            self.dropout = CounterBasedDropout(model, seed)
        self.max_rows_per_rank = config.Training.global_batch // dist.get_world_size()
        self.micro_batch = config.Training.micro_batch or self.max_rows_per_rank
        self.recomputes = config.Training.recompute
        # The configuration refuses recomputation with native dropout; the second condition is for the type checker.
        if self.recomputes and isinstance(self.dropout, CounterBasedDropout):
            recompute_blocks(model, self.dropout)
        self.duplicate_policy = config.Loss.duplicates
        self.precision = config.Training.precision
        reduces_residual = config.Training.residual == "reduced"
        for tower in (model.image, model.text):
            if isinstance(tower, Transformer):
                tower.reduces_residual = reduces_residual
        self._white_list: set[str] | None = None
        if reduces_residual:
            # Otherwise O1 converts the inputs of LayerNorms to float32. Their statistics are computed in float32 for
            # inputs of 16 bits too, and weight and bias stay in float32: read in the sources of O1 and of
            # `LayerNormKernel` for GPUs.
            self._white_list = {"layer_norm"}
        dtype = paddle.get_default_dtype() if self.precision == "float32" else self.precision
        self.normalize = ImageNormalization(config.Model.image.mean, config.Model.image.std, dtype)
        self.scaler = scaler
        self._send = Sender()

    @property
    def num_micro_batches(self) -> int:
        """Micro batches of a step; a rank needs a row for each."""
        return 1

    def forward(
        self, views: Views, ids: np.ndarray, positions: np.ndarray, step_index: int, **loss_inputs: paddle.Tensor
    ) -> Losses:
        """Return the losses of this rank's rows against those of all ranks. A collective: every rank must call it.

        Args:
            views: the views that the loss needs: images `[b, H, W, 3]` uint8 (or `[b, 3, H, W]`, normalised) and
                token ids `[b, L]`.
            ids: int64 `[b, 2]`, image id and text id of each row, on the host.
            positions: int64 `[b]`, position of each row in the global batch, which determines its dropout.
            step_index: number of the optimiser step, from 0.
            loss_inputs: `[b, ...]`, inputs of the loss besides embeddings, such as a teacher's embeddings; they get no
                gradient. The loss is given those of this rank and of all ranks.

        Returns:
            This rank's share of the weighted sum, a scalar, and of each pair's loss.

        Raises:
            NoNegatives: on all ranks, if duplicates leave most rows without a negative.
        """
        device_ids, keys = self._send_to_device(views, ids, positions, step_index)
        # The gathering begins before the rows are encoded, so that its result is there when they are scored.
        gathering = self._begin_gather(device_ids, ids)
        local, scalars = self._encode(self.parallel, views, keys)
        total, pairs = self._score(local, scalars, device_ids, gathering, **loss_inputs)
        self._total = tie_outputs(total, [*local.values(), *scalars.values()])
        return self._total.detach(), pairs

    def backward(self) -> None:
        """Add the gradients of the losses that `forward` returned to the parameters. A collective, like `forward`."""
        with preserve_statistics(self.model) if self.recomputes else nullcontext():
            self._scale(self._total).backward()
        del self._total

    def _send_to_device(
        self, views: Views, ids: np.ndarray, positions: np.ndarray, step_index: int
    ) -> tuple[paddle.Tensor, Tensors]:
        """Send the ids of the rows and their dropout keys to the device, in one copy; return both."""
        # All of them go in one array, because every copy to the device interrupts the host.
        keys = self.dropout.make_keys(step_index, views.keys(), positions)
        columns = self._send(np.column_stack([ids, *keys.values()]))
        num_ids = ids.shape[1]
        key_columns = columns[:, num_ids:].unbind(axis=1) if keys else []
        return columns[:, :num_ids], dict(zip(keys, key_columns, strict=True))

    def _encode(
        self, model: paddle.nn.Layer, views: Views, keys: Mapping[str, paddle.Tensor]
    ) -> tuple[Tensors, Tensors]:
        """Return the embeddings of the views, `[b, D]` float32, and the scalars that the loss learns."""
        has_raw_pixels = any(view.dtype == paddle.uint8 for view in views.values())
        is_mixed = self.precision != "float32"
        with (
            self.dropout.use_keys(keys),
            # A type must be named even where autocast is off.
            paddle.amp.auto_cast(is_mixed, self._white_list, dtype=self.precision if is_mixed else "float16"),
        ):
            return model(views, self.normalize if has_raw_pixels else None)

    def _begin_gather(self, ids: paddle.Tensor, host_ids: np.ndarray) -> Any:
        """Begin to gather what `_score` needs of all ranks' rows besides their embeddings.

        Returns:
            A value that only `_score` interprets; here, a function that waits for the gathered ids.
        """
        return gather_ids(ids, host_ids, self.max_rows_per_rank)

    def _score(
        self, local: Tensors, scalars: Tensors, ids: paddle.Tensor, wait_for_ids: Any, /, **loss_inputs: paddle.Tensor
    ) -> Losses:
        gathered_ids, gathered_host_ids, counts = wait_for_ids()
        # Ignored duplicates remain negatives, so every row has some.
        if self.duplicate_policy != "ignored":
            check_negatives(gathered_host_ids)
        gathered, offset = gather_views(local, counts)
        # With the counts at hand, which the host would otherwise have to wait for.
        rows_of_inputs = {name: (rows, gather_rows(rows, counts)[0]) for name, rows in loss_inputs.items()}
        return self.loss(local, gathered, scalars, ids, gathered_ids, offset, **rows_of_inputs)

    def _scale(self, total: paddle.Tensor) -> paddle.Tensor:
        # Data parallel averages the gradients of the ranks, but the loss of a rank is its share of a sum.
        total = total * dist.get_world_size()
        return self.scaler.scale(total) if self.scaler else total


class CachedStep(DirectStep):
    """A step in micro batches: its memory grows with `Training.micro_batch`, not with the global batch.

    The number of micro batches is the same on every rank: as many as a rank's share of the global batch needs. The
    rows are distributed evenly over them. Dropout is the same as in the direct step, row by row.

    A batch norm normalises each micro batch by the statistics of this micro batch, equal in both encodings; with
    `Training.sync_norms` these are the statistics over all ranks. Gradients are exact for these statistics, although
    the direct step has other ones. Every micro batch counts once in the running statistics.

    Raises:
        ValueError: by `forward`, if a rank has fewer rows than micro batches.
    """

    @property
    def num_micro_batches(self) -> int:
        return -(-self.max_rows_per_rank // self.micro_batch)

    def forward(
        self, views: Views, ids: np.ndarray, positions: np.ndarray, step_index: int, **loss_inputs: paddle.Tensor
    ) -> Losses:
        if len(positions) < self.num_micro_batches:
            raise ValueError(
                f"{len(positions)} rows cannot be shared out over {self.num_micro_batches} micro batches; "
                "raise Training.micro_batch, or look at the samples that could not be used"
            )
        device_ids, keys = self._send_to_device(views, ids, positions, step_index)
        gathering = self._begin_gather(device_ids, ids)

        # Encode all micro batches without keeping activations; `backward` encodes the same rows again.
        self._rows = views, keys
        chunks = []
        with paddle.no_grad():
            for _, micro_views, micro_keys in self._split_rows():
                embeddings, scalars = self._encode(self.model, micro_views, micro_keys)
                chunks.append(embeddings)
        self._embeddings = {name: paddle.concat([chunk[name] for chunk in chunks]) for name in chunks[0]}
        self._scalars = scalars  # they do not depend on the rows, so those of any micro batch will do

        # The graph of the loss begins at the embeddings and scalars, so backward leaves their gradients in them.
        for leaf in (*self._embeddings.values(), *self._scalars.values()):
            leaf.stop_gradient = False
        total, pairs = self._score(self._embeddings, self._scalars, device_ids, gathering, **loss_inputs)
        self._total = tie_outputs(total, [*self._embeddings.values(), *self._scalars.values()])
        return self._total.detach(), pairs

    def backward(self) -> None:
        self._scale(self._total).backward()
        embedding_gradients = {name: leaf.grad for name, leaf in self._embeddings.items() if leaf.grad is not None}
        scalar_gradients = {name: leaf.grad for name, leaf in self._scalars.items() if leaf.grad is not None}
        with preserve_statistics(self.model):
            for index, (rows, micro_views, micro_keys) in enumerate(self._split_rows()):
                # Data parallel reduces the gradients in the backward of a forward through its wrapper. Only the last
                # micro batch goes through it, when the gradients of all the others have been added up.
                is_last = index == self.num_micro_batches - 1
                model = self.parallel if is_last else self.model
                embeddings, scalars = self._encode(model, micro_views, micro_keys)
                # The sum of these products is a scalar that has the gradient of the loss in the parameters.
                products = [(embeddings[name] * grad[rows]).sum() for name, grad in embedding_gradients.items()]
                if is_last:
                    products += [(scalars[name] * grad).sum() for name, grad in scalar_gradients.items()]
                paddle.add_n(products).backward()
        del self._total, self._embeddings, self._scalars, self._rows

    def _split_rows(self) -> Iterator[tuple[slice, Views, Tensors]]:
        """Yield the rows of each micro batch, their views, and their dropout keys."""
        views, keys = self._rows
        num_rows = next(iter(views.values())).shape[0]
        bounds = [num_rows * index // self.num_micro_batches for index in range(self.num_micro_batches + 1)]
        for rows in map(slice, bounds, bounds[1:]):
            micro_views = {name: view[rows] for name, view in views.items()}
            micro_keys = {name: key[rows] for name, key in keys.items()}
            yield rows, micro_views, micro_keys


def recompute_blocks(model: DualEncoder, dropout: CounterBasedDropout) -> None:
    """Make the blocks of a dual encoder's towers recompute themselves in backward, in place.

    Blocks are a transformer's layers, or the repeated stages of a convolutional network; see the towers' `blocks`.
    The second run draws the same dropout. In evaluation, and without gradient, nothing changes.

    Args:
        model: the dual encoder.
        dropout: the dropout of the model.
    """
    for tower in (model.image, model.text):
        for block in tower.blocks:
            # This bypasses `__setattr__`, because PaddleNLP wraps a forward that is assigned to one of its layers.
            block.__dict__["forward"] = _make_recomputing(block, block.forward, dropout)


def _make_recomputing(block: nn.Layer, forward: Callable, dropout: CounterBasedDropout) -> Callable:
    def recomputing_forward(*args: Any, **kwargs: Any) -> Any:
        if not (block.training and paddle.is_grad_enabled()):
            return forward(*args, **kwargs)
        # The second run is in backward, outside the contexts of the first run (such as the padding of the texts), so
        # their variables are copied.
        state, context, has_run = dropout.state, copy_context(), False

        def run(*inputs: Any, **options: Any) -> Any:
            nonlocal has_run
            if not has_run:
                has_run = True
                return forward(*inputs, **options)
            with dropout.replay(state):
                return context.run(forward, *inputs, **options)

        # The reentrant form gives a block no gradients if no input needs one, as for the images' first block.
        return recompute(run, *args, preserve_rng_state=False, use_reentrant=False, **kwargs)

    return recomputing_forward
