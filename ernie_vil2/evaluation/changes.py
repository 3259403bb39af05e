"""Queries that two results of one benchmark answer differently: which were won, and which were lost."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ernie_vil2.evaluation.report import original_text
from ernie_vil2.io.files import system_errors_named

SHOWN = 12
"""Queries of each kind that are named."""


@dataclass(frozen=True)
class Changes:
    """Of one result and direction: how many queries have their right answer first in both, in one, in neither.

    `won` and `lost` are the queries that moved furthest, each with its ranks before and after.
    """

    kept: int
    won: int
    lost: int
    missed: int
    most_won: list[tuple[str, int, int]]
    most_lost: list[tuple[str, int, int]]


def read_changes(before: Path, after: Path) -> dict[str, Changes]:
    """What changed between two files of ranks, as an evaluation leaves them, by language and direction.

    Raises:
        OSError: a file cannot be read.
        ValueError: one is no such file.
    """
    ranks = [_ranks(path) for path in (before, after)]
    found: dict[str, list[tuple[str, int, int]]] = {}
    for key, (query, rank) in ranks[0].items():
        if key in ranks[1]:
            found.setdefault(key[0], []).append((query, rank, ranks[1][key][1]))
    return {name: _changes(queries) for name, queries in found.items()}


def _changes(queries: list[tuple[str, int, int]]) -> Changes:
    won = sorted((one for one in queries if one[1] > 1 == one[2]), key=lambda one: -one[1])
    lost = sorted((one for one in queries if one[1] == 1 < one[2]), key=lambda one: -one[2])
    kept = sum(before == after == 1 for _, before, after in queries)
    return Changes(kept, len(won), len(lost), len(queries) - kept - len(won) - len(lost), won[:SHOWN], lost[:SHOWN])


def _ranks(path: Path) -> dict[tuple[str, str], tuple[str, int]]:
    """By language and direction, and the query's id, the query and its rank."""
    with system_errors_named(path), open(path, encoding="utf-8", newline="") as file:
        try:
            return dict(_rows(csv.DictReader(file, strict=True)))
        except (csv.Error, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a file of ranks ({error!r})") from None


def _rows(rows: csv.DictReader) -> Iterator[tuple[tuple[str, str], tuple[str, int]]]:
    for row in rows:
        language = row["result"].partition(", ")[2]
        name = ", ".join(filter(None, [language, row["direction"].replace("_to_", " → ")]))
        yield (name, row["query_id"]), (original_text(row["query"]), int(row["rank"]))
