"""Remove images that show the same as another, whatever was done to light, frame, size or orientation."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from ernie_vil2.apps.curation.caption_pairs import (
    differ_in_numbers,
    is_variant,
    name_direction,
    name_opposite_directions,
    name_other_colours,
    name_other_years,
    say_the_same,
)
from ernie_vil2.apps.curation.guesses import Comparison
from ernie_vil2.apps.curation.image_measures import measure_blocks, measure_noise, measure_sharpness
from ernie_vil2.apps.curation.image_pairs import Matches, find_matches
from ernie_vil2.apps.curation.joins import Joins
from ernie_vil2.apps.curation.likeness import COLUMNS, make_columns
from ernie_vil2.apps.curation.step import Pair, Step
from ernie_vil2.apps.curation.steps.text_rules import fold_text
from ernie_vil2.apps.curation.thumbnails import Thumbnails, find_alive, read_thumbnails
from ernie_vil2.io.terminal import pluralize
from ernie_vil2.section import Fraction

# Largest number of images with the same captions that are compared for that reason alone. Captions that more images
# share say little.
MAX_EQUAL_CAPTIONS = 8
# Largest number of pairs with equal images that are compared, the preferred ones. Without a limit, the time grows with
# the square of their number, and a crawl may show one placeholder in thousands of pairs.
MAX_EQUAL_IMAGES = 64


class Settings(Comparison):
    """Settings of the step `near_duplicates`."""

    embedding: Fraction | None = Field(
        None,
        description="smallest cosine of the image embeddings, computed by the model of the step score, that a match of "
        "thumbnails must have, too; null: thumbnails alone decide",
    )
    mirrored: bool = Field(
        True,
        description="also remove images mirrored or turned by quarters, except where captions differ and name a "
        "side or a time, or say the opposite",
    )


class NearDuplicates(Step[Settings]):
    """Step that keeps the best of the images that show the same.

    Candidates share a vector, a feature or their captions, and are then laid over each other
    (`curation/registration.py`). An image is removed only if it resembles one that stays, so that a chain of small
    differences does not merge different images.
    """

    name = "near_duplicates"
    cost = 5
    Settings = Settings
    columns = COLUMNS | {
        "sharpness": "float",
        "noise": "float",
        "blocks": "float",
        "names_direction": "bool",
        "plain_captions": "string",
    }

    def get_embedding_setting(self) -> str | None:
        return None if self.settings.embedding is None else "embedding"

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Return the columns of the thumbnails, the quality of the image, and what captions are compared by."""
        texts = pair.captions.values()
        return make_columns(pair.thumbnails) | {
            "sharpness": measure_sharpness(pair.luminance),
            "noise": measure_noise(pair.luminance),
            "blocks": measure_blocks(pair.luminance),
            "names_direction": any(map(name_direction, texts)),
            "plain_captions": "\n".join(map(fold_text, texts)),
        }

    def decide(self, joins: Joins) -> None:
        """Remove near-duplicates, and then mirrored and turned ones of the images that are left; list similar ones."""
        images = read_thumbnails(joins)
        self._likeness: dict[int, float] = {}  # by removed sample: its likeness to the sample that stays
        self._remove_repeated_images(joins, images)
        is_alive = find_alive(joins, images)
        copies: list[Matches] = []
        similar: list[Matches] = []
        for matches in find_matches(
            images,
            joins.folder,
            self.settings,
            with_turns=self.settings.mirrored,
            is_alive=is_alive,
            suspects=_list_equal_captions(joins),
            name=self.name,
        ):
            captions = _compare_captions(joins, images, matches)
            # An object at an edge may be a mark, or a thing that only one of the captions names. Fitted light and
            # colour turn a blue heart into a grey one.
            may_differ = matches.is_local | matches.has_object
            may_differ |= matches.has_other_look & captions.has_other_colours
            # A digit may be too small to be seen. A word is another name of the image, if nothing differs but light,
            # size and noise; but the mirror image of a flag is another flag.
            has_trace = matches.has_trace | matches.is_turned
            may_differ |= captions.has_other_numbers | (captions.is_variant | captions.has_other_years) & has_trace
            is_copy = captions.says_the_same | ~may_differ
            if self.settings.embedding is not None:
                is_copy &= ~_find_different_embeddings(joins, images, matches, self.settings.embedding)
            # Thumbnails cannot show that a mirrored image is another one, but its caption may say so.
            copies.append(matches.select(is_copy & ~(matches.is_turned & captions.has_other_direction)))
            similar.append(matches.select(~is_copy))

        for reason, is_turned in (("near-duplicate image", False), ("mirrored or turned image", True)):
            candidates = [matches.select(matches.is_turned == is_turned) for matches in copies]
            duplicates = choose_removed(joins, images, candidates)
            samples, likeness = duplicates["sample"].to_pylist(), duplicates["likeness"].to_pylist()
            self._likeness.update(zip(samples, likeness, strict=True))
            with joins.register_tables(duplicates=duplicates):
                joins.remove(reason, "select sample, nearest, advantage from duplicates", "advantage")
        self._list_similar(joins, images, similar)

    def _remove_repeated_images(self, joins: Joins, images: Thumbnails) -> None:
        """Remove equal images with the same captions, and of what is left those behind the preferred ones.

        The step `exact_duplicates` has done so, unless it is left out or compares captions, too.
        """
        is_first = np.diff(images.samples, prepend=-1) > 0  # the first thumbnail of an image, which has its details
        digests = images.compute_digests()[is_first]
        equal_images = pa.table({"sample": images.samples[is_first], "digest": digests})
        for columns, max_rank in (("digest, plain_captions", 1), ("digest", MAX_EQUAL_IMAGES)):
            query = (
                "select sample, first_value(sample) over equals as nearest from alive join equal_images using (sample) "  # noqa: S608  -- no text of the data is in it
                f"window equals as (partition by {columns} order by {joins.preference}) "
                f"qualify row_number() over equals > {max_rank}"
            )
            with joins.register_tables(equal_images=equal_images):
                self._likeness.update({sample: 1.0 for sample, _ in joins.fetch_all(query)})
                joins.remove("near-duplicate image", query)

    def explain(self, joins: Joins, reason: str, samples: Sequence[int]) -> dict[int, str]:
        bound = self.settings.likeness
        return {sample: f"likeness {self._likeness[sample]:.3f} >= {bound:g}" for sample in samples}

    def _list_similar(self, joins: Joins, images: Thumbnails, blocks: Iterable[Matches]) -> None:
        """Report pairs of images that differ in little, and of which no step has removed either."""
        pairs = {}
        for matches in blocks:
            for query, row, likeness in zip(matches.queries, matches.rows, matches.likeness.tolist(), strict=True):
                pairs[int(images.samples[query]), int(images.samples[row])] = round(likeness, 4)
        alive = {sample for (sample,) in joins.fetch_all("select sample from alive")} if pairs else set()
        similar = []
        for (first, second), likeness in sorted(pairs.items()):
            if first in alive and second in alive:
                similar.append({"sample": first, "similar": second, "likeness": likeness})
        if similar:
            joins.figures[self.name] = similar
            reason = "they, their captions or their embeddings differ a little"
            joins.facts.setdefault(self.name, []).append(
                f"{pluralize(len(similar), 'pair')} of similar images stay: {reason}"
            )


