"""A language for a finished model, from parallel texts alone: its text tower teaches one that also reads the language.

The embeddings of a text in any of the languages are drawn to what the teacher makes of it in the language that it knows
(Reimers and Gurevych 2020, arXiv 2004.09813; for CLIP Carlsson et al. 2022, M-CLIP). Images are neither seen nor
trained: the image tower and its projection stay the teacher's to the last bit, and so does an index of images.
"""

from contextlib import nullcontext
from pathlib import PurePath
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ernie_vil2.config import Config, ConfigError
from ernie_vil2.data.augment import draw_texts
from ernie_vil2.data.loader import Batch, RowPreview, ViewRows
from ernie_vil2.data.loader_workers import Arrays, RowLayout
from ernie_vil2.data.order import Purpose, make_generator
from ernie_vil2.data.readers.tables import TABLES, TEXTS
from ernie_vil2.data.samples import content_id
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import TextTokenizer
from ernie_vil2.losses import MultiViewLoss, build_loss
from ernie_vil2.losses.tiles import Scalars
from ernie_vil2.models import DualEncoder
from ernie_vil2.models.weights.format import read_model
from ernie_vil2.parallel import gather_rows
from ernie_vil2.tasks.contrastive_step import Losses, Views
from ernie_vil2.tasks.multi_view import MultiViewTask

IMAGE = ("image.", "image_projection.")
"""What the names of parameters begin with that stay as they are."""


class ParallelRows(ViewRows):
    """`text` `[b, L]`, for the student; what it means, `known` `[b, M]`, for the teacher; `ids` `[b, 2]`, of that."""

    host_arrays = ("ids",)

    def __init__(self, stream: SampleStream, config: Config, tokenizer: TextTokenizer, teacher: TextTokenizer):
        super().__init__(stream, config, tokenizer, image_views=(), has_text=True)
        self._tokenizers["known"] = teacher
        self._language = config.Tuning.known_language

    @property
    def layout(self) -> RowLayout:
        return {"ids": ((2,), np.int64), **super().layout}

    def fill(self, position: int, row: Arrays) -> str:
        """As `SampleRows.fill`; the language of `text` is drawn by its weight."""
        source, sample = self.stream[position]
        known = sample.caption(self._language)
        text, _ = draw_texts(sample, self.stream.views[source], make_generator(Purpose.TEXT, self._seed, position))
        row["ids"][0] = content_id(known)
        self._write_text(row, known, "known")
        self._write_text(row, text)
        return sample.image_name

    def preview(self, batch: Batch, row: int, position: int) -> RowPreview:
        """As `SampleRows.preview`, with the texts as they are written."""
        images, texts = super().preview(batch, row, position)
        captions = self.stream[position][1].captions
        return RowPreview(images, {**texts, **{f"caption, {language}": text for language, text in captions.items()}})


class DistanceLoss:
    """The mean squared distance to the teacher's embeddings, `2 - 2 cos`, and perhaps a contrast among them.

    Args:
        contrast: over the pair `text_text`, whose columns are the teacher's embeddings; None: the distance alone.
    """

    views = ("text_1",)

    def __init__(self, contrast: MultiViewLoss | None):
        self._contrast = contrast

    def __call__(self, local: Views, gathered: Views, scalars: Scalars, *others: Any, teacher: paddle.Tensor) -> Losses:
        """Return the weighted sum and the losses by name, as `MultiViewLoss` does. A collective.

        Args:
            local, gathered, scalars, others: as for `MultiViewLoss`.
            teacher: `[b, D]`, the teacher's embeddings of this rank's rows.
        """
        distance = (local["text_1"] - teacher).square().sum() / gathered["text_1"].shape[0]
        losses = {"distance": distance}
        if self._contrast is None:
            return distance, losses
        local, gathered = {**local, "text_2": teacher}, {**gathered, "text_2": gather_rows(teacher)[0]}
        total, contrasts = self._contrast(local, gathered, scalars, *others)
        return distance + total, losses | contrasts


