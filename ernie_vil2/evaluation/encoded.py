"""Encoding of benchmarks: chunk by chunk, by one process or several ranks, with a cache on disk."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage
from ernie_vil2.data.preprocessing import wait_in_turn
from ernie_vil2.data.samples import BadSample, BadSampleReport
from ernie_vil2.device import runtime
from ernie_vil2.device.launch import launched_rank
from ernie_vil2.encoder import Encoder
from ernie_vil2.io.files import atomic_write, parse_json, save_arrays
from ernie_vil2.io.progress import progress_bar
from ernie_vil2.io.terminal import pluralize


@dataclass(frozen=True)
class EncodedBenchmark:
    """The embeddings of a benchmark.

    Attributes:
        benchmark: the benchmark without the images that could not be used.
        image_embeddings: `[N, D]` float32, rows as in `benchmark.images`.
        text_embeddings: `[M, D]` float32, rows as in `benchmark.texts`.
        bad_samples: number of images that were read, and the images that could not be used.
    """

    benchmark: Benchmark
    image_embeddings: np.ndarray
    text_embeddings: np.ndarray
    bad_samples: BadSampleReport

    @property
    def embeddings(self) -> dict[str, np.ndarray]:
        """Embeddings by side, "image" and "text"."""
        return {"image": self.image_embeddings, "text": self.text_embeddings}

    def index_rows(self, side: str) -> dict[str, int]:
        """Return the row of each image, or of each text, by its id."""
        return {entry.id: row for row, entry in enumerate(self.benchmark.get_side(side))}


def encode_benchmark(
    model: Encoder,
    benchmark: Benchmark,
    cache: str | Path | None = None,
    progress: Callable[[int], object] = lambda rows: None,
    chunk_rows: int = 128,
    rank: int = 0,
    ranks: int = 1,
) -> EncodedBenchmark:
    """Encode every image and every distinct text of a benchmark.

    While the model encodes a chunk of rows, threads read and preprocess the next one, so that no more than two chunks
    of pixels are in memory. A GPU gets the next chunk before the embeddings of the last one are read. Images that are
    missing or broken are counted in `bad_samples` and left out; their texts stay in the gallery.

    With `cache`, an interrupted run continues after its last finished chunk, and a second run encodes nothing. A chunk
    is looked up by the model's fingerprint, the benchmark's name and the ids, and used only if the digest of the
    images' bytes is unchanged: every image is read again, which is cheap compared to encoding, and a replaced image is
    always noticed. A damaged chunk is reported as a warning and encoded again.

    With several ranks, each encodes every `ranks`-th chunk, and all return the whole result, bit-equal to the result of
    one process, because the same chunks pass through the model. This is then a collective: all ranks must call it, with
    Paddle's process group initialised.

    Args:
        model: model whose `fingerprint`, `preprocess`, `start_pixels` and `start_texts` are used.
        benchmark: rows to encode.
        cache: folder of finished chunks, created if missing; None: no cache.
        progress: called with the number of finished rows; on rank 0, which reports the other ranks' rows as well, the
            numbers add up to `len(benchmark.images) + len(benchmark.texts)`.
        chunk_rows: rows of a chunk, the largest batch that the model gets. Larger chunks need more memory, and an
            interrupted run loses more.
        rank: rank of this process.
        ranks: number of ranks that share the work.

    Raises:
        ValueError: there is nothing to encode, no image could be used, or another rank failed.
    """
    # Equal texts are encoded once, and their embeddings copied at the end.
    distinct_texts = list(dict.fromkeys(text.text for text in benchmark.texts))
    image_chunks = _split_chunks(benchmark.images, chunk_rows)
    text_chunks = _split_chunks(distinct_texts, chunk_rows)
    progress(len(benchmark.texts) - len(distinct_texts))

    chunk_cache = None if cache is None else _ChunkCache(Path(cache), model.fingerprint)
    num_threads = max(1, runtime.num_usable_cores() // ranks)
    # Text chunks are numbered after image chunks, so that a rank that gets no images encodes texts.
    first_text_chunk = (rank - len(image_chunks)) % ranks
    encoding = chain(
        _encode_images(model, benchmark.name, image_chunks[rank::ranks], chunk_cache, num_threads),
        _encode_texts(model, text_chunks[first_text_chunk::ranks], chunk_cache),
    )
    chunk_sizes = [len(chunk) for chunk in chain(image_chunks, text_chunks)]
    encoded_chunks: dict[int, _EncodedChunk] = {}
    with _errors_on_all_ranks(ranks):
        for number, encoded_chunk in zip(range(rank, len(chunk_sizes), ranks), encoding, strict=True):
            encoded_chunks[number] = encoded_chunk
            # A round is one chunk of each rank; the other ranks finish theirs at about the same time.
            round_start = number - rank
            progress(sum(chunk_sizes[round_start : round_start + ranks]))
    if ranks > 1:
        encoded_chunks = _gather_chunks(encoded_chunks)

    chunks_in_order = [encoded_chunks[number] for number in range(len(chunk_sizes))]
    encoded_images, encoded_texts = chunks_in_order[: len(image_chunks)], chunks_in_order[len(image_chunks) :]
    bad_rows: dict[int, str] = {}
    for number, encoded_chunk in enumerate(encoded_images):
        for position, reason in encoded_chunk.bad_rows:
            bad_rows[number * chunk_rows + position] = reason
    num_usable = len(benchmark.images) - len(bad_rows)
    bad_samples = BadSampleReport()
    bad = [(reason, benchmark.images[row].id) for row, reason in bad_rows.items()]
    bad_samples.add(num_read=len(benchmark.images), bad=bad)
    # Texts alone can be encoded, but not texts whose images are all broken.
    if num_usable == 0 and (bad_rows or not benchmark.texts):
        raise ValueError(
            f"{benchmark.name}: nothing to score, {pluralize(len(benchmark.texts), 'text')} and "
            f"{num_usable} usable images\n{bad_samples}"
        )
    # Remove the broken images, so that the benchmark has as many rows as the embeddings.
    if bad_rows:
        benchmark = benchmark.select(images=[row for row in range(len(benchmark.images)) if row not in bad_rows])
    text_rows = {text: row for row, text in enumerate(distinct_texts)}
    text_embeddings = _concatenate(encoded_texts)[[text_rows[text.text] for text in benchmark.texts]]
    return EncodedBenchmark(benchmark, _concatenate(encoded_images), text_embeddings, bad_samples)


# Embeddings of a chunk without a usable row, whose width is not known.
_NO_EMBEDDINGS = np.empty([0, 0], np.float32)


class _EncodedChunk(NamedTuple):
    """Embeddings `[n, D]` of the usable rows of a chunk, and (position in the chunk, reason) of the other rows."""

    embeddings: np.ndarray
    bad_rows: list[tuple[int, str]]


class _CachedChunk(NamedTuple):
    """A chunk of the cache, and the digest of the model and the rows that it was made from."""

    content: str
    chunk: _EncodedChunk


class _ReadImage(NamedTuple):
    """An image that was read: digest of its bytes, "" if it cannot be read, and what the model gets or the reason.

    `pixels` is what `Encoder.preprocess` returns; None: the image was not prepared, or cannot be used.
    """

    digest: str
    pixels: Any
    reason: str | None = None


class _PendingChunk(NamedTuple):
    """A chunk of images that threads are reading."""

    names: list[str]
    images: Sequence[BenchmarkImage]
    cached: _CachedChunk | None
    reading: Iterator[_ReadImage]


def _split_chunks(rows: Sequence, size: int) -> list[Sequence]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _concatenate(chunks: Sequence[_EncodedChunk]) -> np.ndarray:
    embeddings = [chunk.embeddings for chunk in chunks if len(chunk.embeddings)]
    return np.concatenate(embeddings or [_NO_EMBEDDINGS])


def _encode_images(
    model: Encoder, name: str, chunks: Sequence[Sequence[BenchmarkImage]], cache: _ChunkCache | None, num_threads: int
) -> Iterator[_EncodedChunk]:
    """Encode chunks of images; `name` of the benchmark is part of the name of their files in the cache."""
    pool = ThreadPoolExecutor(num_threads)
    read_and_preprocess = functools.partial(_read_image, model.preprocess)
    read_only = functools.partial(_read_image, None)

    def start_reading(images: Sequence[BenchmarkImage]) -> _PendingChunk:
        names = [name, *(image.id for image in images)]
        cached = cache.read("images", names, len(images)) if cache else None
        reading = pool.map(read_only if cached else read_and_preprocess, images)
        return _PendingChunk(names, images, cached, reading)

    def start_encoding(pending: _PendingChunk) -> Callable[[], _EncodedChunk]:
        read_images = list(pending.reading)
        cached = pending.cached
        if cached and cache:
            if cached.content == cache.digest_rows([image.digest for image in read_images]):
                return lambda: cached.chunk
            # An image has been replaced since; so far the images were read for their digests only.
            read_images = list(pool.map(read_and_preprocess, pending.images))

        pixels, bad_rows = [], []
        for row, image in enumerate(read_images):
            if image.pixels is not None:
                pixels.append(image.pixels)
            elif image.reason is not None:
                bad_rows.append((row, image.reason))
        wait = model.start_pixels(pixels) if pixels else (lambda: _NO_EMBEDDINGS)
        digests = [image.digest for image in read_images]  # `finish` must not keep the pixels

        def finish() -> _EncodedChunk:
            encoded = _EncodedChunk(wait(), bad_rows)
            if cache:
                cache.write("images", pending.names, digests, encoded)
            return encoded

        return finish

    def start_chunks() -> Iterator[Callable[[], _EncodedChunk]]:
        pending = None
        for chunk in chunks:
            # Threads read this chunk while the model encodes the previous one.
            previous, pending = pending, start_reading(chunk)
            if previous:
                yield start_encoding(previous)
        if pending:
            yield start_encoding(pending)

    try:
        yield from wait_in_turn(start_chunks())
    finally:
        pool.shutdown(cancel_futures=True)


def _read_image(preprocess: Callable[[bytes, str], Any] | None, image: BenchmarkImage) -> _ReadImage:
    try:
        content = image.read()
    except FileNotFoundError:
        return _ReadImage("", None, "missing image")
    except OSError:
        return _ReadImage("", None, "unreadable image")
    except BadSample as error:
        return _ReadImage("", None, error.reason)
    # 128 bits: two different images do not get the same digest by accident.
    digest = blake2b(content, digest_size=16).hexdigest()
    if preprocess is None:  # the digest is enough, as the embedding is in the cache
        return _ReadImage(digest, None)
    try:
        return _ReadImage(digest, preprocess(content, image.id))
    except BadSample as error:
        return _ReadImage(digest, None, error.reason)


def _encode_texts(
    model: Encoder, chunks: Sequence[Sequence[str]], cache: _ChunkCache | None
) -> Iterator[_EncodedChunk]:
    def start_encoding(texts: Sequence[str]) -> Callable[[], _EncodedChunk]:
        cached = cache.read("texts", texts, len(texts)) if cache else None
        if cached and cache and cached.content == cache.digest_rows(texts):
            return lambda: cached.chunk
        wait = model.start_texts(texts)

        def finish() -> _EncodedChunk:
            encoded = _EncodedChunk(wait(), [])
            if cache:
                cache.write("texts", texts, texts, encoded)
            return encoded

        return finish

    return wait_in_turn(map(start_encoding, chunks))


class _ChunkCache:
    """Embeddings of one model on disk: a safetensors file for each chunk, with its content digest and a checksum."""

    def __init__(self, folder: Path, fingerprint: str):
        self._fingerprint = fingerprint
        self._folder = folder / _digest([fingerprint])
        self._folder.mkdir(parents=True, exist_ok=True)

    # A chunk is named by its rows, so that another benchmark, or another order of it, is another file.
    def _path(self, side: str, names: Sequence[str]) -> Path:
        return self._folder / f"{side}-{_digest(names)}.safetensors"

    def digest_rows(self, rows: Sequence[str]) -> str:
        """Return the digest of the model and of rows, each as its text or as the digest of its bytes."""
        return _digest([self._fingerprint, *rows])

    def read(self, side: str, names: Sequence[str], num_rows: int) -> _CachedChunk | None:
        """Read the chunk of the rows with these names; None if there is none, or it is damaged."""
        path = self._path(side, names)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                record = parse_json(file.metadata()["chunk"])
                embeddings = file.get_tensor("embeddings")
            bad_rows = [(int(position), str(reason)) for position, reason in record["bad"]]
            is_complete = len(embeddings) + len(bad_rows) == num_rows
            is_intact = is_complete and record["checksum"] == _checksum(embeddings)
            content = record["content"]
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            is_intact = False
        if not is_intact:
            warnings.warn(f"{path}: damaged, its {num_rows} rows are encoded again", stacklevel=2)
            return None
        return _CachedChunk(content, _EncodedChunk(embeddings, bad_rows))

    def write(self, side: str, names: Sequence[str], rows: Sequence[str], encoded: _EncodedChunk) -> None:
        """Write a chunk; `rows` as in `digest_rows`."""
        record = {
            "content": self.digest_rows(rows),
            "checksum": _checksum(encoded.embeddings),
            "bad": encoded.bad_rows,
        }
        with atomic_write(self._path(side, names)) as temporary_path:
            save_arrays(temporary_path, {"embeddings": encoded.embeddings}, {"chunk": json.dumps(record)})


def _digest(names: Sequence[str]) -> str:
    return blake2b(json.dumps(list(names)).encode(), digest_size=16).hexdigest()


def _checksum(embeddings: np.ndarray) -> str:
    return blake2b(np.ascontiguousarray(embeddings).data, digest_size=16).hexdigest()


def _errors_on_all_ranks(ranks: int) -> AbstractContextManager[None]:
    if ranks == 1:
        return nullcontext()
    from ernie_vil2.parallel.collectives import errors_on_all_ranks

    return errors_on_all_ranks()


def _gather_chunks(local_chunks: dict[int, _EncodedChunk]) -> dict[int, _EncodedChunk]:
    """Return the chunks of all ranks by number. A collective."""
    import paddle

    from ernie_vil2.parallel import collectives, gather_rows

    # First the number of rows of each chunk and the width, which a rank without a usable row does not know.
    local_width, local_summary, local_embeddings = 0, [], []
    for number, chunk in local_chunks.items():
        local_summary.append((number, len(chunk.embeddings), chunk.bad_rows))
        if len(chunk.embeddings):
            local_width = chunk.embeddings.shape[1]
            local_embeddings.append(chunk.embeddings)
    gathered: list[tuple[int, list]] = collectives.all_gather_object((local_width, local_summary))
    width = max(rank_width for rank_width, _ in gathered)
    summaries = [summary for _, summary in gathered]

    # Then the rows of all ranks in one array.
    embeddings = _NO_EMBEDDINGS
    if width:
        local_rows = np.concatenate([np.empty([0, width], np.float32), *local_embeddings])
        row_counts = [sum(num_rows for _, num_rows, _ in summary) for summary in summaries]
        embeddings = gather_rows(paddle.to_tensor(local_rows), row_counts)[0].numpy()

    # The gathered rows are in the order of the ranks, and the rows of each rank in the order of its chunks.
    chunks, start = {}, 0
    for number, num_rows, bad_rows in chain.from_iterable(summaries):
        chunks[number] = _EncodedChunk(embeddings[start : start + num_rows], bad_rows)
        start += num_rows
    return chunks


def encode_on_all_ranks(
    model: Encoder, benchmark: Benchmark, name: str = "", cache: Path | None = None
) -> EncodedBenchmark:
    """Encode a benchmark with a progress bar on rank 0. A collective of the ranks of a command.

    Args:
        model: model that encodes.
        benchmark: rows to encode.
        name: name of the benchmark in the progress bar.
        cache: folder of finished chunks, see `encode_benchmark`.
    """
    rank, ranks = launched_rank()
    if ranks > 1:
        _join_ranks()
    num_rows = len(benchmark.images) + len(benchmark.texts)
    title = f"encoding {name}".strip()
    with progress_bar(description=title, unit="row", total=num_rows, is_shown=rank == 0) as bar:
        return encode_benchmark(model, benchmark, cache, bar.update, rank=rank, ranks=ranks)


@functools.cache  # The process group is initialised once per command, however many data sets it encodes.
def _join_ranks() -> None:
    from ernie_vil2.parallel.ranks import join_ranks

    join_ranks()
