"""Sections of the configuration of a run, from the data to the whole. `configs/default.yaml` explains each field."""

from __future__ import annotations

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

from ernie_vil2.section import Count, Fraction, Name, Positive, Precision, Probability, Section, Size, Strength
from ernie_vil2.towers.base import ImageTowerConfig, TextTowerConfig, TowerConfig
from ernie_vil2.towers.transformer import PublishedEncoder, PublishedVit

IMAGE_VIEWS = ("image_1", "image_2")
TEXT_VIEWS = ("text_1", "text_2")
VIEWS_OF = {"image": IMAGE_VIEWS, "text": TEXT_VIEWS}  # the views that each tower encodes
VIEWS = (*IMAGE_VIEWS, *TEXT_VIEWS)

PAIRS = {
    "image_image": ("image_1", "image_2"),
    "text_text": ("text_1", "text_2"),
    "image_text": ("image_1", "text_1"),
    "text_image": ("text_1", "image_1"),
}
"""The view pairs: the view of the rows and the view of the columns."""


class ViewsConfig(Section):
    resize: Size = Field(256, description="the short side is resized to this many pixels before the crop")
    crop_area: list[Fraction] | None = Field(
        None,
        min_length=2,
        max_length=2,
        description="[least, most] share of the area of a random crop; null: a crop of the input size",
    )
    flip: Probability = Field(0.5, description="probability of a horizontal flip")
    jitter: Probability = Field(0.8, description="probability of colour jitter")
    brightness: Strength = Field(0.4, description="jitter: factor drawn from 1 +- this")
    contrast: Strength = Field(0.4, description="jitter: factor drawn from 1 +- this")
    saturation: Strength = Field(0.2, description="jitter: factor drawn from 1 +- this")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(0.1, description="jitter: rotation, share of the colour circle")
    blur: Probability = Field(0.5, description="probability of a Gaussian blur")
    blur_sigma: list[Positive] = Field(
        default=[0.1, 2.0], min_length=2, max_length=2, description="[least, most] standard deviation in pixels"
    )
    grayscale: Probability = Field(0.2, description="probability of dropping the colour")
    tag_probability: Probability = Field(0.5, description="probability that the tags, not the caption, are the text")
    caption_lines: bool = Field(
        False, description="each line of a caption is a caption of its own, of which one is drawn"
    )
    long_caption: Annotated[str, Field(pattern="^[A-Za-z0-9]+$")] | None = Field(
        None,
        description="long: the second text is caption_long_en or the like, where a sample has it; null: the same text",
    )
    long_first: Probability = Field(0.0, description="probability that images are contrasted with the long caption")
    languages: dict[str, Positive] = Field(
        default={"zh": 1.0}, min_length=1, description="languages of the texts, with which weight each is drawn"
    )
    prompts: dict[str, str] = Field(
        default={"zh": "图片中包含", "en": "The picture contains "}, description="what precedes the tags, by language"
    )
    separators: dict[str, str] = Field(
        default={"zh": "、", "en": ", "}, description="what separates two tags, by language"
    )
    shuffle_tags: bool = Field(True, description="draw the order of the tags again for every view")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("crop_area", "blur_sigma"):
            bounds = getattr(self, name)
            if bounds is not None and bounds[0] > bounds[1]:
                raise ValueError(f"{name} runs from the least to the most, got {bounds}")
        for language in self.languages if self.tag_probability else ():
            if language not in self.prompts or language not in self.separators:
                raise ValueError(f"language {language!r} needs an entry in prompts and in separators")
        return self


class LocationConfig(Section):
    """Where data lies."""

    data: list[str] = Field(default=[], description="as plain entries of Data.train")
    layout: Name | None = Field(
        None, description="by its name in docs/data.md or as module:NAME; null: recognised from the files"
    )
    split: Name | None = Field(
        None, description="of a benchmark or of tables; null: train in Data.train, in Data.val val or else test"
    )
    images: Name | None = Field(
        None, description="folder of the image files, of which absolute paths in tables are a part; null: with the data"
    )
    columns: dict[str, str] = Field(default={}, description="of tables by their names here, as in Data.columns")
    encoding: Name | None = Field(None, description="of CSV files: utf-8, gb18030, ...; null: recognised")
    text_id: Name | None = Field(None, description="null: Data.text_id")
    caption_lines: bool | None = Field(None, description="null: as in Views")


