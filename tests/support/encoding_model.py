"""An encoder without towers, and benchmarks for it."""

from collections import Counter

import cv2
import numpy as np

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage, BenchmarkText
from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import BadSample, BadSampleReport
from tests.support.shapes import encode_png

SIDE, WIDTH = 8, 16


class ProjectionEncoder:
    """Encoder that projects pixels, and the bytes of a text, on random directions, and counts its rows."""

    def __init__(self, fingerprint="stand-in"):
        rng = np.random.default_rng(0)
        self.fingerprint = fingerprint
        self.image_weights = rng.normal(size=(SIDE * SIDE * 3, WIDTH)).astype(np.float32)
        self.text_weights = rng.normal(size=(256, WIDTH)).astype(np.float32)
        self.rows = Counter()
        self.largest = 0

    def preprocess(self, image, name="image"):
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

    def start_pixels(self, pixels):
        embeddings = self.encode_pixels(np.stack(pixels))
        return lambda: embeddings

    def start_texts(self, texts):
        embeddings = self.encode_texts(texts)
        return lambda: embeddings


def normalise_rows(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_noise_image(number):
    return encode_png(np.random.default_rng(number).integers(0, 256, [12, 10, 3], np.uint8))


def raise_missing_file():
    raise FileNotFoundError("gone")


def raise_malformed_row():
    raise BadSample("malformed row", "rows.tsv:3")


def make_benchmark(images, texts, name="small"):
    """Return a benchmark of images by id and of texts, in which image n belongs to text n.

    Args:
        images: id -> the bytes of a file, or a function that fails.
    """
    benchmark_images = []
    for key, value in images.items():
        read_file = value if callable(value) else lambda value=value: value
        benchmark_images.append(BenchmarkImage(key, read_file))
    benchmark_texts = [BenchmarkText(f"t{number}", text) for number, text in enumerate(texts)]
    diagonal = np.arange(min(len(images), len(texts)))
    pairs = np.stack([diagonal, diagonal], 1)
    return Benchmark(name, benchmark_images, benchmark_texts, pairs, BadSampleReport())
