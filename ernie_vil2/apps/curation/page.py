"""Outcome of a curation as text and as a page: what was removed, why, and what stayed in its place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.apps.curation.step import UNREADABLE, Histogram, Step
from ernie_vil2.data.decoding import decode_image, encode_thumbnail
from ernie_vil2.data.readers import ShardedSource
from ernie_vil2.data.readers.locations import PIPE
from ernie_vil2.data.samples import BadSample, BadSampleReport, Sample
from ernie_vil2.data.selection import CUT_CAPTIONS
from ernie_vil2.io.terminal import pluralize
from ernie_vil2.pages import Axis, Chart, Series, Table, make_line_chart, write_page

FILE = "curation.html"
# Images are embedded in the page. These limits bound it to a few hundred of them, of a few kilobytes each.
NUM_EXAMPLES = 12  # pairs per reason
NUM_GROUPS = 8  # largest groups of duplicates
NUM_MEMBERS = 6  # removed pairs per group
NUM_LEAKS = 24
NUM_CUT = 24  # pairs with cut captions
MAX_UNCUT = 40  # characters before the first cut of a caption; a card has lines for some 75
NUM_FOLDERS = 12  # of the data; partitioned tables have thousands
IMAGE_SIDE = 96  # pixels of the longer side
MAX_CAPTION = 160  # characters
CAPTION_SEPARATOR = " | "  # between the captions of a pair
NUM_BINS = 40  # of a histogram, about as many as its width can tell apart


class RemovalCount(NamedTuple):
    """Number of pairs that a step removed for a reason."""

    step: str
    reason: str
    num_pairs: int


@dataclass(frozen=True)
class Curation:
    """Outcome for all pairs.

    Args:
        num_pairs: number of pairs of the source.
        removals: counts of removed pairs, in the order of the steps, and within a step the most frequent first.
        num_kept: number of pairs that stay.
        mean_drawn: mean number of these that an epoch draws.
        bad_samples: pairs that could not be read.
        facts: sentences that the steps report, by step.
    """

    num_pairs: int
    removals: Sequence[RemovalCount]
    num_kept: int
    mean_drawn: float
    bad_samples: BadSampleReport
    facts: dict[str, list[str]]

    @property
    def kept_share(self) -> float:
        """Share of pairs that stay, 0 of an empty source."""
        return self.num_kept / max(1, self.num_pairs)

    def __str__(self) -> str:
        num_left = self.num_pairs
        rows = [("all", ["", f"{num_left:,}"])]
        for removal in self.removals:
            num_left -= removal.num_pairs
            rows.append((f"{removal.step:<18} {removal.reason}", [f"{removal.num_pairs:,}", f"{num_left:,}"]))
        lines = [Table(["removed", "left"], rows, min_width=13, has_rule=False).as_text()]
        lines.append(f"{self.num_kept:,} of {pluralize(self.num_pairs, 'pair')} stay ({self.kept_share:.1%})")
        if round(self.mean_drawn) != self.num_kept:
            lines.append(f"an epoch draws {self.mean_drawn:,.0f} of them on average")
        for step, facts in self.facts.items():
            lines += [f"{step}: {fact}" for fact in facts]
        return "\n".join([*lines, str(self.bad_samples)])


@dataclass(frozen=True)
class PairCard:
    """A pair on the page.

    Args:
        caption: beginning of its captions, or its name if it cannot be read.
        image: JPEG file; None if the image cannot be read.
        note: line above the caption, such as "stayed".
    """

    caption: str
    image: bytes | None = None
    note: str = ""


@dataclass(frozen=True)
class Example:
    """A removed pair.

    Args:
        removed: the pair.
        staying: the pair that stayed in its place; None if it is no duplicate.
        decided: what decided, such as a measure and its threshold; empty if a step does not say.
    """

    removed: PairCard
    staying: PairCard | None
    decided: str


@dataclass(frozen=True)
class Sheet:
    """Examples of pairs that a step removed for a reason.

    Args:
        step: name of the step.
        reason: the reason.
        num_pairs: number of all pairs that were removed for it.
        examples: some of these pairs.
    """

    step: str
    reason: str
    num_pairs: int
    examples: Sequence[Example]


class _CardMaker:
    """Cards of a source's samples; each image is decoded once."""

    def __init__(self, source: ShardedSource):
        self._source = source
        self._cards: dict[int, PairCard] = {}

    def make_card(self, sample: int, note: str = "") -> PairCard:
        if sample not in self._cards:
            self._cards[sample] = self._read_card(sample)
        return replace(self._cards[sample], note=note)

    def read_caption(self, sample: int) -> str:
        """Return all captions of a sample in full, or its name if it cannot be read."""
        try:
            return _join_captions(self._source[sample])
        except BadSample as bad:
            return bad.name

    def _read_card(self, number: int) -> PairCard:
        try:
            sample = self._source[number]
            caption = _shorten(_join_captions(sample))
        except BadSample as bad:
            return PairCard(_shorten(bad.name))
        try:
            pixels = decode_image(sample.image, sample.image_name)
        except BadSample:
            return PairCard(caption)
        return PairCard(caption, encode_thumbnail(pixels, IMAGE_SIDE, ".jpg"))


