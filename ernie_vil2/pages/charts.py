"""Line charts: where axes, ticks and lines lie, for the template that draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH = 420  # in user units, at which text is 11 high: small enough to be read on a phone
LEFT, RIGHT, TOP, BOTTOM = 48, 18, 24, 36  # margins
DIGIT = 6.2  # width of a figure
MARKED = 40  # lines of at most this many points show every point
COLOURS = 6
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

    Ticks are (position, label) along their axis, in user units.
    """

    title: str
    note: str
    x_label: str
    y_label: str
    height: int
    x_ticks: Sequence[tuple[float, str]] = ()
    y_ticks: Sequence[tuple[float, str]] = ()
    lines: Sequence[Line] = ()
    width: int = WIDTH
    left: int = LEFT
    edge: int = WIDTH - RIGHT

    @property
    def floor(self) -> int:
        """Where the horizontal axis lies."""
        return self.height - BOTTOM


def line_chart(
    title: str,
    note: str,
    series: Sequence[Series],
    *,
    y_label: str,
    x_label: str = "step",
    y_max: float | None = None,
    height: int = 250,
    logarithmic: bool = False,
    from_zero: bool = True,
) -> Chart:
    """The chart of some series; a point whose y is not finite leaves a gap in its line.

    The horizontal axis begins at zero, and its last tick is the last x. So does the vertical one, or below, unless it
    is logarithmic; there a value that is not positive leaves a gap.

    Args:
        y_max: fixes the top; by default the data do.
        from_zero: False: both axes begin where the data do.
    """
    chart = Chart(title, note, x_label, y_label, height)

    def shown(y: float) -> bool:
        return math.isfinite(y) and (y > 0 or not logarithmic)

    points = [point for line in series for point in line.points if shown(point[1])]
    if not points:
        return chart
    values = [y for _, y in points]
    first = 0 if from_zero else min(x for x, _ in points)
    last = max(x for x, _ in points)
    last = last if last > first else first + 1
    if logarithmic:
        y_ticks = _log_ticks(min(values), max(values))
    else:
        bottom = min(0, *values) if from_zero else min(values)
        y_ticks = _ticks(bottom, y_max or max(values), cover=True)
    scale: Callable[[float], float] = math.log if logarithmic else float
    low, high = scale(y_ticks[0]), scale(y_ticks[-1])

    def across(x: float) -> float:
        return LEFT + (chart.edge - LEFT) * (x - first) / (last - first)

    def up(y: float) -> float:
        return chart.floor - (chart.floor - TOP) * (scale(y) - low) / (high - low)

    return Chart(
        title, note, x_label, y_label, height,
        x_ticks=_x_ticks(first, last, across),
        y_ticks=[(round(up(y), 1), _number(y)) for y in y_ticks],
        lines=[_line(line, [(across(x), up(y)) if shown(y) else None for x, y in line.points]) for line in series],
    )  # fmt: skip


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
