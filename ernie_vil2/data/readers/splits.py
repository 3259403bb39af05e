"""A source divided into parts, to train on and to score: by a seed, and so that two parts share no image.

They share no caption either, but for the most frequent ones (`MOST_OF_A_CAPTION`).
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ernie_vil2.config import HoldoutConfig
from ernie_vil2.data.readers.columns import IMAGE_KEYS
from ernie_vil2.data.readers.source import Shard, ShardedSource
from ernie_vil2.data.samples import BadSample, Sample, content_id, is_blank, text_key
from ernie_vil2.io.terminal import counted, printable, shows_progress

MOST_OF_A_CAPTION = 0.05
"""Share of the samples up to which those of one caption are kept together. What more samples have in common says little
of each, as the name of a category, and one group of them would leave the parts without their shares."""
MOST_LACKING = 0.5
"""Fraction of its share that a part may lack while captions are kept together: they may join most samples step by step,
those of A and B, of B and C and so on, although none of them is frequent. Groups of a few samples lack far less."""
SHOWN_LETTERS = 40  # of a caption in a message


@dataclass(frozen=True)
class Division:
    """How a source is divided.

    Attributes:
        parts: by name their shares, which sum to 1.
        group_by: field of which no value is in two parts, as an article's number, by its name or by the header of the
            user's table; None: images and captions alone are kept together.
        stratify_by: likewise a field of whose values each part has about the same share, as a category.
        seed: another one divides otherwise.

    Raises:
        ValueError: a share is not between 0 and 1, or they do not sum to 1.
    """

    parts: dict[str, float]
    group_by: str | None = None
    stratify_by: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        shares = list(self.parts.values())
        if not all(0 < share < 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(f"parts of {', '.join(f'{share:g}' for share in shares)}: shares above 0 that sum to 1")

    def rows(self, source: ShardedSource, quiet: bool = False) -> dict[str, np.ndarray]:
        """Return the samples of every part by their numbers, in order. All samples are read once.

        Samples of one image, byte for byte, or of one value of `group_by` are in one part, and those of one caption as
        far as `MOST_OF_A_CAPTION` and `MOST_LACKING` say. What cannot be read stays in the first part, where it is
        reported.

        Args:
            source: what is divided.
            quiet: whether nothing is printed of samples that lack a value of `group_by`, and of captions that are not
                kept together.

        Raises:
            ValueError: its shards are fetched from elsewhere, no sample has the field, or a part would be empty.
        """
        if source.fetches:
            raise ValueError(
                "Data.holdout and --parts divide files that lie here, of which they read every sample first; these are "
                "fetched: copy them here, or name data of their own for val and test"
            )
        groups = _Groups()
        names_of_shards: dict[int, tuple[str | None, str | None]] = {}
        strata: dict[int, Hashable] = {}
        captions_of: dict[int, set[str]] = {}
        unusable, fields = list[int](), dict[str, None]()
        rows = tqdm(
            range(len(source)), "dividing", unit="sample", delay=2, file=sys.stdout, disable=not shows_progress()
        )
        for row in rows:
            try:
                sample = source[row]
            except BadSample:
                unusable.append(row)
                continue
            number, _ = source.locate(row)
            if number not in names_of_shards:
                shard = source.shards[number]
                names_of_shards[number] = _field_name(shard, self.group_by), _field_name(shard, self.stratify_by)
                fields |= dict.fromkeys(getattr(shard, "column_names", ()))
            group_field, stratum_field = names_of_shards[number]
            fields |= dict.fromkeys(sample.fields)
            # Parallel texts have no image: each row is one of its own.
            image = content_id("" if sample.image else sample.image_name, sample.image)
            groups.add(row, image, _value(sample, group_field))
            strata[row] = _value(sample, stratum_field)
            captions_of[row] = {text_key(text) for text in sample.captions.values() if not is_blank(text)}
        for position, given in enumerate((self.group_by, self.stratify_by)):
            names = [names_here[position] for names_here in names_of_shards.values()]
            if given is not None and not any(name in fields or name in IMAGE_KEYS for name in names):
                raise ValueError(f"no sample has the field {given}; fields here: {', '.join(fields) or 'none'}")
        if self.group_by and groups.ungrouped and not quiet:
            some = f"{groups.ungrouped:,} of {counted(len(source), 'sample')} have no {self.group_by}"
            print(f"{some}: only those of one image or caption are kept together", file=sys.stderr)

        counts = Counter(caption for captions in captions_of.values() for caption in captions)
        most = MOST_OF_A_CAPTION * len(source) + 1e-9  # as floats, 5 % of some numbers are a bit less than they are
        frequent = {caption for caption, count in counts.items() if count > most}
        with_captions = groups.joined(
            (row, caption) for row, captions in captions_of.items() for caption in sorted(captions - frequent)
        )
        remark = _remark_on_frequent(counts, frequent, len(source))
        chosen = self._assigned(with_captions.members(), strata)
        if self._shortfall(chosen) > MOST_LACKING:
            without_captions = self._assigned(groups.members(), strata)
            if self._shortfall(without_captions) < self._shortfall(chosen):
                chosen = without_captions
                remark = (
                    "equal captions join too many samples for parts of these shares: only those of one image"
                    f"{f' or {self.group_by}' if self.group_by else ''} are kept together"
                )
        if remark and not quiet:
            print(remark, file=sys.stderr)

        first = next(iter(self.parts))
        chosen[first] = sorted([*chosen[first], *unusable])
        for name, members in chosen.items():
            if not members:
                what = f"{counted(len(source), 'sample')} are in {counted(len(groups.members()), 'group')}"
                raise ValueError(
                    f"the part {name} would be empty: {what} of which each stays in one part; name larger shares, or "
                    "another group_by"
                )
        return {name: np.array(members, np.int64) for name, members in chosen.items()}

    def _shortfall(self, chosen: Mapping[str, Sequence[int]]) -> float:
        """Return which fraction of its share the part lacks that is furthest from it: 1 of an empty part."""
        total = max(1, sum(map(len, chosen.values())))
        return max(1 - len(chosen[name]) / (share * total) for name, share in self.parts.items())

    def _assigned(self, groups: list[tuple[int, list[int]]], strata: dict[int, Hashable]) -> dict[str, list[int]]:
        by_stratum: defaultdict[Hashable, list[tuple[bytes, list[int]]]] = defaultdict(list)
        for key, members in groups:
            by_stratum[strata[members[0]]].append((self._digest(key), members))
        ends, names = np.cumsum(list(self.parts.values())), list(self.parts)
        chosen: dict[str, list[int]] = {name: [] for name in names}
        for stratum, ordered in by_stratum.items():
            total, done = sum(len(members) for _, members in ordered), 0
            # Where the parts begin in a stratum differs from one to the next, so that small ones fill all parts.
            begin = int.from_bytes(self._digest(stratum)[:6], "big") / 2**48
            for _, members in sorted(ordered):
                middle = (begin + (done + len(members) / 2) / total) % 1
                part = min(int(np.searchsorted(ends, middle, side="right")), len(names) - 1)
                chosen[names[part]] += members
                done += len(members)
        return {name: sorted(members) for name, members in chosen.items()}

    def _digest(self, key: Hashable) -> bytes:
        return blake2b(f"{self.seed} {key}".encode("utf-8", "backslashreplace"), digest_size=16).digest()


class _Groups:
    """Rows that stay together: joined by what they have in common, step by step (union-find)."""

    def __init__(self) -> None:
        self._parents: dict[int, int] = {}
        self._first: dict[Hashable, int] = {}
        self._images: dict[int, int] = {}
        self.ungrouped = 0

    def add(self, row: int, image: int, group: Hashable) -> None:
        self._parents[row], self._images[row] = row, image
        self.ungrouped += group is None
        for key in [("image", image), *([("group", group)] if group is not None else [])]:
            self._join(row, key)

    def joined(self, captions: Iterable[tuple[int, str]]) -> "_Groups":
        """Return the groups with the rows of each caption together as well."""
        copy = _Groups()
        copy._parents, copy._first, copy._images = dict(self._parents), dict(self._first), self._images
        for row, caption in captions:
            copy._join(row, ("caption", caption))
        return copy

    def _join(self, row: int, key: Hashable) -> None:
        self._parents[self._root(row)] = self._root(self._first.setdefault(key, row))

    def _root(self, row: int) -> int:
        while self._parents[row] != row:
            self._parents[row] = row = self._parents[self._parents[row]]
        return row

    def members(self) -> list[tuple[int, list[int]]]:
        """Each group's rows, behind a number that is its own whatever the order of the rows."""
        found: defaultdict[int, list[int]] = defaultdict(list)
        for row in self._parents:
            found[self._root(row)].append(row)
        return [(min(self._images[row] for row in rows), sorted(rows)) for rows in found.values()]


