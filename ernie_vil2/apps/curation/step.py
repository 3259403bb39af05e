"""What a step of a curation is, a pair as the steps measure it, and the steps that a file names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from pydantic import ValidationError, create_model

from ernie_vil2.apps.curation.likeness import Thumbnail, shrunk, thumbnails_of
from ernie_vil2.config.load import describe_problems, override, read_yaml, split_key
from ernie_vil2.data.decoding import EncodedImage
from ernie_vil2.data.samples import Sample
from ernie_vil2.io.terminal import ConfigError
from ernie_vil2.registry import Registry, UnknownName, import_user_modules
from ernie_vil2.section import Section

if TYPE_CHECKING:
    import pyarrow as pa

    from ernie_vil2.apps.curation.joins import Joins, Measured

SettingsOf = TypeVar("SettingsOf", bound=Section)


class Pair:
    """An image with its captions, as it is measured; its pixels are decoded once, when a step first asks for them.
    BadSample if it has no caption."""

    def __init__(self, sample: Sample):
        self.sample = sample
        self.captions: Mapping[str, str] = sample.readable_captions()

    @cached_property
    def image(self) -> EncodedImage:
        """The image whose size is known; BadSample if its file is broken."""
        return EncodedImage(self.sample.image, self.sample.image_name)

    @cached_property
    def pixels(self) -> np.ndarray:
        """`[H, W, 3]` uint8 RGB."""
        return self.image.decode()

    @cached_property
    def small(self) -> np.ndarray:
        """The image no larger than 128 pixels a side, `[H, W, 3]` uint8 RGB."""
        return shrunk(self.pixels)

    @cached_property
    def thumbnails(self) -> list[Thumbnail]:
        """By which it is compared with other images."""
        return thumbnails_of(self.small)


@dataclass(frozen=True)
class Shown:
    """A measure on the page: its column, what a person calls it, and the bounds outside which pairs went."""

    column: str
    title: str
    bounds: tuple[float, ...] = ()


class Embedder(Protocol):
    """A second pass that embeds the pairs which the rules leave, shard by shard; `maps` is the `Maps` of the steps."""

    @property
    def schema(self) -> pa.Schema: ...

    def part(self, maps: Any, shard: int) -> Measured: ...

    def embed_shard(self, maps: Any, shard: int) -> None: ...


class Step(Generic[SettingsOf]):
    """A step: what it measures of each pair on its own, and which pairs it removes.

    Measures do not depend on thresholds, so that those can be changed at the cost of the joins alone. A step's measures
    do depend on what `measured_by` returns.

    Args:
        settings: of the step's `Settings`.

    Attributes:
        name: of its section in the configuration.
        cost: steps decide in ascending order of it.
        columns: what it measures: names of columns and their Arrow types.
    """

    name: ClassVar[str]
    cost: ClassVar[int]
    Settings: ClassVar[type[Section]]
    columns: ClassVar[Mapping[str, str]] = {}

    def __init__(self, settings: SettingsOf):
        self.settings = settings

    def check(self) -> None:
        """Raises ValueError or OSError, before any work, if something that it needs is not there."""

    def measured_by(self) -> Any:
        """What the measures depend on besides the pair, for JSON."""
        return None

    def measure(self, pair: Pair) -> Mapping[str, Any]:
        """The values of its columns for a pair. BadSample if the image is broken."""
        return {}

    def embedder(self) -> Embedder | None:
        """What embeds in a second pass the pairs that the rules leave; None: the step needs no embeddings."""
        return None

    def needs_embeddings(self) -> str | None:
        """Return the name of the setting for which `score` has to be among the steps; None: there is none."""
        return None

    def prepare(self, joins: Joins) -> None:
        """Makes what other steps may use, before any of them decides."""

    def rules(self) -> Iterable[tuple[str, str]]:
        """Reasons for which a pair goes, whatever the others are, each with the SQL condition on its measures."""
        return ()

    def decide(self, joins: Joins) -> None:
        """Removes pairs, or changes their weights, by what all pairs are. It is called after the rules."""

    def shown(self) -> Iterable[Shown]:
        """The measures of which the page has a histogram."""
        return ()


UNREADABLE = "unreadable"
"""The step of the table under which pairs are that could not be read; the reason is one of `Reason`."""

STEPS: Registry[type[Step]] = Registry(
    "step",
    {
        name: f"ernie_vil2.apps.curation.steps.{name}:{name.title().replace('_', '')}"
        for name in (
            "text_rules",
            "image_rules",
            "exact_duplicates",
            "leaks",
            "near_duplicates",
            "near_texts",
            "score",
            "balance",
        )
    },
    ("name", "cost", "Settings", "columns", "measure", "rules", "decide", "shown"),
)
"""Another step is a file in `steps/` and a line here, or your own as `package.module:Class`."""


def load_steps(path: str | Path, overrides: Iterable[str] = ()) -> list[Step]:
    """The steps that a file names, in ascending order of their cost.

    Args:
        path: YAML with a section for each step; one that is null is left out.
        overrides: `step.key=value` texts, or `step=null`; the value is YAML, and the last one wins.

    Raises:
        ConfigError: there is no such step or setting (with the nearest right one), a value is of the wrong type or out
            of range, the file is not YAML, or no step is left.
    """
    tree: Any = read_yaml(path, keep_words=True) or {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: the top level must be steps ({', '.join(STEPS)})")
    overrides = list(overrides)
    named = [str(name) for name in tree]
    named += [split_key(text.partition("=")[0])[0] for text in overrides]
    origin = " ".join([str(path), *(f"-o {text}" for text in overrides)])
    try:
        import_user_modules(named)
        steps = {name: STEPS.find(name) for name in dict.fromkeys([*STEPS, *named])}
    except UnknownName as error:
        raise ConfigError(f"{origin}: {error}") from None
    fields: dict[str, Any] = {name: (step.Settings | None, None) for name, step in steps.items()}
    whole = create_model("Curation", __base__=Section, **fields)
    for text in overrides:
        override(tree, text, whole)
    try:
        settings = whole.model_validate(tree)
    except ValidationError as error:
        raise describe_problems(error, origin, whole) from None
    made = [step(own) for name, step in steps.items() if (own := getattr(settings, name)) is not None]
    if not made:
        raise ConfigError(f"{origin}: no step is left; name one of {', '.join(STEPS)}")
    return sorted(made, key=lambda step: step.cost)
