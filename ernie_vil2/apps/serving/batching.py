"""Encodes the texts and images of requests that arrive together in one batch.

One thread encodes. While it encodes a batch, the next queries gather. Embeddings go to the event loops that wait for
them. An embedding does not depend on the other queries of its batch. The number of texts and images in progress is
bounded; one too many is refused at once.
"""

import asyncio
import copy
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ernie_vil2.apps.serving.metrics import INPUTS_IN_PROGRESS, Metrics
from ernie_vil2.encoder import ErnieViL2

# Texts and images; bounds how long the first one waits for the encoding of the others. With the demo's model a text
# takes 8 % more time in batches of 32, and 9 % less in batches of 128.
MAX_BATCH_SIZE = 64
# Seconds that a query waits for others, and only while several ask. Longer makes larger batches and later answers.
MAX_BATCH_DELAY = 0.002

# Number of texts that a CPU encodes at once. They are padded to the longest of them, so texts of similar length go
# together; with fewer, each text costs more. Measured with the demo's model, see docs/notes/search_speed.md.
NUM_TEXTS_AT_ONCE = 32

Input = str | np.ndarray
"""A text, or the pixels of an image as `ErnieViL2.preprocess` returns them."""


class Overloaded(Exception):  # noqa: N818  -- named by what has happened
    """Too many texts and images are in progress.

    Attributes:
        retry_seconds: seconds after which the client may try again.
    """

    retry_seconds = 1


class Embeddings(NamedTuple):
    """Embeddings of texts and images.

    rows: `[N, D]` float32, L2-normalised.
    num_tokens: number of tokens of all texts.
    """

    rows: np.ndarray
    num_tokens: int


@dataclass(eq=False)
class Query:
    """Texts and images of one request that are encoded in the same batch.

    Attributes:
        inputs: the texts and images, at least one.
        answer: future that the event loop of the request waits for.
        arrival: when it arrived, in seconds of `time.monotonic`.
        embeddings: embeddings of the inputs; empty until they are encoded.
    """

    inputs: Sequence[Input]
    answer: asyncio.Future
    arrival: float = field(default_factory=time.monotonic)
    embeddings: Embeddings = field(default_factory=lambda: Embeddings(np.empty([0, 0], np.float32), 0))


