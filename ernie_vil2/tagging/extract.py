"""The samples of a source tagged, batch by batch, into a file of tags by id."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from ernie_vil2.data.readers import ShardedSource
from ernie_vil2.data.samples import BadSample, Sample, content_id
from ernie_vil2.data.tags import Tags, tags_id
from ernie_vil2.io.files import atomic_write, load_json, write_json
from ernie_vil2.tagging.journal import Journal, JournalError, TaggedRows, TaggingReport


class Tagger(Protocol):
    """What finds the tags of a sample."""

    def describe(self) -> dict:
        """What decides the tags, for JSON; a run that goes on must have the same."""

    def prepare(self, sample: Sample, name: str) -> Any:
        """What `tag` needs of a sample with the id `name`; BadSample if it cannot be used. Called from threads."""

    def tag(self, prepared: Sequence[Any]) -> list[Tags]:
        """The tags of a batch of samples; an empty mapping for one without."""

    def remarks(self, ids: np.ndarray) -> list[str]:
        """What to say at the end, when samples with these ids (`content_id`, sorted) were tagged."""


def extract_tags(
    source: ShardedSource,
    tagger: Tagger,
    output: str | Path,
    id_field: str | None = None,
    batch_size: int = 64,
    threads: int = 1,
) -> TaggingReport:
    """Writes the tags of a source's images as `data.tags.TagsFile` reads them, one line for each id that has tags.

    Samples that share an id are tagged once, by the first of them; an image's name that different images have gets no
    tags, and is reported. What is found is written down batch by batch in `{output}.partial`, and a run that was
    stopped or killed goes on there. The output appears when it is whole, with `{output}.report.json`; if both exist, of
    the same job, nothing is done. In both cases what was tagged is read again, to make sure that it is the same.

    Args:
        source: the samples.
        tagger: finds the tags.
        output: a `.jsonl` file.
        id_field: field of the samples that is the id; None: the image's name.
        batch_size: samples that the tagger is given at once, and the most that a killed run loses.
        threads: that prepare samples while the tagger is at work.

    Raises:
        JournalError: the output or what was begun of it is another job's, or of other images.
        ValueError: the output is not a `.jsonl` file.
        OSError: it cannot be written.
    """
    output = Path(output)
    if output.suffix != ".jsonl":
        raise ValueError(f"{output}: tags are written as JSON lines; name a .jsonl file")
    job = {"input": source.contents, "id": id_field, "tagger": tagger.describe()}
    partial, report_path = (output.with_name(output.name + end) for end in (".partial", ".report.json"))
    read = _RowsRead(source, id_field)
    if output.exists():
        report = _finished(output, report_path, job, read)
        partial.unlink(missing_ok=True)
        return report
    output.parent.mkdir(parents=True, exist_ok=True)
    with Journal(partial, job) as journal:
        _complete(journal, read, tagger, batch_size, threads)
        shared = {name for batch in journal for name in batch.shared}
        report = _summary(journal, tagger, shared)
        # The report first: an output without one would be taken for a stranger's.
        saved = {"job": job, "content": read.content, **report.as_dict()}
        write_json(report_path, saved)
        _write_tags(journal, output, shared)
        partial.unlink()
    return report


class _RowsRead:
    """What was read of a source so far: its ids, each with its image, and a digest of all of it."""

    def __init__(self, source: ShardedSource, id_field: str | None):
        self.source = source
        self._id_field = id_field
        self._images: dict[int, int] = {}
        self._shared: set[int] = set()
        self._digest = blake2b(digest_size=16)

    @property
    def content(self) -> str:
        """The digest of the ids and images of the rows that were read."""
        return self._digest.hexdigest()

    def rows(self, rows: range) -> Iterator[tuple[str, Sample, bool] | BadSample]:
        """Reads on: samples whose id is new (True), or is an image's name that another image has (False)."""
        for row in rows:
            try:
                sample = self.source[row]
                name = tags_id(sample, self._id_field)
            except BadSample as bad:
                self._digest.update(blake2b(str(bad).encode()).digest())
                yield bad
                continue
            number, image = content_id(name), content_id(name, sample.image)
            self._digest.update(number.to_bytes(8, "little") + blake2b(sample.image).digest())
            if number not in self._images:
                self._images[number] = image
                yield name, sample, True
            elif self._images[number] != image and self._id_field is None and number not in self._shared:
                self._shared.add(number)
                yield name, sample, False

    def skip(self, end: int) -> str:
        """Reads the rows before `end` again; returns the digest of them."""
        with tqdm(total=end, desc="reading what was tagged", unit="sample", delay=2, leave=False,
                  file=sys.stdout) as bar:  # fmt: skip
            for row in range(end):
                for _ in self.rows(range(row, row + 1)):
                    pass
                bar.update()
        return self.content


