"""Models and collections small enough to be made in a second."""

import numpy as np
import pytest

from ernie_vil2.search.local import LocalCollection
from tests.support.checkpoints import untrained_checkpoint
from tests.support.shapes import SPECIAL_TOKENS

TOKENS = [*SPECIAL_TOKENS, "a", "red", "green", "blue", "yellow", "disc", "square", "bar",
          "cross", "红", "色", "的", "圆"]  # fmt: skip
WIDTH = 16
# gRPC's threads, which milvus-lite starts, abort processes that later tests fork: a run of its own, with -m slow.
INDEX_TYPES = ("exact", "ivf", pytest.param("milvus", marks=pytest.mark.slow))


def unit(rng, count, width=WIDTH):
    rows = rng.normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"), TOKENS)


@pytest.fixture(scope="session")
def model(checkpoint):
    import ernie_vil2

    return ernie_vil2.load_model(checkpoint)


class Kept:
    """A collection that can be closed and opened again, for writing or for reading."""

    def __init__(self, index_type, folder):
        self.index_type, self.folder, self._open = index_type, folder, []

    def open(self, writable=False):
        if self.index_type == "milvus":
            from ernie_vil2.search.milvus import MilvusStore

            store = MilvusStore(str(self.folder / "index.db"), True)
            if not store.about:
                about = {"version": 1, "model": "none", "fingerprint": "0", "width": WIDTH}
                store.describe(about | {"image_fingerprint": "0", "root": "/"})
            collection = store.collection("images")
            self._open.append(store)
        else:
            collection = LocalCollection(self.folder / "images", WIDTH, writable)
        self._open.append(collection)
        return collection

    def build(self, collection, queries, recall=0.95):
        index_type = None if self.index_type == "milvus" else self.index_type
        collection.build(index_type, lambda: queries, recall, lambda line: None)

    def close(self):
        for one in reversed(self._open):
            one.close()
        self._open.clear()


@pytest.fixture(params=INDEX_TYPES)
def kept(request, tmp_path, monkeypatch):
    # A filter that admits more than these of the few rows of a test is the own affair of the index type.
    monkeypatch.setattr("ernie_vil2.search.local.EXACT_UP_TO", 900)
    if request.param == "milvus":
        pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    kept = Kept(request.param, tmp_path)
    yield kept
    kept.close()
