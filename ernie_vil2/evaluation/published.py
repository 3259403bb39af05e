"""Published results, printed next to a result on the same data: `published.csv`, a row a model and benchmark.

The rows are Tables 1 to 4 and 6 to 8 of the paper (arXiv 2209.15270), with those it compares with where these are few;
what the release says of its files; what PaddleNLP's fine-tuning of the released base model reached, and Chinese-CLIP's
of a model of its size; and the table of FG-CLIP 2. Figures are as in the named source.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

PATH = Path(__file__).with_name("published.csv")
MODELS = ("base", "large", "english", "ablation", "other")
_DESCRIPTIONS = ("protocol", "model", "label", "fine_tuned", "source", "note")


@dataclass(frozen=True)
class PublishedResult:
    """A row that was published.

    Attributes:
        protocol: name of the protocol, or of the task, whose data it is on.
        model: "base" or "large"; "english", the EfficientNet-L2 with BERT-large; "ablation", of Table 4; "other", of
            other authors.
        label: how the source calls the model and its towers.
        values: recalls in percent by direction, and "mR"; "accuracy" of a task. Measures that the source does not
            have are left out.
        fine_tuned: on the data that is scored; otherwise zero-shot.
        source: where the figures are published.
        note: what is known of how they were computed.
    """

    protocol: str
    model: str
    label: str
    values: Mapping[str, Mapping[str, float] | float]
    source: str
    note: str = ""
    fine_tuned: bool = False

    @property
    def title(self) -> str:
        """The label with how the model was trained and where the row was published, for a table."""
        how = "fine-tuned" if self.fine_tuned else "zero-shot"
        trained = "" if how in self.label or "fine-tuned" in self.label else f", {how}"
        return f"{self.label}{trained} ({'paper' if 'arxiv.org' in self.source else 'repository'})"

    @property
    def height(self) -> float:
        """Its R@1, the mean over the directions, or what it has instead of that; it orders rows."""
        recalls = [next(iter(value.values())) for value in self.values.values() if isinstance(value, Mapping)]
        return fmean(recalls or [value for value in self.values.values() if not isinstance(value, Mapping)])


@cache
def read_published() -> tuple[PublishedResult, ...]:
    """Read all rows of `published.csv`.

    Raises:
        ValueError: a row names no such model, has a figure that is no percentage, or none at all.
    """
    with PATH.open(encoding="utf-8", newline="") as file:
        return tuple(_read_row(row, f"{PATH.name}, line {line}") for line, row in enumerate(csv.DictReader(file), 2))


def _read_row(row: dict[str, str], place: str) -> PublishedResult:
    # A column of figures is `direction/measure`, or a measure of the whole.
    recalls: dict[str, dict[str, float]] = {}
    measures: dict[str, float] = {}
    for column, text in row.items():
        if column in _DESCRIPTIONS or not text:
            continue
        figure = float(text)
        if not 0 < figure <= 100:
            raise ValueError(f"{place}: {column} is {text}, which is no percentage")
        direction, slash, measure = column.partition("/")
        if slash:
            recalls.setdefault(direction, {})[measure] = figure
        else:
            measures[column] = figure

    values: dict[str, Mapping[str, float] | float] = {**recalls, **measures}
    if not values or row["model"] not in MODELS or row["fine_tuned"] not in ("yes", "no"):
        raise ValueError(f"{place}: a row has a figure, a model of {', '.join(MODELS)}, and yes or no as fine_tuned")
    is_fine_tuned = row["fine_tuned"] == "yes"
    return PublishedResult(
        row["protocol"], row["model"], row["label"], values, row["source"], row["note"], is_fine_tuned
    )


def published_results(protocol: str, model: str | None = None) -> list[PublishedResult]:
    """Return the published rows on a protocol's data, of one model or of all; none for data that nobody else used.

    Zero-shot ones come first, and of these and of the others the best, by R@1. Those of the ablation are left out: they
    are of a training set of their own.
    """
    rows = [row for row in read_published() if row.protocol == protocol and row.model != "ablation"]
    of_model = [row for row in rows if model in (None, row.model)]
    return sorted(of_model, key=lambda row: (row.fine_tuned, -row.height))
