"""What a step of a curation is, and a pair as the steps measure it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

from ernie_vil2.config.section import Section
from ernie_vil2.curation.likeness import Thumbnail, shrunk, thumbnails_of
from ernie_vil2.data.decoding import EncodedImage
from ernie_vil2.data.samples import BadSample, Reason, Sample, is_blank
from ernie_vil2.registry import Registry

if TYPE_CHECKING:
    from ernie_vil2.curation.embeddings import Embedder
    from ernie_vil2.curation.joins import Joins

SettingsOf = TypeVar("SettingsOf", bound=Section)


class Pair:
    """An image with its captions, as it is measured; its pixels are decoded once, when a step first asks for them.

    Args:
        sample: of the source.

    Raises:
        BadSample: it has no caption.
    """

    def __init__(self, sample: Sample):
        self.sample = sample
        self.captions: Mapping[str, str] = {
            language: text.strip() for language, text in sample.captions.items() if not is_blank(text)
        }
        if not self.captions:
            raise BadSample(sample.no_caption, sample.image_name)

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
        name: f"ernie_vil2.curation.steps.{module}:{part}"
        for name, module, part in [
            ("text_rules", "text_rules", "TextRules"),
            ("image_rules", "image_rules", "ImageRules"),
            ("exact_duplicates", "exact_duplicates", "ExactDuplicates"),
            ("leaks", "leaks", "Leaks"),
            ("near_duplicates", "near_duplicates", "NearDuplicates"),
            ("near_texts", "near_texts", "NearTexts"),
            ("score", "score", "Score"),
            ("balance", "balance", "Balance"),
        ]
    },
)
"""Another step is a file in `steps/` and a line here, or your own as `package.module:Class`."""

__all__ = ["STEPS", "UNREADABLE", "Pair", "Reason", "Shown", "Step"]
