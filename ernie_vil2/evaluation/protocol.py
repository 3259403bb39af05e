"""Protocols: complete definitions of how a retrieval benchmark is scored, and the evaluations that they give.

The same embeddings get very different scores under the conventions in use, so a score means something only next to the
name of its protocol. A protocol selects galleries from the rows of a benchmark, then scores them. Protocols of
retrieval are entries of `protocols.yaml`; a scorer with measures of its own defines its protocols itself.
docs/protocols.md lists all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ernie_vil2.config import read_yaml
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.encoder import Encoder
from ernie_vil2.evaluation.encoded import EncodedBenchmark, encode_benchmark
from ernie_vil2.evaluation.published import PublishedResult
from ernie_vil2.evaluation.ranking import TIE_RULES, Blocks
from ernie_vil2.evaluation.retrieval import (
    DIRECTIONS,
    Matching,
    Results,
    Row,
    mean_recall,
    mean_reciprocal_rank,
    score_matchings,
    summarize,
)
from ernie_vil2.io.terminal import pluralize
from ernie_vil2.registry import Registry, UnknownName, unknown_name


@dataclass(frozen=True)
class Protocol:
    """Definition of galleries, right answers, ties and averages of a retrieval benchmark.

    `make_matchings` and `directions` alone decide which rows are queries. A protocol with queries and galleries of one
    side, or with positives other than the benchmark's pairs, overrides `make_matchings`.

    Attributes:
        scorer: name of the scorer that the protocol belongs to.
        name: name of the protocol.
        definition: complete definition in words.
        split: split of the benchmark; None: any.
        num_images: expected number of selected images; None: any number.
        num_texts: expected number of selected texts; None: any number.
        max_images: number of images that are used, the first ones in the order of the files; None: all.
        max_texts_per_image: number of texts of each image that are used, the first ones; None: all.
        fold_size: images of one fold; folds are cut in the order of the files, and each is scored on its own. None: the
            whole benchmark is one gallery.
        has_row_labels: each pair is a row with an image and a text of its own, and no other row is right for it.
        directions: directions that are scored.
        ties: tie rule, see `ernie_vil2.evaluation.ranking.TIE_RULES`.
        packages: modules of optional packages that the measures need.
    """

    scorer: ClassVar[str] = "retrieval"
    name: str
    definition: str
    split: str | None = None
    num_images: int | None = None
    num_texts: int | None = None
    max_images: int | None = None
    max_texts_per_image: int | None = None
    fold_size: int | None = None
    has_row_labels: bool = False
    directions: tuple[str, ...] = DIRECTIONS
    ties: str = "pessimistic"
    packages: tuple[str, ...] = ()

    def select(self, benchmark: Benchmark) -> Benchmark:
        """Return the rows of a benchmark that are in a gallery, see `select_rows`."""
        return select_rows(benchmark, [self])

    @property
    def expected_counts(self) -> dict[str, int]:
        """Expected number of `images` and `texts` after selection, as far as they are fixed."""
        counts = {"images": self.num_images, "texts": self.num_texts}
        return {side: count for side, count in counts.items() if count is not None}

    def find_differences(self, benchmark: Benchmark) -> list[str]:
        """Return a sentence for each count of a selected benchmark that the protocol does not expect."""
        counts = {"images": len(benchmark.images), "texts": len(benchmark.texts)}
        sentences = []
        for side, expected in self.expected_counts.items():
            count = counts[side]
            if count != expected:
                comparison = "more" if count > expected else "fewer"
                sentences.append(
                    f"{self.name} expects {expected:,} {side}; here are {count:,}, {abs(count - expected):,} "
                    f"{comparison}."
                )
        return sentences

    def list_notes(self, benchmark: Benchmark) -> list[str]:
        """Return how a selected benchmark differs from the expected one, and how many rows are no queries."""
        sentences = self.find_differences(benchmark)
        for side, rows, column in (("images", benchmark.images, 0), ("texts", benchmark.texts, 1)):
            num_unpaired = len(rows) - len(np.unique(benchmark.pairs[:, column]))
            if num_unpaired:
                sentences.append(f"{side.capitalize()} in no pair, in the gallery, but no queries: {num_unpaired:,}.")
        return sentences

    def make_matchings(self, benchmark: Benchmark) -> list[Matching]:
        """Return the rows that are scored against each other, and their positives; one matching for each fold."""
        pairs = benchmark.pairs
        image_rows = np.arange(len(benchmark.images))[: self.max_images]
        is_selected = pairs[:, 0] < len(image_rows)
        if self.max_texts_per_image is not None:
            is_selected &= number_occurrences(pairs[:, 0]) < self.max_texts_per_image
        selected_pairs = pairs[is_selected]

        if self.has_row_labels:
            # Every pair is a row: an image with two texts is in the gallery twice.
            rows = np.arange(len(selected_pairs))
            return [Matching(selected_pairs[:, 0], selected_pairs[:, 1], np.stack([rows, rows], axis=1))]

        if self.fold_size is None:
            # A text leaves the gallery only if all of its pairs do: texts without any pair stay.
            removed_texts = np.setdiff1d(pairs[:, 1], selected_pairs[:, 1])
            text_rows = np.setdiff1d(np.arange(len(benchmark.texts)), removed_texts)
            return [_make_matching(image_rows, text_rows, selected_pairs)]

        # A fold is a gallery of its own: some images and their texts, without the texts that have no pair.
        folds = []
        for start in range(0, len(image_rows), self.fold_size):
            fold_images = image_rows[start : start + self.fold_size]
            fold_pairs = selected_pairs[np.isin(selected_pairs[:, 0], fold_images)]
            folds.append(_make_matching(fold_images, np.unique(fold_pairs[:, 1]), fold_pairs))
        return folds

    def adjust_results(self, results: Results) -> Results:
        """Return the final results of the directions; a subclass may change them."""
        return results

    def compute_measures(self, encoded: EncodedBenchmark, results: Results) -> dict[str, float]:
        """Return further measures by name, which are printed below the table; none unless a subclass has some."""
        return {}


def number_occurrences(values: np.ndarray) -> np.ndarray:
    """Return for each entry how many earlier entries have the same value, int64."""
    order = np.argsort(values, kind="stable")
    sorted_values = values[order]
    num_earlier = np.empty(len(values), np.int64)
    # In sorted order, this is the distance from the first entry with the same value.
    num_earlier[order] = np.arange(len(values)) - np.searchsorted(sorted_values, sorted_values)
    return num_earlier


def _make_matching(image_rows: np.ndarray, text_rows: np.ndarray, pairs: np.ndarray) -> Matching:
    """Make a matching of ascending rows; the pairs, rows of the benchmark, become positions among these rows."""
    image_positions = np.searchsorted(image_rows, pairs[:, 0])
    text_positions = np.searchsorted(text_rows, pairs[:, 1])
    return Matching(image_rows, text_rows, np.stack([image_positions, text_positions], axis=1))


def select_rows(benchmark: Benchmark, protocols: Sequence[Protocol]) -> Benchmark:
    """Return the rows of a benchmark that any of the protocols puts into a gallery; only these are encoded.

    Select before encoding: an image that turns out to be broken then leaves a gap that is counted, and no image beyond
    `Protocol.max_images` takes its place.
    """
    # An empty array each, as a protocol may have no texts or no images at all.
    rows_by_side = {"image": [np.zeros(0, np.int64)], "text": [np.zeros(0, np.int64)]}
    for protocol in protocols:
        for matching in protocol.make_matchings(benchmark):
            left_side, right_side = matching.sides
            rows_by_side[left_side].append(matching.left)
            rows_by_side[right_side].append(matching.right)
    images = np.unique(np.concatenate(rows_by_side["image"]))
    texts = np.unique(np.concatenate(rows_by_side["text"]))
    return benchmark.select(images, texts)


@dataclass(frozen=True)
class Evaluation:
    """The embeddings of a benchmark, scored by a protocol.

    Attributes:
        protocol: protocol that scored them.
        encoded: embeddings of the selected benchmark.
        results: result of each direction.
        measures: further measures of the protocol by name.
        empty_directions: directions that a selection of queries has left without any; the mean over the other
            directions could not be compared with the mean over all.
    """

    protocol: Protocol
    encoded: EncodedBenchmark
    results: Results
    measures: Mapping[str, float] = field(default_factory=dict)
    empty_directions: tuple[str, ...] = ()

    @property
    def mean_recall(self) -> float | None:
        """Mean of the directions' mR in percent; None if a selection of queries has emptied a direction."""
        return None if self.empty_directions else mean_recall(self.results)

    @property
    def sizes(self) -> str:
        """Sizes of the galleries and number of pairs, in words."""
        values = summarize(self.results)
        sizes = [pluralize(values[f"{kind}s"], kind) for kind in ("image", "text", "pair") if f"{kind}s" in values]
        return ", ".join(sizes)

    @cached_property
    def notes(self) -> list[str]:
        """Sentences on how the data differ from what the protocol expects, and how many rows are no queries."""
        return self.protocol.list_notes(self.encoded.benchmark)

    def as_dict(self) -> dict:
        """Return sizes, recalls, chance and measures for JSON and tables, see `retrieval.summarize`."""
        values = summarize(self.results) | {"mR": self.mean_recall}
        # The official evaluator, whose convention row labels are, prints the mean reciprocal rank as well.
        if self.protocol.has_row_labels:
            for direction, result in self.results.items():
                ranks = result.ranking.rank[result.ranking.rank > 0]
                if len(ranks):
                    values[direction] = {**result.recall, "MRR": mean_reciprocal_rank(ranks)}
        if self.measures:
            values["measures"] = dict(self.measures)
        return {**values, "tie_rule": TIE_RULES[self.protocol.ties]}

    @property
    def record(self) -> dict[str, Any]:
        """Result, protocol and benchmark for JSON: all that the scores depend on."""
        protocol, benchmark = self.protocol, self.encoded.benchmark
        num_queries = {
            direction: int(np.count_nonzero(result.ranking.rank)) for direction, result in self.results.items()
        }
        return {
            "protocol": protocol.name,
            "definition": protocol.definition,
            "tie_rule": TIE_RULES[protocol.ties],
            "notes": self.notes,
            "benchmark": {
                "name": benchmark.name,
                "images": len(benchmark.images),
                "texts": len(benchmark.texts),
                "pairs": len(benchmark.pairs),
                "queries": num_queries,
                "files": [str(path) for path in benchmark.files],
                "rows": benchmark.entry_report.as_dict(),
                "encoded": self.encoded.bad_samples.as_dict(),
            },
            "result": self.as_dict(),
        }

    def select_queries(self, field_name: str, value: str, needs_queries: bool = True) -> Evaluation:
        """Return the evaluation of the queries whose field has a value; the galleries stay whole.

        A direction whose queries never have the value, for example because only images have the field, is left without
        queries.

        Args:
            field_name: name of the field.
            value: value of the field as text.
            needs_queries: raise an error if no direction has such a query.

        Raises:
            ValueError: no direction has such a query.
        """
        results = {}
        empty_directions = []
        existing_values: set[str] = set()
        for direction, result in self.results.items():
            query_side, _ = result.matching.sides
            rows = self.encoded.benchmark.get_side(query_side)
            is_selected = np.zeros(len(rows), bool)
            # Rows without a right answer may have the value, but are no queries.
            for number in result.matching.left[result.ranking.rank > 0].tolist():
                row_value = rows[number].fields.get(field_name)
                if row_value is not None:  # str(None) would equal the value "None"
                    is_selected[number] = str(row_value) == value
                    existing_values.add(str(row_value))
            if not is_selected.any():
                empty_directions.append(direction)
            results[direction] = result.select_queries(is_selected)

        if needs_queries and len(empty_directions) == len(results):
            examples = ", ".join(sorted(existing_values)[:10]) or "none"
            raise ValueError(f"no query has {field_name} = {value}; values here: {examples}")
        return replace(self, results=results, measures={}, empty_directions=tuple(empty_directions))


