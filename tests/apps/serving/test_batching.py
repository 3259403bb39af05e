"""Batches of texts: which texts are padded together, and in which order their embeddings are returned."""

import asyncio
from unittest.mock import Mock

import numpy as np
import pytest

from ernie_vil2.apps.serving import batching
from ernie_vil2.apps.serving.batching import Batcher
from tests.support.limits import PATIENCE


def test_texts_are_padded_to_those_of_similar_length(model, monkeypatch):
    monkeypatch.setattr(batching, "NUM_TEXTS_AT_ONCE", 2)
    start_ids = Mock(wraps=model.backend.start_ids)
    monkeypatch.setattr(model.backend, "start_ids", start_ids)
    texts = ["a blue bar of a red disc", "red", "a blue bar of a red square", "green", "yellow"]

    embeddings = asyncio.run(Batcher(model, 8).encode(texts))

    lengths = sorted(len(model.tokenizer.encode(text)) for text in texts)
    shapes = [call.args[0].shape for call in start_ids.call_args_list]
    assert shapes == [(2, lengths[1]), (2, lengths[3]), (1, lengths[4])]
    expected = [model.encode_texts([text])[0] for text in texts]
    np.testing.assert_allclose(embeddings.rows, expected, atol=1e-6)
    assert embeddings.num_tokens == sum(lengths)


def test_batches_are_no_larger_than_their_bound(model):
    metrics = Mock()
    embeddings = asyncio.run(Batcher(model, 16, metrics, max_batch_size=4).encode(["red", "green"] * 5))
    assert [call.args[0] for call in metrics.count_batch.call_args_list] == [4, 4, 2]
    np.testing.assert_allclose(embeddings.rows, model.encode_texts(["red", "green"] * 5), atol=1e-6)


class UncopyableError(Exception):
    def __init__(self, tower, fault):
        super().__init__(f"{tower}: {fault}")


def test_batcher_goes_on_after_an_error_that_cannot_be_copied(model, monkeypatch):
    async def run():
        batcher = Batcher(model, 8)
        with monkeypatch.context() as patch:
            patch.setattr(model, "encode_tokens", Mock(side_effect=UncopyableError("text", "no memory")))
            with pytest.raises(UncopyableError, match="text: no memory"):
                await asyncio.wait_for(batcher.encode(["red"]), PATIENCE)
        return await asyncio.wait_for(batcher.encode(["red"]), PATIENCE)

    assert asyncio.run(run()).rows.shape == (1, model.embed_dim)
