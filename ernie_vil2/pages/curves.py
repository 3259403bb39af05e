"""A run's log as charts: what training and evaluation reached over the steps, and how fast."""

from __future__ import annotations

import math
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
_OF_EVERY_RUN = ("step", "seconds", "loss", "learning_rate", "gradient_norm", "samples_per_second", "loader_wait",
                 "cpu_seconds", "bad_samples", "skipped_steps")  # fmt: skip
_NOTES = {"logit_scale": "1 / temperature."}
MOST_POINTS = 150  # a longer training log is averaged down to this many points


def training_charts(records: Sequence[Mapping]) -> list[Chart]:
    """The losses, what each evaluator found, the learning rate, what else the task logs, the norm of the gradient.

    Args:
        records: of a run's `log.jsonl`, of kind "train" and "evaluation"; other kinds are skipped.
    """
    train = _train(records)
    pairs = [
        Series(label, points, colour, dashed=key == "text_image")
        for colour, (key, label) in enumerate(VIEW_PAIRS.items(), start=1)
        if (points := _averaged(_points(train, key)))
    ]
    title, losses = ("Loss of each view pair", pairs) if pairs else ("Loss", _one(train, "loss"))
    others = dict.fromkeys(
        name
        for record in train
        for name, value in record.items()
        if isinstance(value, int | float) and name not in (*VIEW_PAIRS, *_OF_EVERY_RUN)
    )
    return [
        line_chart(title, _smoothed(train), losses, y_label="loss", logarithmic=True),
        *_evaluation_charts(records),
        _small(train, "learning_rate"),
        *(_small(train, name, _NOTES.get(name, "")) for name in others),
        line_chart("Gradient norm", "Before clipping.", _one(train, "gradient_norm"), y_label="norm", height=170,
                   logarithmic=True),
    ]  # fmt: skip


def speed_charts(records: Sequence[Mapping]) -> list[Chart]:
    """The throughput and the loader's share of the time; `records` as in `training_charts`."""
    train = _train(records)
    waited = [(step, 100 * share) for step, share in _points(train, "loader_wait")]
    waits = [Series("loader wait", _averaged(waited), 2)] if waited else []
    return [
        line_chart("Throughput", "Samples of all ranks, evaluation left out.", _one(train, "samples_per_second"),
                   y_label="samples a second", height=170),
        line_chart("Loader wait", "Share of the time in which rank 0 waited for its batch.", waits,
                   y_label="% of the time", height=170),
    ]  # fmt: skip


def comparison_charts(runs: Mapping[str, Sequence[Mapping]]) -> list[Chart]:
    """The loss of several runs, by name, and the number that chooses their best checkpoint, over the same steps."""
    losses, scores, names = [], [], dict[str, None]()
    for number, (name, records) in enumerate(runs.items()):
        colour, dashed = number % COLOURS + 1, number % (2 * COLOURS) >= COLOURS
        losses.append(Series(name, _averaged(_points(_train(records), "loss")), colour, dashed))
        chosen_by = [record for record in _evaluations(records) if record["best_by"]]
        deciding = [record for record in chosen_by if record["evaluator"] == chosen_by[0]["evaluator"]]
        points = [(record["step"], record["metrics"].get(record["best_by"])) for record in deciding]
        scores.append(Series(name, [point for point in points if point[1] is not None], colour, dashed))
        names |= dict.fromkeys(_words(record["best_by"]) for record in deciding)
    title = " and ".join(names) or "no score"
    return [
        line_chart("Loss", "The weighted sum of the losses.", losses, y_label="loss", logarithmic=True),
        line_chart(f"{title[0].upper()}{title[1:]} over time", "By which the best checkpoint is chosen.", scores,
                   y_label=title, y_max=_top(scores)),
    ]  # fmt: skip


def _train(records: Sequence[Mapping]) -> list[Mapping]:
    return _by_step(record for record in records if record.get("kind") == "train")


def _evaluations(records: Sequence[Mapping]) -> list[Mapping]:
    return _by_step(record for record in records if record.get("kind") == "evaluation")


def _smoothed(train: Sequence[Mapping]) -> str:
    size = math.ceil(len(train) / MOST_POINTS)
    return f"Every point is the mean of {size} log records." if size > 1 else "Every log record is shown."


def _one(train: Sequence[Mapping], key: str) -> list[Series]:
    points = _averaged(_points(train, key))
    return [Series(key.replace("_", " "), points, 1)] if points else []


def _small(train: Sequence[Mapping], key: str, note: str = "") -> Chart:
    name = key.replace("_", " ")
    return line_chart(name.capitalize(), note, _one(train, key), y_label=name, height=170)


def _evaluation_charts(records: Sequence[Mapping]) -> list[Chart]:
    """One for each evaluator."""
    evaluations = _evaluations(records)
    charts = []
    for name in dict.fromkeys(record["evaluator"] for record in evaluations):
        own = [record for record in evaluations if record["evaluator"] == name]
        series = _metric_series(own)
        title = f"{name.replace('_', ' ')} over time"
        charts.append(line_chart(f"{title[0].upper()}{title[1:]}", "", series, y_label="score", y_max=_top(series)))
    return charts


def _metric_series(records: Sequence[Mapping]) -> list[Series]:
    """Of two numbers of one group, as R@1 and R@10 of a direction, the second is dashed; else each has its colour."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        metrics = record["metrics"]
        for name in record.get("shown") or metrics:
            if metrics.get(name) is not None:
                lines.setdefault(name, []).append((record["step"], metrics[name]))
    groups: dict[str, list[str]] = {}
    for name in lines:
        groups.setdefault(name.rpartition("/")[0], []).append(name)
    if max(map(len, groups.values()), default=0) > 2:
        groups = {name: [name] for name in lines}
    return [
        Series(_words(name), lines[name], index % COLOURS + 1, dashed=position > 0 or index % (2 * COLOURS) >= COLOURS)
        for index, names in enumerate(groups.values())
        for position, name in enumerate(names)
    ]


def _words(name: str) -> str:
    return " ".join(ARROWS.get(part, part.replace("_", " ")) for part in name.split("/"))


def _top(series: Sequence[Series]) -> float | None:
    """100 for what looks like percent, so that charts compare; else as the data ask."""
    values = [y for line in series for _, y in line.points]
    return 100 if values and 1 < max(values) <= 100 else None


def _by_step(records: Iterable[Mapping]) -> list[Mapping]:
    """By step, the last record of each: a resumed run logs the steps after its checkpoint again."""
    latest = {(record["step"], record.get("evaluator", "")): record for record in records}
    return [latest[key] for key in sorted(latest)]


def _points(records: Iterable[Mapping], key: str) -> list[tuple[float, float]]:
    return [(record["step"], record[key]) for record in records if record.get(key) is not None]


def _averaged(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Groups of points by their mean; the last step stays the last."""
    size = math.ceil(len(points) / MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size or 1)]
    return [(group[-1][0], fmean(y for _, y in group)) for group in groups]
