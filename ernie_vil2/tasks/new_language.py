"""Teaching a finished model another language, from parallel texts alone.

The model's own text tower is the teacher. The student, a text tower that also reads the new language, learns to embed a
text in any of the languages where the teacher embeds its translation into the language that the teacher knows (Reimers
and Gurevych 2020, arXiv 2004.09813; for CLIP Carlsson et al. 2022, M-CLIP). Images are neither read nor trained: the
image tower and its projection stay equal to the teacher's to the last bit, so an index of images stays valid.
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
from ernie_vil2.data.samples import hash_id
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import TextTokenizer
from ernie_vil2.device.transfers import copy_to_host
from ernie_vil2.losses import MultiViewLoss, build_loss
from ernie_vil2.losses.tiles import LocalAndGathered, Scalars
from ernie_vil2.models import DualEncoder
from ernie_vil2.models.weights.format import read_model
from ernie_vil2.tasks.contrastive_step import Losses, Views
from ernie_vil2.tasks.multi_view import MultiViewTask

# Prefixes of the parameters that encode images, which stay unchanged.
IMAGE_PREFIXES = ("image.", "image_projection.")


class ParallelRows(ViewRows):
    """Rows of parallel texts.

    `text` `[b, L]` is for the student, `teacher_text` `[b, M]` its translation for the teacher. `ids` `[b, 2]` are
    both the id of the translation, on the host.
    """

    host_arrays = ("ids",)

    def __init__(
        self, stream: SampleStream, config: Config, tokenizer: TextTokenizer, teacher_tokenizer: TextTokenizer
    ):
        super().__init__(stream, config, tokenizer, image_views=(), has_text=True)
        self._tokenizers["teacher_text"] = teacher_tokenizer
        self._teacher_language = config.Tuning.known_language

    @property
    def layout(self) -> RowLayout:
        return {"ids": ((2,), np.int64), **super().layout}

    def fill(self, position: int, row: Arrays) -> str:
        """Write a sample into a row; the language of `text` is drawn by its weight."""
        source, sample = self.stream[position]
        translation = sample.caption(self._teacher_language)
        text, _ = draw_texts(sample, self.stream.views[source], make_generator(Purpose.TEXT, self._seed, position))
        row["ids"][0] = hash_id(translation)
        self._write_text(row, translation, "teacher_text")
        self._write_text(row, text)
        return sample.image_name

    def preview(self, batch: Batch, row: int, position: int) -> RowPreview:
        """Return the texts of a row as the model reads them, and as they are written."""
        images, texts = super().preview(batch, row, position)
        captions = self.stream[position][1].captions
        captions_by_title = {f"caption, {language}": text for language, text in captions.items()}
        return RowPreview(images, {**texts, **captions_by_title})


class DistanceLoss:
    """Mean squared distance to the teacher's embeddings, `2 - 2 cos`, and optionally a contrast with them.

    Args:
        contrast: loss over the pair `text_text`, whose columns are the teacher's embeddings; None: the distance alone.
    """

    views = ("text_1",)

    def __init__(self, contrast: MultiViewLoss | None):
        self._contrast = contrast

    def __call__(
        self, local: Views, gathered: Views, scalars: Scalars, *loss_arguments: Any, teacher: LocalAndGathered
    ) -> Losses:
        """Return the weighted sum and the losses by name, as `MultiViewLoss` does.

        Args:
            local: as for `MultiViewLoss`.
            gathered: as for `MultiViewLoss`.
            scalars: as for `MultiViewLoss`.
            loss_arguments: the other arguments of `MultiViewLoss`.
            teacher: `[b, D]` of this rank and `[N, D]` of all ranks, the teacher's embeddings.
        """
        local_teacher, gathered_teacher = teacher
        # The divisor is the number of rows of all ranks, so that the sum over the ranks is the mean.
        distance = (local["text_1"] - local_teacher).square().sum() / gathered["text_1"].shape[0]
        losses = {"distance": distance}
        if self._contrast is None:
            return distance, losses
        local = {**local, "text_2": local_teacher}
        gathered = {**gathered, "text_2": gathered_teacher}
        contrast, contrasts = self._contrast(local, gathered, scalars, *loss_arguments)
        return distance + contrast, losses | contrasts


class NewLanguageTask(MultiViewTask):
    """Training of a text tower to embed texts where the text tower of `Model.weights` embeds their translations.

    Raises:
        ConfigError: there is no model to learn from, or the loss needs images.
    """

    has_plan = False

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
        self._stored_teacher = read_model(config.Model.weights)
        if self._stored_teacher.tokens is None:
            raise ConfigError(f"Model.weights: {config.Model.weights} has no vocabulary, which the teacher needs")
        self._teacher_tokenizer = self._stored_teacher.build_tokenizer(self._stored_teacher.config.Data.max_length)
        super().__init__(config)

    def _build_loss(self) -> DistanceLoss:
        loss = self.config.Loss
        return DistanceLoss(build_loss(loss) if loss.weights.text_text else None)

    def open_rows(self) -> ParallelRows:
        """Open the training data; tables are read as parallel texts, without images, unless a layout is named.

        Raises:
            ConfigError: the lines of a caption are captions of their own.
            FileNotFoundError, ValueError: see `SampleStream`.
        """
        data = self.config.Data
        sources = []
        for source in data.sources:
            are_tables = all(PurePath(path).suffix.lower() in TABLES for path in source.data)
            if are_tables and not source.layout:
                source = source.model_copy(update={"layout": TEXTS.name})
            sources.append(source)
        data = data.model_copy(update={"train": sources})
        stream = SampleStream(self.config.model_copy(update={"Data": data}))
        # A line for the student has no translation of its own: the teacher reads all lines of the other language.
        if any(views.caption_lines for views in stream.views):
            raise ConfigError(
                "Training.task=new_language: Views.caption_lines would pair one line with the translation of all; give "
                "each line a row of its own, and set Views.caption_lines=false"
            )
        return ParallelRows(stream, self.config, self.tokenizer, self._teacher_tokenizer)

    def build(self, initialize: bool) -> list[str]:
        """Build student and teacher; only the text tower and its projection are trained, not the temperature."""
        self._teacher, _ = self._stored_teacher.build()
        del self._stored_teacher  # frees its weights
        self._teacher.eval()
        lines = super().build(initialize)
        for name, value in self.model.named_parameters():
            if name.startswith(IMAGE_PREFIXES) and not value.stop_gradient:
                raise ConfigError(
                    f"Tuning.lora.layers names {name}: images are not trained here; name layers of the text tower, as "
                    "text.network.encoder.layers.*"
                )
        self.model.log_logit_scale.stop_gradient = True
        if self.model.logit_bias is not None:
            self.model.logit_bias.stop_gradient = True
        return [*lines, f"the teacher is the text tower of {self.config.Model.weights}; images stay as they are"]

    def _check(self) -> None:
        """Check nothing: two encodings of a text are not compared."""

    def prepare(self, parallel: nn.Layer, scaler: paddle.amp.GradScaler) -> None:
        """Get ready for the first step, see `Task.prepare`.

        Raises:
            ConfigError: the image tower differs from the one of `Model.weights`.
        """
        different_name = _find_different_image_weight(self.model, self._teacher)
        if different_name:
            raise ConfigError(
                f"Model.weights={self.config.Model.weights}: its {different_name} is not that of the model that is "
                "trained, so that its text tower is not the teacher; name the model that the run began with, and no "
                "Model.image.weights"
            )
        del self._teacher.image, self._teacher.image_projection  # only its text tower is needed
        super().prepare(parallel, scaler)

    def forward(self, batch: Batch, step: int) -> dict[str, paddle.Tensor]:
        """Return "loss", the "distance", and "text_text" if that has a weight; see `Task.forward`."""
        views = {"text_1": batch["text"]}
        teacher = self._encode_by_teacher(batch["teacher_text"])
        total, losses = self._step.forward(views, batch["ids"], batch["positions"], step, teacher=teacher)
        return {"loss": total, **losses}

    @paddle.no_grad()
    def _encode_by_teacher(self, texts: paddle.Tensor) -> paddle.Tensor:
        """Return the teacher's embeddings `[b, D]` of texts `[b, M]`, encoded in micro batches as by the student."""
        precision = self.config.Training.precision
        chunk_size = self.config.Training.micro_batch or texts.shape[0]
        embeddings = []
        with nullcontext() if precision == "float32" else paddle.amp.auto_cast(dtype=precision):
            for start in range(0, texts.shape[0], chunk_size):
                embeddings.append(self._teacher.encode_text(texts[start : start + chunk_size]))
        return paddle.concat(embeddings)

    def after_update(self) -> None:
        """Do nothing: the temperature is not trained."""


def _find_different_image_weight(model: DualEncoder, teacher: DualEncoder) -> str | None:
    """Return the name of the first weight in which the image towers of two models differ."""
    weights = {name: value for name, value in model.state_dict().items() if name.startswith(IMAGE_PREFIXES)}
    teacher_weights = {name: value for name, value in teacher.state_dict().items() if name.startswith(IMAGE_PREFIXES)}
    for name in weights | teacher_weights:
        if name not in weights or name not in teacher_weights:
            return name
        if not np.array_equal(copy_to_host(weights[name]), copy_to_host(teacher_weights[name])):
            return name
    return None
