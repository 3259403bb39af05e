"""Single queries of a retrieval: their ranks for CSV, their best answers for JSON lines, and examples for the page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from ernie_vil2.data.benchmark import BenchmarkImage, BenchmarkText
from ernie_vil2.data.decoding import decode_image, encode_thumbnail
from ernie_vil2.data.samples import BadSample
from ernie_vil2.evaluation.embedding_files import number_ids
from ernie_vil2.evaluation.protocol import Evaluation
from ernie_vil2.evaluation.ranking import TIE_RULES
from ernie_vil2.evaluation.report import Page, Section
from ernie_vil2.evaluation.retrieval import DirectionResult, Row, format_direction, make_recall_table
from ernie_vil2.pages import Answer, Card

SIDE = 160  # pixels of a thumbnail's longer side: twice what the page shows, for fine screens
QUALITY = 80
SHOWN = 12
"""Queries of a kind on a page."""
CSV_COLUMNS = (
    "result",
    "direction",
    "query_id",
    "query",
    "rank",
    "best_positive_id",
    "best_positive_score",
    "top_id",
    "top_score",
)
Evaluations = Mapping[str, Evaluation]
"""By the label that each has in the table."""


def ranks(evaluations: Evaluations) -> Iterator[list]:
    """For each query a row of `CSV_COLUMNS`: its rank, its best right answer and what comes first.

    `query` is the text or, for an image, its id. Of equal scores the answer of the lower row is named.
    """
    for label, evaluation in evaluations.items():
        for direction, result in evaluation.results.items():
            queries, gallery = map(evaluation.encoded.benchmark.side, result.matching.sides)
            found, rows = result.ranking, result.matching.right
            for position in np.flatnonzero(found.rank):
                query = queries[result.matching.left[position]]
                yield [
                    label,
                    direction,
                    query.id,
                    query.text if isinstance(query, BenchmarkText) else query.id,
                    found.rank[position],
                    gallery[rows[found.positive[position]]].id,
                    found.positive_score[position],
                    gallery[rows[found.top[position]]].id,
                    found.top_score[position],
                ]


def best_answers(evaluations: Evaluations, k: int, device: str = "cpu") -> Iterator[dict[str, Any]]:
    """For each query its k best answers, best first.

    `{"result", "direction", "query_id", "query", "answers": [{"id", "score"}, ...]}`
    """
    for label, evaluation in evaluations.items():
        for direction, result in evaluation.results.items():
            for query, answers in _answers(evaluation, result, k, device):
                yield {
                    "result": label,
                    "direction": direction,
                    "query_id": query.id,
                    "query": query.text if isinstance(query, BenchmarkText) else query.id,
                    "answers": [{"id": answer, "score": score} for answer, score in answers],
                }


def predictions(evaluation: Evaluation, k: int, device: str = "cpu") -> Iterator[dict[str, Any]]:
    """The k best images of every text in the form of Chinese-CLIP and MUGE: `{"text_id", "image_ids"}`.

    The ids are those of `number_ids`; where they are not the benchmark's own, these follow them, as `name` and
    `image_names`.
    """
    benchmark = evaluation.encoded.benchmark
    images, texts = (
        {row.id: number for row, number in zip(side, number_ids(side), strict=True)}
        for side in (benchmark.images, benchmark.texts)
    )
    for query, answers in _answers(evaluation, evaluation.results["text_to_image"], k, device):
        names = [name for name, _ in answers]
        entry: dict[str, Any] = {"text_id": texts[query.id], "image_ids": [images[name] for name in names]}
        if str(entry["text_id"]) != query.id:
            entry["name"] = query.id
        if list(map(str, entry["image_ids"])) != names:
            entry["image_names"] = names
        yield entry


def _answers(
    evaluation: Evaluation, result: DirectionResult, k: int, device: str
) -> Iterator[tuple[BenchmarkImage | BenchmarkText, list[tuple[str, float]]]]:
    """Every query with the ids and scores of its best answers."""
    queries, gallery = map(evaluation.encoded.benchmark.side, result.matching.sides)
    positions = np.arange(len(result.matching.left))
    best = result.find_best_answers(
        evaluation.encoded.embeddings, positions, min(k, len(result.matching.right)), device
    )
    for row, *found in zip(result.matching.left, *(one.tolist() for one in best), strict=True):
        yield (
            queries[row],
            [
                (gallery[result.matching.right[position]].id, score)
                for position, score in zip(*found, strict=True)
                if position >= 0
            ],
        )


def extreme_queries(result: DirectionResult, count: int, worst: bool) -> np.ndarray:
    """The positions of the worst or best queries, most extreme first.

    The worst have the highest rank, the best the lowest; among equal ranks the score of the best right answer decides,
    then the order of the benchmark.
    """
    positions, sign = np.flatnonzero(result.ranking.rank), -1 if worst else 1
    rank, score = result.ranking.rank[positions], result.ranking.positive_score[positions]
    return positions[np.lexsort((-sign * score, sign * rank))][:count]


def random_queries(result: DirectionResult, count: int, seed: int) -> np.ndarray:
    """Positions of queries drawn, not picked, in the order of the draw; equal seeds draw alike."""
    return np.random.default_rng(seed).permutation(np.flatnonzero(result.ranking.rank))[:count]


class Thumbnails:
    """Images as small JPEG files, so that a page stays small whatever the benchmark; each is read once."""

    def __init__(self) -> None:
        self._made: dict[str, bytes | None] = {}

    def __call__(self, *images: BenchmarkImage) -> list[bytes]:
        """Those of some images, without the ones that cannot be read."""
        for image in images:
            if image.id not in self._made:
                self._made[image.id] = thumbnail(image)
        return [small for image in images if (small := self._made[image.id])]


def thumbnail(image: BenchmarkImage) -> bytes | None:
    """The image as a small JPEG file; None if it cannot be read."""
    try:
        return encode_thumbnail(decode_image(image.read(), image.id), SIDE, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    except (BadSample, OSError):
        return None


class Cards:
    """Makes queries of an evaluation into cards.

    An image that cannot be read is left out.

    Args:
        answers: best ones shown; a right answer that is not among them follows with its rank.
        language: of the texts; "": recognised from each.
        tags: that precede every query.
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
        self._thumbnails = Thumbnails()
        self._captions = {image: self.benchmark.texts[text].text for image, text in self.benchmark.pairs[::-1].tolist()}

    def of(self, direction: str, positions: np.ndarray) -> list[Card]:
        """The cards of the queries at some positions of a direction, in that order."""
        result = self.evaluation.results[direction]
        best = result.find_best_answers(self.evaluation.encoded.embeddings, positions, self.answers, self.device)
        found = zip(*(one.tolist() for one in (positions, *best)), strict=True)
        return [self._card(result, *query) for query in found]

    def _card(self, result: DirectionResult, position: int, answers: list[int], scores: list[float]) -> Card:
        (asking, answering), found = result.matching.sides, result.ranking
        owners, targets = result.matching.positives.T
        right = set(targets[owners == position].tolist())
        shown = [
            self._answer(answering, result.matching.right[answer], score, answer in right)
            for answer, score in zip(answers, scores, strict=True)
            if answer >= 0
        ]
        rank = int(found.rank[position])
        if not right & set(answers):
            row = result.matching.right[found.positive[position]]
            shown.append(self._answer(answering, row, float(found.positive_score[position]), True, rank))
        query = self.benchmark.side(asking)[result.matching.left[position]]
        tags = [*self.tags, f"rank {rank:,}"]
        if isinstance(query, BenchmarkText):
            return Card(query.text, shown, tags=tags, language=self.language)
        return Card(query.id, shown, self._thumbnails(query), tags)

    def _answer(self, side: str, row: int, score: float, correct: bool, rank: int | None = None) -> Answer:
        answer = self.benchmark.side(side)[row]
        if isinstance(answer, BenchmarkText):
            return Answer(answer.text, score, correct, rank=rank)
        image = next(iter(self._thumbnails(answer)), None)
        return Answer(self._captions.get(row, answer.id), score, correct, image, rank)


