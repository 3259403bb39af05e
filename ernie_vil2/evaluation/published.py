"""Published results, to print next to results on the same data. Each is a row of `published.csv`.

The rows are from these sources, with the figures as each source has them:

- Tables 1 to 4 and 6 to 8 of the paper (arXiv 2209.15270); rows of other models only where there are few;
- the release, for its own files;
- PaddleNLP's fine-tuning of the released base model, and Chinese-CLIP's of a model of the same size;
- the table of FG-CLIP 2.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

PATH = Path(__file__).with_name("published.csv")
MODELS = ("base", "large", "english", "ablation", "other")
# Columns of words. All others hold figures, and are called `direction/measure` (image_to_text/R@1) or `measure` (mR).
_WORD_COLUMNS = ("protocol", "model", "label", "fine_tuned", "source", "note")


@dataclass(frozen=True)
class PublishedResult:
    """Published result of a model on a benchmark.

    Attributes:
        protocol: name of the protocol, or of the task, that the benchmark belongs to.
        model: one of `MODELS`: the released "base" or "large"; "english", the EfficientNet-L2 with BERT-large;
            "ablation", a model of Table 4; "other", a model of other authors.
        label: name of the model and its towers in the source.
        values: figures in percent that the source has. For retrieval, "R@1" and the like by direction, such as
            "image_to_text", and "mR" over all directions; for a task, "accuracy".
        source: where the figures are published.
        note: what is known about how they were computed.
        fine_tuned: whether the model was fine-tuned on these data; otherwise the result is zero-shot.
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
        """Label for a table, which also says whether the model was fine-tuned and where the result was published."""
        training = "fine-tuned" if self.fine_tuned else "zero-shot"
        # A label may say more: "fine-tuned on MSCOCO" is a zero-shot result on Flickr30K.
        names_training = "zero-shot" in self.label or "fine-tuned" in self.label
        label = self.label if names_training else f"{self.label}, {training}"
        publication = "paper" if "arxiv.org" in self.source else "repository"
        return f"{label} ({publication})"

    @property
    def sort_value(self) -> float:
        """Figure that orders results: mean R@1, or else mR, over the directions; without directions, mean of all."""
        recalls, figures = [], []
        for value in self.values.values():
            if isinstance(value, Mapping):
                recalls.append(value["R@1"] if "R@1" in value else value["mR"])
            else:
                figures.append(value)
        return fmean(recalls or figures)


@cache
def read_published() -> tuple[PublishedResult, ...]:
    """Read all rows of `published.csv`.

    Raises:
        ValueError: a row names an unknown model, has a figure that is not a percentage, or has no figure.
    """
    results = []
    with PATH.open(encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):  # line 1 is the header
            results.append(_parse_row(row, f"{PATH.name}, line {line}"))
    return tuple(results)


def _parse_row(row: dict[str, str], place: str) -> PublishedResult:
    recalls: dict[str, dict[str, float]] = {}
    measures: dict[str, float] = {}
    for column, text in row.items():
        if column in _WORD_COLUMNS or not text:
            continue
        figure = float(text)
        if not 0 < figure <= 100:
            raise ValueError(f"{place}: {column} is {text}, which is not a percentage")
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


def find_published(protocol: str) -> list[PublishedResult]:
    """Return the published results of a protocol or task: zero-shot before fine-tuned ones, better before worse ones.

    Results of the ablation are left out, because its models have a training set of their own.
    """
    results = []
    for result in read_published():
        if result.protocol == protocol and result.model != "ablation":
            results.append(result)
    return sorted(results, key=lambda result: (result.fine_tuned, -result.sort_value))