def _join_captions(sample: Sample) -> str:
    return CAPTION_SEPARATOR.join(sample.readable_captions().values())


def _shorten(caption: str) -> str:
    return caption if len(caption) <= MAX_CAPTION else f"{caption[:MAX_CAPTION]}..."


def write_curation_page(
    folder: Path, curation: Curation, joins: Joins, source: ShardedSource, steps: Sequence[Step]
) -> None:
    """Write the page of a decided curation into a folder."""
    cards = _CardMaker(source)
    facts = {
        "pairs": f"{curation.num_pairs:,}",
        "stay": f"{curation.num_kept:,} ({curation.kept_share:.1%})",
        "drawn in an epoch": f"{curation.mean_drawn:,.0f}",
        "data": _list_folders([shard.name for shard in source.shards]),
        "steps": ", ".join(step.name for step in steps),
    }
    charts = []
    for step in steps:
        for histogram in step.histograms():
            charts += _draw_histogram(joins, histogram)
    leaks = joins.figures.get("leaks", [])[:NUM_LEAKS]
    write_page(
        folder / FILE,
        "curation.html",
        title="Curation",
        summary=_summarize(curation),
        facts=facts,
        funnel=_make_funnel(curation),
        notes=joins.facts,
        charts=charts,
        sheets=_make_sheets(joins, cards, curation, steps),
        num_cut=_count_cut_pairs(joins),
        cuts=_make_cut_cards(joins, cards),
        groups=_find_largest_groups(joins, cards),
        leaks=[(cards.make_card(leak["sample"]), leak) for leak in leaks],
        balance=joins.figures.get("balance"),
        bad=curation.bad_samples,
    )


def _list_folders(names: Iterable[str]) -> str:
    """Return the first folders of shards, and how many more there are; of a command the command itself."""
    folders = dict[str, None]()
    for name in names:
        if name.startswith(PIPE):
            folder = _shorten(name)
        elif "://" in name:
            # A query may hold a key, and the page is shown to others.
            scheme, _, path = name.partition("?")[0].partition("://")
            folder = f"{scheme}://{path.rpartition('/')[0]}"
        else:
            folder = str(Path(name).parent)
        folders[folder] = None
    texts = list(islice(folders, NUM_FOLDERS))
    if len(folders) > NUM_FOLDERS:
        texts.append(f"and {len(folders) - NUM_FOLDERS:,} more")
    return ", ".join(texts)


