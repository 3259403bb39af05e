"""Crisscrossed Captions (Parekh et al. 2021, arXiv 2004.15020): MSCOCO in four directions, and agreement with ratings.

People rated pairs of MSCOCO's validation images and captions from 0 to 5: captions with captions (STS), images with
images (SIS), captions with images (SITS).

No official code scores retrieval on the ratings; what public code leaves open is a field of
`CxcProtocol`, with a protocol of its own for the other choice.
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

MIN_POSITIVE_RATING = {"sts": 3.0, "sits": 3.0, "sis": 2.5}
"""From which rating on a pair belongs together."""
RETRIEVED = 100
KINDS_OF_RATINGS = {"sts": ("text", "text"), "sis": ("image", "image"), "sits": ("text", "image")}
"""The ratings by file name, and the sides of a rated pair."""
ROWS = {
    ("sts", "val"): 44_009, ("sis", "val"): 42_767, ("sits", "val"): 44_722,
    ("sts", "test"): 44_045, ("sis", "test"): 46_719, ("sits", "test"): 44_833,
}  # fmt: skip
"""Rated pairs of each published file, 267,095 together."""
DRAWS = 1000
_FOLDERS = ("", "cxc", "Crisscrossed-Captions/data", "crisscrossed-captions/data")
_CAPTION = re.compile(r"COCO_val2014:sentid:(\d+)")
_IMAGE = re.compile(r"COCO_val2014_\d{12}\.jpg")
_LONGEST_LINE = 200  # characters; the published ones have 74
_AGAIN = "is it the whole file? Get it again from github.com/google-research-datasets/Crisscrossed-Captions"


@dataclass(frozen=True)
class Ratings:
    """Rated pairs: ids of the first and the second of each, the score, and the file that says so."""

    path: Path
    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: np.ndarray


def read_ratings(folder: Path, kind: str, split: str) -> Ratings:
    """The ratings of `sts`, `sis` or `sits` as published, `KIND_SPLIT.csv`, or that file compressed, `.csv.gz`.

    Raises:
        FileNotFoundError: it is neither in `folder` nor in a folder `cxc` there.
        OSError: it cannot be read.
        ValueError: it is damaged: it is not as long as the published one, a row is not one of such a file, or all
            scores are one number. The message names it.
    """
    names = [folder / sub / f"{kind}_{split}.csv{ending}" for sub in _FOLDERS for ending in ("", ".gz")]
    path = next((name for name in names if name.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{folder}: no {kind}_{split}.csv of Crisscrossed Captions here nor in a folder cxc; put sts, sis and sits "
            "next to Karpathy's JSON"
        )
    return _read(path, kind, split)


@lru_cache(maxsize=8)
def _read(path: Path, kind: str, split: str) -> Ratings:
    patterns = [{"text": _CAPTION, "image": _IMAGE}[side] for side in KINDS_OF_RATINGS[kind]]
    sides, scores = (list[str](), list[str]()), list[float]()
    published = ROWS[kind, split]
    for number, line in enumerate(_lines(path), 1):
        if number == 1:
            continue  # the names of the columns
        if len(scores) == published:
            raise ValueError(f"{path}: more than the {published:,} pairs that were published; {_AGAIN}")
        try:
            *pair, score, _ = line.split(",")
            for ids, pattern, text in zip(sides, patterns, pair, strict=True):
                if (match := pattern.fullmatch(text)) is None:
                    raise ValueError
                ids.append(match[match.re.groups])
            scores.append(float(score))
            if not 0 <= scores[-1] <= 5:
                raise ValueError
        except ValueError:
            raise ValueError(f"{path}, line {number}: no pair with a rating from 0 to 5") from None
    if len(scores) != published:
        raise ValueError(f"{path}: {len(scores):,} of the {published:,} pairs that were published; {_AGAIN}")
    ratings = Ratings(path, tuple(sides[0]), tuple(sides[1]), np.array(scores))
    check_ratings_differ(ratings, ratings.scores)
    return ratings


def _lines(path: Path) -> Iterator[str]:
    """The lines without their ends; ValueError if the file is damaged, or a line is longer than any rating."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            while line := file.readline(_LONGEST_LINE + 1):
                if len(line) > _LONGEST_LINE:
                    raise ValueError("a line is too long for a rating")
                yield line.rstrip("\n")
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: damaged ({error}); {_AGAIN}") from None


