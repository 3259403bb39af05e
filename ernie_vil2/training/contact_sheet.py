"""Samples with their views as one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ernie_vil2.data.preview import ShownSample
from ernie_vil2.files import written_whole

SIDE, GAP, TEXT_WIDTH = 128, 12, 560  # pixels
FONT_SIZE, LINE = 14, 20
LONGEST = 300  # characters of a text that the picture shows
FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "msyh.ttc",
    "PingFang.ttc",
)
"""Of those that hold Chinese, the ones that systems have; without any, Pillow's own draws boxes for it."""


def write_contact_sheet(path: Path, sources: Sequence[tuple[str, Sequence[ShownSample]]]) -> None:
    """Writes a PNG with a row for each sample: its image views, and beside them its texts.

    Args:
        sources: for each its name and samples.
    """
    font = _font()
    rows = [
        row for name, samples in sources for row in (_heading(name, font), *(_row(sample, font) for sample in samples))
    ]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    with written_whole(path) as aside:
        sheet.save(aside, format="PNG")


def _lines(sample: ShownSample) -> list[str]:
    lines = [sample.name]
    if sample.tokens:
        lines.append(f"drawn: {' '.join(sample.tokens)}")
    lines += [f"caption {language}: {text}" for language, text in sample.captions.items()]
    lines += [f"tags {language}: {text}" for language, text in sample.tags.items()]
    return [line if len(line) <= LONGEST else f"{line[:LONGEST]} ..." for line in lines]


def _font() -> ImageFont.FreeTypeFont:
    for name in FONTS:
        try:
            return ImageFont.truetype(name, FONT_SIZE)
        except OSError:
            continue
    return ImageFont.load_default(FONT_SIZE)


def _heading(name: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    row = Image.new("RGB", (2 * (SIDE + GAP) + TEXT_WIDTH + 2 * GAP, LINE + 2 * GAP), "white")
    ImageDraw.Draw(row).text((GAP, GAP), name, "black", font)
    return row


def _row(sample: ShownSample, font: ImageFont.FreeTypeFont) -> Image.Image:
    lines = [part for line in _lines(sample) for part in _wrapped(line, font)]
    left = GAP + len(sample.image_views) * (SIDE + GAP)
    row = Image.new("RGB", (left + TEXT_WIDTH + GAP, max(SIDE, LINE * len(lines)) + GAP), "white")
    for number, view in enumerate(sample.image_views.values()):
        row.paste(_resized(view), (GAP + number * (SIDE + GAP), 0))
    for number, line in enumerate(lines):
        ImageDraw.Draw(row).text((left, LINE * number), line, "black", font)
    return row


def _resized(view: np.ndarray) -> Image.Image:
    # Small views stay as square pixels, so that nothing is seen that is not in them.
    kind = Image.Resampling.NEAREST if len(view) < SIDE else Image.Resampling.LANCZOS
    return Image.fromarray(view).resize((SIDE, SIDE), kind)


def _wrapped(text: str, font: ImageFont.FreeTypeFont) -> Iterator[str]:
    """Parts that fit the width: cut at a space in their second half, or else anywhere, as Chinese has no spaces."""
    while font.getlength(text) > TEXT_WIDTH:
        end = next(end for end in range(len(text) - 1, 0, -1) if end == 1 or font.getlength(text[:end]) <= TEXT_WIDTH)
        space = text.rfind(" ", end // 2, end)
        end = end if space < 0 else space + 1
        yield text[:end]
        text = text[end:]
    yield text
