"""Crisscrossed Captions (Parekh et al. 2021, arXiv 2004.15020): MSCOCO in four directions, and agreement with ratings.

People rated pairs of MSCOCO's validation images and captions from 0 to 5: captions with captions (STS), images with
images (SIS), captions with images (SITS).

There is no official code that scores retrieval by these ratings. Where public code leaves a choice open, `CxcProtocol`
has a field for it, and a protocol of its own makes the other choice.
"""

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.evaluation.encoded import EncodedBenchmark
from ernie_vil2.evaluation.protocol import AGAINST, ANY_OF, MEASURES, SCORE, Protocol
from ernie_vil2.evaluation.retrieval import DIRECTIONS, DirectionResult, Matching, Results
from ernie_vil2.evaluation.scorers.retrieval import Retrieval

# The kinds of ratings, as in the names of the files, and the sides of a rated pair.
RATED_SIDES = {"sts": ("text", "text"), "sis": ("image", "image"), "sits": ("text", "image")}
# A pair with this rating or a higher one belongs together.
MIN_POSITIVE_RATING = {"sts": 3.0, "sits": 3.0, "sis": 2.5}
# Number of rated pairs in each published file, 267,095 in all.
NUM_RATINGS = {
    ("sts", "val"): 44_009, ("sis", "val"): 42_767, ("sits", "val"): 44_722,
    ("sts", "test"): 44_045, ("sis", "test"): 46_719, ("sits", "test"): 44_833,
}  # fmt: skip
# Draws of a correlation; more draws make its mean and its standard deviation more precise.
NUM_DRAWS = 1000
# Answers to each query that ECCV Caption's metrics get.
NUM_ECCV_ANSWERS = 100
# Folders of the ratings next to Karpathy's JSON: as a name, or as a clone of the authors' repository.
_FOLDERS = ("", "cxc", "Crisscrossed-Captions/data", "crisscrossed-captions/data")
# Ids in the files of the authors.
_CAPTION_ID = re.compile(r"COCO_val2014:sentid:(\d+)")
_IMAGE_ID = re.compile(r"COCO_val2014_\d{12}\.jpg")
_MAX_LINE_LENGTH = 200  # characters; the lines of the published files have up to 74
_DOWNLOAD_AGAIN = "is it the whole file? Get it again from github.com/google-research-datasets/Crisscrossed-Captions"


@dataclass(frozen=True)
class Ratings:
    """Rated pairs of one file.

    Attributes:
        path: the file.
        first_ids: ids of the first members of the pairs.
        second_ids: ids of the second members.
        scores: ratings from 0 to 5, float64.
    """

    path: Path
    first_ids: tuple[str, ...]
    second_ids: tuple[str, ...]
    scores: np.ndarray


def read_ratings(folder: Path, kind: str, split: str) -> Ratings:
    """Read the published ratings `KIND_SPLIT.csv`, or the same file compressed as `.csv.gz`.

    Args:
        folder: folder of the file; folders such as `cxc` within it are searched as well.
        kind: "sts", "sis" or "sits".
        split: "val" or "test".

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file cannot be read.
        ValueError: the file is damaged: it has not as many rows as the published file, a row is malformed, or
            all scores are equal. The message names the file.
    """
    for subfolder in _FOLDERS:
        for suffix in (".csv", ".csv.gz"):
            path = folder / subfolder / f"{kind}_{split}{suffix}"
            if path.is_file():
                return _read_ratings_file(path, kind, split)
    raise FileNotFoundError(
        f"{folder}: no {kind}_{split}.csv of Crisscrossed Captions here nor in a folder cxc; put sts, sis and sits "
        "next to Karpathy's JSON"
    )


# An evaluation reads up to three of the six published files, and a run evaluates many times: all six stay in memory.
@lru_cache(maxsize=8)
def _read_ratings_file(path: Path, kind: str, split: str) -> Ratings:
    first_side, second_side = RATED_SIDES[kind]
    first_ids, second_ids, scores = list[str](), list[str](), list[float]()
    num_published = NUM_RATINGS[kind, split]
    for line_number, line in enumerate(_read_lines(path), 1):
        if line_number == 1:
            continue  # the names of the columns
        if len(scores) == num_published:
            raise ValueError(f"{path}: more than the {num_published:,} pairs that were published; {_DOWNLOAD_AGAIN}")
        try:
            first, second, rating, _ = line.split(",")
            first_ids.append(_parse_id(first_side, first))
            second_ids.append(_parse_id(second_side, second))
            score = float(rating)
            if not 0 <= score <= 5:
                raise ValueError
        except ValueError:
            raise ValueError(f"{path}, line {line_number}: no pair with a rating from 0 to 5") from None
        scores.append(score)
    if len(scores) != num_published:
        raise ValueError(
            f"{path}: {len(scores):,} of the {num_published:,} pairs that were published; {_DOWNLOAD_AGAIN}"
        )
    ratings = Ratings(path, tuple(first_ids), tuple(second_ids), np.array(scores))
    check_ratings_differ(ratings, ratings.scores)
    return ratings


