"""JSON objects next to weights, read key by key."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ernie_vil2.io.files import load_json
from ernie_vil2.section import MAX_EPSILON

MAX_CHARACTERS = 2**20  # of a JSON file next to weights; PaddleNLP's have 6,000
_REPR = reprlib.Repr()
_REPR.maxstring = 60  # names of models are longer than the 30 characters that are shown by default
_MOST = 10**40  # of a whole number: transformers writes 10**30 for "no limit", and 10**309 is no float any more
D = TypeVar("D", int, None)
C = TypeVar("C")


@dataclass(frozen=True)
class Settings:
    """An object of a JSON file; every error names the file and the key."""

    path: Path
    values: Mapping[str, Any]
    section: str = ""

    @classmethod
    def read(cls, path: Path) -> Settings:
        values = load_json(path, MAX_CHARACTERS)
        if not isinstance(values, dict):
            raise ValueError(f"{path}: not a JSON object")
        return cls(path, values)

    def within(self, section: str) -> Settings:
        values = self.values.get(section)
        if not isinstance(values, dict):
            raise ValueError(f"{self.path}: {section} is missing or no JSON object")
        return Settings(self.path, values, f"{section}.")

    def refusal(self, key: str, expected: str) -> ValueError:
        given = _REPR.repr(self.values[key])[:100] if key in self.values else "missing"
        return ValueError(f"{self.path}: {self.section}{key} is {given}; {expected}")

    def part(self, section: str) -> Settings:
        """An object within this one; empty where it is left out."""
        return self.within(section) if section in self.values else Settings(self.path, {}, f"{section}.")

    def choice(self, key: str, default: C, known: Mapping[str, C]) -> C:
        """What one of some words means."""
        word = self.values.get(key)
        if key not in self.values:
            return default
        if not isinstance(word, str) or word not in known:
            raise self.refusal(key, f"known are {', '.join(known)}")
        return known[word]

    def flag(self, key: str, default: bool) -> bool:
        """Return a truth value; a word such as "false" would be true."""
        value = self.values.get(key, default)
        if type(value) is not bool:
            raise self.refusal(key, "true or false is expected")
        return value

    def token_id(self, key: str, default: int, rows: int | None) -> int:
        """Return the number of a token, below the number of rows of the word embedding where that is known."""
        value = self.count(key, default, least=0)
        if rows is not None and value >= rows:
            raise self.refusal(key, f"it is {value}, but its weights have {rows} words, the first of which is 0")
        return value

    def check_keys(self, known: Collection[str]) -> None:
        """Refuse a setting of a name that the authors' code does not have: nobody knows what it asks for."""
        for key in self.values:
            if key not in known:
                raise self.refusal(key, "there is no setting of this name")

    def epsilon(self, key: str, default: float) -> float:
        """Return the epsilon of a norm, which Paddle takes up to `MAX_EPSILON`."""
        value = self.number(key, default)
        if value > MAX_EPSILON:
            raise self.refusal(key, f"Paddle's norms take at most {MAX_EPSILON:g}")
        return value

    def number(self, key: str, default: float) -> float:
        """A number above 0."""
        value = self.values.get(key, default)
        if type(value) not in (int, float) or not 0 < value < 1e6:
            raise self.refusal(key, "a number above 0 is expected")
        return float(value)

    def shares(self, key: str, default: list[float], positive: bool = False) -> list[float]:
        """Return a mean or a deviation of red, green and blue, of pixels from 0 to 1.

        Numbers beyond 1 are those of pixels from 0 to 255, by which no image would look like an image.
        """
        values = self.values.get(key)
        if values is None:
            return default
        if not isinstance(values, list) or len(values) != 3:
            raise self.refusal(key, "three numbers are expected")
        for value in values:
            if type(value) not in (int, float) or not 0 <= value <= 1 or (positive and value == 0):
                raise self.refusal(key, "three numbers are expected, from 0 to 1 as the pixels are")
        return [float(value) for value in values]

    def normalisation(self, mean: list[float], std: list[float]) -> dict[str, list[float]]:
        """`mean` and `std` of an image processor that brings pixels to 0 to 1; these where it leaves them out."""
        factor = self.values.get("rescale_factor", 1 / 255)
        if type(factor) not in (int, float) or abs(255 * factor - 1) > 1e-6:
            raise self.refusal("rescale_factor", "only 1 / 255 is read")
        return {"mean": self.shares("image_mean", mean), "std": self.shares("image_std", std, positive=True)}

    def check_facts(self, **facts: Any) -> None:
        """Refuses what is given and differs from `facts`; what is left out is so by the release's own default."""
        for key, expected in facts.items():
            if self.values.get(key, expected) != expected:
                raise self.refusal(key, f"only models with {expected!r} are read")

    def check_sizes(self, sizes: Mapping[str, int], defaults: Mapping[str, int]) -> None:
        """Refuses sizes that are not those of the weights; one that is left out is the release's default, if any."""
        for key, size in sizes.items():
            if self.values.get(key, defaults.get(key, size)) != size:
                raise self.refusal(key, f"its weights say {size}")

    def count(self, key: str, default: D, least: int = 1) -> int | D:
        """A whole number of at least `least`."""
        value = self.values.get(key, default)
        if value is not default and (type(value) is not int or not least <= value <= _MOST):
            raise self.refusal(key, f"a whole number of at least {least} is expected")
        return value

    def share(self, key: str, default: float) -> float:
        """A probability."""
        value = self.values.get(key, default)
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise self.refusal(key, "a number from 0 to 1 is expected")
        return float(value)
