"""What rows of images and texts have in common, whatever a task makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from ernie_vil2.config import Config
from ernie_vil2.data.loader import Batch, SampleRows, ShownRow
from ernie_vil2.data.stream import SampleStream
from ernie_vil2.data.tokenizer import PAD_ID, Tokenizer
from ernie_vil2.data.workers import Arrays, RowLayout


class ViewRows(SampleRows):
    """Image views `[b, S, S, 3]` uint8 by name, and `text` `[b, L]` int64.

    Args:
        image_views: their names.
        has_text: whether there is a text.
    """

    def __init__(
        self, stream: SampleStream, config: Config, tokenizer: Tokenizer, image_views: Sequence[str], has_text: bool
    ):
        super().__init__(stream)
        self._seed = config.Training.seed
        self._views = config.Views
        self._image = config.Model.image
        self.tokenizer = tokenizer
        self._image_views, self._has_text = image_views, has_text

    @property
    def layout(self) -> RowLayout:
        """As `SampleRows.layout`."""
        side = self._image.image_size
        layout: dict = {view: ((side, side, 3), np.uint8) for view in self._image_views}
        if self._has_text:
            layout |= {"text": ((self.tokenizer.max_length,), np.int64), "text_length": ((), np.int64)}
        return layout

    def _write_text(self, row: Arrays, text: str) -> None:
        ids = self.tokenizer.encode(text)
        row["text"][0] = PAD_ID
        row["text"][0, : len(ids)] = ids
        row["text_length"][0] = len(ids)

    def shown(self, batch: Batch, row: int, position: int) -> ShownRow:
        """As `SampleRows.shown`: the views, and the text as the model reads it."""
        texts = {"sample": batch["names"][row]}
        if self._has_text:
            texts["text, as tokens"] = " ".join(self._tokens(batch)[row])
        return ShownRow({view: batch[view][row].numpy() for view in self._image_views}, texts)

    def notes(self, batch: Batch) -> list[str]:
        """As `SampleRows.notes`; a text that fills the longest length was most likely cut."""
        tokens = self._tokens(batch) if "text" in batch else []
        lengths = list(map(len, tokens))
        if not lengths:
            return []
        longest = self.tokenizer.max_length
        unknown = sum(words.count("[UNK]") for words in tokens) / sum(lengths)
        return [f"texts of {fmean(lengths):.1f} tokens, {lengths.count(longest):,} of them cut at {longest}, "
                f"{unknown:.1%} of the tokens unknown"]  # fmt: skip

    def _tokens(self, batch: Batch) -> list[list[str]]:
        return [[self.tokenizer.tokens[id] for id in row if id != PAD_ID] for row in batch["text"].tolist()]

    def finished(self, arrays: Arrays) -> Arrays:
        """The texts as long as the longest of them."""
        if not self._has_text:
            return arrays
        lengths = arrays["text_length"]
        others = {name: array for name, array in arrays.items() if name not in ("text", "text_length")}
        return {**others, "text": arrays["text"][:, : lengths.max()]}
