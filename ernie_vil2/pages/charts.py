"""Line charts: positions of axes, ticks and lines, which a template draws as SVG; and the charts of a run's log."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import Any

# Width of a chart in SVG user units. Text is 11 units high, so that a chart is readable across a phone.
WIDTH = 420
LEFT_MARGIN, RIGHT_MARGIN, TOP_MARGIN, BOTTOM_MARGIN = 48, 18, 24, 36  # room for labels and ticks, in user units
DIGIT_WIDTH = 6.2  # user units of a digit at that height; labels of ticks keep this distance
MAX_MARKED_POINTS = 40  # a line of more points shows no circles, which would run into each other
NUM_COLOURS = 6  # `--c1` to `--c6` of style.css
# Fewer values than this have no outliers: one of them is more than the twentieth that outliers may be.
MIN_VALUES_FOR_OUTLIERS = 20
MAX_POINTS = 150  # a longer training log is averaged down to this many points, about one for 2.4 user units
MIN_SPAN = 1e-300  # of ticks: a fraction of the smallest floats is zero
# Mantissas of logarithmic ticks in tenths, coarse to fine: the first list with enough ticks is used.
_MANTISSAS = ((10,), (10, 30), (10, 20, 50), (10, 15, 20, 30, 40, 50, 60, 80), range(10, 100, 5), range(10, 100))

VIEW_PAIRS = {
    "image_image": "image – image",
    "text_text": "text – text",
    "image_text": "image → text",
    "text_image": "text → image",
}
DIRECTIONS = {"image_to_text": "image → text", "text_to_image": "text → image"}
# Fields of a training record that every task logs; the others get charts of their own.
_COMMON_FIELDS = ("step", "seconds", "loss", "learning_rate", "gradient_norm", "samples_per_second", "loader_wait",
                  "cpu_seconds", "bad_samples", "skipped_steps", "stage")  # fmt: skip
_FIELD_NOTES = {"logit_scale": "1 / temperature."}

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line of a chart: points (x, y) in order of x. `colour` is 1 to `NUM_COLOURS`."""

    label: str
    points: Sequence[Point]
    colour: int
    is_dashed: bool = False


@dataclass(frozen=True)
class Line:
    """A series as it is drawn: its CSS class, its SVG path, the marked points, and its last value as text."""

    label: str
    style: str
    path: str
    marks: Sequence[tuple[str, str]]
    last: str