def retrieval_page(
    evaluation: Evaluation, rows: Sequence[Row], device: str = "cpu", count: int = SHOWN, answers: int = 5
) -> Page:
    """The table, in each direction the queries of the highest rank and of the lowest, and the protocol in words.

    Args:
        count: queries of a kind.
        answers: of each, see `Cards`.
    """
    protocol, cards = evaluation.protocol, Cards(evaluation, answers, device)
    notes = [*evaluation.notes, figures_note(TIE_RULES[protocol.ties])]
    examples = [
        Section(
            f"{heading} queries, {format_direction(direction)}",
            cards=cards.of(direction, extreme_queries(result, count, heading == "Worst")),
        )
        for direction, result in evaluation.results.items()
        for heading in ("Worst", "Best")
    ]
    return Page(
        {"Protocol": protocol.name, "Galleries": evaluation.sizes},
        [
            Section("Retrieval", tables=[make_recall_table(rows, notes)]),
            *examples,
            Section("What the figures mean", definitions={f"Protocol {protocol.name}": protocol.definition}),
        ],
        data={"summary": _in_a_sentence(evaluation)},
    )


def _in_a_sentence(evaluation: Evaluation) -> str:
    """The share of queries that find a right answer first, by direction, and the mean recall; "" without recalls."""
    recalls = {
        format_direction(way): result.recall["R@1"]
        for way, result in evaluation.results.items()
        if "R@1" in result.recall
    }
    if not recalls:
        return ""
    first = " and ".join(f"{recall:.1f} % ({way})" for way, recall in recalls.items())
    mean = "" if evaluation.mean_recall is None else f"; mean recall {evaluation.mean_recall:.2f} %"
    return f"A right answer comes first for {first} of the queries{mean}."


def figures_note(tie_rule: str) -> str:
    """The notes below a table of recalls."""
    return f"Percent; mR is the mean of both directions; {tie_rule}."