def check_ratings_differ(ratings: Ratings, scores: np.ndarray) -> None:
    """ValueError if these of the ratings are none or all alike: nothing agrees with them more or less than another."""
    if not len(scores):
        raise ValueError(f"{ratings.path}: none of its pairs is of the images and captions that are scored")
    if scores.min() == scores.max():
        raise ValueError(f"{ratings.path}: all {len(scores):,} ratings are {scores[0]:g}; {_AGAIN}")


def correlations(
    cosines: np.ndarray, scores: np.ndarray, queries: np.ndarray, draws: int = DRAWS
) -> tuple[float, np.ndarray]:
    """Spearman's correlation of cosines and ratings `[P]`.

    Args:
        queries: `[P]`, what each pair is a partner of: in each draw every query has one of its partners, so that none
            counts more than another for being rated more often.

    Returns:
        That over all pairs, and those of the draws, `[draws]`.
    """
    from scipy.stats import spearmanr

    order = np.argsort(queries, kind="stable")
    _, starts, counts = np.unique(queries[order], return_index=True, return_counts=True)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(draws):
        rows = order[starts + (rng.random(len(starts)) * counts).astype(np.int64)]
        drawn.append(spearmanr(cosines[rows], scores[rows]).statistic)
    return float(spearmanr(cosines, scores).statistic), np.array(drawn)