def _summarize(curation: Curation) -> str:
    """Say how many pairs stay, and the most frequent reason why others do not."""
    sentence = f"{curation.num_kept:,} of {curation.num_pairs:,} pairs stay"
    if curation.removals:
        largest = max(curation.removals, key=lambda removal: removal.num_pairs)
        num_others = curation.num_pairs - curation.num_kept
        share = f"{largest.num_pairs:,} of the {num_others:,} others" if num_others > 1 else "the other one"
        if largest.step == UNREADABLE:
            sentence += f"; {share} could not be read: {largest.reason}"
        else:
            sentence += f"; {largest.step} removed {share}: {largest.reason}"
    return f"{sentence}."


def _make_funnel(curation: Curation) -> list[tuple[str, int, int, float, float]]:
    """Return for each reason its name, the numbers of removed and remaining pairs, and the remaining and removed %."""
    percent = 100 / max(1, curation.num_pairs)
    num_left = curation.num_pairs
    rows = [("all", 0, num_left, 100.0, 0.0)]
    for step, reason, num_removed in curation.removals:
        num_left -= num_removed
        rows.append((f"{step}: {reason}", num_removed, num_left, percent * num_left, percent * num_removed))
    return rows


def _draw_histogram(joins: Joins, histogram: Histogram) -> list[Chart]:
    """Return the chart of a measure, or none if no pair has the measure."""
    column, bounds = histogram.column, histogram.bounds
    if column in ("score", "cosine_zh", "cosine_en", "cosine_other") and not joins.has_column(column):
        return []

    # A few extreme values would squeeze all others into one bin, so the range ends at quantiles, or at the thresholds.
    low, high, kind = joins.fetch_all(
        f"select quantile_cont({column}, 0.005), quantile_cont({column}, 0.99), any_value(typeof({column})) "  # noqa: S608  -- no text of the data is in it
        f"from readable where isfinite({column}::double)"
    )[0]
    if low is None:
        return []
    low, high = float(min([low, *bounds])), float(max([high, *bounds]))
    width = (high - low) / NUM_BINS or 1.0
    centre = 0.5 * width
    if kind.endswith("INT") or kind == "INTEGER":
        # Bins of whole words or pixels hold equally many values each; others would leave gaps.
        low, width = float(math.floor(low)), float(max(1, math.ceil(width)))
        centre = (width - 1) / 2
    num_bins = math.ceil((high - low) / width)

    # The bin after the last one holds values that are equal to `high`, and a few above it.
    rows = joins.fetch_all(
        f"select floor(({column} - {low}) / {width})::int as bin, count(*) from readable "  # noqa: S608  -- no text of the data is in it
        f"where {column} between {low} and {high + width} group by bin"
    )
    counts = dict(rows)
    points = [(low + number * width + centre, float(counts.get(number, 0))) for number in range(num_bins + 1)]

    top = max(count for _, count in points)
    series = [Series("pairs", points, 1)]
    for bound in bounds:
        if math.isfinite(bound):  # a bound that is finite lies between low and high
            series.append(Series(f"threshold {bound:g}", [(bound, 0.0), (bound, top)], 2, is_dashed=True))
    title = histogram.title[0].upper() + histogram.title[1:]
    x_axis = Axis(histogram.title, has_zero=False)
    chart = make_line_chart(title, "", series, Axis("pairs", has_zero=False), x=x_axis, height=190)
    # A line's label names its last value, and the count of the last bin tells nobody anything.
    return [replace(chart, lines=[replace(line, last="") for line in chart.lines])]


