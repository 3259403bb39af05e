"""Cheap rules on images: size, shape, and images that show nothing."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

import cv2
from pydantic import Field

from ernie_vil2.apps.curation.step import Histogram, Pair, Step
from ernie_vil2.section import Count, Section, Strength


class Settings(Section):
    """Settings of the step `image_rules`."""

    # Size and shape follow DataComp's rules.
    short_side: Count = Field(200, description="least length of the shorter side, in pixels")
    aspect: Annotated[float, Field(ge=1)] = Field(3.0, description="greatest ratio of the longer side to the shorter")
    deviation: Strength = Field(
        4.0, description="least standard deviation of luminance, which has 255 levels; an image below it is blank"
    )


class ImageRules(Step[Settings]):
    """Removes images that are small, long, or nearly of one colour."""

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
        height, width = pair.image.height, pair.image.width
        luminance = cv2.cvtColor(pair.small_pixels, cv2.COLOR_RGB2GRAY)
        _, deviation = cv2.meanStdDev(luminance)
        return {
            "width": width,
            "height": height,
            "aspect": max(height, width) / min(height, width),
            "deviation": float(deviation.item()),
        }

    def rules(self) -> Iterable[tuple[str, str]]:
        yield "image too small", f"least(width, height) < {self.settings.short_side}"
        yield "image too long", f"aspect > {self.settings.aspect}"
        yield "blank image", f"deviation < {self.settings.deviation}"

    def histograms(self) -> Iterable[Histogram]:
        yield Histogram("least(width, height)", "short side in pixels", (self.settings.short_side,))
        yield Histogram("aspect", "longer side over the shorter", (self.settings.aspect,))
        yield Histogram("deviation", "standard deviation of luminance", (self.settings.deviation,))
