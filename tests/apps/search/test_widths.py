"""Search by prefixes of the embeddings of models that were trained with Loss.widths."""

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
def model_without_widths(tmp_path_factory):
    """Return a model with the same weights, which was not trained with Loss.widths."""
    return ernie_vil2.load_model(write_untrained_checkpoint(tmp_path_factory.mktemp("whole"), TOKENS))


@pytest.fixture(scope="module")
def full_index(model, shapes, tmp_path_factory):
    """Return the folder of an index that stores whole embeddings."""
    folder = tmp_path_factory.mktemp("index") / "whole"
    with open_index(folder, model, writable=True) as index:
        add_images(index, list_images([str(shapes["val"])]))
    return folder


@pytest.fixture(scope="module")
def images(shapes):
    """Return the images of the indexes."""
    return [image.load() for image in list_images([str(shapes["val"])])]


def take_prefixes(embeddings, width):
    """Return the first numbers of embeddings, scaled to unit length."""
    return embeddings[:, :width] / np.linalg.norm(embeddings[:, :width], axis=1, keepdims=True)


def test_index_of_prefixes_scores_by_prefixes(model, model_without_widths, images, shapes, tmp_path):
    names, contents = [image.name for image in images], [image.content for image in images]
    with open_index(tmp_path / "index", model, writable=True, width=16) as index:
        add_images(index, list_images([str(shapes["val"])]))
        optimize_collection(index, "images", None, 0.98, lambda line: None)
    assert (tmp_path / "index" / "images" / "rows.f16").stat().st_size == 16 * 2 * 16  # rows, bytes, numbers
    scores = model.encode_images(contents, width=16) @ model.encode_texts(TEXTS[:1], width=16)[0]
    score_of = dict(zip(names, scores.tolist(), strict=True))
    with open_index(tmp_path / "index", model) as index:
        (hits,) = index.search(texts=TEXTS[:1], count=16)
        response = TestClient(build_app(index)).post("/v1/embeddings", json={"input": TEXTS[0], "dimensions": 8})
    assert sorted(hit.id for hit in hits) == sorted(names)
    np.testing.assert_allclose([hit.score for hit in hits], [score_of[hit.id] for hit in hits], atol=2e-3)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    (entry,) = response.json()["data"]
    np.testing.assert_allclose(entry["embedding"], model.encode_texts(TEXTS[:1], width=8)[0], atol=1e-6)
    with pytest.raises(ValueError, match="cannot be cut to 32: its widths are 8, 16"):
        open_index(tmp_path / "index", model, width=32)
    with pytest.raises(ValueError, match=r"Loss\.widths"):
        open_index(tmp_path / "other", model_without_widths, writable=True, width=16)
    assert not (tmp_path / "other").exists()


def test_candidates_by_prefix_are_ranked_by_whole_embeddings(model, full_index, images, monkeypatch):
    monkeypatch.setattr("ernie_vil2.apps.search.local_collection.NUM_CANDIDATES", 4)
    embeddings = model.encode_images([image.content for image in images])
    (query,) = model.encode_texts(TEXTS[:1])
    prefix_scores = take_prefixes(embeddings, 8) @ take_prefixes(query[None], 8)[0]
    captions = [image.fields["caption_en"] for image in images]
    with open_index(full_index, model, width=8) as index:
        for where in (None, {"caption_en": sorted(set(captions))[:2]}):
            admitted = [row for row in range(16) if where is None or captions[row] in where["caption_en"]]
            # Four candidates by the first 8 numbers, and of these the two that are best by all numbers.
            candidates = sorted(admitted, key=lambda row: -prefix_scores[row])[:4]
            expected = sorted(candidates, key=lambda row: -(embeddings[row] @ query))[:2]
            hits = index.search_embeddings(query[None], 2, where=where)[0]
            assert [hit.id for hit in hits] == [images[row].name for row in expected]
            np.testing.assert_allclose([hit.score for hit in hits], embeddings[expected] @ query, atol=2e-3)
