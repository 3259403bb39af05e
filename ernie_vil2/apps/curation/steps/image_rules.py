"""Cheap rules on images: size, shape, and images that show nothing or no scene."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

import cv2
from pydantic import Field

from ernie_vil2.apps.curation.caption_measures import names_several_pictures, names_text, simplify
from ernie_vil2.apps.curation.image_measures import (
    measure_relief,
    measure_seams,
    measure_unfinished,
    shrink_luminance,
)
from ernie_vil2.apps.curation.qr_codes import measure_qr_code
from ernie_vil2.apps.curation.rules import Rule, make_bound
from ernie_vil2.apps.curation.step import Histogram, Pair, Step
from ernie_vil2.apps.curation.text_rows import measure_text
from ernie_vil2.section import Count, Fraction, NonNegative, Section


class Settings(Section):
    """Settings of the step `image_rules`."""

    # DataComp asks for 200 pixels and a ratio of at most 3. On the synthetic crawls of demo_data/crawls, 200 loses up
    # to 2 % of the good pairs. Of 1,000 images of ImageNet, 128 loses 10, and 80 loses 2. Icons and thumbnails that
    # show too little have up to 60.
    short_side: Count = Field(80, description="least length of the shorter side, in pixels")
    # Panoramas have up to 5; strips of advertisements from 6 (300 x 50).
    aspect: Annotated[float, Field(ge=1)] = Field(5.5, description="greatest ratio of the longer side to the shorter")
    deviation: NonNegative = Field(
        4.0,
        description="least deviation of luminance, which has 255 levels, and of colours; an image below it is blank",
    )
    # This and the settings below were chosen on the shop's crawl of demo_data/crawls, the demo's drawings, and crops of
    # photographs. Of 1,622, 2,105 and 1,092 good images they remove only crops of even skies and walls, by relief.
    relief: NonNegative = Field(
        1.2, description="least deviation from a smooth surface, in levels; an image below it is a gradient"
    )
    unfinished: Fraction = Field(
        0.2,
        description="share of the height that is the grey of a file that was cut off, from which an image is removed",
    )
    # None of 2,735 photographs, goods and memes has as many letters on as much of what it shows
    # (benchmarks/image_rules.py). Menus, plans and charts have, and stay by their captions.
    letters: Count = Field(24, description="letters, at most eight a row, from which an image may be a page of text")
    text_share: Fraction = Field(
        0.5, description="share of the area with anything on it that is rows of text, from which it is such a page"
    )
    seams: Fraction = Field(
        0.45,
        description="share of a side along which straight seams or gutters run, both ways, from which an image is a "
        "collage",
    )
    qr_code: Fraction = Field(
        0.05, description="share of the area that a QR code covers, from which an image is removed"
    )


class ImageRules(Step[Settings]):
    """Step that removes images that are small, long, plain, cut off, pages of text, collages or QR codes."""

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
        "letters_shown": "float",
        "text_share": "float",
        "names_text": "bool",
        "seams": "float",
        "names_several_pictures": "bool",
        "qr_code": "float",
    }

    def measure(self, pair: Pair) -> dict[str, Any]:
        height, width = pair.image.height, pair.image.width
        small_luminance = cv2.cvtColor(pair.small_pixels, cv2.COLOR_RGB2GRAY)
        _, deviation = cv2.meanStdDev(small_luminance)
        luminance = shrink_luminance(pair.luminance)
        text = measure_text(luminance)
        captions = [simplify(caption) for caption in pair.captions.values()]
        return {
            "width": width,
            "height": height,
            "aspect": max(height, width) / min(height, width),
            "deviation": float(deviation.item()),
            "relief": measure_relief(pair.small_pixels),
            "unfinished": measure_unfinished(pair.pixels),
            "letters_shown": text.letters,
            "text_share": text.share,
            "names_text": any(map(names_text, captions)),
            "seams": measure_seams(luminance),
            "names_several_pictures": any(map(names_several_pictures, captions)),
            "qr_code": measure_qr_code(luminance),
        }

    def rules(self) -> Iterable[Rule]:
        settings = self.settings
        yield make_bound("image too small", "least(width, height)", "<", settings.short_side, "short side")
        yield make_bound("image too long", "aspect", ">", settings.aspect)
        # A pale thing on a pale ground differs in colour.
        yield make_bound("blank image", "greatest(deviation, relief)", "<", settings.deviation, "deviation")
        yield make_bound("gradient", "relief", "<", settings.relief)
        yield make_bound("unfinished image", "unfinished", ">=", settings.unfinished)
        yield make_bound("QR code", "qr_code", ">=", settings.qr_code)
        # Many letters alone may be a map, and a large share of text a name plate. A menu is such a page, too, but its
        # caption says so.
        page = make_bound("page of text", "text_share", ">=", settings.text_share, "share of text")
        yield page._replace(condition=f"not names_text and letters_shown >= {settings.letters} and {page.condition}")
        # A collage is no fault where its caption is about all of it. Most captions of collages tell of one picture.
        collage = make_bound("collage", "seams", ">=", settings.seams)
        yield collage._replace(condition=f"not names_several_pictures and {collage.condition}")

    def histograms(self) -> Iterable[Histogram]:
        yield Histogram("least(width, height)", "short side in pixels", (self.settings.short_side,))
        yield Histogram("aspect", "longer side over the shorter", (self.settings.aspect,))
        yield Histogram(
            "greatest(deviation, relief)", "deviation of luminance or colours, in levels", (self.settings.deviation,)
        )
