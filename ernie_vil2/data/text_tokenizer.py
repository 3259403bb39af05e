"""What every tokenizer has."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np


class TextTokenizer(ABC):
    """Texts to ids, whatever the vocabulary is of; `open_tokenizer` makes one from files.

    Attributes:
        tokens: in the order of their ids.
        rules: how a text is split and cleaned, see `Model.text.tokenizer`.
        max_length: tokens of a text, special ones included.
        pad_id: what a shorter text is filled up with, on the right.
        unknown_id: of what is not in the vocabulary; None: everything is.
        to_full_length: whether every text is filled up to `max_length`; else to the longest of its batch.
    """

    tokens: list[str]
    rules: str
    max_length: int
    pad_id: int
    unknown_id: int | None
    to_full_length: bool

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    @property
    def entries(self) -> int:
        """Number of ids that a token has; a `tokenizer.json` may leave ids out."""
        return sum(map(bool, self.tokens))

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of one text, not padded, at most `max_length`."""

    @abstractmethod
    def cuts(self, text: str) -> bool:
        """Whether a text is longer than what is kept of it."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Ids of a batch, `[B, L]` int64, padded to the longest of its texts, or as `to_full_length` says."""
        rows = [self.encode(text) for text in texts]
        length = self.max_length if self.to_full_length else max(map(len, rows))
        ids = np.full([len(rows), length], self.pad_id, dtype=np.int64)
        for row, values in zip(ids, rows, strict=True):
            row[: len(values)] = values
        return ids

    @abstractmethod
    def files(self) -> dict[str, str]:
        """What a folder needs to hold so that the tokenizer can be opened from it: text of each file by name."""

    @abstractmethod
    def identity(self) -> dict[str, object]:
        """What its ids depend on, for fingerprints."""
