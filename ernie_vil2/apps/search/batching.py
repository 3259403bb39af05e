"""Encodes queries that arrive together in one batch, and searches for them on other threads.

Embeddings go from the encoder to the threads that search, and the answers, written as JSON once, to the event loops
that wait for them. An answer does not depend on the other queries of its batch.
"""

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import orjson

from ernie_vil2.apps.search.collection import Hit, WordQueries
from ernie_vil2.apps.search.index import Index
from ernie_vil2.apps.serving.batching import Batcher, Input, Query, copy_error, resolve
from ernie_vil2.apps.serving.metrics import CACHED_ANSWERS, Metrics
from ernie_vil2.io.files import parse_json

MAX_QUEUE = 256  # queries in progress; at 450 a second the last one waits for about half a second
CACHE_SIZE = 2048  # answers, some 20 MB
# Bytes of all cached answers: those of 200 items with long texts, such as texts in images, have some MB each.
MAX_CACHED_BYTES = 64 * 2**20
MAX_CACHED_LENGTH = 2000  # characters of a query and its filter whose answer is cached: 16 MB for all
NUM_SEARCHERS = 2  # threads
# Queries that are encoded together are searched by one thread: with more, both threads would less often be busy.
MAX_BATCH_SIZE = 32

Term = tuple[float, Input]
"""A weight, and a text or pixels. A query is a sum of terms."""


@dataclass(frozen=True)
class Options:
    """The options of a query, see `Index.search`; hashable, so that they are part of the key of a cached answer."""

    count: int = 40
    among: str = "images"
    threshold: float | None = None
    where: str = "{}"  # JSON
    offset: int = 0  # number of best items that are left out
    words: float = 0.0  # weight of the ranking by the words of the texts; 0: there is none

    def search_arguments(self) -> dict[str, Any]:
        """Return arguments of `Index.search_embeddings`; its hits include those that `offset` leaves out."""
        return {
            "count": self.offset + self.count,
            "among": self.among,
            "threshold": self.threshold,
            "where": parse_json(self.where),
        }


@dataclass(eq=False, kw_only=True)
class _SearchQuery(Query):
    weights: Sequence[float]  # of the inputs
    options: Options

    def sum_embeddings(self) -> np.ndarray:
        """Return the weighted sum of the embeddings, `[D]`, not normalised."""
        return np.asarray(self.weights, np.float32) @ self.embeddings.rows

    def join_texts(self) -> str:
        """Return the texts that are added, and not subtracted, as one."""
        terms = zip(self.weights, self.inputs, strict=True)
        return " ".join(content for weight, content in terms if weight > 0 and isinstance(content, str))


