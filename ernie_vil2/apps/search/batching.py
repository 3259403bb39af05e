"""Encodes queries that arrive together in one batch, and searches for them on other threads.

One thread encodes. While it encodes a batch, the next queries gather. Embeddings go on to the threads that search, and
the answers, written as JSON once, to the event loops that wait for them. An answer does not depend on the other queries
of its batch. The number of waiting queries is bounded; a query too many is refused at once.
"""

import asyncio
import copy
import json
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import orjson

from ernie_vil2.apps.search.collection import Hit
from ernie_vil2.apps.search.image_decoding import ImageDecoder, Result
from ernie_vil2.apps.search.index import Index
from ernie_vil2.apps.search.metrics import CACHED_ANSWERS, WAITING_QUERIES, Metrics
from ernie_vil2.io.files import parse_json

MAX_BATCH_SIZE = 32  # queries; bounds how long the first one waits for the encoding of the others
# Seconds that a query waits for others, and only while several ask. Longer makes larger batches and later answers.
MAX_BATCH_DELAY = 0.002
MAX_QUEUE = 256  # queries in progress; at 450 a second the last one waits for about half a second
CACHE_SIZE = 2048  # answers, some 20 MB
MAX_CACHED_LENGTH = 2000  # characters of a query and its filter whose answer is cached: 16 MB for all
NUM_SEARCHERS = 2  # threads
NUM_PREPARERS = 2  # threads that parse and write JSON

Term = tuple[float, str | np.ndarray]
"""A weight, and a text or the pixels of an image as `ErnieViL2.preprocess` returns them. A query is a sum of terms."""


class Overloaded(Exception):  # noqa: N818  -- named by what has happened
    """Too many queries wait.

    Attributes:
        retry_seconds: after which the client may try again.
    """

    retry_seconds = 1


@dataclass(frozen=True)
class Options:
    """The options of a query, see `Index.search`; hashable, so that they are part of the key of a cached answer."""

    count: int = 40
    among: str = "images"
    threshold: float | None = None
    where: str = "{}"  # JSON
    offset: int = 0  # number of best items that are left out

    def search_arguments(self) -> dict[str, Any]:
        """Return arguments of `Index.search_embeddings`; its hits include those that `offset` leaves out."""
        return {
            "count": self.offset + self.count,
            "among": self.among,
            "threshold": self.threshold,
            "where": parse_json(self.where),
        }


@dataclass(eq=False)
class _Query:
    terms: Sequence[Term]
    options: Options | None  # None: only the embedding is wanted
    answer: asyncio.Future
    arrival: float = field(default_factory=time.monotonic)
    embedding: np.ndarray = field(default_factory=lambda: np.empty(0))


