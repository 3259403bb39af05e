"""Images that show the same: resized, recompressed, in a frame, cropped a little, grey or mirrored."""

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.apps.curation.likeness import COLUMNS, columns_of
from ernie_vil2.apps.curation.step import Pair, Step
from ernie_vil2.apps.curation.steps.text_rules import text_key
from ernie_vil2.apps.curation.thumbnails import Alike, Comparison, Thumbnails, alike, alive_thumbnails
from ernie_vil2.section import Fraction

SIDED = re.compile(
    r"\b(left|right|(counter|anti)?clockwise|\w+[- ]thirty|\d{1,2}:\d\d|o['’]clock)\b"
    r"|左|右|时针|[一二三四五六七八九十两\d]点",
    re.IGNORECASE,
)
"""What a caption has that does not fit the mirrored image: a side, a sense of rotation, what a clock shows."""


class Settings(Comparison):
    embedding: Fraction | None = Field(
        None, description="least cosine of the embeddings of score's model as well; null: thumbnails decide alone"
    )
    mirrored: bool = Field(
        True, description="also find mirrored images, unless captions that differ name a side or a time"
    )


class NearDuplicates(Step[Settings]):
    """Keeps the best of the images that show the same.

    Candidates are near each other by thumbnails of 16 x 16, whose verdict is by thumbnails of 32 x 32 and 64 x 64
    (`curation/likeness.py`). A pair goes only if one stays that it is itself like, so that chains of small differences
    do not connect what is different.
    """

    name = "near_duplicates"
    cost = 5
    Settings = Settings
    columns = COLUMNS | {"sided": "uint64"}

    def needs_embeddings(self) -> str | None:
        return "embedding" if self.settings.embedding is not None else None

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Its thumbnails, with the aspect ratio and the extent of what they show; of `SIDED` captions their key."""
        texts = pair.captions.values()
        return columns_of(pair.thumbnails) | {"sided": text_key(texts) if any(map(SIDED.search, texts)) else None}

    def decide(self, joins: Joins) -> None:
        """Removes near-duplicates, then mirrored ones of what is left."""
        own = self.settings
        for reason, mirror in [("near-duplicate image", False)] + [("mirrored image", True)] * own.mirrored:
            images = alive_thumbnails(joins)
            pairs = list(alike(images, joins.folder, own, mirror=mirror))
            if mirror:
                pairs = [_without(joins, images, found, _otherwise_captioned) for found in pairs]
            elif own.embedding is not None:
                apart = partial(_embedded_apart, least=own.embedding)
                pairs = [_without(joins, images, found, apart) for found in pairs]
            with joins.given(found=best_of(joins, images.samples, pairs)):
                joins.remove(reason, "select sample, nearest from found")
            del images  # so that their files do not lie next to those of the mirrored ones


def _without(joins: Joins, images: Thumbnails, found: Alike, refused: Callable[[Joins], list[int]]) -> Alike:
    """The pairs but those that `refused` finds in the table `pairs` of their samples, by their numbers."""
    one, other = images.samples[found.queries], images.samples[found.rows]
    with joins.given(pairs=pa.table({"number": np.arange(len(one)), "one": one, "other": other})):
        gone = refused(joins)
    return Alike(*(np.delete(values, gone) for values in found))


def _otherwise_captioned(joins: Joins) -> list[int]:
    """Pairs whose captions differ and name a side."""
    joined = "pairs join alive a on a.sample = one join alive b on b.sample = other"
    return [row for (row,) in joins.all(f"select number from {joined} where a.sided is distinct from b.sided")]  # noqa: S608  -- no text of the data is in it


def _embedded_apart(joins: Joins, least: float) -> list[int]:
    """Pairs whose embeddings are not alike; of images without embeddings, thumbnails have decided."""
    joined = "pairs join embedded a on a.sample = one join embedded b on b.sample = other"
    gone = []
    for row, *images in joins.all(f"select number, a.image, b.image from {joined}"):  # noqa: S608  -- no text of the data is in it
        first, second = (np.frombuffer(image, np.float16).astype(np.float32) for image in images)
        if first @ second < least:
            gone.append(row)
    return gone


def best_of(joins: Joins, samples: np.ndarray, pairs: Iterable[Alike]) -> pa.Table:
    """Which pairs are removed, and which pair stays for each: columns sample and nearest.

    From the best to the worst, each stays unless it is like one that stays; then the likest of these is its nearest.
    """
    near: dict[int, dict[int, float]] = {}
    for found in pairs:
        columns = samples[found.queries], samples[found.rows], found.likeness
        for one, other, value in zip(*(column.tolist() for column in columns), strict=True):
            for first, second in ((one, other), (other, one)):
                own = near.setdefault(first, {})
                own[second] = max(value, own.get(second, 0.0))
    with joins.given(involved=pa.table({"sample": pa.array(near, pa.int64())})):
        order = joins.all(f"select sample from alive semi join involved using (sample) order by {joins.better}")  # noqa: S608  -- no text of the data is in it
    stays, gone = set[int](), dict[int, int]()
    for (sample,) in order:
        kept = {other: value for other, value in near[sample].items() if other in stays}
        if kept:
            gone[sample] = max(kept, key=lambda other: (kept[other], -other))
        else:
            stays.add(sample)
    return pa.table({"sample": pa.array(gone.keys(), pa.int64()), "nearest": pa.array(gone.values(), pa.int64())})
