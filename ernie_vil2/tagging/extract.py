"""The samples of a source tagged, batch by batch, into a file of tags by id."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from ernie_vil2.data.samples import BadSample, Sample, content_id
from ernie_vil2.data.sources import Sources
from ernie_vil2.data.tags import Tags, tags_id
from ernie_vil2.files import write_text, written_whole
from ernie_vil2.tagging.journal import Batch, Journal, JournalError
from ernie_vil2.tagging.report import TaggingReport


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
    source: Sources,
    tagger: Tagger,
    output: str | Path,
    id_field: str | None = None,
    batch_size: int = 64,
    threads: int = 1,
) -> TaggingReport:
    """Writes the tags of a source's images as `data.tags.TagsFile` reads them, one line for each id that has tags.

    Samples that share an id are tagged once, by the first of them. What is found is written down batch by batch in
    `{output}.partial`, and a run that was stopped or killed goes on there. The output appears when it is whole,
    `{output}.report.json` with it; if both are there, of the same job, nothing is done.

    Args:
        source: the samples.
        tagger: finds the tags.
        output: a `.jsonl` file.
        id_field: field of the samples that is the id; None: the image's name.
        batch_size: samples that the tagger is given at once, and the most that a killed run loses.
        threads: that prepare samples while the tagger is at work.

    Raises:
        JournalError: the output or what was begun of it is another job's.
        ValueError: the output is no `.jsonl` file.
        OSError: it cannot be written.
    """
    output = Path(output)
    if output.suffix != ".jsonl":
        raise ValueError(f"{output}: tags are written as JSON lines; name a .jsonl file")
    inputs = [f"{shard.name} {size}" for shard, size in zip(source.shards, source.shard_sizes, strict=True)]
    job = {"input": inputs, "id": id_field, "tagger": tagger.describe()}
    partial, report_path = (output.with_name(output.name + end) for end in (".partial", ".report.json"))
    if output.exists():
        report = _finished(output, report_path, job)
        partial.unlink(missing_ok=True)
        return report
    output.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(partial, job)
    try:
        _complete(journal, source, tagger, id_field, batch_size, threads)
        report = _summary(journal, tagger)
        # The report first: an output without one would be taken for a stranger's.
        write_text(report_path, json.dumps({"job": job, **report.as_dict()}, ensure_ascii=False, indent=1))
        _write_tags(journal, output)
        partial.unlink()
    finally:
        journal.close()
    return report


def _finished(output: Path, report_path: Path, job: dict) -> TaggingReport:
    """The report of an output that is there already."""
    try:
        saved = json.loads(report_path.read_text(encoding="utf-8"))
        if saved["job"] == job:
            return TaggingReport.from_dict(saved)
    except (FileNotFoundError, ValueError, KeyError):
        pass
    raise JournalError(f"{output} is there already, from another job; delete it, or choose another output")


def _complete(
    journal: Journal, source: Sources, tagger: Tagger, id_field: str | None, batch_size: int, threads: int
) -> None:
    """Tags the rows that the journal lacks."""
    met, start = set(), 0
    for batch in journal:
        met.update(content_id(name) for name, _ in batch.found)
        start = batch.end
    with (
        tqdm(
            total=len(source), initial=start, desc="tagging", unit="sample", dynamic_ncols=True, file=sys.stdout
        ) as bar,
        ThreadPoolExecutor(threads) as pool,
    ):

        def read(rows: range) -> _Reading:
            return _Reading(rows, source, tagger, id_field, met, pool.submit)

        blocks = (range(first, min(first + batch_size, len(source))) for first in range(start, len(source), batch_size))
        try:
            # In pairs, so that the next one is read by threads while the tagger is at work.
            for reading, _ in pairwise(chain(map(read, blocks), [None])):
                journal.add(reading.tagged(tagger))
                bar.update(reading.end - bar.n)
        finally:
            pool.shutdown(cancel_futures=True)


class _Reading:
    """A range of rows that is being read: samples with new ids are prepared by threads."""

    def __init__(
        self,
        rows: range,
        source: Sources,
        tagger: Tagger,
        id_field: str | None,
        met: set[int],
        submit: Callable[..., Future],
    ):
        self.end = rows.stop
        self._read: list[tuple[str, Future] | BadSample] = []
        for row in rows:
            try:
                sample = source[row]
                name = tags_id(sample, id_field)
            except BadSample as bad:
                self._read.append(bad)
                continue
            if (number := content_id(name)) not in met:
                met.add(number)
                self._read.append((name, submit(tagger.prepare, sample, name)))

    def tagged(self, tagger: Tagger) -> Batch:
        """What the tagger finds in them."""
        names, prepared, usable, bad = [], [], [], []
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
        return Batch(self.end, [(name, found.get(name)) for name in names], bad)


def _summary(journal: Journal, tagger: Tagger) -> TaggingReport:
    report, ids, start = TaggingReport(), array("q"), 0
    for batch in journal:
        report.add(batch, batch.end - start)
        ids.extend(content_id(name) for name, tags in batch.found if tags is not None)
        start = batch.end
    report.remarks = tagger.remarks(np.sort(np.array(ids, np.int64)))
    return report


def _write_tags(journal: Journal, output: Path) -> None:
    with written_whole(output) as aside, open(aside, "w", encoding="utf-8") as file:
        for batch in journal:
            for name, tags in batch.found:
                if tags:
                    fields = {f"tags_{language}" if language else "tags": list(of) for language, of in tags.items()}
                    file.write(json.dumps({"id": name, **fields}, ensure_ascii=False) + "\n")
