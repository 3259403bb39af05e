"""A run's log as charts: what training and evaluation reached over the steps, and how fast."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from ernie_vil2.pages.charts import COLOURS, Chart, Series, line_chart

ARROWS = {"image_to_text": "image → text", "text_to_image": "text → image"}
VIEW_PAIRS = {
    "image_image": "image – image",
    "text_text": "text – text",
    "image_text": "image → text",
    "text_image": "text → image",
}
MOST_POINTS = 150  # a longer training log is averaged down to this many points


def training_charts(records: Sequence[Mapping]) -> list[Chart]:
    """The losses, the recall, the learning rate, the logit scale and the norm of the gradient.

    Args:
        records: of a run's `log.jsonl`, of kind "train" and "evaluation"; other kinds are passed over.
    """
    train = _train(records)
    losses = []
    for colour, (key, label) in enumerate(VIEW_PAIRS.items(), start=1):
        points = _averaged(_points(train, key))
        if points:
            losses.append(Series(label, points, colour, dashed=key == "text_image"))
    split, evaluations = _evaluations(records)
    return [
        line_chart("Loss of each view pair", _smoothed(train), losses, y_label="loss", logarithmic=True),
        line_chart("Recall over time", f"Scored on {split} while training.", _recall_series(evaluations),
                   y_label="recall, %", y_max=100),
        line_chart("Learning rate", "", _one(train, "learning_rate"), y_label="learning rate", height=170),
        line_chart("Logit scale", "1 / temperature.", _one(train, "logit_scale"), y_label="logit scale", height=170),
        line_chart("Gradient norm", "Before clipping.", _one(train, "gradient_norm"), y_label="norm", height=170,
                   logarithmic=True),
    ]  # fmt: skip


def speed_charts(records: Sequence[Mapping]) -> list[Chart]:
    """The throughput and the loader's share of the time; `records` as in `training_charts`."""
    train = _train(records)
    waited = [(step, 100 * share) for step, share in _points(train, "loader_wait")]
    waits = [Series("loader wait", _averaged(waited), 2)] if waited else []
    return [
        line_chart("Throughput", "Pairs of all ranks, evaluation left out.", _one(train, "samples_per_second"),
                   y_label="pairs a second", height=170),
        line_chart("Loader wait", "Share of the time in which rank 0 waited for its batch.", waits,
                   y_label="% of the time", height=170),
    ]  # fmt: skip


def comparison_charts(runs: Mapping[str, Sequence[Mapping]]) -> list[Chart]:
    """The loss and the mean recall of several runs, by name, over the same steps."""
    losses, recalls, splits = [], [], set()
    for number, (name, records) in enumerate(runs.items()):
        style = {"colour": number % COLOURS + 1, "dashed": number % (2 * COLOURS) >= COLOURS}
        losses.append(Series(name, _averaged(_points(_train(records), "loss")), **style))
        split, evaluations = _evaluations(records)
        by_step: dict[int, list[float]] = {}
        for record in evaluations:
            by_step.setdefault(record["step"], []).append(record["mR"])
        recalls.append(Series(name, [(step, fmean(values)) for step, values in by_step.items()], **style))
        splits.add(split)
    note = f"Mean over directions and languages, scored on {', '.join(sorted(splits))} while training."
    return [
        line_chart("Loss", "The weighted sum of the view pairs.", losses, y_label="loss", logarithmic=True),
        line_chart("Mean recall over time", note, recalls, y_label="mean recall, %", y_max=100),
    ]


def _train(records: Sequence[Mapping]) -> list[Mapping]:
    return _by_step(record for record in records if record.get("kind") == "train")


def _evaluations(records: Sequence[Mapping]) -> tuple[str, list[Mapping]]:
    """The split that was scored most often, and its records."""
    evaluations = [record for record in records if record.get("kind") == "evaluation"]
    splits = Counter(record["split"] for record in evaluations)
    split = splits.most_common(1)[0][0] if splits else "no split"
    return split, _by_step(record for record in evaluations if record["split"] == split)


def _smoothed(train: Sequence[Mapping]) -> str:
    size = math.ceil(len(train) / MOST_POINTS)
    return f"Every point is the mean of {size} log records." if size > 1 else "Every log record is shown."


def _one(train: Sequence[Mapping], key: str) -> list[Series]:
    points = _averaged(_points(train, key))
    return [Series(key.replace("_", " "), points, 1)] if points else []


def _recall_series(records: Sequence[Mapping]) -> list[Series]:
    """Colour tells language and direction, a dashed line R@10 from R@1; a direction that is not scored has no line."""
    scored = {
        (language, way): [r for r in records if r["language"] == language and r.get(way)]
        for language in sorted({r["language"] for r in records})
        for way in ARROWS
    }
    return [
        Series(
            f"{language} {ARROWS[way]} {name}",
            [(r["step"], r[way][name]) for r in of_line],
            colour=index % COLOURS + 1,
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
    """Groups of points by their mean; the last step stays the last."""
    size = math.ceil(len(points) / MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size or 1)]
    return [(group[-1][0], fmean(y for _, y in group)) for group in groups]
