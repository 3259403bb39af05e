"""One self-contained HTML page about a run: curves, the result table, and queries with their best answers.

Styles, charts and images are all inside the file; it holds no script and loads nothing from elsewhere.
"""

import base64
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean

from ernie_vil2.evaluation.report_style import CROSS, STYLE, TICK
from ernie_vil2.evaluation.retrieval import COLUMNS, TIE_RULE, Row, table_cells
from ernie_vil2.evaluation.svg import Series, line_chart
from ernie_vil2.files import write_text

ARROWS = {"image_to_text": "image → text", "text_to_image": "text → image"}
VIEW_PAIRS = {
    "image_image": "image – image",
    "text_text": "text – text",
    "image_text": "image → text",
    "text_image": "text → image",
}
LONGEST_IN_A_COLUMN = 100  # a longer fact, such as a protocol's definition, goes over the whole width
MOST_POINTS = 150  # a longer training log is averaged down to this many points


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
        "Training": f'<div class="charts">{_charts(curves)}</div>',
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


def _charts(curves: Sequence[Mapping]) -> str:
    train = _by_step(record for record in curves if record.get("kind") == "train")
    losses, rate = [], []
    for colour, (key, label) in enumerate(VIEW_PAIRS.items(), start=1):
        points = _averaged(_points(train, key))
        if points:
            losses.append(Series(label, points, colour, dashed=key == "text_image"))
    if learning := _averaged(_points(train, "learning_rate")):
        rate.append(Series("learning rate", learning, 1))
    size = math.ceil(len(train) / MOST_POINTS)
    smoothed = f"Every point is the mean of {size} log records." if size > 1 else "Every log record is shown."

    evaluations = [record for record in curves if record.get("kind") == "evaluation"]
    splits = Counter(record["split"] for record in evaluations)
    split = splits.most_common(1)[0][0] if splits else "no split"
    recalls = _recall_series(_by_step([r for r in evaluations if r["split"] == split]))
    scored = f"Scored on {split} while training."
    return (
        _figure("Loss of each view pair", smoothed, losses, y_label="loss")
        + _figure("Recall over time", scored, recalls, y_label="recall, %", y_max=100)
        + _figure("Learning rate", "", rate, y_label="learning rate", height=170)
    )


def _figure(title: str, note: str, series: Sequence[Series], **options) -> str:
    drawable = any(math.isfinite(y) for line in series for _, y in line.points)
    chart = line_chart(title, series, x_label="step", **options) if drawable else "<p>Nothing logged.</p>"
    return f"<figure><figcaption><b>{title}</b> <span>{escape(note)}</span></figcaption>{chart}</figure>"


def _recall_series(records: Sequence[Mapping]) -> list[Series]:
    """Colour tells language and direction, a dashed line R@10 from R@1."""
    lines = [(language, way) for language in sorted({r["language"] for r in records}) for way in ARROWS]
    return [
        Series(
            f"{language} {ARROWS[way]} {name}",
            [(r["step"], r[way][name]) for r in records if r["language"] == language and way in r],
            colour=index % 4 + 1,
            dashed=name == "R@10",
        )
        for index, (language, way) in enumerate(lines)
        for name in ("R@1", "R@10")
    ]


def _by_step(records: Iterable[Mapping]) -> list[Mapping]:
    """By step, the last record of each: a resumed run logs the steps after its checkpoint again."""
    latest = {(record["step"], record.get("language", "")): record for record in records}
    return [latest[key] for key in sorted(latest)]


def _points(records: Iterable[Mapping], key: str) -> list[tuple[float, float]]:
    return [(record["step"], record[key]) for record in records if record.get(key) is not None]


def _averaged(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = math.ceil(len(points) / MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size or 1)]
    return [(fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups]


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
