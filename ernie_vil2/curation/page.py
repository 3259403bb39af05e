"""The page of a curation: what went, why, and what stayed in its stead, with images."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ernie_vil2.curation import likeness
from ernie_vil2.curation.joins import Joins
from ernie_vil2.curation.step import Shown, Step
from ernie_vil2.data.decoding import decode_image, small_file
from ernie_vil2.data.readers import ShardedSource
from ernie_vil2.data.samples import BadSample, BadSampleReport
from ernie_vil2.pages import Chart, Series, line_chart, write_page

FILE = "curation.html"
EXAMPLES = 12  # pairs of a reason that are shown
GROUPS, MEMBERS = 8, 6
LEAKS = 24
SIDE = 96  # pixels of an image
LONGEST = 160  # characters of a caption
BINS = 40
LOOKED_AT = 50_000  # pairs that stayed, among which the nearest image is looked for


@dataclass(frozen=True)
class Shot:
    """A pair as it is shown: its image as JPEG, if it can be read, its caption, and a note."""

    caption: str
    image: bytes | None = None
    note: str = ""


@dataclass(frozen=True)
class Sheet:
    """Pairs that went for a reason, each with the nearest that stayed, if one is known."""

    step: str
    reason: str
    pairs: int
    shots: Sequence[tuple[Shot, Shot | None]] = field(default_factory=list)


class _Shots:
    """Shots of a source's samples, each made once."""

    def __init__(self, source: ShardedSource):
        self._source = source
        self._made: dict[int, Shot] = {}

    def __call__(self, sample: int, note: str = "") -> Shot:
        if sample not in self._made:
            self._made[sample] = self._shot(sample)
        found = self._made[sample]
        return Shot(found.caption, found.image, note) if note else found

    def _shot(self, number: int) -> Shot:
        try:
            sample = self._source[number]
        except BadSample as bad:
            return Shot(bad.name)
        caption = " | ".join(sample.captions.values())
        caption = caption[:LONGEST] + "..." * (len(caption) > LONGEST)
        try:
            return Shot(caption, small_file(decode_image(sample.image, sample.image_name), SIDE, ".jpg"))
        except BadSample:
            return Shot(caption)


def write_curation_page(
    folder: Path,
    joins: Joins,
    source: ShardedSource,
    steps: Sequence[Step],
    reasons: Sequence[tuple[str, str, int]],
    facts: dict[str, str],
    bad: BadSampleReport,
) -> Path:
    """Writes the page of what the steps have decided.

    Args:
        folder: of the table.
        reasons: step, reason and number of the pairs that went, in order.
        facts: at the head of the page, by name.
        bad: what could not be read.
    """
    shots = _Shots(source)
    decided = [(step, reason, count) for step, reason, count in reasons if step in {one.name for one in steps}]
    write_page(
        folder / FILE,
        "curation.html",
        title="Curation",
        summary=_in_a_sentence(len(source), reasons),
        facts=facts,
        funnel=_funnel(len(source), reasons),
        notes=joins.facts,
        charts=[chart for step in steps for shown in step.shown() for chart in _histogram(joins, shown)],
        sheets=_sheets(joins, shots, decided),
        groups=_groups(joins, shots),
        leaks=[(shots(leak["sample"]), leak) for leak in joins.figures.get("leaks", [])[:LEAKS]],
        balance=joins.figures.get("balance"),
        bad=bad,
    )
    return folder / FILE


def _in_a_sentence(pairs: int, reasons: Sequence[tuple[str, str, int]]) -> str:
    """How many pairs stay, and what most of the others went for."""
    stay = pairs - sum(count for _, _, count in reasons)
    sentence = f"{stay:,} of {pairs:,} pairs stay"
    if reasons:
        step, reason, count = max(reasons, key=lambda one: one[2])
        sentence += f"; most of the others, {count:,}, went for {step}: {reason}"
    return f"{sentence}."


def _funnel(pairs: int, reasons: Iterable[tuple[str, str, int]]) -> list[tuple[str, int, int, float, float]]:
    """Of each reason its name, how many went, how many are left, and both in percent, these first."""
    rows, left = [("all", 0, pairs, 100.0, 0.0)], pairs
    for step, reason, count in reasons:
        left -= count
        rows.append((f"{step}: {reason}", count, left, 100 * left / max(1, pairs), 100 * count / max(1, pairs)))
    return rows


