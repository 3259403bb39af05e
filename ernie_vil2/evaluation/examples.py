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

# Longer side of a thumbnail in pixels: twice what the page shows, for screens of high resolution.
THUMBNAIL_SIDE = 160
# Quality of the JPEG files; with it, a thumbnail takes a few KiB of the page.
JPEG_QUALITY = 80
# Best and worst queries on a page, for each direction: enough for an impression, and the page stays small.
NUM_EXAMPLES = 12
# Answers to each query on a page: one row of thumbnails.
NUM_ANSWERS = 5
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
"""Evaluations by their label in the table."""


def list_ranks(evaluations: Evaluations) -> Iterator[list]:
    """Yield a row of `CSV_COLUMNS` for each query.

    Besides the rank it holds the best right answer, blank if there is none, and the first answer. `query` is the text
    or, for an image, its id. Of answers with equal scores, the one of the lower row is listed.
    """
    for label, evaluation in evaluations.items():
        for direction, result in evaluation.results.items():
            queries, gallery = map(evaluation.encoded.benchmark.get_side, result.matching.sides)
            ranking, gallery_rows = result.ranking, result.matching.right
            for position in np.flatnonzero(ranking.rank):
                query = queries[result.matching.left[position]]
                best_positive = ["", ""]  # of a query that counts as a miss: nothing is right for it
                if ranking.positive[position] >= 0:
                    row = gallery_rows[ranking.positive[position]]
                    best_positive = [gallery[row].id, ranking.positive_score[position]]
                yield [
                    label,
                    direction,
                    query.id,
                    _text_or_id(query),
                    ranking.rank[position],
                    *best_positive,
                    gallery[gallery_rows[ranking.top[position]]].id,
                    ranking.top_score[position],
                ]


def list_best_answers(evaluations: Evaluations, k: int, device: str = "cpu") -> Iterator[dict[str, Any]]:
    """Yield the k best answers to each query, best first.

    An entry is `{"result", "direction", "query_id", "query", "answers": [{"id", "score"}, ...]}`.

    Args:
        evaluations: the evaluations.
        k: number of answers to each query.
        device: device that computes the scores.
    """
    for label, evaluation in evaluations.items():
        for direction, result in evaluation.results.items():
            for query, answers in _find_answers(evaluation, result, k, device):
                yield {
                    "result": label,
                    "direction": direction,
                    "query_id": query.id,
                    "query": _text_or_id(query),
                    "answers": [{"id": answer, "score": score} for answer, score in answers],
                }


def list_predictions(evaluation: Evaluation, k: int, device: str = "cpu") -> Iterator[dict[str, Any]]:
    """Yield the k best images of every text as Chinese-CLIP and MUGE expect them: `{"text_id", "image_ids"}`.

    The ids are numbers from `number_ids`. If they differ from the benchmark's ids, these follow as `name` and
    `image_names`.

    Args:
        evaluation: the evaluation.
        k: number of images of each text.
        device: device that computes the scores.
    """
    benchmark = evaluation.encoded.benchmark
    number_of_image = _map_ids_to_numbers(benchmark.images)
    number_of_text = _map_ids_to_numbers(benchmark.texts)
    for query, answers in _find_answers(evaluation, evaluation.results["text_to_image"], k, device):
        # The original ids are added only if the numbers are others: evaluations elsewhere expect the two keys alone.
        names = [name for name, _ in answers]
        text_id, image_ids = number_of_text[query.id], [number_of_image[name] for name in names]
        entry: dict[str, Any] = {"text_id": text_id, "image_ids": image_ids}
        if str(text_id) != query.id:
            entry["name"] = query.id
        if list(map(str, image_ids)) != names:
            entry["image_names"] = names
        yield entry


def _map_ids_to_numbers(entries: Sequence[BenchmarkImage] | Sequence[BenchmarkText]) -> dict[str, int]:
    return {entry.id: number for entry, number in zip(entries, number_ids(entries), strict=True)}


def _text_or_id(entry: BenchmarkImage | BenchmarkText) -> str:
    return entry.text if isinstance(entry, BenchmarkText) else entry.id


