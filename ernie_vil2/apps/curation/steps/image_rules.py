"""Cheap rules on images: size, shape, and images that show nothing or no scene."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

import cv2
from pydantic import Field

from ernie_vil2.apps.curation.image_measures import (
    count_letters,
    measure_qr_code,
    measure_relief,
    measure_seams,
    measure_unfinished,
    shrink_luminance,
)
from ernie_vil2.apps.curation.rules import Rule, make_bound
from ernie_vil2.apps.curation.step import Histogram, Pair, Step
from ernie_vil2.section import Count, Fraction, Section, Strength


class Settings(Section):
    """Settings of the step `image_rules`."""

    # Size and shape follow DataComp's rules.
    short_side: Count = Field(200, description="least length of the shorter side, in pixels")
    aspect: Annotated[float, Field(ge=1)] = Field(3.0, description="greatest ratio of the longer side to the shorter")
    deviation: Strength = Field(
        4.0, description="least standard deviation of luminance, which has 255 levels; an image below it is blank"
    )
    # The others were chosen on the shop's crawl of demo_data/crawls, the demo's drawings, and crops of photographs. Of
    # 1,622, 2,105 and 1,092 good images they remove none but crops of even skies and walls, by their relief.
    relief: Strength = Field(
        1.2, description="least standard deviation from a smooth surface, in levels; an image below it is a gradient"
    )
    unfinished: Fraction = Field(
        0.2, description="share of the height that is the grey of a file that was cut off, from which an image goes"
    )
    letters: Count = Field(
        40, description="number of letters in rows on an even ground from which it is a page of text"
    )
    seams: Fraction = Field(0.45, description="share of the sides along which straight seams cross a collage both ways")
    qr_code: Fraction = Field(0.05, description="share of the area that a QR code covers, from which an image goes")


class ImageRules(Step[Settings]):
    """Removes images that are small, long, of one colour, gradients, cut off, pages of text, collages, or QR codes."""

    name = "image_rules"
    cost = 2
    Settings = Settings
    columns: ClassVar[Mapping[str, str]] = {
        "width": "int32",
        "height": "int32",
        "aspect": "float",
        "deviation": "float",
        "relief": "float",
        "unfinished": "float",
        "letters_shown": "int32",
        "seams": "float",
        "qr_code": "float",
    }

    def measure(self, pair: Pair) -> dict[str, Any]:
        height, width = pair.image.height, pair.image.width
        small_luminance = cv2.cvtColor(pair.small_pixels, cv2.COLOR_RGB2GRAY)
        _, deviation = cv2.meanStdDev(small_luminance)
        luminance = shrink_luminance(pair.pixels)
        return {
            "width": width,
            "height": height,
            "aspect": max(height, width) / min(height, width),
            "deviation": float(deviation.item()),
            "relief": measure_relief(pair.small_pixels),
            "unfinished": measure_unfinished(pair.pixels),
            "letters_shown": count_letters(luminance),
            "seams": measure_seams(luminance),
            "qr_code": measure_qr_code(luminance),
        }

    def rules(self) -> Iterable[Rule]:
        settings = self.settings
        yield make_bound("image too small", "least(width, height)", "<", settings.short_side, "short side")
        yield make_bound("image too long", "aspect", ">", settings.aspect)
        yield make_bound("blank image", "deviation", "<", settings.deviation)
        yield make_bound("gradient", "relief", "<", settings.relief)
        yield make_bound("unfinished image", "unfinished", ">=", settings.unfinished)
        yield make_bound("QR code", "qr_code", ">=", settings.qr_code)
        yield make_bound("page of text", "letters_shown", ">=", settings.letters)
        yield make_bound("collage", "seams", ">=", settings.seams)

    def histograms(self) -> Iterable[Histogram]:
        yield Histogram("least(width, height)", "short side in pixels", (self.settings.short_side,))
        yield Histogram("aspect", "longer side over the shorter", (self.settings.aspect,))
        yield Histogram("deviation", "standard deviation of luminance", (self.settings.deviation,))
