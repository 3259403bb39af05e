"""The evaluator of the command line and of training: a benchmark is encoded, then scored by a protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.evaluation.encoded import EmbeddingModel, EncodedBenchmark, encode_benchmark
from ernie_vil2.evaluation.protocols import Protocol, Scored
from ernie_vil2.evaluation.retrieval import RetrievalResult


@dataclass(frozen=True)
class Evaluation:
    """A benchmark's embeddings, what a protocol makes of them, and how the data differ from the protocol's."""

    encoded: EncodedBenchmark
    scored: Scored
    differences: Sequence[str]

    @property
    def result(self) -> RetrievalResult:
        """The recalls."""
        return self.scored.result

    def of_queries(self, field: str, value: str) -> RetrievalResult:
        """The recall of those queries alone whose field has this value; the galleries stay whole.

        Raises:
            ValueError: no image or no text has it.
        """
        benchmark = self.encoded.benchmark
        chosen = []
        for rows in (benchmark.images, benchmark.texts):
            chosen.append(np.array([str(row.fields.get(field)) == value for row in rows]))
            if not chosen[-1].any():
                known = sorted({str(row.fields[field]) for row in rows if field in row.fields})
                raise ValueError(f"no sample has {field} = {value}; values here: {', '.join(known[:10]) or 'none'}")
        return self.scored.of_queries(*chosen)


def score(encoded: EncodedBenchmark, protocol: Protocol, block: int = 1024, device: str = "cpu") -> Evaluation:
    """Scores embeddings by a protocol; `block` and `device` as in `rank_queries`.

    Raises:
        ValueError: an embedding that is not finite, or no query.
    """
    scored = protocol.evaluate(encoded.images, encoded.texts, encoded.benchmark.pairs, block, device)
    return Evaluation(encoded, scored, protocol.notes(encoded.benchmark))


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
