"""The outcome of a curation: what went, why, and on a page with images what stayed in its stead."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ernie_vil2.apps.curation import likeness
from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.apps.curation.step import Shown, Step
from ernie_vil2.data.decoding import decode_image, encode_thumbnail
from ernie_vil2.data.readers import ShardedSource
from ernie_vil2.data.samples import BadSample, BadSampleReport
from ernie_vil2.io.terminal import pluralize
from ernie_vil2.pages import Axis, Chart, Series, Table, make_line_chart, write_page

FILE = "curation.html"
EXAMPLES = 12  # pairs of a reason that are shown
GROUPS, MEMBERS = 8, 6
LEAKS = 24
SIDE = 96  # pixels of an image
LONGEST = 160  # characters of a caption
BINS = 40
LOOKED_AT = 50_000  # pairs that stayed, among which the nearest image is looked for


@dataclass(frozen=True)
class Curation:
    """The outcome for every pair.

    Args:
        pairs: of the source.
        reasons: step, reason and number of the pairs that went, in the order of the steps, the most frequent first.
        kept: pairs that stay.
        drawn: of these, on average over epochs.
        bad: what could not be read.
        facts: what the steps report, by step.
    """

    pairs: int
    reasons: Sequence[tuple[str, str, int]]
    kept: int
    drawn: float
    bad: BadSampleReport
    facts: dict[str, list[str]]

    def __str__(self) -> str:
        rows, left = [("all", ["", f"{self.pairs:,}"])], self.pairs
        for step, reason, count in self.reasons:
            left -= count
            rows.append((f"{step:<18} {reason}", [f"{count:,}", f"{left:,}"]))
        lines = [Table(["went", "left"], rows, min_width=13, has_rule=False).as_text()]
        lines.append(f"{self.kept:,} of {pluralize(self.pairs, 'pair')} stay ({self.kept / max(1, self.pairs):.1%})")
        if round(self.drawn) != self.kept:
            lines.append(f"of them {self.drawn:,.0f} are drawn in an epoch, on average")
        lines += [f"{step}: {fact}" for step, facts in self.facts.items() for fact in facts]
        return "\n".join([*lines, str(self.bad)])


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
        return replace(self._made[sample], note=note)

    def _shot(self, number: int) -> Shot:
        try:
            sample = self._source[number]
        except BadSample as bad:
            return Shot(bad.name)
        caption = " | ".join(sample.captions.values())
        caption = caption[:LONGEST] + "..." * (len(caption) > LONGEST)
        try:
            return Shot(caption, encode_thumbnail(decode_image(sample.image, sample.image_name), SIDE, ".jpg"))
        except BadSample:
            return Shot(caption)


def write_curation_page(
    folder: Path, curation: Curation, joins: Joins, source: ShardedSource, steps: Sequence[Step]
) -> None:
    """Writes the page of what the steps have decided."""
    facts = {
        "pairs": f"{curation.pairs:,}",
        "stay": f"{curation.kept:,} ({curation.kept / max(1, curation.pairs):.1%})",
        "drawn in an epoch": f"{curation.drawn:,.0f}",
        "data": ", ".join(dict.fromkeys(str(Path(shard.name).parent) for shard in source.shards)),
        "steps": ", ".join(step.name for step in steps),
    }
    shots = _Shots(source)
    decided = [row for row in curation.reasons if row[0] in {step.name for step in steps}]
    write_page(
        folder / FILE,
        "curation.html",
        title="Curation",
        summary=_in_a_sentence(curation),
        facts=facts,
        funnel=_funnel(curation),
        notes=joins.facts,
        charts=[chart for step in steps for shown in step.shown() for chart in _histogram(joins, shown)],
        sheets=_sheets(joins, shots, decided),
        groups=_groups(joins, shots),
        leaks=[(shots(leak["sample"]), leak) for leak in joins.figures.get("leaks", [])[:LEAKS]],
        balance=joins.figures.get("balance"),
        bad=curation.bad,
    )


def _in_a_sentence(curation: Curation) -> str:
    """How many pairs stay, and what most of the others went for."""
    sentence = f"{curation.kept:,} of {curation.pairs:,} pairs stay"
    if curation.reasons:
        step, reason, count = max(curation.reasons, key=lambda one: one[2])
        sentence += f"; most of the others, {count:,}, went for {step}: {reason}"
    return f"{sentence}."


def _funnel(curation: Curation) -> list[tuple[str, int, int, float, float]]:
    """Of each reason its name, how many went, how many are left, and both in percent, these first."""
    left = curation.pairs
    rows, percent = [("all", 0, left, 100.0, 0.0)], 100 / max(1, left)
    for step, reason, count in curation.reasons:
        left -= count
        rows.append((f"{step}: {reason}", count, left, percent * left, percent * count))
    return rows


def _histogram(joins: Joins, shown: Shown) -> list[Chart]:
    """The chart of a measure, with its bounds as dashed lines; none if no pair has it."""
    if shown.column in ("score", "cosine_zh", "cosine_en", "cosine_other") and not joins.has(shown.column):
        return []
    low, high = joins.all(
        f"select quantile_cont({shown.column}, 0.005), quantile_cont({shown.column}, 0.99) from readable"  # noqa: S608  -- no text of the data is in it
    )[0]
    if low is None:
        return []
    low, high = float(min([low, *shown.bounds])), float(max([high, *shown.bounds]))
    width = (high - low) / BINS or 1.0
    counts = dict(
        joins.all(
            f"select floor(({shown.column} - {low}) / {width})::int as bin, count(*) from readable "  # noqa: S608  -- no text of the data is in it
            f"where {shown.column} between {low} and {high + width} group by bin"
        )
    )
    points = [(low + (bin_ + 0.5) * width, float(counts.get(bin_, 0))) for bin_ in range(BINS + 1)]
    top = max(count for _, count in points)
    bounds = [
        Series(f"threshold {bound:g}", [(bound, 0.0), (bound, top)], 2, is_dashed=True)
        for bound in shown.bounds
        if low <= bound <= high and math.isfinite(bound)
    ]
    title = shown.title[0].upper() + shown.title[1:]
    series = [Series("pairs", points, 1), *bounds]
    chart = make_line_chart(
        title, "", series, Axis("pairs", has_zero=False), x=Axis(shown.title, has_zero=False), height=190
    )
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
    rows = joins.all(f"select sample, thumbnail[-1] from readable where sample in ({listed}) and thumbnail is not null")  # noqa: S608  -- no text of the data is in it
    if not rows:
        return {}
    own = _vectors([thumbnail for _, thumbnail in rows])
    best, nearest = np.full(len(rows), -2.0), np.full(len(rows), -1)
    some = f"where thumbnail is not null order by hash(sample) limit {LOOKED_AT}"
    query = f"select sample, thumbnail[-1] as thumbnail from alive {some}"  # noqa: S608  -- no text of the data is in it
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
        "select nearest, count(*) from fates where nearest is not null group by nearest "  # noqa: S608  -- no text of the data is in it
        f"order by count(*) desc, nearest limit {GROUPS}"
    )
    found = []
    for kept, count in largest:
        members = joins.all(f"select sample, reason from fates where nearest = {kept} order by sample limit {MEMBERS}")  # noqa: S608  -- no text of the data is in it
        found.append((shots(kept, "stayed"), count, [shots(sample, reason) for sample, reason in members]))
    return found
