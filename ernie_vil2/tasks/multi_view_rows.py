"""The rows of multi-view training: two augmentations of an image, and its caption or tags (paper, section 3)."""

from __future__ import annotations

import warnings
from collections.abc import Collection

import numpy as np

from ernie_vil2.config import Config
from ernie_vil2.config.view_names import IMAGE_VIEWS, TEXT_VIEWS
from ernie_vil2.data.decoding import ImageRemark
from ernie_vil2.data.loader import SampleRows
from ernie_vil2.data.order import Draw, generator
from ernie_vil2.data.samples import SEVERAL_LINES
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import PAD_ID, Tokenizer
from ernie_vil2.data.workers import Arrays, Layout
from ernie_vil2.views import draw_text, training_views


class MultiViewRows(SampleRows):
    """`image_1`, `image_2` `[b, S, S, 3]` uint8; `text` `[b, L]` int64, one encoding for both text views; `ids`
    `[b, 2]` int64, image and text, on the host.

    Args:
        views: names of the views that the loss needs; others are not made.
    """

    on_host = ("ids",)

    def __init__(self, stream: SampleStream, config: Config, tokenizer: Tokenizer, views: Collection[str]):
        super().__init__(stream)
        self._seed = config.Training.seed
        self._views = config.Views
        self._image = config.Model.image
        self.tokenizer = tokenizer
        self._image_views = [view for view in IMAGE_VIEWS if view in views]
        self._has_text = any(view in views for view in TEXT_VIEWS)

    @property
    def layout(self) -> Layout:
        """As `SampleRows.layout`."""
        side = self._image.image_size
        layout: dict = {"ids": ((2,), np.int64)} | {view: ((side, side, 3), np.uint8) for view in self._image_views}
        if self._has_text:
            layout |= {"text": ((self.tokenizer.max_length,), np.int64), "text_length": ((), np.int64)}
        return layout

    def fill(self, position: int, row: Arrays) -> str:
        """As `SampleRows.fill`."""
        source, sample = self.stream[position]
        row["ids"][0] = self.stream.ids(source, sample)
        if self._has_text:
            if sample.has_lines and not self.stream.views[source].caption_lines:
                warnings.warn(SEVERAL_LINES, ImageRemark, stacklevel=1)
            text = draw_text(sample, self.stream.views[source], generator(Draw.TEXT, self._seed, position))
            ids = self.tokenizer.encode(text)
            row["text"][0] = PAD_ID
            row["text"][0, : len(ids)] = ids
            row["text_length"][0] = len(ids)
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

    def finished(self, arrays: Arrays) -> Arrays:
        """The texts as long as the longest of them."""
        if not self._has_text:
            return arrays
        lengths = arrays["text_length"]
        others = {name: array for name, array in arrays.items() if name not in ("text", "text_length")}
        return {**others, "text": arrays["text"][:, : lengths.max()]}