def _list_equal_captions(joins: Joins) -> np.ndarray:
    """Return the pairs of samples whose captions are the same, `[S, 2]` int64, in ascending order.

    A sticker may hide so much that nothing but the captions tells which images to compare. Captions that more than
    `MAX_EQUAL_CAPTIONS` images share are left out.
    """
    captions = "(select sample, plain_captions, count(*) over (partition by plain_captions) as size from readable)"
    query = (
        f"select a.sample, b.sample from {captions} a join {captions} b using (plain_captions) "  # noqa: S608  -- no text of the data is in it
        f"where a.sample < b.sample and a.size <= {MAX_EQUAL_CAPTIONS} order by all"
    )
    blocks = [np.empty((0, 2), np.int64)]
    for batch in joins.read_batches(query):
        blocks.append(np.stack([column.to_numpy() for column in batch.columns], axis=1))
    return np.concatenate(blocks)


def _read_both(joins: Joins, images: Thumbnails, matches: Matches, view: str, columns: str) -> list[tuple]:
    """Return the number of each match and the view's columns of its two samples, `a` and `b`.

    A match is left out if the view lacks one of its samples.
    """
    first, second = images.samples[matches.queries], images.samples[matches.rows]
    table = pa.table({"number": np.arange(len(first)), "first_sample": first, "second_sample": second})
    joined = f"matches join {view} a on a.sample = first_sample join {view} b on b.sample = second_sample"
    with joins.register_tables(matches=table):
        return joins.fetch_all(f"select number, {columns} from {joined}")  # noqa: S608  -- no text of the data is in it


