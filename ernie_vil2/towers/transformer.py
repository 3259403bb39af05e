"""Configurations of transformer towers: vision transformers; ERNIE, BERT and other text transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ernie_vil2.section import Depth, Fraction, Size
from ernie_vil2.towers.base import (
    ImageTowerConfig,
    ImageVariant,
    TextTowerConfig,
    TextVariant,
    check_divides,
    strip_suite_prefix,
)

if TYPE_CHECKING:
    from paddle import nn


VIT_SIZES = {
    "ViT-B/16": {"patch_size": 16, "width": 768, "depth": 12, "heads": 12},
    "ViT-L/14": {"patch_size": 14, "width": 1024, "depth": 24, "heads": 16},
}


class _AnyVit(ImageTowerConfig):
    """Base class of all vision transformers."""

    # Below 1: what is kept is divided by 1 - drop_path.
    drop_path: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="stochastic depth of the last block")
    keep_tokens: Fraction = Field(
        1.0, description="share of the patches that go through the blocks in training, drawn by row and view"
    )

    def fewest_parameters(self) -> int:
        sizes = self.sizes
        patch_size, width = sizes["patch_size"], sizes["width"]
        num_patches = (self.image_size // patch_size) ** 2
        block = _count_block_weights(width, get_image_variant(self))
        return block * sizes["depth"] + width * (3 * patch_size**2 + num_patches)

    def _check_sizes(self) -> None:
        sizes = self.sizes
        if sizes["patch_size"] > self.image_size:
            raise ValueError(f"patch_size ({sizes['patch_size']}) is larger than image_size ({self.image_size})")
        check_divides("width", sizes["width"], "heads", sizes["heads"])
        variant = get_image_variant(self)
        if variant is None:
            return
        if variant.rotary is not None:  # two halves of a head, each of pairs
            check_divides("the width of a head", sizes["width"] // sizes["heads"], "rotary positions", 4)
        if variant.pooling == "attention" and variant.pooling_heads is not None:
            check_divides("width", sizes["width"], "variant.pooling_heads", variant.pooling_heads)

    def build(self) -> nn.Layer:
        from ernie_vil2.towers.layers import suite, transformer

        self._check_sizes()
        if ":" in self.find_installed().name:
            suite.import_paddleclas(f"the image tower {self.name}")
            return suite.SuiteVit(self.image_size, **self.sizes, **self._training_options)
        return transformer.VisionTransformer(
            self.image_size, **self.sizes, **self._training_options, variant=get_image_variant(self)
        )

    @property
    def _training_options(self) -> dict[str, Any]:
        return {"drop_path": self.drop_path, "keep_tokens": self.keep_tokens}


class PublishedVit(_AnyVit):
    """ViT of the published size that its name stands for."""

    suite: ClassVar[str | None] = "paddleclas"

    @property
    def sizes(self) -> dict[str, Any]:
        return VIT_SIZES[strip_suite_prefix(self.name)]

    def with_sizes(self) -> Vit:
        return Vit.model_validate({**dict(self), "name": "ViT", **self.sizes})


class _SizedVit(_AnyVit):
    """Base class of vision transformers whose sizes are fields."""

    patch_size: Size = Field(description="side of a patch in pixels")
    width: Size = Field(description="width of the tokens")
    depth: Depth = Field(description="number of blocks")
    heads: Size = Field(description="number of attention heads; the width must be divisible by it")
    variant: ImageVariant | None = Field(None, description="differences of another family; null: as released")


class Vit(_SizedVit):
    """ViT of any size."""

    suite: ClassVar[str | None] = "paddleclas"
    name: Literal["ViT", "paddleclas:ViT"] = Field(description="ViT of this package, or of PaddleClas")

    @model_validator(mode="after")
    def _check_builder(self) -> Self:
        if self.variant is not None and self.name != "ViT":
            raise ValueError(f"{self.name!r} has no variant; 'ViT' has")
        return self

    def built_by(self, builder: Literal["native", "suite"]) -> Self:
        # PaddleClas cannot build the ViTs of other families.
        return super().built_by("native" if self.variant is not None else builder)


class NaFlex(_SizedVit):
    """ViT for images of any shape."""

    name: Literal["NaFlex"] = Field(description="ViT for images of any shape, in whole patches")

    @model_validator(mode="after")
    def _check_variant(self) -> Self:
        variant = self.variant or ImageVariant()
        if variant.rotary is not None:
            raise ValueError("NaFlex has no rotary positions, whose angles belong to one image size; 'ViT' has")
        if variant.class_token:
            raise ValueError("NaFlex has no class token: set variant: {class_token: false, pooling: mean} or attention")
        return self

    def build(self) -> nn.Layer:
        from ernie_vil2.towers.layers.transformer import NaFlexTransformer

        self._check_sizes()
        return NaFlexTransformer(self.image_size, **self.sizes, **self._training_options, variant=self.variant)


def _count_block_weights(width: int, variant: ImageVariant | TextVariant | None) -> int:
    """Return a lower bound of the weights of a block: those of attention, and two layers of the MLP."""
    hidden = 4 * width
    if variant is not None and variant.hidden is not None:
        hidden = variant.hidden
    return width * (4 * width + 2 * hidden)


def get_image_variant(tower: ImageTowerConfig) -> ImageVariant | None:
    """Return the differences of another family's ViT; None if the tower is the released ViT, or no ViT."""
    return tower.variant if isinstance(tower, _SizedVit) else None


