"""Models trained with Loss.widths: search by prefixes of their embeddings."""

import numpy as np
import pytest
from fastapi.testclient import TestClient

import ernie_vil2
from ernie_vil2.apps.search import open_index
from ernie_vil2.apps.search.add_items import add_images, list_images, optimize_collection
from ernie_vil2.apps.search.service import build_app
from tests.support.checkpoints import write_checkpoint_with_widths, write_untrained_checkpoint
from tests.support.shapes import COLOURS, SHAPES, TOKENS

TEXTS = [f"a {colour} {shape}" for colour, shape in zip(COLOURS, SHAPES, strict=True)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint_with_widths(tmp_path_factory.mktemp("widths"))


@pytest.fixture(scope="module")
def model(checkpoint):
    return ernie_vil2.load_model(checkpoint)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same weights, and no widths."""
    return ernie_vil2.load_model(write_untrained_checkpoint(tmp_path_factory.mktemp("whole"), TOKENS))


@pytest.fixture(scope="module")
def index(model, shapes, tmp_path_factory):
    """The folder of an index of all numbers."""
    folder = tmp_path_factory.mktemp("index") / "whole"
    with open_index(folder, model, writable=True) as index:
        add_images(index, list_images([str(shapes["val"])]))
    return folder


@pytest.fixture(scope="module")
def items(shapes):
    """Names, bytes and fields of the images of the indexes."""
    return list(zip(*(image.load()[:3] for image in list_images([str(shapes["val"])])), strict=True))


def cut(embeddings, width):
    return embeddings[:, :width] / np.linalg.norm(embeddings[:, :width], axis=1, keepdims=True)


def test_an_index_of_prefixes(model, whole, items, shapes, tmp_path):
    names, contents, _ = items
    with open_index(tmp_path / "index", model, writable=True, width=16) as index:
        add_images(index, list_images([str(shapes["val"])]))
        optimize_collection(index, "images", None, 0.98, lambda line: None)
    assert (tmp_path / "index" / "images" / "rows.f16").stat().st_size == 16 * 2 * 16  # rows, bytes, numbers
    scores = model.encode_images(list(contents), width=16) @ model.encode_texts(TEXTS[:1], width=16)[0]
    score_of = dict(zip(names, scores.tolist(), strict=True))
    with open_index(tmp_path / "index", model) as index:
        (hits,) = index.search(texts=TEXTS[:1], count=16)
        answer = TestClient(build_app(index)).post("/api/v1/embeddings", json={"input": TEXTS[0], "dimensions": 8})
    assert sorted(hit.id for hit in hits) == sorted(names)
    np.testing.assert_allclose([hit.score for hit in hits], [score_of[hit.id] for hit in hits], atol=2e-3)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    (entry,) = answer.json()["data"]
    np.testing.assert_allclose(entry["embedding"], model.encode_texts(TEXTS[:1], width=8)[0], atol=1e-6)
    with pytest.raises(ValueError, match="cannot be cut to 32: its widths are 8, 16"):
        open_index(tmp_path / "index", model, width=32)
    with pytest.raises(ValueError, match=r"Loss\.widths"):
        open_index(tmp_path / "other", whole, writable=True, width=16)
    assert not (tmp_path / "other").exists()


def test_hits_of_prefixes_are_ranked_by_all_numbers(model, index, items, monkeypatch):
    monkeypatch.setattr("ernie_vil2.apps.search.local_collection.NUM_CANDIDATES", 4)
    names, contents, fields = items
    images, (query,) = model.encode_images(list(contents)), model.encode_texts(TEXTS[:1])
    narrow = cut(images, 8) @ cut(query[None], 8)[0]
    kinds = [field["caption_en"] for field in fields]
    with open_index(index, model, width=8) as opened:
        for where in (None, {"caption_en": sorted(set(kinds))[:2]}):
            admitted = [row for row in range(16) if where is None or kinds[row] in where["caption_en"]]
            candidates = sorted(admitted, key=lambda row: -narrow[row])[:4]
            expected = sorted(candidates, key=lambda row: -(images[row] @ query))[:2]
            hits = opened.search_embeddings(query[None], 2, where=where)[0]
            assert [hit.id for hit in hits] == [names[row] for row in expected]
            np.testing.assert_allclose([hit.score for hit in hits], images[expected] @ query, atol=2e-3)
