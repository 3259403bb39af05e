"""Remove images that show the same as another: resized, recompressed, framed, cropped a little, grey or mirrored."""

import re
from collections import defaultdict
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

DIRECTIONAL_WORDS = re.compile(
    r"\b(left|right|(counter|anti)?clockwise|\w+[- ]thirty|\d{1,2}:\d\d|o['’]clock)\b"
    r"|左|右|时针|[一二三四五六七八九十两\d]点",
    re.IGNORECASE,
)
"""Words that do not fit the mirrored image: a side, a sense of rotation, or the time on a clock."""


class Settings(Comparison):
    """Settings of the step `near_duplicates`."""

    embedding: Fraction | None = Field(
        None,
        description="smallest cosine of the image embeddings, computed by the model of the step score, that a match of "
        "thumbnails must have, too; null: thumbnails alone decide",
    )
    mirrored: bool = Field(
        True, description="also remove mirrored images, except where captions differ and name a side or a time"
    )


class NearDuplicates(Step[Settings]):
    """Step that keeps the best of the images that show the same.

    Candidates have similar vectors, and their thumbnails are then compared (`curation/likeness.py`). An image is
    removed only if it resembles one that stays, so that a chain of small differences does not merge different images.
    """

    name = "near_duplicates"
    cost = 5
    Settings = Settings
    columns = COLUMNS | {"sided": "uint64"}

    def get_embedding_setting(self) -> str | None:
        return None if self.settings.embedding is None else "embedding"

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Return the columns of the thumbnails, and the key of the captions if they have directional words."""
        texts = pair.captions.values()
        is_sided = any(DIRECTIONAL_WORDS.search(text) for text in texts)
        return columns_of(pair.thumbnails) | {"sided": text_key(texts) if is_sided else None}

    def decide(self, joins: Joins) -> None:
        """Remove near-duplicates, and then mirrored ones of what is left."""
        self._remove_duplicates(joins, is_mirrored=False)
        if self.settings.mirrored:
            self._remove_duplicates(joins, is_mirrored=True)

    def _remove_duplicates(self, joins: Joins, is_mirrored: bool) -> None:
        # The files of thumbnails are deleted when this function returns, so the two passes never need disk space at the
        # same time.
        images = alive_thumbnails(joins)
        matches = list(alike(images, joins.folder, self.settings, mirror=is_mirrored))

        # A mirrored image is no duplicate if its caption names a side, which thumbnails cannot show.
        find_false_matches: Callable[[Joins], list[int]] | None = None
        if is_mirrored:
            find_false_matches = _find_different_captions
        elif self.settings.embedding is not None:
            find_false_matches = partial(_find_different_embeddings, min_cosine=self.settings.embedding)
        if find_false_matches is not None:
            matches = [_drop_false_matches(joins, images, block, find_false_matches) for block in matches]

        with joins.register_tables(duplicates=choose_removed(joins, images.samples, matches)):
            reason = "mirrored image" if is_mirrored else "near-duplicate image"
            joins.remove(reason, "select sample, nearest from duplicates")


def _drop_false_matches(
    joins: Joins, images: Thumbnails, matches: Alike, find_false_matches: Callable[[Joins], list[int]]
) -> Alike:
    """Return the matches without the false ones.

    `find_false_matches` reads the table `matches` (number, first_sample, second_sample) and returns the numbers of the
    false ones.
    """
    first, second = images.samples[matches.queries], images.samples[matches.rows]
    table = pa.table({"number": np.arange(len(first)), "first_sample": first, "second_sample": second})
    with joins.register_tables(matches=table):
        false_matches = find_false_matches(joins)
    return Alike(*(np.delete(values, false_matches) for values in matches))


def _find_different_captions(joins: Joins) -> list[int]:
    """Return the numbers of the matches whose captions differ and name a side or a time."""
    # `sided` is the key of the captions if they have directional words, else null.
    joined = "matches join alive a on a.sample = first_sample join alive b on b.sample = second_sample"
    rows = joins.fetch_all(f"select number from {joined} where a.sided is distinct from b.sided")  # noqa: S608  -- no text of the data is in it
    return [number for (number,) in rows]


def _find_different_embeddings(joins: Joins, min_cosine: float) -> list[int]:
    """Return the numbers of the matches whose embeddings differ; a match without embeddings stays."""
    joined = "matches join embeddings a on a.sample = first_sample join embeddings b on b.sample = second_sample"
    numbers = []
    for number, first, second in joins.fetch_all(f"select number, a.image, b.image from {joined}"):  # noqa: S608  -- no text of the data is in it
        first_embedding = np.frombuffer(first, np.float16).astype(np.float32)
        second_embedding = np.frombuffer(second, np.float16).astype(np.float32)
        if first_embedding @ second_embedding < min_cosine:
            numbers.append(number)
    return numbers


def choose_removed(joins: Joins, samples: np.ndarray, matches: Iterable[Alike]) -> pa.Table:
    """Choose which of the matching images are removed.

    Images are visited from best to worst. An image stays unless it matches one that stays already; then it is removed,
    and its `nearest` is the staying image with the highest likeness.

    Args:
        joins: the database.
        samples: sample of each thumbnail.
        matches: matching thumbnails.

    Returns:
        Table with the columns `sample` and `nearest`.
    """
    # All matches of an image, in both directions.
    likeness_by_sample: dict[int, dict[int, float]] = defaultdict(dict)
    for block in matches:
        first_samples, second_samples = samples[block.queries].tolist(), samples[block.rows].tolist()
        for first, second, likeness in zip(first_samples, second_samples, block.likeness.tolist(), strict=True):
            # An image may have two thumbnails, so the same two samples can match several times.
            likeness = max(likeness, likeness_by_sample[first].get(second, 0.0))
            likeness_by_sample[first][second] = likeness_by_sample[second][first] = likeness

    with joins.register_tables(candidates=pa.table({"sample": pa.array(likeness_by_sample, pa.int64())})):
        best_first = joins.fetch_all(
            f"select sample from alive semi join candidates using (sample) order by {joins.preference}"  # noqa: S608  -- no text of the data is in it
        )
    # Better images decide first, so an image is compared only with those that are known to stay.
    staying = set[int]()
    nearest_by_sample = dict[int, int]()
    for (sample,) in best_first:
        likeness_by_staying = {}
        for match, likeness in likeness_by_sample[sample].items():
            if match in staying:
                likeness_by_staying[match] = likeness
        if likeness_by_staying:
            # The smallest number breaks ties, so that the table does not depend on the order of the matches.
            nearest_by_sample[sample] = max(likeness_by_staying, key=lambda match: (likeness_by_staying[match], -match))
        else:
            staying.add(sample)
    columns = {
        "sample": pa.array(nearest_by_sample.keys(), pa.int64()),
        "nearest": pa.array(nearest_by_sample.values(), pa.int64()),
    }
    return pa.table(columns)
