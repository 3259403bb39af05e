"""Retrieval metrics, the tables that print them, and the report page."""

from ernie_vil2.evaluation.retrieval import (
    DirectionResult,
    chance,
    evaluate_retrieval,
    first_positive_ranks,
    recall,
    recall_table,
    top_matches,
)

__all__ = [
    "DirectionResult",
    "chance",
    "evaluate_retrieval",
    "first_positive_ranks",
    "recall",
    "recall_table",
    "top_matches",
]
