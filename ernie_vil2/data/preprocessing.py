"""Preparation of images for a model as in its training: decoding, resize and crop, normalisation."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, cast, get_args

import cv2
import numpy as np
from PIL import Image, ImageOps

from ernie_vil2.data.decoding import (
    WHITE,
    DecodingPlan,
    check_image_size,
    convert_to_rgb,
    decode_as_stored,
    decode_image,
    decode_opened_image,
    open_with_pillow,
    plan_decoding,
    resize_pixels,
    scale_to_short_side,
)
from ernie_vil2.data.samples import BadSample, Reason
from ernie_vil2.device import runtime
from ernie_vil2.io.export_folder import Interpolation, PreprocessingKind, Resize

if TYPE_CHECKING:
    import paddle

    from ernie_vil2.towers.base import ImageTowerConfig

T = TypeVar("T")


def make_evaluation_view(image: np.ndarray, size: int) -> np.ndarray:
    """Resize the short side to `size` and crop the centre.

    Args:
        image: `[H, W, 3]` uint8 RGB.
        size: side of the result in pixels.

    Returns:
        `[size, size, 3]` uint8.
    """
    height, width = scale_to_short_side(image.shape[0], image.shape[1], size)
    image = resize_pixels(image, width, height)
    return _crop(image, (height - size) // 2, (width - size) // 2, size)


def make_official_view(image: np.ndarray, size: int) -> np.ndarray:
    """Resize and crop like `make_evaluation_view`, to the pixel as the code of the official release does it."""
    height, width = image.shape[:2]
    if min(height, width) != size:
        # The release adds a pixel to the long side; a square becomes wider.
        if width < height:
            width, height = size, int(size / width * height) + 1
        else:
            width, height = int(size / height * width) + 1, size
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return _crop(image, math.ceil((height - size) / 2), math.ceil((width - size) / 2), size)


def make_paddlenlp_view(image: np.ndarray, size: int) -> np.ndarray:
    """Resize and crop like `make_evaluation_view`, to the pixel as PaddleNLP's image processor does it with Pillow."""
    height, width = image.shape[:2]
    short = min(height, width)
    height, width = int(size * height / short), int(size * width / short)
    image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    return _crop(image, (height - size) // 2, (width - size) // 2, size)


def _crop(image: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    return image[top : top + size, left : left + size]


ImageInput = bytes | Image.Image | np.ndarray

# A JPEG that is decoded at a smaller scale keeps at least this multiple of the sides that the model's resize makes, so
# that the resize still averages several pixels. benchmarks/query_images.py measures the difference in the embeddings.
_MARGIN = 2

PillowKind = Literal["transformers", "open_clip", "naflex"]
"""Preprocessing of other projects, followed to the last bit of a pixel.

They differ in the filter, by one pixel in the crop, and in whether the image is converted to RGB before the resize or
after it, which matters for transparent images.
"""
PILLOW_KINDS = get_args(PillowKind)

# FG-CLIP 2 limits an image to the first of these numbers of patches that is at least its own number.
_FG_CLIP_MAX_PATCHES = (128, 256, 576, 784, 1024)


class Geometry(NamedTuple):
    """How an image is resized and cropped by the preprocessing of other projects.

    resize: "shortest": the short side becomes `resized` and the centre is cropped; "squash": both sides become `size`;
        "longest": the long side becomes `size` and the rest is padded with black.
    interpolation: filter of the resize.
    resized: short side before the crop, in pixels; None: `size`.
    patch_size: side of a NaFlex patch in pixels; NaFlex does not use `size`.
    most_patches: limit of NaFlex patches; None: by FG-CLIP 2's rule.
    """

    resize: Resize = "shortest"
    interpolation: Interpolation = "bicubic"
    resized: int | None = None
    patch_size: int = 16
    most_patches: int | None = None

    def max_patches_of(self, width: int, height: int) -> int:
        """Return the limit of patches for an image of this size."""
        if self.most_patches:
            return self.most_patches
        num_patches = (width // 16) * (height // 16)
        for limit in _FG_CLIP_MAX_PATCHES:
            if num_patches <= limit:
                return limit
        return _FG_CLIP_MAX_PATCHES[-1]


def make_pillow_view(image: Image.Image, kind: PillowKind, size: int, geometry: Geometry) -> np.ndarray:
    """Resize and crop as another project does with Pillow.

    Args:
        image: as Pillow opens it, in its own mode.
        kind: "transformers": its image processors; "open_clip": OpenCLIP and Chinese-CLIP; "naflex": SigLIP 2 NaFlex.
        size: side of the result in pixels.
        geometry: how to resize and crop.

    Returns:
        `[size, size, 3]` uint8 RGB; with naflex `[H, W, 3]`, whole patches.
    """
    if kind != "open_clip":  # which converts after the resize
        image = image.convert("RGB")
    resample = Image.Resampling[geometry.interpolation.upper()]
    if kind == "naflex":
        max_patches = geometry.max_patches_of(image.width, image.height)
        sides = fit_patches(image.width, image.height, geometry.patch_size, max_patches)
        return np.asarray(image.resize(sides, resample))

    if geometry.resize == "squash":
        image = image.resize((size, size), resample)
    elif geometry.resize == "longest":
        scale = max(image.width, image.height) / size
        image = image.resize((round(image.width / scale), round(image.height / scale)), resample)
        image = _pad_to_square(image, size)
    else:
        side = geometry.resized or size
        short = min(image.width, image.height)
        image = image.resize((int(side * image.width / short), int(side * image.height / short)), resample)
        rest_x, rest_y = image.width - size, image.height - size
        if kind == "transformers":
            left, top = rest_x // 2, rest_y // 2
        else:
            left, top = round(rest_x / 2), round(rest_y / 2)  # a half is rounded to the even number
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image.convert("RGB"))


def _pad_to_square(image: Image.Image, size: int) -> Image.Image:
    padding_x, padding_y = size - image.width, size - image.height
    border = (padding_x // 2, padding_y // 2, (padding_x + 1) // 2, (padding_y + 1) // 2)
    palette = image.getpalette() if image.mode == "P" else None
    image = ImageOps.expand(image, border, fill=0)
    if palette:  # which `expand` drops
        image.putpalette(palette)
    return image


def fit_patches(width: int, height: int, patch_size: int, max_patches: int) -> tuple[int, int]:
    """Return the largest width and height of whole patches, nearly of the image's aspect, with at most `max_patches`.

    The scale is searched by bisection with the bounds and the precision of SigLIP 2's code, to reach the same size.
    """

    def count_patches(scale: float) -> tuple[int, int]:
        num_columns = max(1, math.ceil(width * scale / patch_size))
        num_rows = max(1, math.ceil(height * scale / patch_size))
        return num_columns, num_rows

    low, high, precision = 1e-6, 100.0, 1e-5
    while high - low >= precision:
        scale = (low + high) / 2
        num_columns, num_rows = count_patches(scale)
        if num_columns * num_rows <= max_patches:
            low = scale
        else:
            high = scale
    num_columns, num_rows = count_patches(low)
    return num_columns * patch_size, num_rows * patch_size


@dataclass(frozen=True)
class Preprocessing:
    """Preparation of images for one model, up to normalisation.

    The first three kinds resize the short side to `size` and crop the centre. They differ in the last pixel of the long
    side, in the interpolation and in the EXIF orientation:

    - ernie_vil2: means of blocks if the image shrinks to half or less, then bilinear, like the training views. The
      image is turned as its EXIF orientation says.
    - official: bilinear, as the code of the official release. The image is turned too. The release decodes with
      OpenCV, which gives the same pixels.
    - paddlenlp: bicubic, as PaddleNLP's ErnieViLImageProcessor. The image is not turned.
    - transformers, open_clip, naflex: as other projects, by `geometry`, see `make_pillow_view`. The image is not
      turned.

    Grey, palette and CMYK become RGB. With ernie_vil2 transparent pixels show the background; all others drop the
    transparency and show whatever colour the file stores there, usually black.

    Args:
        kind: one of these names.
        size: side of the square input in pixels.
        mean: [red, green, blue], of pixels from 0 to 1.
        std: their standard deviation.
        background: [red, green, blue] behind transparent pixels, 0 to 255; only for ernie_vil2.
        geometry: resize and crop of the last three kinds.
    """

    kind: PreprocessingKind
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    background: tuple[int, ...] = WHITE
    geometry: Geometry = field(default_factory=Geometry)

    @classmethod
    def from_config(cls, config: ImageTowerConfig) -> Preprocessing:
        """Return the preprocessing that an image tower's configuration describes."""
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
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing whose `as_dict` returned `values`."""
        geometry = {name: values[name] for name in Geometry._fields if name in values}
        return cls(
            values["kind"],
            values["size"],
            tuple(values["mean"]),
            tuple(values["std"]),
            tuple(values["background"]),
            Geometry(**geometry),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON; fields of the geometry are left out if they have their default."""
        values: dict[str, Any] = {
            "kind": self.kind,
            "size": self.size,
            "mean": self.mean,
            "std": self.std,
            "background": self.background,
        }
        defaults = Geometry()._asdict()
        for name, value in self.geometry._asdict().items():
            if value != defaults[name]:
                values[name] = value
        return values

    def __call__(self, image: ImageInput, name: str) -> np.ndarray:
        """Return the model's input before normalisation.

        Args:
            image: bytes of an image file, a Pillow image, or `[H, W, 3]` uint8 RGB.
            name: name of the image, for the error.

        Returns:
            `[size, size, 3]` uint8 RGB; with naflex `[H, W, 3]`, whole patches.

        Raises:
            BadSample: the image cannot be decoded, is too large or too narrow, or the array has another shape or type.
            TypeError: it is something else.
        """
        if not isinstance(image, bytes | Image.Image | np.ndarray):
            raise TypeError(f"{name} is a {type(image).__name__}, not a path, bytes, a Pillow image or an array")
        if isinstance(image, np.ndarray):
            check_array(image, name)
            return self.make_view(image, name)
        return self.make_view(self.decode(image, name), name)

    def plan(self, data: bytes, name: str) -> DecodingPlan:
        """Choose the scale at which an image of a query is decoded.

        Its sides remain at least `_MARGIN` times as long as after the model's resize.

        Raises:
            BadSample: the image cannot be used, see `plan_decoding`.
        """

        def minimum_sides(width: int, height: int) -> tuple[float, float]:
            short, long = self._resized_sides(width, height)
            return _MARGIN * short, _MARGIN * long

        return plan_decoding(data, name, minimum_sides)

    def _resized_sides(self, width: int, height: int) -> tuple[int, int]:
        """Return the shorter and the longer side after the resize; 0 for a side that follows from the other one."""
        if self.kind == "naflex":
            max_patches = self.geometry.max_patches_of(width, height)
            short, long = sorted(fit_patches(width, height, self.geometry.patch_size, max_patches))
            return short, long
        if self.geometry.resize == "longest":
            return 0, self.size
        # The two sides become equal (squash), or the longer one follows from the shorter one.
        return max(self.size, self.geometry.resized or 0), 0

    def decode(self, image: bytes | Image.Image, name: str, factor: int = 1) -> np.ndarray | Image.Image:
        """Decode an image to what `make_view` takes.

        Args:
            image: bytes of an image file, or a Pillow image.
            name: name of the image, for the error.
            factor: number that the sides of a JPEG file are divided by, as `plan` chooses it.

        Returns:
            `[H, W, 3]` uint8 RGB, or a Pillow image in its own mode for the kinds of other projects.

        Raises:
            BadSample: the image cannot be decoded, it has no pixels, or it is too large or too narrow.
        """
        if isinstance(image, Image.Image):
            if 0 in image.size:
                raise BadSample(Reason.BROKEN_IMAGE, f"{name} ({image.width} x {image.height} pixels)")
            check_image_size(image.width, image.height, name)
        if self.kind in PILLOW_KINDS:
            return open_with_pillow(image, name, factor) if isinstance(image, bytes) else image
        background = self.background if self.kind == "ernie_vil2" else None
        if isinstance(image, bytes):
            if self.kind == "paddlenlp":
                return decode_as_stored(image, name, factor)
            return decode_image(image, name, background, factor)
        if self.kind != "paddlenlp":
            return decode_opened_image(image, name, background)
        try:
            return convert_to_rgb(image, None)
        except Exception as error:  # Pillow's readers raise exceptions of any type
            raise BadSample(Reason.BROKEN_IMAGE, name) from error

    def make_view(self, image: np.ndarray | Image.Image, name: str = "image") -> np.ndarray:
        """Resize and crop a decoded image, or `[H, W, 3]` uint8 RGB; BadSample if Pillow fails."""
        if self.kind in PILLOW_KINDS:
            try:
                if not isinstance(image, Image.Image):
                    image = Image.fromarray(image)
                return make_pillow_view(image, cast(PillowKind, self.kind), self.size, self.geometry)
            except Exception as error:  # Pillow's readers raise exceptions of any type
                raise BadSample(Reason.BROKEN_IMAGE, name) from error
        image = np.asarray(image)
        if self.kind == "ernie_vil2":
            return make_evaluation_view(image, self.size)
        if self.kind == "official":
            return make_official_view(image, self.size)
        return make_paddlenlp_view(image, self.size)


def check_array(image: np.ndarray, name: str) -> None:
    """Raise BadSample if an array is not `[H, W, 3]` uint8 with at least one pixel, or is too large or too narrow."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise BadSample(Reason.NOT_RGB, f"{name} ({image.dtype} {list(image.shape)})")
    check_image_size(image.shape[1], image.shape[0], name)


def preprocess_ahead(
    preprocess: Callable[[Any, str], np.ndarray], images: Iterable[Any], num_ahead: int
) -> Generator[np.ndarray | BadSample, None, None]:
    """Preprocess images on threads, up to `num_ahead` of them before they are requested.

    Yields:
        For each image, in order, the result of `preprocess`, or the reason why the image cannot be used.
    """

    def attempt(row: int, image: Any) -> np.ndarray | BadSample:
        try:
            return preprocess(image, f"image {row}")
        except BadSample as bad:
            # A new error, because the traceback of the raised one keeps the image in memory.
            return BadSample(bad.reason, bad.name)

    pending: deque[Future[np.ndarray | BadSample]] = deque()
    # Every thread holds a whole decoded image, so their number is limited.
    pool = ThreadPoolExecutor(min(8, runtime.num_usable_cores()))
    try:
        for row, image in enumerate(images):
            pending.append(pool.submit(attempt, row, image))
            if len(pending) > num_ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


# Function that waits for embeddings that are being computed, and returns them, `[N, D]` float32.
PendingEmbeddings = Callable[[], np.ndarray]


def make_start_function(encode: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], PendingEmbeddings]:
    """Adapt an encoder without a queue, such as ONNX Runtime, to callers that start a batch and wait for it later.

    Args:
        encode: computes the embeddings of rows.

    Returns:
        Function that computes the embeddings of rows at once; there is nothing to wait for later.
    """

    def start(rows: np.ndarray) -> PendingEmbeddings:
        embeddings = encode(rows)
        return lambda: embeddings

    return start


def wait_in_turn(pending: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Wait for results in order, for each after the next one has been started.

    A device then always has work, and does not wait until Python has prepared the next batch. If the next one cannot be
    started, the result before it is still waited for.

    Args:
        pending: functions that wait for a result; requesting one from the iterable starts its computation.

    Yields:
        The results, in order.
    """
    newest = None
    try:
        for wait in pending:
            previous, newest = newest, wait
            if previous:
                yield previous()
        if newest:
            last, newest = newest, None
            yield last()
    finally:
        # Also after an error, here or in the caller: what waiting does besides, such as filling a cache, is not lost.
        if newest:
            newest()


def encode_batches(
    start: Callable[[list[Any]], PendingEmbeddings], rows: Iterable[Any], size: int, width: int
) -> np.ndarray:
    """Encode rows in batches of `size`; return their embeddings `[N, width]`.

    Args:
        start: starts to encode a batch; the next one is started before the result of a batch is waited for.
        rows: what to encode, such as images or texts.
        size: number of rows in a batch.
        width: width of the embeddings.
    """
    batches = split_into_batches(rows, size)
    return np.concatenate([np.empty([0, width], np.float32), *wait_in_turn(map(start, batches))])


def split_into_batches(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the rows in lists of `size`; the last one may be shorter. ValueError: `size` is not positive."""
    if size < 1:
        raise ValueError(f"batch_size is {size}; a batch has at least one row")
    remaining = iter(rows)
    while batch := list(islice(remaining, size)):
        yield batch


def start_by_shape(
    start: Callable[[np.ndarray], PendingEmbeddings], images: Sequence[np.ndarray] | np.ndarray
) -> PendingEmbeddings:
    """Start to encode images of several shapes, one shape at a time.

    Args:
        start: starts to encode images `[N, H, W, 3]` of one shape.
        images: at least one image `[H, W, 3]`.

    Returns:
        Function that waits for the embeddings, in the order of the images.
    """
    rows_by_shape: dict[tuple[int, ...], list[int]] = {}
    for row, image in enumerate(images):
        rows_by_shape.setdefault(image.shape, []).append(row)
    pending, encoded_rows = [], list[int]()
    for rows in rows_by_shape.values():
        pending.append(start(np.stack([images[row] for row in rows])))
        encoded_rows += rows

    def wait() -> np.ndarray:
        return np.concatenate([wait_for_shape() for wait_for_shape in pending])[np.argsort(encoded_rows)]

    return wait


def normalize_images(images: paddle.Tensor, mean: Sequence[float], std: Sequence[float]) -> paddle.Tensor:
    """Turn pixels `[B, H, W, 3]` uint8 into the towers' input `[B, 3, H, W]`: minus the mean, over the deviation.

    The result has Paddle's default float type, like the towers' weights.

    Args:
        images: `[B, H, W, 3]` uint8 RGB.
        mean: [red, green, blue], of pixels from 0 to 1.
        std: their standard deviation.
    """
    import paddle

    # Constants are made by NumPy: tracing for an export does not know zip(strict=...).
    scale = paddle.to_tensor((1 / (255 * np.array(std))).tolist())
    shift = paddle.to_tensor((np.array(mean) / np.array(std)).tolist())
    return (images.astype(scale.dtype) * scale - shift).transpose([0, 3, 1, 2])
