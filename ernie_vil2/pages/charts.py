"""Line charts: where axes, ticks and lines lie, for the template that draws them as SVG; and those of a run's log.

The log's charts show what training and evaluation reached over the steps, and how fast.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

WIDTH = 420  # in user units, at which text is 11 high: small enough to be read on a phone
LEFT, RIGHT, TOP, BOTTOM = 48, 18, 24, 36  # margins
DIGIT = 6.2  # width of a figure
MARKED = 40  # lines of at most this many points show every point
COLOURS = 6
FEWEST = 20  # points of which some can be called outliers
# In tenths, coarse to fine: the first of which enough lie between the ends is taken.
_MANTISSAS = ((10,), (10, 30), (10, 20, 50), (10, 15, 20, 30, 40, 50, 60, 80), range(10, 100, 5), range(10, 100))


@dataclass(frozen=True)
class Series:
    """One line: (x, y) points in order of x. `colour` is 1 to `COLOURS`, the page's `--c1`, `--c2`, ..."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: int
    dashed: bool = False


@dataclass(frozen=True)
class Line:
    """A series as it is drawn: the class of its style, its path, the points that are marked, its last value."""

    label: str
    style: str
    path: str
    marks: Sequence[tuple[str, str]]
    last: str


@dataclass(frozen=True)
class Chart:
    """A figure under its title; without `lines` there was nothing to draw.

    Ticks are (position, label) along their axis, in user units; so is `best`, a step that is marked.
    """

    title: str
    note: str
    x_label: str
    y_label: str
    height: int
    x_ticks: Sequence[tuple[float, str]] = ()
    y_ticks: Sequence[tuple[float, str]] = ()
    lines: Sequence[Line] = ()
    best: tuple[float, str] | None = None
    width: int = WIDTH
    left: int = LEFT
    edge: int = WIDTH - RIGHT

    @property
    def floor(self) -> int:
        """Where the horizontal axis lies."""
        return self.height - BOTTOM


@dataclass(frozen=True)
class Axis:
    """An axis of a chart.

    Attributes:
        label: what is measured along it.
        top: fixes its end; None: the data do.
        logarithmic: whether its ticks are; a value that is not positive leaves a gap.
        from_zero: whether it begins at zero, or below; else where the data do.
        outliers: whether it follows the few values that are far above all others; else they lie at its top.
    """

    label: str
    top: float | None = None
    logarithmic: bool = False
    from_zero: bool = True
    outliers: bool = True


STEPS = Axis("step")


def line_chart(
    title: str,
    note: str,
    series: Sequence[Series],
    y: Axis,
    *,
    x: Axis = STEPS,
    height: int = 250,
    best: float | None = None,
) -> Chart:
    """Return the chart of some series; a point whose y is not finite leaves a gap in its line.

    Args:
        title, note: above the chart.
        series: its lines.
        y: the vertical axis.
        x: the horizontal one, linear, whose last tick is the last x.
        height: in pixels.
        best: an x that is marked as the best.
    """
    chart = Chart(title, note, x.label, y.label, height)

    def shown(value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not y.logarithmic)

    points = [point for line in series for point in line.points if shown(point[1])]
    if not points:
        return chart
    values = [value for _, value in points]
    most = max(values) if y.outliers else _usual(values)
    if most < max(values):
        cut = sum(value > most for value in values)
        points_are = "points are" if cut > 1 else "point is"
        note = f"{note} {cut:,} {points_are} above {_number(most)}, and drawn at the top."
        values = [min(value, most) for value in values]
    first = 0 if x.from_zero else min(position for position, _ in points)
    last = max(position for position, _ in points)
    last = last if last > first else first + 1
    if y.logarithmic:
        y_ticks = _log_ticks(min(values), max(values))
    else:
        bottom = min(0, *values) if y.from_zero else min(values)
        y_ticks = _ticks(bottom, y.top or max(values), cover=True)
    scale: Callable[[float], float] = math.log if y.logarithmic else float
    low, high = scale(y_ticks[0]), scale(y_ticks[-1])

    def across(value: float) -> float:
        return LEFT + (chart.edge - LEFT) * (value - first) / (last - first)

    def up(value: float) -> float:
        return chart.floor - (chart.floor - TOP) * (scale(value) - low) / (high - low)

    return Chart(
        title, note, x.label, y.label, height,
        x_ticks=_x_ticks(first, last, across),
        y_ticks=[(round(up(tick), 1), _number(tick)) for tick in y_ticks],
        lines=[_line(line, [(across(at), up(min(value, most))) if shown(value) else None for at, value in line.points])
               for line in series],
        best=None if best is None else (round(across(best), 1), f"best: {_number(best)}"),
    )  # fmt: skip


