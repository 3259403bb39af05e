"""Sections of the configuration of a run, from the data to the whole. `configs/default.yaml` explains each field."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SerializeAsAny,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ernie_vil2.section import Count, Fraction, Name, NonNegative, Positive, Precision, Probability, Section, Size
from ernie_vil2.towers.base import ImageTowerConfig, TextTowerConfig, TowerConfig
from ernie_vil2.towers.transformer import PublishedEncoder, PublishedVit, get_text_width

IMAGE_VIEWS = ("image_1", "image_2")
TEXT_VIEWS = ("text_1", "text_2")
TOWER_VIEWS = {"image": IMAGE_VIEWS, "text": TEXT_VIEWS}  # the views that each tower encodes
VIEWS = (*IMAGE_VIEWS, *TEXT_VIEWS)

PAIRS = {
    "image_image": ("image_1", "image_2"),
    "text_text": ("text_1", "text_2"),
    "image_text": ("image_1", "text_1"),
    "text_image": ("text_1", "image_1"),
}
"""View pairs: the view of the rows and the view of the columns of the matrix of scores."""


class ViewsConfig(Section):
    """Views of a sample."""

    resize: Size = Field(256, description="the short side is resized to this many pixels before the crop")
    crop_area: list[Fraction] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="smallest and largest share of the image that a random crop covers; null: a crop of the input size",
    )
    flip: Probability = Field(0.5, description="probability of a horizontal flip")
    jitter: Probability = Field(0.8, description="probability of colour jitter")
    brightness: NonNegative = Field(0.4, description="colour jitter: factor drawn from 1 +- this")
    contrast: NonNegative = Field(0.4, description="colour jitter: factor drawn from 1 +- this")
    saturation: NonNegative = Field(0.2, description="colour jitter: factor drawn from 1 +- this")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.1, description="colour jitter: largest rotation, as a share of the colour circle"
    )
    blur: Probability = Field(0.5, description="probability of a Gaussian blur")
    blur_sigma: list[Positive] = Field(
        default=[0.1, 2.0],
        min_length=2,
        max_length=2,
        description="smallest and largest standard deviation of the blur in pixels",
    )
    grayscale: Probability = Field(0.2, description="probability of conversion to grey")
    tag_probability: Probability = Field(
        0.5, description="probability that the text is the tags instead of the caption"
    )
    caption_lines: bool = Field(
        False, description="treat each line of a caption as a caption of its own, one of which is drawn"
    )
    long_caption: Annotated[str, Field(pattern="^[A-Za-z0-9]+$")] | None = Field(
        None,
        description="suffix of the captions for the second text view: long stands for caption_long_en, caption_long "
        "and the like; null, or a sample without one: the same text",
    )
    long_first: Probability = Field(
        0.0, description="probability that the image is contrasted with the long caption instead of the short one"
    )
    languages: dict[str, Positive] = Field(
        default={"zh": 1.0}, min_length=1, description="languages of the texts and the weight with which each is drawn"
    )
    prompts: dict[str, str] = Field(
        default={"zh": "图片中包含", "en": "The picture contains "}, description="text before the tags, by language"
    )
    separators: dict[str, str] = Field(
        default={"zh": "、", "en": ", "}, description="separator of two tags, by language"
    )
    shuffle_tags: bool = Field(True, description="draw a new order of the tags for every sample")

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        for name in ("crop_area", "blur_sigma"):
            bounds = getattr(self, name)
            if bounds is not None and bounds[0] > bounds[1]:
                raise ValueError(f"{name} is [smallest, largest], got {bounds}")
        return self

    @model_validator(mode="after")
    def _check_texts_of_languages(self) -> Self:
        if self.tag_probability:
            _check_tag_texts(self.languages, self.prompts, self.separators)
        return self


def _check_tag_texts(languages: Iterable[str], prompts: Mapping[str, str], separators: Mapping[str, str]) -> None:
    for language in languages:
        if language not in prompts or language not in separators:
            raise ValueError(f"language {language!r} needs an entry in prompts and in separators")


class LocationConfig(Section):
    """Location of data, and how it is read."""

    data: list[str] = Field(default=[], description="paths or patterns (docs/data.md)")
    layout: Name | None = Field(
        None,
        description="layout by its name in docs/data.md, or your own as module:NAME; null: recognised from the files",
    )
    split: Name | None = Field(
        None, description="split to read; null: train for Data.train, val (else test) for Data.val"
    )
    images: Name | None = Field(
        None,
        description="folder of the image files; absolute paths in tables must lie inside it; null: next to the data",
    )
    columns: dict[str, str] = Field(
        default={}, description="columns of tables by the names used here, as in Data.columns"
    )
    encoding: Name | None = Field(None, description="encoding of CSV files: utf-8, gb18030, ...; null: recognised")
    text_id: Name | None = Field(None, description="field that names the text of a tar sample; null: Data.text_id")
    caption_lines: bool | None = Field(None, description="treat each line as a caption; null: Views.caption_lines")


class EvaluationDataConfig(LocationConfig):
    """Data to score; without `data` of its own, the data of the first source of `Data.train`."""

    protocol: Name | None = Field(None, description="protocol of the scores; null: Evaluation.protocol")


class SourceConfig(LocationConfig):
    """One source of a mixture; the description of each field says what null stands for."""

    data: list[str] = Field(min_length=1, description="paths or patterns (docs/data.md)")
    weight: Positive | None = Field(
        None, description="share in the mixture, relative to the other sources; null in all sources: by their sizes"
    )
    select: Name | None = Field(None, description="output of ernie-vil2 curate; null: Data.select")
    tag_probability: Probability | None = Field(
        None, description="probability that the text is the tags; null: Views.tag_probability"
    )
    languages: dict[str, Positive] | None = Field(
        None, min_length=1, description="languages and their weights; null: Views.languages"
    )
    prompts: dict[str, str] = Field(
        default={}, description="text before the tags, by language; other languages: Views.prompts"
    )
    separators: dict[str, str] = Field(
        default={}, description="separator of two tags, by language; other languages: Views.separators"
    )

    @property
    def name(self) -> str:
        """Paths of the source, as a name for people."""
        return ", ".join(self.data)

    def merge_views(self, defaults: ViewsConfig) -> ViewsConfig:
        """Return how samples of this source become views.

        Args:
            defaults: the section `Views`, for what the source leaves open.

        Raises:
            ValueError: a language lacks a prompt or a separator.
        """
        settings = defaults.model_dump()
        settings |= self.model_dump(include={"tag_probability", "languages", "caption_lines"}, exclude_none=True)
        settings["prompts"] = defaults.prompts | self.prompts
        settings["separators"] = defaults.separators | self.separators
        return ViewsConfig(**settings)


# Kinds of entries of a list. Pydantic puts them into the location of an error, where they are no keys of the file.
TEXT_ENTRY, MAPPING_ENTRY = "(text)", "(mapping)"


def _tag_entry(entry: Any) -> str:
    return TEXT_ENTRY if isinstance(entry, str) else MAPPING_ENTRY


LocationT = TypeVar("LocationT", bound=LocationConfig)
PlainEntry = Annotated[str, Tag(TEXT_ENTRY)]
MappingEntry = Annotated[LocationT, Tag(MAPPING_ENTRY)]
Entries = list[Annotated[PlainEntry | MappingEntry[LocationT], Discriminator(_tag_entry)]]
"""Plain entries, which are paths or patterns, and mappings with the fields of a section."""


class HoldoutConfig(Section):
    """Parts of the first source of `Data.train` that are scored instead of trained on; no file is written."""

    val: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share of the data that is scored during training"
    )
    test: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share of the data that is scored before and after training"
    )
    group_by: Name | None = Field(
        None,
        description="field or table column, such as a product number: rows with equal values stay in one part; null: "
        "only rows with equal images or captions do",
    )
    stratify_by: Name | None = Field(
        None,
        description="field or table column, such as a category, to stratify the parts by; null: none",
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="seed of the division")

    @field_validator("group_by", "stratify_by", mode="before")
    @classmethod
    def _convert_number_to_text(cls, header: Any) -> Any:
        # A header such as 2024 is an int in YAML.
        return str(header) if type(header) is int else header

    @property
    def shares(self) -> dict[str, float]:
        """Shares of the parts train, val and test; empty ones are left out."""
        shares = {"train": 1 - (self.val + self.test)}
        if self.val:
            shares["val"] = self.val
        if self.test:
            shares["test"] = self.test
        return shares

    @model_validator(mode="after")
    def _check(self) -> Self:
        total = self.val + self.test
        if total == 0 or total >= 1:
            raise ValueError(f"val {self.val:g} and test {self.test:g}: their sum must be above 0 and below 1")
        return self


class DataConfig(Section):
    """Sources of the samples."""

    train: Entries[SourceConfig] = Field(
        default=[],
        description="sources (docs/data.md): all plain entries are one source, each mapping is another "
        "(docs/streaming.md)",
    )
    val: Entries[EvaluationDataConfig] = Field(
        default=[],
        description="data scored during training: plain entries, or one mapping; a mapping without data takes those "
        "of the first source of train",
    )
    test: Entries[EvaluationDataConfig] = Field(
        default=[],
        description="data scored before training and after it, with the best checkpoint; in the same form as val",
    )
    images: Name | None = Field(None, description="folder of the image files of plain entries (docs/data.md)")
    columns: dict[str, str] = Field(
        default={}, description="columns of tables among the plain entries, by the names used here"
    )
    encoding: Name | None = Field(None, description="encoding of CSV files among the plain entries; null: recognised")
    text_id: Name | None = Field(None, description="field that names the text of a tar sample; null: its caption")
    select: Name | None = Field(
        None, description="output of ernie-vil2 curate: only its pairs are drawn (docs/curate.md); null: all pairs"
    )
    holdout: HoldoutConfig | None = Field(
        None, description="parts of the first source of train that serve as val and test (docs/own_data.md); null: none"
    )
    unit: Literal["pair", "image"] = Field(
        "pair", description="pair: an epoch has every pair once; image: every image once, with one of its texts drawn"
    )
    shuffle_buffer: Count = Field(100_000, description="number of samples that are shuffled together, over all groups")
    groups: Count = Field(
        1,
        description="number of parts into which shards are divided; a machine reads only its parts (docs/streaming.md)",
    )
    max_length: Annotated[int, Field(ge=3)] = Field(
        48, description="largest number of tokens of a text, with [CLS] and [SEP]"
    )
    workers: Annotated[int, Field(ge=0, le=1024)] = Field(
        2, description="number of loader processes of each rank; 0: the training process loads"
    )
    patience: Positive = Field(
        600, description="seconds that a loader process may spend on one sample before it is skipped"
    )
    max_bad_share: Probability = Field(0.01, description="share of unusable samples above which a run stops")

    @property
    def sources(self) -> list[SourceConfig]:
        """`train` as a list of sources; all plain entries together are the first."""
        plain_entries = [entry for entry in self.train if isinstance(entry, str)]
        sources = [entry for entry in self.train if not isinstance(entry, str)]
        if plain_entries:
            sources.insert(0, SourceConfig(data=plain_entries, **self._location))
        return sources

    @property
    def _location(self) -> dict[str, Any]:
        """Fields of `Data` that hold for plain entries only; `text_id` and `select` hold for all sources."""
        return {"images": self.images, "columns": self.columns, "encoding": self.encoding}

    @property
    def val_config(self) -> EvaluationDataConfig | None:
        """`val` as one entry; None if there is none."""
        return self._complete_entry("val")

    @property
    def test_config(self) -> EvaluationDataConfig | None:
        """`test` as one entry; None if there is none."""
        return self._complete_entry("test")

    @property
    def warnings(self) -> list[str]:
        """Warnings about parts of `holdout` that are empty and settings that no entry takes."""
        sentences = []
        for name, when in (("val", "during"), ("test", "before and after")):
            if self.holdout is not None and getattr(self.holdout, name) == 0 and not getattr(self, name):
                sentences.append(
                    f"Data.holdout.{name} is 0 and Data.{name} names no data: nothing is scored {when} training"
                )
        has_plain_entries = any(isinstance(entry, str) for entry in [*self.train, *self.val, *self.test])
        for name, value in self._location.items():
            if value and not has_plain_entries:
                sentences.append(f"Data.{name} is for plain entries, and there are none: set {name} in the mapping")
        return sentences

    def holds_out(self, name: str) -> bool:
        """Return whether `val` or `test` is a part of the training data instead of files of its own."""
        entry = self._read_entry(name)
        has_files = entry is not None and bool(entry.data)
        return self.holdout is not None and name in self.holdout.shares and not has_files

    def _read_entry(self, name: str) -> EvaluationDataConfig | None:
        """Return `val` or `test` as one mapping, whose data may be empty; None if nothing is written there."""
        entries: list[Any] = getattr(self, name)
        if not entries:
            return None
        if isinstance(entries[0], str):
            return EvaluationDataConfig(data=entries, **self._location)
        return entries[0]

    def _complete_entry(self, name: str) -> EvaluationDataConfig | None:
        """Return `val` or `test` as one mapping that names its data, or None if there is nothing to score."""
        entry = self._read_entry(name)
        is_held_out = self.holds_out(name)
        if is_held_out:
            # This part is taken from the training files, whose split applies instead of the mapping's.
            entry = (entry or EvaluationDataConfig()).model_copy(update={"split": None})
        if entry is None or entry.data:
            return entry

        # Without files of its own it scores those of the first source of train, read as training reads them.
        if not self.sources:
            raise ValueError(f"Data.{name} names no data and so takes those of Data.train, which is empty: set one")
        source = self.sources[0]
        location: dict[str, Any] = {"data": source.data}
        for key in LocationConfig.model_fields:
            is_inherited = is_held_out or key not in ("data", "split")
            if is_inherited and getattr(entry, key) in (None, {}, []):
                location[key] = getattr(source, key)
        return entry.model_copy(update=location)

    @model_validator(mode="after")
    def _check_evaluation_data(self) -> Self:
        for name in ("val", "test"):
            entries = getattr(self, name)
            if len(entries) > 1 and not all(isinstance(entry, str) for entry in entries):
                raise ValueError(f"{name}: write plain entries, or one mapping {{data: [...], split: ...}}")
            entry = self._read_entry(name)
            needs_share = entry is not None and not entry.data and not entry.split
            if needs_share and self.holdout is not None and getattr(self.holdout, name) == 0:
                raise ValueError(
                    f"{name} names no data, and holdout.{name} is 0: it would score what is trained on; name data or a "
                    f"split, or a share above 0"
                )
        return self

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        unweighted = [source for source in self.sources if source.weight is None]
        if unweighted and len(unweighted) < len(self.sources):
            raise ValueError(
                f"train: {unweighted[0].name} has no weight, other sources have one; write {{data: [...], weight: ...}}"
                " for each"
            )
        return self


ImageTower = Annotated[SerializeAsAny[ImageTowerConfig], BeforeValidator(ImageTowerConfig.read)]
TextTower = Annotated[SerializeAsAny[TextTowerConfig], BeforeValidator(TextTowerConfig.read)]
"""Sections whose fields depend on the tower that they name; no union of all kinds, since users register their own."""


class ModelConfig(Section):
    """Towers, joint space and initial weights of the model."""

    # These two come before the towers, because the validator of the towers reads them.
    implementation: Literal["native", "suite"] | None = Field(
        None,
        description="library that builds ViT, RepVGG, ERNIE and BERT: this package (native), or PaddleClas and "
        "PaddleNLP (suite); null: as the names of the towers say",
    )
    like: str | None = Field(
        None,
        description="model, named as in weights, from which the architecture is taken where the configuration does "
        "not set it; the word weights stands for the same model",
    )
    image: ImageTower = Field(PublishedVit(), validate_default=True, description="image tower")
    text: TextTower = Field(PublishedEncoder(), validate_default=True, description="text tower")
    embed_dim: Size | None = Field(None, description="width of the joint space; null: the text tower's width")
    projections: Literal["by_width", "both", "image", "text"] = Field(
        "by_width",
        description="towers that are followed by a linear projection: those whose width is "
        "not embed_dim (by_width), both, or one of them and the other one by its width (image, text)",
    )
    weights: str | None = Field(
        None, description="initial weights of the whole model: file, folder or known name; a tower's own replace them"
    )
    dialect: dict[str, str] = Field(
        default={},
        description="choices for weights of another family that can be read in more than one way, such as {text: long} "
        "of FG-CLIP 2 (docs/models.md)",
    )
    allow: list[str] = Field(
        default=[],
        description="glob patterns of parameters in which the initial weights may differ from the model: either may "
        "lack them",
    )

    @field_validator("image", "text")
    @classmethod
    def _apply_implementation(cls, tower: TowerConfig, info: ValidationInfo) -> TowerConfig:
        """Return the tower under the name that `implementation` asks for."""
        implementation = info.data.get("implementation")
        if implementation is None:
            return tower  # its name decides
        if info.data.get("like") and "name" not in tower.model_fields_set:
            return tower  # the name comes from the model in `like`
        return tower.built_by(implementation)


def with_native_towers(config: ModelConfig) -> ModelConfig:
    """Return the configuration with this package's own towers in place of the suites'.

    Both compute the same up to rounding, so that models are compared without regard to the builder of their towers.
    """
    towers = {"image": config.image.native(), "text": config.text.native()}
    return config.model_copy(update={**towers, "implementation": None})


def with_installed_towers(config: ModelConfig) -> ModelConfig:
    """Return the configuration with native towers in place of those whose library is missing; each is reported.

    `implementation` is null afterwards: the names of the towers say which library builds them.
    """
    towers = {"image": config.image.find_installed(), "text": config.text.find_installed()}
    return config.model_copy(update={**towers, "implementation": None})


class HeadConfig(Section):
    """Classifier on the embeddings, of the tasks entailment and nlvr2."""

    shared_fields: ClassVar[tuple[str, ...]] = ("dropout", "rate")  # kept when an override changes `kind`

    kind: Literal["concatenation", "interaction"] = Field(
        "concatenation",
        description="input of the MLP: the embeddings (concatenation, as in the paper), or differences and "
        "products, too",
    )
    width: Size | None = Field(None, description="width of the hidden layer; null: twice that of the joint space")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="dropout after the hidden layer")
    rate: Positive = Field(10.0, description="factor of the learning rate of the head")


class PairWeights(Section):
    """Weights of the view pairs: lambda of equation 2."""

    image_image: NonNegative = Field(1.0, description="two augmentations of the image")
    text_text: NonNegative = Field(1.0, description="the text under two dropout masks")
    image_text: NonNegative = Field(1.0, description="image against all texts")
    text_image: NonNegative = Field(1.0, description="text against all images")


class LossConfig(Section):
    """Multi-view contrastive loss."""

    # Kept when an override changes `kind`.
    shared_fields: ClassVar[tuple[str, ...]] = ("weights", "max_logit_scale", "duplicates", "tile")

    kind: str = Field(
        "info_nce",
        description="loss of a view pair: equation 1 (info_nce), SigLIP's (sigmoid), or your own class as module:Class",
    )
    weights: PairWeights = Field(
        PairWeights(), description="lambda of equation 2 by view pair; 0: the pair is off and not encoded"
    )
    temperature: Positive = Field(0.07, description="initial temperature tau of equation 1")
    bias: float = Field(-10.0, description="sigmoid: initial bias of the logits, learned (SigLIP: -10)")
    max_logit_scale: Annotated[float, Field(ge=1)] = Field(
        100.0, description="largest value of 1 / tau; the smallest is 1"
    )
    duplicates: Literal["ignored", "masked", "positives"] = Field(
        "masked",
        description="other rows with the same image or text count as negatives, as in the paper (ignored), are left "
        "out of the loss (masked), or count as positives (positives)",
    )
    tile: Count | None = Field(
        1024, description="rows and columns of a tile of logits (docs/loss.md); null: the whole matrix at once"
    )
    widths: list[Size] = Field(
        default=[],
        description="Matryoshka: add the loss of the first 32, 64, ... numbers of the embeddings, for each width here "
        "(docs/loss.md); []: whole embeddings only",
    )
    options: dict[str, Any] = Field(default={}, description="further arguments of your own class, by name")

    @field_validator("widths")
    @classmethod
    def _check_order(cls, widths: list[int]) -> list[int]:
        if any(width >= next_width for width, next_width in pairwise(widths)):
            raise ValueError(f"{widths} do not ascend; write the narrowest first, and each once")
        return widths


class OptimizerConfig(Section):
    """AdamW."""

    learning_rate: Positive = Field(1e-4, description="peak learning rate (paper: 1e-4)")
    beta1: Fraction = Field(0.9, description="decay of the first moment")
    beta2: Fraction = Field(0.999, description="decay of the second moment")
    epsilon: Positive = Field(1e-8, description="number added to the denominator")
    weight_decay: NonNegative = Field(
        0.01, description="decoupled weight decay, not of norms, biases and temperature (paper: 0)"
    )
    clip_norm: Positive | None = Field(1.0, description="largest global gradient norm; null: no clipping")


class ScheduleConfig(Section):
    """Learning rate over the steps: linear warm-up, then half a cosine, or a constant rate and a cooldown."""

    kind: Literal["cosine", "constant"] = Field(
        "cosine",
        description="after the warm-up: half a cosine down to the floor (cosine, paper), or the peak rate up to the "
        "cooldown (constant), so that the run can be made longer later (docs/runs.md)",
    )

    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        2000,
        description="steps of linear warm-up (paper: 2,000). If the run has no more steps than these, or is given in "
        "epochs, at most a tenth of its steps",
    )
    cooldown: Probability = Field(
        0.0,
        description="share of the steps, at the end, over which a constant rate goes linearly down to the floor",
    )
    floor: NonNegative = Field(
        1e-6, description="learning rate at the end of cosine or cooldown, at most the peak (paper: 1e-6)"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.cooldown and self.kind == "cosine":
            raise ValueError("cooldown goes with kind: constant; a cosine goes down over all steps after the warm-up")
        return self


class StageConfig(Section):
    """Part of a run with its own sizes; a field that is null keeps the value of the configuration."""

    until: Fraction = Field(description="share of the steps at which the stage ends; 1 in the last one")
    image_size: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="side of the images in pixels; null: Model.image.image_size"
    )
    keep_tokens: Fraction | None = Field(
        None, description="share of the patches that go through the blocks; null: Model.image.keep_tokens"
    )
    max_length: Annotated[int, Field(ge=3)] | None = Field(
        None, description="largest number of tokens of a text; null: Data.max_length"
    )
    learning_rate: Positive | None = Field(
        None, description="peak of the schedule in this stage; null: Optimizer.learning_rate"
    )


class TrainingConfig(Section):
    """Length, batch, memory and files of the run."""

    task: str = Field(
        "multi_view",
        description="what is trained: multi_view, new_language, entailment, nlvr2 (docs/finetuning.md, "
        "docs/entailment.md)",
    )
    output: Name = Field("runs/default", description="run folder")
    steps: Count = Field(100_000, description="number of optimiser steps")
    epochs: Positive | None = Field(
        None, description="number of passes over the data; replaces steps. null: steps sets the length of the run"
    )
    stages: list[StageConfig] = Field(
        default=[],
        description="parts of the run with other image sizes, kept tokens, text lengths and rates (docs/runs.md)",
    )
    global_batch: Annotated[int, Field(ge=2)] = Field(
        7168, description="pairs of a step over all ranks; divisible by their number (paper: 7,168 to 23,200)"
    )
    micro_batch: Count | None = Field(
        None,
        description="most rows that a rank encodes at once; if it has more, each row is encoded twice "
        "(docs/memory.md); null: no bound",
    )
    recompute: bool = Field(False, description="save memory: run the blocks of both towers a second time in backward")
    dropout: Literal["counter", "native"] = Field(
        "counter",
        description="masks that depend only on a row's position (counter), or Paddle's own (native; docs/memory.md)",
    )
    fused_attention: Literal["auto", "on", "off"] = Field(
        "auto",
        description="compute attention in one kernel, in a ViT and, if dropout is native, in the text tower; auto: on "
        "GPUs only",
    )
    sharding: Literal["none", "stage1", "stage2"] = Field(
        "none",
        description="divide among the ranks the optimiser state (stage1), or also the gradients (stage2; "
        "docs/memory.md)",
    )
    sync_norms: bool = Field(True, description="batch norms compute over the rows of all ranks, where they can")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="seed of every random draw")
    precision: Precision = Field(
        "float32", description="precision of the towers; the loss is float32. An error if the device lacks it"
    )
    residual: Literal["float32", "reduced"] = Field(
        "float32",
        description="type of a transformer's residual stream and of its LayerNorms' results: float32, or reduced to "
        "the precision (docs/memory.md)",
    )
    nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="a step whose loss or gradient is not finite ends the run (stop) or is skipped (docs/runs.md)",
    )
    max_skipped_share: Probability = Field(
        0.25, description="nonfinite: skip: share of skipped steps above which the run stops"
    )
    device: Name = Field("auto", description="auto, cpu, gpu, gpu:0, ...; auto: a GPU if Paddle has one")
    log_every: Count = Field(10, description="steps between two records of the log")
    checkpoint_every: Count = Field(1000, description="steps between two checkpoints")
    keep_checkpoints: Count = Field(
        2, description="number of newest checkpoints to keep, besides the best and the one before a cooldown"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dropout == "native" and (self.micro_batch or self.recompute):
            # Both encode rows a second time, which must draw the masks of the first time.
            raise ValueError("dropout: native does not go with micro_batch or recompute; use dropout: counter")
        if self.sharding == "stage2" and self.micro_batch:
            # stage2 sends gradients away during backward, and with micro batches a step runs several of those.
            raise ValueError("sharding: stage2 does not go with micro_batch; use stage1, or micro_batch: null")
        if self.residual == "reduced" and self.precision == "float32":
            raise ValueError("residual: reduced is for precision: bfloat16 or float16; use residual: float32")
        return self

    @field_validator("stages")
    @classmethod
    def _check_ends(cls, stages: list[StageConfig]) -> list[StageConfig]:
        ends = [stage.until for stage in stages]
        if ends and (ends[-1] != 1 or any(end >= next_end for end, next_end in pairwise(ends))):
            raise ValueError(f"the values of until are {ends}; they must ascend, and the last one must be 1")
        return stages

    def uses_micro_batches(self, ranks: int) -> bool:
        """Return whether each rank has more rows than `micro_batch`; if not, it encodes them in a direct step."""
        return self.micro_batch is not None and self.micro_batch < self.global_batch // ranks


class ClassesConfig(Section):
    """Labelled images that the scorer zero_shot scores."""

    data: list[str] = Field(min_length=1, description="folder of classes, tables, or other sources")
    label: Name = Field("label", description="column or field of the class")
    names: dict[str, str] = Field(default={}, description="files of class names, by language")
    templates: dict[str, str] = Field(default={}, description="files of prompt templates, by language")
    split: Name | None = Field(None, description="split to score; null: val, or test if there is no val")
    images: Name | None = Field(None, description="folder of a table's image files; null: next to the table")


EvaluatorEntry = Annotated[
    Annotated[str, Tag(TEXT_ENTRY)] | Annotated[dict[str, dict[str, Any]], Tag(MAPPING_ENTRY)],
    Discriminator(lambda value: MAPPING_ENTRY if isinstance(value, dict) else TEXT_ENTRY),
]
"""An evaluator: its name, or {name: {option: value}}."""


class EvaluationConfig(Section):
    """Scores during training."""

    every: Annotated[int, Field(ge=0)] = Field(1000, description="steps between two evaluations; 0: none")
    at_start: bool = Field(False, description="also evaluate before the first step, for comparison")
    evaluators: list[EvaluatorEntry] | None = Field(
        None, description="scorers by name, or as {name: {option: value}}; null: those of the task"
    )
    protocol: Name = Field("pairs", description="protocol by which Data.val is scored (docs/protocols.md)")
    classes: ClassesConfig | None = Field(
        None, description="labelled images for the scorer zero_shot (docs/classification.md)"
    )
    batch_size: Count = Field(256, description="rows encoded at once")
    block: Count = Field(1024, description="rows of either side whose scores are computed at once")

    @field_validator("evaluators")
    @classmethod
    def _check_names(cls, evaluators: list[Any] | None) -> list[Any] | None:
        names = set[str]()
        for entry in evaluators or []:
            for name in [entry] if isinstance(entry, str) else entry:
                if name in names:
                    raise ValueError(f"{name} is named twice, and only its last options would count: name it once")
                names.add(name)
        return evaluators

    @property
    def options(self) -> dict[str, dict[str, Any]] | None:
        """Options of the evaluators by name; None if the task names the evaluators."""
        if self.evaluators is None:
            return None
        options: dict[str, dict[str, Any]] = {}
        for entry in self.evaluators:
            if isinstance(entry, str):
                options[entry] = {}
            else:
                options.update(entry)
        return options


class LoraConfig(Section):
    """Low-rank adaptation (LoRA)."""

    rank: Annotated[int, Field(ge=1, le=1024)] = Field(8, description="rank of the change to a weight")
    alpha: Positive = Field(16.0, description="the change is multiplied by alpha / rank")
    layers: list[str] = Field(
        default=["image.blocks.*", "text.network.encoder.layers.*"],
        min_length=1,
        description="linear layers and convolutions to adapt, by name or glob pattern",
    )


class TeacherConfig(Section):
    """Distillation from the embeddings of a teacher."""

    embeddings: str = Field(
        description="folder of a teacher's embeddings of the training data, written by ernie-vil2 embed; or the "
        "address of a server with the name of the teacher, http://host/v1#MODEL"
    )
    weight: Positive = Field(1.0, description="weight of the distillation loss, on the scale of Loss.weights")
    logit_scale: Positive = Field(100.0, description="1 / temperature of the teacher's softmax over a batch")
    distance: NonNegative = Field(
        0.0,
        description="weight of the mean squared distance to the teacher's embeddings, which must be as wide as the "
        "model's",
    )


class TuningConfig(Section):
    """Fine-tuning: how much of a trained model changes, and how fast."""

    freeze: list[str] = Field(
        default=[],
        description="layer groups or parameters to freeze, by name or glob pattern (docs/finetuning.md)",
    )
    freeze_norms: bool = Field(False, description="freeze weights and running statistics of batch norms")
    layer_decay: Fraction = Field(
        1.0, description="factor of the learning rate from each layer group to the one before it"
    )
    image_rate: Positive = Field(1.0, description="factor of the image tower's learning rate")
    text_rate: Positive = Field(1.0, description="factor of the text tower's learning rate")
    base_batch: Count | None = Field(
        None,
        description="batch that the learning rate is meant for: it is scaled by global_batch / base_batch; null: "
        "unscaled",
    )
    by_size: bool = Field(
        False,
        description="choose unset rates and batches by the size of the model in Model.like (docs/own_data.md)",
    )
    ema: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="decay of a moving average of the weights, which is scored and saved; null: no average"
    )
    initial_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the initial weights in the weights that are scored and saved (WiSE-FT)"
    )
    patience: Count | None = Field(
        None, description="evaluations without improvement after which the run ends; null: it goes on"
    )
    lora: LoraConfig | None = Field(
        None, description="train low-rank changes to some weights (LoRA); null: train the weights themselves"
    )
    teacher: TeacherConfig | None = Field(None, description="distillation from a teacher's embeddings; null: none")
    known_language: str = Field(
        "en", description="new_language: language of the parallel texts that the teacher encodes"
    )


class Config(Section):
    """Whole configuration of a run."""

    Model: ModelConfig = Field(ModelConfig(), description="the two towers and the joint space")
    Views: ViewsConfig = Field(ViewsConfig(), description="how a sample becomes its views (paper, section 3)")
    Loss: LossConfig = Field(LossConfig(), description="multi-view contrastive loss (paper, equations 1 and 2)")
    Data: DataConfig = Field(DataConfig(), description="where samples come from")
    Optimizer: OptimizerConfig = Field(OptimizerConfig(), description="AdamW")
    Schedule: ScheduleConfig = Field(ScheduleConfig(), description="learning rate over the steps")
    Tuning: TuningConfig = Field(
        TuningConfig(), description="fine-tuning: how much of a trained model changes, and how fast"
    )
    Head: HeadConfig = Field(HeadConfig(), description="entailment, nlvr2: classifier on the embeddings")
    Training: TrainingConfig = Field(TrainingConfig(), description="the run itself")
    Evaluation: EvaluationConfig = Field(EvaluationConfig(), description="scores during training")

    @property
    def component_names(self) -> list[str]:
        """Names of towers, loss, task, evaluators and layouts; any of them may be the import path of a user's class."""
        entries = [*self.Data.train, *self.Data.val, *self.Data.test]
        layouts = [entry.layout for entry in entries if not isinstance(entry, str) and entry.layout]
        towers = [tower.name for tower in (self.Model.image, self.Model.text) if tower.is_user_defined]
        return [*towers, self.Loss.kind, self.Training.task, *(self.Evaluation.options or {}), *layouts]

    def with_width(self, width: int, embed_dim: int) -> Config:
        """Return the configuration of the model whose embeddings are cut to one of `Loss.widths`.

        Args:
            width: width of the cut embeddings.
            embed_dim: width of the whole embeddings.

        Raises:
            ValueError: the model was not trained with this width.
        """
        if width not in (self.Loss.widths or [embed_dim]):
            reason = "it has no Loss.widths"
            if self.Loss.widths:
                reason = f"its widths are {', '.join(map(str, self.Loss.widths))}"
            raise ValueError(
                f"embeddings of this model have {embed_dim} numbers and cannot be cut to {width}: {reason}"
            )
        loss = self.Loss.model_copy(update={"widths": [prefix for prefix in self.Loss.widths if prefix <= width]})
        model = self.Model.model_copy(update={"embed_dim": width})
        return self.model_copy(update={"Model": model, "Loss": loss})

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.Model.like is not None:
            return self  # the sizes come from that model
        if self.Views.crop_area is None and self.Views.resize < self.Model.image.image_size:
            raise ValueError(
                f"Views.resize ({self.Views.resize}) is smaller than the crop, Model.image.image_size "
                f"({self.Model.image.image_size})"
            )
        text_tower, widths = self.Model.text, self.Loss.widths
        embed_dim = self.Model.embed_dim or get_text_width(text_tower)
        if widths and embed_dim and widths[-1] != embed_dim:
            raise ValueError(f"Loss.widths ends with {widths[-1]}, not with the width of the embeddings, {embed_dim}")
        if self.Data.max_length > text_tower.max_tokens:
            # The positions before the first one belong to no token.
            needed_positions = self.Data.max_length + text_tower.first_position
            raise ValueError(
                f"Data.max_length ({self.Data.max_length}) exceeds the {text_tower.max_tokens} tokens that "
                f"Model.text.max_positions ({text_tower.max_positions}) has room for: shorten the texts, or set "
                f"Model.text.max_positions={needed_positions}; positions of initial weights are then stretched"
            )
        return self

    @model_validator(mode="after")
    def _check_data(self) -> Self:
        views = self.Views
        # Languages of Views whose texts before and between tags a source has to bring along.
        incomplete = [name for name in views.languages if name not in views.prompts or name not in views.separators]
        for source in self.Data.sources:
            tag_probability = views.tag_probability if source.tag_probability is None else source.tag_probability
            if tag_probability:
                # Not by `merge_views`, which copies all languages for each of what may be thousands of sources.
                languages = incomplete if source.languages is None else source.languages
                prompts = ChainMap(source.prompts, views.prompts)
                _check_tag_texts(languages, prompts, ChainMap(source.separators, views.separators))
        if self.Training.global_batch % self.Data.groups:
            raise ValueError(
                f"Data.groups ({self.Data.groups}) does not divide Training.global_batch ({self.Training.global_batch})"
            )
        return self

    @model_validator(mode="after")
    def _check_loss_terms(self) -> Self:
        if self.Tuning.teacher and self.Training.task in ("new_language", "entailment", "nlvr2"):
            raise ValueError(
                f"Tuning.teacher teaches Training.task=multi_view, not {self.Training.task}: set Tuning.teacher=null"
            )
        if self.Tuning.teacher and not (self.Loss.weights.image_text or self.Loss.weights.text_image):
            raise ValueError("Tuning.teacher compares images with texts: give Loss.weights.image_text a weight")
        if self.Views.long_caption and not (self.Loss.weights.text_text or self.Views.long_first):
            raise ValueError(
                "Views.long_caption: the long caption is the second text of Loss.weights.text_text, whose weight is 0: "
                "give it one, or contrast images with the long caption (Views.long_first)"
            )
        if self.Views.long_first and not self.Views.long_caption:
            raise ValueError(
                "Views.long_first contrasts images with the long caption, and Views.long_caption names none: name its "
                "suffix, or set Views.long_first=0"
            )
        return self

    @model_validator(mode="after")
    def _check_tuning(self) -> Self:
        has_stages = len(self.Training.stages) > 1
        if self.Tuning.patience and not self.Evaluation.every:
            raise ValueError("Tuning.patience counts evaluations, and Evaluation.every is 0: there are none")
        if has_stages and self.Tuning.patience:
            raise ValueError(
                "Tuning.patience does not go with Training.stages: a stage that stops improving would end the run "
                "before its last stage; set one of them"
            )
        if has_stages and self.Tuning.initial_share:
            raise ValueError(
                "Tuning.initial_share does not go with Training.stages: initial weights have one image size; set one "
                "of them"
            )
        return self
