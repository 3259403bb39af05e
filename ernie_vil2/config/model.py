"""Sections of the model: its towers and where its weights come from."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ernie_vil2.config.section import Depth, Epsilon, Fraction, Positive, Probability, Section, Size
from ernie_vil2.io.export_folder import Interpolation, LibraryRules, PreprocessingKind, Resize, WordRules
from ernie_vil2.registry import unknown

SUITE = ("paddleclas:", "paddlenlp:")  # what the name of a tower begins with that PaddleClas or PaddleNLP builds
NATIVE_IMAGES = ("ViT-B/16", "ViT-L/14", "ViT", "RepVGG")
"""Image towers that both this package and PaddleClas build; of texts all."""
# What names a size of its own, and the fields that give it.
IMAGE_SIZES = {
    "ViT": ("patch_size", "width", "depth", "heads"),
    "NaFlex": ("patch_size", "width", "depth", "heads"),
    "RepVGG": ("width", "depth"),
    "ModifiedResNet": ("width", "layers", "heads", "projection"),
}
VIT_SIZES = {
    "ViT-B/16": {"patch_size": 16, "width": 768, "depth": 12, "heads": 12},
    "ViT-L/14": {"patch_size": 14, "width": 1024, "depth": 24, "heads": 16},
}
NAMED_SIZES = {"base": {"width": 768, "depth": 12, "heads": 12}, "large": {"width": 1024, "depth": 24, "heads": 16}}
"""Of ERNIE and BERT, by the last part of the name."""
TEXT_NAMES = ("ernie-base", "ernie-large", "ernie", "bert-base", "bert-large", "bert", "transformer")
TEXT_SIZES = dict.fromkeys(("ernie", "bert", "transformer"), ("width", "depth", "heads"))
OWN_TOWERS: set[str] = set()
"""Names that the registries of towers have besides those above: such a tower takes the sizes that it likes."""
Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
Pooling = Literal["cls", "mean", "first", "end", "largest", "last"]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]


def without_suite(name: str) -> str:
    """The name of a tower, whoever builds it: `ernie-base` for `paddlenlp:ernie-base`."""
    return name.partition(":")[2] if name.startswith(SUITE) else name


def is_own_tower(name: str) -> bool:
    """Whether a name is that of a class of the user's: the import path `module:Class`, or what it is registered by."""
    return name in OWN_TOWERS or (":" in name and not name.startswith(SUITE))


def _is_registered(name: str) -> bool:
    """Whether a name that is not above is that of a tower. The registries are imported for it, where Paddle is."""
    with suppress(ModuleNotFoundError):
        importlib.import_module("ernie_vil2.models.towers")
    return name in OWN_TOWERS


def _check_sizes(tower: ImageTowerConfig | TextTowerConfig, sizes: Mapping[str, tuple[str, ...]]) -> None:
    if is_own_tower(tower.name):
        return  # a tower of the user's own takes what it likes
    needed = sizes.get(without_suite(tower.name), ())
    if any(getattr(tower, size) is None for size in needed):
        raise ValueError(f"{tower.name!r} leaves its size open: set {', '.join(needed)}")
    every = dict.fromkeys(size for names in sizes.values() for size in names)
    wrong = [size for size in every if size not in needed and getattr(tower, size) is not None]
    if wrong and needed:
        raise ValueError(f"{tower.name!r} has no {', '.join(wrong)}")
    if wrong and not _is_registered(tower.name):
        raise ValueError(
            f"{tower.name!r} has fixed sizes: remove {', '.join(wrong)} (they are given for {', '.join(sizes)})"
        )


def _check_variant(tower: ImageTowerConfig | TextTowerConfig, *names: str) -> None:
    if tower.variant is not None and tower.name not in names:
        raise ValueError(f"{tower.name!r} has no variants: remove variant (it is given for {', '.join(names)})")


class ImageVariant(Section):
    """What the ViTs of different families do differently; the defaults are the released models'."""

    hidden: Size | None = Field(None, description="width of the MLPs; null: four times that of the tokens")
    activation: Activation = Field("quick_gelu", description="of the MLPs: gelu (exact), gelu_tanh or quick_gelu")
    epsilon: Epsilon = Field(1e-6, description="of the LayerNorms")
    patches: Literal["convolution", "linear"] = Field(
        "convolution", description="what embeds a patch; linear: over (row, column, channel)"
    )
    patch_bias: bool = Field(False, description="whether that layer has a bias")
    class_token: bool = Field(True, description="whether a learned token goes before the patches")
    input_norm: bool = Field(True, description="whether a LayerNorm comes before the first block")
    pooling: Literal["class", "mean", "attention"] = Field(
        "class", description="features: the class token's, the patches' mean, or what a learned query attends to"
    )


