"""Queries in batches: an answer does not depend on the queries of its batch, and the queue of queries is bounded."""

import asyncio
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import numpy as np
import pytest

from ernie_vil2 import load_model
from ernie_vil2.apps.search import open_index
from ernie_vil2.apps.search.batching import Options, SearchBatcher, _AnswerCache
from ernie_vil2.apps.search.collection import Item
from ernie_vil2.apps.serving.batching import Overloaded
from ernie_vil2.apps.serving.bodies import encode_json
from ernie_vil2.apps.serving.metrics import Metrics
from ernie_vil2.export import export
from tests.support.shapes import draw, encode_png
from tests.support.small_index import TEXTS, BlockedEncoder, fill_index

QUERIES = ["a", "red disc", "红色的圆", "a blue bar " * 9, "green", "", "a red square of a yellow cross"]
IMAGES = [encode_png(draw((200, 30 * n, 30), "disc", np.random.default_rng(n))) for n in range(3)]


@pytest.fixture(scope="module")
def onnx_index(tmp_path_factory, model, shapes):
    folder = tmp_path_factory.mktemp("batching")
    export(model, folder / "export", "onnx", "float32", ([np.zeros([32, 32, 3], np.uint8)], ["red"]), "test")
    exported = load_model(folder / "export")
    with open_index(fill_index(folder / "index", exported, shapes["val"], TEXTS), exported) as index:
        yield index


def make_mixed_queries(index):
    """Yield queries of texts, of images and of both, with different options."""
    for number, text in enumerate(QUERIES):
        yield [(1.0, text)], Options(5 + number % 3)
        yield [(1.0, text), (-1.0, "bar")], Options(5, "texts" if number % 2 else "images")
    for number, image in enumerate(IMAGES):
        pixels = index.model.preprocess(image)
        yield [(1.0, pixels)], Options(5, "images", 0.0)
        yield [(1.0, pixels), (1.0, QUERIES[number])], Options(7, "images", None, '{"kind": "disc"}')