class SearchBatcher(Batcher):
    """Answers queries of an index in batches, for any number of event loops.

    Args:
        index: the index.
        max_queue: queries that may be in progress.
        cache_size: answers to texts that are kept until the index changes; 0: none.
        metrics: counts batches, cached answers and queries in progress.
    """

    def __init__(
        self, index: Index, max_queue: int = MAX_QUEUE, cache_size: int = CACHE_SIZE, metrics: Metrics | None = None
    ):
        super().__init__(index.model, max_queue, metrics, MAX_BATCH_SIZE)
        self.index = index
        self._searchers = ThreadPoolExecutor(NUM_SEARCHERS, "search", _limit_faiss_threads)
        self._cache = _AnswerCache(cache_size)

    async def answer(self, terms: Sequence[Term], options: Options) -> bytes:
        """Return the hits of a query as a JSON array.

        Raises:
            Overloaded: too many queries are in progress.
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
        with self.reserve(len(new_queries)):
            new_answers = iter(await self.answer_reserved(new_queries, options))

        answers = []
        for key, cached_answer in zip(keys, cached_answers, strict=True):
            answer = next(new_answers) if cached_answer is None else cached_answer
            self._cache.add(key, version, answer)
            answers.append(answer)
        return answers

    async def run_search(self, search: Callable[[], list[Hit]]) -> bytes:
        """Return the hits of a search that needs no encoder as a JSON array; Overloaded if too many are in progress."""
        with self.reserve(1):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._searchers, lambda: _encode_hits(search()))

    async def answer_reserved(self, queries: Sequence[Sequence[Term]], options: Options) -> list[bytes]:
        """Answer like `answer_all`, inside `reserve(len(queries))` and without the cache."""
        loop = asyncio.get_running_loop()
        waiting = []
        for terms in queries:
            weights, inputs = zip(*terms, strict=True)
            waiting.append(_SearchQuery(inputs, loop.create_future(), weights=weights, options=options))
        return await self._wait_for_answers(waiting)

    def _finish_batch(self, batch: list[Query]) -> None:
        # Some queries want the embedding only. The others are searched in groups of equal options.
        super()._finish_batch([query for query in batch if not isinstance(query, _SearchQuery)])
        search_queries = [query for query in batch if isinstance(query, _SearchQuery)]
        search_queries.sort(key=lambda query: repr(query.options))
        for options, group in groupby(search_queries, lambda query: query.options):
            self._searchers.submit(self._search, options, list(group))

    def _search(self, options: Options, queries: Sequence[_SearchQuery]) -> None:
        answers: list[Any] = []
        try:
            embeddings = np.stack([query.sum_embeddings() for query in queries])
            words = None
            if options.words:
                words = WordQueries([query.join_texts() for query in queries], options.words)
            for hits in self.index.search_embeddings(embeddings, **options.search_arguments(), words=words):
                answers.append(_encode_hits(hits[options.offset :]))
        except Exception as error:
            answers = copy_error(error, len(queries))
        resolve(queries, answers)


def _is_cacheable(terms: Sequence[Term], options: Options) -> bool:
    """Return whether a query consists of texts, and these are not so long that they would fill the memory."""
    length = len(options.where)
    for _, content in terms:
        if not isinstance(content, str):
            return False
        length += len(content)
    return length <= MAX_CACHED_LENGTH


class _AnswerCache:
    """Recent answers, each for one version of the searched collection; for any number of threads."""

    def __init__(self, size: int):
        self._size, self._num_bytes = size, 0
        self._entries: OrderedDict[Hashable, tuple[object, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, version: object) -> bytes | None:
        with self._lock:
            answer_version, answer = self._entries.get(key, (None, None))
            if answer is None or answer_version is not version:
                return None
            self._entries.move_to_end(key)
            return answer

    def add(self, key: Hashable, version: object, answer: bytes) -> None:
        if key is None or not self._size:
            return
        with self._lock:
            _, former_answer = self._entries.pop(key, (None, b""))
            self._entries[key] = version, answer
            self._num_bytes += len(answer) - len(former_answer)
            while len(self._entries) > self._size or self._num_bytes > MAX_CACHED_BYTES:
                _, (_, oldest_answer) = self._entries.popitem(last=False)
                self._num_bytes -= len(oldest_answer)


def _encode_hits(hits: Sequence[Hit]) -> bytes:
    """Return hits as a JSON array; fields are copied as text, because parsing them would take longer than all else."""
    try:
        return orjson.dumps([_describe_hit(hit, _copy_fields(hit)) for hit in hits])
    except TypeError:  # an id that is not Unicode, or a number of more than 64 bits
        return json.dumps([_describe_hit(hit, hit.fields) for hit in hits]).encode()


def _describe_hit(hit: Hit, fields: Any) -> dict[str, Any]:
    values = {"id": hit.id, "score": hit.score, "fields": fields, "version": hit.digest.hex()}
    if hit.has_words:
        values["words"] = True
    return values


def _copy_fields(hit: Hit) -> Any:
    if "NaN" in hit.fields_json or "Infinity" in hit.fields_json:
        return hit.fields  # not JSON; an index that something else wrote may hold them, and orjson writes null
    return orjson.Fragment(hit.fields_json)


def _limit_faiss_threads() -> None:
    # A search uses one thread: the other cores search and answer for others meanwhile.
    import faiss

    faiss.omp_set_num_threads(1)
