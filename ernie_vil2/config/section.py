"""What all sections of the configuration are, the types of their values, and how two trees of them differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["float32", "bfloat16", "float16"]
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Strength = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=1, le=65_536)]
Depth = Annotated[int, Field(ge=1, le=1024)]


class Section(BaseModel):
    """A part of the configuration: unknown keys, wrong types and infinite numbers are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING = _Missing()
"""The value of a key that a tree lacks."""


def differences(*trees: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[Any]]]:
    """The keys in which trees of settings differ, each with the values that the trees have, in their order.

    Args:
        trees: as `Config.model_dump` gives them, or parts of that. Mappings are compared key by key where all trees
            have one; other values, lists too, as a whole.
        prefix: goes before each key, which is written as `Section.key`.
    """
    for key in dict.fromkeys(key for tree in trees for key in tree):
        values = [tree.get(key, MISSING) for tree in trees]
        if all(value == values[0] for value in values):
            continue
        if all(isinstance(value, Mapping) for value in values):
            yield from differences(*values, prefix=f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", values
