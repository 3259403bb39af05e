"""Configurations of the vision transformers: of a published size, of any size, and for images of any shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ernie_vil2.section import Depth, Probability, Size
from ernie_vil2.towers.base import ImageTowerConfig, ImageVariant, check_divides, without_suite

if TYPE_CHECKING:
    from paddle import nn

PUBLISHED_SIZES = {
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
        from ernie_vil2.towers.layers import encoders, suite

        self._check_sizes()
        if ":" in self.as_installed().name:
            suite.paddleclas(f"the image tower {self.name}")
            return suite.SuiteVit(self.image_size, **self.sizes, drop_path=self.drop_path)
        return encoders.VisionTransformer(
            self.image_size, **self.sizes, drop_path=self.drop_path, variant=image_variant(self)
        )


class PublishedVit(_AnyVit):
    """The ViT of the published size that its name means."""

    suite: ClassVar[str | None] = "paddleclas"

    @property
    def sizes(self) -> dict[str, Any]:
        return PUBLISHED_SIZES[without_suite(self.name)]

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
        from ernie_vil2.towers.layers.encoders import NaFlexTransformer

        self._check_sizes()
        return NaFlexTransformer(self.image_size, **self.sizes, drop_path=self.drop_path, variant=self.variant)


def image_variant(tower: ImageTowerConfig) -> ImageVariant | None:
    """Return what the ViT of another family does differently; None: it is the released one, or no ViT."""
    return tower.variant if isinstance(tower, _SizedVit) else None
