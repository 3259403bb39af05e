"""A line chart as inline SVG: axes, ticks, and a legend; colours come from the page's style sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 420  # in user units, at which text is 11 high: small enough to be read on a phone
LEFT, RIGHT, TOP, BOTTOM = 44, 18, 24, 36  # margins
MARKED = 40  # lines of at most this many points show every point


@dataclass(frozen=True)
class Series:
    """One line: (x, y) points in order of x. `colour` is 1 to 4, the page's `--c1` to `--c4`."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: int
    dashed: bool = False


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    y_max: float | None = None,
    height: int = 250,
) -> str:
    """The `<svg>` and, for several lines, a legend with their last values. The axes start at zero or below.

    A point whose y is not finite leaves a gap in its line. `y_max` fixes the top; by default the data do.
    Raises ValueError when there is no point to draw.
    """
    points = [point for line in series for point in line.points if math.isfinite(point[1])]
    if not points:
        raise ValueError(f"the chart {title!r} has no finite point to draw")
    x_top = max(x for x, _ in points) or 1
    y_ticks = _ticks(min(0, *(y for _, y in points)), y_max or max(y for _, y in points), cover=True)
    y_low, y_top = y_ticks[0], y_ticks[-1]
    edge, floor = WIDTH - RIGHT, height - BOTTOM

    def across(x: float) -> float:
        return LEFT + (edge - LEFT) * x / x_top

    def up(y: float) -> float:
        return floor - (floor - TOP) * (y - y_low) / (y_top - y_low)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f'<text x="2" y="12">{escape(y_label)}</text>',
        f'<text x="{edge}" y="{height - 4}" text-anchor="end">{escape(x_label)}</text>',
    ]
    for y in y_ticks:
        parts.append(_line("grid", LEFT, edge, up(y), up(y)))
        parts.append(f'<text x="{LEFT - 6}" y="{up(y) + 4:.1f}" text-anchor="end">{_number(y)}</text>')
    parts.append(_line("axis", LEFT, edge, floor, floor))
    for x in _ticks(0, x_top):
        parts.append(_line("axis", across(x), across(x), floor, floor + 4))
        parts.append(f'<text x="{across(x):.1f}" y="{floor + 16}" text-anchor="middle">{_number(x)}</text>')
    for line in series:
        drawn = [(across(x), up(y)) if math.isfinite(y) else None for x, y in line.points]
        parts.append(f'<path class="{_style(line)}" d="{_path(drawn)}"/>')
        if len(drawn) <= MARKED:
            for x, y in filter(None, drawn):
                parts.append(f'<circle class="s{line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>')
    return "".join(parts) + "</svg>" + (_legend(series) if len(series) > 1 else "")


def _legend(series: Sequence[Series]) -> str:
    items = []
    for line in series:
        stroke = f'<path class="{_style(line)}" d="M1 4H25"/>'
        swatch = f'<svg class="swatch" viewBox="0 0 26 8" aria-hidden="true">{stroke}</svg>'
        last = f" <b>{line.points[-1][1]:.3g}</b>" if line.points else ""
        items.append(f"<li>{swatch}{escape(line.label)}{last}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def _style(line: Series) -> str:
    return f"line s{line.colour}" + (" dashed" if line.dashed else "")


def _line(style: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _path(drawn: Sequence[tuple[float, float] | None]) -> str:
    commands, pen = [], "M"
    for point in drawn:
        if point is None:
            pen = "M"
        else:
            commands.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
            pen = "L"
    return "".join(commands)


def _ticks(low: float, high: float, cover: bool = False) -> list[float]:
    """Five to ten round values from low to high; with `cover` the first and last enclose both ends."""
    span = high - low or 1
    unit = 10 ** math.floor(math.log10(span / 4))
    step = unit * max(m for m in (1, 2, 5) if m * unit <= span / 4)
    slack = 1e-9  # 0.3 / 0.1 is not quite 3
    first = math.floor(low / step + slack)
    last = math.ceil((low + span) / step - slack) if cover else math.floor((low + span) / step + slack)
    return [i * step for i in range(first, last + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