def make_table_rows(
    title: str,
    evaluations: Mapping[str, Evaluation],
    baselines: Mapping[str, Mapping] | None = None,
    published: Iterable[PublishedResult] = (),
) -> list[Row]:
    """Return the rows of a table: a heading, results and baselines by label, chance and published results.

    Chance is left out where it differs between the results, as with galleries of different sizes.
    """
    # The rows below the heading are indented.
    rows: list[Row] = [(title, None)]
    chances = []
    for label, evaluation in evaluations.items():
        values = evaluation.as_dict()
        rows.append((f"  {label}", values))
        chances.append(values["chance"])
    for label, recalls in (baselines or {}).items():
        rows.append((f"  {label}", dict(recalls)))
    if all(chance == chances[0] for chance in chances):
        rows.append(("  chance", chances[0]))
    for result in published:
        rows.append((f"  published: {result.title}", dict(result.values)))
    return rows


def make_queries_title(name: str, evaluations: Iterable[Evaluation]) -> str:
    """Return a heading of table rows: the name of the queries, and their share of the images and texts."""
    descriptions: dict[str, None] = {}  # distinct ones, in order
    counts_by_side: dict[str, list[int]] = {}
    for evaluation in evaluations:
        counts: dict[str, None] = {}
        for result in evaluation.results.values():
            side, _ = result.matching.sides
            num_rows = len(result.ranking.rank)
            num_queries = int(np.count_nonzero(result.ranking.rank))
            count = pluralize(num_rows, side)
            if num_queries < num_rows:
                count = f"{num_queries:,} of {count}"
            counts[count] = None
            counts_by_side.setdefault(side, []).append(num_queries)
        descriptions[", ".join(counts)] = None
    if len(descriptions) == 1:
        return f"{name} ({next(iter(descriptions))})"

    # The results differ, as languages do: the range over all results.
    ranges = []
    for side, query_counts in counts_by_side.items():
        count = pluralize(max(query_counts), side)
        if min(query_counts) < max(query_counts):
            count = f"{min(query_counts):,} to {count}"
        ranges.append(count)
    return f"{name} ({', '.join(ranges)}, by row)"