def _finished(output: Path, report_path: Path, job: dict, read: _RowsRead) -> TaggingReport:
    """The report of an output that is there already."""
    try:
        saved = load_json(report_path)
        if saved["job"] == job and saved["content"] == read.skip(len(read.source)):
            return TaggingReport.from_dict(saved)
    except (FileNotFoundError, ValueError, KeyError):
        pass
    raise JournalError(
        f"{output} is there already, from another job or other images; delete it, or choose another output"
    )


def _complete(journal: Journal, read: _RowsRead, tagger: Tagger, batch_size: int, threads: int) -> None:
    """Tags the rows that the journal lacks."""
    start, content, end = 0, read.content, len(read.source)
    for batch in journal:
        start, content = batch.end, batch.content
    if read.skip(start) != content:
        raise JournalError(f"{journal.path} was begun with other images; delete it, or choose another output")
    with (
        tqdm(total=end, initial=start, desc="tagging", unit="sample", dynamic_ncols=True, file=sys.stdout) as bar,
        ThreadPoolExecutor(threads) as pool,
    ):

        def reading(rows: range) -> _Reading:
            return _Reading(read, rows, tagger, pool.submit)

        blocks = (range(first, min(first + batch_size, end)) for first in range(start, end, batch_size))
        try:
            # In pairs, so that the next one is read by threads while the tagger is at work.
            for block, _ in pairwise(chain(map(reading, blocks), [None])):
                assert block is not None  # which is last alone
                journal.add(block.tagged(tagger))
                bar.update(block.end - bar.n)
        finally:
            pool.shutdown(cancel_futures=True)


class _Reading:
    """A range of rows that is being read: samples with new ids are prepared by threads."""

    def __init__(self, read: _RowsRead, rows: range, tagger: Tagger, submit: Callable[..., Future]):
        self.end = rows.stop
        self._read: list[tuple[str, Future] | BadSample] = []
        self._shared: list[str] = []
        for found in read.rows(rows):
            if isinstance(found, BadSample):
                self._read.append(found)
                continue
            name, sample, is_new = found
            if is_new:
                self._read.append((name, submit(tagger.prepare, sample, name)))
            else:
                self._shared.append(name)
        self._content = read.content

    def tagged(self, tagger: Tagger) -> TaggedRows:
        """What the tagger finds in them."""
        names, prepared, usable, bad = [], [], [], list[tuple[str, str]]()
        for read in self._read:
            try:
                if isinstance(read, BadSample):
                    raise read
                name, future = read
                names.append(name)
                prepared.append(future.result())
                usable.append(name)
            except BadSample as error:
                bad.append((error.reason, error.name))
        found = dict(zip(usable, tagger.tag(prepared) if prepared else [], strict=True))
        return TaggedRows(self.end, [(name, found.get(name)) for name in names], bad, self._shared, self._content)


def _summary(journal: Journal, tagger: Tagger, shared: set[str]) -> TaggingReport:
    report, ids, start = TaggingReport(), array("q"), 0
    for batch in journal:
        report.add(batch, batch.end - start, shared)
        ids.extend(content_id(name) for name, tags in batch.found if tags is not None)
        start = batch.end
    report.remarks = tagger.remarks(np.sort(np.array(ids, np.int64)))
    return report


def _write_tags(journal: Journal, output: Path, shared: set[str]) -> None:
    with atomic_write(output) as aside, open(aside, "w", encoding="utf-8") as file:
        for batch in journal:
            for name, tags in batch.found:
                if tags and name not in shared:
                    fields = {f"tags_{language}" if language else "tags": list(of) for language, of in tags.items()}
                    file.write(json.dumps({"id": name, **fields}, ensure_ascii=False) + "\n")