class NewLanguageTask(MultiViewTask):
    """Trains the text tower to put texts where the one of `Model.weights` puts what they mean; see `Task`.

    Raises:
        ConfigError: there is no model to learn from, or the loss is one of images.
    """

    planned = False

    def __init__(self, config: Config):
        weights = config.Loss.weights
        if config.Model.weights is None:
            raise ConfigError(
                "Training.task=new_language: set Model.weights to the model that learns a language; its text tower is "
                "the teacher"
            )
        if weights.image_image or weights.image_text or weights.text_image:
            raise ConfigError(
                "Training.task=new_language sees no images: set Loss.weights={image_image: 0, image_text: 0, "
                "text_image: 0, text_text: 0}; the last may be more, a contrast with the teacher's embeddings"
            )
        self._stored = read_model(config.Model.weights)
        if self._stored.tokens is None:
            raise ConfigError(f"Model.weights: {config.Model.weights} has no vocabulary, which the teacher needs")
        self._known = self._stored.build_tokenizer(self._stored.config.Data.max_length)
        super().__init__(config)

    def _build_loss(self) -> DistanceLoss:
        loss = self.config.Loss
        return DistanceLoss(build_loss(loss) if loss.weights.text_text else None)

    def rows(self) -> ParallelRows:
        """As `Task.rows`; tables are read as parallel texts, without images."""
        data = self.config.Data
        sources = [
            source
            if source.layout or any(PurePath(path).suffix.lower() not in TABLES for path in source.data)
            else source.model_copy(update={"layout": TEXTS.name})
            for source in data.sources
        ]
        data = data.model_copy(update={"train": sources})
        stream = SampleStream(self.config.model_copy(update={"Data": data}))
        return ParallelRows(stream, self.config, self.tokenizer, self._known)

    def build(self, initialize: bool) -> list[str]:
        """As `Task.build`: of the model the text tower and its projection are trained, not the temperature."""
        self._teacher, _ = self._stored.build()
        del self._stored
        self._teacher.eval()
        remarks = super().build(initialize)
        for name, value in self.model.named_parameters():
            if name.startswith(IMAGE) and not value.stop_gradient:
                raise ConfigError(
                    f"Tuning.lora.layers names {name}: images are not trained here; name layers of the text tower, as "
                    "text.network.encoder.layers.*"
                )
        self.model.log_logit_scale.stop_gradient = True
        if self.model.logit_bias is not None:
            self.model.logit_bias.stop_gradient = True
        return [*remarks, f"the teacher is the text tower of {self.config.Model.weights}; images stay as they are"]

    def _check(self) -> None:
        """Nothing: two encodings of a text are not compared."""

    def prepare(self, parallel: nn.Layer, scaler: paddle.amp.GradScaler) -> None:
        """As `Task.prepare`.

        Raises:
            ConfigError: images are not encoded as by the model of `Model.weights`.
        """
        if other := _different_images(self.model, self._teacher):
            raise ConfigError(
                f"Model.weights={self.config.Model.weights}: its {other} is not that of the model that is trained, so "
                "that its text tower is not the teacher; name the model that the run began with, and no "
                "Model.image.weights"
            )
        del self._teacher.image, self._teacher.image_projection
        super().prepare(parallel, scaler)

    def forward(self, batch: Batch, step: int) -> dict[str, paddle.Tensor]:
        """Return "loss", the "distance", and "text_text" where that has a weight; see `Task.forward`."""
        views = {"text_1": batch["text"]}
        teacher = self._encode_by_teacher(batch["known"])
        total, losses = self._step.forward(views, batch["ids"], batch["positions"], step, teacher=teacher)
        return {"loss": total, **losses}

    @paddle.no_grad()
    def _encode_by_teacher(self, texts: paddle.Tensor) -> paddle.Tensor:
        """Return the teacher's embeddings, `[b, D]`, of texts `[b, M]`; as many at once as the student encodes."""
        precision, size = self.config.Training.precision, self.config.Training.micro_batch or texts.shape[0]
        embeddings = []
        with nullcontext() if precision == "float32" else paddle.amp.auto_cast(dtype=precision):
            for start in range(0, texts.shape[0], size):
                embeddings.append(self._teacher.encode_text(texts[start : start + size]))
        return paddle.concat(embeddings)

    def after_update(self) -> None:
        """Nothing: the temperature is not trained."""


def _different_images(model: DualEncoder, other: DualEncoder) -> str | None:
    """The first weight of the image towers in which two models differ."""
    ours, theirs = (
        {name: value for name, value in one.state_dict().items() if name.startswith(IMAGE)} for one in (model, other)
    )
    for name in ours | theirs:
        if name not in ours or name not in theirs or not np.array_equal(ours[name].numpy(), theirs[name].numpy()):
            return name
    return None