def _make_sheets(joins: Joins, cards: _CardMaker, curation: Curation, steps: Sequence[Step]) -> list[Sheet]:
    """Return examples of each reason, spread over the source, in the order of their numbers."""
    step_by_name = {step.name: step for step in steps}
    sheets = []
    for removal in curation.removals:
        if removal.step == UNREADABLE:
            continue
        # An order by hash spreads the examples over the source, and is the same in every run.
        rows = joins.fetch_all(
            "select chosen.sample, chosen.nearest, chosen.advantage, later.reason "  # noqa: S608  -- no text of the data is in it
            f"from ({joins.explain_removals()}) chosen left join removals later on later.sample = chosen.nearest "
            "where chosen.step = ? and chosen.reason = ? order by hash(chosen.sample) limit ?",
            [removal.step, removal.reason, NUM_EXAMPLES],
        )
        decided = step_by_name[removal.step].explain(joins, removal.reason, [row[0] for row in rows])
        examples = []
        for sample, nearest, advantage, later_reason in sorted(rows):
            staying = None
            if nearest is not None:
                staying = cards.make_card(nearest, _describe_staying(later_reason, advantage))
            removed = cards.make_card(sample, "" if nearest is None else "removed")
            examples.append(Example(removed, staying, _shorten(decided.get(sample, ""))))
        sheets.append(Sheet(removal.step, removal.reason, removal.num_pairs, examples))
    return sheets


def _describe_staying(later_reason: str | None, advantage: str = "") -> str:
    """Return the note of a pair that stayed in the place of others.

    Args:
        later_reason: reason why a later step removed the pair; None if it has stayed.
        advantage: what it has over the other, in words.
    """
    note = "stayed" if later_reason is None else "stayed at first"
    if advantage:
        note += f": {advantage}"
    return note if later_reason is None else f"{note}; removed later: {later_reason}"


def _count_cut_pairs(joins: Joins) -> int:
    """Return the number of pairs that stay and of whose captions something was cut off."""
    if not joins.has_column(CUT_CAPTIONS):
        return 0
    return joins.fetch_all(f"select count(*) from alive where {CUT_CAPTIONS} is not null")[0][0]  # noqa: S608  -- no text of the data is in it


def _make_cut_cards(joins: Joins, cards: _CardMaker) -> list[PairCard]:
    """Return examples of pairs with cut captions: the caption as it is now, and as a note what it was before."""
    if not joins.has_column(CUT_CAPTIONS):
        return []
    rows = joins.fetch_all(
        f"select sample, {CUT_CAPTIONS} from alive where {CUT_CAPTIONS} is not null "  # noqa: S608  -- no text of the data is in it
        f"order by hash(sample) limit {NUM_CUT}"
    )
    cut_cards = []
    for sample, captions in sorted(rows):
        full_caption, cut_caption = cards.read_caption(sample), CAPTION_SEPARATOR.join(captions)
        # Most cuts are at the end, so the beginning of a long caption is left out.
        start = max(0, _count_common(full_caption, cut_caption) - MAX_UNCUT)
        ellipsis = "..." if start else ""
        caption, note = ellipsis + _shorten(cut_caption[start:]), f"was: {ellipsis}{_shorten(full_caption[start:])}"
        cut_cards.append(replace(cards.make_card(sample), caption=caption, note=note))
    return cut_cards


def _count_common(first: str, second: str) -> int:
    """Return the number of characters at the beginning of two texts that are the same."""
    for number, (character, other_character) in enumerate(zip(first, second, strict=False)):
        if character != other_character:
            return number
    return min(len(first), len(second))


def _find_largest_groups(joins: Joins, cards: _CardMaker) -> list[tuple[PairCard, int, list[PairCard]]]:
    """Return the largest groups of duplicates: the pair that stayed, the number of removed pairs, and some of these."""
    largest = joins.fetch_all(
        "select sizes.nearest, sizes.num_removed, later.reason from "  # noqa: S608  -- no text of the data is in it
        "(select nearest, count(*) as num_removed from removals where nearest is not null group by nearest) sizes "
        "left join removals later on later.sample = sizes.nearest "
        f"order by sizes.num_removed desc, sizes.nearest limit {NUM_GROUPS}"
    )
    groups = []
    for representative, count, later_reason in largest:
        rows = joins.fetch_all(
            f"select sample, reason from removals where nearest = {representative} order by sample limit {NUM_MEMBERS}"  # noqa: S608  -- no text of the data is in it
        )
        members = [cards.make_card(sample, reason) for sample, reason in rows]
        groups.append((cards.make_card(representative, _describe_staying(later_reason)), count, members))
    return groups