@dataclass(frozen=True)
class Chart:
    """A chart under its title; without `lines` there was nothing to draw.

    Ticks are (position along the axis in user units, label), and so is `best`, the step of the best checkpoint.
    `borders` are the positions of the steps at which a stage of the run ended.
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
    borders: Sequence[float] = ()
    width: int = WIDTH
    left: int = LEFT_MARGIN
    right: int = WIDTH - RIGHT_MARGIN

    @property
    def bottom(self) -> int:
        """Position of the horizontal axis."""
        return self.height - BOTTOM_MARGIN


@dataclass(frozen=True)
class Axis:
    """An axis of a chart.

    Attributes:
        label: what is measured along the axis.
        end: value at its end; None: the largest value of the data.
        is_logarithmic: whether its scale is logarithmic; values that are not positive leave a gap.
        has_zero: whether it begins at zero or below; otherwise it begins at the smallest value.
        has_outliers: whether it reaches to a few values far above all others; otherwise they are drawn at its top.
        borders: values of a horizontal axis that are marked by a line across the chart.
    """

    label: str
    end: float | None = None
    is_logarithmic: bool = False
    has_zero: bool = True
    has_outliers: bool = True
    borders: Sequence[float] = ()


STEPS = Axis("step")


def make_line_chart(
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
        title: title above the chart.
        note: explanation after the title.
        series: lines of the chart.
        y: vertical axis.
        x: horizontal axis, with a linear scale; its last tick is the last x.
        height: height in user units.
        best: x that is marked as the best.
    """

    def is_drawable(value: float) -> bool:
        # The smallest floats have no smaller tick.
        return math.isfinite(value) and (value >= MIN_SPAN or not y.is_logarithmic)

    positions, values = [], []
    for line in series:
        for position, value in line.points:
            if is_drawable(value):
                positions.append(position)
                values.append(value)
    chart = Chart(title, note, x.label, y.label, height)
    if not values:
        return chart

    # Values far above all others are drawn at the top, so that they do not flatten the rest.
    largest = max(values)
    if not y.has_outliers:
        largest = _largest_without_outliers(values)
    if largest < max(values):
        num_cut = sum(value > largest for value in values)
        points_are = "points are" if num_cut > 1 else "point is"
        note = f"{note} {num_cut:,} {points_are} above {_format_number(largest)}, and drawn at the top."
        values = [min(value, largest) for value in values]

    # Limits of both axes. The vertical one ends at round values, the horizontal one at the last step.
    first_x = 0 if x.has_zero else min(positions)
    last_x = max(positions)
    if last_x <= first_x:
        last_x = first_x + 1  # a single point: any length of the axis will do
    scale: Callable[[float], float]
    if y.is_logarithmic:
        scale = math.log
        y_ticks = _logarithmic_ticks(min(values), max(values))
    else:
        scale = float
        bottom = min(values)
        if y.has_zero:
            bottom = min(0, bottom)
        y_ticks = _linear_ticks(bottom, y.end or max(values), should_enclose=True)
    low, high = scale(y_ticks[0]), scale(y_ticks[-1])

    def place_x(value: float) -> float:
        return LEFT_MARGIN + (chart.right - LEFT_MARGIN) * (value - first_x) / (last_x - first_x)

    def place_y(value: float) -> float:
        return chart.bottom - (chart.bottom - TOP_MARGIN) * (scale(value) - low) / (high - low)

    lines = []
    for line in series:
        places: list[Point | None] = []
        for position, value in line.points:
            if is_drawable(value):
                places.append((place_x(position), place_y(min(value, largest))))
            else:
                places.append(None)
        lines.append(_draw_line(line, places))
    best_mark = None
    if best is not None:
        best_mark = (round(place_x(best), 1), f"best: {_format_number(best)}")
    return Chart(
        title,
        note,
        x.label,
        y.label,
        height,
        x_ticks=_x_ticks(first_x, last_x, place_x),
        y_ticks=[(round(place_y(tick), 1), _format_number(tick)) for tick in y_ticks],
        lines=lines,
        best=best_mark,
        borders=[round(place_x(border), 1) for border in x.borders if first_x < border < last_x],
    )


def _largest_without_outliers(values: Sequence[float]) -> float:
    """Return the largest value, or a bound a little above 95 % of the values if the largest is far above it."""
    if len(values) < MIN_VALUES_FOR_OUTLIERS:
        return max(values)
    ordered = sorted(values)
    bound = 1.2 * ordered[int(0.95 * (len(ordered) - 1))]
    # Less than twice the bound, the largest value flattens the others too little to be cut.
    if 0 < 2 * bound < ordered[-1]:
        return bound
    return ordered[-1]


def _draw_line(line: Series, places: Sequence[Point | None]) -> Line:
    # A gap lifts the pen.
    commands, command = [], "M"  # SVG: move to a point without drawing, or "L": draw a line to it
    for place in places:
        if place is None:
            command = "M"
        else:
            commands.append(f"{command}{place[0]:.1f} {place[1]:.1f}")
            command = "L"
    marks = []
    if len(places) <= MAX_MARKED_POINTS:
        marks = [(f"{place[0]:.1f}", f"{place[1]:.1f}") for place in places if place]
    return Line(
        label=line.label,
        style=f"s{line.colour} dashed" if line.is_dashed else f"s{line.colour}",
        path="".join(commands),
        marks=marks,
        last=f"{line.points[-1][1]:.3g}" if line.points else "",
    )