class ScoredConfig(LocationConfig):
    """Data that are scored; without `data` of their own those of the first source of `Data.train`."""

    protocol: Name | None = Field(None, description="how they are scored; null: Evaluation.protocol")


class SourceConfig(LocationConfig):
    """One source of a mixture; what it leaves open is as in `Data` and `Views`."""

    data: list[str] = Field(min_length=1, description="as plain entries of Data.train")
    weight: Positive | None = Field(
        None, description="share in the mixture, relative to the other sources; null in all of them: their sizes"
    )
    select: Name | None = Field(None, description="null: Data.select")
    tag_probability: Probability | None = Field(None, description="null: as in Views")
    languages: dict[str, Positive] | None = Field(None, min_length=1, description="null: as in Views")
    prompts: dict[str, str] = Field(default={}, description="by language; the others are as in Views")
    separators: dict[str, str] = Field(default={}, description="by language; the others are as in Views")

    @property
    def name(self) -> str:
        """For people: what it reads."""
        return ", ".join(self.data)

    def views(self, views: ViewsConfig) -> ViewsConfig:
        """The views of this source's samples; ValueError if a language lacks a prompt or a separator."""
        own = self.model_dump(include={"tag_probability", "languages", "caption_lines"}, exclude_none=True)
        own["prompts"] = views.prompts | self.prompts
        own["separators"] = views.separators | self.separators
        return ViewsConfig(**views.model_dump() | own)


def _kind_of_source(entry: Any) -> str:
    return "pattern" if isinstance(entry, str) else "source"


S = TypeVar("S", bound=LocationConfig)
Entries = list[Annotated[Annotated[str, Tag("pattern")] | Annotated[S, Tag("source")], Discriminator(_kind_of_source)]]


class HoldoutConfig(Section):
    """Parts of the first source of `Data.train` that are not trained on, but scored; nothing is written."""

    val: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="share that is scored during training")
    test: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="share that is scored before and after it")
    group_by: Name | None = Field(
        None,
        description="field, or header of a table, of which no value is in two parts, as an article's number; null: "
        "images and captions alone are not",
    )
    stratify_by: Name | None = Field(
        None,
        description="field or header of whose values each part has about the same share, as a category; null: none",
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="another one divides otherwise")

    @field_validator("group_by", "stratify_by", mode="before")
    @classmethod
    def _name_numbers(cls, header: Any) -> Any:
        # A header may be a number, as a year, which YAML reads as one.
        return str(header) if type(header) is int else header

    @property
    def shares(self) -> dict[str, float]:
        """Of the parts by name, those that are empty left out."""
        parts = {name: share for name, share in (("val", self.val), ("test", self.test)) if share}
        return {"train": 1 - sum(parts.values()), **parts}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.val + self.test >= 1 or not self.val + self.test:
            raise ValueError(f"val {self.val:g} and test {self.test:g}: together they are above 0 and below 1")
        return self


