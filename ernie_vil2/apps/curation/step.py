"""Steps of a curation: their interface, the pair that they measure, and how a file configures them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import cv2
import numpy as np
from pydantic import ValidationError, create_model

from ernie_vil2.apps.curation.likeness import Thumbnail, limit_size, make_thumbnails
from ernie_vil2.apps.curation.rules import Rule
from ernie_vil2.config.load import describe_problems, override, read_yaml, split_key
from ernie_vil2.data.decoding import EncodedImage
from ernie_vil2.data.samples import Sample
from ernie_vil2.io.terminal import ConfigError
from ernie_vil2.registry import Registry, UnknownName, import_user_modules
from ernie_vil2.section import Section

if TYPE_CHECKING:
    import pyarrow as pa

    from ernie_vil2.apps.curation.joins import Joins, MeasuresFile

SettingsT = TypeVar("SettingsT", bound=Section)


class Pair:
    """An image with its captions. Steps share its pixels, which are decoded when they are first needed.

    Attributes:
        sample: the sample as its source has it.
        captions: its captions by language, which a step may have edited.

    Raises:
        BadSample: it has no caption.
    """

    def __init__(self, sample: Sample):
        self.sample = sample
        self.captions: Mapping[str, str] = sample.readable_captions()

    @cached_property
    def image(self) -> EncodedImage:
        """Encoded image, whose size is known without decoding; BadSample if the file is broken."""
        return EncodedImage(self.sample.image, self.sample.image_name)

    @cached_property
    def pixels(self) -> np.ndarray:
        """Decoded image, `[H, W, 3]` uint8 RGB; BadSample if it cannot be decoded."""
        return self.image.decode()

    @cached_property
    def luminance(self) -> np.ndarray:
        """Luminance of the image, `[H, W]` uint8."""
        return cv2.cvtColor(self.pixels, cv2.COLOR_RGB2GRAY)

    @cached_property
    def small_pixels(self) -> np.ndarray:
        """Image of at most 160 pixels a side, `[H, W, 3]` uint8 RGB."""
        return limit_size(self.pixels)

    @cached_property
    def thumbnails(self) -> list[Thumbnail]:
        """Thumbnails for comparing the image with others."""
        return make_thumbnails(self.small_pixels)


@dataclass(frozen=True)
class Histogram:
    """Histogram of a measure, for the page.

    Args:
        column: SQL expression of the measure, usually its column.
        title: label of the axis.
        bounds: thresholds, drawn as dashed lines.
    """

    column: str
    title: str
    bounds: tuple[float, ...] = ()


class Embedder(Protocol):
    """Second pass over the shards of a `MeasuringJob`, which embeds the pairs that no rule removes."""

    @property
    def schema(self) -> pa.Schema:
        """Columns of a file of embeddings."""

    def locate_embeddings(self, job: Any, shard: int) -> MeasuresFile:
        """Return the file of the embeddings of a shard of the job."""

    def embed_shard(self, job: Any, shard: int) -> None:
        """Embed the pairs of a shard of the job, and write them to its file."""


class Step(Generic[SettingsT]):
    """Step of a curation, which measures every pair alone, and then decides which pairs to remove.

    Measures must not depend on thresholds, so that a changed threshold costs only the joins. What they do depend on,
    besides the pair, is returned by `measure_dependencies`.

    Args:
        settings: settings of the type `Settings`.

    Attributes:
        name: name of the step's section in the configuration.
        cost: rank of the step; steps decide in ascending order.
        columns: names of the measured columns, and their Arrow types.
    """

    name: ClassVar[str]
    cost: ClassVar[int]
    Settings: ClassVar[type[Section]]
    columns: ClassVar[Mapping[str, str]] = {}

    def __init__(self, settings: SettingsT):
        self.settings = settings

    def check(self) -> None:
        """Raise ValueError or OSError, before any work, if something that the step needs is missing."""

    def measure_dependencies(self) -> Any:
        """Return what the measures depend on besides the pair, as a value for JSON."""
        return None

    def edit(self, pairs: Sequence[Pair]) -> None:
        """Change the captions of pairs, before any step measures these."""

    def measure(self, pair: Pair) -> Mapping[str, Any]:
        """Return the values of the step's columns for a pair; BadSample if the image is broken."""
        return {}

    def get_embedder(self) -> Embedder | None:
        """Return the second pass over the shards, or None if the step has none."""
        return None

    def get_embedding_setting(self) -> str | None:
        """Return the name of this step's setting that needs the embeddings of the step `score`; None if none does."""
        return None

    def prepare(self, joins: Joins) -> None:
        """Compute what other steps may use, before any of them decides."""

    def rules(self) -> Iterable[Rule]:
        """Yield the rules by which a pair is removed alone."""
        return ()

    def decide(self, joins: Joins) -> None:
        """Remove or weight pairs in view of all pairs. The rules have been applied before."""

    def explain(self, joins: Joins, reason: str, samples: Sequence[int]) -> dict[int, str]:
        """Return in words for the page, by sample, why a reason applied; samples that nothing explains are missing."""
        for rule in self.rules():
            if rule.reason == reason:
                return joins.describe_samples(samples, f"select sample, {rule.explanation} from pairs")  # noqa: S608  -- no text of the data is in it
        return {}

    def histograms(self) -> Iterable[Histogram]:
        """Yield histograms for the page."""
        return ()