def _x_ticks(first: float, last: float, place: Callable[[float], float]) -> list[tuple[float, str]]:
    """Return the last value and round ones, without those whose labels would run into the next label."""
    ticks: list[tuple[float, str]] = []
    # From the right, so that the last value always has a tick.
    for x in sorted({*_linear_ticks(first, last), last}, reverse=True):
        if x < first:
            break
        position, label = round(place(x), 1), _format_number(x)
        if ticks:
            next_position, next_label = ticks[-1]
            needed_distance = DIGIT_WIDTH * (len(label) + len(next_label)) / 2 + DIGIT_WIDTH
            if next_position - position <= needed_distance:
                continue
        ticks.append((position, label))
    return ticks[::-1]


def _linear_ticks(low: float, high: float, should_enclose: bool = False) -> list[float]:
    """Return five to ten round values from `low` to `high`; `should_enclose`: first and last lie at or beyond these."""
    # Steps of 1, 2 or 5 times a power of ten, the largest that gives at least four.
    # Floats cannot tell apart the ticks of a much smaller span.
    span = max(high - low, 1e-9 * max(abs(low), abs(high)))
    if high == low or span < MIN_SPAN:
        span = max(span, 1)
    unit = 10 ** math.floor(math.log10(span / 4))
    step = unit * max(factor for factor in (1, 2, 5) if factor * unit <= span / 4)
    slack = 1e-9  # 0.3 / 0.1 is slightly less than 3
    first = math.floor(low / step + slack)
    steps_to_end = (low + span) / step
    if should_enclose:
        last = math.ceil(steps_to_end - slack)
    else:
        last = math.floor(steps_to_end + slack)
    return [number * step for number in range(first, last + 1)]


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    """Return at least four round values that enclose `low` and `high`, or fewer if two digits do not give four."""
    # One decade more at each end, since logarithms are rounded.
    decades = range(math.floor(math.log10(low)) - 1, math.floor(math.log10(high)) + 2)
    for mantissas in _MANTISSAS:
        values = []
        for decade in decades:
            values += [float(f"{mantissa}e{decade - 1}") for mantissa in mantissas]
        first = max(index for index, value in enumerate(values) if value <= low)
        last = min((index for index, value in enumerate(values) if value >= high), default=len(values) - 1)
        last = max(last, first + 1)
        if last - first >= 3:
            break
    return values[first : last + 1]


def _format_number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def make_training_charts(records: Sequence[Mapping]) -> list[Chart]:
    """Return the charts of a training: losses, evaluations, learning rate, further fields of the task, gradient norm.

    Args:
        records: records of a run's `log.jsonl` of kind "train" and "evaluation"; other kinds are skipped.
    """
    train = _records_of_kind("train", records)
    steps = replace(STEPS, borders=list_borders(records))

    # The loss of each view pair, if the task logs them.
    losses = []
    for colour, (key, label) in enumerate(VIEW_PAIRS.items(), start=1):
        points = _average(_points(train, key))
        if points:
            losses.append(Series(label, points, colour, is_dashed=key == "text_image"))
    title = "Loss of each view pair"
    if not losses:
        title, losses = "Loss", _single_series(train, "loss")
    note = "Every log record is shown."
    group_size = math.ceil(len(train) / MAX_POINTS)
    if group_size > 1:
        note = f"Every point is the mean of {group_size} log records."
    # A logarithmic axis shows factors: halving a loss looks the same early and late. Spikes must not flatten it.
    loss_axis = Axis("loss", is_logarithmic=True, has_outliers=False)
    if steps.borders:
        note += " A vertical line is the end of a stage."
    charts = [make_line_chart(title, note, losses, loss_axis, x=steps)]

    charts += _evaluation_charts(records, steps)
    charts.append(_field_chart(train, "learning_rate", steps))

    # Numbers that only this task logs, in order of their first appearance.
    task_fields = dict[str, None]()
    for record in train:
        for name, value in record.items():
            if isinstance(value, int | float) and name not in VIEW_PAIRS and name not in _COMMON_FIELDS:
                task_fields[name] = None
    charts += [_field_chart(train, name, steps, _FIELD_NOTES.get(name, "")) for name in task_fields]

    norms = _single_series(train, "gradient_norm")
    norm_axis = Axis("norm", is_logarithmic=True)
    charts.append(make_line_chart("Gradient norm", "Before clipping.", norms, norm_axis, x=steps, height=170))
    return charts