def _find_answers(
    evaluation: Evaluation, result: DirectionResult, k: int, device: str
) -> Iterator[tuple[BenchmarkImage | BenchmarkText, list[tuple[str, float]]]]:
    """Yield every query with the ids and scores of its best answers."""
    queries, gallery = map(evaluation.encoded.benchmark.get_side, result.matching.sides)
    query_rows, gallery_rows = result.matching.left, result.matching.right
    k = min(k, len(gallery_rows))
    positions = np.arange(len(query_rows))
    answers, scores = result.find_best_answers(evaluation.encoded.embeddings, positions, k, device)  # [Q, k] each
    for row, query_answers, query_scores in zip(query_rows, answers.tolist(), scores.tolist(), strict=True):
        answers_with_scores = []
        for answer, score in zip(query_answers, query_scores, strict=True):
            if answer >= 0:  # -1: the gallery of a fold has fewer answers than asked for
                answers_with_scores.append((gallery[gallery_rows[answer]].id, score))
        yield queries[row], answers_with_scores


def find_extreme_queries(result: DirectionResult, count: int, worst: bool) -> np.ndarray:
    """Return the positions of the worst or of the best queries, most extreme first.

    The worst queries have the highest ranks, the best ones the lowest. Among equal ranks the score of the best right
    answer decides, then the order of the benchmark.
    """
    positions = np.flatnonzero(result.ranking.rank)
    ranks, scores = result.ranking.rank[positions], result.ranking.positive_score[positions]
    # Ranks come before scores: the last key of lexsort is the primary one.
    order = np.lexsort((scores, -ranks)) if worst else np.lexsort((-scores, ranks))
    return positions[order][:count]


def draw_queries(result: DirectionResult, count: int, seed: int) -> np.ndarray:
    """Draw the positions of queries at random; the same seed draws the same queries."""
    return np.random.default_rng(seed).permutation(np.flatnonzero(result.ranking.rank))[:count]


class Thumbnails:
    """Cache of small JPEG files of images, so that a page stays small and each image is read once."""

    def __init__(self) -> None:
        self._cache: dict[str, bytes | None] = {}

    def __call__(self, *images: BenchmarkImage) -> list[bytes]:
        """Return the thumbnails of all images that can be read."""
        thumbnails = []
        for image in images:
            if image.id not in self._cache:
                self._cache[image.id] = make_thumbnail(image)
            thumbnail = self._cache[image.id]
            if thumbnail:
                thumbnails.append(thumbnail)
        return thumbnails


