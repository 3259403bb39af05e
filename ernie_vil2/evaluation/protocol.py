"""A protocol: a complete definition of how a retrieval benchmark is scored, and what it makes of embeddings.

The same embeddings get very different figures under the conventions in use, so that a figure means something only
with its protocol next to it. A protocol chooses the galleries from the benchmark's rows, then scores them.
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
from ernie_vil2.encoder import ErnieViL2
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
from ernie_vil2.io.terminal import counted
from ernie_vil2.registry import Registry, unknown


@dataclass(frozen=True)
class Protocol:
    """A complete definition: which rows are the galleries, what is right, how ties count, what is averaged.

    What asks what follows from `matchings` and `directions` alone: a protocol whose queries and galleries are of one
    side, or whose positives are not the benchmark's pairs, has a `matchings` of its own.

    Attributes:
        scorer: name of the scorer that it is one of.
        name: by which it is called.
        definition: in words, all of it.
        split: of the benchmark, where it is a fixed one.
        images, texts: how many the benchmark has after selection, where the benchmark is a fixed one.
        max_images: only so many images, the first in the order of the files.
        max_texts_per_image: only so many texts of each image, the first in the order of the files.
        fold: images of one fold; folds are cut in the order of the files and scored each on its own.
        has_row_labels: whether each pair is a row of its own, right for nothing but itself.
        directions: those that are scored.
        ties: see `ernie_vil2.evaluation.ranking.TIE_RULES`.
        packages: modules of extras that its measures need.
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
        """The part of a benchmark that is in some gallery; see `select_rows`."""
        return select_rows(benchmark, [self])

    @property
    def expected_counts(self) -> dict[str, int]:
        """Number of `images` and of `texts` after selection, of those that are fixed."""
        counts = {"images": self.num_images, "texts": self.num_texts}
        return {side: count for side, count in counts.items() if count is not None}

    def find_differences(self, benchmark: Benchmark) -> list[str]:
        """A sentence for each count of a selected benchmark that is not what the protocol expects."""
        here = {"images": len(benchmark.images), "texts": len(benchmark.texts)}
        return [
            f"{self.name} expects {count:,} {side}; here are {here[side]:,}, {abs(here[side] - count):,} "
            f"{'more' if here[side] > count else 'fewer'}."
            for side, count in self.expected_counts.items()
            if here[side] != count
        ]

    def describe(self, benchmark: Benchmark) -> list[str]:
        """How a selected benchmark differs from what the protocol expects, and which of its rows are not queries."""
        sentences = self.find_differences(benchmark)
        for side, rows, column in (("images", benchmark.images, 0), ("texts", benchmark.texts, 1)):
            if unpaired := len(rows) - len(np.unique(benchmark.pairs[:, column])):
                sentences.append(f"{side.capitalize()} in no pair, in the gallery, but no queries: {unpaired:,}.")
        return sentences

    def make_matchings(self, benchmark: Benchmark) -> list[Matching]:
        """What is scored against what, and what is right: one matching, or one for each fold."""
        image_rows, pairs = np.arange(len(benchmark.images))[: self.max_images], benchmark.pairs
        keep = pairs[:, 0] < len(image_rows)
        if self.max_texts_per_image is not None:
            keep &= number_occurrences(pairs[:, 0]) < self.max_texts_per_image
        kept = pairs[keep]
        if self.has_row_labels:
            rows = np.arange(len(kept))
            return [Matching(kept[:, 0], kept[:, 1], np.stack([rows, rows], axis=1))]
        text_rows = np.setdiff1d(np.arange(len(benchmark.texts)), np.setdiff1d(pairs[:, 1], kept[:, 1]))
        if self.fold_size is None:
            return [_renumbered(image_rows, text_rows, kept)]
        folds = []
        for start in range(0, len(image_rows), self.fold_size):
            rows = image_rows[start : start + self.fold_size]
            own = kept[np.isin(kept[:, 0], rows)]
            folds.append(_renumbered(rows, np.unique(own[:, 1]), own))
        return folds

    def adjust_results(self, results: Results) -> Results:
        """What is made of the results of the directions at last."""
        return results

    def compute_measures(self, encoded: EncodedBenchmark, results: Results) -> dict[str, float]:
        """Further figures by name, which follow the table."""
        return {}


def number_occurrences(owners: np.ndarray) -> np.ndarray:
    """For each entry how many earlier entries have the same owner."""
    order = np.argsort(owners, kind="stable")
    ordered = owners[order]
    position = np.empty(len(owners), np.int64)
    position[order] = np.arange(len(owners)) - np.searchsorted(ordered, ordered)
    return position


def _renumbered(images: np.ndarray, texts: np.ndarray, pairs: np.ndarray) -> Matching:
    """A matching of ascending rows, from pairs that name rows of the benchmark."""
    positions = [np.searchsorted(rows, column) for rows, column in zip((images, texts), pairs.T, strict=True)]
    return Matching(images, texts, np.stack(positions, axis=1))


