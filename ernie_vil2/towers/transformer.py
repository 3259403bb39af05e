"""Configurations of the transformer towers: vision transformers of a published or any size and for images of any shape;
ERNIE, BERT and other text transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ernie_vil2.section import Depth, Probability, Size
from ernie_vil2.towers.base import (
    ImageTowerConfig,
    ImageVariant,
    TextTowerConfig,
    TextVariant,
    check_divides,
    without_suite,
)

if TYPE_CHECKING:
    from paddle import nn


VIT_SIZES = {
    "ViT-B/16": {"patch_size": 16, "width": 768, "depth": 12, "heads": 12},
    "ViT-L/14": {"patch_size": 14, "width": 1024, "depth": 24, "heads": 16},
}


class _AnyVit(ImageTowerConfig):
    """What all vision transformers have in common."""

    drop_path: Probability = Field(0.0, description="stochastic depth of the last block")

    def fewest_parameters(self) -> int:
        sizes = self.sizes
        side, width = sizes["patch_size"], sizes["width"]
        return width * (12 * width * sizes["depth"] + 3 * side**2 + (self.image_size // side) ** 2)

    def _check_sizes(self) -> None:
        sizes = self.sizes
        if sizes["patch_size"] > self.image_size:
            raise ValueError(f"patch_size ({sizes['patch_size']}) is larger than image_size ({self.image_size})")
        check_divides("width", sizes["width"], "heads", sizes["heads"])

    def build(self) -> nn.Layer:
        from ernie_vil2.towers.layers import suite, transformer

        self._check_sizes()
        if ":" in self.as_installed().name:
            suite.paddleclas(f"the image tower {self.name}")
            return suite.SuiteVit(self.image_size, **self.sizes, drop_path=self.drop_path)
        return transformer.VisionTransformer(
            self.image_size, **self.sizes, drop_path=self.drop_path, variant=image_variant(self)
        )


class PublishedVit(_AnyVit):
    """The ViT of the published size that its name means."""

    suite: ClassVar[str | None] = "paddleclas"

    @property
    def sizes(self) -> dict[str, Any]:
        return VIT_SIZES[without_suite(self.name)]

    def with_sizes(self) -> Vit:
        return Vit.model_validate({**dict(self), "name": "ViT", **self.sizes})


class _SizedVit(_AnyVit):
    """What the vision transformers have in common whose sizes are given."""

    patch_size: Size = Field(description="side of a patch in pixels")
    width: Size = Field(description="of the tokens")
    depth: Depth = Field(description="number of blocks")
    heads: Size = Field(description="attention heads; they divide the width")
    variant: ImageVariant | None = Field(None, description="what another family does differently; null: as released")


class Vit(_SizedVit):
    """A ViT of any size."""

    suite: ClassVar[str | None] = "paddleclas"
    name: Literal["ViT", "paddleclas:ViT"] = Field(description="who builds it: this package, or PaddleClas")

    @model_validator(mode="after")
    def _check_builder(self) -> Self:
        if self.variant is not None and self.name != "ViT":
            raise ValueError(f"{self.name!r} has no variant; 'ViT' has")
        return self


class NaFlex(_SizedVit):
    """A ViT for images of any shape."""

    name: Literal["NaFlex"] = Field(description="images of any shape, in whole patches")

    def build(self) -> nn.Layer:
        from ernie_vil2.towers.layers.transformer import NaFlexTransformer

        self._check_sizes()
        return NaFlexTransformer(self.image_size, **self.sizes, drop_path=self.drop_path, variant=self.variant)


def image_variant(tower: ImageTowerConfig) -> ImageVariant | None:
    """Return what the ViT of another family does differently; None: it is the released one, or no ViT."""
    return tower.variant if isinstance(tower, _SizedVit) else None


ENCODER_SIZES = {
    "base": {"width": 768, "depth": 12, "heads": 12},
    "large": {"width": 1024, "depth": 24, "heads": 16},
}
"""By the last part of the name."""
# What ERNIE and BERT do differently from CLIP's text transformer; PaddleNLP's BERT has 16 token types.
ERNIE = TextVariant(norm="after", mask="padding")
BERT = TextVariant(norm="after", mask="padding", token_types=16)
BERT_EPSILON = 1e-12  # of BERT's LayerNorms, whatever the configuration says


class _AnyText(TextTowerConfig):
    """What the text towers of this package have in common."""

    def fewest_parameters(self, vocab_size: int) -> int:
        width: int = self.sizes["width"]
        return width * (12 * width * self.sizes["depth"] + self.max_positions + vocab_size)

    def _build(self, vocab_size: int, variant: TextVariant, epsilon: float) -> nn.Layer:
        from ernie_vil2.towers.layers import suite, transformer

        check_divides("Model.text: width", self.sizes["width"], "heads", self.sizes["heads"])
        if ":" in self.as_installed().name:
            return suite.build_encoder(self, vocab_size)
        return transformer.TextTransformer(self, vocab_size, variant, epsilon)


class _SizedText(_AnyText):
    """What those have in common whose sizes are given."""

    width: Size = Field(description="hidden width")
    depth: Depth = Field(description="number of layers")
    heads: Size = Field(description="attention heads; they divide the width")


class _AnyEncoder(_AnyText):
    """What ERNIE and BERT of all sizes have in common."""

    suite: ClassVar[str | None] = "paddlenlp"
    pooling: Literal["cls", "mean"] = Field("cls", description="features: as released (cls), or the mean of the states")

    def build(self, vocab_size: int) -> nn.Layer:
        if self.family == "bert":
            return self._build(vocab_size, BERT, BERT_EPSILON)
        return self._build(vocab_size, ERNIE, self.epsilon)


class PublishedEncoder(_AnyEncoder):
    """ERNIE or BERT of the published size that its name means."""

    @property
    def sizes(self) -> dict[str, Any]:
        return ENCODER_SIZES[self.name.rpartition("-")[2]]

    def with_sizes(self) -> Encoder:
        return Encoder.model_validate({**dict(self), "name": self.family, **self.sizes})


class Encoder(_AnyEncoder, _SizedText):
    """ERNIE or BERT of any size."""

    name: Literal["ernie", "bert", "paddlenlp:ernie", "paddlenlp:bert"] = Field(
        description="which of both, and who builds it: this package, or PaddleNLP"
    )


class Transformer(_SizedText):
    """The text transformer of any family, of any size."""

    name: Literal["transformer"] = Field(description="of any variant")
    variant: TextVariant | None = Field(None, description="what its family does; null: as CLIP")

    @property
    def first_position(self) -> int:
        return self.variant.first_position if self.variant else 0

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        if self.pooling == "end" and (self.variant is None or self.variant.end is None):
            raise ValueError("pooling: end needs variant.end, the id of that token")
        return self

    def build(self, vocab_size: int) -> nn.Layer:
        return self._build(vocab_size, self.variant or TextVariant(), self.epsilon)


def text_variant(tower: TextTowerConfig) -> TextVariant | None:
    """Return what the text transformer of a family does; None: it is as CLIP's, or no such transformer."""
    return tower.variant if isinstance(tower, Transformer) else None
