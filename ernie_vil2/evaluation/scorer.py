"""Scorers: what an evaluation needs to know of a benchmark and its metric.

A scorer is a class in `scorers/`, with a name in `SCORERS`. Everything else is written once: `run_scorer` runs a scorer
for commands and training runs, `encoded.py` encodes, on all ranks, the data that the scorer opens, and `report.py`
writes its report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from ernie_vil2.config import Config, EvaluationDataConfig
from ernie_vil2.config.load import describe_problems
from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.data.readers.locations import LocalFile
from ernie_vil2.data.readers.opening import UnknownLayout, recognise
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.encoder import Encoder
from ernie_vil2.evaluation.check import Inspection, decode_all
from ernie_vil2.evaluation.encoded import EncodedBenchmark, encode_benchmark
from ernie_vil2.evaluation.protocol import find_protocol_scorer
from ernie_vil2.evaluation.report import Report
from ernie_vil2.io.terminal import pluralize
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
# Scorer of images and texts that no scorer recognises as its own.
DEFAULT_SCORER = "retrieval"


def make_scorer(name: str, options: Mapping[str, Any]) -> Scorer:
    """Make a scorer with these options; the other options have their defaults.

    Raises:
        ValueError: there is no such scorer, it has no such option, or a value is of another type.
    """
    scorer_class = SCORERS.find(name)
    return scorer_class(**validate_options(scorer_class, name, options))


def list_options(scorer_class: type[Scorer]) -> list[str]:
    """Return the names of the options of a scorer."""
    if not is_dataclass(scorer_class):
        return []
    return [field.name for field in fields(scorer_class)]


def validate_options(scorer_class: type[Scorer], name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of the scorer with this name, their values as the types that its fields declare.

    Raises:
        ValueError: the scorer lacks one of the options, or a value is of another type or out of range.
    """
    existing = list_options(scorer_class)
    for option in options:
        if option not in existing:
            raise ValueError(f"{name}: {option}: no such option; known: {', '.join(existing) or 'none'}")
    types: dict[str, Any]
    try:
        types = get_type_hints(scorer_class, include_extras=True)  # with the bounds of numbers
    except NameError:  # a user's class may import the names of types for type checkers only
        types = {}
    types_of_options: dict[str, Any] = {option: (types.get(option, Any), ...) for option in options}
    settings: ConfigDict = {"arbitrary_types_allowed": True, "protected_namespaces": ()}
    options_model = create_model("Options", __config__=settings, **types_of_options)
    try:
        values = options_model.model_validate(options)
    except ValidationError as error:
        raise describe_problems(error, name, options_model) from None
    return {option: getattr(values, option) for option in options}


def find_scorer(data: DataSpec, protocols: Sequence[str] = ()) -> str:
    """Return the name of the scorer that knows the protocols or, without protocols, recognises the data."""
    if protocols:
        return find_protocol_scorer(protocols)
    path = Path(data.paths[0])
    if not path.exists():
        return DEFAULT_SCORER
    # "" stands for no layout, None for data whose opening will fail (see `Scorer.recognises`).
    layout: str | None
    try:
        layout = recognise(LocalFile(path), replace(data, default_split="test")).layout.name
    except UnknownLayout:
        layout = ""
    except ValueError:
        layout = None
    # The last scorer is asked first: scorers of the user come before ours, and special ones before general ones.
    for name in reversed(SCORERS):
        if SCORERS.find(name).recognises(path, layout):
            return name
    return DEFAULT_SCORER


@dataclass(frozen=True)
class ScorerInput:
    """Data that a scorer has opened: all that it needs besides the embeddings.

    Attributes:
        data: location and options of the data.
        benchmarks: benchmarks to encode, by name.
        context: whatever else the scorer needs.
        best_by: metric that chooses the best checkpoint of a run, if that depends on the data; None: the scorer's.
    """

    data: DataSpec
    benchmarks: Mapping[str, Benchmark]
    context: Any = None
    best_by: str | None = None


# Shows progress: `with bar(num_images) as advance:`, and then `advance(n)` after every n images.
ProgressBar = Callable[[int], AbstractContextManager[Callable[[int], Any]]]


