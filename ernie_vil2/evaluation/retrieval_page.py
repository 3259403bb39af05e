"""One page about a scored benchmark: the table, and queries with the pictures, captions and scores of their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from ernie_vil2.data.benchmark import BenchmarkImage
from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import BadSample
from ernie_vil2.evaluation.protocol import Evaluation
from ernie_vil2.evaluation.ranking import TIE_RULES
from ernie_vil2.evaluation.retrieval import DirectionResult, Row, columns_of, directions_of, table_cells
from ernie_vil2.pages import write_page

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

    In each scored direction it shows the `count` queries of the highest rank and those of the lowest, as `Cards` makes
    them. What the protocol says in words stands last.

    Args:
        facts: name and value of what was run, shown at the top before the protocol.
        rows: of the table, see `table_rows`.
    """
    protocol, cards = evaluation.protocol, Cards(evaluation, answers, device)
    queries = {
        f"{heading} queries, {arrow(direction)}": cards.of(
            direction, extreme_queries(result, count, heading == "Worst")
        )
        for direction, result in evaluation.results.items()
        for heading in ("Worst", "Best")
    }
    write_page(
        path,
        "retrieval.html",
        title=title,
        facts={
            **facts,
            "Protocol": protocol.name,
            "Galleries": evaluation.sizes,
        },
        table=recall_table(rows, [*evaluation.notes, figures_note(TIE_RULES[protocol.ties])]),
        queries=queries,
        definitions={f"Protocol {protocol.name}": protocol.definition},
    )


def figures_note(tie_rule: str) -> str:
    """What stands below a table of recalls."""
    return f"Percent; mR is the mean of both directions; {tie_rule}."


def recall_table(rows: Sequence[Row], notes: Sequence[str]) -> dict:
    """The table that `format_table` prints, with sentences below it, as `parts.recalls` of the pages shows it."""
    directions = directions_of(rows)
    return {
        "ways": list(map(arrow, directions)),
        "columns": columns_of(directions),
        "rows": [(label, None if values is None else table_cells(values, directions)) for label, values in rows],
        "notes": notes,
    }


def arrow(direction: str) -> str:
    """A direction for a person: `image → text`."""
    return direction.replace("_to_", " → ")


def extreme_queries(result: DirectionResult, count: int, worst: bool) -> np.ndarray:
    """The places of the worst or best queries, most extreme first.

    The worst have the highest rank, the best the lowest; among equal ranks the score of the best right answer decides,
    then the order of the benchmark.
    """
    places, sign = np.flatnonzero(result.ranking.rank), -1 if worst else 1
    rank, score = result.ranking.rank[places], result.ranking.positive_score[places]
    return places[np.lexsort((-sign * score, sign * rank))][:count]


def random_queries(result: DirectionResult, count: int, seed: int) -> np.ndarray:
    """Places of queries drawn, not picked, in the order of the draw; equal seeds draw the same of equal benchmarks."""
    return np.random.default_rng(seed).permutation(np.flatnonzero(result.ranking.rank))[:count]


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
        self.evaluation, self.benchmark = evaluation, evaluation.encoded.benchmark
        self.answers, self.device, self.language, self.tags = answers, device, language, tags
        self._thumbnails: dict[str, bytes | None] = {}
        self._captions = {image: self.benchmark.texts[text].text for image, text in self.benchmark.pairs[::-1].tolist()}

    def of(self, direction: str, places: np.ndarray) -> list[dict]:
        """The cards of the queries at some places of a direction, in that order."""
        result = self.evaluation.results[direction]
        best = result.best_answers(self.evaluation.encoded.sides, places, self.answers, self.device)
        found = zip(*(one.tolist() for one in (places, *best)), strict=True)
        return [self._card(result, *query) for query in found]

    def _card(self, result: DirectionResult, place: int, answers: list[int], scores: list[float]) -> dict:
        (asking, answering), found = result.asked.sides, result.ranking
        owners, targets = result.asked.positives.T
        right = set(targets[owners == place].tolist())
        shown = [
            self._answer(answering, result.asked.right[answer], score, answer in right)
            for answer, score in zip(answers, scores, strict=True)
            if answer >= 0
        ]
        rank = int(found.rank[place])
        if not right & set(answers):
            row = result.asked.right[found.positive[place]]
            shown.append(self._answer(answering, row, float(found.positive_score[place]), True, rank))
        query = self.benchmark.side(asking)[result.asked.left[place]]
        is_image = isinstance(query, BenchmarkImage)
        return {
            "query": query.id if is_image else query.text,
            "image": self._picture(query) if is_image else None,
            "language": "" if is_image else self.language,
            "tags": [*self.tags, f"rank {rank:,}"],
            "answers": shown,
        }

    def _answer(self, side: str, row: int, score: float, correct: bool, rank: int | None = None) -> dict:
        answer = self.benchmark.side(side)[row]
        is_image = isinstance(answer, BenchmarkImage)
        caption = self._captions.get(row, answer.id) if is_image else answer.text
        picture = self._picture(answer) if is_image else None
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
