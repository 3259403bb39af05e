"""Evaluation: scores of encoded benchmarks, and their tables, files and pages."""

from ernie_vil2.evaluation.retrieval import (
    DirectionResult,
    chance_recall,
    evaluate_retrieval,
    first_positive_ranks,
    make_recall_table,
    recall,
    top_matches,
)

__all__ = [
    "DirectionResult",
    "chance_recall",
    "evaluate_retrieval",
    "first_positive_ranks",
    "make_recall_table",
    "recall",
    "top_matches",
]