def select_rows(benchmark: Benchmark, protocols: Sequence[Protocol]) -> Benchmark:
    """The part of a benchmark that any of the protocols puts into a gallery: all that has to be encoded for them.

    Select before encoding: an image that turns out broken then leaves a gap that is counted, and no image beyond
    a protocol's first so many replaces it.
    """
    chosen: dict[str, list[np.ndarray]] = {"image": [], "text": []}
    for matching in (one for protocol in protocols for one in protocol.make_matchings(benchmark)):
        for side, rows in zip(matching.sides, matching[:2], strict=True):
            chosen[side].append(rows)
    images, texts = (np.unique(np.concatenate([np.zeros(0, np.int64), *rows])) for rows in chosen.values())
    return benchmark.select(images, texts)


@dataclass(frozen=True)
class Evaluation:
    """A benchmark's embeddings with what a protocol makes of them: results by direction, further measures by name.

    `empty_directions` names the directions that a selection of queries has left without any; the mean over the
    other directions could not be compared with the mean over all of them.
    """

    protocol: Protocol
    encoded: EncodedBenchmark
    results: Results
    measures: Mapping[str, float] = field(default_factory=dict)
    empty_directions: tuple[str, ...] = ()

    @property
    def mean_recall(self) -> float | None:
        """As `retrieval.mean_recall`; None where a choice of queries has empty_directions a direction."""
        return None if self.empty_directions else mean_recall(self.results)

    @property
    def sizes(self) -> str:
        """The galleries and pairs, in words."""
        values = summarize(self.results)
        return ", ".join(
            counted(values[f"{kind}s"], kind) for kind in ("image", "text", "pair") if f"{kind}s" in values
        )

    @cached_property
    def notes(self) -> list[str]:
        """How the data differ from what the protocol expects, and which rows are not queries."""
        return self.protocol.describe(self.encoded.benchmark)

    def as_dict(self) -> dict:
        """For JSON and tables, see `retrieval.summarize`."""
        values = summarize(self.results) | {"mR": self.mean_recall}
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
        """All that the figures depend on, for JSON."""
        protocol, benchmark = self.protocol, self.encoded.benchmark
        return {
            "protocol": protocol.name,
            "definition": protocol.definition,
            "tie_rule": TIE_RULES[protocol.ties],
            "differences": self.notes,
            "benchmark": {
                "name": benchmark.name,
                "images": len(benchmark.images),
                "texts": len(benchmark.texts),
                "pairs": len(benchmark.pairs),
                "queries": {way: int((one.ranking.rank > 0).sum()) for way, one in self.results.items()},
                "files": [str(path) for path in benchmark.files],
                "rows": benchmark.rows.as_dict(),
                "encoded": self.encoded.bad_samples.as_dict(),
            },
            "result": self.as_dict(),
        }

    def select_queries(self, field: str, value: str, needs_queries: bool = True) -> Evaluation:
        """Return the evaluation of the queries whose field has this value; the galleries stay whole.

        A direction whose queries do not have it, as where only images have the field, is left without queries.

        Args:
            needs_queries: False: it is not an error when no direction has such a query.

        Raises:
            ValueError: no row of a side that asks has it.
        """
        results = {}
        empty_directions = []
        known: set[str] = set()
        for direction, result in self.results.items():
            rows = self.encoded.benchmark.side(result.matching.sides[0])
            chosen = np.zeros(len(rows), bool)
            for number, row in enumerate(rows):
                found = row.fields.get(field)
                if found is not None:  # else a row without the field would have the value None
                    chosen[number] = str(found) == value
                    known.add(str(found))
            if not chosen.any():
                empty_directions.append(direction)
            results[direction] = result.select_queries(chosen)
        if needs_queries and len(empty_directions) == len(results):
            raise ValueError(f"no sample has {field} = {value}; values here: {', '.join(sorted(known)[:10]) or 'none'}")
        return replace(self, results=results, measures={}, empty_directions=tuple(empty_directions))


def make_table_rows(
    title: str,
    evaluations: Mapping[str, Evaluation],
    baselines: Mapping[str, Mapping] | None = None,
    published: Iterable[PublishedResult] = (),
) -> list[Row]:
    """Return the rows of one table: a heading, results and baselines by label, chance and published rows.

    Chance is left out where it differs from result to result, as galleries of different sizes make it.
    """
    results = {label: evaluation.as_dict() for label, evaluation in evaluations.items()}
    rows: list[Row] = [(title, None)]
    rows += [(f"  {label}", values) for label, values in results.items()]
    rows += [(f"  {label}", dict(values)) for label, values in (baselines or {}).items()]
    chances = [values["chance"] for values in results.values()]
    if all(chance == chances[0] for chance in chances):
        rows.append(("  chance", chances[0]))
    return rows + [(f"  published: {row.title}", dict(row.values)) for row in published]