ENCODER_SIZES = {
    "base": {"width": 768, "depth": 12, "heads": 12},
    "large": {"width": 1024, "depth": 24, "heads": 16},
}
"""Sizes by the last word of the name."""
# Differences from CLIP's text transformer; PaddleNLP's BERT has 16 token types.
ERNIE = TextVariant(norm="after", mask="padding")
BERT = TextVariant(norm="after", mask="padding", token_types=16)
BERT_EPSILON = 1e-12  # all released BERTs have it; the field epsilon is not used


class _AnyText(TextTowerConfig):
    """Base class of the text towers of this package."""

    def fewest_parameters(self, vocab_size: int) -> int:
        width, variant = self.sizes["width"], get_text_variant(self)
        num_positions = self.max_positions
        if variant is not None and variant.positions == "sinusoids":
            num_positions = 0
        block = _count_block_weights(width, variant)
        return block * self.sizes["depth"] + width * (num_positions + vocab_size)

    def _build(self, vocab_size: int, variant: TextVariant, epsilon: float) -> nn.Layer:
        from ernie_vil2.towers.layers import suite, transformer

        check_divides("Model.text: width", self.sizes["width"], "heads", self.sizes["heads"])
        if ":" in self.find_installed().name:
            return suite.build_encoder(self, vocab_size)
        return transformer.TextTransformer(self, vocab_size, variant, epsilon)


class _SizedText(_AnyText):
    """Base class of text towers whose sizes are fields."""

    width: Size = Field(description="width of the states")
    depth: Depth = Field(description="number of blocks")
    heads: Size = Field(description="number of attention heads; the width must be divisible by it")


class _AnyEncoder(_AnyText):
    """Base class of ERNIE and BERT."""

    suite: ClassVar[str | None] = "paddlenlp"
    pooling: Literal["cls", "mean"] = Field(
        "cls",
        description="features: first state through a linear layer and tanh, as released (cls), or the mean of states",
    )

    def build(self, vocab_size: int) -> nn.Layer:
        if self.family == "bert":
            return self._build(vocab_size, BERT, BERT_EPSILON)
        return self._build(vocab_size, ERNIE, self.epsilon)


class PublishedEncoder(_AnyEncoder):
    """ERNIE or BERT of the published size that its name stands for."""

    @property
    def sizes(self) -> dict[str, Any]:
        return ENCODER_SIZES[self.name.rpartition("-")[2]]

    def with_sizes(self) -> Encoder:
        return Encoder.model_validate({**dict(self), "name": self.family, **self.sizes})


class Encoder(_AnyEncoder, _SizedText):
    """ERNIE or BERT of any size."""

    name: Literal["ernie", "bert", "paddlenlp:ernie", "paddlenlp:bert"] = Field(
        description="ERNIE or BERT, of this package or of PaddleNLP"
    )


class Transformer(_SizedText):
    """Text transformer of any family and size."""

    name: Literal["transformer"] = Field(description="text transformer of any family")
    variant: TextVariant | None = Field(None, description="differences of the family; null: as CLIP")

    @property
    def first_position(self) -> int:
        return self.variant.first_position if self.variant else 0

    @model_validator(mode="after")
    def _check_variant(self) -> Self:
        if self.pooling == "end" and (self.variant is None or self.variant.end is None):
            raise ValueError("pooling: end needs variant.end, the id of that token")
        if self.variant is not None and self.variant.positions == "sinusoids" and (self.width % 2 or self.width < 4):
            raise ValueError(f"variant.positions: sinusoids need an even width of at least 4, not {self.width}")
        return self

    def build(self, vocab_size: int) -> nn.Layer:
        return self._build(vocab_size, self.variant or TextVariant(), self.epsilon)


def get_text_variant(tower: TextTowerConfig) -> TextVariant | None:
    """Return the differences of a family's text transformer; None if it is as CLIP's, or no such transformer."""
    return tower.variant if isinstance(tower, Transformer) else None


def get_text_width(tower: TextTowerConfig) -> int | None:
    """Return the width of a text tower's features; None if its configuration does not say it."""
    variant = get_text_variant(tower)
    if variant is not None and variant.head is not None:
        return variant.head
    return tower.sizes.get("width")