UNREADABLE = "unreadable"
"""Name in the column `step` of the table for pairs that could not be read; their reason is one of `Reason`."""

STEPS: Registry[type[Step]] = Registry(
    "step",
    {
        "text_rules": "ernie_vil2.apps.curation.steps.text_rules:TextRules",
        "image_rules": "ernie_vil2.apps.curation.steps.image_rules:ImageRules",
        "exact_duplicates": "ernie_vil2.apps.curation.steps.exact_duplicates:ExactDuplicates",
        "leaks": "ernie_vil2.apps.curation.steps.leaks:Leaks",
        "near_duplicates": "ernie_vil2.apps.curation.steps.near_duplicates:NearDuplicates",
        "near_texts": "ernie_vil2.apps.curation.steps.near_texts:NearTexts",
        "score": "ernie_vil2.apps.curation.steps.score:Score",
        "balance": "ernie_vil2.apps.curation.steps.balance:Balance",
    },
    ("name", "cost", "Settings", "columns", "measure", "rules", "decide", "histograms"),
)
"""Steps by name. To add one, write a file in `steps/` and add its class here, or name your own class as
`package.module:Class`."""


def load_steps(path: str | Path, overrides: Iterable[str] = ()) -> list[Step]:
    """Return the steps that a file configures, in ascending order of their cost.

    Args:
        path: YAML file with a section for each step; a step whose section is null is left out.
        overrides: `step.key=value` or `step=null`; the value is YAML, and the last override of a key wins.

    Raises:
        ConfigError: a step or setting is unknown (the message names the nearest known one), a value has the wrong type
            or is out of range, the file is not YAML, or no step is left.
    """
    tree: Any = read_yaml(path, keep_switch_words=True) or {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: the top level must be steps ({', '.join(STEPS)})")
    overrides = list(overrides)
    origin = " ".join([str(path), *(f"-o {text}" for text in overrides)])

    # Find the classes of all known steps, and of those that the file or an override names.
    step_names = [str(name) for name in tree]
    for text in overrides:
        key = text.partition("=")[0]
        step_names.append(split_key(key)[0])
    try:
        import_user_modules(step_names)
        classes = {name: STEPS.find(name) for name in dict.fromkeys([*STEPS, *step_names])}
    except UnknownName as error:
        raise ConfigError(f"{origin}: {error}") from None

    # One model of the whole file validates all sections at once, and reports all problems at once.
    fields: dict[str, Any] = {name: (step_class.Settings | None, None) for name, step_class in classes.items()}
    file_model = create_model("Curation", __base__=Section, **fields)
    for text in overrides:
        override(tree, text, file_model)
    try:
        sections = file_model.model_validate(tree)
    except ValidationError as error:
        raise describe_problems(error, origin, file_model) from None

    steps = []
    for name, step_class in classes.items():
        settings = getattr(sections, name)
        if settings is not None:
            steps.append(step_class(settings))
    if not steps:
        raise ConfigError(f"{origin}: no step is left; name one of {', '.join(STEPS)}")
    return sorted(steps, key=lambda step: step.cost)
