"""Queries that arrive together are encoded together, and searched together outside of the encoder.

One thread encodes. While it encodes a batch the next queries gather; an embedding goes on to the threads that search,
and the answer, written as JSON once, back to the event loop that waits for it. What an answer says does not depend on
what else is in its batch. No more than a bound of queries wait: one more is refused at once.
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
from ernie_vil2.apps.search.image_decoding import Content, ImageDecoder
from ernie_vil2.apps.search.index import Index
from ernie_vil2.apps.search.metrics import CACHED, WAITING, Metrics
from ernie_vil2.io.files import parse_json

MOST_TOGETHER = 32  # queries of a batch
LONGEST_WAIT = 0.002  # seconds that a query may wait for others, and does only while several ask
MOST_WAITING = 256  # queries in progress: at 450 a second the last one waits for about half a second
KEPT_ANSWERS = 2048  # answers of the cache, some 20 MB
LONGEST_KEPT = 2000  # characters of a query and its filter whose answer is kept: 16 MB of all
SEARCHING, PREPARING = 2, 2  # threads

Part = tuple[float, str | np.ndarray]
"""A weight, and a text or the pixels of an image as `ErnieViL2.preprocess` gives them."""


class Overloaded(Exception):  # noqa: N818  -- named by what has happened
    """More queries wait than may; `retry` seconds later there may be room."""

    retry = 1


@dataclass(frozen=True)
class Options:
    """What is searched for: `count` items after the first `offset`; `where` is JSON."""

    count: int = 40
    among: str = "images"
    threshold: float | None = None
    where: str = "{}"
    offset: int = 0

    def closest(self) -> dict[str, Any]:
        """Arguments of `Index.closest`, which finds what is left out as well."""
        return {
            "count": self.offset + self.count,
            "among": self.among,
            "threshold": self.threshold,
            "where": parse_json(self.where),
        }


@dataclass(eq=False)
class _Query:
    parts: Sequence[Part]
    options: Options | None
    answer: asyncio.Future
    arrived: float = field(default_factory=time.monotonic)
    embedding: np.ndarray = field(default_factory=lambda: np.empty(0))


class Batcher:
    """Answers queries of an index in batches, for any number of event loops.

    At most `most_waiting` queries are in progress, and `kept` answers of texts are kept until the index changes.
    """

    def __init__(
        self, index: Index, most_waiting: int = MOST_WAITING, kept: int = KEPT_ANSWERS, counts: Metrics | None = None
    ):
        self.index, self.most_waiting = index, most_waiting
        self.counts = counts or Metrics()
        # The scale of an int8 graph's activations is that of a batch.
        self._alone = index.model.precision == "int8"
        self._queue: deque[_Query] = deque()
        self._lock = threading.Lock()
        self._encoding, self.waiting = False, 0
        self._encoder = ThreadPoolExecutor(1, "encode")
        self._searchers = ThreadPoolExecutor(SEARCHING, "search", _limit_threads)
        self._preparers = ThreadPoolExecutor(PREPARING, "prepare")
        self._decoder = ImageDecoder(index.model.preprocessing)
        self._answers = _ItemCache(kept)

    async def answer(self, parts: Sequence[Part], options: Options) -> bytes:
        """The hits of a query as a JSON array; Overloaded if too many wait, ValueError as of `Index.closest`."""
        return (await self.answers([parts], options))[0]

    async def answers(self, queries: Sequence[Sequence[Part]], options: Options) -> list[bytes]:
        """As `answer`, for several queries."""
        version = self.index.collection(options.among).version
        keys = [(tuple(parts), options) if version and _is_kept(parts, options) else None for parts in queries]
        known = [self._answers.get(key, version) for key in keys]
        self.counts.add(CACHED, sum(one is not None for one in known))
        found = iter(await self._results([q for q, one in zip(queries, known, strict=True) if one is None], options))
        answers = [next(found) if one is None else one for one in known]
        for key, one in zip(keys, answers, strict=True):
            self._answers.keep(key, version, one)
        return answers

    async def embeddings(self, parts: Sequence[str | np.ndarray]) -> list[np.ndarray]:
        """`[D]` of each text or image; Overloaded as for `answer`."""
        return await self._results([[(1.0, part)] for part in parts], None)

    async def searched(self, work: Callable[[], list[Hit]]) -> bytes:
        """The hits of a search that needs no encoder, as a JSON array; Overloaded as for `answer`."""
        self._enter(1)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._searchers, lambda: _written(work()))
        finally:
            self._leave(1)

    async def prepared(self, work: Callable[..., Content], *arguments: Any) -> Content:
        """What `work` returns on a thread: parsing, counting and writing, for which the event loop has no time."""
        return await asyncio.get_running_loop().run_in_executor(self._preparers, work, *arguments)

    async def pixels(self, image: bytes) -> np.ndarray:
        """The pixels of an image file as the model sees them; errors as of `ImageDecoder`."""
        plan = await self.prepared(self._decoder.plan_one, image)
        return await self._decoder.decode(image, "image", plan, self.index.model.preprocessing.view)

    async def all_pixels(self, images: Sequence[bytes | None]) -> list[np.ndarray | None]:
        """As `pixels`, of all images of a request; None of what is none."""
        return await self.decoded(images, lambda _, decoded: self.index.model.preprocessing.view(decoded))

    async def decoded(
        self, images: Sequence[bytes | None], finish: Callable[[bytes, Any], Content]
    ) -> list[Content | None]:
        """What `finish` makes of each image and its pixels, on the thread that decodes; one image after the other.

        None of what is none. All are looked at before the first one is decoded; errors as of `ImageDecoder`.
        """
        if all(image is None for image in images):
            return [None] * len(images)
        plans = await self.prepared(self._decoder.plan_all, images)
        results: list[Content | None] = []
        for image, plan in zip(images, plans, strict=True):
            if image is None or plan is None:
                results.append(None)
            else:
                results.append(await self._decoder.decode(image, "image", plan, partial(finish, image)))
        return results

    def _enter(self, count: int) -> None:
        if self.waiting + count > self.most_waiting:
            raise Overloaded(f"{self.waiting} queries wait already; try again")
        self.waiting += count
        self.counts.set(WAITING, self.waiting)

    def _leave(self, count: int) -> None:
        self.waiting -= count
        self.counts.set(WAITING, self.waiting)

    async def _results(self, queries: Sequence[Sequence[Part]], options: Options | None) -> list[Any]:
        if not queries:
            return []
        self._enter(len(queries))
        loop = asyncio.get_running_loop()
        waiting = [_Query(parts, options, loop.create_future()) for parts in queries]
        try:
            self._add(waiting)
            return (
                [await waiting[0].answer] if len(waiting) == 1 else await asyncio.gather(*(q.answer for q in waiting))
            )
        finally:
            self._leave(len(queries))
            for one in waiting:  # of a client that is gone
                one.answer.cancel()

    def _add(self, queries: Iterable[_Query]) -> None:
        with self._lock:
            self._queue.extend(queries)
            if self._encoding:
                return
            self._encoding = True
        self._encoder.submit(self._encode_all)

    def _encode_all(self) -> None:
        """Encodes what waits, batch by batch, until nothing waits."""
        size = 0
        while batch := self._next_batch(crowd=size > 1):
            size = len(batch)
            self.counts.batch(size)
            try:
                self._encode(batch)
            except Exception as error:
                _resolve(batch, _copies(error, size))
                continue
            alone = [one for one in batch if one.options is None]
            _resolve(alone, [one.embedding for one in alone])
            asked = sorted((one for one in batch if one.options is not None), key=lambda one: repr(one.options))
            for options, group in groupby(asked, lambda one: one.options):
                self._searchers.submit(self._search, options, list(group))

    def _next_batch(self, crowd: bool) -> list[_Query]:
        if crowd and self._queue and len(self._queue) < MOST_TOGETHER:
            time.sleep(max(0.0, self._queue[0].arrived + LONGEST_WAIT - time.monotonic()))
        with self._lock:
            batch = list[_Query]()
            while self._queue and len(batch) < MOST_TOGETHER:
                if not (one := self._queue.popleft()).answer.cancelled():
                    batch.append(one)
            self._encoding = bool(batch)
        return batch

    def _encode(self, batch: Sequence[_Query]) -> None:
        parts = [part for one in batch for _, part in one.parts]
        size = 1 if self._alone else None
        texts = iter(self.index.encode_texts([part for part in parts if isinstance(part, str)], size))
        images = iter(self.index.model.encode_pixels([part for part in parts if not isinstance(part, str)], size))
        for one in batch:
            one.embedding = np.sum(
                [weight * next(texts if isinstance(part, str) else images) for weight, part in one.parts], axis=0
            )

    def _search(self, options: Options, group: Sequence[_Query]) -> None:
        try:
            found = self.index.search_embeddings(np.stack([one.embedding for one in group]), **options.closest())
            answers: Sequence[Any] = [_written(hits[options.offset :]) for hits in found]
        except Exception as error:
            answers = _copies(error, len(group))
        _resolve(group, answers)


def _is_kept(parts: Sequence[Part], options: Options) -> bool:
    """Return whether the answer to a query is kept: of texts alone, and not of long ones, which fill the memory."""
    length = len(options.where)
    for _, part in parts:
        if not isinstance(part, str):
            return False
        length += len(part)
    return length <= LONGEST_KEPT


class _ItemCache:
    """The last answers, each of one version of what was searched."""

    def __init__(self, most: int):
        self._most = most
        self._found: OrderedDict[Hashable, tuple[object, bytes]] = OrderedDict()

    def get(self, key: Hashable, version: object) -> bytes | None:
        kept_for, answer = self._found.get(key, (None, None))
        if answer is None or kept_for is not version:
            return None
        self._found.move_to_end(key)
        return answer

    def keep(self, key: Hashable, version: object, answer: bytes) -> None:
        if key is not None and self._most:
            self._found[key] = version, answer
            if len(self._found) > self._most:
                self._found.popitem(last=False)


def dumped(value: Any) -> bytes:
    """JSON; of what orjson does not know, such as whole numbers of more than 64 bits, as Python writes it."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def _written(hits: Iterable[Hit]) -> bytes:
    """Hits as JSON without NaN and Infinity, which an index that something else wrote may hold."""
    found = []
    for hit in hits:
        fields = (
            dumped(hit.fields).decode()
            if "NaN" in hit.fields_json or "Infinity" in hit.fields_json
            else hit.fields_json
        )
        identity = dumped(hit.id).decode()
        found.append(f'{{"id":{identity},"score":{hit.score!r},"fields":{fields},"version":"{hit.digest.hex()}"}}')
    return f"[{','.join(found)}]".encode()


def _limit_threads() -> None:
    """A thread that searches does so alone: others search and answer meanwhile."""
    import faiss

    faiss.omp_set_num_threads(1)


def _copies(error: Exception, count: int) -> list[Exception]:
    """One for each query: what is raised refers to the frames of its request."""
    error.__traceback__ = None
    return [copy.copy(error) for _ in range(count)]


def _resolve(queries: Sequence[_Query], answers: Sequence[Any]) -> None:
    """Gives answers or exceptions to the event loops that wait for them."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future, Any]]] = {}
    for one, answer in zip(queries, answers, strict=True):
        by_loop.setdefault(one.answer.get_loop(), []).append((one.answer, answer))
    for loop, pairs in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_set, pairs)


def _set(pairs: Iterable[tuple[asyncio.Future, Any]]) -> None:
    for future, answer in pairs:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
