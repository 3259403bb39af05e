"""What an evaluation found, and the one writer of it: text, Markdown, JSON, CSV and pages.

A scorer decides what a `Report` says; how it looks in each form is decided here, once for all scorers.
"""

from __future__ import annotations

import csv
import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ernie_vil2.device.runtime import environment
from ernie_vil2.evaluation.outcomes import Outcomes
from ernie_vil2.io.files import atomic_files, atomic_write, load_json, sha256, write_text
from ernie_vil2.pages import Card, Table, write_page

ENDINGS = re.compile(r"(\.(tar|tsv|csv|jsonl|parquet|json|txt|out)|_imgs\.tsv)$")
LONGEST_NAME = 160  # bytes; a file system takes 255
VERSION = 1  # of a record, the JSON of a result
_FORMULA = re.compile(r"'*[=+\-@＝＋－＠\t\r\n]")  # wide forms: East Asian versions take them as well


@dataclass(frozen=True)
class Section:
    """A part of a page: a sentence, tables, cards, sentences, and definitions by name."""

    heading: str
    intro: str = ""
    tables: Sequence[Table] = ()
    cards: Sequence[Card] = ()
    notes: Sequence[str] = ()
    definitions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """A page: facts by name after those of model and data, then the sections.

    Attributes:
        label: what is scored, behind the title.
        ending: of the file's name, where a report has several pages.
        template: of a page that has one of its own, and `data` what it needs besides.
    """

    facts: Mapping[str, str]
    sections: Sequence[Section]
    label: str = ""
    ending: str = ""
    template: str = "evaluation.html"
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a scorer found.

    Attributes:
        metrics: figures by name, which training logs; "/" divides them into groups, as in `zh/image_to_text/R@1`.
        tables: that are printed and written.
        record: for JSON.
        columns, rows: of the CSV file, a row for each thing that was scored.
        best_by: the metric that chooses the best checkpoint, the higher the better; None: none of them does.
        shown: the metrics that are printed and drawn in the course of training; None: all.
        figures: lines below the tables for what is in no column.
        sizes: how much was scored, in words, for the line that names model and data; None: there is no such line.
        notes: lines that a person should read with the tables.
        paragraphs: what the text file says below the tables; None: the notes.
        about: choices that are recorded with model and data.
        pages: made when they are written, as they may read images; None: one of the tables and the notes.
        lines: files of JSON lines by the ending of their names.
        outcomes: makes by result what each query found, for intervals and comparisons; None: it is not known.
    """

    metrics: Mapping[str, float]
    tables: Sequence[Table] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    columns: Sequence[str] = ()
    rows: Iterable[Sequence[object]] = ()
    best_by: str | None = None
    shown: Sequence[str] | None = None
    figures: Sequence[str] = ()
    sizes: str | None = ""
    notes: Sequence[str] = ()
    paragraphs: Sequence[str] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    pages: Callable[[], Iterable[Page]] | None = None
    lines: Iterable[tuple[str, Iterable[Mapping[str, Any]]]] = ()
    outcomes: Callable[[], Mapping[str, Outcomes]] | None = None

    def as_text(self) -> str:
        """The tables, and the figures that are in no column."""
        return "\n\n".join(filter(None, [*(table.as_text() for table in self.tables), "\n".join(self.figures)]))


def write_report(
    report: Report, folder: str | Path, name: str, about: Mapping[str, Any], aside: str | Path | None = None
) -> list[Path]:
    """Writes `<name>.txt`, `.json`, `.csv` and `.html`, and what else a report has, all of it or nothing.

    Args:
        folder: made if there is none.
        about: what was run, for the record: `model` and `data` among it.
        aside: another file for the record.

    Returns:
        The files in the folder.
    """
    record = {**report.record, **about, **environment()}
    text = json.dumps(record, ensure_ascii=False, indent=1)
    paragraphs = ["\n".join(report.notes)] if report.paragraphs is None else report.paragraphs
    with atomic_write(aside) if aside else nullcontext() as other, atomic_files(folder) as made:
        if other:
            Path(other).write_text(text, encoding="utf-8")
        written = [made / f"{name}.{ending}" for ending in ("txt", "json", "csv")]
        write_text(written[0], "\n\n".join(filter(None, [report.as_text(), *paragraphs])) + "\n")
        write_text(written[1], text)
        write_csv(written[2], report.columns, report.rows)
        own = Page({}, [Section("Results", tables=report.tables, notes=[*report.figures, *report.notes])])
        for page in report.pages() if report.pages else [own]:
            written.append(made / f"{name}{page.ending}.html")
            _write_page(written[-1], page, name, about)
        for ending, entries in report.lines:
            written.append(made / f"{name}{ending}")
            write_lines(written[-1], entries)
    return [Path(folder) / path.name for path in written]


def ending_of(label: str) -> str:
    """What the name of a file says of a label: `model, zh` is `-model-zh`."""
    return f"-{label.replace(', ', '-').replace('/', '-')}"


def _write_page(path: Path, page: Page, name: str, about: Mapping[str, Any]) -> None:
    data = about["data"]
    facts = {"Model": about["model"], "Data": data if isinstance(data, str) else " ".join(data), **page.facts}
    title = f"{name}: {page.label}" if page.label else name
    write_page(path, page.template, title=title, facts=facts, sections=page.sections, **page.data)


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file in which no text is a formula, see `cell_text`."""
    with atomic_write(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([cell_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)


def write_lines(path: str | Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON lines."""
    with atomic_write(path) as aside, aside.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def cell_text(text: str) -> str:
    """A text for a cell of CSV. With an apostrophe in front a spreadsheet shows it and computes nothing.

    That is so for texts that begin with `=`, `+`, `-`, `@`, their wide forms, a tab or a line end, and for those that
    begin so behind apostrophes of their own, so that `original_text` brings every text back.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def original_text(cell: str) -> str:
    """The text of which `cell_text` made a cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def wrapped(lines: Iterable[str]) -> str:
    """Lines of at most 110 characters; what follows the first line of each is indented."""
    return "\n".join(
        part
        for line in lines
        for text in line.splitlines()
        for part in textwrap.wrap(text, 110, subsequent_indent="    ", break_on_hyphens=False)
    )


def about(
    model: str, data: str | Sequence[str], more: Mapping[str, Any], files: Iterable[Path] | None
) -> dict[str, Any]:
    """What was run, for a record: model, data, other choices, and the SHA-256 of each file; None: of none."""
    found = {
        "version": VERSION,
        "model": model,
        "data": data,
        "paths": absolute_paths([data] if isinstance(data, str) else data),
        **more,
    }
    return found if files is None else {**found, "checksums": checksums(files)}


def checksums(files: Iterable[str | Path]) -> dict[str, str]:
    """The SHA-256 of each file, by its path."""
    return {str(path): sha256(Path(path)) for path in dict.fromkeys(files)}


def absolute_paths(data: Sequence[str]) -> list[str]:
    """Absolute paths, so that they say the same in whichever folder they are read; addresses as they are."""
    return [path if "://" in path else str(Path(path).resolve()) for path in data]


def result_name(folder: Path, data: Sequence[str], more: Iterable[str] = ()) -> str:
    """What the results of some data are called in a folder.

    The name of the first path with that of the folder it is in, and with the folders above where other data has left
    results under that name. Results of the same data are replaced.

    Args:
        folder: of the results.
        data: as it was named.
        more: what distinguishes results of the same data: split, languages, protocols.
    """
    here = absolute_paths(data)
    *parents, last = Path(here[0]).parts[1:] or ("data",)
    ending = [ENDINGS.sub("", last), *([f"and-{len(data) - 1}-more"] if len(data) > 1 else []), *more]
    for depth in range(1, max(2, len(parents) + 1)):
        name = re.sub(r"[^\w.+-]+", "_", "-".join([*parents[-depth:], *ending]))
        if len(name.encode()) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME // 4]}-{blake2b(name.encode(), digest_size=4).hexdigest()}"
        if not _is_of_other_data(folder / f"{name}.json", here):
            break
    return name


def _is_of_other_data(path: Path, here: list[str]) -> bool:
    try:
        record = load_json(path)
        return record["paths"] != here or record["version"] != VERSION
    except FileNotFoundError:
        return False
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return True