class Batcher:
    """Answers queries of an index in batches, for any number of event loops.

    Args:
        index: the index.
        max_queue: queries that may be in progress.
        cache_size: answers to texts that are kept until the index changes; 0: none.
        metrics: counts batches, cached answers and waiting queries.
    """

    def __init__(
        self, index: Index, max_queue: int = MAX_QUEUE, cache_size: int = CACHE_SIZE, metrics: Metrics | None = None
    ):
        self.index, self.max_queue = index, max_queue
        self.metrics = metrics or Metrics()
        # int8 graphs scale activations by the largest of a batch, so a query must be encoded alone.
        self._encoding_batch_size = 1 if index.model.precision == "int8" else None
        self._queue: deque[_Query] = deque()
        self._queue_lock = threading.Lock()
        self._is_encoding = False
        self.num_waiting = 0
        self._encoder = ThreadPoolExecutor(1, "encode")
        self._searchers = ThreadPoolExecutor(NUM_SEARCHERS, "search", _limit_faiss_threads)
        self._preparers = ThreadPoolExecutor(NUM_PREPARERS, "prepare")
        self._decoder = ImageDecoder(index.model.preprocessing)
        self._cache = _AnswerCache(cache_size)

    async def answer(self, terms: Sequence[Term], options: Options) -> bytes:
        """Return the hits of a query as a JSON array.

        Raises:
            Overloaded: too many queries wait.
            ValueError: as `Index.search_embeddings`.
        """
        (answer,) = await self.answer_all([terms], options)
        return answer

    async def answer_all(self, queries: Sequence[Sequence[Term]], options: Options) -> list[bytes]:
        """Return the same as `answer` for several queries."""
        version = self.index.collection(options.among).version
        keys: list[Hashable] = []
        cached_answers = []
        for terms in queries:
            is_cacheable = version is not None and _is_cacheable(terms, options)
            key: Hashable = (tuple(terms), options) if is_cacheable else None
            keys.append(key)
            cached_answers.append(self._cache.get(key, version))

        # Only the queries without a cached answer are encoded; their answers come back in the same order.
        new_queries = [terms for terms, answer in zip(queries, cached_answers, strict=True) if answer is None]
        self.metrics.add(CACHED_ANSWERS, len(queries) - len(new_queries))
        new_answers = iter(await self._process(new_queries, options))

        answers = []
        for key, cached_answer in zip(keys, cached_answers, strict=True):
            answer = next(new_answers) if cached_answer is None else cached_answer
            self._cache.add(key, version, answer)
            answers.append(answer)
        return answers

    async def encode(self, contents: Sequence[str | np.ndarray]) -> list[np.ndarray]:
        """Return the embedding `[D]` of each text or image; Overloaded if too many queries wait."""
        return await self._process([[(1.0, content)] for content in contents], None)

    async def run_search(self, search: Callable[[], list[Hit]]) -> bytes:
        """Return the hits of a search that needs no encoder as a JSON array; Overloaded if too many queries wait."""
        self._enter_queue(1)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._searchers, lambda: _encode_hits(search()))
        finally:
            self._leave_queue(1)

    async def run_in_thread(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Return the result of `work` from a thread: parsing and writing would block the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._preparers, work, *arguments)

    async def decode_pixels(self, image: bytes) -> np.ndarray:
        """Return the pixels of an image file as the model sees them; errors as `ImageDecoder`."""
        plan = await self.run_in_thread(self._decoder.plan_one, image)
        return await self._decoder.decode(image, "image", plan, self.index.model.preprocessing.make_view)

    async def decode_all_pixels(self, images: Sequence[bytes | None]) -> list[np.ndarray | None]:
        """Return the same as `decode_pixels` for all images of a request; None stays None."""
        return await self.decode_all(images, lambda _, decoded: self.index.model.preprocessing.make_view(decoded))

    async def decode_all(
        self, images: Sequence[bytes | None], finish: Callable[[bytes, Any], Result]
    ) -> list[Result | None]:
        """Decode the images of a request one after the other.

        All of them are planned before the first one is decoded, so that a request that is too large is refused early.

        Args:
            images: image files; None stays None.
            finish: is called with each file and its pixels on the thread that decodes, and returns the result.

        Raises:
            As `ImageDecoder`.
        """
        if all(image is None for image in images):
            return [None] * len(images)
        plans = await self.run_in_thread(self._decoder.plan_all, images)
        results: list[Result | None] = []
        for image, plan in zip(images, plans, strict=True):
            if image is None or plan is None:
                results.append(None)
            else:
                results.append(await self._decoder.decode(image, "image", plan, partial(finish, image)))
        return results

    def _enter_queue(self, count: int) -> None:
        if self.num_waiting + count > self.max_queue:
            raise Overloaded(f"{self.num_waiting} queries are waiting already; try again")
        self.num_waiting += count
        self.metrics.set(WAITING_QUERIES, self.num_waiting)

    def _leave_queue(self, count: int) -> None:
        self.num_waiting -= count
        self.metrics.set(WAITING_QUERIES, self.num_waiting)

    async def _process(self, queries: Sequence[Sequence[Term]], options: Options | None) -> list[Any]:
        """Return the answers to queries, or their embeddings if there are no options."""
        if not queries:
            return []
        self._enter_queue(len(queries))
        loop = asyncio.get_running_loop()
        waiting = [_Query(terms, options, loop.create_future()) for terms in queries]
        try:
            self._submit(waiting)
            if len(waiting) == 1:  # without the overhead of gather
                return [await waiting[0].answer]
            return await asyncio.gather(*(query.answer for query in waiting))
        finally:
            self._leave_queue(len(queries))
            for query in waiting:  # if the client has gone, the others need not be encoded any more
                query.answer.cancel()

    def _submit(self, queries: Iterable[_Query]) -> None:
        with self._queue_lock:
            self._queue.extend(queries)
            if self._is_encoding:
                return
            self._is_encoding = True
        self._encoder.submit(self._encode_queue)

    def _encode_queue(self) -> None:
        """Encode batch by batch until no query waits; runs on the encoder's thread."""
        batch_size = 0
        while True:
            # One query after the other means one client, for which there is nobody to wait.
            batch = self._take_batch(should_wait=batch_size > 1)
            if not batch:
                return
            batch_size = len(batch)
            self.metrics.count_batch(batch_size)
            try:
                self._encode_batch(batch)
            except Exception as error:
                _resolve(batch, _copy_error(error, batch_size))
                continue

            # Queries without options want the embedding only. The others are searched in groups of equal options.
            embedding_queries = [query for query in batch if query.options is None]
            _resolve(embedding_queries, [query.embedding for query in embedding_queries])
            search_queries = [query for query in batch if query.options is not None]
            search_queries.sort(key=lambda query: repr(query.options))
            for options, group in groupby(search_queries, lambda query: query.options):
                self._searchers.submit(self._search, options, list(group))

    def _take_batch(self, should_wait: bool) -> list[_Query]:
        # A small batch may grow for a moment, if queries have been arriving together.
        if should_wait and self._queue and len(self._queue) < MAX_BATCH_SIZE:
            deadline = self._queue[0].arrival + MAX_BATCH_DELAY
            time.sleep(max(0.0, deadline - time.monotonic()))
        with self._queue_lock:
            batch: list[_Query] = []
            while self._queue and len(batch) < MAX_BATCH_SIZE:
                query = self._queue.popleft()
                if not query.answer.cancelled():
                    batch.append(query)
            self._is_encoding = bool(batch)
        return batch

    def _encode_batch(self, batch: Sequence[_Query]) -> None:
        # The texts of all queries are encoded in one call, and so are their images.
        texts, images = [], []
        for query in batch:
            for _, content in query.terms:
                if isinstance(content, str):
                    texts.append(content)
                else:
                    images.append(content)
        text_embeddings = iter(self.index.encode_texts(texts, self._encoding_batch_size))
        image_embeddings = iter(self.index.model.encode_pixels(images, self._encoding_batch_size))

        for query in batch:
            weighted_embeddings = []
            for weight, content in query.terms:
                embedding = next(text_embeddings if isinstance(content, str) else image_embeddings)
                weighted_embeddings.append(weight * embedding)
            query.embedding = np.sum(weighted_embeddings, axis=0)

    def _search(self, options: Options, queries: Sequence[_Query]) -> None:
        answers: list[Any] = []
        try:
            embeddings = np.stack([query.embedding for query in queries])
            for hits in self.index.search_embeddings(embeddings, **options.search_arguments()):
                answers.append(_encode_hits(hits[options.offset :]))
        except Exception as error:
            answers = _copy_error(error, len(queries))
        _resolve(queries, answers)


