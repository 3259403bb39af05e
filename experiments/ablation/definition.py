"""Definition of a study: models over one base, groups of runs, seeds, and what is measured.

`Study` reads it from a YAML file. `RunResult` and `StudyResults` are the files that a study writes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ernie_vil2.config import Config, ConfigError
from ernie_vil2.config.load import merge_trees, read_overlay, read_yaml, validate_config

FURTHER = "further"  # in the names of figures, before the name of the further captions


def find_repeated(values: Sequence[Any]) -> Any:
    """Return the first value that occurred before, or None if all values are different."""
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def _check_unique(values: list) -> list:
    repeated = find_repeated(values)
    if repeated is not None:
        raise ValueError(f"{repeated} occurs twice")
    return values


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""Name of a model or a group, which is also that of a folder."""
# A run's folder is named by model and seed, so a repeated one would be trained once and counted twice.
Names = Annotated[list[Name], Field(min_length=1), AfterValidator(_check_unique)]
Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_check_unique)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Model(_Section):
    """One of the compared models.

    Attributes:
        config: YAML overlay over the base of the study, next to the study's file.
        description: what the model is, in words.
        published: figures of the paper's model of this definition, by name.
    """

    config: str
    description: str
    published: dict[str, float] = {}


class Group(_Section):
    """Runs that belong together: the main comparison, or a factor.

    Attributes:
        name: name of the group.
        description: what is different in it, in words.
        models: names of its models.
        seeds: its seeds; None: those of the study.
        overrides: sections and keys that differ from base and model.
    """

    name: Name
    description: str = ""
    models: Names
    seeds: Seeds | None = None
    overrides: dict[str, Any] = {}


class Test(_Section):
    """Images that are scored once, after training.

    Attributes:
        data: their files.
        kind: of what kind they are, in a word.
    """

    data: list[str] = Field(min_length=1)
    kind: str = ""


class Small(_Section):
    """Part of a study that `--small` runs instead of the whole.

    Attributes:
        groups: names of its groups.
        seeds: seeds of all of its groups.
        overrides: sections and keys that differ from the groups.
    """

    groups: Names
    seeds: Seeds
    overrides: dict[str, Any] = {}


class Definition(_Section):
    """Content of a study's file.

    Attributes:
        title: title of the page.
        output: folder of the run folders, `<output>/<group>/<model>-<seed>`.
        base: YAML overlay that all models share, next to the study's file.
        baseline: name of the model that others are compared with.
        models: models by name.
        seeds: seeds of every group that names none.
        groups: groups; the first one is the main comparison.
        tests: tests by name.
        language: language of the tests' captions.
        second_language: language in which images are searched that have had names in `language` only.
        further_captions: languages of further captions of all tests, which are scored as well, by a name for them.
        drawings: shard with captions in both languages, which translates these queries; None: they are not measured.
        small: the small form of the study; None: `--small` is refused.
    """

    title: str
    output: str
    base: str
    baseline: Name
    models: dict[Name, Model] = Field(min_length=1)
    seeds: Seeds
    groups: list[Group] = Field(min_length=1)
    tests: dict[Name, Test] = Field(min_length=1)
    language: str = "en"
    second_language: str = "zh"
    further_captions: dict[Name, str] = {}
    drawings: str | None = None
    small: Small | None = None

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        models_by_key = {"baseline": [self.baseline]}
        for group in self.groups:
            models_by_key[f"groups.{group.name}"] = group.models
        for key, models in models_by_key.items():
            for model in models:
                if model not in self.models:
                    raise ValueError(f"{key} names a model {model}; known: {', '.join(self.models)}")

        group_names = [group.name for group in self.groups]
        repeated = find_repeated(group_names)
        if repeated is not None:
            raise ValueError(f"two groups are called {repeated}")
        for name in self.small.groups if self.small else ():
            if name not in group_names:
                raise ValueError(f"small names a group {name}; known: {', '.join(group_names)}")
        return self


@dataclass(frozen=True)
class Run:
    """A training run of a study, with its folder and its whole configuration."""

    group: str
    model: str
    seed: int
    folder: Path
    config: Config

    def __str__(self) -> str:
        return f"{self.group}/{self.model}/{self.seed}"