def _parse_id(side: str, text: str) -> str:
    """Return the id in Karpathy's file: the number of a caption, or the file name of an image."""
    match = (_CAPTION_ID if side == "text" else _IMAGE_ID).fullmatch(text)
    if match is None:
        raise ValueError
    return match[1] if side == "text" else text


def _read_lines(path: Path) -> Iterator[str]:
    """Yield the lines without their ends; raise ValueError if the file is damaged or a line is too long."""
    open_file = gzip.open if path.suffix == ".gz" else open
    try:
        with open_file(path, "rt", encoding="utf-8") as file:
            while line := file.readline(_MAX_LINE_LENGTH + 1):
                if len(line) > _MAX_LINE_LENGTH:
                    raise ValueError("a line is too long for a rating")
                yield line.rstrip("\n")
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: damaged ({error}); {_DOWNLOAD_AGAIN}") from None


def check_ratings_differ(ratings: Ratings, scores: np.ndarray) -> None:
    """Raise ValueError if a selection of the scores is empty or constant: no correlation with it is defined."""
    if not len(scores):
        raise ValueError(f"{ratings.path}: none of its pairs is of the images and captions that are scored")
    if scores.min() == scores.max():
        raise ValueError(f"{ratings.path}: all {len(scores):,} ratings are {scores[0]:g}; {_DOWNLOAD_AGAIN}")


def compute_correlations(
    cosines: np.ndarray, scores: np.ndarray, queries: np.ndarray, num_draws: int = NUM_DRAWS
) -> tuple[float, np.ndarray]:
    """Return Spearman's correlation of cosines and ratings, over all pairs and over draws of them.

    A draw takes one pair of every query, so that a query does not count more for being rated more often.

    Args:
        cosines: `[P]`, cosine of each pair.
        scores: `[P]`, rating of each pair.
        queries: `[P]`, number of the first member of each pair.
        num_draws: number of draws, with a fixed seed.

    Returns:
        The correlation over all pairs, and the correlations of the draws `[num_draws]`.
    """
    from scipy.stats import spearmanr

    # Sorted by query, the pairs of a query lie next to each other: `counts` of them from `starts` on.
    order = np.argsort(queries, kind="stable")
    _, starts, counts = np.unique(queries[order], return_index=True, return_counts=True)
    rng = np.random.default_rng(0)  # the same draws for all models
    correlations = []
    for _ in range(num_draws):
        rows = order[starts + (rng.random(len(starts)) * counts).astype(np.int64)]
        correlations.append(spearmanr(cosines[rows], scores[rows]).statistic)
    return float(spearmanr(cosines, scores).statistic), np.array(correlations)