def _usual(values: Sequence[float]) -> float:
    """The largest value, or of many, if that is far from all but a few, a little more than these are."""
    ordered = sorted(values)
    most = 1.2 * ordered[int(0.95 * (len(ordered) - 1))]
    return most if len(ordered) >= FEWEST and 0 < 2 * most < ordered[-1] else ordered[-1]


def _line(line: Series, drawn: Sequence[tuple[float, float] | None]) -> Line:
    commands, pen = [], "M"
    for point in drawn:
        if point is None:
            pen = "M"
        else:
            commands.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
            pen = "L"
    return Line(
        label=line.label,
        style=f"s{line.colour}" + (" dashed" if line.dashed else ""),
        path="".join(commands),
        marks=[(f"{x:.1f}", f"{y:.1f}") for x, y in filter(None, drawn)] if len(drawn) <= MARKED else [],
        last=f"{line.points[-1][1]:.3g}" if line.points else "",
    )


def _x_ticks(first: float, last: float, across: Callable[[float], float]) -> list[tuple[float, str]]:
    """Round values and the last one, without those whose figures would run into the next ones'."""
    ticks: list[tuple[float, str]] = []
    for x in sorted({*_ticks(first, last), last}, reverse=True):
        if x < first:
            break
        position, label = round(across(x), 1), _number(x)
        if not ticks or ticks[-1][0] - position > DIGIT * (len(label) + len(ticks[-1][1])) / 2 + DIGIT:
            ticks.append((position, label))
    return ticks[::-1]


