"""What one optimiser step computes before the optimiser acts: the losses, and their gradients in the parameters.

A step has two halves, so that the caller can look at the losses of all ranks before anything changes:

    total, pairs = step.forward(views, ids, places, number)
    step.backward()

`forward` gives this rank's shares of the losses, whose sums over the ranks are the means over the global batch;
`backward` adds to every parameter's `grad` the gradient of the global mean, equal on all ranks, multiplied by the
loss scale where there is a scaler.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import paddle
import paddle.distributed as dist

from ernie_vil2.config import Config
from ernie_vil2.losses import MultiViewLoss
from ernie_vil2.models import DualEncoder
from ernie_vil2.parallel import gather_ids, gather_views
from ernie_vil2.training.dropout import PlacedDropout
from ernie_vil2.views import normalize_images

Views = Mapping[str, paddle.Tensor]


class DirectStep:
    """All rows of this rank in one forward.

    Args:
        model: the two towers.
        loss: over the view pairs.
        config: the run's; seed, precision, and the normalisation of images are read.
        parallel: what `fleet.distributed_model` made of the model; it averages gradients over the ranks.
            None: one process.
        scaler: of float16's gradients.
    """

    def __init__(
        self,
        model: DualEncoder,
        loss: MultiViewLoss,
        config: Config,
        parallel: paddle.nn.Layer | None = None,
        scaler: paddle.amp.GradScaler | None = None,
    ):
        self.parallel = parallel or model
        self.loss = loss
        self.dropout = PlacedDropout(model, config.Training.seed)
        self.capacity = config.Training.global_batch // dist.get_world_size()
        self.image = config.Model.image
        self.precision = config.Training.precision
        self.scaler = scaler
        self._total: paddle.Tensor | None = None

    def forward(
        self, views: Views, ids: paddle.Tensor, places: np.ndarray, number: int
    ) -> tuple[paddle.Tensor, dict[str, paddle.Tensor]]:
        """The losses of this rank's rows against those of all ranks. A collective: every rank must call it.

        Args:
            views: those that the loss needs: images `[b, H, W, 3]` uint8 (or `[b, 3, H, W]`, normalised) and token
                ids `[b, L]`.
            ids: int64 `[b, 2]`, image id and text id of each row.
            places: int64 `[b]`, place of each row in the global batch; dropout follows from it.
            number: of the optimiser step, from 0.

        Returns:
            This rank's share of the weighted sum, a scalar, and of each pair's loss.
        """
        local, logit_scale = self._encode(self.parallel, views, places, number)
        self._total, pairs = self._score(local, logit_scale, ids)
        return self._total.detach(), pairs

    def backward(self) -> None:
        """The gradients of what `forward` returned. A collective, like it."""
        self._scaled(self._total).backward()
        self._total = None

    def _encode(
        self, model: paddle.nn.Layer, views: Views, places: np.ndarray, number: int
    ) -> tuple[dict[str, paddle.Tensor], paddle.Tensor]:
        """Embeddings of the views, `[b, D]` float32, and the logit scale."""
        inputs = {
            name: normalize_images(view, self.image.mean, self.image.std) if view.dtype == paddle.uint8 else view
            for name, view in views.items()
        }
        reduced = self.precision != "float32"
        with (
            self.dropout.rows(number, views.keys(), places),
            paddle.amp.auto_cast(enable=reduced, dtype=self.precision if reduced else "float16"),
        ):
            return model(inputs)

    def _score(
        self, local: dict[str, paddle.Tensor], logit_scale: paddle.Tensor, ids: paddle.Tensor
    ) -> tuple[paddle.Tensor, dict[str, paddle.Tensor]]:
        gathered_ids, counts = gather_ids(ids, self.capacity)
        gathered, offset = gather_views(local, counts)
        return self.loss(local, gathered, logit_scale, ids, gathered_ids, offset)

    def _scaled(self, total: paddle.Tensor) -> paddle.Tensor:
        # Data parallel averages gradients over ranks; the loss of a rank is its share of a sum.
        total = total * dist.get_world_size()
        return self.scaler.scale(total) if self.scaler else total