def list_borders(records: Sequence[Mapping]) -> list[int]:
    """Return the steps at which a stage of `Training.stages` ended; the last step of a stage always has a record."""
    borders = []
    for record, next_record in pairwise(_records_of_kind("train", records)):
        if record.get("stage") != next_record.get("stage"):
            borders.append(record["step"])
    return borders


def make_speed_charts(records: Sequence[Mapping]) -> list[Chart]:
    """Return the charts of throughput and of the time spent waiting for data; `records`: see `make_training_charts`."""
    train = _records_of_kind("train", records)
    steps = replace(STEPS, borders=list_borders(records))
    waits = _average([(step, 100 * share) for step, share in _points(train, "loader_wait")])
    wait_series = [Series("loader wait", waits, 2)] if waits else []
    return [
        make_line_chart(
            "Throughput",
            "Samples of all ranks, evaluation left out.",
            _single_series(train, "samples_per_second"),
            Axis("samples a second"),
            x=steps,
            height=170,
        ),
        make_line_chart(
            "Loader wait",
            "Share of the time in which rank 0 waited for its batch.",
            wait_series,
            Axis("% of the time"),
            x=steps,
            height=170,
        ),
    ]


def make_comparison_charts(runs: Mapping[str, Sequence[Mapping]]) -> list[Chart]:
    """Return charts of the loss of several runs, by name, and of the metric that chooses their best checkpoints."""
    losses, scores, metric_names = [], [], dict[str, None]()
    for number, (name, records) in enumerate(runs.items()):
        style = _line_style(number)
        losses.append(Series(name, _average(_points(_records_of_kind("train", records), "loss")), **style))

        # Only the first evaluator that has a deciding metric: another one's values cannot share its line.
        evaluations = [record for record in _records_of_kind("evaluation", records) if record["best_by"]]
        evaluations = [record for record in evaluations if record["evaluator"] == evaluations[0]["evaluator"]]
        points = [(record["step"], record["metrics"].get(record["best_by"])) for record in evaluations]
        scores.append(Series(name, [point for point in points if point[1] is not None], **style))
        metric_names |= dict.fromkeys(_metric_label(record["best_by"]) for record in evaluations)

    title = " and ".join(metric_names) or "no score"
    loss_axis = Axis("loss", is_logarithmic=True, has_outliers=False)
    score_axis = Axis(title, end=_score_end(scores))
    return [
        make_line_chart("Loss", "The weighted sum of the losses.", losses, loss_axis),
        make_line_chart(
            f"{_capitalize(title)} over time", "The best checkpoint is chosen by this metric.", scores, score_axis
        ),
    ]


def _single_series(train: Sequence[Mapping], key: str) -> list[Series]:
    points = _average(_points(train, key))
    return [Series(key.replace("_", " "), points, 1)] if points else []


def _field_chart(train: Sequence[Mapping], key: str, steps: Axis, note: str = "") -> Chart:
    name = key.replace("_", " ")
    return make_line_chart(name.capitalize(), note, _single_series(train, key), Axis(name), x=steps, height=170)


