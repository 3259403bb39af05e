"""The rows of multi-view training: two augmentations of an image, and its caption or tags (paper, section 3)."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from contextlib import suppress

import numpy as np

from ernie_vil2.config import Config
from ernie_vil2.config.view_names import IMAGE_VIEWS, TEXT_VIEWS
from ernie_vil2.data.decoding import ImageRemark
from ernie_vil2.data.loader import Batch, ShownRow
from ernie_vil2.data.order import Draw, generator
from ernie_vil2.data.samples import SEVERAL_LINES, BadSample
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import Tokenizer
from ernie_vil2.data.workers import Arrays, RowLayout
from ernie_vil2.tasks.teacher import Teacher
from ernie_vil2.tasks.view_rows import ViewRows
from ernie_vil2.views import draw_text, tags_text, training_views


class MultiViewRows(ViewRows):
    """`image_1`, `image_2`; `text`, one encoding for both text views; `ids` `[b, 2]`, image and text, on the host;
    with a teacher `teacher` `[b, 2 W]`, its embeddings of image and text side by side.

    Args:
        views: names of the views that the loss needs; others are not made.
        teacher: what knows better.
    """

    on_host = ("ids",)

    def __init__(
        self,
        stream: SampleStream,
        config: Config,
        tokenizer: Tokenizer,
        views: Collection[str],
        teacher: Teacher | None = None,
    ):
        self._teacher = teacher
        image_views = [view for view in IMAGE_VIEWS if view in views]
        super().__init__(stream, config, tokenizer, image_views, any(view in views for view in TEXT_VIEWS))

    @property
    def layout(self) -> RowLayout:
        """As `SampleRows.layout`."""
        taught = {"teacher": ((2 * self._teacher.width,), np.float32)} if self._teacher else {}
        return {"ids": ((2,), np.int64), **taught, **super().layout}

    def fill(self, position: int, row: Arrays) -> str:
        """As `SampleRows.fill`."""
        source, sample = self.stream[position]
        row["ids"][0] = self.stream.ids(source, sample)
        if self._has_text:
            if sample.has_lines and not self.stream.views[source].caption_lines:
                warnings.warn(SEVERAL_LINES, ImageRemark, stacklevel=1)
            views = self.stream.views[source]
            text = draw_text(sample, views, generator(Draw.TEXT, self._seed, position))
            self._write_text(row, text)
            if self._teacher:
                row["teacher"][0] = self._teacher.row(sample.image_name, text)
        if self._image_views:
            images = training_views(
                sample.image,
                sample.image_name,
                len(self._image_views),
                self._image.image_size,
                self._views,
                generator(Draw.IMAGES, self._seed, position),
                self._image.background,
            )
            for view, image in zip(self._image_views, images, strict=True):
                row[view][0] = image
        return sample.image_name

    def shown(self, batch: Batch, row: int, position: int) -> ShownRow:
        """As `SampleRows.shown`, with the captions and tags, as a sentence, of which the text was drawn."""
        images, texts = super().shown(batch, row, position)
        source, sample = self.stream[position]
        views = self.stream.views[source]
        captions, tags = {}, {}
        for language in views.languages:
            with suppress(BadSample):
                captions[f"caption, {language}"] = sample.caption(language)
            if found := sample.tag_list(language):
                tags[f"tags, {language}"] = tags_text(found, language, views)
        return ShownRow(images, {**texts, **captions, **tags})
