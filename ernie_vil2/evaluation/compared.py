"""What a comparison of models found: figures with intervals, verdicts, and what each model costs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ernie_vil2.evaluation.outcomes import Comparison
from ernie_vil2.evaluation.published import PublishedResult
from ernie_vil2.pages import Table


@dataclass(frozen=True)
class Cost:
    """What a model costs on this machine, as measured in this run; None where only its embeddings are known.

    Attributes:
        milliseconds_image: of one image, read from its bytes, prepared and encoded in a batch of up to 64.
        milliseconds_query: of one text encoded on its own, the median of 24.
        megabytes: of its weights or of its export on disk.
        width: of the embeddings.
        index_megabytes: of the images of the data as float32 rows.
        cut_texts: how many texts of the data are longer than the model sees.
    """

    milliseconds_image: float | None = None
    milliseconds_query: float | None = None
    megabytes: float | None = None
    width: int | None = None
    index_megabytes: float | None = None
    cut_texts: int | None = None


@dataclass
class Compared:
    """The result of `compare_models`.

    Attributes:
        comparison: figures, intervals and verdicts.
        costs: by model.
        notes: sentences on data and models that a reader of the figures should know.
        definitions: what is scored, in words.
        published: rows that the authors of the protocol's models published.
        sources: by model, where it came from.
    """

    comparison: Comparison
    costs: dict[str, Cost]
    notes: list[str]
    definitions: list[str]
    published: list[PublishedResult] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Plain dictionaries and arrays: `figures`, `differences`, `queries` and `costs` by column, and sentences."""
        costs = {}
        for name in vars(Cost()):
            costs[name] = np.array([getattr(cost, name) for cost in self.costs.values()], float)
        return {
            **self.comparison.record(),
            "costs": {"model": list(self.costs), **costs},
            "verdicts": list(map(str, self.comparison.verdicts)),
            "notes": [*self.comparison.notes, *self.notes],
        }

    def table(self) -> Table:
        """The figures, with published rows below them."""
        rows = [(f"published: {row.title}", _flat(row.values)) for row in self.published]
        return self.comparison.table(rows)

    def costs_table(self) -> Table:
        """What each model costs."""
        columns = ["ms an image", "ms a query", "MB of weights", "width", "MB of index", "texts cut"]
        rows = []
        for name, cost in self.costs.items():
            rows.append((name, ["-" if value is None else _short(value) for value in vars(cost).values()]))
        return Table(columns, rows, kind="figures")


def _flat(values: Mapping[str, Any]) -> dict[str, float]:
    """Return published values by the names of figures."""
    figures: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            figures |= {f"{name}/{measure}": figure for measure, figure in value.items()}
        else:
            figures[name] = value
    return figures


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2g}"
