"""What plain pixels reach: the nearest training image lends its text to the query image."""

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import BadSampleReport, Sample, SampleSequence
from ernie_vil2.evaluation.retrieval import recall

SIDE = 32


def pixel_embedding(image: bytes, name: str = "?") -> np.ndarray:
    """`[32 * 32 * 3]` float32: bicubic thumbnail less its own mean, of norm one; a flat image gives zeros.

    Raises:
        BadSample: the image cannot be decoded.
    """
    from PIL import Image

    thumbnail = Image.fromarray(decode_image(image, name)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(thumbnail, dtype=np.float32).ravel()
    pixels = pixels - pixels.mean()
    return pixels / max(float(np.linalg.norm(pixels)), 1e-12)


@dataclass(frozen=True)
class PixelBaseline:
    """The recall of the nearest training image.

    Attributes:
        ranks: 1-based rank of the right text of every query image, `[Q]`; behind all where no training image has it.
        samples: the queries, without their bytes.
        bad_samples: of either source, that could not be used.
    """

    ranks: np.ndarray
    samples: list[Sample]
    bad_samples: BadSampleReport

    def select_queries(self, field: str | None = None, value: str | None = None) -> dict[str, dict[str, float]]:
        """Return the image-to-text recall of all queries, or of those with this value in a field; {} if none has it."""
        if field is None:
            return {"image_to_text": recall(self.ranks)}
        values = [sample.fields.get(field) for sample in self.samples]
        chosen = [one is not None and str(one) == value for one in values]
        return {"image_to_text": recall(self.ranks[chosen])} if any(chosen) else {}


def pixel_baseline(train: SampleSequence, test: SampleSequence, block: int = 256) -> PixelBaseline:
    """Scores the texts of `test` for every image of `test` by the most similar image of `train` with that text.

    Texts are distinguished by `text_name`; training images of texts that `test` lacks take no part. A test image
    whose text no training image has cannot be answered and ranks behind all. Ties count against the baseline.
    Samples that cannot be used are counted and left out.

    Raises:
        ValueError: no training image that can be used has a text of `test`.
    """
    report = BadSampleReport()
    queries = list(_embedded(test, report))
    texts = sorted({sample.text_name for sample, _ in queries})
    column = {text: position for position, text in enumerate(texts)}
    known = sorted(_embedded(train, report, column), key=lambda each: column[each[0].text_name])
    if not known:
        raise ValueError(f"pixel baseline: no training image has a text of the data; {report}")
    gallery = np.stack([embedding for _, embedding in known])  # [T, D], by text
    owners = np.array([column[sample.text_name] for sample, _ in known])
    present, starts = np.unique(owners, return_index=True)

    ranks = []
    for start in range(0, len(queries), block):
        rows = queries[start : start + block]
        nearest = np.stack([embedding for _, embedding in rows]) @ gallery.T  # [b, T]
        scores = np.full([len(rows), len(texts)], -np.inf, np.float32)
        scores[:, present] = np.maximum.reduceat(nearest, starts, axis=1)
        right = np.array([column[sample.text_name] for sample, _ in rows])
        own = scores[np.arange(len(rows)), right]
        ranks.append((scores >= own[:, None]).sum(axis=1))
    return PixelBaseline(np.concatenate(ranks), [sample for sample, _ in queries], report)


def _embedded(
    source: SampleSequence, report: BadSampleReport, texts: Container[str] | None = None
) -> Iterator[tuple[Sample, np.ndarray]]:
    """The samples with one of the texts, or all, without their bytes."""
    for row in range(len(source)):
        with report.attempt():
            sample = source[row]
            if texts is None or sample.text_name in texts:
                yield replace(sample, image=b""), pixel_embedding(sample.image, sample.image_name)