def _histogram(joins: Joins, shown: Shown) -> list[Chart]:
    """The chart of a measure, with its bounds as dashed lines; none if no pair has it."""
    if shown.column in ("score", "cosine_zh", "cosine_en", "cosine_other") and not joins.has(shown.column):
        return []
    low, high = joins.all(
        f"select quantile_cont({shown.column}, 0.005), quantile_cont({shown.column}, 0.99) from readable"
    )[0]
    if low is None:
        return []
    low, high = float(min([low, *shown.bounds])), float(max([high, *shown.bounds]))
    width = (high - low) / BINS or 1.0
    counts = dict(
        joins.all(
            f"select floor(({shown.column} - {low}) / {width})::int as bin, count(*) from readable "
            f"where {shown.column} between {low} and {high + width} group by bin"
        )
    )
    points = [(low + (bin_ + 0.5) * width, float(counts.get(bin_, 0))) for bin_ in range(BINS + 1)]
    top = max(count for _, count in points)
    bounds = [
        Series(f"threshold {bound:g}", [(bound, 0.0), (bound, top)], 2, dashed=True)
        for bound in shown.bounds
        if low <= bound <= high and math.isfinite(bound)
    ]
    title = shown.title[0].upper() + shown.title[1:]
    series = [Series("pairs", points, 1), *bounds]
    chart = line_chart(title, "", series, x_label=shown.title, y_label="pairs", height=190, from_zero=False)
    return [replace(chart, lines=[replace(line, last="") for line in chart.lines])]  # the last bin says nothing


def _sheets(joins: Joins, shots: _Shots, reasons: Sequence[tuple[str, str, int]]) -> list[Sheet]:
    """Some pairs of each reason, spread over the source, in the order of their numbers."""
    chosen = {
        (step, reason): joins.all(
            "select sample, nearest from fates where step = ? and reason = ? order by hash(sample) limit ?",
            [step, reason, EXAMPLES],
        )
        for step, reason, _ in reasons
    }
    alone = [sample for rows in chosen.values() for sample, nearest in rows if nearest is None]
    nearest_of = _nearest(joins, alone)
    sheets = []
    for step, reason, count in reasons:
        rows = []
        for sample, nearest in sorted(chosen[step, reason]):
            other = nearest_of.get(sample) if nearest is None else nearest
            note = "nearest that stayed" if nearest is None else "stayed"
            rows.append((shots(sample), None if other is None else shots(other, note)))
        sheets.append(Sheet(step, reason, count, rows))
    return sheets


def _nearest(joins: Joins, samples: Sequence[int]) -> dict[int, int]:
    """For pairs that went the one whose image is nearest, of those that stayed, where thumbnails were made."""
    if not samples or not joins.has("thumbnail"):
        return {}
    listed = ", ".join(map(str, samples))
    rows = joins.all(f"select sample, thumbnail[-1] from readable where sample in ({listed}) and thumbnail is not null")
    if not rows:
        return {}
    own = _vectors([thumbnail for _, thumbnail in rows])
    best, nearest = np.full(len(rows), -2.0), np.full(len(rows), -1)
    some = f"where thumbnail is not null order by hash(sample) limit {LOOKED_AT}"
    query = f"select sample, thumbnail[-1] as thumbnail from alive {some}"
    for batch in joins.rows(query):
        cosines = own @ _vectors(batch["thumbnail"].to_pylist()).T
        first = cosines.argmax(axis=1)
        value = cosines[np.arange(len(rows)), first]
        better = value > best
        nearest[better], best[better] = batch["sample"].to_numpy()[first[better]], value[better]
    return {sample: int(other) for (sample, _), other in zip(rows, nearest, strict=True) if other >= 0}


def _vectors(thumbnails: Sequence[bytes]) -> np.ndarray:
    return likeness.vectors(np.frombuffer(b"".join(thumbnails), np.uint8).reshape(len(thumbnails), -1))


def _groups(joins: Joins, shots: _Shots) -> list[tuple[Shot, int, list[Shot]]]:
    """The largest groups of duplicates: what stayed, how many went for it, and some of these."""
    largest = joins.all(
        "select nearest, count(*) from fates where nearest is not null group by nearest "
        f"order by count(*) desc, nearest limit {GROUPS}"
    )
    found = []
    for kept, count in largest:
        members = joins.all(f"select sample, reason from fates where nearest = {kept} order by sample limit {MEMBERS}")
        found.append((shots(kept, "stayed"), count, [shots(sample, reason) for sample, reason in members]))
    return found