def _ticks(low: float, high: float, cover: bool = False) -> list[float]:
    """Five to ten round values from low to high; with `cover` the first and last enclose both ends."""
    span = high - low or 1
    unit = 10 ** math.floor(math.log10(span / 4))
    step = unit * max(m for m in (1, 2, 5) if m * unit <= span / 4)
    slack = 1e-9  # 0.3 / 0.1 is not quite 3
    first = math.floor(low / step + slack)
    last = math.ceil((low + span) / step - slack) if cover else math.floor((low + span) / step + slack)
    return [i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Round values that enclose both ends: four or more of them, or as many as two digits give."""
    decades = range(math.floor(math.log10(low)) - 1, math.floor(math.log10(high)) + 2)  # a logarithm is rounded
    for mantissas in _MANTISSAS:
        values = [float(f"{mantissa}e{decade - 1}") for decade in decades for mantissa in mantissas]
        first = max(number for number, value in enumerate(values) if value <= low)
        last = min((number for number, value in enumerate(values) if value >= high), default=len(values) - 1)
        last = max(last, first + 1)
        if last - first >= 3:
            break
    return values[first : last + 1]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


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
    train = _of_kind("train", records)
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
        line_chart(title, _smoothed(train), losses, Axis("loss", logarithmic=True, outliers=False)),
        *_evaluation_charts(records),
        _small(train, "learning_rate"),
        *(_small(train, name, _NOTES.get(name, "")) for name in others),
        line_chart("Gradient norm", "Before clipping.", _one(train, "gradient_norm"), Axis("norm", logarithmic=True),
                   height=170),
    ]  # fmt: skip


def speed_charts(records: Sequence[Mapping]) -> list[Chart]:
    """The throughput and the loader's share of the time; `records` as in `training_charts`."""
    train = _of_kind("train", records)
    waited = [(step, 100 * share) for step, share in _points(train, "loader_wait")]
    waits = [Series("loader wait", _averaged(waited), 2)] if waited else []
    return [
        line_chart("Throughput", "Samples of all ranks, evaluation left out.", _one(train, "samples_per_second"),
                   Axis("samples a second"), height=170),
        line_chart("Loader wait", "Share of the time in which rank 0 waited for its batch.", waits,
                   Axis("% of the time"), height=170),
    ]  # fmt: skip


def comparison_charts(runs: Mapping[str, Sequence[Mapping]]) -> list[Chart]:
    """The loss of several runs, by name, and the number that chooses their best checkpoint, over the same steps."""
    losses, scores, names = [], [], dict[str, None]()
    for number, (name, records) in enumerate(runs.items()):
        colour, dashed = number % COLOURS + 1, number % (2 * COLOURS) >= COLOURS
        losses.append(Series(name, _averaged(_points(_of_kind("train", records), "loss")), colour, dashed))
        chosen_by = [record for record in _of_kind("evaluation", records) if record["best_by"]]
        deciding = [record for record in chosen_by if record["evaluator"] == chosen_by[0]["evaluator"]]
        points = [(record["step"], record["metrics"].get(record["best_by"])) for record in deciding]
        scores.append(Series(name, [point for point in points if point[1] is not None], colour, dashed))
        names |= dict.fromkeys(_words(record["best_by"]) for record in deciding)
    title = " and ".join(names) or "no score"
    return [
        line_chart("Loss", "The weighted sum of the losses.", losses,
                   Axis("loss", logarithmic=True, outliers=False)),
        line_chart(f"{title[0].upper()}{title[1:]} over time", "By which the best checkpoint is chosen.", scores,
                   Axis(title, top=_top(scores))),
    ]  # fmt: skip


def _smoothed(train: Sequence[Mapping]) -> str:
    size = math.ceil(len(train) / MOST_POINTS)
    return f"Every point is the mean of {size} log records." if size > 1 else "Every log record is shown."


def _one(train: Sequence[Mapping], key: str) -> list[Series]:
    points = _averaged(_points(train, key))
    return [Series(key.replace("_", " "), points, 1)] if points else []


def _small(train: Sequence[Mapping], key: str, note: str = "") -> Chart:
    name = key.replace("_", " ")
    return line_chart(name.capitalize(), note, _one(train, key), Axis(name), height=170)


def _evaluation_charts(records: Sequence[Mapping]) -> list[Chart]:
    """One for each evaluator."""
    evaluations = _of_kind("evaluation", records)
    charts = []
    for name in dict.fromkeys(record["evaluator"] for record in evaluations):
        own = [record for record in evaluations if record["evaluator"] == name]
        series, best = _metric_series(own), _best(own)
        title = f"{name.replace('_', ' ')} over time"
        title = f"{title[0].upper()}{title[1:]}"
        charts.append(line_chart(title, "", series, Axis("score", top=_top(series)), best=best))
    return charts


def _best(records: Sequence[Mapping]) -> float | None:
    """The step of the number by which the best checkpoint is chosen; None where none is."""
    scored = [
        (record["metrics"][record["best_by"]], -record["step"])
        for record in records
        if record["step"] and record["best_by"] and record["metrics"].get(record["best_by"]) is not None
    ]
    return -max(scored)[1] if scored else None


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


def _of_kind(kind: str, records: Sequence[Mapping]) -> list[Mapping]:
    """By step, the last record of each: a resumed run logs the steps after its checkpoint again."""
    latest = {(one["step"], one.get("evaluator", "")): one for one in records if one.get("kind") == kind}
    return [latest[key] for key in sorted(latest)]


def _points(records: Iterable[Mapping], key: str) -> list[tuple[float, float]]:
    return [(record["step"], record[key]) for record in records if record.get(key) is not None]


def _averaged(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Groups of points by their mean; the last step stays the last."""
    size = math.ceil(len(points) / MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size or 1)]
    return [(group[-1][0], fmean(y for _, y in group)) for group in groups]