class DataConfig(Section):
    train: Entries[SourceConfig] = Field(
        default=[],
        description="sources of docs/data.md, plain entries together as one, mappings as more (docs/streaming.md)",
    )
    val: Entries[ScoredConfig] = Field(
        default=[], description="scored during training: plain entries, or one mapping, which may leave data to train"
    )
    test: Entries[ScoredConfig] = Field(
        default=[], description="scored before training and after it, with the best checkpoint: as val"
    )
    images: Name | None = Field(None, description="of plain entries: folder of the image files (docs/data.md)")
    columns: dict[str, str] = Field(
        default={}, description="of plain entries that are tables: columns by their names here"
    )
    encoding: Name | None = Field(None, description="of plain entries that are CSV files; null: recognised")
    text_id: Name | None = Field(None, description="field that names a tar sample's text; null: its caption")
    select: Name | None = Field(
        None, description="output of ernie-vil2 curate, by which pairs are drawn (docs/curate.md); null: all pairs"
    )
    holdout: HoldoutConfig | None = Field(
        None, description="parts of the first source of train that are val and test (docs/own_data.md); null: none"
    )
    unit: Literal["pair", "image"] = Field(
        "pair", description="what occurs once in an epoch: each pair, or each image, with one of its texts drawn"
    )
    shuffle_buffer: Count = Field(100_000, description="samples that are shuffled together; over all groups")
    groups: Count = Field(
        1, description="parts of the shards, of which machines read their own only (docs/streaming.md)"
    )
    max_length: Annotated[int, Field(ge=3)] = Field(48, description="tokens of a text with [CLS] and [SEP]")
    workers: Annotated[int, Field(ge=0, le=1024)] = Field(2, description="loader processes on each rank; 0: none")
    patience: Positive = Field(
        600, description="seconds that a loader process may take over one sample, which is then skipped"
    )
    max_bad_share: Probability = Field(
        0.01, description="a run stops when a larger share of the samples cannot be used"
    )

    @property
    def sources(self) -> list[SourceConfig]:
        """`train` as sources: plain entries together are the first."""
        plain = [entry for entry in self.train if isinstance(entry, str)]
        own = [entry for entry in self.train if not isinstance(entry, str)]
        return [SourceConfig(data=plain, **self._location), *own] if plain else own

    @property
    def _location(self) -> dict[str, Any]:
        """What holds for all plain entries."""
        return {"images": self.images, "columns": self.columns, "encoding": self.encoding}

    @property
    def validation(self) -> ScoredConfig | None:
        """`val` as one entry; None: there is none."""
        return self._scored("val")

    @property
    def tested(self) -> ScoredConfig | None:
        """Likewise `test`."""
        return self._scored("test")

    @property
    def unscored(self) -> list[str]:
        """Sentences on parts of `holdout` that are 0, where no other data are scored instead."""
        sentences = []
        for name, when in (("val", "during"), ("test", "before and after")):
            if self.holdout is not None and getattr(self.holdout, name) == 0 and not getattr(self, name):
                sentences.append(
                    f"Data.holdout.{name} is 0 and Data.{name} names no data: nothing is scored {when} training"
                )
        return sentences

    def holds_out(self, name: str) -> bool:
        """Whether `val` or `test` is a part of the training data, instead of files of its own."""
        entries = getattr(self, name)
        own = entries and (isinstance(entries[0], str) or entries[0].data)
        return self.holdout is not None and name in self.holdout.shares and not own

    def _scored(self, name: str) -> ScoredConfig | None:
        entries: list[Any] = getattr(self, name)
        if self.holds_out(name):  # of the files that are trained on, whatever their splits
            entries = [entries[0].model_copy(update={"split": None}) if entries else ScoredConfig()]
        if not entries:
            return None
        scored = ScoredConfig(data=entries, **self._location) if isinstance(entries[0], str) else entries[0]
        if scored.data:
            return scored
        if not self.sources:
            raise ValueError("data to score that name no files of their own are those of Data.train: set it")
        of_training = self.sources[0]
        taken = [*self._location, *(["split", "text_id", "layout"] if self.holds_out(name) else [])]
        location = {key: getattr(scored, key) or getattr(of_training, key) for key in taken}
        return scored.model_copy(update={"data": of_training.data, **location})

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("val", "test"):
            entries = getattr(self, name)
            if len(entries) > 1 and not all(isinstance(entry, str) for entry in entries):
                raise ValueError(f"{name}: write plain entries, or one mapping {{data: [...], split: ...}}")
            is_part = bool(entries) and not isinstance(entries[0], str) and not (entries[0].data or entries[0].split)
            if is_part and self.holdout is not None and getattr(self.holdout, name) == 0:
                raise ValueError(
                    f"{name} names no data, and holdout.{name} is 0: it would be what is trained on; name data or a "
                    f"split, or a share above 0"
                )
        weighted = [source.weight is not None for source in self.sources]
        if any(weighted) and not all(weighted):
            left = self.sources[weighted.index(False)]
            raise ValueError(
                f"train: {left.name} has no weight, other sources have one; write {{data: [...], weight: ...}} for each"
            )
        return self


