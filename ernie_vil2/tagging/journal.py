"""What a run has found so far, one line per batch, so that a run that was stopped or killed goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from ernie_vil2.data.tags import Tags
from ernie_vil2.io.files import parse_json, system_errors_named
from ernie_vil2.io.locks import Locked, lock
from ernie_vil2.io.terminal import RunError


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
                    raise JournalError(f"{self.path} is damaged; delete it to begin anew")
                yield content

    def _write(self, content: dict) -> None:
        with system_errors_named(self.path):
            self._file.write(json.dumps(content, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
