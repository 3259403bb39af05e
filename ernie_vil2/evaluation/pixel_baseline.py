"""Baseline without a model: the nearest training image by pixels lends its text to the query image."""

from collections.abc import Container
from dataclasses import dataclass, replace

import numpy as np

from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import BadSampleReport, Sample, SampleSequence
from ernie_vil2.evaluation.retrieval import recall

# Side of the thumbnails that are compared, the size of CIFAR's images. Their memory grows with the square of the side.
THUMBNAIL_SIDE = 32


def embed_pixels(image: bytes, name: str = "?") -> np.ndarray:
    """Return a bicubic thumbnail minus its mean, with norm 1, `[32 * 32 * 3]` float32; zeros for a flat image.

    Raises:
        BadSample: the image cannot be decoded.
    """
    from PIL import Image

    size = (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    thumbnail = Image.fromarray(decode_image(image, name)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(thumbnail, dtype=np.float32).ravel()
    pixels = pixels - pixels.mean()
    return pixels / max(float(np.linalg.norm(pixels)), 1e-12)


@dataclass(frozen=True)
class PixelBaseline:
    """Ranks that the nearest training image gives to the right texts.

    Attributes:
        ranks: `[Q]`, rank of the best right text of every query image, from 1; behind all other texts if no training
            image has one.
        samples: the first sample of each query image, without its bytes.
        bad_samples: samples of either source that could not be used.
    """

    ranks: np.ndarray
    samples: list[Sample]
    bad_samples: BadSampleReport

    def select_queries(self, field: str | None = None, value: str | None = None) -> dict[str, dict[str, float]]:
        """Return the image-to-text recall of all queries, or of those with this value in a field; {} if none has it."""
        if field is None:
            return {"image_to_text": recall(self.ranks)}
        is_selected = []
        for sample in self.samples:
            field_value = sample.fields.get(field)
            # None is no value, even if the user asks for "None".
            is_selected.append(field_value is not None and str(field_value) == value)
        if not any(is_selected):
            return {}
        return {"image_to_text": recall(self.ranks[is_selected])}


def compute_pixel_baseline(train: SampleSequence, test: SampleSequence, block: int = 256) -> PixelBaseline:
    """Rank the texts of `test` for every image of `test` by the most similar image of `train` with that text.

    Texts are distinguished by `text_name`; of an image with several texts each is right. Training images of texts that
    `test` lacks are ignored. A test image whose text no training image has ranks behind all. Ties count against the
    baseline. Samples that cannot be used are counted and left out.

    Args:
        train: training samples.
        test: test samples.
        block: test images that are scored at once.

    Raises:
        ValueError: no training image that can be used has a text of `test`.
    """
    report = BadSampleReport()
    test_samples, test_embeddings = _embed_samples(test, report)
    texts = sorted({sample.text_name for sample in test_samples})
    column_of_text = {text: column for column, text in enumerate(texts)}
    # Samples of one image, which have its name and its pixels, are one query.
    queries: dict[tuple[str, bytes], Sample] = {}
    right_columns: dict[tuple[str, bytes], list[int]] = {}
    for sample, embedding in zip(test_samples, test_embeddings, strict=True):
        key = sample.image_name, embedding.tobytes()
        queries.setdefault(key, sample)
        right_columns.setdefault(key, []).append(column_of_text[sample.text_name])

    references, reference_embeddings = _embed_samples(train, report, column_of_text)
    if not references:
        raise ValueError(f"pixel baseline: no training image has a text of the data; {report}")
    # Order the training images by text: reduceat needs the images of a text to be neighbours.
    reference_columns = np.array([column_of_text[sample.text_name] for sample in references])
    order = np.argsort(reference_columns, kind="stable")
    gallery = np.stack(reference_embeddings)[order]  # [T, D]
    scored_columns, starts = np.unique(reference_columns[order], return_index=True)

    ranks = []
    keys = list(queries)
    for start in range(0, len(keys), block):
        block_keys = keys[start : start + block]
        similarities = np.stack([np.frombuffer(pixels, np.float32) for _, pixels in block_keys]) @ gallery.T  # [b, T]
        # The score of a text is the score of its nearest image; texts without an image stay at -inf.
        scores = np.full([len(block_keys), len(texts)], -np.inf, np.float32)
        scores[:, scored_columns] = np.maximum.reduceat(similarities, starts, axis=1)
        is_right = np.zeros(scores.shape, bool)
        for row, key in enumerate(block_keys):
            is_right[row, right_columns[key]] = True
        right_scores = np.where(is_right, scores, -np.inf).max(axis=1, keepdims=True)
        ranks.append(1 + ((scores >= right_scores) & ~is_right).sum(axis=1))
    return PixelBaseline(np.concatenate(ranks), list(queries.values()), report)


def _embed_samples(
    source: SampleSequence, report: BadSampleReport, texts: Container[str] | None = None
) -> tuple[list[Sample], list[np.ndarray]]:
    """Return samples without their bytes, and their embeddings; with `texts`, only samples that have one of them."""
    samples, embeddings = [], []
    for row in range(len(source)):
        with report.attempt():
            sample = source[row]
            if texts is None or sample.text_name in texts:
                embeddings.append(embed_pixels(sample.image, sample.image_name))
                samples.append(replace(sample, image=b""))
    return samples, embeddings