@dataclass
class Cxc(Retrieval):
    """Scores by the protocols below, and by those of `Retrieval`.

    The best checkpoint has the best mean recall; if only correlations are computed, no checkpoint is the best.
    """

    protocol: Sequence[str] = ("cxc",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(protocol.directions for protocol in self.protocols.values()):
            self.best_by = None


@dataclass(frozen=True)
class _CocoTestProtocol(Protocol):
    scorer: ClassVar[str] = "cxc"
    # Karpathy's test split has some images with more than five captions.
    split: str = "test"
    num_images: int | None = 5_000
    num_texts: int | None = 25_000
    max_texts_per_image: int | None = 5


@dataclass(frozen=True)
class CxcProtocol(_CocoTestProtocol):
    """Retrieval in four directions.

    Attributes:
        is_symmetric: whether an image pair that was rated in one order also counts in the other order.
        has_co_captions: whether the other captions of its image are right for a caption, besides those rated so.
        has_unpaired_queries: whether a caption without a right image counts as a query that finds nothing.
    """

    directions: tuple[str, ...] = (*DIRECTIONS, "text_to_text", "image_to_image")
    is_symmetric: bool = True
    has_co_captions: bool = True
    has_unpaired_queries: bool = False

    def make_matchings(self, benchmark: Benchmark) -> list[Matching]:
        """Return the matchings of images with texts, texts with texts, and images with images."""
        (galleries,) = super().make_matchings(benchmark)
        texts_of_images = galleries.positives
        positions = {}
        for side, rows in (("image", galleries.left), ("text", galleries.right)):
            entries = benchmark.get_side(side)
            positions[side] = {entries[row].id: position for position, row in enumerate(rows)}
        caption_pairs = self._find_positives(benchmark, "sts", positions)
        image_pairs = self._find_positives(benchmark, "sis", positions)
        caption_image_pairs = self._find_positives(benchmark, "sits", positions)

        # Two captions belong together in whichever order they were rated.
        caption_pairs = np.concatenate([caption_pairs, caption_pairs[:, ::-1]])
        if self.has_co_captions:
            caption_pairs = np.concatenate([caption_pairs, _find_co_captions(texts_of_images)])
        if self.is_symmetric:
            image_pairs = np.concatenate([image_pairs, image_pairs[:, ::-1]])
        return [
            galleries._replace(positives=np.unique(caption_image_pairs[:, ::-1], axis=0)),
            _match_with_itself("text", galleries.right, caption_pairs),
            _match_with_itself("image", galleries.left, image_pairs),
        ]

    def _find_positives(
        self, benchmark: Benchmark, kind: str, positions: Mapping[str, Mapping[str, int]]
    ) -> np.ndarray:
        """Return the pairs of gallery positions `[P, 2]` whose rating is high enough."""
        ratings = read_ratings(_ratings_folder(benchmark), kind, self.split)
        first_side, second_side = RATED_SIDES[kind]
        pairs = []
        for row in np.flatnonzero(ratings.scores >= MIN_POSITIVE_RATING[kind]).tolist():
            first = positions[first_side].get(ratings.first_ids[row])
            second = positions[second_side].get(ratings.second_ids[row])
            if first is not None and second is not None:
                pairs.append((first, second))
        if not pairs:
            raise ValueError(
                f"{ratings.path}: no pair of the images and captions that are scored is rated "
                f"{MIN_POSITIVE_RATING[kind]} or more"
            )
        return np.array(pairs, np.int64)

    def adjust_results(self, results: Results) -> Results:
        """Count captions without a right image as queries that find nothing, if the protocol says so."""
        if not self.has_unpaired_queries:
            return results
        return {**results, "text_to_image": results["text_to_image"].count_unpaired_as_misses()}

    def compute_measures(self, encoded: EncodedBenchmark, results: Results) -> dict[str, float]:
        """Return mAP@R and R-Precision of ECCV Caption (Chun et al. 2022) in percent, if its package is installed."""
        # ECCV Caption has positives for the whole test split only.
        if self.split != "test" or self.find_differences(encoded.benchmark):
            return {}
        try:
            from eccv_caption import Metrics
        except ImportError:
            return {}
        scores = Metrics().compute_all_metrics(
            _list_answers_by_number(results["image_to_text"], encoded),
            _list_answers_by_number(results["text_to_image"], encoded),
            target_metrics=("eccv_map_at_r", "eccv_rprecision"),
            Ks=(1,),
        )
        measures = {}
        for measure, name in (("eccv_map_at_r", "ECCV mAP@R"), ("eccv_rprecision", "ECCV R-Precision")):
            for direction, direction_name in (("i2t", "image to text"), ("t2i", "text to image")):
                measures[f"{name}, {direction_name}"] = 100 * float(scores[measure][direction])
        return measures


@dataclass(frozen=True)
class CxcCorrelation(_CocoTestProtocol):
    """Spearman's correlation of cosine and rating, for STS, SIS and SITS."""

    directions: tuple[str, ...] = ()
    packages: tuple[str, ...] = ("scipy",)
    num_draws: int = NUM_DRAWS

    def compute_measures(self, encoded: EncodedBenchmark, results: Results) -> dict[str, float]:
        """Return the correlations times 100: over all rated pairs, and mean and standard deviation of the draws."""
        benchmark = encoded.benchmark
        measures: dict[str, float] = {}
        for kind, (first_side, second_side) in RATED_SIDES.items():
            ratings = read_ratings(_ratings_folder(benchmark), kind, self.split)
            first_row_of, second_row_of = encoded.index_rows(first_side), encoded.index_rows(second_side)
            first_rows, second_rows, scores = [], [], []
            for first_id, second_id, score in zip(ratings.first_ids, ratings.second_ids, ratings.scores, strict=True):
                if first_id in first_row_of and second_id in second_row_of:
                    first_rows.append(first_row_of[first_id])
                    second_rows.append(second_row_of[second_id])
                    scores.append(score)
            check_ratings_differ(ratings, np.array(scores))

            # Summed in float64, like the scores in ranking.py.
            first = encoded.embeddings[first_side][first_rows].astype(np.float64)
            second = encoded.embeddings[second_side][second_rows].astype(np.float64)
            cosines = np.einsum("pd,pd->p", first, second)
            correlation, draws = compute_correlations(cosines, np.array(scores), np.array(first_rows), self.num_draws)
            name = kind.upper()
            measures[name] = 100 * correlation
            measures[f"{name}, drawn"] = 100 * float(draws.mean())
            measures[f"{name}, drawn, standard deviation"] = 100 * float(draws.std())
        return measures


def _ratings_folder(benchmark: Benchmark) -> Path:
    if not benchmark.files:
        raise ValueError("Crisscrossed Captions is scored on MSCOCO's folder: the ratings lie next to its JSON")
    return benchmark.files[0].parent


def _find_co_captions(pairs: np.ndarray) -> np.ndarray:
    """Return all pairs of different texts that share an image, from pairs (image, text)."""
    order = np.argsort(pairs[:, 0], kind="stable")
    image_starts = np.flatnonzero(np.diff(pairs[order, 0])) + 1
    co_captions = []
    for texts in np.split(pairs[order, 1], image_starts):
        first, second = np.meshgrid(texts, texts, indexing="ij")
        co_captions.append(np.stack([first.ravel(), second.ravel()], axis=1))
    text_pairs = np.concatenate(co_captions)
    return text_pairs[text_pairs[:, 0] != text_pairs[:, 1]]


def _match_with_itself(side: str, rows: np.ndarray, positives: np.ndarray) -> Matching:
    """Match the rows of a side with themselves; no row is an answer to itself."""
    positives = np.unique(positives[positives[:, 0] != positives[:, 1]], axis=0)
    positions = np.arange(len(rows))
    return Matching(rows, rows, positives, (side, side), np.stack([positions, positions], axis=1))


def _list_answers_by_number(result: DirectionResult, encoded: EncodedBenchmark) -> dict[int, list[int]]:
    """Return the best answers to every query, both by MSCOCO's numbers, as ECCV Caption expects them."""
    matching = result.matching
    positions = np.arange(len(matching.left))
    num_answers = min(NUM_ECCV_ANSWERS, len(matching.right))
    answers, _ = result.find_best_answers(encoded.embeddings, positions, num_answers)
    query_side, gallery_side = matching.sides
    query_numbers = _list_coco_numbers(encoded.benchmark, query_side, matching.left)
    gallery_numbers = np.array(_list_coco_numbers(encoded.benchmark, gallery_side, matching.right))
    return dict(zip(query_numbers, gallery_numbers[answers].tolist(), strict=True))


def _list_coco_numbers(benchmark: Benchmark, side: str, rows: np.ndarray) -> list[int]:
    """Return the numbers in the ids of rows: the last one of `COCO_val2014_000000000042.jpg` is 42."""
    entries = benchmark.get_side(side)
    return [int(re.findall(r"\d+", entries[row].id)[-1]) for row in rows]


_DEFINITION = (
    "Crisscrossed Captions on the {split} split of MSCOCO by Karpathy: 5,000 images with their first five sentences, "
    "25,000. Images and texts ask for each other: right are the rated pairs (SITS) with a score of 3.0 or more, the "
    "original ones among them only where they were rated so; {unrated}. Texts ask for texts: right are {co_captions}"
    "the pairs with an STS score of 3.0 or more. Images ask for images: right are the pairs with an SIS score of 2.5 "
    "or more{orders}. A row never finds itself, and without a positive it is not a query. "
    f"{SCORE[0].upper()}{SCORE[1:]} {ANY_OF} {AGAINST} {MEASURES}"
)


_DEFAULT_WORDS = {
    "split": "test",
    "unrated": "a caption without such an image is not a query (24,972 of the test's are)",
    "co_captions": "the other sentences of the same image, and ",
    "orders": ", in both orders",
}


def _make_protocol(name: str, words: dict[str, str], **choices: Any) -> CxcProtocol:
    """Make a protocol with some other choices, and the words of its definition that differ."""
    return CxcProtocol(name, _DEFINITION.format(**(_DEFAULT_WORDS | words)), **choices)


CXC = _make_protocol("cxc", {})
CXC_VAL = _make_protocol("cxc-val", {"split": "val"}, split="val")
CXC_DIRECTED = _make_protocol("cxc-directed", {"orders": ", in the order in which they were rated"}, is_symmetric=False)
CXC_EVERY_CAPTION = _make_protocol(
    "cxc-every-caption",
    {"unrated": "a caption without such an image counts as a query that finds nothing (25,000 queries of the test)"},
    has_unpaired_queries=True,
)
CXC_WITHOUT_CO_CAPTIONS = _make_protocol("cxc-without-co-captions", {"co_captions": ""}, has_co_captions=False)
CXC_CORRELATION = CxcCorrelation(
    name="cxc-correlation",
    definition=(
        "Spearman's correlation, times 100, of the cosine of two embeddings with the rating of the pair in "
        "Crisscrossed Captions, on the test split of MSCOCO by Karpathy: captions with captions (STS), images with "
        "images (SIS), captions with images (SITS). Over all rated pairs; and drawn, as the mean and the standard "
        f"deviation of {NUM_DRAWS:,} draws from a fixed seed. A draw takes every first member of a pair, all of them "
        "and not a part, each with one of its rated partners, so that none counts more for being rated more often."
    ),
)
