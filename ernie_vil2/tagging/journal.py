"""What a tagging run has found: a line for each batch, by which a stopped run continues, and the summary at its end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from ernie_vil2.data.samples import BadSampleReport, first_names
from ernie_vil2.data.tags import Tags
from ernie_vil2.io.files import parse_json, system_errors_named
from ernie_vil2.io.locks import Locked, lock
from ernie_vil2.io.terminal import RunError, counted


@dataclass(frozen=True)
class TaggedRows:
    """What became of a range of a source's rows.

    Args:
        end: the row behind the last one.
        found: ids that no earlier row had, with their tags; null for a sample that cannot be used.
        bad: reason and name of the samples that cannot be used.
        shared: ids that an earlier row has with another image.
        content: digest of the ids and images of all rows before the end; "" of a journal of an earlier version.
    """

    end: int
    found: list[tuple[str, Tags | None]]
    bad: list[tuple[str, str]]
    shared: list[str] = field(default_factory=list)
    content: str = ""


class JournalError(RunError):
    """The journal is another run's, or damaged; the message says what to do."""


class Journal:
    """JSON lines: the job that the batches belong to, then a batch a line. A last line that was cut off is dropped.

    It is a context manager, which holds the file locked.

    Args:
        path: the file; made if it is not there.
        job: what decides the content; a journal of another job is refused.

    Raises:
        JournalError: it belongs to another job, another process is writing it, or it is damaged.
    """

    def __init__(self, path: Path, job: dict):
        self.path = path
        self._file = open(path, "ab+")
        try:
            lock(self._file)
            self._file.seek(0)
            self._file.truncate(sum(len(line) for line in self._file if line.endswith(b"\n")))
            begun = next(self._lines(), None)
            if begun is None:
                self._write(job)
            elif differing := [part for part in job if begun.get(part) != job[part]]:
                raise JournalError(
                    f"{path} was begun with other {' and '.join(differing)}; run with the same, choose another output, "
                    "or delete it"
                )
        except Locked:
            self._file.close()
            raise JournalError(f"{path}: another run is writing it; wait for it or stop it") from None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[TaggedRows]:
        return (TaggedRows(**line) for line in islice(self._lines(), 1, None))

    def add(self, batch: TaggedRows) -> None:
        """Writes a batch down."""
        self._write(asdict(batch))

    def _lines(self) -> Iterator[dict]:
        with open(self.path, "rb") as file:
            for line in file:
                try:
                    content = parse_json(line)
                except ValueError:
                    content = None
                if not isinstance(content, dict):
                    raise JournalError(f"{self.path} is damaged; delete it to begin again")
                yield content

    def _write(self, content: dict) -> None:
        with system_errors_named(self.path):
            self._file.write(json.dumps(content, ensure_ascii=False).encode() + b"\n")
            self._file.flush()


@dataclass
class TaggingReport:
    """Counts of a run.

    Args:
        samples: those read, and those that could not be used.
        ids: distinct ids of samples that could be used.
        untagged: how many of them got no tag.
        untagged_names: the first of those.
        shared: how many further ids are names of several different images, which have no tags for that.
        shared_names: the first of those.
        tagged: by language, the ids with tags.
        tags: by language, the tags of all ids.
        remarks: what the tagger has to say beyond that.
    """

    samples: BadSampleReport = field(default_factory=BadSampleReport)
    ids: int = 0
    untagged: int = 0
    untagged_names: list[str] = field(default_factory=list)
    shared: int = 0
    shared_names: list[str] = field(default_factory=list)
    tagged: Counter[str] = field(default_factory=Counter)
    tags: Counter[str] = field(default_factory=Counter)
    remarks: Sequence[str] = ()

    def add(self, batch: TaggedRows, rows: int, shared: Container[str] = ()) -> None:
        """Takes one more batch, of so many rows, without the ids that are `shared`."""
        self.samples.add(rows, batch.bad)
        self.shared += len(batch.shared)
        self.shared_names += batch.shared[: BadSampleReport.NAMES - len(self.shared_names)]
        for name, tags in batch.found:
            if tags is None or name in shared:
                continue
            self.ids += 1
            if not tags:
                self.untagged += 1
                if len(self.untagged_names) < BadSampleReport.NAMES:
                    self.untagged_names.append(name)
            for language, texts in tags.items():
                self.tagged[language] += 1
                self.tags[language] += len(texts)

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "ids": self.ids,
            "untagged": {"count": self.untagged, "names": self.untagged_names},
            "shared": {"count": self.shared, "names": self.shared_names},
            "languages": {language: {"ids": ids, "tags": self.tags[language]} for language, ids in self.tagged.items()},
            "remarks": list(self.remarks),
            "samples": self.samples.as_dict(),
        }

    @classmethod
    def from_dict(cls, saved: dict) -> TaggingReport:
        """The report that `as_dict` gave."""
        samples = BadSampleReport()
        samples.merge(saved["samples"])
        languages = saved["languages"]
        return cls(
            samples,
            saved["ids"],
            saved["untagged"]["count"],
            saved["untagged"]["names"],
            saved["shared"]["count"],
            saved["shared"]["names"],
            Counter({language: counts["ids"] for language, counts in languages.items()}),
            Counter({language: counts["tags"] for language, counts in languages.items()}),
            saved["remarks"],
        )

    def __str__(self) -> str:
        tagged = self.ids - self.untagged
        lines = [f"{tagged:,} of {counted(self.ids, 'id')} {'has' if tagged == 1 else 'have'} tags"]
        for language, ids in sorted(self.tagged.items()):
            of = f"tags_{language}" if language else "tags"
            lines.append(f"  {of}: {counted(ids, 'id')}, {self.tags[language] / ids:.1f} tags each")
        if self.untagged:
            lines.append(f"ids without tags: {first_names(self.untagged, self.untagged_names)}")
        if self.shared:
            found = first_names(self.shared, self.shared_names)
            lines.append(f"names of several different images, left without tags: {found}; give each an image_id")
        return "\n".join([*lines, *self.remarks, str(self.samples)])
