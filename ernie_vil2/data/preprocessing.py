"""How an image that is scored becomes what its model was trained with: decoding, geometry, normalisation."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import cv2
import numpy as np
from PIL import Image, ImageOps

from ernie_vil2.data.decoding import (
    WHITE,
    DecodingPlan,
    convert_to_rgb,
    decode_as_stored,
    decode_image,
    open_with_pillow,
    plan_decoding,
    resize_pixels,
    size_of_short_side,
)
from ernie_vil2.data.samples import BadSample, Reason
from ernie_vil2.device import runtime
from ernie_vil2.io.export_folder import Interpolation, PreprocessingKind, Resize

if TYPE_CHECKING:
    import paddle

    from ernie_vil2.towers.base import ImageTowerConfig


def evaluation_view(image: np.ndarray, size: int) -> np.ndarray:
    """The view that is scored: short side to `size`, centre crop.

    Args:
        image: `[H, W, 3]` uint8 RGB.
        size: side of the result in pixels.

    Returns:
        `[size, size, 3]` uint8.
    """
    height, width = size_of_short_side(image.shape[0], image.shape[1], size)
    image = resize_pixels(image, width, height)
    return _window(image, (height - size) // 2, (width - size) // 2, size)


def official_view(image: np.ndarray, size: int) -> np.ndarray:
    """As `evaluation_view`, as the code of the official release does it."""
    height, width = image.shape[:2]
    if min(height, width) != size:
        # The release adds a pixel to the long side, and to the width of a square.
        if width < height:
            width, height = size, int(size / width * height) + 1
        else:
            width, height = int(size / height * width) + 1, size
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return _window(image, math.ceil((height - size) / 2), math.ceil((width - size) / 2), size)


def paddlenlp_view(image: np.ndarray, size: int) -> np.ndarray:
    """As `evaluation_view`, as PaddleNLP's image processor does it, by Pillow."""
    height, width = image.shape[:2]
    short = min(height, width)
    height, width = int(size * height / short), int(size * width / short)
    image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    return _window(image, (height - size) // 2, (width - size) // 2, size)


def _window(image: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    return image[top : top + size, left : left + size]


ImageInput = bytes | Image.Image | np.ndarray
_MARGIN = 2
"""By which the sides of a JPEG that is decoded smaller exceed those that the model's resize makes of it, so that the
resize still takes means of several pixels. benchmarks/query_images.py measures the difference."""
Kind = Literal["transformers", "open_clip", "naflex"]
PILLOW_KINDS = get_args(Kind)
"""The ways of other people's code, which agree with it to the last bit of a pixel. They differ in what comes first, the
conversion to RGB or the resize, in which a transparent image is another one; in the crop, by one pixel; and in the
filter."""
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
    resample = Image.Resampling[geometry.interpolation.upper()]
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


@dataclass(frozen=True)
class Preprocessing:
    """One model's way from an image to its input.

    The first three ways resize the short side to `size` and crop the centre; they differ in the last pixel of the long
    side, in the interpolation and in what becomes of the EXIF orientation:

    - ernie_vil2: bilinear after means of blocks where the image shrinks to half or less, as the training views here
      are made.
    - official: bilinear, as the code of the official release. It decodes with OpenCV, whose pixels are the same.
    - paddlenlp: bicubic, as PaddleNLP's ErnieViLImageProcessor, which leaves an image as it is stored; the other two
      turn it as its EXIF orientation says.
    - transformers, open_clip, naflex: as other people's code, by `geometry`; see `pillow_view`. They take an
      image as it is stored and drop transparency.

    Grey, palette and CMYK become RGB. What is transparent shows the background here; the releases drop the
    transparency, so that whatever colour the file has there shows, black as a rule.

    Args:
        kind: one of these.
        size: side of the square input in pixels.
        mean: [red, green, blue], of pixels from 0 to 1.
        std: their standard deviation.
        background: [red, green, blue] behind transparent pixels, 0 to 255; the other ways have none.
        geometry: of other people's code.
    """

    kind: PreprocessingKind
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    background: tuple[int, ...] = WHITE
    geometry: Geometry = field(default_factory=Geometry)

    @classmethod
    def of(cls, config: ImageTowerConfig) -> Preprocessing:
        """Return the one that the image tower's configuration names."""
        geometry = Geometry()
        if config.preprocessing in PILLOW_KINDS:
            patch_size = config.sizes.get("patch_size", 16)
            geometry = Geometry(config.resize, config.interpolation, config.resized, patch_size, config.most_patches)
        return cls(
            config.preprocessing,
            config.image_size,
            tuple(config.mean),
            tuple(config.std),
            tuple(config.background),
            geometry,
        )

    @classmethod
    def read(cls, described: Mapping[str, Any]) -> Preprocessing:
        """The one that `described` gave."""
        own: dict[str, Any] = {field.name: described[field.name] for field in fields(cls)[:-1]}
        geometry = Geometry(**{name: described[name] for name in Geometry._fields if name in described})
        own = {key: tuple(value) if isinstance(value, list) else value for key, value in own.items()}
        return cls(**own, geometry=geometry)

    def described(self) -> dict[str, Any]:
        """It as JSON, with what of the geometry is not as by default."""
        own = {field.name: getattr(self, field.name) for field in fields(self)[:-1]}
        default = Geometry()._asdict()
        return own | {key: value for key, value in self.geometry._asdict().items() if value != default[key]}

    def __call__(self, image: ImageInput, name: str) -> np.ndarray:
        """What the model sees of an image, before normalisation.

        Args:
            image: an encoded file's bytes, a Pillow image, or `[H, W, 3]` uint8 RGB.
            name: the image's, for the error.

        Returns:
            `[size, size, 3]` uint8 RGB; of naflex `[H, W, 3]`, of whole patches.

        Raises:
            BadSample: the bytes are not an image, or the array is not one of that kind.
        """
        if isinstance(image, np.ndarray):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
                raise BadSample(Reason.NOT_RGB, f"{name} ({image.dtype} {list(image.shape)})")
            return self.view(image, name)
        return self.view(self.decode(image, name), name)

    def plan(self, data: bytes, name: str) -> DecodingPlan:
        """Choose how far an image of a query may be reduced as it is decoded; BadSample if it is not to be used.

        Its sides remain at least `_MARGIN` times those that the model's resize makes of it.
        """

        def least_sides(width: int, height: int) -> tuple[float, float]:
            short, long = self._resized_sides(width, height)
            return _MARGIN * short, _MARGIN * long

        return plan_decoding(data, name, least_sides)

    def _resized_sides(self, width: int, height: int) -> tuple[int, int]:
        """Return the shorter and the longer side after the resize; 0 for one that follows from the other."""
        if self.kind == "naflex":
            most = self.geometry.most_patches or most_patches(width, height)
            short, long = sorted(patched_size(width, height, self.geometry.patch_size, most))
            return short, long
        if self.geometry.resize == "longest":
            return 0, self.size
        return max(self.size, self.geometry.resized or 0), 0

    def decode(self, image: bytes | Image.Image, name: str, factor: int = 1) -> np.ndarray | Image.Image:
        """Pixels `[H, W, 3]` uint8 RGB, or an image of Pillow's in its own mode where other people's code begins with
        that; BadSample if the bytes are not an image that can be used. `factor` divides the sides, see `plan`."""
        if self.kind in PILLOW_KINDS:
            return open_with_pillow(image, name, factor) if isinstance(image, bytes) else image
        background = self.background if self.kind == "ernie_vil2" else None
        if isinstance(image, bytes):
            if self.kind == "paddlenlp":
                return decode_as_stored(image, name, factor)
            return decode_image(image, name, background, factor)
        try:
            if self.kind != "paddlenlp":
                image = ImageOps.exif_transpose(image)
            return convert_to_rgb(image, background)
        except Exception as error:  # Pillow's decoders raise whatever they stumble over
            raise BadSample(Reason.BROKEN_IMAGE, name) from error

    def view(self, image: np.ndarray | Image.Image, name: str = "image") -> np.ndarray:
        """What `decode` gave, or `[H, W, 3]` uint8 RGB, to what the model sees; BadSample if Pillow cannot make it."""
        if self.kind in PILLOW_KINDS:
            try:
                image = image if isinstance(image, Image.Image) else Image.fromarray(image)
                return pillow_view(image, cast(Kind, self.kind), self.size, self.geometry)
            except Exception as error:  # as above
                raise BadSample(Reason.BROKEN_IMAGE, name) from error
        image = np.asarray(image)
        if self.kind == "ernie_vil2":
            return evaluation_view(image, self.size)
        if self.kind == "official":
            return official_view(image, self.size)
        return paddlenlp_view(image, self.size)


def ahead(
    preprocess: Callable[[Any, str], np.ndarray], images: Iterable[Any], count: int
) -> Generator[np.ndarray | BadSample, None, None]:
    """What `preprocess` makes of each image, or why it cannot be used, in their order; on threads, up to `count` images
    before they are asked for."""

    def attempt(row: int, image: Any) -> np.ndarray | BadSample:
        try:
            return preprocess(image, f"image {row}")
        except BadSample as bad:
            return BadSample(bad.reason, bad.name)  # the frames of the one raised hold the image

    waiting: deque[Future[np.ndarray | BadSample]] = deque()
    pool = ThreadPoolExecutor(min(8, runtime.usable_cores()))
    try:
        for row, image in enumerate(images):
            waiting.append(pool.submit(attempt, row, image))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def in_batches(encode: Callable[[list[Any]], np.ndarray], rows: Iterable[Any], size: int, width: int) -> np.ndarray:
    """The embeddings `[N, width]` of N rows, of which `encode` takes so many at a time."""
    rows, parts = iter(rows), [np.empty([0, width], np.float32)]
    while batch := list(islice(rows, size)):
        parts.append(encode(batch))
    return np.concatenate(parts)


def encode_by_shape(encode: Callable[[np.ndarray], np.ndarray], images: Sequence[np.ndarray]) -> np.ndarray:
    """Embeddings of images `[H, W, 3]`, of which `encode` takes those of one shape at a time; at least one."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, image in enumerate(images):
        rows.setdefault(image.shape, []).append(row)
    parts = [encode(np.stack([images[row] for row in group])) for group in rows.values()]
    order = np.argsort([row for group in rows.values() for row in group])
    return np.concatenate(parts)[order]


def normalize_images(images: paddle.Tensor, mean: Sequence[float], std: Sequence[float]) -> paddle.Tensor:
    """What the towers take: `[B, H, W, 3]` uint8 to `[B, 3, H, W]` floats, less the mean, over the deviation.

    Floats are Paddle's default type, that of the towers' weights.

    Args:
        mean: [red, green, blue], of pixels from 0 to 1.
        std: their standard deviation.
    """
    import paddle

    # Without zip(strict=...), which tracing for an export does not know.
    scale = paddle.to_tensor((1 / (255 * np.array(std))).tolist())
    shift = paddle.to_tensor((np.array(mean) / np.array(std)).tolist())
    return (images.astype(scale.dtype) * scale - shift).transpose([0, 3, 1, 2])
