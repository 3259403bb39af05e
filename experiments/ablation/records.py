"""What the files of a study's results hold, so that a reader finds what it computes with, or an error names the key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

VERSION = 1
Figure = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0, lt=2**53)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True)


class Measured(_Record):
    """The file `study.json` of a run: by what configuration, on what data, and with what figures it was made."""

    version: Literal[VERSION]
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

    version: Literal[VERSION]
    title: str
    baseline: str
    models: dict[str, _Model]
    groups: list[_Group] = Field(min_length=1)
    tests: dict[str, str]
    languages: list[str] = Field(min_length=2, max_length=2)
    runs: list[_Run]
    lacks: list[Annotated[str, Field(pattern=": ")]]

    @model_validator(mode="after")
    def _belong_together(self) -> Results:
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
    return next((value for value in values if value in seen or seen.add(value)), None)


def reason(error: ValidationError) -> str:
    """The first fault of what was validated, with its key."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))[:200]
    said = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return f"{key}: {said}" if key else said
