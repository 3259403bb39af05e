"""A stand-in for a model, so that encoding is tested without towers."""

from collections import Counter

import cv2
import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import BadSample, BadSampleReport
from tests.support.shapes import encode_png

SIDE, WIDTH = 8, 16


class ProjectionEncoder:
    """Projects pixels, and the bytes of a text, on random directions; counts the rows that it is given."""

    def __init__(self, fingerprint="stand-in"):
        rng = np.random.default_rng(0)
        self.fingerprint = fingerprint
        self.image_weights = rng.normal(size=(SIDE * SIDE * 3, WIDTH)).astype(np.float32)
        self.text_weights = rng.normal(size=(256, WIDTH)).astype(np.float32)
        self.rows = Counter()
        self.largest = 0

    def preprocess(self, image):
        self.rows["preprocessed"] += 1
        return cv2.resize(decode_image(image, "?"), (SIDE, SIDE))

    def encode_pixels(self, pixels):
        assert pixels.dtype == np.uint8 and pixels.shape[1:] == (SIDE, SIDE, 3)
        self.rows["images"] += len(pixels)
        self.largest = max(self.largest, len(pixels))
        return normalise_rows(pixels.reshape(len(pixels), -1).astype(np.float32) @ self.image_weights)

    def encode_texts(self, texts):
        self.rows["texts"] += len(texts)
        counts = [np.bincount(np.frombuffer(text.encode(), np.uint8), minlength=256) for text in texts]
        return normalise_rows(np.array(counts, np.float32) @ self.text_weights)


def normalise_rows(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_noise_image(number):
    return encode_png(np.random.default_rng(number).integers(0, 256, [12, 10, 3], np.uint8))


def raise_missing_file():
    raise FileNotFoundError("gone")


def raise_malformed_row():
    raise BadSample("malformed row", "rows.tsv:3")


def make_benchmark(images, texts, name="small"):
    """Images by id: the file's bytes, or a function that fails; texts by their order. All pairs on the diagonal."""
    rows = [
        BenchmarkImage(key, value if callable(value) else lambda value=value: value) for key, value in images.items()
    ]
    pairs = np.arange(min(len(images), len(texts)))
    return Benchmark(
        name, rows, [BenchmarkText(f"t{n}", text) for n, text in enumerate(texts)], np.stack([pairs, pairs], 1),
        BadSampleReport(),
    )  # fmt: skip
