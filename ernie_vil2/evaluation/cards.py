"""Queries with their best answers, for a page: pictures, captions, scores, and the rank of the right answer."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ernie_vil2.data.benchmark import BenchmarkImage
from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import BadSample
from ernie_vil2.evaluation.evaluator import Evaluation
from ernie_vil2.evaluation.protocols import Asked, Scored
from ernie_vil2.evaluation.ranking import top_matches

SIDE = 160  # pixels of a thumbnail's longer side: twice what the page shows, for fine screens
QUALITY = 80

Query = tuple[int, int]
"""A fold, and the place in the fold's gallery of queries."""


def extreme_queries(scored: Scored, direction: str, count: int, worst: bool) -> list[Query]:
    """The worst or best queries, most extreme first.

    The worst have the highest rank, the best the lowest; among equal ranks the score of the best right answer decides,
    then the order of the benchmark.
    """
    fold, place, rank, score = _queries(scored, direction)
    sign = -1 if worst else 1
    order = np.lexsort((-sign * score, sign * rank))[:count]
    return list(zip(fold[order].tolist(), place[order].tolist(), strict=True))


def random_queries(scored: Scored, direction: str, count: int, seed: int) -> list[Query]:
    """Queries drawn, not picked, in the order of the draw; equal seeds draw the same of benchmarks of equal shape."""
    fold, place, *_ = _queries(scored, direction)
    order = np.random.default_rng(seed).permutation(len(place))[:count]
    return list(zip(fold[order].tolist(), place[order].tolist(), strict=True))


def _queries(scored: Scored, direction: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fold, place, rank and score of the best right answer of all rows that are queries."""
    found = [fold.asked(direction).ranking for fold in scored.folds]
    fold = np.repeat(np.arange(len(found)), [len(ranking.rank) for ranking in found])
    place = np.concatenate([np.arange(len(ranking.rank)) for ranking in found])
    rank = np.concatenate([ranking.rank for ranking in found])
    score = np.concatenate([ranking.positive_score for ranking in found])
    queries = np.flatnonzero(rank > 0)
    return fold[queries], place[queries], rank[queries], score[queries]


class Cards:
    """Makes queries of an evaluation into what `parts.queries` of the pages shows.

    Images are thumbnails, so that a page stays small whatever the benchmark; an image that cannot be read is left out.

    Args:
        answers: best ones shown; a right answer that is not among them stands behind them with its rank.
        language: of the texts; "": told from each.
        tags: that stand before every query.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        answers: int = 5,
        device: str = "cpu",
        language: str = "",
        tags: Sequence[str] = (),
    ):
        self.benchmark, self.scored = evaluation.encoded.benchmark, evaluation.scored
        self.images, self.texts = evaluation.encoded.images, evaluation.encoded.texts
        self.answers, self.device, self.language, self.tags = answers, device, language, tags
        self._thumbnails: dict[str, bytes | None] = {}
        self._captions = {image: self.benchmark.texts[text].text for image, text in self.benchmark.pairs[::-1].tolist()}

    def of(self, direction: str, chosen: Sequence[Query]) -> list[dict]:
        """The cards of queries, in that order."""
        made = {}
        for number in {fold for fold, _ in chosen}:
            asked = self.scored.folds[number].asked(direction)
            places = [place for fold, place in chosen if fold == number]
            sides = self.images, self.texts
            queries, gallery = sides if direction == "image_to_text" else reversed(sides)
            count = min(self.answers, len(asked.gallery))
            best = top_matches(queries[asked.queries[places]], gallery[asked.gallery], count, device=self.device)
            for place, rows, scores in zip(places, *best, strict=True):
                made[number, place] = self._card(direction, asked, place, rows.tolist(), scores.tolist())
        return [made[query] for query in chosen]

    def _card(self, direction: str, asked: Asked, place: int, rows: list[int], scores: list[float]) -> dict:
        owners, targets = asked.positives.T
        right = set(targets[owners == place].tolist())
        answers = [
            self._answer(direction, asked.gallery[row], score, row in right)
            for row, score in zip(rows, scores, strict=True)
        ]
        rank = int(asked.ranking.rank[place])
        if not right & set(rows):
            row = asked.gallery[asked.ranking.positive[place]]
            answers.append(self._answer(direction, row, float(asked.ranking.positive_score[place]), True, rank))
        query = asked.queries[place]
        image = self.benchmark.images[query] if direction == "image_to_text" else None
        return {
            "query": image.id if image else self.benchmark.texts[query].text,
            "image": self._picture(image) if image else None,
            "language": "" if image else self.language,
            "tags": [*self.tags, f"rank {rank:,}"],
            "answers": answers,
        }

    def _answer(self, direction: str, row: int, score: float, correct: bool, rank: int | None = None) -> dict:
        image = self.benchmark.images[row] if direction == "text_to_image" else None
        caption = self._captions.get(row, image.id) if image else self.benchmark.texts[row].text
        picture = self._picture(image) if image else None
        return {"image": picture, "caption": caption, "score": score, "correct": correct, "rank": rank}

    def _picture(self, image: BenchmarkImage) -> bytes | None:
        if image.id not in self._thumbnails:
            self._thumbnails[image.id] = thumbnail(image)
        return self._thumbnails[image.id]


def thumbnail(image: BenchmarkImage) -> bytes | None:
    """The image as a small JPEG file; None if it cannot be read."""
    try:
        pixels = decode_image(image.read(), image.id)
    except (BadSample, OSError):
        return None
    shrink = min(1.0, SIDE / max(pixels.shape[:2]))
    size = [max(1, round(length * shrink)) for length in reversed(pixels.shape[:2])]
    small = cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