def score_embeddings(
    encoded: EncodedBenchmark,
    protocol: Protocol,
    block: int = 1024,
    device: str = "cpu",
    needs_answers: bool = True,
) -> Evaluation:
    """Score the embeddings of a benchmark by a protocol.

    Args:
        encoded: embeddings of the selected benchmark.
        protocol: protocol to score by.
        block: rows of either side that are scored at once.
        device: device that computes the scores, see `Blocks`.
        needs_answers: raise an error if no query has a right answer; otherwise such an evaluation has no results.

    Raises:
        ValueError: an embedding is not finite, or no query has a right answer.
    """
    # A protocol without directions has measures only, and its galleries are not ranked.
    matchings = protocol.make_matchings(encoded.benchmark) if protocol.directions else []
    blocks = Blocks(block, device)
    results = score_matchings(matchings, encoded.embeddings, protocol.directions, ties=protocol.ties, blocks=blocks)
    final_results = protocol.adjust_results(results)
    measures = protocol.compute_measures(encoded, final_results)
    if needs_answers and mean_recall(final_results) is None and not measures:
        raise ValueError(
            f"{encoded.benchmark.name}: nothing to score, as no query of {protocol.name} has a right answer here; "
            "--top-k 10 writes the best answers all the same"
        )
    return Evaluation(protocol, encoded, final_results, measures)


