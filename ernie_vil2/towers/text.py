"""Configurations of the text towers: ERNIE and BERT of a published or any size, and a transformer of any variant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ernie_vil2.section import Depth, Size
from ernie_vil2.towers.base import TextTowerConfig, TextVariant, check_divides

if TYPE_CHECKING:
    from paddle import nn

PUBLISHED_SIZES = {
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
        from ernie_vil2.towers.layers import encoders, suite

        check_divides("Model.text: width", self.sizes["width"], "heads", self.sizes["heads"])
        if ":" in self.as_installed().name:
            return suite.build_encoder(self, vocab_size)
        return encoders.TextTransformer(self, vocab_size, variant, epsilon)


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
        return PUBLISHED_SIZES[self.name.rpartition("-")[2]]

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
