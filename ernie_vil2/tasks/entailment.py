"""Whether a text is true of an image (SNLI-VE, arXiv 1901.06706) or of two (NLVR2, arXiv 1811.00491).

A dual encoder with a head is trained on labels (paper, appendix C).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import nn

from ernie_vil2.config import Config
from ernie_vil2.config.sections import IMAGE_VIEWS
from ernie_vil2.data.augment import draw_image_views
from ernie_vil2.data.loader import Batch, RowPreview, ViewRows
from ernie_vil2.data.loader_workers import Arrays, RowLayout
from ernie_vil2.data.order import Purpose, make_generator
from ernie_vil2.data.readers.entailment import NLVR2_LABELS, SNLI_VE_LABELS
from ernie_vil2.data.samples import BadSample, Reason, Statement
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import TextTokenizer
from ernie_vil2.models.dual_encoder import compute_rate_factors
from ernie_vil2.models.heads import HEAD_PREFIX, build_classifier
from ernie_vil2.parallel import collectives
from ernie_vil2.tasks.contrastive_step import CachedStep, DirectStep, Losses, Tensors
from ernie_vil2.tasks.task import ParameterGroup, Task, decay_groups


class EntailmentRows(ViewRows):
    """`image_1`, of two images `image_2` as well; `text`; `label` `[b, 1]`, a number of `labels`, on the host."""

    host_arrays = ("label",)

    def __init__(
        self, stream: SampleStream, config: Config, tokenizer: TextTokenizer, images: int, labels: tuple[str, ...]
    ):
        super().__init__(stream, config, tokenizer, IMAGE_VIEWS[:images], has_text=True)
        self._labels = labels

    @property
    def layout(self) -> RowLayout:
        return {"label": ((1,), np.int64), **super().layout}

    def fill(self, position: int, row: Arrays) -> str:
        _, sample = self.stream[position]
        if not isinstance(sample, Statement):
            raise BadSample(Reason.NO_LABEL, sample.image_name)
        if sample.label not in self._labels:
            raise BadSample(Reason.UNKNOWN_LABEL, sample.text_name)
        row["label"][0] = self._labels.index(sample.label)
        self._write_text(row, sample.text)
        random = make_generator(Purpose.IMAGES, self._seed, position)
        for view, image in zip(self._image_views, (sample.image, sample.right or b""), strict=False):
            name, size = sample.text_name, self._image.image_size
            row[view][0] = draw_image_views(image, name, 1, size, self._views, random, self._image.background)[0]
        return sample.text_name

    def preview(self, batch: Batch, row: int, position: int) -> RowPreview:
        """As `SampleRows.preview`, with the statement as it is written, and its label."""
        images, texts = super().preview(batch, row, position)
        sample = self.stream[position][1]
        if not isinstance(sample, Statement):  # never: `fill` has refused it
            raise TypeError(f"position {position} of the stream is no statement")
        return RowPreview(images, {**texts, "statement": sample.text, "label": sample.label})


class _Direct(DirectStep):
    """The loss is the cross-entropy of every row by itself, its mean over the rows of all ranks."""

    def _of_all_ranks(self, labels: paddle.Tensor, on_host: np.ndarray) -> paddle.Tensor:
        """How many rows there are."""
        rows = paddle.full([], len(on_host), "int64")
        return collectives.all_reduce(rows) if dist.get_world_size() > 1 else rows

    def _score(
        self, outputs: Tensors, scalars: Tensors, labels: paddle.Tensor, rows: Any, /, **loss_inputs: paddle.Tensor
    ) -> Losses:
        return self.loss(outputs["logits"], labels, rows, **loss_inputs)


class _Cached(_Direct, CachedStep):
    pass


def _cross_entropy(logits: paddle.Tensor, labels: paddle.Tensor, rows: paddle.Tensor) -> Losses:
    rows = rows.astype(logits.dtype)
    right = paddle.take_along_axis(logits, labels, axis=1)
    correct = logits.argmax(axis=1, keepdim=True) == labels
    # Not cross_entropy: on CPU it cuts a loss off at 64.
    return paddle.logsumexp(logits - right, axis=1).sum() / rows, {"accuracy": correct.sum() / rows}


class EntailmentTask(Task):
    """Whether a text is entailed by an image, contradicted or neither; learns labels of `data.samples.Statement`s.

    Attributes:
        labels: in the order of the model's outputs.
        images: that a text is about.
    """

    labels: tuple[str, ...] = SNLI_VE_LABELS
    images = 1
    evaluators: Sequence[str] = ("entailment",)

    def rows(self) -> EntailmentRows:
        return EntailmentRows(SampleStream(self.config), self.config, self.tokenizer, self.images, self.labels)

    def build(self, initialize: bool) -> list[str]:
        """As `Task.build`; a head begins at random unless the initial weights have one."""
        config = self.config
        self.model = build_classifier(
            config.Model, config.Head, self.tokenizer.vocab_size, self.images, len(self.labels)
        )
        return self._set_up(initialize)

    def prepare(self, parallel: nn.Layer, scaler: paddle.amp.GradScaler) -> None:
        kind = _Cached if self.config.Training.micro_batch else _Direct
        self._step = kind(self.model, _cross_entropy, self.config, parallel, scaler)

    def forward(self, batch: Batch, step: int) -> dict[str, paddle.Tensor]:
        """As `Task.forward`: "loss", and "accuracy", the share of the labels that are right."""
        views = {view: batch[view] for view in IMAGE_VIEWS[: self.images]} | {"text_1": batch["text"]}
        total, shares = self._step.forward(views, batch["label"], batch["positions"], step)
        return {"loss": total, **shares}

    def parameter_groups(self) -> list[ParameterGroup]:
        """As `Task.parameter_groups`: the head at `Head.rate`, the towers at the rates that `Tuning` gives them."""
        names = [name for name, _ in self.model.named_parameters() if name.startswith(HEAD_PREFIX)]
        factors = compute_rate_factors(self.model, self.config.Tuning) | dict.fromkeys(names, self.config.Head.rate)
        return decay_groups(self.model, factors)


class Nlvr2Task(EntailmentTask):
    """Whether a text is true of a left and a right image."""

    labels = NLVR2_LABELS
    images = 2
