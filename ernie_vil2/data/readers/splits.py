"""Divide a source into parts to train on and to score, by a seed, so that no two parts share an image.

They share no caption either, except for very frequent ones (`MAX_CAPTION_SHARE`).
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from ernie_vil2.config import HoldoutConfig
from ernie_vil2.data.readers.columns import IMAGE_KEYS
from ernie_vil2.data.readers.source import ShardedSource, ShardPart, find_field
from ernie_vil2.data.samples import BadSample, Sample, Statement, hash_id, is_blank, text_key
from ernie_vil2.io.progress import progress_bar
from ernie_vil2.io.terminal import make_printable, pluralize, should_show_progress

MAX_CAPTION_SHARE = 0.05
"""Samples with one caption stay together up to this share of all samples. A caption of more samples, such as the name
of a category, says little about each of them, and keeping them together would leave the parts without their shares."""
MAX_SHORTFALL = 0.5
"""Fraction of its share that a part may lack before captions are no longer kept together. Captions can join most
samples step by step (A and B, B and C, ...) although none is frequent. Groups of a few samples lack far less."""
MAX_SHOWN_CHARACTERS = 40  # of a caption in a message


@dataclass(frozen=True)
class Division:
    """A rule that divides a source into parts.

    Attributes:
        shares: share of the samples in each part, by the part's name; they sum to 1.
        group_by: field whose values stay in one part each, such as a product's number. This is the name of
            a sample's field, or the header in the user's table. None: only images and captions are kept together.
        stratify_by: field, such as a category, whose values have about the same share in each part; written
            as `group_by`.
        seed: another seed gives other parts.

    Raises:
        ValueError: a share is not between 0 and 1, or the shares do not sum to 1.
    """

    shares: dict[str, float]
    group_by: str | None = None
    stratify_by: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        shares = list(self.shares.values())
        if not all(0 < share < 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            listing = ", ".join(map("{:g}".format, shares))
            raise ValueError(f"parts of {listing}: shares above 0 that sum to 1")

    def assign_rows(self, source: ShardedSource, quiet: bool = False) -> dict[str, np.ndarray]:
        """Return the numbers of the samples in each part, in order. All samples are read once.

        Samples with the same image, byte for byte, or the same value of `group_by` are in one part. A statement about
        two images counts as a sample of both. Samples with the same caption are in one part too, within the limits of
        `MAX_CAPTION_SHARE` and `MAX_SHORTFALL`. Samples that cannot be read stay in the first part, whose reader
        reports them.

        Args:
            source: samples to divide.
            quiet: do not print that samples lack a value of `group_by`, or that captions are not kept together.

        Raises:
            ValueError: the shards are fetched from elsewhere, no sample has the field, or a part would be empty.
        """
        if source.has_remote_shards:
            raise ValueError(
                "Data.holdout and --parts read every sample of local files before they divide them; these files are "
                "fetched: copy them here, or name data of their own for val and test"
            )
        scan = self._scan(source)
        if self.group_by and scan.groups.num_ungrouped and not quiet:
            count = f"{scan.groups.num_ungrouped:,} of {pluralize(len(source), 'sample')}"
            print(
                f"{count} have no {self.group_by}: only those of one image or caption are kept together",
                file=sys.stderr,
            )

        # Keep equal captions together, except for frequent ones.
        counts: Counter[str] = Counter()
        for captions in scan.captions.values():
            counts.update(captions)
        # 5 % of some numbers are slightly too small as floats.
        max_count = MAX_CAPTION_SHARE * len(source) + 1e-9
        frequent_captions = {caption for caption, count in counts.items() if count > max_count}
        remark = _describe_frequent_captions(counts, frequent_captions, len(source))
        groups_by_caption = scan.groups.copy()
        for row, captions in scan.captions.items():
            for caption in sorted(captions - frequent_captions):
                groups_by_caption.join(row, ("caption", caption))
        rows_by_part = self._assign_groups(groups_by_caption.list_members(), scan.strata)

        # If that joins too many samples, keep equal images and values of `group_by` together only.
        if self._max_shortfall(rows_by_part) > MAX_SHORTFALL:
            rows_without_captions = self._assign_groups(scan.groups.list_members(), scan.strata)
            if self._max_shortfall(rows_without_captions) < self._max_shortfall(rows_by_part):
                rows_by_part = rows_without_captions
                alternative = f" or {self.group_by}" if self.group_by else ""
                remark = (
                    "equal captions join too many samples for parts of these shares: only those of one image"
                    f"{alternative} are kept together"
                )
        if remark and not quiet:
            print(remark, file=sys.stderr)

        # Samples that cannot be read belong to no group.
        first = next(iter(self.shares))
        rows_by_part[first] = sorted([*rows_by_part[first], *scan.unreadable_rows])
        for name, rows in rows_by_part.items():
            if not rows:
                num_groups = len(scan.groups.list_members())
                raise ValueError(
                    f"the part {name} would be empty: {pluralize(len(source), 'sample')} are in "
                    f"{pluralize(num_groups, 'group')} and a group stays in one part; name larger shares, or "
                    "another group_by"
                )
        return {name: np.array(rows, np.int64) for name, rows in rows_by_part.items()}

    def _scan(self, source: ShardedSource) -> "_Scan":
        """Read all samples and collect what decides on their parts."""
        scan = _Scan()
        field_names: dict[int, tuple[str | None, str | None]] = {}  # of group_by and stratify_by in each shard
        fields: dict[str, None] = {}
        progress = progress_bar(range(len(source)), "dividing", unit="sample", delay=2, is_shown=should_show_progress())
        for row in progress:
            try:
                sample = source[row]
            except BadSample:
                scan.unreadable_rows.append(row)
                continue
            number, _ = source.locate(row)
            if number not in field_names:
                shard = source.shards[number]
                field_names[number] = (
                    find_field(shard, self.group_by) if self.group_by else None,
                    find_field(shard, self.stratify_by) if self.stratify_by else None,
                )
                fields |= dict.fromkeys(getattr(shard, "column_names", ()))
            group_field, stratum_field = field_names[number]
            fields |= dict.fromkeys(sample.fields)

            # Parallel texts have no image. Then the name, which differs from row to row, takes its place.
            image = hash_id("" if sample.image else sample.image_name, sample.image)
            scan.groups.add(row, image, _field_value(sample, group_field))
            if isinstance(sample, Statement) and sample.right is not None:
                scan.groups.join(row, ("image", hash_id("", sample.right)))
            scan.strata[row] = _field_value(sample, stratum_field)
            scan.captions[row] = {text_key(text) for text in sample.captions.values() if not is_blank(text)}

        for position, field in enumerate((self.group_by, self.stratify_by)):
            names = {names_of_shard[position] for names_of_shard in field_names.values()}
            if field is not None and names.isdisjoint([*fields, *IMAGE_KEYS]):
                raise ValueError(f"no sample has the field {field}; fields here: {', '.join(fields) or 'none'}")
        return scan

    def _max_shortfall(self, rows_by_part: Mapping[str, Sequence[int]]) -> float:
        """Return the fraction of its share that a part lacks, for the part that lacks most; 1 for an empty part."""
        total = max(1, sum(map(len, rows_by_part.values())))
        return max(1 - len(rows_by_part[name]) / (share * total) for name, share in self.shares.items())

    def _assign_groups(
        self, groups: Sequence[tuple[int, list[int]]], strata: Mapping[int, Hashable]
    ) -> dict[str, list[int]]:
        """Return the rows of each part; the rows of a group are in the stratum of its first row."""
        # The digest gives the groups of a stratum a random order that depends on the seed alone.
        groups_by_stratum: defaultdict[Hashable, list[tuple[bytes, list[int]]]] = defaultdict(list)
        for key, rows in groups:
            groups_by_stratum[strata[rows[0]]].append((self._digest(key), rows))

        names = list(self.shares)
        ends = np.cumsum(list(self.shares.values()))
        rows_by_part: dict[str, list[int]] = {name: [] for name in names}
        for stratum, groups_of_stratum in groups_by_stratum.items():
            # The rows of a stratum, in random order, are spread over the interval [0, 1), which the parts divide. Each
            # stratum begins elsewhere in the interval, so that many small strata together fill all parts.
            begin = int.from_bytes(self._digest(stratum)[:6], "big") / 2**48
            num_rows = sum(len(rows) for _, rows in groups_of_stratum)
            num_assigned = 0
            for _, rows in sorted(groups_of_stratum):
                middle = (begin + (num_assigned + len(rows) / 2) / num_rows) % 1
                part_number = min(int(np.searchsorted(ends, middle, side="right")), len(names) - 1)
                rows_by_part[names[part_number]] += rows
                num_assigned += len(rows)
        return {name: sorted(rows) for name, rows in rows_by_part.items()}

    def _digest(self, key: Hashable) -> bytes:
        return blake2b(f"{self.seed} {key}".encode("utf-8", "backslashreplace"), digest_size=16).digest()


class _Groups:
    """Rows that stay together, because they share an image, a value or a caption (union-find)."""

    def __init__(self) -> None:
        self._parents: dict[int, int] = {}
        self._first_rows: dict[Hashable, int] = {}  # first row with a key
        self._images: dict[int, int] = {}
        self.num_ungrouped = 0  # rows without a value of `group_by`

    def add(self, row: int, image: int, group: Hashable) -> None:
        """Add a row with the number of its image, and its value of `group_by` or None."""
        self._parents[row] = row
        self._images[row] = image
        self.join(row, ("image", image))
        if group is None:
            self.num_ungrouped += 1
        else:
            # The numbers of one table are texts in another one that also has numbers such as A7.
            if isinstance(group, float) and group.is_integer():
                group = int(group)
            self.join(row, ("group", str(group)))

    def join(self, row: int, key: Hashable) -> None:
        """Join the group of a row with the group of other rows which have the same key."""
        self._parents[self._find_root(row)] = self._find_root(self._first_rows.setdefault(key, row))

    def copy(self) -> "_Groups":
        """Return groups that can be joined further; rows are no longer added to either."""
        groups = _Groups()
        groups._parents = dict(self._parents)
        groups._first_rows = dict(self._first_rows)
        groups._images = self._images
        return groups

    def _find_root(self, row: int) -> int:
        while self._parents[row] != row:
            # Shorten the path on the way.
            self._parents[row] = row = self._parents[self._parents[row]]
        return row

    def list_members(self) -> list[tuple[int, list[int]]]:
        """Return for each group a number that does not depend on the order of the rows, and its rows."""
        rows_by_root: defaultdict[int, list[int]] = defaultdict(list)
        for row in self._parents:
            rows_by_root[self._find_root(row)].append(row)
        members: list[tuple[int, list[int]]] = []
        for rows in rows_by_root.values():
            smallest_image = min(map(self._images.__getitem__, rows))
            members.append((smallest_image, sorted(rows)))
        return members


class _Scan:
    """What the samples of a source say about their parts, by row."""

    def __init__(self) -> None:
        self.groups = _Groups()
        self.strata: dict[int, Hashable] = {}
        self.captions: dict[int, set[str]] = {}
        self.unreadable_rows: list[int] = []


def _describe_frequent_captions(counts: Counter[str], captions: Collection[str], num_samples: int) -> str:
    """Return a remark on captions that too many samples have to be kept together; "" if there are none."""
    if not captions:
        return ""
    most_frequent = min(captions, key=lambda caption: (-counts[caption], caption))
    text = most_frequent
    if len(text) > MAX_SHOWN_CHARACTERS:
        text = f"{text[:MAX_SHOWN_CHARACTERS]}..."
    subject = f'the caption "{make_printable(text)}" ({counts[most_frequent]:,} of {pluralize(num_samples, "sample")})'
    if len(captions) > 1:
        subject += f", and {pluralize(len(captions) - 1, 'other caption')},"
    return (
        f"{subject} is that of more than {MAX_CAPTION_SHARE:.0%} of the samples, so that several parts may have it; "
        "those of any other caption stay together"
    )


def _field_value(sample: Sample, field: str | None) -> Hashable:
    if field is None:
        return None
    # A table's column of image files is not a field of its samples; their image name holds it.
    value = sample.image_name if field in IMAGE_KEYS and field not in sample.fields else sample.fields.get(field)
    # NaN, by which pandas marks what is missing, is unequal to itself: every row would be a stratum of its own. Rows of
    # blank texts, in JSON and Parquet, would be one group.
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return None
    return value if isinstance(value, str | int | float) else str(value)


class Part(NamedTuple):
    """A part of a division, by its name."""

    division: Division
    name: str

    def select(self, source: ShardedSource) -> ShardedSource:
        """Return the samples of the part as a source; raise as `Division.assign_rows` does."""
        # Remarks on the division are printed once, with its first part.
        is_first = self.name == next(iter(self.division.shares))
        rows = self.division.assign_rows(source, quiet=not is_first)
        return select_rows(source, rows[self.name])


def make_holdout_part(holdout: HoldoutConfig, name: str) -> Part:
    """Return the part of `Data.holdout` that is called train, val or test."""
    return Part(Division(holdout.shares, holdout.group_by, holdout.stratify_by, holdout.seed), name)


def select_rows(source: ShardedSource, rows: np.ndarray) -> ShardedSource:
    """Return the samples with these numbers, which are sorted, as a source of the shards that have some of them."""
    starts = np.append(0, np.cumsum(source.shard_sizes))
    bounds = np.searchsorted(rows, starts)
    shards = []
    for number, shard in enumerate(source.shards):
        first, last = bounds[number], bounds[number + 1]
        if first < last:
            shards.append(ShardPart(shard, rows[first:last] - starts[number]))
    return ShardedSource(shards)