def evaluate(model: Encoder, benchmark: Benchmark, protocol: Protocol) -> Evaluation:
    """Encode the rows of a benchmark that a protocol needs, and score them."""
    return score_embeddings(encode_benchmark(model, protocol.select(benchmark)), protocol)


_IMAGE_TO_TEXT = "Every image asks for its texts among all texts of the gallery"
_TEXT_TO_IMAGE = "every text for its image among all images of the gallery"
SCORE = "scores are dot products of the embeddings."
_BOTH_WAYS = f"{_IMAGE_TO_TEXT}, {_TEXT_TO_IMAGE}; {SCORE}"
ANY_OF = "Where several answers are right, any of them counts: a query's rank is that of the best-ranked one."
AGAINST = (
    "Ties count against the model: the rank is 1 + the number of wrong answers that score at least as high as the "
    "best right one."
)
MEASURES = (
    "R@K is the share of queries of rank at most K, mR the mean of R@1, R@5 and R@10, and the two-way mR the mean of "
    "both directions."
)
# Sentences that definitions share, by the names that stand for them in `protocols.yaml`.
SENTENCES = {
    "score": SCORE,
    "any_of": ANY_OF,
    "against": AGAINST,
    "measures": MEASURES,
    "usual": f"{_BOTH_WAYS} {ANY_OF} {AGAINST} {MEASURES}",
}
PROTOCOL_FILE = Path(__file__).with_name("protocols.yaml")