class TextVariant(Section):
    """What the text transformers of different families do differently."""

    norm: Literal["before", "after"] = Field(
        "before", description="LayerNorms before the parts of a block and once at the end (CLIP), or after them (BERT)"
    )
    hidden: Size | None = Field(None, description="width of the MLPs; null: four times that of the states")
    activation: Activation = Field("gelu", description="of the MLPs: gelu (exact), gelu_tanh or quick_gelu")
    token_types: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="norm after: rows of the embedding of token types, of which the first is added to all"
    )
    first_position: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="row of the position embedding that belongs to the first token (RoBERTa: 2)"
    )
    mask: Literal["padding", "causal", "none"] = Field(
        "causal", description="what attention does not see: padding, what comes after a token (causal), or nothing"
    )
    padding: TokenId = Field(0, description="id of the padding token")
    end: TokenId | None = Field(None, description="id of the token whose first state pooling: end takes")
    head: Size | None = Field(None, description="width of a linear layer behind the pooling; null: there is none")
    head_norm: bool = Field(False, description="whether a LayerNorm comes before that layer (AltCLIP)")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.head_norm and self.head is None:
            raise ValueError("head_norm needs head, the width of the layer that it comes before")
        return self


class ImageTowerConfig(Section):
    name: str = Field(
        "ViT-B/16",
        description="CLIP's ViT or ResNet, RepVGG, NaFlex; paddleclas:NAME; or a Layer of your own as module:Class",
    )
    image_size: Annotated[int, Field(ge=1, le=4096)] = Field(224, description="side of the square input in pixels")
    preprocessing: PreprocessingKind = Field(
        "ernie_vil2",
        description="how an image that is scored becomes the input: ours, a release's, or another family's",
    )
    resize: Resize = Field(
        "shortest",
        description="transformers, open_clip: to the short side and cut, to both, or to the long one with black",
    )
    interpolation: Interpolation = Field("bicubic", description="of that resize, by Pillow; also of naflex")
    resized: Size | None = Field(None, description="shortest: side before the crop; null: image_size")
    most_patches: Size | None = Field(None, description="naflex: patches of an image; null: by FG-CLIP 2's rule")
    mean: list[Probability] = Field(
        default=[0.485, 0.456, 0.406],
        min_length=3,
        max_length=3,
        description="of the input's normalisation, [red, green, blue], pixels from 0 to 1",
    )
    std: list[Fraction] = Field(
        default=[0.229, 0.224, 0.225], min_length=3, max_length=3, description="its standard deviation"
    )
    background: list[Annotated[int, Field(ge=0, le=255)]] = Field(
        default=[255, 255, 255],
        min_length=3,
        max_length=3,
        description="[red, green, blue] behind transparent pixels, where preprocessing is ernie_vil2",
    )
    patch_size: Size | None = Field(None, description="ViT only: side of a patch in pixels")
    width: Size | None = Field(
        None, description="ViT: of the tokens; RepVGG, ModifiedResNet: channels of the first stage of four"
    )
    depth: Depth | None = Field(None, description="ViT: number of blocks; RepVGG: blocks of each stage")
    heads: Size | None = Field(
        None, description="ViT: they divide the width; ModifiedResNet: they divide 32 times the width"
    )
    layers: list[Depth] | None = Field(
        None, min_length=4, max_length=4, description="ModifiedResNet: blocks of each stage (RN50: 3, 4, 6, 3)"
    )
    projection: Size | None = Field(None, description="ModifiedResNet only: width of its features (RN50: 1024)")
    variant: ImageVariant | None = Field(
        None, description="ViT: what another family does differently; null: the released ViT"
    )
    drop_path: Probability = Field(0.0, description="ViT only: stochastic depth of the last block")
    weights: str | None = Field(
        None, description="initial: paddleclas, a PaddleClas file, or an ERNIE-ViL 2.0 model; null: random"
    )

    @property
    def sizes(self) -> dict[str, Any]:
        """The sizes that the name leaves open, as given; of a ViT with a published size these."""
        name = without_suite(self.name)
        return VIT_SIZES.get(name, {size: getattr(self, size) for size in IMAGE_SIZES.get(name, ())})

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_sizes(self, IMAGE_SIZES)
        _check_variant(self, "ViT", "NaFlex")
        return self


