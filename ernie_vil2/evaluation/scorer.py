"""What an evaluation knows of a benchmark and its metric: a scorer is a file in `scorers/`, and a name below.

The rest is written once: `score` runs a scorer for commands and trainings, `encoded.py` encodes what it opens, on all
ranks, and `report.py` writes what it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ernie_vil2.config import Config, ScoredConfig
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.readers import ShardedSource, open_benchmarks, open_sources
from ernie_vil2.data.readers.entailment import NLVR2, SNLI_VE
from ernie_vil2.data.readers.opening import UnknownLayout, content
from ernie_vil2.data.readers.shard_files import LocalFile
from ernie_vil2.data.readers.splits import Part, held_out
from ernie_vil2.data.source_files import image_files
from ernie_vil2.encoder import ErnieViL2
from ernie_vil2.evaluation.check import Inspection, decode_all
from ernie_vil2.evaluation.encoded import EncodedBenchmark, encode_benchmark
from ernie_vil2.evaluation.report import Report
from ernie_vil2.io.terminal import counted
from ernie_vil2.registry import Registry

SCORERS: Registry[type[Scorer]] = Registry(
    "scorer",
    {
        "retrieval": "ernie_vil2.evaluation.scorers.retrieval:Retrieval",
        "zero_shot": "ernie_vil2.evaluation.scorers.zero_shot:ZeroShot",
        "entailment": "ernie_vil2.evaluation.scorers.entailment:Entailment",
        "nlvr2": "ernie_vil2.evaluation.scorers.entailment:Entailment",
        "cxc": "ernie_vil2.evaluation.scorers.cxc:Cxc",
        "sugar_crepe": "ernie_vil2.evaluation.scorers.sugar_crepe:SugarCrepe",
    },
    ("of_run", "open", "check", "score"),
)


def make_scorer(name: str, options: Mapping[str, Any]) -> Scorer:
    """A scorer with these options; the others are as it says.

    Raises:
        ValueError: there is no such scorer, or it has no such option.
    """
    make = SCORERS.find(name)
    check_options(make, name, options)
    return make(**options)


def options_of(scorer: type[Scorer]) -> list[str]:
    return [field.name for field in fields(scorer)] if is_dataclass(scorer) else []


def check_options(scorer: type[Scorer], name: str, options: Iterable[str]) -> None:
    """ValueError if a scorer of this name has not all of these options."""
    known = options_of(scorer)
    for option in options:
        if option not in known:
            raise ValueError(f"{name}: {option}: no such option; known: {', '.join(known) or 'none'}")


@dataclass(frozen=True)
class Data:
    """What is scored, as options or a configuration name it; fields as arguments of `data.readers.open_benchmarks`."""

    path: Sequence[str]
    languages: Sequence[str] | None = None
    preferred: Collection[str] = ()
    layout: str | None = None
    split: str | None = None
    images: str | Path | None = None
    text_id: str | None = None
    caption_lines: bool = False
    default: str | None = None
    columns: Mapping[str, str] | None = None
    encoding: str | None = None
    part: Part | None = None
    unnamed: str = ""
    """What language captions are in that name none."""

    @classmethod
    def of_run(cls, config: Config, scored: ScoredConfig, default: str) -> Data:
        """What a run's configuration names.

        Args:
            scored: `Data.validation` or `Data.tested`.
            default: the split, if neither it nor a protocol names one.
        """
        views, holdout = config.Views, config.Data.holdout
        part = held_out(holdout, default) if holdout and config.Data.holds_out(default) else None
        return cls(
            scored.data,
            preferred=views.languages,
            layout=scored.layout,
            split=scored.split,
            images=scored.images,
            text_id=scored.text_id or config.Data.text_id,
            caption_lines=views.caption_lines if scored.caption_lines is None else scored.caption_lines,
            default="train" if part else default,
            columns=scored.columns,
            encoding=scored.encoding,
            part=part,
            unnamed=", ".join(views.languages),
        )

    def benchmarks(self) -> dict[str, Benchmark]:
        """Images, texts and pairs by the language of the captions; errors as of `open_benchmarks`."""
        arguments = {name: value for name, value in vars(self).items() if name != "unnamed"}
        return {language or self.unnamed: one for language, one in open_benchmarks(**arguments).items()}

    def sources(self) -> ShardedSource:
        """The samples; errors as of `open_sources`."""
        return open_sources(
            self.path, self.text_id, self.split, self.images, self.default, self.layout, self.columns, self.encoding
        )


def scorer_of(data: Data) -> str:
    """The name of the scorer for data by their layout, where nothing else says it."""
    path = Path(data.path[0])
    if (path / "swap_obj.json").is_file() or (path / "replace_rel.json").is_file():
        return "sugar_crepe"
    try:
        layout = (
            content(LocalFile(path), data.split, "test", data.layout, data.columns).layout if path.exists() else None
        )
    except UnknownLayout:
        return "zero_shot" if any(map(image_files, path.glob("[!.]*/"))) else "retrieval"
    except ValueError:  # which opening the data explains
        return "retrieval"
    return {SNLI_VE: "entailment", NLVR2: "nlvr2", None: "retrieval"}.get(layout, "retrieval")


Bar = Callable[[int], AbstractContextManager[Callable[[int], Any]]]
"""Shows the progress of so many images; the block calls what it is given with the number of those just done."""


class Scorer(Protocol):
    """A benchmark and its metric. A subclass is a dataclass whose fields are its options.

    Attributes:
        best_by: the metric that chooses the best checkpoint of a run, known from `open` on; None: none of them does.
        labels: whether it scores models that were trained to label statements, and no others.
        separate: whether its benchmarks can be scored each on its own, so that one that fails does not cost the others.
        held_out: whether none of its images should be trained on; they are looked for in the training data of a run.
        folder: of its results, in a run or where there is none.
    """

    best_by: str | None = None
    labels: ClassVar[bool] = False
    separate: ClassVar[bool] = False
    held_out: ClassVar[bool] = False
    folder: ClassVar[str] = "evaluation"

    @classmethod
    def of_run(cls, config: Config, scored: ScoredConfig | None, default: str) -> tuple[Scorer, Data | None]:
        """What scores the models of a run, and on which data; None: its configuration names none.

        Args:
            scored, default: as for `Data.of_run`; None: the run has no such data.

        Raises:
            ConfigError, ValueError: the configuration lacks something, or names what there is not.
        """
        return cls(), Data.of_run(config, scored, default) if scored else None

    def open(self, data: Data) -> dict[str, Benchmark]:
        """Opens what is to be encoded, by name; no image is read.

        Raises:
            OSError, ValueError: nothing can be read of it.
        """

    def sizes(self, benchmarks: Mapping[str, Benchmark]) -> dict[str, str]:
        """How much there is of each, in words."""
        return {
            name: f"{counted(len(one.images), 'image')}, {counted(len(one.texts), 'text')}"
            for name, one in benchmarks.items()
        }

    def check(self, model: ErnieViL2, name: str) -> None:
        """Raises ValueError if a model, of this name, cannot be scored on what was opened; nothing is computed yet."""
        return

    def score(self, encoded: Mapping[str, EncodedBenchmark], model: ErnieViL2) -> Report:
        """What the embeddings of the opened benchmarks are worth. On rank 0 alone.

        Raises:
            ValueError: an embedding is not finite, or there is nothing to score.
        """

    def naming(self, data: Data) -> list[str]:
        """What the names of results say behind that of the data, as several results can be of the same data."""
        return [*filter(None, [data.split]), *(data.languages or ())]

    def inspect(self, data: Data, bar: Bar) -> Inspection:
        """Reads the data and decodes all images."""
        lines, good = [], True
        for name, benchmark in self.open(data).items():
            with bar(len(benchmark.images)) as progress:
                files = decode_all(benchmark.images, progress)
            sizes = self.sizes({name or benchmark.name: benchmark})
            lines += [*map(": ".join, sizes.items()), f"entries: {benchmark.rows}", f"images: {files}"]
            good &= not (benchmark.rows.counts or files.counts)
        return Inspection("\n".join(lines), good)


def score(
    scorer: Scorer,
    model: ErnieViL2,
    benchmarks: Mapping[str, Benchmark],
    name: str | None = None,
    encode: Callable[[ErnieViL2, Benchmark, str], EncodedBenchmark] | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> Report:
    """Checks a model, encodes with it what a scorer has opened, and scores that. A collective of the ranks.

    Args:
        name: of the model, for errors; None: it needs no check any more.
        encode: gives the embeddings of a benchmark of a name; None: as `encode_benchmark`.
        rank, ranks: of this process, and how many share the work; on others than rank 0 the report is empty.

    Raises:
        ValueError: see `Scorer.check`, `encode_benchmark` and `Scorer.score`.
    """
    if name is not None:
        scorer.check(model, name)
    encode = encode or (lambda model, benchmark, _: encode_benchmark(model, benchmark, rank=rank, ranks=ranks))
    encoded = {key: encode(model, benchmark, key) for key, benchmark in benchmarks.items()}
    return Report({}) if rank else scorer.score(encoded, model)
