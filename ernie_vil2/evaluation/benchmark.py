"""A retrieval benchmark: images, texts and which of them belong together, before anything is encoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ernie_vil2.data.samples import BadSampleReport


@dataclass(frozen=True)
class BenchmarkImage:
    """An image of the gallery. `read` gives the encoded file's bytes, and raises OSError or BadSample.

    `fields` holds what else the source says, for filters.
    """

    id: str
    read: Callable[[], bytes]
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchmarkText:
    """A text of the gallery; `fields` as for an image."""

    id: str
    text: str
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """What a reader makes of the files on disk.

    Images and texts are distinct by id and stand in the order of the files, on which protocols rely ("the first
    10,000 images"). `pairs` `[P, 2]` int64 are (image row, text row), many to many, each once, in the order of the
    files too; a row without a pair is in the gallery, but no query. `rows` counts the entries that were read and
    those of them that could not be used. `files` are the annotation and shard files it was read from.
    """

    name: str
    images: Sequence[BenchmarkImage]
    texts: Sequence[BenchmarkText]
    pairs: np.ndarray
    rows: BadSampleReport
    files: tuple[Path, ...] = ()

    def select(self, images: Sequence[int] | None = None, texts: Sequence[int] | None = None) -> Benchmark:
        """The benchmark of these rows alone, in this order, with the pairs that have both sides; None: all rows."""
        chosen = [np.arange(len(side)) if rows is None else np.asarray(rows, np.int64)
                  for side, rows in ((self.images, images), (self.texts, texts))]  # fmt: skip
        pairs = self.pairs
        for column, (side, rows) in enumerate(zip((self.images, self.texts), chosen, strict=True)):
            place = np.full(len(side), -1, np.int64)
            place[rows] = np.arange(len(rows))
            pairs = pairs.copy()
            pairs[:, column] = place[pairs[:, column]]
            pairs = pairs[pairs[:, column] >= 0]
        return replace(
            self,
            images=[self.images[row] for row in chosen[0]],
            texts=[self.texts[row] for row in chosen[1]],
            pairs=pairs,
        )
