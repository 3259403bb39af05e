"""Queries in batches: what is answered depends on nothing else that is asked, and no more wait than may."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fastapi.testclient import TestClient

import ernie_vil2
from ernie_vil2.export import export
from ernie_vil2.search import batching, open_index
from ernie_vil2.search.batching import Batcher, Options, Overloaded
from ernie_vil2.search.collection import Item
from ernie_vil2.search.fill import add_images, add_texts, images_in
from ernie_vil2.search.metrics import Metrics
from ernie_vil2.search.service import build_app
from tests.search.conftest import unit
from tests.support.limits import PATIENCE
from tests.support.shapes import draw, png

TEXTS = ["a", "red disc", "红色的圆", "a blue bar " * 9, "green", "", "a red square of a yellow cross"]
IMAGES = [png(draw((200, 30 * n, 30), "disc", np.random.default_rng(n))) for n in range(3)]


@pytest.fixture(scope="module", params=["paddle", "onnx"])
def index(request, tmp_path_factory, model, shapes):
    folder = tmp_path_factory.mktemp("batching")
    used = model
    if request.param == "onnx":
        export(model, folder / "export", "onnx", "float32", [np.zeros([32, 32, 3], np.uint8)], ["red"], "test")
        used = ernie_vil2.load_model(folder / "export")
    with open_index(folder / "index", used, writable=True) as index:
        add_images(index, images_in([str(shapes["val"])]))
        add_texts(index, ["red disc", "green square"])
    with open_index(folder / "index", used) as index:
        yield index


def asked(index):
    """Queries of texts, of images and of both, with other options each."""
    for number, text in enumerate(TEXTS):
        yield [(1.0, text)], Options(5 + number % 3)
        yield [(1.0, text), (-1.0, "bar")], Options(5, "texts" if number % 2 else "images")
    for number, image in enumerate(IMAGES):
        pixels = index.model.preprocess(image)
        yield [(1.0, pixels)], Options(5, "images", 0.0)
        yield [(1.0, pixels), (1.0, TEXTS[number])], Options(7, "images", None, '{"kind": "disc"}')


class Sizes(Metrics):
    """The sizes of batches."""

    def __init__(self):
        super().__init__()
        self.found = []

    def batch(self, size):
        self.found.append(size)


def test_an_answer_is_the_same_whatever_is_encoded_with_it(index):
    sizes = Sizes()
    queries = list(asked(index)) * 3

    async def crowd():
        batcher = Batcher(index, kept=0, counts=sizes)
        return await asyncio.gather(*(batcher.answer(*query) for query in queries))

    async def one_by_one():
        batcher = Batcher(index, kept=0)
        return [await batcher.answer(*query) for query in queries]

    together, alone = asyncio.run(crowd()), asyncio.run(one_by_one())
    assert max(sizes.found) > 8 and sum(sizes.found) == len(queries)
    for first, second in zip(map(json.loads, together), map(json.loads, alone), strict=True):
        assert len(first) == len(second) and {hit["id"] for hit in first} == {hit["id"] for hit in second}
        scores = [{hit["id"]: hit["score"] for hit in hits} for hits in (first, second)]
        assert all(abs(scores[0][one] - scores[1][one]) < 1e-6 for one in scores[0])
    parts = [(1, TEXTS[1]), (-1, "bar")]
    expected = index.combined(parts, count=5, among="texts")
    # What is left of two texts is short, and divided by its length.
    rounding = 1e-6 / float(np.linalg.norm(index.weighted(parts)))
    assert json.loads(alone[3])[0]["score"] == pytest.approx(expected[0].score, abs=rounding)


def test_int8_exports_encode_one_at_a_time(index, monkeypatch):
    shapes = []
    monkeypatch.setattr(type(index.model), "precision", "int8")
    for name in ("encode_ids", "encode_pixels"):
        encode = getattr(index.model.backend, name)
        monkeypatch.setattr(
            index.model.backend, name, lambda rows, encode=encode: shapes.append(len(rows)) or encode(rows)
        )

    async def crowd():
        batcher = Batcher(index, kept=0)
        await asyncio.gather(*(batcher.answer(*query) for query in asked(index)))

    asyncio.run(crowd())
    assert shapes and set(shapes) == {1}


class Blocked:
    """An encoder that waits; `begun` says that it does."""

    def __init__(self, index, monkeypatch):
        self.begun, self.go = threading.Semaphore(0), threading.Event()
        encode = index.encode_texts

        def wait(texts, size=None):
            self.begun.release()
            self.go.wait(PATIENCE)
            return encode(texts, size)

        monkeypatch.setattr(index, "encode_texts", wait)


def test_one_query_too_many_is_refused_at_once_and_a_client_that_goes_away_makes_room(index, monkeypatch):
    blocked = Blocked(index, monkeypatch)

    async def run():
        batcher = Batcher(index, most_waiting=3, kept=0)

        def ask(text):
            return asyncio.create_task(batcher.answer([(1.0, text)], Options(1)))

        tasks = [ask("red"), ask("green"), ask("blue")]
        await asyncio.to_thread(blocked.begun.acquire)
        for refused in (batcher.answer([(1.0, "a")], Options(1)), batcher.embeddings(["a"]), batcher.searched(list)):
            with pytest.raises(Overloaded):
                await refused
        tasks[2].cancel()
        await asyncio.wait([tasks[2]])
        tasks[2] = ask("yellow")
        await asyncio.sleep(0)
        assert batcher.waiting == 3
        blocked.go.set()
        assert [len(json.loads(one)) for one in await asyncio.gather(*tasks)] == [1, 1, 1]
        assert batcher.waiting == 0

    asyncio.run(run())


def test_the_server_answers_503_when_too_many_wait(index, monkeypatch):
    blocked = Blocked(index, monkeypatch)
    client = TestClient(build_app(index, batcher=Batcher(index, most_waiting=1, kept=0)))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.get, "/api/v1/search", params={"q": "red"})
        blocked.begun.acquire()
        refused = client.get("/api/v1/search", params={"q": "green"})
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        assert client.get("/health").status_code == 200
        blocked.go.set()
        assert first.result().status_code == 200
    assert client.get("/api/v1/search", params={"q": "green"}).status_code == 200


def test_an_error_is_that_of_its_query_alone(index):
    async def run():
        batcher = Batcher(index, kept=0)
        options = [Options(1), Options(1, where='{"no": 1}'), Options(1, "sounds")]
        queries = [batcher.answer([(1.0, "red")], one) for one in (*options[:2], *options[:2])]
        return await asyncio.gather(*queries, return_exceptions=True)

    found = asyncio.run(run())
    assert [isinstance(one, ValueError) for one in found] == [False, True, False, True]
    assert found[1] is not found[3] and "no item has a field no" in str(found[1])


def test_equal_queries_are_answered_from_the_cache_until_the_index_changes(tmp_path, model, shapes):
    counts = Sizes()
    sizes = counts.found
    with open_index(tmp_path / "index", model, writable=True) as writer:
        add_images(writer, images_in([str(shapes["val"])]))
        with open_index(tmp_path / "index", model) as reader:

            async def run():
                batcher = Batcher(reader, kept=2, counts=counts)

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
                assert len(sizes) == 6  # the oldest was forgotten

            asyncio.run(run())


def test_answers_to_long_queries_are_not_kept(index):
    sizes = Sizes()

    async def run():
        batcher = Batcher(index, counts=sizes)
        for text, where in (("a" * 1998, "{}"), ("a" * 1999, "{}"), ("a", json.dumps({"kind": "b" * 2000}))):
            for _ in range(2):
                await batcher.answer([(1.0, text)], Options(1, where=where))

    asyncio.run(run())
    assert len(sizes.found) == 1 + 2 + 2


def test_all_hits_of_a_batch_are_fetched_by_one_statement_and_kept(tmp_path, model):
    with open_index(tmp_path / "index", model, writable=True) as writer:
        rows = unit(np.random.default_rng(0), 300, model.embed_dim)
        writer.collection("images").add([Item(f"{n}", b"", {"caption": f"{n}"}) for n in range(300)], rows)
    with open_index(tmp_path / "index", model) as index:
        collection = index.collection("images")
        statements = []
        collection.items._connection.set_trace_callback(statements.append)
        first = collection.search(rows[:20], 10)
        fetched = [one for one in statements if "FROM items" in one]
        assert len(fetched) == 1 and [line[0].id for line in first] == [f"{n}" for n in range(20)]
        assert collection.search(rows[:20], 10) == first and len([s for s in statements if "FROM items" in s]) == 1


def test_thumbnails_are_kept_by_content(tmp_path, model, shapes):
    with open_index(tmp_path / "index", model, writable=True) as writer:
        add_images(writer, images_in([str(shapes["val"])]))
    with open_index(tmp_path / "index", model) as index:
        client = TestClient(build_app(index))
        hit = client.get("/api/v1/search", params={"q": "red", "count": 1}).json()["hits"][0]
        lasting = client.get("/thumbnail", params={"id": hit["id"], "version": hit["version"]})
        assert "immutable" in lasting.headers["cache-control"]
        for version in ("", "0" * 32):
            other = client.get("/thumbnail", params={"id": hit["id"], "version": version})
            assert other.headers["cache-control"] == "no-cache" and other.content == lasting.content
        tag = lasting.headers["etag"]
        again = client.get("/thumbnail", params={"id": hit["id"]}, headers={"If-None-Match": tag})
        assert again.status_code == 304 and again.content == b"" and again.headers["etag"] == tag


def test_numbers_beyond_64_bits_are_written():
    assert json.loads(batching.dumped([{"big": 2**70, "text": "红"}])) == [{"big": 2**70, "text": "红"}]
