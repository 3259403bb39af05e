"""Tag the samples of a source, batch by batch, and write a file of tags by id.

The results of each batch are a line of a journal, from which a stopped run continues.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ernie_vil2.data.readers import ShardedSource
from ernie_vil2.data.samples import BadSample, BadSampleReport, Sample, format_names, hash_id
from ernie_vil2.data.tags import Tags, find_tags_id
from ernie_vil2.io.files import add_path_to_errors, atomic_write, load_json, parse_json, write_json
from ernie_vil2.io.locks import Locked, OtherJob, check_job, lock_exclusive
from ernie_vil2.io.progress import progress_bar
from ernie_vil2.io.terminal import RunError, pluralize

# Format of journals and reports; those of another version are refused.
VERSION = 1


class Tagger(ABC):
    """Finds the tags of samples."""

    @abstractmethod
    def describe(self) -> dict:
        """Return everything that decides the tags, for JSON. A run only continues one whose tagger was described so."""

    @abstractmethod
    def prepare(self, sample: Sample, name: str) -> Any:
        """Return what `tag` needs of a sample with the id `name`; threads call this.

        Raises:
            BadSample: the sample cannot be used.
        """

    @abstractmethod
    def tag(self, prepared: Sequence[Any]) -> list[Tags]:
        """Return the tags of each prepared sample; an empty mapping for a sample without tags."""

    def make_remarks(self, id_hashes: np.ndarray) -> list[str]:
        """Return lines for the end of the report.

        Args:
            id_hashes: `[N]` int64, `hash_id` of the ids of all usable samples, sorted.
        """
        return []


def extract_tags(
    source: ShardedSource,
    tagger: Tagger,
    output: str | Path,
    id_field: str | None = None,
    batch_size: int = 64,
    threads: int = 1,
) -> TaggingReport:
    """Write the tags of a source's images to a file that `data.tags.TagsFile` reads, a line for each id with tags.

    Samples that share an id are tagged once, namely the first of them. If different images have the same name, the name
    gets no tags, and is reported.

    Results are written batch by batch to `{output}.partial`, from which a stopped or killed run continues. The output
    appears when it is complete, with `{output}.report.json`. If both exist already, for the same job, nothing is done.
    In both cases the rows that were tagged are read again, to make sure that they are still the same.

    Args:
        source: the samples.
        tagger: finds the tags.
        output: a `.jsonl` file.
        id_field: field of the samples with the id; None: the name of the image is the id.
        batch_size: number of samples that the tagger gets at once, and the most that a killed run loses.
        threads: number of threads that prepare samples while the tagger works.

    Raises:
        OtherJob: the output or `{output}.partial` belongs to another job or other images.
        ValueError: the output is not a `.jsonl` file.
        OSError: the output cannot be written.
    """
    output = Path(output)
    if output.suffix != ".jsonl":
        raise ValueError(f"{output}: tags are written as JSON lines; name a .jsonl file")
    journal_path = output.with_name(f"{output.name}.partial")
    report_path = output.with_name(f"{output.name}.report.json")
    job = {"version": VERSION, "input": source.contents, "id_field": id_field, "tagger": tagger.describe()}
    reader = _SourceReader(source, id_field)
    # A run that was killed between its last two steps leaves its journal behind.
    if output.exists():
        report = _load_finished_report(output, report_path, job, reader)
        journal_path.unlink(missing_ok=True)
        return report

    output.parent.mkdir(parents=True, exist_ok=True)
    # Whether a name is ambiguous is known only when all rows have been read, so the output is written at the end.
    with Journal.open(journal_path, job) as journal:
        _tag_remaining_rows(journal, reader, tagger, batch_size, threads)
        ambiguous_names: set[str] = set()
        for rows in journal:
            ambiguous_names.update(rows.ambiguous_names)
        report = _summarize(journal, tagger, ambiguous_names)
        # The report goes first: an output without one would be refused as that of another job.
        write_json(report_path, {"job": job, "digest": reader.digest, **report.as_dict()})
        _write_tags(journal, output, ambiguous_names)
        journal_path.unlink()
    return report


@dataclass(frozen=True)
class TaggedRows:
    """Results of a range of a source's rows.

    Args:
        end: the row behind the last one.
        tags: new ids with their tags; None for a sample that cannot be used.
        bad_samples: reason and name of the samples that cannot be used.
        ambiguous_names: ids that an earlier row has with a different image.
        digest: digest of the ids and images of all rows before `end`.
    """

    end: int
    tags: list[tuple[str, Tags | None]]
    bad_samples: list[tuple[str, str]]
    ambiguous_names: list[str]
    digest: str


class Journal:
    """Results of a stopped run, as JSON lines: the job, and then a line for each batch.

    Args:
        path: the file.
        file: the same file, opened to read and append.
    """

    def __init__(self, path: Path, file: BinaryIO):
        self.path, self._file = path, file

    @classmethod
    @contextmanager
    def open(cls, path: Path, job: dict) -> Iterator[Journal]:
        """Open the journal in a file, which is created if it is missing, and lock it during the block.

        Args:
            path: the file.
            job: everything that decides the results.

        Raises:
            OtherJob: the journal belongs to another job, or another process is writing it.
            RunError: the journal is damaged.
        """
        with path.open("ab+") as file:
            # Two runs would mix their lines.
            try:
                lock_exclusive(file)
            except Locked:
                raise OtherJob(f"{path}: another run is writing it; wait for it or stop it") from None

            # A killed run may leave a last line without its end; its batch is tagged again.
            file.seek(0)
            file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))

            journal = cls(path, file)
            recorded_job = next(journal._read_lines(), None)
            if recorded_job is None:
                journal._write_line(job)
            else:
                check_job(path, recorded_job, job, "choose another output, or delete it")
            yield journal

    def __iter__(self) -> Iterator[TaggedRows]:
        for line in islice(self._read_lines(), 1, None):
            try:
                rows = TaggedRows(**line)
            except TypeError:  # a key is missing or unknown
                raise self._make_damage_error() from None
            yield rows

    def add(self, rows: TaggedRows) -> None:
        """Append the results of a batch."""
        self._write_line(asdict(rows))

    def _read_lines(self) -> Iterator[dict]:
        with self.path.open("rb") as file:
            for line in file:
                try:
                    content = parse_json(line)
                except ValueError:
                    content = None
                if not isinstance(content, dict):
                    raise self._make_damage_error()
                yield content

    def _make_damage_error(self) -> RunError:
        return RunError(f"{self.path} is damaged; delete it to start again")

    def _write_line(self, content: dict) -> None:
        with add_path_to_errors(self.path):
            # Paths need not be UTF-8: their lone surrogates are written as JSON's escapes.
            line = json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace")
            # Flushed lines survive the end of this process, whatever ends it.
            self._file.write(line + b"\n")
            self._file.flush()


@dataclass
class NamedCount:
    """Number of ids of a kind, and the first of them."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, names: Sequence[str]) -> None:
        """Count further ids."""
        self.count += len(names)
        self.names += names[: BadSampleReport.MAX_NAMES - len(self.names)]


