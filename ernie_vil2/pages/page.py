"""Tables and cards that templates show, and the rendering of templates with jinja2."""

import base64
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ernie_vil2.io.files import write_text

# Chinese characters, and the punctuation and digits between them.
_HAN = "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_CHINESE = re.compile(f"{_HAN}(?:[\\d\u3000-\u303f\uff00-\uffef]*{_HAN})*")
_JAPANESE_KOREAN = re.compile("[\u3040-\u30ff\uac00-\ud7af]")
_SIGNATURES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}  # first bytes of a file -> its format


@dataclass(frozen=True)
class Table:
    """A table for a terminal or a page.

    Attributes:
        columns: headings of the columns, without that of the labels.
        rows: label and cells of each row; None instead of cells makes the label the heading of a group of rows.
        groups: headings above the columns from the left, each with the number of columns it spans, such as
            `image → text`.
        corner: heading of the labels.
        text_columns: numbers of the columns that hold words, which are aligned on the left.
        notes: sentences below the table.
        kind: CSS class of the table in the pages' style sheet.
        shades: of a `matrix`, how strongly each cell is coloured, by row and column, from 0 to 1.
        min_width: least width of a column in plain text, in cells of a terminal.
        column_gap: least space between two headings in plain text, in cells of a terminal.
        has_rule: whether a line separates heading and rows in plain text.
        heading_suffix: text after the heading in plain text.
    """

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str] | None]]
    groups: Sequence[tuple[str, int]] = ()
    corner: str = ""
    text_columns: Sequence[int] = ()
    notes: Sequence[str] = ()
    kind: str = ""
    shades: Sequence[Sequence[float]] = ()
    min_width: int = 7
    column_gap: int = 2
    has_rule: bool = True
    heading_suffix: str = ""

    def as_text(self) -> str:
        """Return the table for a terminal: columns fit their headings and cells, and have at least `min_width`."""
        label_width = max((_count_cells(label) for label, _ in self.rows), default=0)
        widths = [max(self.min_width, _count_cells(name) + self.column_gap) for name in self.columns]
        for _, cells in self.rows:
            for column, cell in enumerate(cells or ()):
                widths[column] = max(widths[column], _count_cells(cell) + 1)
        lines = []
        # Names of groups end where their last column ends.
        if self.groups:
            heading, start = " " * label_width, 0
            for name, span in self.groups:
                group_width = sum(widths[start : start + span])
                heading += f"  {name.replace('→', '->'):>{group_width - 2}}"
                start += span
            lines.append(heading)
        heading = " " * label_width + _align_right(self.columns, widths) + self.heading_suffix
        lines.append(heading.rstrip())
        if self.has_rule:
            lines.append("-" * _count_cells(lines[-1]))
        for label, cells in self.rows:
            padding = " " * (label_width - _count_cells(label))
            lines.append(f"{label}{padding}{_align_right(cells or (), widths)}".rstrip())
        return "\n".join(lines)


def _align_right(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(" " * (width - _count_cells(cell)) + cell for cell, width in zip(cells, widths, strict=False))


def _count_cells(text: str) -> int:
    """Return the width of a text in a terminal, where a Chinese character takes two cells."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def format_percent(number: float | None) -> str:
    """Return a figure as the text of a cell; "-" for None."""
    return "-" if number is None else f"{number:.2f}"


@dataclass(frozen=True)
class Answer:
    """An answer on a card.

    Attributes:
        caption: the text, or the caption of the image.
        score: what the answers are ranked by.
        is_correct: whether the answer is right.
        image: encoded image, if the answer is one.
        rank: rank of a right answer that is not among the best ones.
    """

    caption: str
    score: float
    is_correct: bool
    image: bytes | None = None
    rank: int | None = None


@dataclass(frozen=True)
class Card:
    """An example on a page: a query and the answers of a model.

    Attributes:
        query: text of the query; of an image its first text, or its name if it has none.
        answers: answers of the model, best first.
        images: encoded images of the query.
        tags: words shown above the query.
        language: language of the texts; "": recognised from the characters.
    """

    query: str
    answers: Sequence[Answer]
    images: Sequence[bytes] = ()
    tags: Sequence[str] = ()
    language: str = ""


def write_page(path: str | Path, template: str | Path, **data: Any) -> None:
    """Write the page that `render` returns; if that fails, no file is written.

    Half a surrogate pair, as Python has it in names that are not UTF-8, is shown as an escape.
    """
    html = render(template, **data).encode("utf-8", "backslashreplace")
    write_text(path, html.decode("utf-8"))


def render(template: str | Path, **data: Any) -> str:
    """Return the HTML of a template filled with data.

    Args:
        template: name of a file in `templates/`, or path of a template elsewhere, which may extend these.
        data: values of the variables in the template.

    Raises:
        jinja2.UndefinedError: the data lack a variable of the template.
    """
    if isinstance(template, Path):
        return _environment().from_string(template.read_text(encoding="utf-8")).render(data)
    return _environment().get_template(template).render(data)


@cache
def _environment() -> Environment:
    # StrictUndefined: a variable that the data lack is an error, and not an empty text.
    environment = Environment(
        loader=PackageLoader("ernie_vil2.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Path(__file__).with_name("templates") / "style.css"
    environment.globals["style"] = Markup(style.read_text(encoding="utf-8").rstrip("\n"))  # noqa: S704 - our own
    environment.filters |= {"mark_language": mark_language, "data_uri": data_uri}
    return environment


def mark_language(text: str, language: str = "") -> Markup:
    """Return a text as HTML that names its language, for the choice of fonts, line breaks and the voices of readers.

    Args:
        text: any text; it is escaped.
        language: language of the whole text; "": Chinese is recognised by its characters, unless there are Japanese or
            Korean ones.
    """
    text = str(text)
    if language:
        return Markup('<span lang="{}">{}</span>').format(language, text)
    if _JAPANESE_KOREAN.search(text):
        return escape(text)
    return Markup(_CHINESE.sub(r'<span lang="zh">\g<0></span>', str(escape(text))))  # noqa: S704 - escaped


def data_uri(image: bytes) -> str:
    """Return an encoded PNG or JPEG image as an address that contains it."""
    image_format = next(name for signature, name in _SIGNATURES.items() if image.startswith(signature))
    return f"data:image/{image_format};base64,{base64.b64encode(image).decode('ascii')}"
