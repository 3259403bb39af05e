"""Cheap rules on images: size, shape, and images of nothing."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

import cv2
from pydantic import Field

from ernie_vil2.apps.curation.step import Pair, Shown, Step
from ernie_vil2.section import Count, Section, Strength


class Settings(Section):
    short_side: Count = Field(200, description="least, in pixels")
    aspect: Annotated[float, Field(ge=1)] = Field(3.0, description="longer side over the shorter one, at most")
    deviation: Strength = Field(
        4.0, description="least standard deviation of luminance, of 255: below it an image is blank"
    )


class ImageRules(Step[Settings]):
    """DataComp's rules on sizes; an image of one colour, or nearly, shows nothing."""

    name = "image_rules"
    cost = 2
    Settings = Settings
    columns: ClassVar[Mapping[str, str]] = {
        "width": "int32",
        "height": "int32",
        "aspect": "float",
        "deviation": "float",
    }

    def measure(self, pair: Pair) -> dict[str, Any]:
        """Size, and how much luminance varies."""
        height, width = pair.image.height, pair.image.width
        return {
            "width": width,
            "height": height,
            "aspect": max(height, width) / min(height, width),
            "deviation": float(cv2.meanStdDev(cv2.cvtColor(pair.small, cv2.COLOR_RGB2GRAY))[1].item()),
        }

    def rules(self) -> Iterable[tuple[str, str]]:
        own = self.settings
        yield "image too small", f"least(width, height) < {own.short_side}"
        yield "image too long", f"aspect > {own.aspect}"
        yield "blank image", f"deviation < {own.deviation}"

    def shown(self) -> Iterable[Shown]:
        yield Shown("least(width, height)", "short side in pixels", (self.settings.short_side,))
        yield Shown("aspect", "longer side over the shorter", (self.settings.aspect,))
        yield Shown("deviation", "standard deviation of luminance", (self.settings.deviation,))
