"""Sections of the data: where it lies, and the views that are made of a sample."""

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from ernie_vil2.section import Count, Fraction, Name, Positive, Probability, Section, Size, Strength

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
