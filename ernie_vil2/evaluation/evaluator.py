"""The evaluator of the command line and of training: a benchmark is encoded, then scored by a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.evaluation.encoded import EmbeddingModel, EncodedBenchmark, encode_benchmark
from ernie_vil2.evaluation.protocol import Protocol
from ernie_vil2.evaluation.ranking import TIE_RULES
from ernie_vil2.evaluation.retrieval import DirectionResult, mean_recall, mean_reciprocal_rank, score_matchings, summary
from ernie_vil2.wording import counted


@dataclass(frozen=True)
class Evaluation:
    """A benchmark's embeddings with what a protocol makes of them: results by direction, further measures by name."""

    protocol: Protocol
    encoded: EncodedBenchmark
    results: dict[str, DirectionResult]
    measures: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean_recall(self) -> float:
        """As `retrieval.mean_recall`."""
        return mean_recall(self.results)

    @property
    def sizes(self) -> str:
        """The galleries and pairs, in words."""
        values = summary(self.results)
        return ", ".join(
            counted(values[f"{kind}s"], kind) for kind in ("image", "text", "pair") if f"{kind}s" in values
        )

    @cached_property
    def notes(self) -> list[str]:
        """How the data differ from what the protocol expects, and which rows are no queries."""
        return self.protocol.notes(self.encoded.benchmark)

    def as_dict(self) -> dict:
        """For JSON and tables, see `retrieval.summary`."""
        values = summary(self.results)
        if self.protocol.row_labels:
            for direction, result in self.results.items():
                rank = result.ranking.rank
                values[direction] = {**result.recall, "MRR": mean_reciprocal_rank(rank[rank > 0])}
        if self.measures:
            values["measures"] = dict(self.measures)
        return {**values, "tie_rule": TIE_RULES[self.protocol.ties]}

    def of_queries(self, field: str, value: str) -> Evaluation:
        """That of those queries alone whose field has this value; the galleries stay whole.

        Raises:
            ValueError: no row of a side that asks has it.
        """
        results = {}
        for direction, result in self.results.items():
            rows = self.encoded.benchmark.side(result.asked.sides[0])
            chosen = np.array([str(row.fields.get(field)) == value for row in rows])
            if not chosen.any():
                known = sorted({str(row.fields[field]) for row in rows if field in row.fields})
                raise ValueError(f"no sample has {field} = {value}; values here: {', '.join(known[:10]) or 'none'}")
            results[direction] = result.of_queries(chosen)
        return replace(self, results=results, measures={})


def score(
    encoded: EncodedBenchmark,
    protocol: Protocol,
    block: int = 1024,
    device: str = "cpu",
    needs_answers: bool = True,
) -> Evaluation:
    """Scores embeddings by a protocol; `block` and `device` as in `rank_queries`.

    Args:
        needs_answers: False: it is no error when no right answer is known, and nothing is scored then.

    Raises:
        ValueError: an embedding that is not finite, or no query.
    """
    results = score_matchings(
        protocol.matchings(encoded.benchmark) if protocol.directions else [], encoded.sides, protocol.directions,
        ties=protocol.ties, block=block, device=device,
    )  # fmt: skip
    results = protocol.finished(results)
    measures = protocol.measures(encoded, results)
    if needs_answers and mean_recall(results) is None and not measures:
        raise ValueError(
            f"{encoded.benchmark.name}: nothing to score, as no image or text that {protocol.name} asks has a right "
            "answer here; --top-k 10 writes the best answers all the same"
        )
    return Evaluation(protocol, encoded, results, measures)


def evaluate(
    model: EmbeddingModel, benchmark: Benchmark, protocol: Protocol, block: int = 1024, device: str = "cpu", **encoding
) -> Evaluation:
    """Encodes what a protocol needs of a benchmark, and scores it.

    Args:
        encoding: cache, progress, workers, rank and ranks, as `encode_benchmark` takes them.

    Raises:
        ValueError: see `encode_benchmark` and `score`.
    """
    return score(encode_benchmark(model, protocol.select(benchmark), **encoding), protocol, block, device)
