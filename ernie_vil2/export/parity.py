"""Comparison of an export with its model on real inputs: embeddings, and the closest images of texts."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ernie_vil2.encoder import ErnieViL2, ImageLike

TOP_K = 10  # closest images that `compare_rankings` looks at, as many as R@10


class Encoder(Protocol):
    """An export that encodes images and texts."""

    def encode_images(self, images: Sequence[ImageLike], /) -> np.ndarray:
        """Return embeddings `[N, D]` of length 1."""

    def encode_texts(self, texts: Sequence[str], /) -> np.ndarray:
        """Return embeddings `[N, D]` of length 1."""


def compare(
    model: ErnieViL2, exported: Encoder, images: Sequence[ImageLike], texts: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Measure how far the embeddings of an export are from those of the model.

    Returns:
        For `images` and for `texts`, if there are any: `num_inputs`, `max_difference` between two numbers, and
        `min_cosine` between two embeddings. If there are both, `top_10` from `compare_rankings`.
    """
    report: dict[str, dict[str, float]] = {}
    embeddings = {}
    for side, inputs in (("images", images), ("texts", texts)):
        if not len(inputs):
            continue
        expected = getattr(model, f"encode_{side}")(inputs)
        actual = getattr(exported, f"encode_{side}")(inputs)
        embeddings[side] = expected, actual
        report[side] = {
            "num_inputs": len(inputs),
            "max_difference": float(np.abs(expected - actual).max()),
            "min_cosine": float((expected * actual).sum(axis=1).min()),
        }
    if len(embeddings) == 2:
        report["top_10"] = compare_rankings(embeddings["images"], embeddings["texts"])
    return report


def compare_rankings(images: Sequence[np.ndarray], texts: Sequence[np.ndarray]) -> dict[str, float]:
    """Compare the ten images closest to each text in two backends.

    Args:
        images: embeddings of the images in both backends, `[N, D]` each.
        texts: embeddings of the texts in both backends, `[M, D]` each.

    Returns:
        `same_images`: share of the texts with the same ten images; `same_order`: also in the same order;
        `mean_overlap`: share of the ten images that both backends find, mean over the texts.
    """
    closest = []
    for image_embeddings, text_embeddings in zip(images, texts, strict=True):
        scores = text_embeddings @ image_embeddings.T
        closest.append(np.argsort(-scores, axis=1, kind="stable")[:, :TOP_K])
    expected, actual = closest
    overlaps = [len(np.intersect1d(*rows)) / len(rows[0]) for rows in zip(expected, actual, strict=True)]
    return {
        "same_images": float((np.array(overlaps) == 1).mean()),
        "same_order": float((expected == actual).all(axis=1).mean()),
        "mean_overlap": float(np.mean(overlaps)),
    }
