"""What an evaluation knows of a benchmark and its metric: a scorer is a file in `scorers/`, and a name below.

The rest is written once: `run_scorer` runs a scorer for commands and trainings, `encoded.py` encodes what it opens,
on all ranks, and `report.py` writes what it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ernie_vil2.config import Config, ScoredConfig
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.readers.locations import LocalFile
from ernie_vil2.data.readers.opening import UnknownLayout, recognise
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.evaluation.check import Inspection, decode_all
from ernie_vil2.evaluation.encoded import EncodedBenchmark, encode_benchmark
from ernie_vil2.evaluation.protocol import find_protocol_scorer
from ernie_vil2.evaluation.report import Report
from ernie_vil2.io.terminal import counted
from ernie_vil2.registry import Registry

SCORERS: Registry[type[Scorer]] = Registry(
    "scorer",
    {
        "retrieval": "ernie_vil2.evaluation.scorers.retrieval:Retrieval",
        "zero_shot": "ernie_vil2.evaluation.scorers.zero_shot:ZeroShot",
        "entailment": "ernie_vil2.evaluation.scorers.entailment:Entailment",
        "nlvr2": "ernie_vil2.evaluation.scorers.entailment:Nlvr2",
        "cxc": "ernie_vil2.evaluation.scorers.cxc:Cxc",
        "sugar_crepe": "ernie_vil2.evaluation.scorers.sugar_crepe:SugarCrepe",
    },
    ("from_config", "recognises", "open", "check", "score"),
)
DEFAULT_SCORER = "retrieval"
"""Scores whatever has images and texts, where no scorer recognises the data."""


def make_scorer(name: str, options: Mapping[str, Any]) -> Scorer:
    """A scorer with these options; the others are as it says.

    Raises:
        ValueError: there is no such scorer, or it has no such option.
    """
    make = SCORERS.find(name)
    check_options(make, name, options)
    return make(**options)


def list_options(scorer: type[Scorer]) -> list[str]:
    return [field.name for field in fields(scorer)] if is_dataclass(scorer) else []


def check_options(scorer: type[Scorer], name: str, options: Iterable[str]) -> None:
    """ValueError if a scorer of this name has not all of these options."""
    known = list_options(scorer)
    for option in options:
        if option not in known:
            raise ValueError(f"{name}: {option}: no such option; known: {', '.join(known) or 'none'}")


def find_scorer(data: DataSpec, protocols: Sequence[str] = ()) -> str:
    """Return the name of the scorer that knows protocols or, where none is named, of the one that recognises data."""
    if protocols:
        return find_protocol_scorer(protocols)
    path = Path(data.paths[0])
    if not path.exists():
        return DEFAULT_SCORER
    layout: str | None
    try:
        layout = recognise(LocalFile(path), replace(data, default_split="test")).layout.name
    except UnknownLayout:
        layout = ""
    except ValueError:
        layout = None
    # The last one is asked first: a scorer of the user's own goes before ours, and special ones before general ones.
    for name in reversed(SCORERS):
        if SCORERS.find(name).recognises(path, layout):
            return name
    return DEFAULT_SCORER


@dataclass(frozen=True)
class ScorerInput:
    """What a scorer has opened, and all that it scores by.

    Attributes:
        data: where it lies.
        benchmarks: what is encoded, by name.
        context: what else the scorer has read.
        best_by: the metric that chooses the best checkpoint of a run, if that depends on the data; None: the scorer's.
    """

    data: DataSpec
    benchmarks: Mapping[str, Benchmark]
    context: Any = None
    best_by: str | None = None


ProgressBar = Callable[[int], AbstractContextManager[Callable[[int], Any]]]
"""Shows the progress of so many images; the block calls what it is given with the number of those just done."""


class Scorer(Protocol):
    """A benchmark and its metric. A subclass is a dataclass whose fields are its options; it keeps no other state.

    Attributes:
        best_by: the metric that chooses the best checkpoint of a run; None: none does, or `ScorerInput` says which.
        labels: whether it scores models that were trained to label statements, and no others.
        separate: whether its benchmarks can be scored each on its own, so that one that fails does not cost the others.
        held_out: whether none of its images should be trained on; they are looked for in the training data of a run.
        folder: of its results, in a run or where there is none.
    """

    best_by: str | None = None
    needs_classifier: ClassVar[bool] = False
    is_separable: ClassVar[bool] = False
    is_held_out: ClassVar[bool] = False
    folder: ClassVar[str] = "evaluation"

    @classmethod
    def from_config(cls, config: Config, scored: ScoredConfig | None, default: str) -> tuple[Scorer, DataSpec | None]:
        """Return the scorer of a run's models, and the data that it scores; None: the configuration names none.

        Args:
            config: of the run.
            scored, default: as for `DataSpec.of_scored`; None: the run has no such data.

        Raises:
            ConfigError, ValueError: the configuration lacks something, or names what there is not.
        """
        return cls(), DataSpec.of_scored(config, scored, default) if scored else None

    @classmethod
    def recognises(cls, path: Path, layout: str | None) -> bool:
        """Return whether data are for this scorer, and not only something that it can score as well.

        Args:
            path: an existing file or folder.
            layout: the name of its layout; "": it has none; None: opening the data will say what is wrong with them.
        """
        return False

    def open(self, data: DataSpec) -> ScorerInput:
        """Open what is to be encoded; no image is read.

        Raises:
            OSError, ValueError: nothing can be read of it.
        """

    def describe_sizes(self, opened: ScorerInput) -> dict[str, str]:
        """Return how much there is of each benchmark, in words."""
        return {
            name: f"{counted(len(benchmark.images), 'image')}, {counted(len(benchmark.texts), 'text')}"
            for name, benchmark in opened.benchmarks.items()
        }

    def check(self, opened: ScorerInput, model: ErnieViL2, name: str) -> None:
        """Raise ValueError if a model of this name cannot be scored on what was opened; nothing is computed yet."""
        return

    def score(self, opened: ScorerInput, encoded: Mapping[str, EncodedBenchmark], model: ErnieViL2) -> Report:
        """Score the embeddings of the opened benchmarks. Runs on rank 0 alone.

        Raises:
            ValueError: an embedding is not finite, or there is nothing to score.
        """

    def file_name_parts(self, opened: ScorerInput) -> list[str]:
        """Return what distinguishes results on the same data, for the names of their files."""
        return [*filter(None, [opened.data.split]), *(opened.data.languages or ())]

    def inspect(self, data: DataSpec, bar: ProgressBar) -> Inspection:
        """Read the data and decode all images."""
        lines: list[str] = []
        is_good = True
        opened = self.open(data)
        for name, benchmark in opened.benchmarks.items():
            with bar(len(benchmark.images)) as progress:
                files = decode_all(benchmark.images, progress)
            sizes = self.describe_sizes(replace(opened, benchmarks={name or benchmark.name: benchmark}))
            lines += [*map(": ".join, sizes.items()), f"entries: {benchmark.rows}", f"images: {files}"]
            is_good &= not (benchmark.rows.counts or files.counts)
        return Inspection("\n".join(lines), is_good)


def run_scorer(
    scorer: Scorer,
    model: ErnieViL2,
    opened: ScorerInput,
    name: str | None = None,
    encode: Callable[[ErnieViL2, Benchmark, str], EncodedBenchmark] | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> Report:
    """Check a model, encode with it what a scorer has opened, and score that. A collective of the ranks.

    Args:
        scorer: what scores.
        model: what is scored.
        opened: by this scorer.
        name: of the model, for errors; None: it needs no check any more.
        encode: gives the embeddings of a benchmark of a name; None: as `encode_benchmark`.
        rank, ranks: of this process, and how many share the work; on others than rank 0 the report is empty.

    Raises:
        ValueError: see `Scorer.check`, `encode_benchmark` and `Scorer.score`.
    """
    if name is not None:
        scorer.check(opened, model, name)
    encode = encode or (lambda model, benchmark, _: encode_benchmark(model, benchmark, rank=rank, ranks=ranks))
    encoded = {key: encode(model, benchmark, key) for key, benchmark in opened.benchmarks.items()}
    return Report({}) if rank else scorer.score(opened, encoded, model)
