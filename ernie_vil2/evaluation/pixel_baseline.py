"""What plain pixels reach: the nearest training image lends its text to the query image."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np

from ernie_vil2.data.samples import Sample
from ernie_vil2.data.sources import Source
from ernie_vil2.evaluation.retrieval import recall

SIDE = 32


def pixel_embedding(image: bytes) -> np.ndarray:
    """`[32 * 32 * 3]` float32: bicubic thumbnail less its own mean, of norm one; a flat image gives zeros."""
    from PIL import Image

    thumbnail = Image.open(BytesIO(image)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(thumbnail, dtype=np.float32).ravel()
    pixels = pixels - pixels.mean()
    return pixels / max(float(np.linalg.norm(pixels)), 1e-12)


@dataclass(frozen=True)
class PixelBaseline:
    """1-based rank of the right text of every query image that has one among the training texts, `[Q]`."""

    ranks: np.ndarray
    samples: list[Sample]

    def of_queries(self, field: str | None = None, value: str | None = None) -> dict[str, dict[str, float]]:
        """Image-to-text recall of all queries, or of those whose sample has this value in a field."""
        chosen = [field is None or str(sample.fields.get(field)) == value for sample in self.samples]
        return {"image_to_text": recall(self.ranks[chosen])}


def pixel_baseline(train: Source, test: Source, block: int = 256) -> PixelBaseline:
    """Scores the texts of `test` for every image of `test` by the most similar image of `train` with that text.

    Texts are told apart by `text_name`; training images of texts that `test` lacks take no part. A test image
    whose text no training image has cannot be answered and ranks behind all. Ties count against the baseline.
    """
    queries = [test[row] for row in range(len(test))]
    texts = sorted({sample.text_name for sample in queries})
    column = {text: place for place, text in enumerate(texts)}
    known = [sample for sample in (train[row] for row in range(len(train))) if sample.text_name in column]
    known.sort(key=lambda sample: column[sample.text_name])
    gallery = np.stack([pixel_embedding(sample.image) for sample in known])  # [T, D], by text
    owners = np.array([column[sample.text_name] for sample in known])
    present, starts = np.unique(owners, return_index=True)

    ranks = []
    for start in range(0, len(queries), block):
        rows = queries[start : start + block]
        nearest = np.stack([pixel_embedding(sample.image) for sample in rows]) @ gallery.T  # [b, T]
        scores = np.full([len(rows), len(texts)], -np.inf, np.float32)
        scores[:, present] = np.maximum.reduceat(nearest, starts, axis=1)
        right = np.array([column[sample.text_name] for sample in rows])
        own = scores[np.arange(len(rows)), right]
        ranks.append((scores >= own[:, None]).sum(axis=1))
    return PixelBaseline(np.concatenate(ranks), queries)