class _CaptionMatches(NamedTuple):
    """What the captions of matching images say; `[P]` bool each.

    says_the_same: see `caption_pairs.say_the_same`.
    is_variant: see `caption_pairs.is_variant`.
    has_other_colours: whether they name other colours.
    has_other_numbers: whether they differ, and in nothing but their numbers.
    has_other_years: whether they name other years.
    has_other_direction: whether they say that one image is no mirrored or turned copy of the other one.
    """

    says_the_same: np.ndarray
    is_variant: np.ndarray
    has_other_colours: np.ndarray
    has_other_numbers: np.ndarray
    has_other_years: np.ndarray
    has_other_direction: np.ndarray


def _compare_captions(joins: Joins, images: Thumbnails, matches: Matches) -> _CaptionMatches:
    verdicts = _CaptionMatches(*np.zeros((6, len(matches.queries)), bool))
    columns = "a.plain_captions, b.plain_captions, a.names_direction or b.names_direction"
    for number, first, second, names_direction in _read_both(joins, images, matches, "alive", columns):
        verdicts.says_the_same[number] = say_the_same(first, second)
        verdicts.is_variant[number] = is_variant(first, second)
        verdicts.has_other_colours[number] = name_other_colours(first, second)
        verdicts.has_other_numbers[number] = differ_in_numbers(first, second)
        verdicts.has_other_years[number] = name_other_years(first, second)
        is_opposite = name_opposite_directions(first, second)
        verdicts.has_other_direction[number] = is_opposite or (names_direction and first != second)
    return verdicts


def _find_different_embeddings(joins: Joins, images: Thumbnails, matches: Matches, min_cosine: float) -> np.ndarray:
    """Return which matches have embeddings that differ, `[P]` bool; False if they have no embeddings."""
    is_different = np.zeros(len(matches.queries), bool)
    for number, first, second in _read_both(joins, images, matches, "embeddings", "a.image, b.image"):
        first_embedding = np.frombuffer(first, np.float16).astype(np.float32)
        second_embedding = np.frombuffer(second, np.float16).astype(np.float32)
        is_different[number] = first_embedding @ second_embedding < min_cosine
    return is_different


class _Quality(NamedTuple):
    """Measures that decide which of several images stays; the smaller one is better.

    defects: number of matches in which the image has marks or bars, or shows less.
    flaws: blur, smallness, noise and compression, in steps that count as much as each other.
    """

    defects: int
    flaws: tuple[float, float, float, float]

    def get_rank(self) -> tuple[int, int]:
        """Return what images are sorted by: the defects, and the sum of the flaws in whole steps."""
        return self.defects, round(sum(self.flaws))

    def explain_advantage(self, other: "_Quality") -> str | None:
        """Return in words why this image is better than another one; None if none of these decided."""
        if self.get_rank() >= other.get_rank():
            return None
        if self.defects < other.defects:
            return "has fewer marks or bars, or shows more"
        gains = [flaw_of_other - flaw for flaw, flaw_of_other in zip(self.flaws, other.flaws, strict=True)]
        return _ADVANTAGES[gains.index(max(gains))]


_ADVANTAGES = ("is sharper", "is larger", "has less noise", "is less compressed")
"""Words for the flaws that another image has more of."""
# A step of each flaw. In 24 photographs, compression and light change the logarithm of the sharpness by 0.1, halving
# the size changes it by 0.9, and JPEG of quality 25 changes the logarithm of the blocks by 0.5. Noise looks like
# sharpness, so that a step of it has to outweigh one of that.
BLUR_STEP, SIZE_STEP, NOISE_STEP, COMPRESSION_STEP = 0.35, 0.25, 0.25, 0.2
NOISE = 4.0  # levels: more noise than this counts by its logarithm, less nearly in proportion