def _read_protocols() -> dict[str, Protocol]:
    """Read the protocols of retrieval by name; raise TypeError if an entry has an unknown field."""
    protocols = {}
    for name, entry in read_yaml(PROTOCOL_FILE).items():
        # Most definitions end in the same sentences, which the file abbreviates.
        definition = entry.pop("definition").format(**SENTENCES)
        directions = tuple(entry.pop("directions", Protocol.directions))
        protocols[name] = Protocol(name, definition, directions=directions, **entry)
    return protocols


# All protocols by name; those of other scorers are imported when they are looked up.
PROTOCOLS: Registry[Protocol] = Registry(
    "protocol",
    {
        **_read_protocols(),
        "cxc": "ernie_vil2.evaluation.scorers.cxc:CXC",
        "cxc-val": "ernie_vil2.evaluation.scorers.cxc:CXC_VAL",
        "cxc-directed": "ernie_vil2.evaluation.scorers.cxc:CXC_DIRECTED",
        "cxc-every-caption": "ernie_vil2.evaluation.scorers.cxc:CXC_EVERY_CAPTION",
        "cxc-without-co-captions": "ernie_vil2.evaluation.scorers.cxc:CXC_WITHOUT_CO_CAPTIONS",
        "cxc-correlation": "ernie_vil2.evaluation.scorers.cxc:CXC_CORRELATION",
    },
    [protocol_field.name for protocol_field in fields(Protocol)],
)
ALL_CONVENTIONS = "all-conventions"
# The conventions in use, and the protocol that follows each: the same embeddings score very differently.
CONVENTIONS = {"any-of": "pairs", "first-text": "first-text", "row-label": "official-rows"}


def find_protocol(name: str) -> Protocol:
    """Return the protocol with a name.

    Raises:
        UnknownName: there is none; the message suggests the nearest name.
    """
    if name == ALL_CONVENTIONS:
        raise UnknownName(f"{name} stands for several protocols; name one of {', '.join(CONVENTIONS.values())}")
    if name not in PROTOCOLS and ":" not in name:
        raise unknown_name("protocol", name, [*PROTOCOLS, ALL_CONVENTIONS])
    return PROTOCOLS.find(name)


def make_conventions(selection: Protocol | None = None) -> dict[str, Protocol]:
    """Return the protocols of the three conventions.

    Args:
        selection: protocol whose selection of images and texts they score; None: the whole benchmark.
    """
    protocols = {convention: find_protocol(name) for convention, name in CONVENTIONS.items()}
    if selection is not None:
        for convention, protocol in protocols.items():
            protocols[convention] = replace(
                protocol,
                definition=f"On the images and texts that {selection.name} selects. {protocol.definition}",
                max_images=selection.max_images,
                max_texts_per_image=protocol.max_texts_per_image or selection.max_texts_per_image,
            )
    return protocols


def choose_protocols(names: Sequence[str]) -> dict[str, Protocol]:
    """Return the protocols that a command names, by label; a single one has the empty label.

    `all-conventions` stands for three protocols, on the images and texts that the first other protocol selects, if
    there is one.

    Raises:
        ValueError: there is no name.
        UnknownName: a name is unknown.
    """
    if not names:
        raise ValueError("no protocol is named; the default is pairs")
    protocols = [find_protocol(name) for name in names if name != ALL_CONVENTIONS]
    protocols_by_label = {protocol.name: protocol for protocol in protocols}
    if ALL_CONVENTIONS in names:
        protocols_by_label |= make_conventions(protocols[0] if protocols else None)
    # A single protocol needs no label to tell its results from others.
    if len(protocols_by_label) == 1:
        return {"": protocols[0]}
    return protocols_by_label


def find_protocol_scorer(names: Sequence[str]) -> str:
    """Return the name of the scorer that knows all of these protocols.

    Raises:
        UnknownName: a name is unknown.
    """
    # Special scorers know the protocols of retrieval as well.
    for protocol in choose_protocols(names).values():
        if protocol.scorer != Protocol.scorer:
            return protocol.scorer
    return Protocol.scorer