ImageTower = Annotated[SerializeAsAny[ImageTowerConfig], BeforeValidator(ImageTowerConfig.read)]
TextTower = Annotated[SerializeAsAny[TextTowerConfig], BeforeValidator(TextTowerConfig.read)]
"""Sections whose fields are those of the tower that they name: not a union, because a user's own tower is one, too."""


class ModelConfig(Section):
    # Before the towers, whose names follow from them.
    implementation: Literal["native", "suite"] | None = Field(
        None,
        description="who builds the towers that there are twice: we, Paddle's suites, or as their names say (null)",
    )
    like: str | None = Field(
        None,
        description="a model whose architecture is taken (weights: that one) where the configuration does not set it",
    )
    image: ImageTower = Field(PublishedVit(), validate_default=True, description="image tower")
    text: TextTower = Field(PublishedEncoder(), validate_default=True, description="text tower")
    embed_dim: Size | None = Field(None, description="width of the joint space; null: the text tower's width")
    projections: Literal["by_width", "always", "text"] = Field(
        "by_width",
        description="after which towers a linear projection comes: those of another width, both, or the text tower",
    )
    weights: str | None = Field(
        None, description="initial: of the whole model, file, folder or known name; those of a tower come after it"
    )
    dialect: dict[str, str] = Field(
        default={}, description="how the model of another family in weights is read (docs/models.md)"
    )
    allow: list[str] = Field(
        default=[], description="names, as glob patterns, in which initial weights may differ from the model"
    )

    @field_validator("image", "text")
    @classmethod
    def _name_builder(cls, tower: TowerConfig, info: ValidationInfo) -> TowerConfig:
        """Bring the name of a tower to what `implementation` asks for."""
        builder = info.data.get("implementation")
        if builder is None or (info.data.get("like") and "name" not in tower.model_fields_set):
            return tower  # the name says who builds it, or that of the model that `like` names does
        return tower.built_by(builder)


def without_implementation(config: ModelConfig) -> ModelConfig:
    """Return the same towers, whoever builds them: for what is equal to rounding."""
    towers = {"image": config.image.native(), "text": config.text.native()}
    return config.model_copy(update={**towers, "implementation": None})


def as_installed(config: ModelConfig) -> ModelConfig:
    """Return the configuration with native towers instead of those whose library is missing, which is reported.

    From then on the names alone say who builds a tower.
    """
    towers = {"image": config.image.as_installed(), "text": config.text.as_installed()}
    return config.model_copy(update={**towers, "implementation": None})


class HeadConfig(Section):
    lasting: ClassVar[tuple[str, ...]] = ("dropout", "rate")

    kind: Literal["concatenation", "interaction"] = Field(
        "concatenation",
        description="an MLP on the embeddings side by side, as in the paper, or with differences and products as well",
    )
    width: Size | None = Field(None, description="of its hidden layer; null: twice that of the joint space")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="behind its hidden layer")
    rate: Positive = Field(10.0, description="factor of its learning rate")


class PairWeights(Section):
    image_image: Strength = Field(1.0, description="two augmentations of the image")
    text_text: Strength = Field(1.0, description="the text under two dropout masks")
    image_text: Strength = Field(1.0, description="image against all texts")
    text_image: Strength = Field(1.0, description="text against all images")


class LossConfig(Section):
    lasting: ClassVar[tuple[str, ...]] = ("weights", "max_logit_scale", "duplicates", "tile")

    kind: str = Field(
        "info_nce",
        description="of a view pair: equation 1 (info_nce), SigLIP's (sigmoid), or a class of your own as module:Class",
    )
    weights: PairWeights = Field(
        PairWeights(), description="lambda of equation 2 by view pair; 0: off, and its encodings are not computed"
    )
    temperature: Positive = Field(0.07, description="initial temperature tau of equation 1")
    bias: float = Field(-10.0, description="sigmoid: initial bias of the logits, learned (SigLIP: -10)")
    max_logit_scale: Annotated[float, Field(ge=1)] = Field(100.0, description="1 / tau is kept between 1 and this")
    duplicates: Literal["ignored", "masked", "positives"] = Field(
        "masked",
        description="what rows of the batch with the same image or text are; ignored: negatives, as in the paper",
    )
    tile: Count | None = Field(
        1024, description="rows and columns of the tiles of the logits (docs/loss.md); null: all at once"
    )
    widths: list[Size] = Field(
        default=[],
        description="prefixes of the embeddings, the losses of which are added (docs/loss.md); []: whole ones alone",
    )
    options: dict[str, Any] = Field(default={}, description="further arguments of a class of your own, by name")

    @field_validator("widths")
    @classmethod
    def _ascend(cls, widths: list[int]) -> list[int]:
        if any(one >= other for one, other in pairwise(widths)):
            raise ValueError(f"{widths} do not ascend; write the narrowest first, each once")
        return widths


