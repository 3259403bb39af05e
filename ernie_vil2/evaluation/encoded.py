"""A benchmark as embeddings: encoded chunk by chunk, by one process or several ranks, and kept on disk."""

from __future__ import annotations

import functools
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from ernie_vil2.data.benchmark import Benchmark, BenchmarkImage
from ernie_vil2.data.samples import BadSample, BadSampleReport
from ernie_vil2.device import runtime
from ernie_vil2.device.launch import launched_rank
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.io.files import atomic_write, parse_json, save_arrays
from ernie_vil2.io.terminal import counted


@dataclass(frozen=True)
class EncodedBenchmark:
    """Embeddings of a benchmark: `images` `[N, D]` and `texts` `[M, D]` float32, rows as in `benchmark`.

    `problems` counts the images that were asked for and those that could not be used; `benchmark` is without them.
    """

    benchmark: Benchmark
    image_embeddings: np.ndarray
    text_embeddings: np.ndarray
    bad_samples: BadSampleReport

    @property
    def embeddings(self) -> dict[str, np.ndarray]:
        """The embeddings by side, as protocols name them."""
        return {"image": self.image_embeddings, "text": self.text_embeddings}


def encode_benchmark(
    model: ErnieViL2,
    benchmark: Benchmark,
    cache: str | Path | None = None,
    progress: Callable[[int], object] = lambda rows: None,
    chunk_rows: int = 128,
    rank: int = 0,
    ranks: int = 1,
) -> EncodedBenchmark:
    """Encodes every image and every distinct text of a benchmark.

    While the model encodes one chunk of rows, threads read and preprocess the next, so that no more than two chunks of
    pixels are in memory. Images that are missing or broken are counted and named in `problems` and left out; their
    texts stay in the gallery.

    With `cache`, an interrupted run goes on after its last finished chunk, and a second one encodes nothing. A chunk
    is found by the model's fingerprint, the benchmark's name and the ids, and used only if the digest of the images'
    own bytes is still the same: every image is read again, which is cheap next to encoding it, and a replaced one is
    never missed. A damaged chunk is reported as a warning and encoded again.

    With several ranks, each takes every `ranks`-th chunk and all get the whole result, bit for bit that of one
    process, since the same chunks pass through the model. All must call it, with Paddle's process group initialised.

    Args:
        model: of which `fingerprint`, `preprocess`, `encode_pixels` and `encode_texts` are used.
        cache: folder of finished chunks, made if missing; None: nothing is kept.
        progress: called with the number of rows just done, in all `len(benchmark.images) + len(benchmark.texts)` on
            rank 0, which counts with each own chunk those that the other ranks encode meanwhile.
        chunk_rows: rows of a chunk, and so the most that the model is given at once.
        rank, ranks: this process's rank among those that share the work.

    Raises:
        ValueError: there is nothing to encode, or none of the images could be used; another rank failed.
    """
    rows_of_text = {text: row for row, text in enumerate(dict.fromkeys(text.text for text in benchmark.texts))}
    image_chunks = _chunks(benchmark.images, chunk_rows)
    text_chunks = _chunks(list(rows_of_text), chunk_rows)
    progress(len(benchmark.texts) - len(rows_of_text))

    store = None if cache is None else _Cache(Path(cache), model.fingerprint)
    workers = max(1, runtime.usable_cores() // ranks)
    # Text chunks are numbered after image chunks, so that a rank left without images has texts to do.
    encoding = chain(
        _encoded_images(model, benchmark.name, image_chunks[rank::ranks], store, workers),
        _encoded_texts(model, text_chunks[(rank - len(image_chunks)) % ranks :: ranks], store),
    )
    sizes = [len(chunk) for chunk in chain(image_chunks, text_chunks)]
    encoded: dict[int, _Encoded] = {}
    with _errors_of_all_ranks(ranks):
        for number, chunk in zip(range(rank, len(sizes), ranks), encoding, strict=True):
            encoded[number] = chunk
            progress(sum(sizes[number - rank : number - rank + ranks]))
    if ranks > 1:
        encoded = _of_all_ranks(encoded)

    images = [encoded[number] for number in range(len(image_chunks))]
    texts = [encoded[number] for number in range(len(image_chunks), len(sizes))]
    problems = BadSampleReport()
    unusable: dict[int, str] = {}
    for number, chunk in enumerate(images):
        unusable |= {number * chunk_rows + position: reason for position, reason in chunk.bad}
    problems.add(len(benchmark.images), [(reason, benchmark.images[row].id) for row, reason in unusable.items()])
    if len(unusable) == len(benchmark.images) and (unusable or not benchmark.texts):
        raise ValueError(
            f"{benchmark.name}: nothing to score, {counted(len(benchmark.texts), 'text')} and "
            f"{len(benchmark.images) - len(unusable)} usable images\n{problems}"
        )
    if unusable:
        benchmark = benchmark.select(images=[row for row in range(len(benchmark.images)) if row not in unusable])
    order = [rows_of_text[text.text] for text in benchmark.texts]
    return EncodedBenchmark(benchmark, _joined(images), _joined(texts)[order], problems)


_NONE = np.empty([0, 0], np.float32)


class _Encoded(NamedTuple):
    """One chunk: embeddings `[n, D]` of the usable rows, and the others as (position in the chunk, reason)."""

    embeddings: np.ndarray
    bad: list[tuple[int, str]]


_Stored = tuple[str, _Encoded]  # with what it was made from
_View = tuple[str, np.ndarray | str | None]  # digest of an image's bytes, its pixels or the reason why there are none


def _chunks(rows: Sequence, size: int) -> list[Sequence]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _joined(chunks: Sequence[_Encoded]) -> np.ndarray:
    # A chunk without a usable row does not know the width.
    return np.concatenate([chunk.embeddings for chunk in chunks if len(chunk.embeddings)] or [_NONE])


def _encoded_images(
    model: ErnieViL2, name: str, chunks: Sequence[Sequence[BenchmarkImage]], cache: _Cache | None, workers: int
) -> Iterator[_Encoded]:
    pool = ThreadPoolExecutor(workers)
    prepare = functools.partial(_prepared, model.preprocess)
    only_read = functools.partial(_prepared, None)

    def names_of(chunk: Sequence[BenchmarkImage]) -> list[str]:
        return [name, *(image.id for image in chunk)]

    def start(chunk: Sequence[BenchmarkImage]) -> tuple[Sequence[BenchmarkImage], _Stored | None, Iterator[_View]]:
        stored = cache.read("images", names_of(chunk), len(chunk)) if cache else None
        return chunk, stored, pool.map(only_read if stored else prepare, chunk)

    def finish(chunk: Sequence[BenchmarkImage], stored: _Stored | None, prepared: Iterator[_View]) -> _Encoded:
        digests, pixels = zip(*prepared, strict=True)
        if stored and cache:
            content, encoded = stored
            if content == cache.content(digests):
                return encoded
            digests, pixels = zip(*pool.map(prepare, chunk), strict=True)
        usable = [view for view in pixels if isinstance(view, np.ndarray)]
        embeddings = model.encode_pixels(np.stack(usable)) if usable else _NONE
        encoded = _Encoded(embeddings, [(position, why) for position, why in enumerate(pixels) if isinstance(why, str)])
        if cache:
            cache.write("images", names_of(chunk), cache.content(digests), encoded)
        return encoded

    try:
        ready = started = None
        for chunk in chunks:
            ready, started = started, start(chunk)
            if ready:
                yield finish(*ready)
        if started:
            yield finish(*started)
    finally:
        pool.shutdown(cancel_futures=True)


def _prepared(preprocess: Callable[[bytes], np.ndarray] | None, image: BenchmarkImage) -> _View:
    try:
        data = image.read()
    except FileNotFoundError:
        return "", "missing image"
    except OSError:
        return "", "unreadable image"
    except BadSample as bad:
        return "", bad.reason
    digest = blake2b(data, digest_size=16).hexdigest()
    try:
        return digest, preprocess(data) if preprocess else None
    except BadSample as bad:
        return digest, bad.reason


def _encoded_texts(model: ErnieViL2, chunks: Sequence[Sequence[str]], cache: _Cache | None) -> Iterator[_Encoded]:
    for chunk in chunks:
        stored = cache.read("texts", chunk, len(chunk)) if cache else None
        if stored and cache and stored[0] == cache.content(chunk):
            yield stored[1]
            continue
        encoded = _Encoded(model.encode_texts(chunk), [])
        if cache:
            cache.write("texts", chunk, cache.content(chunk), encoded)
        yield encoded


class _Cache:
    """Chunks of embeddings of one model as safetensors files, each with what it was made from and its checksum."""

    def __init__(self, folder: Path, fingerprint: str):
        self._fingerprint = fingerprint
        self._folder = folder / _digest([fingerprint])
        self._folder.mkdir(parents=True, exist_ok=True)

    def _path(self, side: str, names: Sequence[str]) -> Path:
        """Where the chunk of these rows belongs."""
        return self._folder / f"{side}-{_digest(names)}.safetensors"

    def content(self, rows: Sequence[str]) -> str:
        """What a chunk is made from: the model and its rows, each by its text or the digest of its bytes."""
        return _digest([self._fingerprint, *rows])

    def read(self, side: str, names: Sequence[str], rows: int) -> _Stored | None:
        """Content and embeddings of a chunk of so many rows; None if there is none or it is damaged."""
        path = self._path(side, names)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                about, embeddings = parse_json(file.metadata()["chunk"]), file.get_tensor("embeddings")
            bad = [(int(position), str(reason)) for position, reason in about["bad"]]
            whole = about["checksum"] == _checksum(embeddings) and len(embeddings) + len(bad) == rows
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            warnings.warn(f"{path}: damaged, its {rows} rows are encoded again", stacklevel=2)
            return None
        return about["content"], _Encoded(embeddings, bad)

    def write(self, side: str, names: Sequence[str], content: str, encoded: _Encoded) -> None:
        about = {"content": content, "checksum": _checksum(encoded.embeddings), "bad": encoded.bad}
        with atomic_write(self._path(side, names)) as aside:
            save_arrays(aside, {"embeddings": encoded.embeddings}, {"chunk": json.dumps(about)})


def _digest(names: Sequence[str]) -> str:
    return blake2b(json.dumps(list(names)).encode(), digest_size=16).hexdigest()


def _checksum(embeddings: np.ndarray) -> str:
    return blake2b(np.ascontiguousarray(embeddings).data, digest_size=16).hexdigest()


def _errors_of_all_ranks(ranks: int) -> AbstractContextManager[None]:
    if ranks == 1:
        return nullcontext()
    from ernie_vil2.parallel.collectives import errors_on_all_ranks

    return errors_on_all_ranks()


def _of_all_ranks(encoded: dict[int, _Encoded]) -> dict[int, _Encoded]:
    """A collective: the chunks of all ranks, by number."""
    import paddle

    from ernie_vil2.parallel import collectives, gather_rows

    about = [(number, len(chunk.embeddings), chunk.bad) for number, chunk in encoded.items()]
    width = max((chunk.embeddings.shape[1] for chunk in encoded.values()), default=0)
    notes: list[tuple[int, list]] = collectives.all_gather_object((width, about))
    width = max(width for width, _ in notes)
    if not width:
        return {number: _Encoded(np.empty([0, 0], np.float32), bad) for _, about in notes for number, _, bad in about}
    own = [chunk.embeddings for chunk in encoded.values() if len(chunk.embeddings)]
    rows = np.concatenate([np.empty([0, width], np.float32), *own])
    counts = [sum(count for _, count, _ in about) for _, about in notes]
    joined = gather_rows(paddle.to_tensor(rows), counts)[0].numpy()

    everything, start = {}, 0
    for number, count, bad in chain.from_iterable(about for _, about in notes):
        everything[number] = _Encoded(joined[start : start + count], bad)
        start += count
    return everything


def encode_on_all_ranks(
    model: ErnieViL2, benchmark: Benchmark, name: str = "", cache: Path | None = None
) -> EncodedBenchmark:
    """Encodes a benchmark, with a progress bar on rank 0. A collective of the ranks of a command.

    Args:
        name: of the benchmark, for the bar.
        cache: as for `encode_benchmark`.
    """
    rank, ranks = launched_rank()
    if ranks > 1:
        _join_ranks()
    rows, title = len(benchmark.images) + len(benchmark.texts), f"encoding {name}".strip()
    with tqdm(total=rows, unit="row", desc=title, disable=rank != 0, file=sys.stdout) as bar:
        return encode_benchmark(model, benchmark, cache, bar.update, rank=rank, ranks=ranks)


@functools.cache  # once per command, however many data sets it encodes
def _join_ranks() -> None:
    from ernie_vil2.parallel.ranks import join_ranks

    join_ranks()
