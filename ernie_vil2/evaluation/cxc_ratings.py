"""The ratings of Crisscrossed Captions (Parekh et al. 2021, arXiv 2004.15020), and how similarities agree with them.

People rated pairs of MSCOCO's validation images and captions from 0 to 5: captions with captions (STS), images with
images (SIS), captions with images (SITS).
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

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
    check_different(ratings, ratings.scores)
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


def check_different(ratings: Ratings, scores: np.ndarray) -> None:
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