class OptimizerConfig(Section):
    learning_rate: Positive = Field(1e-4, description="peak learning rate (paper: 1e-4)")
    beta1: Fraction = Field(0.9, description="decay of the first moment")
    beta2: Fraction = Field(0.999, description="decay of the second moment")
    epsilon: Positive = Field(1e-8, description="added to the denominator")
    weight_decay: Strength = Field(0.01, description="decoupled; never on norms, biases and temperature (paper: 0)")
    clip_norm: Positive | None = Field(1.0, description="largest global gradient norm; null: no clipping")


class ScheduleConfig(Section):
    warmup_steps: Annotated[int, Field(ge=0)] = Field(
        2000, description="steps of linear warm-up (paper: 2,000); in a run that is not longer, a tenth of its steps"
    )
    floor: Strength = Field(1e-6, description="learning rate at the end of the cosine (paper: 1e-6)")


class TrainingConfig(Section):
    task: str = Field(
        "multi_view",
        description="multi_view, new_language, entailment or nlvr2 (docs/finetuning.md, docs/entailment.md)",
    )
    output: Name = Field("runs/default", description="run folder")
    steps: Count = Field(100_000, description="optimiser steps")
    epochs: Positive | None = Field(
        None, description="how often each sample is seen, instead of steps; null: as many steps as are given"
    )
    global_batch: Annotated[int, Field(ge=2)] = Field(
        7168, description="pairs in a step over all ranks, which divide it (paper: 7,168 to 23,200)"
    )
    micro_batch: Count | None = Field(
        None, description="rows of a rank that are encoded at once, twice (docs/memory.md); null: all rows"
    )
    recompute: bool = Field(False, description="the blocks of both towers run a second time in backward")
    dropout: Literal["counter", "native"] = Field(
        "counter",
        description="masks that depend on a row's position alone (counter), or Paddle's (native; docs/memory.md)",
    )
    fused_attention: Literal["auto", "on", "off"] = Field(
        "auto", description="as one kernel: of a ViT and, with dropout: native, of texts; auto: on GPUs"
    )
    sharding: Literal["none", "stage1", "stage2"] = Field(
        "none", description="what the ranks divide: the optimiser state (stage1), and the gradients (docs/memory.md)"
    )
    sync_norms: bool = Field(True, description="batch norms see the rows of all ranks, where they can")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="every random draw follows from it")
    precision: Precision = Field(
        "float32", description="of the towers; the loss is float32. An error where the device does not have it"
    )
    nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="a step whose loss or gradient is not finite ends the run, or is left out (docs/runs.md)"
    )
    max_skipped_share: Probability = Field(
        0.25, description="nonfinite: skip: a run stops when a larger share of its steps was left out"
    )
    device: Name = Field("auto", description="auto, cpu, gpu, gpu:0, ...; auto: GPU where Paddle has one")
    log_every: Count = Field(10, description="steps between two log records")
    checkpoint_every: Count = Field(1000, description="steps between two checkpoints")
    keep_checkpoints: Count = Field(2, description="newest checkpoints that are kept, besides the best evaluated one")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dropout == "native" and (self.micro_batch or self.recompute):
            # Rows are encoded twice, and the second time must draw the masks of the first.
            raise ValueError("dropout: native does not go with micro_batch or recompute; use dropout: counter")
        if self.sharding == "stage2" and self.micro_batch:
            # It sends gradients away during backward, and the cached step has one backward for every micro batch.
            raise ValueError("sharding: stage2 does not go with micro_batch; use stage1, or micro_batch: null")
        return self