class Batcher:
    """Encodes queries of a model in batches, for any number of event loops.

    Args:
        model: the model.
        max_queue: number of texts and images that may be in progress.
        metrics: counts batches, and texts and images in progress.
        max_batch_size: number of texts and images that are encoded together.

    Attributes:
        num_in_progress: number of texts and images that wait or are being encoded; in `SearchBatcher`, of queries.
    """

    def __init__(
        self,
        model: ErnieViL2,
        max_queue: int,
        metrics: Metrics | None = None,
        max_batch_size: int = MAX_BATCH_SIZE,
    ):
        self.model, self.max_queue, self._max_batch_size = model, max_queue, max_batch_size
        self.metrics = metrics or Metrics()
        self._text_batch_size = NUM_TEXTS_AT_ONCE if model.device == "cpu" else None
        self._image_batch_size: int | None = None
        if model.precision == "int8":
            # Its graphs scale activations by the largest of a batch, so a query must be encoded alone.
            self._text_batch_size = self._image_batch_size = 1
        self._queue: deque[Query] = deque()
        self._queue_lock = threading.Lock()
        self._is_encoding = False
        self.num_in_progress = 0
        self._encoder = ThreadPoolExecutor(1, "encode")

    async def encode(self, inputs: Sequence[Input]) -> Embeddings:
        """Encode texts and images, at least one; raise Overloaded if too many are in progress."""
        with self.reserve(len(inputs)):
            return await self.encode_reserved(inputs)

    async def encode_reserved(self, inputs: Sequence[Input]) -> Embeddings:
        """Encode like `encode`, inside `reserve(len(inputs))`, in several batches if there are many inputs."""
        loop = asyncio.get_running_loop()
        queries = []
        for start in range(0, len(inputs), self._max_batch_size):
            queries.append(Query(inputs[start : start + self._max_batch_size], loop.create_future()))
        answers = await self._wait_for_answers(queries)
        num_tokens = sum(embeddings.num_tokens for embeddings in answers)
        return Embeddings(np.concatenate([embeddings.rows for embeddings in answers]), num_tokens)

    @contextmanager
    def reserve(self, count: int) -> Iterator[None]:
        """Count so many inputs as in progress while the context manager is open.

        Raises:
            Overloaded: with them, more than `max_queue` would be in progress.
            ValueError: they alone are more than `max_queue`.
        """
        if count > self.max_queue:
            raise ValueError(f"{count} texts and images in a request; this server takes {self.max_queue}: send fewer")
        if self.num_in_progress + count > self.max_queue:
            raise Overloaded(f"{self.num_in_progress} texts and images are in progress already; try again")
        self._count_in_progress(count)
        try:
            yield
        finally:
            self._count_in_progress(-count)

    def _count_in_progress(self, change: int) -> None:
        self.num_in_progress += change
        self.metrics.add(INPUTS_IN_PROGRESS, change)

    async def _wait_for_answers(self, queries: Sequence[Query]) -> list[Any]:
        """Submit queries, and return their answers: embeddings, or what a subclass makes of them."""
        if not queries:
            return []
        try:
            self._submit(queries)
            if len(queries) == 1:  # without the overhead of gather
                return [await queries[0].answer]
            return await asyncio.gather(*(query.answer for query in queries))
        finally:
            for query in queries:  # if the client has gone, the others need not be encoded any more
                query.answer.cancel()

    def _submit(self, queries: Iterable[Query]) -> None:
        with self._queue_lock:
            self._queue.extend(queries)
            if self._is_encoding:
                return
            self._is_encoding = True
        self._encoder.submit(self._encode_queue)

    def _encode_queue(self) -> None:
        """Encode batch by batch until no query waits; runs on the encoder's thread."""
        num_queries = 0
        while True:
            # After a batch of a single query, only one client is active: waiting for others would gain nothing.
            batch = self._take_batch(should_wait=num_queries > 1)
            if not batch:
                return
            num_queries = len(batch)
            self.metrics.count_batch(sum(len(query.inputs) for query in batch))
            try:
                self._encode_batch(batch)
            except Exception as error:
                resolve(batch, copy_error(error, num_queries))
                continue
            self._finish_batch(batch)

    def _finish_batch(self, batch: list[Query]) -> None:
        """Answer queries that have been encoded; subclasses may answer otherwise.

        It must be short: it runs on the encoder's thread, which encodes the next batch only afterwards.
        """
        resolve(batch, [query.embeddings for query in batch])

    def _take_batch(self, should_wait: bool) -> list[Query]:
        """Return the next queries to encode; empty if there are none, and the encoder stops.

        Args:
            should_wait: whether to wait a moment, so that a small batch may grow.
        """
        # `_max_batch_size` queries surely fill a batch, because each has at least one input.
        if should_wait and self._queue and len(self._queue) < self._max_batch_size:
            deadline = self._queue[0].arrival + MAX_BATCH_DELAY
            time.sleep(max(0.0, deadline - time.monotonic()))
        batch: list[Query] = []
        num_inputs = 0
        with self._queue_lock:
            while self._queue and (not batch or num_inputs + len(self._queue[0].inputs) <= self._max_batch_size):
                query = self._queue.popleft()
                if not query.answer.cancelled():
                    batch.append(query)
                    num_inputs += len(query.inputs)
            # Still under the lock, so that a query submitted from now on starts the encoder again.
            self._is_encoding = bool(batch)
        return batch

    def _encode_batch(self, batch: Sequence[Query]) -> None:
        # The texts of all queries are encoded in one call, and so are their images.
        token_rows, images = [], []
        for query in batch:
            for value in query.inputs:
                if isinstance(value, str):
                    token_rows.append(self.model.tokenizer.encode(value))
                else:
                    images.append(value)
        text_rows = self._encode_tokens(token_rows)
        image_rows = self.model.encode_pixels(images, self._image_batch_size)

        # Their embeddings go back to the queries, in the same order.
        token_counts = [len(tokens) for tokens in token_rows]
        text_results, image_results = zip(text_rows, token_counts, strict=True), iter(image_rows)
        for query in batch:
            rows, num_query_tokens = [], 0
            for value in query.inputs:
                if isinstance(value, str):
                    row, num_text_tokens = next(text_results)
                    num_query_tokens += num_text_tokens
                else:
                    row = next(image_results)
                rows.append(row)
            query.embeddings = Embeddings(np.stack(rows), num_query_tokens)

    def _encode_tokens(self, token_rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the embeddings of texts, which are encoded in the order of their lengths."""
        order = sorted(range(len(token_rows)), key=lambda number: len(token_rows[number]))
        sorted_embeddings = self.model.encode_tokens([token_rows[number] for number in order], self._text_batch_size)
        embeddings = np.empty_like(sorted_embeddings)
        embeddings[order] = sorted_embeddings
        return embeddings


def copy_error(error: Exception, count: int) -> list[Exception]:
    """Return a copy of an error for each of `count` queries.

    Each request raises its own, if it can be copied: one exception raised in many requests would collect the tracebacks
    of all.
    """
    error.__traceback__ = None
    try:
        return [copy.copy(error) for _ in range(count)]
    except Exception:  # its constructor takes other arguments than its `args`; a user's own tower may raise anything
        return [error] * count


def resolve(queries: Sequence[Query], answers: Sequence[Any]) -> None:
    """Pass answers or exceptions to the event loops of their requests, with one call for each loop."""
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