_REMOVED_SCHEMA = pa.schema(
    {"sample": pa.int64(), "nearest": pa.int64(), "likeness": pa.float32(), "advantage": pa.string()}
)


def choose_removed(joins: Joins, images: Thumbnails, matches: Iterable[Matches]) -> pa.Table:
    """Choose which of the matching images are removed.

    Images are visited from best to worst: first those without marks, bars and cuts, then those that are sharper and
    larger, and have less noise and compression, then by `Joins.preference`. An image stays unless it matches one that
    stays already; then it is removed, and its `nearest` is the staying image with the highest likeness.

    Args:
        joins: the database.
        images: thumbnails.
        matches: matching thumbnails.

    Returns:
        Table with the columns `sample`, `nearest`, `likeness` of both, and `advantage`: why the nearest one is better,
        in words, or null.
    """
    likeness_by_sample, defects = _collect_matches(images, matches)
    qualities = _rate_images(joins, likeness_by_sample, defects)
    # Sorting is stable: of equals, the preferred one stays first.
    best_first = sorted(qualities, key=lambda sample: qualities[sample].get_rank())

    # Better images decide first, so an image is compared only with those that are known to stay.
    staying = set[int]()
    removed: list[dict[str, Any]] = []
    for sample in best_first:
        likeness_by_match = likeness_by_sample[sample]
        rivals = [match for match in likeness_by_match if match in staying]
        if not rivals:
            staying.add(sample)
            continue
        # The smallest number breaks ties, so that the table does not depend on the order of the matches.
        nearest = min(rivals, key=lambda match: (-likeness_by_match[match], match))
        advantage = qualities[nearest].explain_advantage(qualities[sample])
        removed.append(
            {"sample": sample, "nearest": nearest, "likeness": likeness_by_match[nearest], "advantage": advantage}
        )
    return pa.Table.from_pylist(removed, _REMOVED_SCHEMA)


def _collect_matches(
    images: Thumbnails, matches: Iterable[Matches]
) -> tuple[dict[int, dict[int, float]], Counter[int]]:
    """Return the likeness of each sample to those that it matches, and its number of defects.

    A defect is a match in which a sample has marks or bars, or shows less.
    """
    likeness_by_sample: dict[int, dict[int, float]] = defaultdict(dict)
    worse_by_pair: dict[tuple[int, int], int] = {}
    for block in matches:
        first_samples = images.samples[block.queries].tolist()
        second_samples = images.samples[block.rows].tolist()
        rows = zip(first_samples, second_samples, block.likeness.tolist(), block.worse.tolist(), strict=True)
        for first, second, likeness, worse in rows:
            # An image may have several thumbnails, with and without its border, so that the same two samples match
            # several times. They are most alike where both have their borders, or none has.
            if likeness > likeness_by_sample[first].get(second, 0.0):
                likeness_by_sample[first][second] = likeness_by_sample[second][first] = likeness
                worse_by_pair[min(first, second), max(first, second)] = worse if first < second else -worse
    defects: Counter[int] = Counter()
    for (first, second), worse in worse_by_pair.items():
        if worse:
            defects[first if worse > 0 else second] += 1
    return likeness_by_sample, defects


def _rate_images(joins: Joins, samples: Iterable[int], defects: Counter[int]) -> dict[int, _Quality]:
    """Return the qualities of those of the samples that no step has removed, ordered by `Joins.preference`."""
    size = "width * height" if joins.has_column("width") else "1"
    with joins.register_tables(candidates=pa.table({"sample": pa.array(samples, pa.int64())})):
        measures = joins.fetch_all(
            f"select sample, {size}, sharpness, noise, blocks from alive semi join candidates using (sample) "  # noqa: S608  -- no text of the data is in it
            f"order by {joins.preference}"
        )
    qualities = {}
    for sample, num_pixels, sharpness, noise, blocks in measures:
        blur = -math.log(max(sharpness, 1e-6)) / BLUR_STEP
        smallness = -math.log(num_pixels) / SIZE_STEP
        graininess = math.log1p(noise / NOISE) / NOISE_STEP
        compression = math.log1p(blocks) / COMPRESSION_STEP
        qualities[sample] = _Quality(defects[sample], (blur, smallness, graininess, compression))
    return qualities