def make_thumbnail(image: BenchmarkImage) -> bytes | None:
    """Return the image as a small JPEG file; None if it cannot be read."""
    try:
        pixels = decode_image(image.read(), image.id)
        return encode_thumbnail(pixels, THUMBNAIL_SIDE, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    except (BadSample, OSError):
        return None


class CardMaker:
    """Makes cards of an evaluation's queries; images that cannot be read are left out.

    Args:
        evaluation: the evaluation.
        num_answers: best answers on a card; if no right one is among them, the best right answer follows with its
            rank.
        device: device that computes the scores.
        language: language of the texts; "": recognised from each text.
        tags: tags in front of the rank, for every query.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        num_answers: int = NUM_ANSWERS,
        device: str = "cpu",
        language: str = "",
        tags: Sequence[str] = (),
    ):
        self.evaluation, self.benchmark = evaluation, evaluation.encoded.benchmark
        self.num_answers, self.device, self.language, self.tags = num_answers, device, language, tags
        self._thumbnails = Thumbnails()
        # The first text of each image: going backwards, it is set last.
        self._captions: dict[int, str] = {}
        for image_row, text_row in self.benchmark.pairs[::-1].tolist():
            self._captions[image_row] = self.benchmark.texts[text_row].text

    def make_cards(self, direction: str, positions: np.ndarray) -> list[Card]:
        """Return the cards of the queries at these positions of a direction, in this order."""
        result = self.evaluation.results[direction]
        answers, scores = result.find_best_answers(
            self.evaluation.encoded.embeddings, positions, self.num_answers, self.device
        )
        cards = []
        for position, query_answers, query_scores in zip(
            positions.tolist(), answers.tolist(), scores.tolist(), strict=True
        ):
            cards.append(self._make_card(result, position, query_answers, query_scores))
        return cards

    def _make_card(self, result: DirectionResult, position: int, answers: list[int], scores: list[float]) -> Card:
        query_side, gallery_side = result.matching.sides
        gallery_rows, ranking = result.matching.right, result.ranking
        positive_queries, positive_answers = result.matching.positives.T
        right_answers = set(positive_answers[positive_queries == position].tolist())

        card_answers = []
        for answer, score in zip(answers, scores, strict=True):
            if answer >= 0:  # -1: the gallery of a fold has fewer answers than asked for
                is_right = answer in right_answers
                card_answers.append(self._make_answer(gallery_side, gallery_rows[answer], score, is_right))
        rank = int(ranking.rank[position])
        if right_answers and right_answers.isdisjoint(answers):
            row, score = gallery_rows[ranking.positive[position]], float(ranking.positive_score[position])
            card_answers.append(self._make_answer(gallery_side, row, score, True, rank))

        query_row = result.matching.left[position]
        query = self.benchmark.get_side(query_side)[query_row]
        tags = [*self.tags, f"rank {rank:,}"]
        if isinstance(query, BenchmarkText):
            return Card(query.text, card_answers, tags=tags, language=self.language)
        caption = self._captions.get(query_row, query.id)
        return Card(caption, card_answers, self._thumbnails(query), tags, self.language)

    def _make_answer(self, side: str, row: int, score: float, is_correct: bool, rank: int | None = None) -> Answer:
        entry = self.benchmark.get_side(side)[row]
        if isinstance(entry, BenchmarkText):
            return Answer(entry.text, score, is_correct, rank=rank)
        thumbnails = self._thumbnails(entry)
        image = thumbnails[0] if thumbnails else None  # no thumbnail if the image cannot be read
        return Answer(self._captions.get(row, entry.id), score, is_correct, image, rank)


def make_retrieval_page(
    evaluation: Evaluation,
    rows: Sequence[Row],
    device: str = "cpu",
    num_examples: int = NUM_EXAMPLES,
    num_answers: int = NUM_ANSWERS,
) -> Page:
    """Return the page of an evaluation: table, worst and best queries of each direction, and the protocol in words.

    Args:
        evaluation: the evaluation.
        rows: rows of the table.
        device: device that computes the scores.
        num_examples: number of worst, and of best, queries of each direction.
        num_answers: answers to each query, see `CardMaker`.
    """
    protocol, card_maker = evaluation.protocol, CardMaker(evaluation, num_answers, device)
    notes = [*evaluation.notes, describe_recalls(TIE_RULES[protocol.ties])]
    sections = [Section("Retrieval", tables=[make_recall_table(rows, notes)])]
    for direction, result in evaluation.results.items():
        for heading, worst in (("Worst", True), ("Best", False)):
            positions = find_extreme_queries(result, num_examples, worst)
            cards = card_maker.make_cards(direction, positions)
            sections.append(Section(f"{heading} queries, {format_direction(direction)}", cards=cards))
    definitions = {f"Protocol {protocol.name}": protocol.definition}
    sections.append(Section("What the figures mean", definitions=definitions))
    facts = {"Protocol": protocol.name, "Galleries": evaluation.sizes}
    return Page(facts, sections, data={"summary": _summarise(evaluation)})


def _summarise(evaluation: Evaluation) -> str:
    """Return a sentence on how many queries find a right answer first; "" if the evaluation has no recalls."""
    shares = []
    for direction, result in evaluation.results.items():
        if "R@1" in result.recall:
            shares.append(f"{result.recall['R@1']:.1f} % ({format_direction(direction)})")
    if not shares:
        return ""
    sentence = f"A right answer comes first for {' and '.join(shares)} of the queries"
    if evaluation.mean_recall is not None:
        sentence += f"; mean recall {evaluation.mean_recall:.2f} %"
    return f"{sentence}."


def describe_recalls(tie_rule: str) -> str:
    """Return the note below a table of recalls.

    Args:
        tie_rule: how equal scores count, in words.
    """
    return f"Percent; mR is the mean of both directions; {tie_rule}."
