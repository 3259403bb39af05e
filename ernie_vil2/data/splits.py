"""A source divided into parts, to train on and to score: by a seed, and never so that two parts share an image."""

import sys
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ernie_vil2.config import HoldoutConfig
from ernie_vil2.data.readers.source import Shard, ShardedSource
from ernie_vil2.data.samples import BadSample, Sample, content_id
from ernie_vil2.io.terminal import counted, shows_progress


@dataclass(frozen=True)
class Division:
    """How a source is divided.

    Attributes:
        parts: by name their shares, which sum to 1.
        group_by: field of which no value is in two parts, as an article's number; None: images alone are kept together.
        stratify_by: field of whose values each part has about the same share, as a category.
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
        """The samples of every part by their numbers, in order. All samples are read once.

        Samples of one image, byte for byte, or of one value of `group_by` are in one part. What cannot be read stays in
        the first, where it is reported. Unless `quiet`, the number of samples without a value of `group_by` is printed.

        Raises:
            ValueError: its shards are fetched from elsewhere, no sample has the field, or a part would be empty.
        """
        if source.fetches:
            raise ValueError(
                "Data.holdout and --parts divide files that lie here, of which they read every sample first; these are "
                "fetched: copy them here, or name data of their own for val and test"
            )
        groups = _Groups()
        strata: dict[int, Hashable] = {}
        unusable, found = list[int](), dict[str, None]()
        rows = tqdm(
            range(len(source)), "dividing", unit="sample", delay=2, file=sys.stdout, disable=not shows_progress()
        )
        for row in rows:
            try:
                sample = source[row]
            except BadSample:
                unusable.append(row)
                continue
            found |= dict.fromkeys(sample.fields)
            groups.add(row, content_id("", sample.image), _value(sample, self.group_by))
            strata[row] = _value(sample, self.stratify_by)
        for field in filter(None, (self.group_by, self.stratify_by)):
            if field not in found:
                raise ValueError(f"no sample has the field {field}; fields here: {', '.join(found) or 'none'}")
        ungrouped = groups.ungrouped if self.group_by else 0
        if ungrouped and not quiet:
            some = f"{ungrouped:,} of {counted(len(source), 'sample')} have no {self.group_by}"
            print(f"{some}: only those of one image are kept together", file=sys.stderr)
        chosen = self._assigned(groups.members(), strata)
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


def _value(sample: Sample, field: str | None) -> Hashable:
    value = sample.fields.get(field) if field else None
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