class Scorer(Protocol):
    """A benchmark and its metric. A subclass is a dataclass whose fields are its options; it has no other state.

    Attributes:
        best_by: metric that chooses the best checkpoint of a run; None: no metric does, or `ScorerInput` names it.
        needs_classifier: whether it scores models that were trained to label statements, and no others.
        is_separable: whether each benchmark can be scored on its own, so that an error of one leaves the others.
        is_held_out: whether its images should not be trained on; a run searches its training data for them.
        folder: name of the folder of results, in a run folder or in the working directory.
    """

    best_by: str | None = None
    needs_classifier: ClassVar[bool] = False
    is_separable: ClassVar[bool] = False
    is_held_out: ClassVar[bool] = False
    folder: ClassVar[str] = "evaluation"

    @classmethod
    def from_config(
        cls, config: Config, scored: EvaluationDataConfig | None, default_split: str
    ) -> tuple[Scorer, DataSpec | None]:
        """Return the scorer of a run's models, and the data to score, None if the configuration names none.

        Args:
            config: configuration of the run.
            scored: data to score; None: the run has no such data.
            default_split: split to score if `scored` names none.

        Raises:
            ConfigError, ValueError: a setting is missing, or names something that does not exist.
        """
        return cls(), DataSpec.from_scored(config, scored, default_split) if scored else None

    @classmethod
    def recognises(cls, path: Path, layout: str | None) -> bool:
        """Return whether data are meant for this scorer, not only something that it can score as well.

        Args:
            path: existing file or folder.
            layout: name of its layout; "": it has none; None: opening the data will report an error.
        """
        return False

    def open(self, data: DataSpec) -> ScorerInput:
        """Open the data to encode; no image is read yet.

        Raises:
            OSError, ValueError: the data cannot be read.
        """

    def describe_sizes(self, inputs: ScorerInput) -> dict[str, str]:
        """Return the sizes of each benchmark in words."""
        sizes = {}
        for name, benchmark in inputs.benchmarks.items():
            sizes[name] = f"{pluralize(len(benchmark.images), 'image')}, {pluralize(len(benchmark.texts), 'text')}"
        return sizes

    def check(self, inputs: ScorerInput, model: Encoder, name: str) -> None:
        """Raise ValueError if the model with this name cannot be scored on the data; nothing is computed yet."""
        return

    def score(self, inputs: ScorerInput, encoded: Mapping[str, EncodedBenchmark], model: Encoder) -> Report:
        """Score the embeddings of the benchmarks. Runs on rank 0 only.

        Raises:
            ValueError: an embedding is not finite, or there is nothing to score.
        """

    def file_name_parts(self, inputs: ScorerInput) -> list[str]:
        """Return words that distinguish the file names of several results on the same data."""
        split = [inputs.data.split] if inputs.data.split else []
        return [*split, *(inputs.data.languages or ())]

    def inspect(self, data: DataSpec, bar: ProgressBar) -> Inspection:
        """Read the data and decode all images, without a model."""
        lines: list[str] = []
        is_good = True
        inputs = self.open(data)
        for name, benchmark in inputs.benchmarks.items():
            with bar(len(benchmark.images)) as progress:
                bad_images = decode_all(benchmark.images, progress)
            sizes = self.describe_sizes(replace(inputs, benchmarks={name or benchmark.name: benchmark}))
            lines += [f"{title}: {size}" for title, size in sizes.items()]
            lines += [f"entries: {benchmark.entry_report}", f"images: {bad_images}"]
            if benchmark.entry_report.counts or bad_images.counts:
                is_good = False
        return Inspection("\n".join(lines), is_good)


def run_scorer(
    scorer: Scorer,
    model: Encoder,
    inputs: ScorerInput,
    name: str | None = None,
    encode: Callable[[Encoder, Benchmark, str], EncodedBenchmark] | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> Report:
    """Check a model, encode the benchmarks with it, and score the embeddings. A collective of the ranks.

    Args:
        scorer: scorer that opened the data.
        model: model to score.
        inputs: data that the scorer has opened.
        name: name of the model in errors; None skips the check, if the model has been checked before.
        encode: encodes a benchmark, given model, benchmark and name of the benchmark; None: `encode_benchmark`.
        rank: rank of this process; on ranks other than 0 the report is empty.
        ranks: number of ranks that share the encoding.

    Raises:
        ValueError: see `Scorer.check`, `encode_benchmark` and `Scorer.score`.
    """
    if name is not None:
        scorer.check(inputs, model, name)
    # All ranks encode, rank 0 alone scores.
    encoded = {}
    for key, benchmark in inputs.benchmarks.items():
        if encode is None:
            encoded[key] = encode_benchmark(model, benchmark, rank=rank, ranks=ranks)
        else:
            encoded[key] = encode(model, benchmark, key)
    return Report({}) if rank else scorer.score(inputs, encoded, model)
