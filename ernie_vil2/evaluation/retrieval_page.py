"""One self-contained HTML page about a scored benchmark: the table, and its worst and best queries with images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from ernie_vil2.data.benchmark import BenchmarkImage
from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import BadSample
from ernie_vil2.evaluation.curves import ARROWS
from ernie_vil2.evaluation.evaluator import Evaluation
from ernie_vil2.evaluation.protocols import Asked, Scored
from ernie_vil2.evaluation.ranking import top_matches
from ernie_vil2.evaluation.report import query_cards, results_table, write_page
from ernie_vil2.evaluation.retrieval import Row

SIDE = 160  # pixels of a thumbnail's longer side: twice what the page shows, for fine screens
QUALITY = 80


def write_retrieval_page(
    path: str | Path,
    *,
    title: str,
    facts: Mapping[str, str],
    rows: Sequence[Row],
    evaluation: Evaluation,
    count: int = 12,
    answers: int = 5,
    device: str = "cpu",
) -> None:
    """Write the page to `path`, whole or not at all.

    In each scored direction it shows the `count` queries of the highest rank and those of the lowest, with their
    `answers` best answers; a right answer that is not among them stands behind them with its rank. Images are
    thumbnails, so that the page stays small whatever the benchmark; an image that cannot be read is left out.

    Args:
        facts: name and value of what was run, shown at the top before the protocol.
        rows: of the table, see `table_rows`.
    """
    scored, result = evaluation.scored, evaluation.result
    facts = {
        **facts,
        "Protocol": scored.protocol.name,
        "Galleries": f"{result.images:,} images, {result.texts:,} texts, {result.pairs:,} pairs",
    }
    if evaluation.differences:
        facts["Differences"] = " ".join(evaluation.differences)
    cards = _Cards(evaluation, answers, device)
    definition = f'<p class="note">{escape(scored.protocol.definition)}</p>'
    sections = {"Retrieval": results_table(rows, result.tie_rule) + definition}
    for direction in scored.protocol.directions:
        for heading, worst in (("Worst", True), ("Best", False)):
            chosen = extreme_queries(scored, direction, count, worst)
            sections[f"{heading} queries, {ARROWS[direction]}"] = query_cards(cards.of(direction, chosen))
    write_page(path, title, facts, sections)


def extreme_queries(scored: Scored, direction: str, count: int, worst: bool) -> list[tuple[int, int]]:
    """The worst or best queries, most extreme first, as (fold, place in the fold's gallery of queries).

    The worst have the highest rank, the best the lowest; among equal ranks the score of the best right answer decides,
    then the order of the benchmark.
    """
    found = [fold.asked(direction).ranking for fold in scored.folds]
    fold = np.repeat(np.arange(len(found)), [len(ranking.rank) for ranking in found])
    place = np.concatenate([np.arange(len(ranking.rank)) for ranking in found])
    rank = np.concatenate([ranking.rank for ranking in found])
    score = np.concatenate([ranking.positive_score for ranking in found])
    queries = np.flatnonzero(rank > 0)
    sign = -1 if worst else 1
    order = queries[np.lexsort((-sign * score[queries], sign * rank[queries]))][:count]
    return list(zip(fold[order].tolist(), place[order].tolist(), strict=True))


class _Cards:
    """Makes queries with their answers, as `query_cards` takes them."""

    def __init__(self, evaluation: Evaluation, answers: int, device: str):
        self.benchmark, self.scored = evaluation.encoded.benchmark, evaluation.scored
        self.images, self.texts = evaluation.encoded.images, evaluation.encoded.texts
        self.answers, self.device = answers, device
        self._thumbnails: dict[str, bytes | None] = {}

    def of(self, direction: str, chosen: Sequence[tuple[int, int]]) -> list[dict]:
        """The cards of queries given as by `extreme_queries`, in that order."""
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
            {**self._answer(direction, asked.gallery[row]), "score": score, "correct": row in right}
            for row, score in zip(rows, scores, strict=True)
        ]
        rank = f"rank {asked.ranking.rank[place]:,}"
        if not right & set(rows):
            answer = self._answer(direction, asked.gallery[asked.ranking.positive[place]])
            score = float(asked.ranking.positive_score[place])
            answers.append({**answer, "score": score, "correct": True, "note": rank})
        query = asked.queries[place]
        image = self.benchmark.images[query] if direction == "image_to_text" else None
        return {
            "query": image.id if image else self.benchmark.texts[query].text,
            "query_image": self._picture(image) if image else None,
            "language": "",
            "note": rank,
            "answers": answers,
        }

    def _answer(self, direction: str, row: int) -> dict:
        if direction == "image_to_text":
            return {"image": None, "caption": self.benchmark.texts[row].text}
        image = self.benchmark.images[row]
        return {"image": self._picture(image), "caption": image.id}

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