def _is_cacheable(terms: Sequence[Term], options: Options) -> bool:
    """Return whether a query consists of texts, and these are not so long that they would fill the memory."""
    length = len(options.where)
    for _, content in terms:
        if not isinstance(content, str):
            return False
        length += len(content)
    return length <= MAX_CACHED_LENGTH


class _AnswerCache:
    """Recent answers, each for one version of the searched collection."""

    def __init__(self, size: int):
        self._size = size
        self._entries: OrderedDict[Hashable, tuple[object, bytes]] = OrderedDict()

    def get(self, key: Hashable, version: object) -> bytes | None:
        answer_version, answer = self._entries.get(key, (None, None))
        if answer is None or answer_version is not version:
            return None
        self._entries.move_to_end(key)
        return answer

    def add(self, key: Hashable, version: object, answer: bytes) -> None:
        if key is not None and self._size:
            self._entries[key] = version, answer
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)


def encode_json(value: Any) -> bytes:
    """Return a value as JSON; by Python where orjson fails, such as for whole numbers of more than 64 bits."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def _encode_hits(hits: Iterable[Hit]) -> bytes:
    """Return hits as a JSON array; fields are copied as text, because parsing them would take longer than all else."""
    objects = []
    for hit in hits:
        fields = hit.fields_json
        if "NaN" in fields or "Infinity" in fields:  # not JSON; an index that something else wrote may hold them
            fields = encode_json(hit.fields).decode()
        item_id = encode_json(hit.id).decode()
        objects.append(f'{{"id":{item_id},"score":{hit.score!r},"fields":{fields},"version":"{hit.digest.hex()}"}}')
    return f"[{','.join(objects)}]".encode()


def _limit_faiss_threads() -> None:
    # A search uses one thread: the other cores search and answer for others meanwhile.
    import faiss

    faiss.omp_set_num_threads(1)


def _copy_error(error: Exception, count: int) -> list[Exception]:
    """Return a copy for each query: a raised exception refers to the frames of its request and keeps them alive."""
    error.__traceback__ = None
    return [copy.copy(error) for _ in range(count)]


def _resolve(queries: Sequence[_Query], answers: Sequence[Any]) -> None:
    """Pass answers or exceptions to the event loops that wait for them, with one call for each loop."""
    answers_of_loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future, Any]]] = {}
    for query, answer in zip(queries, answers, strict=True):
        answers_of_loops.setdefault(query.answer.get_loop(), []).append((query.answer, answer))
    for loop, pairs in answers_of_loops.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_set_results, pairs)


def _set_results(pairs: Iterable[tuple[asyncio.Future, Any]]) -> None:
    for future, answer in pairs:
        if future.done():  # the client has gone
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
