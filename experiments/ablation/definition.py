"""A study as its file defines it: models over one base, groups of runs, seeds, and what is measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ernie_vil2.config import Config, ConfigError
from ernie_vil2.config.load import merge_trees, read_overlay, read_yaml, validate_config

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]  # of a model or a group: it names a folder

FURTHER = "further"  # in the names of figures: comes before what further captions are


def _different(values: list) -> list:
    if (twice := first_twice(values)) is not None:
        raise ValueError(f"{twice} occurs twice")
    return values


Names = Annotated[list[Name], Field(min_length=1), AfterValidator(_different)]
Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_different)]
"""Each names the folder of a run: one that occurs twice would be made once and counted twice."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Model(_Section):
    """One of the compared models."""

    config: str  # YAML overlay over the study's base, next to the study's file
    means: str  # what it is, in words
    published: dict[str, float] = {}  # figures of the paper's model of this definition, by name


class Group(_Section):
    """Runs that belong together: the main comparison, or a factor."""

    name: Name
    means: str = ""  # what is different in it, in words
    models: Names
    seeds: Seeds | None = None  # null: those of the study
    set: dict[str, Any] = {}  # sections and keys that differ from base and model


class Test(_Section):
    """Images that are scored once, after training; `kind` says of what kind they are, in a word."""

    data: list[str] = Field(min_length=1)
    kind: str = ""


class Small(_Section):
    """What `--small` runs instead of the whole."""

    groups: Names
    seeds: Seeds
    set: dict[str, Any] = {}


class Definition(_Section):
    """The keys of a study's file.

    Attributes:
        further: other languages of the captions of all tests that are scored as well, by what their texts are.
        drawings: shard with captions in both, by which these queries are known. null: they are not measured.
    """

    title: str  # of the page
    output: str  # folder of the run folders, `<output>/<group>/<model>-<seed>`
    base: str  # YAML overlay that all models share, next to the study's file
    baseline: Name  # the model that others are compared with
    models: dict[Name, Model] = Field(min_length=1)  # by name
    seeds: Seeds  # of every group that names none
    groups: list[Group] = Field(min_length=1)  # the first is the main comparison
    tests: dict[Name, Test] = Field(min_length=1)  # by name
    language: str = "en"  # of the tests' captions
    second: str = "zh"  # a second one, in which images are asked for that only ever had names in the first
    further: dict[Name, str] = {}
    drawings: str | None = None
    small: Small | None = None  # null: `--small` is refused

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        named = {"baseline": [self.baseline], **{f"groups.{group.name}": group.models for group in self.groups}}
        for key, models in named.items():
            for model in models:
                if model not in self.models:
                    raise ValueError(f"{key} names a model {model}; known: {', '.join(self.models)}")
        names = [group.name for group in self.groups]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two groups are called {', '.join(sorted(twice))}")
        if self.small and (unknown := set(self.small.groups) - set(names)):
            raise ValueError(f"small names a group {', '.join(sorted(unknown))}; known: {', '.join(names)}")
        return self


@dataclass(frozen=True)
class Run:
    """One training run of a study: its name in it, its folder, and its whole configuration."""

    group: str
    model: str
    seed: int
    folder: Path
    config: Config

    def __str__(self) -> str:
        return f"{self.group}/{self.model}/{self.seed}"


@dataclass(frozen=True)
class Study:
    """A study, whole or small: see `read_study`."""

    path: Path
    definition: Definition

    @property
    def output(self) -> Path:
        """The folder of all its runs."""
        return Path(self.definition.output)

    def runs(self) -> Iterator[Run]:
        """All runs, in the order in which they are made: group by group, each seed with all models before the next."""
        for group in self.definition.groups:
            for seed in group.seeds or self.definition.seeds:
                for model in group.models:
                    yield self._run(group, model, seed)

    def run(self, name: str) -> Run:
        """The run of `group/model/seed`; ConfigError if the study has none such."""
        for run in self.runs():
            if str(run) == name:
                return run
        raise ConfigError(f"{self.path}: no run {name}; its runs are called as {next(self.runs())}")

    def _run(self, group: Group, model: str, seed: int) -> Run:
        tree: dict[str, Any] = {}
        for overlay in (self.definition.base, self.definition.models[model].config):
            tree = merge_trees(tree, read_overlay(self.path.parent / overlay))
        tree = merge_trees(tree, group.set)
        folder = self.output / group.name / f"{model}-{seed}"
        tree = merge_trees(tree, {"Training": {"seed": seed, "output": str(folder)}})
        return Run(group.name, model, seed, folder, validate_config(tree, f"{self.path}, {group.name}/{model}"))


def read_study(path: str | Path, small: bool = False) -> Study:
    """The study of a YAML file; a small one is the part that its key `small` names, in a folder of its own.

    ConfigError, which names the key, if it is not a study.
    """
    path = Path(path)
    try:
        definition = Definition.model_validate(read_yaml(path, keep_switch_words=True))
    except ValidationError as error:
        raise ConfigError(f"{path}: {reason(error)}") from None
    if not small:
        return Study(path, definition)
    if definition.small is None:
        raise ConfigError(f"{path}: this study has no small form; give it a key small, or leave out --small")
    part = definition.small
    groups = [
        group.model_copy(update={"seeds": part.seeds, "set": merge_trees(group.set, part.set)})
        for group in definition.groups
        if group.name in part.groups
    ]
    update = {"groups": groups, "seeds": part.seeds, "output": f"{definition.output}-small"}
    return Study(path, definition.model_copy(update=update))


VERSION: Literal[1] = 1
Figure = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0, lt=2**53)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True)


class Measured(_Record):
    """The file `study.json` of a run: by what configuration, on what data, and with what figures it was made."""

    version: Literal[1]
    step: Whole
    config: dict[str, Any]
    train: list[dict[str, str | int | float | None]]
    tests: dict[str, str]
    figures: dict[str, Figure]


class _Model(_Record):
    means: str
    published: dict[str, Figure]


class _Group(_Record):
    name: str
    means: str
    models: list[str] = Field(min_length=1)
    seeds: list[Whole] = Field(min_length=1)


class _Run(_Record):
    group: str
    model: str
    seed: Whole
    step: Whole
    cpu_seconds: Figure | None
    curve: list[Annotated[tuple[Whole, Figure | None, Figure], Field(strict=False)]]
    figures: dict[str, Figure]


class Results(_Record):
    """The file `results.json` of a study, as `collect` gives it."""

    version: Literal[1]
    title: str
    baseline: str
    models: dict[str, _Model]
    groups: list[_Group] = Field(min_length=1)
    tests: dict[str, str]
    languages: list[str] = Field(min_length=2, max_length=2)
    runs: list[_Run]
    lacks: list[Annotated[str, Field(pattern=": ")]]

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        for model in [self.baseline, *(model for group in self.groups for model in group.models)]:
            if model not in self.models:
                raise ValueError(f"there is no model {model}")
        names = [(run.group, run.model, run.seed) for run in self.runs]
        if twice := first_twice(names):
            raise ValueError(f"the run {'/'.join(map(str, twice))} occurs twice")
        return self


def first_twice(values: list) -> Any:
    """The first value that is there already when it comes; None if all are different."""
    seen: set = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def reason(error: ValidationError) -> str:
    """The first fault of what was validate_config, with its key."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))[:200]
    problem = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return f"{key}: {problem}" if key else problem
