"""Small indexes: of shapes that a tiny model encodes, and of numbers that a stub encodes without a model."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest

from ernie_vil2.apps.search import open_index
from ernie_vil2.apps.search.add_items import add_images, add_texts, list_images
from ernie_vil2.apps.search.index import VERSION, Index
from ernie_vil2.apps.search.store import open_store
from tests.support.limits import PATIENCE
from tests.support.shapes import SPECIAL_TOKENS, draw, encode_png

TOKENS = [*SPECIAL_TOKENS, "a", "red", "green", "blue", "yellow", "disc", "square", "bar",
          "cross", "红", "色", "的", "圆"]  # fmt: skip
TEXTS = ["red disc", "green square"]
IMAGE = encode_png(draw((200, 30, 30), "disc", np.random.default_rng(0)))
WIDTH = 16


def draw_unit_rows(rng, count, width=WIDTH):
    """Draw rows of unit length, `[count, width]` float32."""
    rows = rng.normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def fill_index(folder, model, source, texts=()):
    """Write an index of the images of a source, and perhaps of texts."""
    with open_index(folder, model, writable=True) as index:
        add_images(index, list_images([str(source)]))
        if texts:
            add_texts(index, list(texts))
    return folder


def interrupt_call(function, number):
    """Return a function that calls another one, and raises KeyboardInterrupt in place of the call of this number."""
    num_calls = 0

    def call_or_interrupt(*arguments, **options):
        nonlocal num_calls
        num_calls += 1
        if num_calls == number:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    return call_or_interrupt


class BlockedEncoder:
    """Encoder of texts for an index that waits until the test lets it go on.

    Attributes:
        waiting: semaphore that is released once for each call that waits.
        resume: event that ends all waiting.
    """

    def __init__(self, index, monkeypatch):
        self.waiting, self.resume = threading.Semaphore(0), threading.Event()
        encode = index.model.encode_tokens

        def wait_and_encode(rows, size=None):
            self.waiting.release()
            self.resume.wait(PATIENCE)
            return encode(rows, size)

        monkeypatch.setattr(index.model, "encode_tokens", wait_and_encode)


class NumberEncoder:
    """Stub for a model and its preprocessing: an image file holds a number, which decides on its embedding."""

    embed_dim, fingerprint, calibration = WIDTH, "stand-in", None

    def __init__(self):
        self.preprocessing, self.encoded = self, 0

    def decode(self, content, name):
        return np.full([8, 8, 3], int(content), np.uint8)

    def make_view(self, pixels):
        return pixels

    def encode_pixels(self, pixels):
        self.encoded += len(pixels)
        return np.stack([make_number_vector(int(image[0, 0, 0])) for image in pixels])


def make_number_vector(number):
    """Return the embedding of a number."""
    return draw_unit_rows(np.random.default_rng(number), 1)[0]


@contextmanager
def open_number_index(folder, kind="index"):
    """Open an index of numbers in a folder, which is the root of its images."""
    if kind.endswith(".db"):
        pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    store = open_store(folder / kind, True)
    if not store.metadata:
        about = {"version": VERSION, "model": "", "fingerprint": "stand-in", "width": WIDTH}
        store.write_metadata(about | {"image_fingerprint": "stand-in", "root": str(folder)})
    with Index(NumberEncoder(), store, "") as index:
        yield index


def list_items(index):
    """Return all images of an index by id."""
    collection = index.collection("images")
    if not len(collection):
        return {}
    (hits,) = collection.search(make_number_vector(0)[None], len(collection))
    return {hit.id: collection.get(hit.id) for hit in hits}