@dataclass
class TaggingReport:
    """Counts of a run.

    Args:
        num_ids: number of different ids of usable samples.
        untagged: those of these ids that have no tags.
        ambiguous: further ids, without tags because they are names of several different images.
        languages: for each language, `num_ids` with tags, and `num_tags` of all ids.
        remarks: lines of the tagger.
        samples: number of samples read, and those that cannot be used.
    """

    num_ids: int = 0
    untagged: NamedCount = field(default_factory=NamedCount)
    ambiguous: NamedCount = field(default_factory=NamedCount)
    languages: dict[str, dict[str, int]] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    samples: BadSampleReport = field(default_factory=BadSampleReport)

    def add(self, rows: TaggedRows, num_rows: int, ambiguous_names: Container[str] = ()) -> None:
        """Count the results of a batch.

        Args:
            rows: the results.
            num_rows: number of rows of the batch.
            ambiguous_names: ids that get no tags.
        """
        self.samples.add(num_rows, rows.bad_samples)
        self.ambiguous.add(rows.ambiguous_names)
        for name, tags in rows.tags:
            if tags is None or name in ambiguous_names:
                continue
            self.num_ids += 1
            if not tags:
                self.untagged.add([name])
            for language, texts in tags.items():
                counts = self.languages.setdefault(language, {"num_ids": 0, "num_tags": 0})
                counts["num_ids"] += 1
                counts["num_tags"] += len(texts)

    def as_dict(self) -> dict:
        """Return the report as JSON."""
        report = vars(self) | {"untagged": vars(self.untagged), "ambiguous": vars(self.ambiguous)}
        report["samples"] = self.samples.as_dict()
        return report

    @classmethod
    def from_dict(cls, saved: dict) -> TaggingReport:
        """Return the report of an `as_dict`."""
        samples = BadSampleReport()
        samples.merge(saved["samples"])
        untagged, ambiguous = NamedCount(**saved["untagged"]), NamedCount(**saved["ambiguous"])
        return cls(saved["num_ids"], untagged, ambiguous, saved["languages"], saved["remarks"], samples)

    def __str__(self) -> str:
        num_tagged = self.num_ids - self.untagged.count
        verb = "has" if num_tagged == 1 else "have"
        lines = [f"{num_tagged:,} of {pluralize(self.num_ids, 'id')} {verb} tags"]
        for language, counts in sorted(self.languages.items()):
            mean_tags = counts["num_tags"] / counts["num_ids"]
            lines.append(f"  {_tags_key(language)}: {pluralize(counts['num_ids'], 'id')}, {mean_tags:.1f} tags each")
        if self.untagged.count:
            lines.append(f"ids without tags: {format_names(self.untagged.count, self.untagged.names)}")
        if self.ambiguous.count:
            names = format_names(self.ambiguous.count, self.ambiguous.names)
            lines.append(f"names of several different images, left without tags: {names}; give each an image_id")
        return "\n".join([*lines, *self.remarks, str(self.samples)])