def make_queries_title(what: str, evaluations: Iterable[Evaluation]) -> str:
    """The heading of some rows: what their queries are, and how many of the images and texts they are."""
    asking: dict[str, None] = {}
    sides: dict[str, list[int]] = {}
    for evaluation in evaluations:
        counts: dict[str, None] = {}
        for result in evaluation.results.values():
            rank = result.ranking.rank
            some, every, side = int(np.count_nonzero(rank)), len(rank), result.matching.sides[0]
            counts[f"{some:,} of " * (some < every) + counted(every, side)] = None
            sides.setdefault(side, []).append(some)
        asking[", ".join(counts)] = None
    if len(asking) == 1:
        return f"{what} ({next(iter(asking))})"
    ranges = (f"{min(some):,} to " * (min(some) < max(some)) + counted(max(some), side) for side, some in sides.items())
    return f"{what} ({', '.join(ranges)}, by row)"


def score_embeddings(
    encoded: EncodedBenchmark,
    protocol: Protocol,
    block: int = 1024,
    device: str = "cpu",
    needs_answers: bool = True,
) -> Evaluation:
    """Scores embeddings by a protocol; `block` and `device` as of `Blocks`.

    Args:
        needs_answers: False: it is not an error when no right answer is known, and nothing is scored then.

    Raises:
        ValueError: an embedding that is not finite, or no query.
    """
    found = score_matchings(
        protocol.make_matchings(encoded.benchmark) if protocol.directions else [], encoded.embeddings,
        protocol.directions,
        ties=protocol.ties, blocks=Blocks(block, device),
    )  # fmt: skip
    results = protocol.adjust_results(found)
    measures = protocol.compute_measures(encoded, results)
    if needs_answers and mean_recall(results) is None and not measures:
        raise ValueError(
            f"{encoded.benchmark.name}: nothing to score, as no image or text that {protocol.name} asks has a right "
            "answer here; --top-k 10 writes the best answers all the same"
        )
    return Evaluation(protocol, encoded, results, measures)


def evaluate(model: ErnieViL2, benchmark: Benchmark, protocol: Protocol) -> Evaluation:
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
SENTENCES = {
    "score": SCORE,
    "any_of": ANY_OF,
    "against": AGAINST,
    "measures": MEASURES,
    "usual": f"{_BOTH_WAYS} {ANY_OF} {AGAINST} {MEASURES}",
}
"""Sentences that definitions share, by the names that stand for them in `protocols.yaml`."""
PATH = Path(__file__).with_name("protocols.yaml")


def _read_protocols() -> dict[str, Protocol]:
    """Read the protocols of retrieval by name; TypeError if an entry has a field that a protocol has not."""
    protocols = {}
    for name, entry in read_yaml(PATH).items():
        definition = entry.pop("definition").format(**SENTENCES)
        directions = tuple(entry.pop("directions", Protocol.directions))
        protocols[name] = Protocol(name, definition, directions=directions, **entry)
    return protocols


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
    [field.name for field in fields(Protocol)],
)
"""By name; those of scorers with protocols of their own are next to the scorer."""
ALL_CONVENTIONS = "all-conventions"
CONVENTIONS = {"any-of": "pairs", "first-text": "first-text", "row-label": "official-rows"}
"""The conventions in use, by the protocol that follows each: the same embeddings score very differently under them."""


def find_protocol(name: str) -> Protocol:
    """The protocol with a name, or UnknownName, which suggests the nearest."""
    if name not in PROTOCOLS and ":" not in name:
        raise unknown("protocol", name, [*PROTOCOLS, ALL_CONVENTIONS])
    return PROTOCOLS.find(name)


def make_conventions(rows_of: Protocol | None = None) -> dict[str, Protocol]:
    """The three make_conventions, on a whole benchmark or on the images and texts that another protocol selects."""
    found = {convention: find_protocol(name) for convention, name in CONVENTIONS.items()}
    if rows_of is None:
        return found
    return {
        convention: replace(
            scoring,
            definition=f"On the images and texts that {rows_of.name} selects. {scoring.definition}",
            max_images=rows_of.max_images,
            max_texts_per_image=scoring.max_texts_per_image or rows_of.max_texts_per_image,
        )
        for convention, scoring in found.items()
    }


def choose_protocols(names: Sequence[str]) -> dict[str, Protocol]:
    """Protocols by label, as a command line names them: a single one has the empty label.

    `all-conventions` names three, on the images and texts that the first other protocol selects, if there is one.

    Raises:
        ValueError: a name is unknown; see `protocol`.
    """
    own = [find_protocol(name) for name in names if name != ALL_CONVENTIONS]
    chosen = {one.name: one for one in own}
    if ALL_CONVENTIONS in names:
        chosen |= make_conventions(own[0] if own else None)
    return {"": own[0]} if len(chosen) == 1 else chosen


def find_protocol_scorer(names: Sequence[str]) -> str:
    """The name of the scorer that knows all of these protocols; errors as of `choose`."""
    scorers = [one.scorer for one in choose_protocols(names).values()]
    return next((name for name in scorers if name != Protocol.scorer), Protocol.scorer)