class TextTowerConfig(Section):
    name: str = Field(
        "ernie-base", description="ERNIE, BERT or transformer; paddlenlp:NAME; or a Layer of your own as module:Class"
    )
    width: Size | None = Field(None, description="ernie, bert, transformer: hidden width")
    depth: Depth | None = Field(None, description="likewise: number of layers")
    heads: Size | None = Field(None, description="likewise: attention heads; they divide the width")
    variant: TextVariant | None = Field(None, description="transformer: what its family does; null: as CLIP")
    max_positions: Size = Field(
        512, description="rows of the position embedding, to which initial weights are stretched"
    )
    pooling: Pooling = Field(
        "cls",
        description="features: as released (cls), the mean of the states, or, of a transformer, the state of a token",
    )
    dropout: Probability = Field(0.1, description="hidden dropout; it is what makes the two text views differ")
    attention_dropout: Probability = Field(0.1, description="dropout of the attention weights")
    epsilon: Epsilon = Field(1e-5, description="ernie, transformer: of the LayerNorms; 1e-12 in PaddleNLP")
    vocabulary: str | None = Field(
        None, description="a vocab.txt, tokenizer.json or sentencepiece .model; null: ERNIE 3.0 (open_clip: CLIP)"
    )
    tokenizer: Literal[WordRules, LibraryRules] = Field(
        "official", description="how a text becomes tokens: as a release, or as another family (docs/models.md)"
    )
    weights: str | None = Field(
        None, description="initial: of PaddleNLP, by name, folder or file, or an ERNIE-ViL 2.0 model; null: random"
    )

    @property
    def first_position(self) -> int:
        """Row of the position embedding that belongs to the first token."""
        return self.variant.first_position if self.variant else 0

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return self.max_positions - self.first_position

    @property
    def family(self) -> str:
        """ernie or bert."""
        return without_suite(self.name).partition("-")[0]

    @property
    def sizes(self) -> dict[str, Any]:
        """Of ERNIE and BERT: width, depth and heads that the name means, or those given."""
        return NAMED_SIZES.get(
            self.name.rpartition("-")[2], {size: getattr(self, size) for size in TEXT_SIZES["ernie"]}
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        known = self.name.removeprefix("paddlenlp:")
        if known not in TEXT_NAMES and not is_own_tower(self.name) and not _is_registered(self.name):
            raise unknown("text tower", self.name, TEXT_NAMES)
        _check_sizes(self, TEXT_SIZES)
        _check_variant(self, "transformer")
        if self.name != "transformer" and self.pooling not in ("cls", "mean") and not is_own_tower(self.name):
            raise ValueError(f"{self.name!r} has no pooling {self.pooling!r}: cls or mean")
        if self.pooling == "end" and (self.variant is None or self.variant.end is None):
            raise ValueError("pooling: end needs variant.end, the id of that token")
        return self


class ModelConfig(Section):
    image: ImageTowerConfig = Field(ImageTowerConfig(), description="image tower")
    text: TextTowerConfig = Field(TextTowerConfig(), description="text tower")
    implementation: Literal["native", "suite"] | None = Field(
        None,
        description="who builds the towers that there are twice: we, Paddle's suites, or as their names say (null)",
    )
    embed_dim: Size | None = Field(None, description="width of the joint space; null: the text tower's width")
    projections: Literal["by_width", "always", "text"] = Field(
        "by_width",
        description="after which towers a linear projection comes: those of another width, both, or the text tower",
    )
    like: str | None = Field(
        None,
        description="a model whose architecture is taken (weights: that one) where the configuration does not set it",
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

    @model_validator(mode="before")
    @classmethod
    def _implement(cls, values: Any) -> Any:
        """Brings the names of the towers to what `implementation` asks for."""
        wanted = values.get("implementation") if isinstance(values, dict) else None
        if wanted not in ("native", "suite"):
            return values
        values = dict(values)
        for tower, kind, library in (("image", ImageTowerConfig, SUITE[0]), ("text", TextTowerConfig, SUITE[1])):
            section = values.get(tower, {})
            section = section.model_dump(exclude_unset=True) if isinstance(section, Section) else section
            if not isinstance(section, dict) or ("name" not in section and values.get("like")):
                continue
            name = section.get("name", kind.model_fields["name"].default)
            if isinstance(name, str) and not is_own_tower(name):
                bare = without_suite(name)
                native = bare if bare in (*NATIVE_IMAGES, *TEXT_NAMES) else name
                values[tower] = {**section, "name": native if wanted == "native" else library + bare}
        return values


def without_implementation(config: ModelConfig) -> ModelConfig:
    """The same towers, whoever builds them: for what is equal to rounding."""
    towers = {
        tower: section.model_copy(update={"name": without_suite(section.name)})
        for tower, section in (("image", config.image), ("text", config.text))
    }
    return config.model_copy(update={**towers, "implementation": None})


class HeadConfig(Section):
    kind: Literal["concatenation", "interaction"] = Field(
        "concatenation",
        description="an MLP on the embeddings side by side, as in the paper, or with differences and products as well",
    )
    width: Size | None = Field(None, description="of its hidden layer; null: twice that of the joint space")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="behind its hidden layer")
    rate: Positive = Field(10.0, description="factor of its learning rate")
