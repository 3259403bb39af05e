"""Reports of evaluations, and how they are written: text, JSON, CSV and pages.

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

from ernie_vil2.data.source_files import decode_path
from ernie_vil2.device.runtime import describe_environment
from ernie_vil2.evaluation.outcomes import Outcomes
from ernie_vil2.io.files import atomic_files, atomic_write, load_json, sha256, write_json, write_text
from ernie_vil2.pages import Card, Table, write_page

# Version of a record, the JSON file of a result. Raise it if a key that readers need gets another name or meaning.
RECORD_VERSION = 1
# Suffixes of data files that the names of results leave out.
_DATA_SUFFIX = re.compile(r"(\.(tar|tsv|csv|jsonl|parquet|json|txt|out)|_imgs\.tsv)$")
# A file system takes 255 bytes; the rest is for the suffixes of pages and of partial files.
_MAX_NAME_BYTES = 160
# East Asian versions of spreadsheets take the wide forms for operators, too.
_FORMULA = re.compile(r"'*[=+\-@＝＋－＠\t\r\n]")
# Texts for people are wrapped at this width: it fits a terminal of 120 columns.
_LINE_WIDTH = 110


@dataclass(frozen=True)
class Section:
    """Section of a page: an introduction, tables, cards, notes, and definitions by name, in this order."""

    heading: str
    intro: str = ""
    tables: Sequence[Table] = ()
    cards: Sequence[Card] = ()
    notes: Sequence[str] = ()
    definitions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """HTML page of a report: facts by name, below those on model and data, and sections.

    Attributes:
        facts: facts at the top of the page, by name.
        sections: the sections in order.
        label: what is scored; follows the title.
        file_suffix: distinguishes the file names of several pages.
        template: name of the template in `pages/templates/`.
        data: what a template of its own needs besides facts and sections.
    """

    facts: Mapping[str, str]
    sections: Sequence[Section]
    label: str = ""
    file_suffix: str = ""
    template: str = "evaluation.html"
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Result of a scorer.

    Attributes:
        metrics: figures by name, which training logs; "/" divides the names into groups, as in `zh/image_to_text/R@1`.
        tables: tables that are printed and written.
        record: content of the JSON file.
        csv_columns, csv_rows: content of the CSV file, a row for each scored item.
        best_by: name of the metric that chooses the best checkpoint, the higher the better; None: no metric does.
        progress_metrics: names of the metrics that are printed and drawn during training; None: all.
        extra_lines: lines below the tables for figures that have no column.
        sizes: how much was scored, in words, for the line that names model and data; None: that line is not printed.
        notes: sentences that a person should read with the tables.
        paragraphs: text below the tables in the text file; None: the notes.
        settings: choices that are recorded next to model and data.
        make_pages: makes the pages when the report is written, because that may read images; None: there is one page
            with the tables and the notes.
        json_lines: entries of JSON lines files, by file suffix.
        make_outcomes: returns the outcomes of the queries by result, for intervals and comparisons; None: unknown.
    """

    metrics: Mapping[str, float]
    tables: Sequence[Table] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    csv_columns: Sequence[str] = ()
    csv_rows: Iterable[Sequence[object]] = ()
    best_by: str | None = None
    progress_metrics: Sequence[str] | None = None
    extra_lines: Sequence[str] = ()
    sizes: str | None = ""
    notes: Sequence[str] = ()
    paragraphs: Sequence[str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    make_pages: Callable[[], Iterable[Page]] | None = None
    json_lines: Iterable[tuple[str, Iterable[Mapping[str, Any]]]] = ()
    make_outcomes: Callable[[], Mapping[str, Outcomes]] | None = None

    def as_text(self) -> str:
        """Return the tables and the extra lines as plain text."""
        blocks = [table.as_text() for table in self.tables]
        if self.extra_lines:
            blocks.append("\n".join(self.extra_lines))
        return "\n\n".join(blocks)


def write_report(
    report: Report, folder: str | Path, name: str, run: Mapping[str, Any], record_copy: str | Path | None = None
) -> list[Path]:
    """Write `<name>.txt`, `.json`, `.csv`, the pages and JSON lines files of a report: all of them or none.

    Args:
        report: the report.
        folder: folder of the files; made if it is missing.
        name: base name of the files.
        run: what was scored, for the record, from `describe_run`.
        record_copy: another file that gets the record.

    Returns:
        The files in the folder.

    Raises:
        OSError: a file cannot be written.
    """
    # Versions and settings of the machine are part of the record, so that a result can be reproduced.
    record = {**report.record, **run, **describe_environment()}
    paragraphs = report.paragraphs
    if paragraphs is None:
        paragraphs = ["\n".join(report.notes)]
    if report.make_pages:
        pages = report.make_pages()
    else:
        notes = [*report.extra_lines, *report.notes]
        pages = [Page({}, [Section("Results", tables=report.tables, notes=notes)])]

    # The copy is entered first, so that it is replaced last, once the folder's files are complete.
    with atomic_write(record_copy) if record_copy else nullcontext() as copy, atomic_files(folder) as draft_folder:
        if copy:
            write_json(copy, record)
        text_path = draft_folder / f"{name}.txt"
        json_path = draft_folder / f"{name}.json"
        csv_path = draft_folder / f"{name}.csv"
        write_text(text_path, "\n\n".join(filter(None, [report.as_text(), *paragraphs])) + "\n")
        write_json(json_path, record)
        write_csv(csv_path, report.csv_columns, report.csv_rows)
        paths = [text_path, json_path, csv_path]
        for page in pages:
            paths.append(draft_folder / f"{name}{page.file_suffix}.html")
            _write_page(paths[-1], page, name, run)
        for suffix, entries in report.json_lines:
            paths.append(draft_folder / f"{name}{suffix}")
            write_json_lines(paths[-1], entries)
    return [Path(folder) / path.name for path in paths]


def make_file_suffix(label: str) -> str:
    """Turn a label such as `model, zh` into a suffix of a file name, `-model-zh`."""
    return f"-{label.replace(', ', '-').replace('/', '-')}"


def _write_page(path: Path, page: Page, name: str, run: Mapping[str, Any]) -> None:
    data = run["data"]
    if not isinstance(data, str):
        data = " ".join(data)
    # Paths need not be Unicode, and a page must be.
    facts = {"Model": decode_path(run["model"]), "Data": decode_path(data), **page.facts}
    title = f"{name}: {page.label}" if page.label else name
    write_page(path, page.template, title=title, facts=facts, sections=page.sections, **page.data)


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file in which no text is a formula, see `escape_cell`."""
    with atomic_write(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        # Readers end a line at a carriage return too, and the writer of Python 3.11 does not quote it by itself.
        quoting_writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(columns)
        for row in rows:
            cells = [escape_cell(cell) for cell in row]
            has_carriage_return = any(isinstance(cell, str) and "\r" in cell for cell in cells)
            if has_carriage_return:
                quoting_writer.writerow(cells)
            else:
                writer.writerow(cells)


def write_json_lines(path: str | Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Write a file with a JSON object on each line."""
    with atomic_write(path) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def escape_cell(cell: object) -> object:
    """Put an apostrophe in front of a text that a spreadsheet would compute as a formula; leave other cells alone.

    Such texts begin with `=`, `+`, `-`, `@`, their wide forms, a tab or a line end. Texts that begin so behind
    apostrophes of their own get another one, so that `unescape_cell` restores every text.
    """
    if isinstance(cell, str) and _FORMULA.match(cell):
        return f"'{cell}"
    return cell


def unescape_cell(cell: str) -> str:
    """Return the text that `escape_cell` turned into this cell."""
    is_escaped = cell.startswith("'") and _FORMULA.match(cell)
    return cell[1:] if is_escaped else cell


def wrap_lines(lines: Iterable[str]) -> str:
    """Wrap lines at `_LINE_WIDTH`; continued lines are indented."""
    wrapped_lines = []
    for text in lines:
        for line in text.splitlines():
            wrapped_lines += textwrap.wrap(line, _LINE_WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(wrapped_lines)


def describe_run(
    model: str, data: str | Sequence[str], settings: Mapping[str, Any], files: Iterable[Path] | None
) -> dict[str, Any]:
    """Return what was scored, for a record.

    Args:
        model: name of the model.
        data: the data as the user named them.
        settings: further choices, see `Report.settings`.
        files: files whose SHA-256 are recorded; None: no checksums are recorded.
    """
    paths = make_absolute([data]) if isinstance(data, str) else make_absolute(data)
    record = {"version": RECORD_VERSION, "model": model, "data": data, "paths": paths, **settings}
    if files is not None:
        record["checksums"] = compute_checksums(files)
    return record


def compute_checksums(files: Iterable[str | Path]) -> dict[str, str]:
    """Return the SHA-256 of each file by its path."""
    return {str(path): sha256(Path(path)) for path in dict.fromkeys(files)}


def make_absolute(data: Sequence[str]) -> list[str]:
    """Make paths absolute, so that they mean the same in whichever folder they are read; URLs stay as they are."""
    paths = []
    for path in data:
        is_url = "://" in path
        paths.append(path if is_url else str(Path(path).resolve()))
    return paths


def choose_result_name(folder: Path, data: Sequence[str], name_parts: Iterable[str] = ()) -> str:
    """Return the base name for the files of a result.

    It consists of the first path's parent folder and its name, such as `folder-file`. Further parent folders are put in
    front as long as a result on other data has that name, and at last a digest of all paths behind it. A result on the
    same data is replaced.

    Args:
        folder: folder of the results.
        data: the data as the user named them.
        name_parts: what distinguishes results on the same data: split, languages, protocols.
    """
    paths = make_absolute(data)
    *parents, last = Path(paths[0]).parts[1:] or ("data",)
    words = [_DATA_SUFFIX.sub("", last)]
    if len(data) > 1:
        words.append(f"and-{len(data) - 1}-more")
    words += name_parts
    # At first the parent folder alone is part of the name, then the folder above it as well, and so on.
    for depth in range(1, max(2, len(parents) + 1)):
        name = re.sub(r"[^\w.+-]+", "_", "-".join([*parents[-depth:], *words]))
        if len(name.encode()) > _MAX_NAME_BYTES:
            # A quarter of the limit in characters, because a character may take four bytes.
            name = f"{name[: _MAX_NAME_BYTES // 4]}-{blake2b(name.encode(), digest_size=4).hexdigest()}"
        if not _has_other_data(folder / f"{name}.json", paths):
            return name
    # All of these names are taken, for example by results on the same first path and others behind it.
    digest = blake2b("\n".join(paths).encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    return f"{name}-{digest}"


def _has_other_data(path: Path, paths: list[str]) -> bool:
    try:
        record = load_json(path)
        return record["paths"] != paths or record["version"] != RECORD_VERSION
    except FileNotFoundError:
        return False
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return True  # not a record: another program's file is not replaced
