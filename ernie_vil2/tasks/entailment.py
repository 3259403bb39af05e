"""Training on labels that say whether a text is true of an image or of two.

The data are SNLI-VE (arXiv 1901.06706) and NLVR2 (two images, arXiv 1811.00491). The model is a dual encoder with a
classification head (paper, appendix C).
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
    """Rows of statements: `image_1`, with two images also `image_2`; `text`; `label` `[b, 1]`, its number, on the host.

    Args:
        stream: the samples by their position.
        config: configuration of the run.
        tokenizer: tokenizer of the texts.
        num_images: images of a statement, 1 or 2.
        labels: the labels, in the order of their numbers.
    """

    host_arrays = ("label",)

    def __init__(
        self, stream: SampleStream, config: Config, tokenizer: TextTokenizer, num_images: int, labels: tuple[str, ...]
    ):
        super().__init__(stream, config, tokenizer, IMAGE_VIEWS[:num_images], has_text=True)
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
        # One image view needs the first image only, although the sample may have two.
        for view, image in zip(self._image_views, (sample.image, sample.right or b""), strict=False):
            name, size = sample.text_name, self._image.image_size
            row[view][0] = draw_image_views(image, name, 1, size, self._views, random, self._image.background)[0]
        return sample.text_name

    def preview(self, batch: Batch, row: int, position: int) -> RowPreview:
        """Return the views of a row, the statement as it is written, and its label."""
        images, texts = super().preview(batch, row, position)
        sample = self.stream[position][1]
        if not isinstance(sample, Statement):  # unreachable: `fill` has refused it
            raise TypeError(f"position {position} of the stream is no statement")
        return RowPreview(images, {**texts, "statement": sample.text, "label": sample.label})


class _DirectStep(DirectStep):
    """A step whose loss is the cross-entropy of each row, averaged over the rows of all ranks."""

    def _begin_gather(self, labels: paddle.Tensor, host_labels: np.ndarray) -> paddle.Tensor:
        """Return the number of rows of all ranks; no row needs the rows of other ranks."""
        num_rows = paddle.full([], len(host_labels), "int64")
        return collectives.all_reduce(num_rows) if dist.get_world_size() > 1 else num_rows

    def _score(
        self, outputs: Tensors, scalars: Tensors, labels: paddle.Tensor, num_rows: Any, /, **loss_inputs: paddle.Tensor
    ) -> Losses:
        return self.loss(outputs["logits"], labels, num_rows, **loss_inputs)


class _CachedStep(_DirectStep, CachedStep):
    pass


def _cross_entropy(logits: paddle.Tensor, labels: paddle.Tensor, num_rows: paddle.Tensor) -> Losses:
    """Return this rank's shares of the cross-entropy and of the accuracy.

    Args:
        logits: `[b, C]`.
        labels: int64 `[b, 1]`.
        num_rows: number of rows of all ranks, a scalar.
    """
    num_rows = num_rows.astype(logits.dtype)
    label_logits = paddle.take_along_axis(logits, labels, axis=1)
    is_correct = logits.argmax(axis=1, keepdim=True) == labels
    # Paddle's cross_entropy is not used, because on CPU it cuts a loss off at 64.
    loss = paddle.logsumexp(logits - label_logits, axis=1).sum() / num_rows
    return loss, {"accuracy": is_correct.sum() / num_rows}


class EntailmentTask(Task):
    """Classification of statements: an image entails a text, contradicts it, or neither; see `data.samples.Statement`.

    Attributes:
        labels: the labels, in the order of the model's outputs.
        num_images: images that a text is about.
    """

    labels: tuple[str, ...] = SNLI_VE_LABELS
    num_images = 1
    evaluators: Sequence[str] = ("entailment",)

    def open_rows(self) -> EntailmentRows:
        return EntailmentRows(SampleStream(self.config), self.config, self.tokenizer, self.num_images, self.labels)

    def build(self, initialize: bool) -> list[str]:
        """Build the model; its head begins at random unless the initial weights have one."""
        config = self.config
        self.model = build_classifier(
            config.Model, config.Head, self.tokenizer.vocab_size, self.num_images, len(self.labels)
        )
        return self._set_up(initialize)

    def prepare(self, parallel: nn.Layer, scaler: paddle.amp.GradScaler) -> None:
        kind = _CachedStep if self.config.Training.uses_micro_batches(dist.get_world_size()) else _DirectStep
        self._step = kind(self.model, _cross_entropy, self.config, parallel, scaler)

    def forward(self, batch: Batch, step: int) -> dict[str, paddle.Tensor]:
        """Return "loss", and "accuracy", the share of correct labels; see `Task.forward`."""
        views = {view: batch[view] for view in IMAGE_VIEWS[: self.num_images]} | {"text_1": batch["text"]}
        total, metrics = self._step.forward(views, batch["label"], batch["positions"], step)
        return {"loss": total, **metrics}

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the trained parameters: the head with `Head.rate`, the towers with the rates of `Tuning`."""
        head_names = [name for name, _ in self.model.named_parameters() if name.startswith(HEAD_PREFIX)]
        rate_factors = compute_rate_factors(self.model, self.config.Tuning)
        rate_factors |= dict.fromkeys(head_names, self.config.Head.rate)
        return decay_groups(self.model, rate_factors)


class Nlvr2Task(EntailmentTask):
    """Classification of statements about a left and a right image, which are true or false."""

    labels = NLVR2_LABELS
    num_images = 2