class ClassesConfig(Section):
    data: list[str] = Field(min_length=1, description="a folder of classes, tables, or other sources")
    label: Name = Field("label", description="column or field of the classes")
    names: dict[str, str] = Field(default={}, description="files of the classes' names by language")
    templates: dict[str, str] = Field(default={}, description="files of prompt templates by language")
    split: Name | None = Field(None, description="null: val, else what is scored")
    images: Name | None = Field(None, description="folder of a table's image files; null: next to it")


NamedPart = Annotated[
    Annotated[str, Tag("name")] | Annotated[dict[str, dict[str, Any]], Tag("options")],
    Discriminator(lambda value: "options" if isinstance(value, dict) else "name"),
]
"""A name, or a mapping of names to options."""


class EvaluationConfig(Section):
    every: Annotated[int, Field(ge=0)] = Field(1000, description="steps between two evaluations; 0: none")
    at_start: bool = Field(False, description="also before the first step, for comparison")
    evaluators: list[NamedPart] | None = Field(
        None, description="what scores the model, by name or as {name: {option: value}}; null: what the task names"
    )
    protocol: Name = Field("pairs", description="how Data.val is scored; docs/protocols.md defines each")
    classes: ClassesConfig | None = Field(
        None, description="images that the evaluator classification scores (docs/classification.md)"
    )
    batch_size: Count = Field(256, description="rows encoded at once")
    block: Count = Field(1024, description="rows of either side that are scored at once")

    @property
    def options(self) -> dict[str, dict[str, Any]] | None:
        """Those of the evaluators, by their names; None: what the task names scores the model."""
        if self.evaluators is None:
            return None
        return {k: v for one in self.evaluators for k, v in ({one: {}} if isinstance(one, str) else one).items()}


class LoraConfig(Section):
    rank: Annotated[int, Field(ge=1, le=1024)] = Field(8, description="of the change to a weight")
    alpha: Positive = Field(16.0, description="the change counts alpha / rank times")
    layers: list[str] = Field(
        default=["image.blocks.*", "text.network.encoder.layers.*"],
        min_length=1,
        description="linear layers and convolutions, by name or glob pattern",
    )


class TeacherConfig(Section):
    embeddings: str = Field(description="of the training data by any model, as ernie-vil2 embed writes them")
    weight: Positive = Field(1.0, description="of its term, as those of Loss.weights")
    logit_scale: Positive = Field(100.0, description="1 / temperature of the teacher's distributions over a batch")
    distance: Strength = Field(
        0.0, description="weight of the mean squared distance to the teacher's embeddings, then as wide as ours"
    )


class TuningConfig(Section):
    freeze: list[str] = Field(
        default=[],
        description="what is not trained: layer groups, parameters, or glob patterns of either (docs/finetuning.md)",
    )
    freeze_norms: bool = Field(False, description="batch norms keep their weights and their running statistics")
    layer_decay: Fraction = Field(
        1.0, description="factor of the learning rate from a layer group to the one before it"
    )
    image_rate: Positive = Field(1.0, description="factor of the image tower's learning rate")
    text_rate: Positive = Field(1.0, description="factor of the text tower's learning rate")
    base_batch: Count | None = Field(
        None, description="the rate is multiplied by Training.global_batch / this; null: it is not"
    )
    by_size: bool = Field(
        False,
        description="what is not set of rate and batches follows the model that Model.like names (docs/own_data.md)",
    )
    ema: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="decay of the average of the weights that is scored and saved; null: there is none"
    )
    initial_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="of the initial weights in what is scored and saved (WiSE-FT)"
    )
    patience: Count | None = Field(None, description="evaluations without a better one that end the run; null: none do")
    lora: LoraConfig | None = Field(
        None, description="only a change of low rank to some weights is trained; null: the weights themselves"
    )
    teacher: TeacherConfig | None = Field(
        None, description="a term of how far the model is from a teacher's embeddings; null: there is none"
    )
    known_language: str = Field("en", description="new_language: of the parallel texts that the teacher encodes")