class _SourceReader:
    """Reads rows of a source, and remembers the image of each id.

    Args:
        source: the samples.
        id_field: field with the id; None: the name of the image is the id.
    """

    def __init__(self, source: ShardedSource, id_field: str | None):
        self.source = source
        self._id_field = id_field
        # Numbers of 64 bits stand for ids and images, which would take far more memory.
        self._images: dict[int, int] = {}
        self._ambiguous: set[int] = set()
        self._digest = blake2b(digest_size=16)

    @property
    def digest(self) -> str:
        """Digest of the ids and images of the rows read so far."""
        return self._digest.hexdigest()

    def read_rows(self, rows: Iterable[int]) -> Iterator[tuple[str, Sample | None] | BadSample]:
        """Read further rows, and yield those that matter.

        Yields:
            Id and sample of a row whose id is new; id and None if an earlier row has the id as the name of a different
            image, once for each id; or the error of a row that cannot be used.
        """
        for row in rows:
            try:
                sample = self.source[row]
                name = find_tags_id(sample, self._id_field)
            except BadSample as bad:
                self._digest.update(blake2b(str(bad).encode()).digest())
                yield bad
                continue
            number, image = hash_id(name), hash_id(name, sample.image)
            self._digest.update(number.to_bytes(8, "little") + blake2b(sample.image).digest())
            if number not in self._images:
                self._images[number] = image
                yield name, sample
            # Images that share a field are meant to share their tags, and images that share a name are not.
            elif self._id_field is None and self._images[number] != image and number not in self._ambiguous:
                self._ambiguous.add(number)
                yield name, None

    def skip_rows(self, end: int) -> str:
        """Read the rows before `end` again, and return their digest."""
        rows = progress_bar(range(end), "reading what was tagged", unit="sample", delay=2, leave=False)
        deque(self.read_rows(rows), maxlen=0)  # exhausts the iterator
        return self.digest


def _load_finished_report(output: Path, report_path: Path, job: dict, reader: _SourceReader) -> TaggingReport:
    """Return the report of a complete output; OtherJob if it is of another job or of other images."""
    try:
        saved = load_json(report_path)
        if saved["job"] == job and saved["digest"] == reader.skip_rows(len(reader.source)):
            return TaggingReport.from_dict(saved)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        pass  # an output without a readable report was not written by this command
    raise OtherJob(f"{output} exists already, from another job or other images; delete it, or choose another output")