@dataclass
class Cxc(Retrieval):
    """Retrieval by the protocols below; those of `Retrieval` can be named as well.

    Its best checkpoint is that of the best mean recall, unless ratings alone are compared.
    """

    protocol: Sequence[str] = ("cxc",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(one.directions for one in self.protocols.values()):
            self.best_by = None


@dataclass(frozen=True)
class _OfTestSplit(Protocol):
    scorer: ClassVar[str] = "cxc"
    split: str = "test"
    num_images: int | None = 5_000
    num_texts: int | None = 25_000
    max_texts_per_image: int | None = 5


@dataclass(frozen=True)
class CxcProtocol(_OfTestSplit):
    """Retrieval in four directions.

    Attributes:
        both_orders: whether an image pair that was rated in one order counts in the other as well.
        co_captions: whether the other captions of a caption's image belong to it, besides those rated so.
        every_caption: whether a caption without a positive counts as a query that finds nothing.
    """

    directions: tuple[str, ...] = (*DIRECTIONS, "text_to_text", "image_to_image")
    both_orders: bool = True
    co_captions: bool = True
    every_caption: bool = False

    def make_matchings(self, benchmark: Benchmark) -> list[Matching]:
        """Images with texts, texts with texts, images with images."""
        (galleries,) = super().make_matchings(benchmark)
        positions = {
            side: {benchmark.get_side(side)[row].id: position for position, row in enumerate(rows)}
            for side, rows in zip(galleries.sides, galleries[:2], strict=True)
        }
        rated = {kind: self._positives(benchmark, kind, positions) for kind in KINDS_OF_RATINGS}
        if self.both_orders:
            rated["sis"] = np.concatenate([rated["sis"], rated["sis"][:, ::-1]])
        texts = [rated["sts"], rated["sts"][:, ::-1]]
        if self.co_captions:
            texts.append(_co_captions(galleries.positives))
        return [
            galleries._replace(positives=np.unique(rated["sits"][:, ::-1], axis=0)),
            _with_itself("text", galleries.right, np.concatenate(texts)),
            _with_itself("image", galleries.left, rated["sis"]),
        ]

    def _positives(self, benchmark: Benchmark, kind: str, positions: Mapping[str, Mapping[str, int]]) -> np.ndarray:
        """Pairs of rows that were rated highly enough, of those whose rows are in the galleries."""
        ratings = read_ratings(_folder(benchmark), kind, self.split)
        first, second = (positions[side] for side in KINDS_OF_RATINGS[kind])
        good = (ratings.scores >= MIN_POSITIVE_RATING[kind]).nonzero()[0].tolist()
        pairs = [(first.get(ratings.first[row], -1), second.get(ratings.second[row], -1)) for row in good]
        found = np.array(pairs, np.int64).reshape(-1, 2)
        found = found[(found >= 0).all(axis=1)]
        if not len(found):
            raise ValueError(f"{ratings.path}: no pair of the images and captions that are scored is rated "
                             f"{MIN_POSITIVE_RATING[kind]} or more")  # fmt: skip
        return found

    def adjust_results(self, results: Results) -> Results:
        """Captions without a positive as queries that find nothing, where they shall count."""
        if not self.every_caption:
            return results
        return {**results, "text_to_image": results["text_to_image"].count_unpaired_as_misses()}

    def compute_measures(self, encoded: EncodedBenchmark, results: Results) -> dict[str, float]:
        """ECCV Caption's (Chun et al. 2022) mAP@R and R-Precision in percent, where its package is installed."""
        if self.find_differences(encoded.benchmark) or self.split != "test":
            return {}  # its positives are those of the whole test split
        try:
            from eccv_caption import Metrics
        except ImportError:
            return {}
        retrieved = {
            short: _retrieved(results[direction], encoded)
            for short, direction in (("i2t", "image_to_text"), ("t2i", "text_to_image"))
        }
        found = Metrics().compute_all_metrics(
            retrieved["i2t"], retrieved["t2i"], target_metrics=("eccv_map_at_r", "eccv_rprecision"), Ks=(1,)
        )
        names = {"eccv_map_at_r": "ECCV mAP@R", "eccv_rprecision": "ECCV R-Precision"}
        ways = {"i2t": "image to text", "t2i": "text to image"}
        return {
            f"{names[measure]}, {ways[way]}": 100 * float(value)
            for measure, values in found.items()
            for way, value in values.items()
        }


@dataclass(frozen=True)
class CxcCorrelation(_OfTestSplit):
    """Spearman's correlation of cosine and rating, for STS, SIS and SITS."""

    directions: tuple[str, ...] = ()
    packages: tuple[str, ...] = ("scipy",)
    draws: int = DRAWS

    def compute_measures(self, encoded: EncodedBenchmark, results: Results) -> dict[str, float]:
        """Times 100, over all rated pairs; and the mean of the draws with its standard deviation."""
        benchmark, found = encoded.benchmark, dict[str, float]()
        for kind, sides in KINDS_OF_RATINGS.items():
            ratings = read_ratings(_folder(benchmark), kind, self.split)
            rows = [{row.id: number for number, row in enumerate(benchmark.get_side(side))} for side in sides]
            pairs = np.array([(rows[0].get(a, -1), rows[1].get(b, -1))
                              for a, b in zip(ratings.first, ratings.second, strict=True)])  # fmt: skip
            there = (pairs >= 0).all(axis=1)
            check_ratings_differ(ratings, ratings.scores[there])
            first, second = (encoded.embeddings[side][pairs[there, column]] for column, side in enumerate(sides))
            cosines = np.einsum("pd,pd->p", first.astype(np.float64), second.astype(np.float64))
            whole, drawn = correlations(cosines, ratings.scores[there], pairs[there, 0], self.draws)
            found |= {kind.upper(): whole, f"{kind.upper()}, drawn": drawn.mean(),
                      f"{kind.upper()}, drawn, standard deviation": drawn.std()}  # fmt: skip
        return {name: 100 * float(value) for name, value in found.items()}


def _folder(benchmark: Benchmark) -> Path:
    if not benchmark.files:
        raise ValueError("Crisscrossed Captions is scored on MSCOCO's folder: the ratings lie next to its JSON")
    return benchmark.files[0].parent


def _co_captions(pairs: np.ndarray) -> np.ndarray:
    """All pairs of different texts that share an image, of pairs (image, text)."""
    order = np.argsort(pairs[:, 0], kind="stable")
    groups = np.split(pairs[order, 1], np.flatnonzero(np.diff(pairs[order, 0])) + 1)
    found = [np.stack(np.meshgrid(texts, texts, indexing="ij"), axis=-1).reshape(-1, 2) for texts in groups]
    joined = np.concatenate(found)
    return joined[joined[:, 0] != joined[:, 1]]


def _with_itself(side: str, rows: np.ndarray, positives: np.ndarray) -> Matching:
    own = np.arange(len(rows))
    positives = np.unique(positives[positives[:, 0] != positives[:, 1]], axis=0)
    return Matching(rows, rows, positives, (side, side), np.stack([own, own], axis=1))


def _retrieved(result: DirectionResult, encoded: EncodedBenchmark) -> dict[int, list[int]]:
    """The best answers to every row by MSCOCO's numbers, as ECCV Caption takes them."""
    rows = np.arange(len(result.matching.left))
    answers, _ = result.find_best_answers(encoded.embeddings, rows, min(RETRIEVED, len(result.matching.right)))
    numbers = [
        np.array([int(re.findall(r"\d+", encoded.benchmark.get_side(side)[row].id)[-1]) for row in chosen])
        for side, chosen in zip(result.matching.sides, result.matching[:2], strict=True)
    ]
    return dict(zip(numbers[0].tolist(), numbers[1][answers].tolist(), strict=True))


_DEFINITION = (
    "Crisscrossed Captions on the {split} split of MSCOCO by Karpathy: 5,000 images with their first five sentences, "
    "25,000. Images and texts ask for each other: right are the rated pairs (SITS) with a score of 3.0 or more, the "
    "original ones among them only where they were rated so; {unrated}. Texts ask for texts: right are {co_captions}"
    "the pairs with an STS score of 3.0 or more. Images ask for images: right are the pairs with an SIS score of 2.5 "
    "or more{orders}. A row never finds itself, and without a positive it is not a query. "
    f"{SCORE[0].upper()}{SCORE[1:]} {ANY_OF} {AGAINST} {MEASURES}"
)


_USUAL = {
    "split": "test",
    "unrated": "a caption without such an image is not a query (24,972 of the test's are)",
    "co_captions": "the other sentences of the same image, and ",
    "orders": ", in both orders",
}


def _protocol(name: str, words: dict[str, str], **choices: Any) -> CxcProtocol:
    """The protocol that differs in some choices, with the words in which its definition differs."""
    return CxcProtocol(name, _DEFINITION.format(**_USUAL | words), **choices)


CXC = _protocol("cxc", {})
CXC_VAL = _protocol("cxc-val", {"split": "val"}, split="val")
CXC_DIRECTED = _protocol("cxc-directed", {"orders": ", in the order in which they were rated"}, both_orders=False)
CXC_EVERY_CAPTION = _protocol(
    "cxc-every-caption",
    {"unrated": "a caption without such an image counts as a query that finds nothing (25,000 queries of the test)"},
    every_caption=True,
)
CXC_WITHOUT_CO_CAPTIONS = _protocol("cxc-without-co-captions", {"co_captions": ""}, co_captions=False)
CXC_CORRELATION = CxcCorrelation(
    name="cxc-correlation",
    definition=(
        "Spearman's correlation, times 100, of the cosine of two embeddings with the rating of the pair in "
        "Crisscrossed Captions, on the test split of MSCOCO by Karpathy: captions with captions (STS), images with "
        "images (SIS), captions with images (SITS). Over all rated pairs; and drawn, as the mean and the standard "
        f"deviation of {DRAWS:,} draws from a fixed seed. A draw takes every first member of a pair, all of them "
        "and not a part, each with one of its rated partners, so that none counts more for being rated more often."
    ),
)