def _remark_on_frequent(counts: Counter[str], frequent: Iterable[str], samples: int) -> str:
    """Return a line for people on captions that too many samples have to be kept together, "" if there are none."""
    most_frequent = sorted(frequent, key=lambda caption: (-counts[caption], caption))
    if not most_frequent:
        return ""
    caption = most_frequent[0]
    text = printable(caption if len(caption) <= SHOWN_LETTERS else f"{caption[:SHOWN_LETTERS]}...")
    others = f", and {counted(len(most_frequent) - 1, 'other caption')}," if len(most_frequent) > 1 else ""
    return (
        f'the caption "{text}" ({counts[caption]:,} of {counted(samples, "sample")}){others} is that of more than '
        f"{MOST_OF_A_CAPTION:.0%} of the samples, so that several parts may have it; those of any other caption stay "
        "together"
    )


def _field_name(shard: Shard, field: str | None) -> str | None:
    """Return the name here of a field that is named as in the table of a shard, if it is one."""
    return shard.field_name(field) if field is not None and hasattr(shard, "field_name") else field


def _value(sample: Sample, field: str | None) -> Hashable:
    if field is None:
        return None
    value = sample.image_name if field in IMAGE_KEYS and field not in sample.fields else sample.fields.get(field)
    return value if value is None or isinstance(value, str | int | float) else str(value)