def _evaluation_charts(records: Sequence[Mapping], steps: Axis) -> list[Chart]:
    """Return one chart for each evaluator."""
    evaluations = _records_of_kind("evaluation", records)
    charts = []
    for name in dict.fromkeys(record["evaluator"] for record in evaluations):
        evaluator_records = [record for record in evaluations if record["evaluator"] == name]
        series = _metric_series(evaluator_records)
        title = _capitalize(f"{name.replace('_', ' ')} over time")
        axis = Axis("score", end=_score_end(series))
        # Models of earlier stages, which have other sizes, are not chosen.
        last_records = [record for record in evaluator_records if record["step"] > max(steps.borders, default=-1)]
        charts.append(make_line_chart(title, "", series, axis, x=steps, best=_best_step(last_records)))
    return charts


def _best_step(records: Sequence[Mapping]) -> float | None:
    """Return the step with the best deciding metric, the first of equal ones; None if no metric decides."""
    best, best_step = None, None
    for record in records:
        metric = record["metrics"].get(record["best_by"])
        # Step 0 is no checkpoint.
        if record["best_by"] and metric is not None and record["step"] and (best is None or metric > best):
            best, best_step = metric, record["step"]
    return best_step


def _metric_series(records: Sequence[Mapping]) -> list[Series]:
    """Return a line for each metric.

    If no group has more than two metrics, such as R@1 and R@10 of a direction, both have one colour and the second is
    dashed. Otherwise each metric has its own colour.
    """
    points_by_name: dict[str, list[Point]] = {}
    for record in records:
        metrics = record["metrics"]
        for name in record.get("progress_metrics") or metrics:
            if metrics.get(name) is not None:
                points_by_name.setdefault(name, []).append((record["step"], metrics[name]))

    # Metrics of a group differ only in their last part.
    groups: dict[str, list[str]] = {}
    for name in points_by_name:
        groups.setdefault(name.rpartition("/")[0], []).append(name)
    if any(len(names) > 2 for names in groups.values()):
        groups = {name: [name] for name in points_by_name}

    series = []
    for number, names in enumerate(groups.values()):
        style = _line_style(number)
        for position, name in enumerate(names):
            is_dashed = position > 0 or style["is_dashed"]
            series.append(Series(_metric_label(name), points_by_name[name], style["colour"], is_dashed))
    return series


def _line_style(number: int) -> dict[str, Any]:
    """Return the style of a line by its number: all colours once, then again dashed."""
    return {"colour": number % NUM_COLOURS + 1, "is_dashed": number % (2 * NUM_COLOURS) >= NUM_COLOURS}


def _metric_label(name: str) -> str:
    words = [DIRECTIONS.get(word, word.replace("_", " ")) for word in name.split("/")]
    return " ".join(words)


def _capitalize(text: str) -> str:
    """Return a text with a capital first letter; unlike `str.capitalize`, the others stay."""
    return f"{text[0].upper()}{text[1:]}"


def _score_end(series: Sequence[Series]) -> float | None:
    """Return 100 for values that look like percent, so that charts can be compared; None: up to the largest value."""
    largest = max((y for line in series for _, y in line.points), default=0)
    return 100 if 1 < largest <= 100 else None


def _records_of_kind(kind: str, records: Sequence[Mapping]) -> list[Mapping]:
    """Return the records of a kind in order of their steps.

    Of each step the last record counts: a resumed run logs the steps after its checkpoint again.
    """
    # Later records replace earlier ones of the same step and evaluator.
    latest = {}
    for record in records:
        if record.get("kind") == kind:
            latest[record["step"], record["evaluator"] if kind == "evaluation" else ""] = record
    return [latest[key] for key in sorted(latest)]


def _points(records: Iterable[Mapping], key: str) -> list[Point]:
    # A stranger's log may have anything but numbers in the fields that only some tasks log.
    return [(record["step"], record[key]) for record in records if isinstance(record.get(key), int | float)]


def _average(points: Sequence[Point]) -> list[Point]:
    """Return at most `MAX_POINTS` points, each the mean of a group of points at the last step of the group."""
    size = max(1, math.ceil(len(points) / MAX_POINTS))
    averages = []
    for start in range(0, len(points), size):
        group = points[start : start + size]
        averages.append((group[-1][0], fmean(y for _, y in group)))
    return averages
