"""A folder of images with a table of pairs beside it, as CSV or as JSON lines, a pair a row."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path

from ernie_vil2.data.benchmark import Benchmark, BenchmarkText, Collector
from ernie_vil2.data.rows import as_object, is_id, numbered_lines
from ernie_vil2.data.samples import BadSample, Reason
from ernie_vil2.data.sources.published.layout import ImageFolders, Layout, in_order

# The first of these that a row has counts; `file_name` is what the image folders of Hugging Face say.
IMAGE_KEYS = ("image", "image_path", "file_name")
TEXT_KEYS = ("text", "caption")
ID_KEYS = ("image_id", "text_id")
FIRST_ROWS = 10  # of these, the first that can be read tells whether a file is such a table


def _find(folder: Path) -> dict[str, Path]:
    """Every table is a split by its name: `test.csv`, `metadata.jsonl`."""
    tables = [path for path in folder.iterdir() if path.suffix in (".csv", ".jsonl") and _is_table(path)]
    return in_order({path.stem: path for path in tables})


def _is_table(path: Path) -> bool:
    try:
        for _, parse in islice(_rows(path), FIRST_ROWS):
            with suppress(BadSample):
                row = parse()
                return bool(_key(row, IMAGE_KEYS) and _key(row, TEXT_KEYS))
    except ValueError:
        pass
    return False


def _rows(path: Path) -> Iterator[tuple[str, Callable[[], dict]]]:
    """The rows' names, and what parses a row: one that is malformed does not end the pass."""
    if path.suffix == ".jsonl":
        for name, line in numbered_lines(path):
            yield name, partial(as_object, line, name)
        return
    # What is not UTF-8 is let through here, and found in the row that has it.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        table = csv.DictReader(lines, strict=True)
        try:
            for row in table:
                name = f"{path.name}:{table.line_num}"
                yield name, partial(_csv_row, row, name)
        except csv.Error as error:
            raise ValueError(f"{path}, after line {table.line_num}: not a CSV file ({error})") from error


def _csv_row(row: dict, name: str) -> dict:
    # DictReader keeps what has no column under None, and fills up with None what is missing.
    if None in row:
        raise BadSample(Reason.MALFORMED_ROW, name)
    try:
        "".join(filter(None, row.values())).encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadSample(Reason.NOT_UTF8, name) from error
    return row


def _key(row: Mapping, keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if row.get(key) is not None), None)


def _read(table: Path, split: str, folders: ImageFolders) -> Benchmark:
    """Without `image_id` the file names an image; without `text_id` a text names itself.

    Rows with the same id share their image or text. Other columns are kept as fields of both.
    """
    collector = Collector()
    for name, parse in _rows(table):
        with collector.entry():
            row = parse()
            file, text = row.get(_key(row, IMAGE_KEYS)), row.get(_key(row, TEXT_KEYS))
            if not isinstance(file, str) or not isinstance(text, str):
                raise BadSample(Reason.MALFORMED_ROW, name)
            fields = {key: row[key] for key in row if key not in (*IMAGE_KEYS, *TEXT_KEYS, *ID_KEYS)}
            image = folders.image(_id(row, "image_id", file, name), file, fields)
            text = text.strip()
            collector.add_sample(image, file, BenchmarkText(_id(row, "text_id", text, name), text, fields), name)
    return collector.benchmark(f"{table.parent.name}-{split}", [table])


def _id(row: dict, key: str, default: str, name: str) -> str:
    value = row.get(key)
    if value is None or value == "":
        return default
    if not is_id(value):
        raise BadSample(Reason.MALFORMED_ROW, name)
    return str(value)


IMAGE_FOLDER = Layout(
    name="image-folder",
    files="a .csv or .jsonl with the columns image and text",
    find=_find,
    read=_read,
)