class Config(Section):
    """The whole configuration of a run."""

    Model: ModelConfig = Field(ModelConfig(), description="the two towers and the joint space")
    Views: ViewsConfig = Field(ViewsConfig(), description="how a sample becomes its views (paper, section 3)")
    Loss: LossConfig = Field(LossConfig(), description="multi-view contrastive loss (paper, equations 1 and 2)")
    Data: DataConfig = Field(DataConfig(), description="where samples come from")
    Optimizer: OptimizerConfig = Field(OptimizerConfig(), description="AdamW")
    Schedule: ScheduleConfig = Field(ScheduleConfig(), description="learning rate over the steps")
    Tuning: TuningConfig = Field(TuningConfig(), description="how much of a trained model changes, and how fast")
    Head: HeadConfig = Field(HeadConfig(), description="entailment, nlvr2: what classifies embeddings")
    Training: TrainingConfig = Field(TrainingConfig(), description="the run itself")
    Evaluation: EvaluationConfig = Field(EvaluationConfig(), description="scores in the course of training")

    @property
    def names(self) -> list[str]:
        """Names of parts, which may be import paths of the user's own: towers, loss, task, evaluators, layouts."""
        entries = [*self.Data.train, *self.Data.val, *self.Data.test]
        layouts = [entry.layout for entry in entries if not isinstance(entry, str) and entry.layout]
        towers = [tower.name for tower in (self.Model.image, self.Model.text) if tower.is_own]
        return [*towers, self.Loss.kind, self.Training.task, *(self.Evaluation.options or {}), *layouts]

    def narrowed(self, width: int, whole: int) -> Config:
        """That of the model whose embeddings of `whole` numbers are cut to one of `Loss.widths`, or ValueError."""
        widths = self.Loss.widths or [whole]
        if width not in widths:
            why = f"its widths are {', '.join(map(str, widths))}" if self.Loss.widths else "it has no Loss.widths"
            raise ValueError(f"embeddings of this model have {whole} numbers and cannot be cut to {width}: {why}")
        loss = self.Loss.model_copy(update={"widths": [one for one in self.Loss.widths if one <= width]})
        model = self.Model.model_copy(update={"embed_dim": width})
        return self.model_copy(update={"Model": model, "Loss": loss})

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.Model.like is None:
            self._check_model()
        for source in self.Data.sources:
            source.views(self.Views)
        if self.Training.global_batch % self.Data.groups:
            raise ValueError(
                f"Data.groups ({self.Data.groups}) does not divide Training.global_batch ({self.Training.global_batch})"
            )
        if self.Tuning.teacher and not (self.Loss.weights.image_text or self.Loss.weights.text_image):
            raise ValueError("Tuning.teacher compares images with texts: give Loss.weights.image_text a weight")
        if self.Views.long_caption and not (self.Loss.weights.text_text or self.Views.long_first):
            raise ValueError(
                "Views.long_caption: the long caption is the second text of Loss.weights.text_text, whose weight is 0: "
                "give it one, or contrast images with the long caption (Views.long_first)"
            )
        if self.Tuning.patience and not self.Evaluation.every:
            raise ValueError("Tuning.patience counts evaluations, and Evaluation.every is 0: there are none")
        return self

    def _check_model(self) -> None:
        if self.Views.crop_area is None and self.Views.resize < self.Model.image.image_size:
            raise ValueError(
                f"Views.resize ({self.Views.resize}) is smaller than the crop, Model.image.image_size "
                f"({self.Model.image.image_size})"
            )
        text, widths = self.Model.text, self.Loss.widths
        width = self.Model.embed_dim or text.sizes.get("width")
        if widths and width and widths[-1] != width:
            raise ValueError(f"Loss.widths ends with {widths[-1]}; its last is the width of the embeddings, {width}")
        if self.Data.max_length > self.Model.text.longest:
            needed = self.Data.max_length + self.Model.text.first_position
            raise ValueError(
                f"Data.max_length ({self.Data.max_length}) exceeds Model.text.max_positions "
                f"({self.Model.text.longest}): shorten the texts, or set Model.text.max_positions={needed}, to which "
                "positions of initial weights are stretched"
            )
