"""How other dual encoders' code makes a model's input of an image: by Pillow, with their rules of geometry.

Each way agrees with its authors' code to the last bit of a pixel. They differ in what comes first, the conversion to
RGB or the resize, in which a transparent image is another one; in the crop, by one pixel; and in the filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps

Kind = Literal["transformers", "open_clip", "naflex"]
Resize = Literal["shortest", "squash", "longest"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_FG_CLIP = (128, 256, 576, 784, 1024)
"""Most patches of an image in FG-CLIP 2: the first of these that is not below those of the image as it is."""


class Geometry(NamedTuple):
    """How an image's sides are scaled and cut.

    resize: the short side becomes `resized` and the centre is cut out; both sides become `size` (squash); or the long
        side becomes `size`, and what is missing is black.
    interpolation: of the resize.
    resized: side before the crop; None: `size`.
    patch_size, most_patches: of NaFlex, where `size` has no part; most_patches None: by FG-CLIP 2's rule.
    """

    resize: Resize = "shortest"
    interpolation: Interpolation = "bicubic"
    resized: int | None = None
    patch_size: int = 16
    most_patches: int | None = None


def pillow_view(image: Image.Image, kind: Kind, size: int, geometry: Geometry) -> np.ndarray:
    """The model's input, `[H, W, 3]` uint8 RGB: a square of `size` pixels, or of NaFlex whole patches.

    Args:
        image: as Pillow opens it, in its own mode.
        kind: whose code: transformers' image processors, OpenCLIP's (and Chinese-CLIP's), or SigLIP 2 NaFlex's.
    """
    if kind != "open_clip":
        image = image.convert("RGB")
    resample = FILTERS[geometry.interpolation]
    if kind == "naflex":
        most = geometry.most_patches or most_patches(image.width, image.height)
        sides = patched_size(image.width, image.height, geometry.patch_size, most)
        return np.asarray(image.resize(sides, resample))
    if geometry.resize == "squash":
        image = image.resize((size, size), resample)
    elif geometry.resize == "longest":
        scale = max(image.width, image.height) / size
        image = _padded(image.resize((round(image.width / scale), round(image.height / scale)), resample), size)
    else:
        side = geometry.resized or size
        short = min(image.width, image.height)
        image = image.resize((int(side * image.width / short), int(side * image.height / short)), resample)
        # Of an odd rest one halves it downwards, the other to the even number.
        half: Callable[[int], int] = (
            (lambda rest: rest // 2) if kind == "transformers" else (lambda rest: round(rest / 2))
        )
        left, top = half(image.width - size), half(image.height - size)
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image.convert("RGB"))


def _padded(image: Image.Image, size: int) -> Image.Image:
    """The image in the middle of a black square."""
    right, bottom = size - image.width, size - image.height
    palette = image.getpalette() if image.mode == "P" else None
    image = ImageOps.expand(image, (right // 2, bottom // 2, (right + 1) // 2, (bottom + 1) // 2), fill=0)
    if palette:
        image.putpalette(palette)
    return image


def patched_size(width: int, height: int, patch_size: int, most: int) -> tuple[int, int]:
    """Width and height of whole patches, at most `most`, of nearly the same aspect: the largest that a search by halves
    of the scale, from nearly nothing to 100, finds, as SigLIP 2's code does it."""

    def sides(scale: float) -> tuple[int, int]:
        return tuple(max(1, math.ceil(side * scale / patch_size)) for side in (width, height))  # type: ignore[return-value]

    least, largest, exactness = 1e-6, 100.0, 1e-5
    while largest - least >= exactness:
        scale = (least + largest) / 2
        columns, rows = sides(scale)
        if columns * rows <= most:
            least = scale
        else:
            largest = scale
    columns, rows = sides(least)
    return columns * patch_size, rows * patch_size


def most_patches(width: int, height: int) -> int:
    """FG-CLIP 2's number for an image, of patches of 16 pixels."""
    count = (width // 16) * (height // 16)
    return next((most for most in _FG_CLIP if count <= most), _FG_CLIP[-1])
