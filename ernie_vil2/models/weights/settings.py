"""Read the JSON settings next to weights, key by key, with errors that name the file and the key."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ernie_vil2.io.files import load_json
from ernie_vil2.io.terminal import make_printable
from ernie_vil2.section import MAX_EPSILON

MAX_CHARACTERS = 2**20  # of a JSON file next to weights; those of PaddleNLP have 6,000
MAX_COUNT = 10**40  # transformers writes 10**30 for "no limit"; 10**309 would no longer fit in a float
# How a wrong value is quoted: names of models are longer than the 30 characters that reprlib shows by default.
_REPR = reprlib.Repr()
_REPR.maxstring = 60
D = TypeVar("D", int, None)
C = TypeVar("C")


@dataclass(frozen=True)
class Settings:
    """Object of a JSON file; the errors of all methods name the file and the key.

    Attributes:
        path: the file.
        values: the object's values by key.
        prefix: what precedes the keys in messages, such as "text_config."; "" for the object of the whole file.
    """

    path: Path
    values: Mapping[str, Any]
    prefix: str = ""

    @classmethod
    def from_file(cls, path: Path) -> Settings:
        """Read a file that holds one JSON object."""
        values = load_json(path, MAX_CHARACTERS)
        if not isinstance(values, dict):
            raise ValueError(f"{path}: not a JSON object")
        return cls(path, values)

    def open_section(self, name: str) -> Settings:
        """Return the object under a key; raise ValueError if it is missing."""
        values = self.values.get(name)
        if not isinstance(values, dict):
            raise ValueError(f"{self.path}: {name} is missing or no JSON object")
        return Settings(self.path, values, f"{name}.")

    def open_optional_section(self, name: str) -> Settings:
        """Return the object under a key; an empty one if the key is missing or null."""
        if self.values.get(name) is None:
            return Settings(self.path, {}, f"{name}.")
        return self.open_section(name)

    def make_error(self, key: str, expected: str) -> ValueError:
        """Return an error that quotes the value of a key and says what is expected instead."""
        value = _REPR.repr(self.values[key])[:100] if key in self.values else "missing"
        # A key may be a stranger's, too, see check_keys.
        return ValueError(f"{self.path}: {self.prefix}{make_printable(key, max_length=100)} is {value}; {expected}")

    def read_choice(self, key: str, default: C, choices: Mapping[str, C]) -> C:
        """Return what the word under a key stands for."""
        if key not in self.values:
            return default
        word = self.values[key]
        if not isinstance(word, str) or word not in choices:
            raise self.make_error(key, f"known are {', '.join(choices)}")
        return choices[word]

    def read_bool(self, key: str, default: bool) -> bool:
        """Return true or false; a word such as "false", which Python takes for true, is an error."""
        # isinstance would not do in these methods: True is an int for Python.
        value = self.values.get(key, default)
        if type(value) is not bool:
            raise self.make_error(key, "true or false is expected")
        return value

    def read_token_id(self, key: str, default: int, vocab_size: int | None) -> int:
        """Return the id of a token; `vocab_size` is the number of rows of the word embedding, None if not known."""
        value = self.read_int(key, default, minimum=0)
        if vocab_size is not None and value >= vocab_size:
            raise self.make_error(key, f"its weights have {vocab_size} words, numbered from 0")
        return value

    def read_int(self, key: str, default: D, minimum: int = 1) -> int | D:
        """Return a whole number of at least `minimum`."""
        value = self.values.get(key, default)
        if value is not default and (type(value) is not int or not minimum <= value <= MAX_COUNT):
            raise self.make_error(key, f"a whole number of at least {minimum} is expected")
        return value

    def read_number(self, key: str, default: float) -> float:
        """Return a number above 0."""
        value = self.values.get(key, default)
        if type(value) not in (int, float) or not 0 < value < 1e6:
            raise self.make_error(key, "a number above 0 is expected")
        return float(value)

    def read_epsilon(self, key: str, default: float) -> float:
        """Return the epsilon of a norm; Paddle's norms take at most `MAX_EPSILON`."""
        value = self.read_number(key, default)
        if value > MAX_EPSILON:
            raise self.make_error(key, f"Paddle's norms take at most {MAX_EPSILON:g}")
        return value

    def read_probability(self, key: str, default: float) -> float:
        """Return a number from 0 to 1."""
        value = self.values.get(key, default)
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise self.make_error(key, "a number from 0 to 1 is expected")
        return float(value)

    def read_colour(self, key: str, default: list[float], is_positive: bool = False) -> list[float]:
        """Return a mean or a standard deviation of red, green and blue, for pixels from 0 to 1.

        Larger numbers are meant for pixels from 0 to 255; with them, no image would look like an image.
        """
        values = self.values.get(key)
        if values is None:
            return default
        if not isinstance(values, list) or len(values) != 3:
            raise self.make_error(key, "three numbers are expected")
        for value in values:
            if type(value) not in (int, float) or not 0 <= value <= 1 or (is_positive and value == 0):
                raise self.make_error(key, "three numbers are expected, from 0 to 1 as the pixels are")
        return [float(value) for value in values]

    def read_normalisation(self, mean: list[float], std: list[float]) -> dict[str, list[float]]:
        """Return `mean` and `std` of an image processor that scales pixels to 0 to 1; the arguments are defaults."""
        # With a tolerance, because files round 1 / 255.
        factor = self.values.get("rescale_factor", 1 / 255)
        if type(factor) not in (int, float) or not abs(255 * factor - 1) <= 1e-6:  # refuses NaN, too
            raise self.make_error("rescale_factor", "only 1 / 255 is supported")
        return {
            "mean": self.read_colour("image_mean", mean),
            "std": self.read_colour("image_std", std, is_positive=True),
        }

    def check_values(self, **expected_values: Any) -> None:
        """Raise ValueError if a value differs from the only one that our towers compute.

        A missing key has that value: it is the default of the authors' code.
        """
        for key, expected in expected_values.items():
            if self.values.get(key, expected) != expected:
                raise self.make_error(key, f"only models with {expected!r} are supported")

    def check_sizes(self, sizes: Mapping[str, int], defaults: Mapping[str, int] | None = None) -> None:
        """Raise ValueError if a size differs from that of the weights.

        Args:
            sizes: sizes of the weights by key.
            defaults: sizes that missing keys stand for in the authors' code; a missing key without one is right.
        """
        for key, size in sizes.items():
            if self.values.get(key, (defaults or {}).get(key, size)) != size:
                raise self.make_error(key, f"its weights say {size}")

    def check_keys(self, keys: Collection[str]) -> None:
        """Raise ValueError for a key that the authors' code does not have: nobody knows what it changes."""
        for key in self.values:
            if key not in keys:
                raise self.make_error(key, "there is no setting of this name")