class BatchSizes(Metrics):
    """Metrics that record the size of every batch."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def count_batch(self, size):
        self.sizes.append(size)


@pytest.mark.parametrize("name", ["index", "onnx_index"])
def test_answer_is_the_same_alone_and_in_a_batch(request, name):
    index, metrics = request.getfixturevalue(name), BatchSizes()
    queries = list(make_mixed_queries(index)) * 3

    async def answer_together():
        batcher = SearchBatcher(index, cache_size=0, metrics=metrics)
        return await asyncio.gather(*(batcher.answer(*query) for query in queries))

    async def answer_alone():
        batcher = SearchBatcher(index, cache_size=0)
        return [await batcher.answer(*query) for query in queries]

    together = [json.loads(answer) for answer in asyncio.run(answer_together())]
    alone = [json.loads(answer) for answer in asyncio.run(answer_alone())]
    assert max(metrics.sizes) > 8 and sum(metrics.sizes) == sum(len(terms) for terms, _ in queries)
    for hits, expected in zip(together, alone, strict=True):
        scores = {hit["id"]: hit["score"] for hit in hits}
        expected_scores = {hit["id"]: hit["score"] for hit in expected}
        # The difference of two texts is short; scaling it to unit length scales its rounding error as well.
        assert len(hits) == len(expected) and scores == pytest.approx(expected_scores, abs=1e-5)
    weighted_query = [(1, QUERIES[1]), (-1, "bar")]
    expected = index.combined(weighted_query, count=5, among="texts")
    rounding = 1e-6 / float(np.linalg.norm(index.combine_embeddings(weighted_query)))
    assert alone[3][0]["score"] == pytest.approx(expected[0].score, abs=rounding)


def test_int8_exports_encode_single_queries(onnx_index, monkeypatch):
    # An int8 graph scales its activations by the whole batch: in a batch, embeddings would depend on each other.
    backend = onnx_index.model.backend
    calls = Mock()
    monkeypatch.setattr(type(onnx_index.model), "precision", "int8")
    for name in ("start_ids", "start_pixels"):
        monkeypatch.setattr(backend, name, Mock(wraps=getattr(backend, name)))
        calls.attach_mock(getattr(backend, name), name)

    async def answer_together():
        batcher = SearchBatcher(onnx_index, cache_size=0)
        await asyncio.gather(*(batcher.answer(*query) for query in make_mixed_queries(onnx_index)))

    asyncio.run(answer_together())
    assert calls.mock_calls and {len(call.args[0]) for call in calls.mock_calls} == {1}


def test_query_above_the_limit_is_refused_until_one_ends(index, monkeypatch):
    blocked = BlockedEncoder(index, monkeypatch)

    async def run():
        batcher = SearchBatcher(index, max_queue=3, cache_size=0)

        def ask(text):
            return asyncio.create_task(batcher.answer([(1.0, text)], Options(1)))

        tasks = [ask("red"), ask("green"), ask("blue")]
        await asyncio.to_thread(blocked.waiting.acquire)
        for query in (batcher.answer([(1.0, "a")], Options(1)), batcher.encode(["a"]), batcher.run_search(list)):
            with pytest.raises(Overloaded):
                await query
        tasks[2].cancel()
        await asyncio.wait([tasks[2]])
        tasks[2] = ask("yellow")
        await asyncio.sleep(0)  # lets the new task start
        assert batcher.num_in_progress == 3
        blocked.resume.set()
        assert [len(json.loads(answer)) for answer in await asyncio.gather(*tasks)] == [1, 1, 1]
        assert batcher.num_in_progress == 0

    asyncio.run(run())


def test_error_of_a_query_leaves_its_batch_alone(index):
    async def run():
        batcher = SearchBatcher(index, cache_size=0)
        options = [Options(1), Options(1, where='{"no": 1}')] * 2
        queries = [batcher.answer([(1.0, "red")], choice) for choice in options]
        return await asyncio.gather(*queries, return_exceptions=True)

    answers = asyncio.run(run())
    assert [isinstance(answer, ValueError) for answer in answers] == [False, True, False, True]
    assert answers[1] is not answers[3] and "no item has a field no" in str(answers[1])


def test_equal_queries_are_answered_once_until_the_index_changes(tmp_path, model, shapes_index):
    metrics = BatchSizes()
    sizes = metrics.sizes
    shutil.copytree(shapes_index, tmp_path / "index")
    with open_index(tmp_path / "index", model, writable=True) as writer, open_index(writer.folder, model) as reader:

        async def run():
            batcher = SearchBatcher(reader, cache_size=2, metrics=metrics)

            async def ask(text, count=3):
                return json.loads(await batcher.answer([(1.0, text)], Options(count)))

            first = await ask("red")
            assert await ask("red") == first and len(sizes) == 1
            await ask("red", 4)
            assert len(sizes) == 2
            writer.collection("images").add([Item("new", b"", {})], model.encode_texts(["red"]))
            assert (await ask("red"))[0]["id"] == "new" and len(sizes) == 3
            await ask("green")
            await ask("blue")
            await ask("red")
            assert len(sizes) == 6  # "red" was dropped from the cache of two answers

        asyncio.run(run())


def test_cache_is_shared_by_threads():
    cache, version = _AnswerCache(1), object()

    def use(key):
        for _ in range(20_000):
            assert cache.get(key, version) in (None, b"answer")
            cache.add(key, version, b"answer")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads interrupt each other everywhere
    try:
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(use, "abcd")) == [None] * 4
    finally:
        sys.setswitchinterval(interval)


def test_cache_drops_the_answer_used_longest_ago():
    cache = _AnswerCache(2)
    for key, version in (("a", 1), ("b", 1), ("a", 2), ("c", 2)):
        cache.add(key, version, b"answer")
    assert [cache.get(key, version) for key, version in (("a", 2), ("b", 1), ("c", 2))] == [b"answer", None, b"answer"]


def test_cache_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr("ernie_vil2.apps.search.batching.MAX_CACHED_BYTES", 10)
    cache = _AnswerCache(100)
    for key, length in (("a", 4), ("a", 5), ("b", 5), ("c", 4), ("d", 11)):
        cache.add(key, 1, b"x" * length)
        if key == "c":
            assert [cache.get(key, 1) for key in "abc"] == [None, b"xxxxx", b"xxxx"]
    assert [cache.get(key, 1) for key in "abcd"] == [None] * 4


def test_answers_to_long_queries_are_not_cached(index):
    metrics = BatchSizes()

    async def run():
        batcher = SearchBatcher(index, metrics=metrics)
        for text, where in (("a" * 1998, "{}"), ("a" * 1999, "{}"), ("a", json.dumps({"kind": "b" * 2000}))):
            for _ in range(2):
                await batcher.answer([(1.0, text)], Options(1, where=where))

    asyncio.run(run())
    assert len(metrics.sizes) == 1 + 2 + 2  # batches of the two equal queries: only the first kind is cached


def test_numbers_beyond_64_bits_are_encoded():
    assert json.loads(encode_json([{"big": 2**70, "text": "红"}])) == [{"big": 2**70, "text": "红"}]