class PartOfShard:
    """Some rows of a shard."""

    def __init__(self, shard: Shard, rows: np.ndarray):
        self._shard, self._rows = shard, rows
        self.name: str = shard.name
        self.files: Sequence[Path] = shard.files
        self.release = shard.release
        if hasattr(shard, "image_name"):
            self.image_name = self._image_name

    def _image_name(self, index: int) -> str:
        return self._shard.image_name(int(self._rows[index]))  # type: ignore[attr-defined]  # as above

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        return self._shard[int(self._rows[index])]


class Part(NamedTuple):
    """A part of a source by its name."""

    division: Division
    name: str

    def of(self, source: ShardedSource) -> ShardedSource:
        """Its samples as a source; errors as of `Division.rows`."""
        return part_of(source, self.division.rows(source, self.name != next(iter(self.division.parts)))[self.name])


def held_out(holdout: HoldoutConfig, name: str) -> Part:
    """The part of `Data.holdout` that is called train, val or test."""
    return Part(Division(holdout.shares, holdout.group_by, holdout.stratify_by, holdout.seed), name)


def part_of(source: ShardedSource, rows: np.ndarray) -> ShardedSource:
    """The samples of these numbers, in order, as a source."""
    starts = np.append(0, np.cumsum(source.shard_sizes))
    bounds = np.searchsorted(rows, starts)
    parts = [
        PartOfShard(shard, rows[first:last] - start)
        for shard, start, first, last in zip(source.shards, starts[:-1], bounds[:-1], bounds[1:], strict=True)
        if first < last
    ]
    return ShardedSource(parts)
