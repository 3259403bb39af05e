"""Tables and cards as templates show them, templates to files, and what templates can do beyond jinja2."""

import base64
import re
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
_SIGNATURES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}


@dataclass(frozen=True)
class Table:
    """Cells under columns.

    Attributes:
        columns: names, without that of the labels.
        rows: label and cells of each; None for the cells: a heading that opens a group of rows.
        groups: headings over the first columns, each with the number of columns that it spans, as `image → text`.
        corner: name of the labels.
        left: numbers of the columns of words, which are aligned on the left.
        notes: sentences below the table.
        kind: class of the table in the pages' style sheet.
        shares: for a `matrix`, by row and column, how strongly a cell is coloured, from 0 to 1.
        least, gap, ruled, after: in plain text, the least width of a column, the least space between two, whether a
            line divides head and rows, and what follows the head.
    """

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str] | None]]
    groups: Sequence[tuple[str, int]] = ()
    corner: str = ""
    left: Sequence[int] = ()
    notes: Sequence[str] = ()
    kind: str = ""
    shares: Sequence[Sequence[float]] = ()
    least: int = 7
    gap: int = 2
    ruled: bool = True
    after: str = ""

    def as_text(self) -> str:
        """For a terminal: every column as wide as its name and the gap, at least `least`."""
        width = max((len(label) for label, _ in self.rows), default=0)
        widths = [max(self.least, len(name) + self.gap) for name in self.columns]
        lines = []
        if self.groups:
            head, start = " " * width, 0
            for name, span in self.groups:
                head += f"  {name.replace('→', '->'):>{sum(widths[start : start + span]) - 2}}"
                start += span
            lines.append(head)
        lines.append((" " * width + _aligned(self.columns, widths) + self.after).rstrip())
        if self.ruled:
            lines.append("-" * len(lines[-1]))
        lines += [f"{label:<{width}}{_aligned(cells or (), widths)}".rstrip() for label, cells in self.rows]
        return "\n".join(lines)

    def as_markdown(self) -> str:
        """For a README: of a group every column has the initials, as `I→T R@1`."""
        spans = [(name, span) for name, span in self.groups for _ in range(span)]
        prefixes = ["→".join(side[0].upper() for side in name.split(" → ")) + " " for name, _ in spans]
        prefixes += [""] * (len(self.columns) - len(prefixes))
        head = [self.corner, *(prefix + name for prefix, name in zip(prefixes, self.columns, strict=True))]
        lines = [head, ["---", *["---:"] * len(self.columns)]]
        for label, cells in self.rows:
            lines.append([f"**{label}**", *[""] * len(self.columns)] if cells is None else [label, *cells])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False))


def percent(number: float | None) -> str:
    """A figure as a cell; "-" where there is none."""
    return "-" if number is None else f"{number:.2f}"


@dataclass(frozen=True)
class Answer:
    """An answer on a card: a caption, or an image with one; `rank` of a right one that is not among the best."""

    caption: str
    score: float
    correct: bool
    image: bytes | None = None
    rank: int | None = None


@dataclass(frozen=True)
class Card:
    """An example on a page: a query, its images, and what the model answers; `language` "": that of the text."""

    query: str
    answers: Sequence[Answer]
    images: Sequence[bytes] = ()
    tags: Sequence[str] = ()
    language: str = ""


def write_page(path: str | Path, template: str | Path, **data: Any) -> None:
    """Writes the page that a template makes of the data, see `render`; whole or not at all."""
    write_text(path, render(template, **data))


def render(template: str | Path, **data: Any) -> str:
    """The HTML that a template makes of the data.

    Args:
        template: the name of a file in `templates/`, or the path of one elsewhere, which may extend these.

    Raises:
        jinja2.UndefinedError: the template needs what the data lack.
    """
    if isinstance(template, Path):
        return _environment().from_string(template.read_text(encoding="utf-8")).render(data)
    return _environment().get_template(template).render(data)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ernie_vil2.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Path(__file__).with_name("templates") / "style.css"
    environment.globals["style"] = Markup(style.read_text(encoding="utf-8").rstrip("\n"))  # noqa: S704 - our own
    environment.filters |= {"marked": marked, "data_uri": data_uri}
    return environment


def marked(text: str, language: str = "") -> Markup:
    """A text with its language, for fonts, line breaks and readers' voices; Chinese is recognised by itself."""
    text = str(text)
    if language:
        return Markup('<span lang="{}">{}</span>').format(language, text)
    if _JAPANESE_KOREAN.search(text):
        return escape(text)
    return Markup(_CHINESE.sub(r'<span lang="zh">\g<0></span>', str(escape(text))))  # noqa: S704 - escaped


def data_uri(image: bytes) -> str:
    """An encoded PNG or JPEG as the address of an image inside the page."""
    kind = next(kind for start, kind in _SIGNATURES.items() if image.startswith(start))
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"