@dataclass(frozen=True)
class Study:
    """A study, whole or small, from `read_study`."""

    path: Path
    definition: Definition

    @property
    def output(self) -> Path:
        """Folder of all runs."""
        return Path(self.definition.output)

    def runs(self) -> Iterator[Run]:
        """Yield all runs in the order of their training: by group, then by seed, then by model."""
        for group in self.definition.groups:
            for seed in group.seeds or self.definition.seeds:
                for model in group.models:
                    yield self._make_run(group, model, seed)

    def find_run(self, name: str) -> Run:
        """Return the run called `group/model/seed`; ConfigError if the study has no such run."""
        for run in self.runs():
            if str(run) == name:
                return run
        raise ConfigError(f"{self.path}: no run {name}; its runs are called as {next(self.runs())}")

    def _make_run(self, group: Group, model: str, seed: int) -> Run:
        folder = self.output / group.name / f"{model}-{seed}"
        tree: dict[str, Any] = {}
        for overlay in (self.definition.base, self.definition.models[model].config):
            tree = merge_trees(tree, read_overlay(self.path.parent / overlay))
        tree = merge_trees(tree, group.overrides)
        tree = merge_trees(tree, {"Training": {"seed": seed, "output": str(folder)}})
        return Run(group.name, model, seed, folder, validate_config(tree, f"{self.path}, {group.name}/{model}"))


def read_study(path: str | Path, small: bool = False) -> Study:
    """Read the YAML file of a study.

    Args:
        path: the file.
        small: return the part under its key `small`, with a folder of its own, instead of the whole study.

    Raises:
        ConfigError: the file is no study, or has no small form; the message names the key.
    """
    path = Path(path)
    try:
        definition = Definition.model_validate(read_yaml(path, keep_switch_words=True))
    except ValidationError as error:
        raise ConfigError(f"{path}: {describe_first_problem(error)}") from None
    if not small:
        return Study(path, definition)
    if definition.small is None:
        raise ConfigError(f"{path}: this study has no small form; give it a key small, or leave out --small")
    seeds = definition.small.seeds
    groups = []
    for group in definition.groups:
        if group.name in definition.small.groups:
            overrides = merge_trees(group.overrides, definition.small.overrides)
            groups.append(group.model_copy(update={"seeds": seeds, "overrides": overrides}))
    update = {"groups": groups, "seeds": seeds, "output": f"{definition.output}-small"}
    return Study(path, definition.model_copy(update=update))


VERSION: Literal[1] = 1
"""Version of the files that a study writes."""
Figure = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
WholeNumber = Annotated[int, Field(ge=0, lt=2**53)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True)


class RunResult(_Record):
    """File `study.json` of a run.

    Attributes:
        step: step of the checkpoint that was scored.
        config: configuration of the run.
        train: what identifies each source that it was trained on.
        tests: digests of the tests, by name.
        figures: figures by name.
    """

    version: Literal[1]
    step: WholeNumber
    config: dict[str, Any]
    train: list[dict[str, str | int | float | None]]
    tests: dict[str, str]
    figures: dict[str, Figure]


class _ModelRecord(_Record):
    description: str
    published: dict[str, Figure]


class _GroupRecord(_Record):
    name: str
    description: str
    models: list[str] = Field(min_length=1)
    seeds: list[WholeNumber] = Field(min_length=1)


class _RunRecord(_Record):
    group: str
    model: str
    seed: WholeNumber
    step: WholeNumber
    cpu_seconds: Figure | None
    curve: list[Annotated[tuple[WholeNumber, Figure | None, Figure], Field(strict=False)]]
    figures: dict[str, Figure]


class StudyResults(_Record):
    """File `results.json` of a study, as `collect` returns it.

    Attributes:
        tests: the kind of each test.
        languages: the language of the tests' captions, and the second language.
        runs: the runs that count.
        missing: for each other run its name and why it does not count, separated by a colon.
    """

    version: Literal[1]
    title: str
    baseline: str
    models: dict[str, _ModelRecord]
    groups: list[_GroupRecord] = Field(min_length=1)
    tests: dict[str, str]
    languages: list[str] = Field(min_length=2, max_length=2)
    runs: list[_RunRecord]
    missing: list[Annotated[str, Field(pattern=": ")]]

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        models = [self.baseline]
        for group in self.groups:
            models += group.models
        for model in models:
            if model not in self.models:
                raise ValueError(f"there is no model {model}")
        repeated = find_repeated([(run.group, run.model, run.seed) for run in self.runs])
        if repeated is not None:
            raise ValueError(f"the run {'/'.join(map(str, repeated))} occurs twice")
        return self


def describe_first_problem(error: ValidationError) -> str:
    """Return the first problem of what was validated, with its key."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))[:200]
    problem = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return f"{key}: {problem}" if key else problem