def _tag_remaining_rows(journal: Journal, reader: _SourceReader, tagger: Tagger, batch_size: int, threads: int) -> None:
    """Tag the rows that the journal does not hold yet, batch by batch."""
    # Reading the tagged rows again checks them, and tells the reader which ids they have.
    start, digest, end = 0, reader.digest, len(reader.source)
    for rows in journal:
        start, digest = rows.end, rows.digest
    if reader.skip_rows(start) != digest:
        raise OtherJob(f"{journal.path} was begun with other images; delete it, or choose another output")

    with (
        progress_bar(description="tagging", unit="sample", total=end, initial=start) as bar,
        ThreadPoolExecutor(threads) as pool,
    ):

        def tag_batch(batch: _Batch) -> None:
            journal.add(batch.tag(tagger))
            bar.update(batch.end - bar.n)

        try:
            # Threads prepare a batch while the tagger works on the one before.
            previous_batch: _Batch | None = None
            for first in range(start, end, batch_size):
                batch = _Batch(reader, range(first, min(first + batch_size, end)), tagger, pool.submit)
                if previous_batch is not None:
                    tag_batch(previous_batch)
                previous_batch = batch
            if previous_batch is not None:
                tag_batch(previous_batch)
        finally:
            # After an error or Ctrl-C nothing that still waits for a thread is prepared.
            pool.shutdown(cancel_futures=True)


class _Batch:
    """Rows that are being prepared by threads.

    Args:
        reader: reads the rows at once.
        rows: range of rows.
        tagger: prepares the samples with new ids.
        submit: lets a thread call a function.
    """

    def __init__(self, reader: _SourceReader, rows: range, tagger: Tagger, submit: Callable[..., Future]):
        self.end = rows.stop
        self._samples: list[tuple[str, Future] | BadSample] = []
        self._ambiguous_names: list[str] = []
        for row in reader.read_rows(rows):
            if isinstance(row, BadSample):
                self._samples.append(row)
                continue
            name, sample = row
            if sample is None:
                self._ambiguous_names.append(name)
            else:
                self._samples.append((name, submit(tagger.prepare, sample, name)))
        # The digest at this row: the reader goes on to the next batch before this one is tagged.
        self._digest = reader.digest

    def tag(self, tagger: Tagger) -> TaggedRows:
        """Wait for the threads, and tag the samples."""
        names: list[str] = []  # of all samples that could be read
        prepared, prepared_names = [], []
        bad_samples: list[tuple[str, str]] = []
        for sample in self._samples:
            if isinstance(sample, BadSample):
                bad_samples.append((sample.reason, sample.name))
                continue
            name, future = sample
            names.append(name)
            try:
                prepared.append(future.result())
            except BadSample as error:
                bad_samples.append((error.reason, error.name))
            else:
                prepared_names.append(name)
        tags = tagger.tag(prepared) if prepared else []
        tags_by_name = dict(zip(prepared_names, tags, strict=True))
        tags_of_rows = [(name, tags_by_name.get(name)) for name in names]
        return TaggedRows(self.end, tags_of_rows, bad_samples, self._ambiguous_names, self._digest)


def _summarize(journal: Journal, tagger: Tagger, ambiguous_names: set[str]) -> TaggingReport:
    # An array takes 8 bytes for an id, a list more than four times as many.
    report, ids, start = TaggingReport(), array("q"), 0
    for rows in journal:
        report.add(rows, rows.end - start, ambiguous_names)
        ids.extend(hash_id(name) for name, tags in rows.tags if tags is not None)
        start = rows.end
    report.remarks = tagger.make_remarks(np.sort(np.array(ids, np.int64)))
    return report


def _write_tags(journal: Journal, output: Path, ambiguous_names: set[str]) -> None:
    with atomic_write(output) as aside, aside.open("w", encoding="utf-8") as file:
        for rows in journal:
            for name, tags in rows.tags:
                if tags and name not in ambiguous_names:
                    fields = {_tags_key(language): list(texts) for language, texts in tags.items()}
                    file.write(json.dumps({"id": name, **fields}, ensure_ascii=False) + "\n")


def _tags_key(language: str) -> str:
    """Return the key of a language's tags in a file of tags."""
    return f"tags_{language}" if language else "tags"
