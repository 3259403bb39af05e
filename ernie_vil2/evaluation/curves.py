"""A run's log as charts: what training and evaluation reached over the steps, and how fast."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from statistics import fmean

from ernie_vil2.evaluation.svg import Series, line_chart

ARROWS = {"image_to_text": "image → text", "text_to_image": "text → image"}
VIEW_PAIRS = {
    "image_image": "image – image",
    "text_text": "text – text",
    "image_text": "image → text",
    "text_image": "text → image",
}
MOST_POINTS = 150  # a longer training log is averaged down to this many points


def training_charts(records: Sequence[Mapping]) -> str:
    """HTML of the losses, the recall, the learning rate and the logit scale.

    Args:
        records: of a run's `log.jsonl`, of kind "train" and "evaluation"; other kinds are passed over.
    """
    train = _by_step(record for record in records if record.get("kind") == "train")
    losses = []
    for colour, (key, label) in enumerate(VIEW_PAIRS.items(), start=1):
        points = _averaged(_points(train, key))
        if points:
            losses.append(Series(label, points, colour, dashed=key == "text_image"))
    size = math.ceil(len(train) / MOST_POINTS)
    smoothed = f"Every point is the mean of {size} log records." if size > 1 else "Every log record is shown."

    evaluations = [record for record in records if record.get("kind") == "evaluation"]
    splits = Counter(record["split"] for record in evaluations)
    split = splits.most_common(1)[0][0] if splits else "no split"
    recalls = _recall_series(_by_step([r for r in evaluations if r["split"] == split]))
    scored = f"Scored on {split} while training."
    return _grid(
        figure("Loss of each view pair", smoothed, losses, y_label="loss"),
        figure("Recall over time", scored, recalls, y_label="recall, %", y_max=100),
        figure("Learning rate", "", _one(train, "learning_rate"), y_label="learning rate", height=170),
        figure("Logit scale", "1 / temperature.", _one(train, "logit_scale"), y_label="logit scale", height=170),
    )


def speed_charts(records: Sequence[Mapping]) -> str:
    """HTML of the throughput and of the loader's share of the time; `records` as in `training_charts`."""
    train = _by_step(record for record in records if record.get("kind") == "train")
    waited = [(step, 100 * share) for step, share in _points(train, "loader_wait")]
    waits = [Series("loader wait", _averaged(waited), 2)] if waited else []
    rate = _one(train, "samples_per_second")
    return _grid(
        figure("Throughput", "Pairs of all ranks, evaluation left out.", rate, y_label="pairs a second", height=170),
        figure("Loader wait", "Share of the time in which rank 0 waited for its batch.", waits,
               y_label="% of the time", height=170),
    )  # fmt: skip


def figure(title: str, note: str, series: Sequence[Series], **options) -> str:
    """A chart over the steps under its title; `options` are those of `line_chart`."""
    drawable = any(math.isfinite(y) for line in series for _, y in line.points)
    chart = line_chart(title, series, x_label="step", **options) if drawable else "<p>Nothing logged.</p>"
    return f"<figure><figcaption><b>{title}</b> <span>{escape(note)}</span></figcaption>{chart}</figure>"


def _grid(*figures: str) -> str:
    return f'<div class="charts">{"".join(figures)}</div>'


def _one(train: Sequence[Mapping], key: str) -> list[Series]:
    points = _averaged(_points(train, key))
    return [Series(key.replace("_", " "), points, 1)] if points else []


def _recall_series(records: Sequence[Mapping]) -> list[Series]:
    """Colour tells language and direction, a dashed line R@10 from R@1; a direction that is not scored has none."""
    scored = {
        (language, way): [r for r in records if r["language"] == language and r.get(way)]
        for language in sorted({r["language"] for r in records})
        for way in ARROWS
    }
    return [
        Series(
            f"{language} {ARROWS[way]} {name}",
            [(r["step"], r[way][name]) for r in of_line],
            colour=index % 4 + 1,
            dashed=name == "R@10",
        )
        for index, ((language, way), of_line) in enumerate(scored.items())
        if of_line
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
