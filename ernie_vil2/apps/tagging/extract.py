"""The samples of a source tagged, batch by batch, into a file of tags by id.

What was found is a line for each batch in a journal, by which a stopped run continues.
"""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from ernie_vil2.data.readers import ShardedSource
from ernie_vil2.data.samples import BadSample, BadSampleReport, Sample, content_id, format_names
from ernie_vil2.data.tags import Tags, find_tags_id
from ernie_vil2.io.files import add_path_to_errors, atomic_write, load_json, parse_json, write_json
from ernie_vil2.io.locks import Locked, OtherJob, check_job, lock_exclusive
from ernie_vil2.io.terminal import RunError, pluralize

VERSION = 1  # of journals and reports


class Tagger(ABC):
    """What finds the tags of a sample."""

    @abstractmethod
    def describe(self) -> dict:
        """What decides the tags, for JSON; a run that goes on must have the same."""

    @abstractmethod
    def prepare(self, sample: Sample, name: str) -> Any:
        """What `tag` needs of a sample with the id `name`; BadSample if it cannot be used. Called from threads."""

    @abstractmethod
    def tag(self, prepared: Sequence[Any]) -> list[Tags]:
        """The tags of a batch of samples; an empty mapping for one without."""

    def remarks(self, ids: np.ndarray) -> list[str]:
        """What to say at the end, when samples with these ids (`content_id`, sorted) were tagged."""
        return []


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
        OtherJob: the output or what was begun of it is another job's, or of other images.
        ValueError: the output is not a `.jsonl` file.
        OSError: it cannot be written.
    """
    output = Path(output)
    if output.suffix != ".jsonl":
        raise ValueError(f"{output}: tags are written as JSON lines; name a .jsonl file")
    job = {"version": VERSION, "input": source.contents, "id": id_field, "tagger": tagger.describe()}
    partial, report_path = (output.with_name(output.name + end) for end in (".partial", ".report.json"))
    read = _RowsRead(source, id_field)
    if output.exists():
        report = _finished(output, report_path, job, read)
        partial.unlink(missing_ok=True)
        return report
    output.parent.mkdir(parents=True, exist_ok=True)
    with Journal.opened(partial, job) as journal:
        _complete(journal, read, tagger, batch_size, threads)
        shared = {name for batch in journal for name in batch.shared}
        report = _summary(journal, tagger, shared)
        # The report first: an output without one would be taken for a stranger's.
        saved = {"job": job, "content": read.content, **report.as_dict()}
        write_json(report_path, saved)
        _write_tags(journal, output, shared)
        partial.unlink()
    return report


@dataclass(frozen=True)
class TaggedRows:
    """What became of a range of a source's rows.

    Args:
        end: the row behind the last one.
        found: ids that no earlier row had, with their tags; null for a sample that cannot be used.
        bad: reason and name of the samples that cannot be used.
        shared: ids that an earlier row has with another image.
        content: digest of the ids and images of all rows before the end.
    """

    end: int
    found: list[tuple[str, Tags | None]]
    bad: list[tuple[str, str]]
    shared: list[str]
    content: str


class Journal:
    """JSON lines: the job that the batches belong to, then a batch a line. A last line that was cut off is dropped.

    Args:
        path: the file.
        file: it, opened to read and append.
    """

    def __init__(self, path: Path, file: BinaryIO):
        self.path, self._file = path, file

    @classmethod
    @contextmanager
    def opened(cls, path: Path, job: dict) -> Iterator[Journal]:
        """The journal in a file, which is made if it is not there, and locked.

        Args:
            job: what decides the content; a journal of another job is refused.

        Raises:
            OtherJob: it belongs to another job, or another process is writing it.
            RunError: it is damaged.
        """
        with path.open("ab+") as file:
            try:
                lock_exclusive(file)
            except Locked:
                raise OtherJob(f"{path}: another run is writing it; wait for it or stop it") from None
            file.seek(0)
            file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))
            journal = cls(path, file)
            begun = next(journal._lines(), None)
            if begun is None:
                journal._write(job)
            else:
                check_job(path, begun, job, "choose another output, or delete it")
            yield journal

    def __iter__(self) -> Iterator[TaggedRows]:
        return (TaggedRows(**line) for line in islice(self._lines(), 1, None))

    def add(self, batch: TaggedRows) -> None:
        self._write(asdict(batch))

    def _lines(self) -> Iterator[dict]:
        with self.path.open("rb") as file:
            for line in file:
                try:
                    content = parse_json(line)
                except ValueError:
                    content = None
                if not isinstance(content, dict):
                    raise RunError(f"{self.path} is damaged; delete it to begin again")
                yield content

    def _write(self, content: dict) -> None:
        with add_path_to_errors(self.path):
            self._file.write(json.dumps(content, ensure_ascii=False).encode() + b"\n")
            self._file.flush()


@dataclass
class Names:
    """How many ids there are of a kind, and the first of them."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, names: Sequence[str]) -> None:
        self.count += len(names)
        self.names += names[: BadSampleReport.MAX_NAMES - len(self.names)]


