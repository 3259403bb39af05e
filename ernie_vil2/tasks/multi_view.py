"""Multi-view contrastive pretraining (arXiv 2209.15270, section 3), optionally with a teacher's embeddings.

The embeddings of any model can teach. They lie in a folder as `ernie-vil2 embed` writes it (format numpy):
`image_embeddings.npy` `[N, W]` with `images.jsonl` (`{"image_id"}`), and `text_embeddings.npy` `[M, W]` with
`texts.jsonl` (`{"text"}`), rows in the same order.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ernie_vil2.config import Config, ConfigError, TeacherConfig
from ernie_vil2.config.sections import IMAGE_VIEWS, TEXT_VIEWS
from ernie_vil2.data.augment import draw_image_views, draw_texts, format_tags
from ernie_vil2.data.decoding import ImageRemark
from ernie_vil2.data.loader import Batch, RowPreview, ViewRows
from ernie_vil2.data.loader_workers import Arrays, RowLayout
from ernie_vil2.data.order import Purpose, make_generator
from ernie_vil2.data.samples import SEVERAL_LINES, BadSample, parse_object
from ernie_vil2.data.source_files import check_widths, open_embeddings, read_numbered_lines
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import TextTokenizer
from ernie_vil2.device.transfers import copy_to_host
from ernie_vil2.losses import MultiViewLoss, build_loss, get_initial_bias
from ernie_vil2.losses.multi_view import teacher_distance, teacher_loss
from ernie_vil2.losses.tiles import LocalAndGathered, Scalars
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.tasks.contrastive_step import Losses, Views, build_step
from ernie_vil2.tasks.task import Task

# Remark on a sample.
NO_TEACHER_EMBEDDING = "image or text without the teacher's embedding"


class MultiViewRows(ViewRows):
    """Rows of pretraining.

    `image_1` and `image_2` are views of the image. `text` serves both text views; with `Views.long_caption` it is the
    first, and `text_2` the second. `ids` `[b, 2]` are image id and text id, on the host. `teacher` `[b, 2 W]`, if there
    is a teacher, holds its embeddings of image and text side by side.

    Args:
        stream: the samples by their position.
        config: configuration of the run.
        tokenizer: tokenizer of the texts.
        views: names of the views that the loss needs; others are not made.
        teacher: embeddings of a teacher.
    """

    host_arrays = ("ids",)

    def __init__(
        self,
        stream: SampleStream,
        config: Config,
        tokenizer: TextTokenizer,
        views: Collection[str],
        teacher: Teacher | None = None,
    ):
        self._teacher = teacher
        image_views = [view for view in IMAGE_VIEWS if view in views]
        super().__init__(stream, config, tokenizer, image_views, any(view in views for view in TEXT_VIEWS))
        if config.Views.long_caption and TEXT_VIEWS[1] in views:
            self._tokenizers["text_2"] = tokenizer

    @property
    def layout(self) -> RowLayout:
        layout: dict = {"ids": ((2,), np.int64)}
        if self._teacher:
            layout["teacher"] = (2 * self._teacher.width,), np.float32
        return {**layout, **super().layout}

    def fill(self, position: int, row: Arrays) -> str:
        source, sample = self.stream[position]
        row["ids"][0] = self.stream.ids(source, sample)
        if self._has_text:
            views = self.stream.views[source]
            if sample.has_several_lines and not views.caption_lines:
                warnings.warn(SEVERAL_LINES, ImageRemark, stacklevel=1)
            text, long_caption = draw_texts(sample, views, make_generator(Purpose.TEXT, self._seed, position))
            self._write_text(row, text)
            if "text_2" in self._tokenizers:
                self._write_text(row, long_caption, "text_2")
            if self._teacher:
                row["teacher"][0] = self._teacher.get_embeddings(sample.image_name, text)
        if self._image_views:
            images = draw_image_views(
                sample.image,
                sample.image_name,
                len(self._image_views),
                self._image.image_size,
                self._views,
                make_generator(Purpose.IMAGES, self._seed, position),
                self._image.background,
            )
            for view, image in zip(self._image_views, images, strict=True):
                row[view][0] = image
        return sample.image_name

    def collate(self, arrays: Arrays) -> Arrays:
        """Cut both texts to the same length, because the tower encodes them at once."""
        if "text_2" in arrays:
            arrays["text_length"] = np.maximum(arrays["text_length"], arrays["text_2_length"])
            arrays["text_2_length"] = arrays["text_length"]
        return super().collate(arrays)

    def preview(self, batch: Batch, row: int, position: int) -> RowPreview:
        """Return the views of a row, and the captions and tags from which its text was drawn."""
        images, texts = super().preview(batch, row, position)
        source, sample = self.stream[position]
        views = self.stream.views[source]
        captions, tags = {}, {}
        for language in views.languages:
            with suppress(BadSample):
                captions[f"caption, {language}"] = sample.caption(language)
            tag_list = sample.tag_list(language)
            if tag_list:
                tags[f"tags, {language}"] = format_tags(tag_list, language, views)
        return RowPreview(images, {**texts, **captions, **tags})


class MultiViewTask(Task):
    """A dual encoder that contrasts the view pairs whose weight is not zero; see `Task`.

    Args:
        config: configuration of the run.

    Raises:
        ValueError: a vocabulary that cannot be read, or a tower that cannot be built.
    """

    evaluators: Sequence[str] = ("retrieval",)
    has_embeddings = True
    has_plan = True

    def __init__(self, config: Config):
        super().__init__(config)
        self.teacher: Teacher | None = None
        self.loss: Any = self._build_loss()

    def _build_loss(self) -> Any:
        loss, teacher = build_loss(self.config.Loss), self.config.Tuning.teacher
        if teacher is None:
            return loss
        self.teacher = Teacher(teacher.embeddings)
        return DistillationLoss(loss, teacher)

    def open_rows(self) -> ViewRows:
        return MultiViewRows(SampleStream(self.config), self.config, self.tokenizer, self.loss.views, self.teacher)

    def build(self, initialize: bool) -> list[str]:
        """Build the model; a tower that encodes no view is not trained."""
        config = self.config
        if initialize:
            self._check()
        self.model = build_dual_encoder(
            config.Model, self.tokenizer.vocab_size, config.Loss.temperature, get_initial_bias(config.Loss)
        )
        teaches_distance = config.Tuning.teacher is not None and config.Tuning.teacher.distance
        if self.teacher and teaches_distance and self.teacher.width != self.model.embed_dim:
            raise ConfigError(
                f"Tuning.teacher.distance: the teacher's embeddings are {self.teacher.width} wide, the model's "
                f"{self.model.embed_dim}; set Model.embed_dim={self.teacher.width}"
            )
        self.model.freeze_unused_towers(self.loss.views)
        return self._set_up(initialize)

    def _check(self) -> None:
        """Raise ConfigError if a loss of this configuration could teach nothing."""
        check_text_pair(self.config)

    def prepare(self, parallel: nn.Layer, scaler: paddle.amp.GradScaler) -> None:
        self._step = build_step(self.model, self.loss, self.config, parallel, scaler)

    def forward(self, batch: Batch, step: int) -> dict[str, paddle.Tensor]:
        """Return "loss", and the loss of each view pair; see `Task.forward`."""
        # Both text views are encodings of `text`, unless there is a long caption.
        array_names = {"text_1": "text"}
        if "text_2" not in batch:
            array_names["text_2"] = "text"
        views = {view: batch[array_names.get(view, view)] for view in self.loss.views}
        loss_inputs = {}
        if self.teacher:
            loss_inputs["teacher"] = batch["teacher"]
        total, pairs = self._step.forward(views, batch["ids"], batch["positions"], step, **loss_inputs)
        return {"loss": total, **pairs}

    def after_update(self) -> None:
        """Clamp the temperature to its bounds."""
        self.model.clamp_temperature(self.config.Loss.max_logit_scale)

    def get_log_values(self) -> dict[str, float]:
        """Return the scalars that the loss learns."""
        return {name: copy_to_host(value).item() for name, value in self.model.scalars.items()}


def check_text_pair(config: Config) -> None:
    """Raise ConfigError if the text-text pair has a weight, but both encodings of a text would be equal.

    They differ by dropout or long captions. The text towers of CLIP and SigLIP are trained without dropout. Tags make
    no difference: they take the place of the caption in both encodings.
    Whether a user's own tower has dropout is unknown; it is not refused.
    """
    text = config.Model.text
    is_varied = text.dropout or text.attention_dropout or config.Views.long_caption or text.is_user_defined
    if config.Loss.weights.text_text and not is_varied:
        raise ConfigError(
            "Loss.weights.text_text: without dropout both encodings of a text are equal, and nothing is learnt from "
            "them: set Model.text.dropout (0.1 in the paper), or Loss.weights.text_text=0"
        )


class Teacher:
    """Embeddings of a teacher by image id and by text, memory-mapped.

    Args:
        folder: the folder that `ernie-vil2 embed` has written.

    Attributes:
        width: W, the width of the embeddings.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the files are damaged or do not belong together.
    """

    def __init__(self, folder: str):
        self._images, self._image_rows = _open_teacher_embeddings(Path(folder), "image", "image_id")
        self._texts, self._text_rows = _open_teacher_embeddings(Path(folder), "text", "text")
        self.width = self._images.shape[1]
        check_widths(folder, self._images, self._texts)

    def get_embeddings(self, image_id: str, text: str) -> np.ndarray:
        """Return `[2 W]`, both embeddings, L2-normalised.

        If one of them is missing, zero or not finite, return zeros, with a warning.
        """
        embeddings = np.zeros([2, self.width], np.float32)
        image_row, text_row = self._image_rows.get(image_id), self._text_rows.get(text)
        if image_row is not None and text_row is not None:
            embeddings[0], embeddings[1] = self._images[image_row], self._texts[text_row]
        # Embeddings in the folder may have any norm. In float16, squares above 65,504 would overflow.
        norms = np.array([[np.linalg.norm(embedding)] for embedding in embeddings])
        if not (np.isfinite(norms) & (norms > 0)).all():
            warnings.warn(NO_TEACHER_EMBEDDING, ImageRemark, stacklevel=1)
            return np.zeros(2 * self.width, np.float32)
        return (embeddings / norms).flatten()


def _open_teacher_embeddings(folder: Path, kind: str, key: str) -> tuple[np.ndarray, dict[str, int]]:
    """Return the embeddings, memory-mapped, and the row of each name; of equal names the first row counts."""
    path, names_path = folder / f"{kind}_embeddings.npy", folder / f"{kind}s.jsonl"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; ernie-vil2 embed writes a teacher's embeddings")
    embeddings = open_embeddings(path)
    rows: dict[str, int] = {}
    num_names = 0
    for where, line in read_numbered_lines(names_path):
        name = parse_object(line, where).get(key)
        if name is None:
            raise ValueError(f"{where}: no {key}")
        rows.setdefault(str(name), num_names)
        num_names += 1
    if num_names != len(embeddings):
        raise ValueError(
            f"{names_path}: {num_names} rows for {len(embeddings)} embeddings; the folder mixes two runs, extract again"
        )
    return embeddings, rows


class DistillationLoss:
    """A multi-view loss with a teacher's terms added; see `MultiViewLoss`."""

    def __init__(self, loss: MultiViewLoss, config: TeacherConfig):
        self.views, self.weights = loss.views, loss.weights
        self._loss, self._config = loss, config

    def __call__(
        self, local: Views, gathered: Views, scalars: Scalars, *loss_arguments: Any, teacher: LocalAndGathered
    ) -> Losses:
        """Return the weighted sum, and the losses of `MultiViewLoss` with "teacher" among them.

        Args:
            local: as for `MultiViewLoss`.
            gathered: as for `MultiViewLoss`.
            scalars: as for `MultiViewLoss`.
            loss_arguments: the other arguments of `MultiViewLoss`.
            teacher: `[b, 2 W]` of this rank and `[N, 2 W]` of all ranks, see `Teacher.get_embeddings`.
        """
        total, losses = self._loss(local, gathered, scalars, *loss_arguments)
        images = local["image_1"], gathered["image_1"]
        texts = local["text_1"], gathered["text_1"]
        divergence = teacher_loss(images, texts, teacher, scalars["logit_scale"], self._config.logit_scale)
        total = total + self._config.weight * divergence
        losses = {**losses, "teacher": divergence}
        if self._config.distance:
            embeddings = paddle.concat([images[0], texts[0]], axis=1)
            losses["teacher_distance"] = teacher_distance(embeddings, teacher)
            total = total + self._config.distance * losses["teacher_distance"]
        return total, losses
