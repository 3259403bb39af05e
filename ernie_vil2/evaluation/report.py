"""One self-contained HTML page about a run: curves, the result table, and queries with their best answers.

Styles, charts and images are all inside the file; it holds no script and loads nothing from elsewhere.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from ernie_vil2.evaluation.curves import ARROWS, training_charts
from ernie_vil2.evaluation.report_style import CROSS, STYLE, TICK
from ernie_vil2.evaluation.retrieval import COLUMNS, TIE_RULE, Row, table_cells
from ernie_vil2.files import write_text

LONGEST_IN_A_COLUMN = 100  # a longer fact, such as a protocol's definition, goes over the whole width


def write_report(
    path: str | Path,
    *,
    title: str,
    facts: Mapping[str, str],
    curves: Sequence[Mapping],
    table_rows: Iterable[Row],
    queries: Sequence[Mapping],
) -> None:
    """Write the page to `path`, whole or not at all.

    facts: name and value of what was run (model, data, time, protocol), shown at the top.
    curves: the records of a run's `log.jsonl`, of kind "train" and "evaluation"; other kinds are passed over.
    table_rows: as in `format_table`.
    queries: `{"query": text or None, "query_image": bytes or None, "language": "zh", "answers": [...]}`,
    with answers `{"image": bytes or None, "caption": str, "score": float, "correct": bool}`, best first.
    Raises ValueError for an image that is neither WebP, PNG nor JPEG.
    """
    sections = {
        "Retrieval": results_table(table_rows),
        "Training": training_charts(curves),
        "Best answers": query_cards(queries),
    }
    write_page(path, title, facts, sections)


def write_page(path: str | Path, title: str, facts: Mapping[str, str], sections: Mapping[str, str]) -> None:
    """Write a page of a title, facts, and sections of HTML by heading; whole or not at all."""
    body = [
        f"<header><h1>{escape(title)}</h1>{_facts(facts)}</header>",
        *(f"<section><h2>{escape(heading)}</h2>{content}</section>" for heading, content in sections.items()),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )
    write_text(path, page)


def _facts(facts: Mapping[str, str]) -> str:
    items = []
    for name, value in facts.items():
        width = ' class="wide"' if len(value) > LONGEST_IN_A_COLUMN else ""
        items.append(f"<div{width}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>")
    return f"<dl>{''.join(items)}</dl>"


def results_table(rows: Iterable[Row], tie_rule: str = TIE_RULE) -> str:
    """The table that `format_table` prints, as HTML, with the rule by which ties were counted."""
    names = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    ways = "".join(f'<th colspan="{len(COLUMNS)}" scope="colgroup">{name}</th>' for name in ARROWS.values())
    lines = []
    for label, values in rows:
        if values is None:
            head = f'<th class="group" colspan="{2 * len(COLUMNS) + 2}" scope="rowgroup">{escape(label)}</th>'
            lines.append(f"<tr>{head}</tr>")
        else:
            cells = "".join(f"<td>{cell.replace('-', '–')}</td>" for cell in table_cells(values))
            lines.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table><thead><tr><td></td>{ways}<td></td></tr>'
        f'<tr><td></td>{names}{names}<th scope="col">mR</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        f'<p class="note">Percent; mR is the mean of both directions; {escape(tie_rule)}.</p>'
    )


def query_cards(queries: Sequence[Mapping]) -> str:
    """Queries with their answers, as `write_report` takes them; a query's or an answer's `note` is shown with it.

    Raises ValueError for an image that is neither WebP, PNG nor JPEG.
    """
    cards = "".join(_query(number, query) for number, query in enumerate(queries, start=1))
    return f'<div class="queries">{cards}</div>'


def _query(number: int, query: Mapping) -> str:
    language = escape(query["language"])
    asked = f'<span class="language">{escape(query.get("note", query["language"]))}</span>'
    if query.get("query_image") is not None:
        asked += _image(query["query_image"], "the query", f"the image of query {number}")
    if query.get("query") is not None:
        asked += f'<span lang="{language}">{escape(query["query"])}</span>'
    answers = "".join(_answer(number, language, answer) for answer in query["answers"])
    return f"<article><h3>{asked}</h3><ol>{answers}</ol></article>"


def _answer(number: int, language: str, answer: Mapping) -> str:
    verdict, mark = ("right", TICK) if answer["correct"] else ("wrong", CROSS)
    image = ""
    if answer.get("image") is not None:
        image = _image(answer["image"], answer["caption"], f"an answer's image of query {number}")
    note = f'<div class="score">{escape(answer["note"])}</div>' if "note" in answer else ""
    return (
        f'<li class="{verdict}">{image}'
        f'<div class="score">{mark}<span class="word">{verdict}</span> {answer["score"]:.3f}</div>{note}'
        f'<div class="caption" lang="{language}">{escape(answer["caption"])}</div></li>'
    )


def _image(content: bytes, description: str, name: str) -> str:
    data = base64.b64encode(content).decode("ascii")
    return f'<img alt="{escape(description)}" src="data:{_mime_type(content, name)};base64,{data}">'


def _mime_type(content: bytes, name: str) -> str:
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    raise ValueError(f"{name} is neither WebP, PNG nor JPEG; give the encoded file's bytes")