@dataclass
class TaggingReport:
    """Counts of a run.

    Args:
        ids: distinct ids of samples that could be used.
        untagged: those of them that got no tag.
        shared: further ids, which have no tags since they are names of several different images.
        languages: by language, the `ids` with tags, and the `tags` of all ids.
        remarks: what the tagger has to say beyond that.
        samples: those read, and those that could not be used.
    """

    ids: int = 0
    untagged: Names = field(default_factory=Names)
    shared: Names = field(default_factory=Names)
    languages: dict[str, dict[str, int]] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    samples: BadSampleReport = field(default_factory=BadSampleReport)

    def add(self, batch: TaggedRows, rows: int, shared: Container[str] = ()) -> None:
        """Takes one more batch, of so many rows, without the ids that are `shared`."""
        self.samples.add(rows, batch.bad)
        self.shared.add(batch.shared)
        for name, tags in batch.found:
            if tags is None or name in shared:
                continue
            self.ids += 1
            if not tags:
                self.untagged.add([name])
            for language, texts in tags.items():
                counts = self.languages.setdefault(language, {"ids": 0, "tags": 0})
                counts["ids"] += 1
                counts["tags"] += len(texts)

    def as_dict(self) -> dict:
        names = {"untagged": vars(self.untagged), "shared": vars(self.shared)}
        return vars(self) | names | {"samples": self.samples.as_dict()}

    @classmethod
    def from_dict(cls, saved: dict) -> TaggingReport:
        """The report that `as_dict` gave."""
        samples = BadSampleReport()
        samples.merge(saved["samples"])
        untagged, shared = (Names(**saved[kind]) for kind in ("untagged", "shared"))
        return cls(saved["ids"], untagged, shared, saved["languages"], saved["remarks"], samples)

    def __str__(self) -> str:
        tagged = self.ids - self.untagged.count
        lines = [f"{tagged:,} of {pluralize(self.ids, 'id')} {'has' if tagged == 1 else 'have'} tags"]
        for language, counts in sorted(self.languages.items()):
            of = f"tags_{language}" if language else "tags"
            lines.append(f"  {of}: {pluralize(counts['ids'], 'id')}, {counts['tags'] / counts['ids']:.1f} tags each")
        if self.untagged.count:
            lines.append(f"ids without tags: {format_names(**vars(self.untagged))}")
        if self.shared.count:
            found = format_names(**vars(self.shared))
            lines.append(f"names of several different images, left without tags: {found}; give each an image_id")
        return "\n".join([*lines, *self.remarks, str(self.samples)])


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

    def rows(self, rows: Iterable[int]) -> Iterator[tuple[str, Sample, bool] | BadSample]:
        """Reads on: samples whose id is new (True), or is an image's name that another image has (False)."""
        for row in rows:
            try:
                sample = self.source[row]
                name = find_tags_id(sample, self._id_field)
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
        rows = tqdm(range(end), "reading what was tagged", unit="sample", delay=2, leave=False, file=sys.stdout)
        deque(self.rows(rows), maxlen=0)
        return self.content


def _finished(output: Path, report_path: Path, job: dict, read: _RowsRead) -> TaggingReport:
    try:
        saved = load_json(report_path)
        if saved["job"] == job and saved["content"] == read.skip(len(read.source)):
            return TaggingReport.from_dict(saved)
    except (FileNotFoundError, ValueError, KeyError):
        pass
    raise OtherJob(f"{output} is there already, from another job or other images; delete it, or choose another output")


def _complete(journal: Journal, read: _RowsRead, tagger: Tagger, batch_size: int, threads: int) -> None:
    start, content, end = 0, read.content, len(read.source)
    for batch in journal:
        start, content = batch.end, batch.content
    if read.skip(start) != content:
        raise OtherJob(f"{journal.path} was begun with other images; delete it, or choose another output")
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
                if block is None:  # which is the second of the last pair alone
                    break
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
    with atomic_write(output) as aside, aside.open("w", encoding="utf-8") as file:
        for batch in journal:
            for name, tags in batch.found:
                if tags and name not in shared:
                    fields = {f"tags_{language}" if language else "tags": list(of) for language, of in tags.items()}
                    file.write(json.dumps({"id": name, **fields}, ensure_ascii=False) + "\n")
