"""Random views of a training sample (ERNIE-ViL 2.0, arXiv 2209.15270, section 3.1).

Image views are resized and cropped, flipped, colour-jittered, blurred and turned grey at random. Text views are the
caption, or the object tags after a prompt.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from ernie_vil2.config import ViewsConfig
from ernie_vil2.data.decoding import WHITE, EncodedImage, resize_pixels, scale_to_short_side

if TYPE_CHECKING:
    import paddle

    from ernie_vil2.data.samples import Sample

# Brightness of red, green and blue by ITU-R BT.601, the weights that JPEG and OpenCV's COLOR_RGB2GRAY use.
LUMA = np.array([0.299, 0.587, 0.114])
_RGB_TO_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])

# `jitter_colours` adds up three matrices [3, 3]: a colour is its grey plus its chroma, and the third matrix is the
# chroma turned by 90 degrees in the plane of I and Q.
_GREY = np.tile(LUMA, (3, 1))
_CHROMA = np.eye(3) - _GREY
_QUARTER_TURN = np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]])
_TURNED_CHROMA = np.linalg.inv(_RGB_TO_YIQ) @ _QUARTER_TURN @ _RGB_TO_YIQ


class _ViewDraw(NamedTuple):
    """The random numbers of one view, uniform in [0, 1).

    All are drawn, whichever augmentations are on, so that switching one off leaves the others as they were.
    """

    top: float
    left: float
    area: float
    aspect: float
    flip: float
    jitter: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    blur: float
    sigma: float
    grayscale: float


class _Box(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def draw_image_views(
    data: bytes,
    name: str,
    num_views: int,
    size: int,
    views: ViewsConfig,
    rng: np.random.Generator,
    background: Sequence[int] = WHITE,
) -> list[np.ndarray]:
    """Draw random views of an image, in the paper's order: resize and crop, flip, jitter, blur, grayscale.

    The image is decoded once for all views, at the smallest scale that they allow. A JPEG's colour is decoded by the
    quicker way; the jagged edges of colour that it leaves are smoothed by the resize. Pixels stay uint8 throughout.

    Args:
        data: the encoded image.
        name: its name, for the error.
        num_views: number of views.
        size: side of a view in pixels.
        views: strengths and probabilities of the augmentations.
        rng: source of all random numbers.
        background: [red, green, blue] behind transparent pixels, 0 to 255.

    Returns:
        `num_views` arrays `[size, size, 3]` uint8 RGB, contiguous.

    Raises:
        BadSample: the image cannot be used, see `EncodedImage`.
    """
    image = EncodedImage(data, name, background)
    numbers = rng.random((num_views, len(_ViewDraw._fields)))
    draws = list(map(_ViewDraw._make, numbers.tolist()))
    if views.crop_area is None:
        windows = _cut_windows(image, draws, size, views.resize)
    else:
        windows = _cut_crops(image, draws, size, views.crop_area)
    return [_augment(window, draw, views) for window, draw in zip(windows, draws, strict=True)]


def _cut_windows(image: EncodedImage, draws: Sequence[_ViewDraw], size: int, short_side: int) -> Iterator[np.ndarray]:
    """Yield windows of the input size from the resized image."""
    height, width = scale_to_short_side(image.height, image.width, short_side)
    corners = np.array([_draw_corner(draw, height - size, width - size) for draw in draws])

    # Only the region that the windows cover together is resized.
    top, left = corners.min(axis=0).tolist()
    bottom, right = (corners.max(axis=0) + size).tolist()
    region = _Box(top, left, bottom - top, right - left)
    pixels = image.decode(min(image.height / height, image.width / width), fast=True)
    pixels = _crop_scaled(pixels, region, height, width)
    pixels = resize_pixels(pixels, region.width, region.height)

    for window_top, window_left in corners.tolist():
        first_row, first_column = window_top - top, window_left - left
        yield pixels[first_row : first_row + size, first_column : first_column + size]


def _cut_crops(
    image: EncodedImage, draws: Sequence[_ViewDraw], size: int, area: Sequence[float]
) -> Iterator[np.ndarray]:
    """Yield crops of random area and aspect, each resized to the input size."""
    boxes = [_draw_box(draw, image.height, image.width, area) for draw in draws]
    shortest_side = min(min(box.height, box.width) for box in boxes)
    pixels = image.decode(shortest_side / size, fast=True)
    for box in boxes:
        yield resize_pixels(_crop_scaled(pixels, box, image.height, image.width), size, size)


def _interpolate(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _draw_corner(draw: _ViewDraw, max_top: int, max_left: int) -> tuple[int, int]:
    return int(draw.top * (max_top + 1)), int(draw.left * (max_left + 1))


def _draw_box(draw: _ViewDraw, height: int, width: int, area: Sequence[float]) -> _Box:
    """Draw a crop whose share of the image's area lies within `area`."""
    share = _interpolate(area[0], area[1], draw.area)
    # Aspects of 3/4 to 4/3, uniform in their logarithm, are those of Inception's random crops (Szegedy et al. 2015).
    aspect = math.exp(_interpolate(math.log(3 / 4), math.log(4 / 3), draw.aspect))
    crop_height = min(height, max(1, round(math.sqrt(height * width * share / aspect))))
    crop_width = min(width, max(1, round(math.sqrt(height * width * share * aspect))))
    top, left = _draw_corner(draw, height - crop_height, width - crop_width)
    return _Box(top, left, crop_height, crop_width)


def _crop_scaled(pixels: np.ndarray, box: _Box, height: int, width: int) -> np.ndarray:
    """Crop a box, given in coordinates of the image at `height` and `width`, from the same image at another scale.

    The crop is rounded to whole pixels; it has at least one.
    """
    scale_y, scale_x = pixels.shape[0] / height, pixels.shape[1] / width
    # The box may round to no pixel at all, or begin behind the last one.
    top = min(round(box.top * scale_y), pixels.shape[0] - 1)
    left = min(round(box.left * scale_x), pixels.shape[1] - 1)
    crop_height = max(1, round(box.height * scale_y))
    crop_width = max(1, round(box.width * scale_x))
    return pixels[top : top + crop_height, left : left + crop_width]


def _augment(image: np.ndarray, draw: _ViewDraw, views: ViewsConfig) -> np.ndarray:
    """Flip, jitter, blur and turn a view grey, each as its draw decides."""
    if draw.flip < views.flip:
        image = cv2.flip(image, 1)

    # The paper drops the colour last. Jitter and blur do not mix colour into the luma, so dropping it first gives the
    # same result and leaves them one channel instead of three.
    is_grey = draw.grayscale < views.grayscale
    if is_grey:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)

    if draw.jitter < views.jitter:
        brightness = _draw_factor(views.brightness, draw.brightness)
        contrast = _draw_factor(views.contrast, draw.contrast)
        saturation = _draw_factor(views.saturation, draw.saturation)
        hue_turn = _interpolate(-views.hue, views.hue, draw.hue)
        image = jitter_colours(image, brightness, contrast, saturation, hue_turn)

    if draw.blur < views.blur:
        image = gaussian_blur(image, _interpolate(views.blur_sigma[0], views.blur_sigma[1], draw.sigma))

    if is_grey:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return np.ascontiguousarray(image)


def _draw_factor(strength: float, share: float) -> float:
    return _interpolate(max(0.0, 1 - strength), 1 + strength, share)


def jitter_colours(
    image: np.ndarray, brightness: float, contrast: float, saturation: float, hue_turn: float
) -> np.ndarray:
    """Change brightness, contrast, saturation and hue, in this order, by one matrix.

    All four are linear in the pixels. The hue is the angle in the plane of I and Q of YIQ colours; turning it leaves
    the luma unchanged. Many libraries turn the hue of HSV instead, which is not linear and divides the circle
    differently.

    Args:
        image: `[H, W, 3]` uint8 RGB, or `[H, W]` grey, which saturation and hue do not change.
        brightness: factor of the pixels.
        contrast: factor of the difference from the image's mean luma.
        saturation: factor of the difference from the pixel's grey.
        hue_turn: rotation of the hue, as a share of the circle.

    Returns:
        An array of the same shape, rounded and clipped once, at the end.
    """
    is_grey = image.ndim == 2
    luma = image if is_grey else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    gain = brightness * contrast
    shift = (1 - contrast) * brightness * cv2.mean(luma)[0]
    if is_grey:
        return cv2.transform(image, np.array([[gain, shift]]))

    angle = 2 * math.pi * hue_turn
    matrix = np.full((3, 4), shift)  # [RGB out, RGB in and the constant 1]
    matrix[:, :3] = gain * (
        _GREY + saturation * math.cos(angle) * _CHROMA + saturation * math.sin(angle) * _TURNED_CHROMA
    )
    return cv2.transform(image, matrix)


def gaussian_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur an image, `[H, W]` or `[H, W, 3]` uint8; `sigma`, in pixels, is a third of the kernel's radius."""
    # cv2.GaussianBlur takes twice the time, to have the same last bit on every processor.
    kernel = cv2.getGaussianKernel(2 * math.ceil(3 * sigma) + 1, sigma, cv2.CV_32F)
    return cv2.sepFilter2D(image, -1, kernel, kernel)


class ImageNormalization:
    """`preprocessing.normalize_images` for training: constants stay on the device, and one kernel does all.

    Args:
        mean: [red, green, blue], of pixels from 0 to 1.
        std: their standard deviation.
        dtype: type of the result: float32, float64, bfloat16 or float16.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], dtype: str):
        import paddle

        self._dtype = getattr(paddle, dtype)
        # Batch norm takes its statistics in float32, also for pixels of 16 bits.
        statistics_dtype = paddle.float64 if dtype == "float64" else paddle.float32
        self._mean = paddle.to_tensor(255 * np.array(mean), statistics_dtype)
        self._variance = paddle.to_tensor((255 * np.array(std)) ** 2, statistics_dtype)
        self._weight = paddle.to_tensor(np.ones(3), statistics_dtype)
        self._bias = paddle.to_tensor(np.zeros(3), statistics_dtype)

    def __call__(self, images: paddle.Tensor) -> paddle.Tensor:
        """Normalise `[B, H, W, 3]` uint8 to `[B, 3, H, W]`."""
        import paddle
        from paddle.nn import functional as F

        # Whole numbers up to 255 are exact in every type, so that only the result is rounded.
        pixels = images.transpose([0, 3, 1, 2]).astype(self._dtype)
        with paddle.amp.auto_cast(enable=False):
            return F.batch_norm(pixels, self._mean, self._variance, self._weight, self._bias, epsilon=0.0)


def format_tags(tags: Sequence[str], language: str, views: ViewsConfig) -> str:
    """Return object tags as a sentence, such as "The picture contains red car, tree"."""
    return views.prompts[language] + views.separators[language].join(tags)


def draw_texts(sample: Sample, views: ViewsConfig, rng: np.random.Generator) -> tuple[str, str]:
    """Draw the texts of the views `text_1` and `text_2` of a sample.

    A language is drawn by its weight, then caption or tags by `tag_probability`. A sample without tags gives its
    caption, or one of the caption's lines with `caption_lines`. Both views have the same text, which the dropout of
    the text tower encodes in two ways, unless the sample has a `long_caption` in this language: then one of them has
    the long caption, `text_1` with the probability `long_first`.

    Raises:
        BadSample: the caption is drawn, also by a sample without tags, and the sample has none in the language.
    """
    # `rng.choice` draws the same language, and takes a dozen times as long.
    cumulative = list(itertools.accumulate(views.languages.values()))
    ends = [weight / cumulative[-1] for weight in cumulative]
    language = list(views.languages)[bisect_right(ends, rng.random())]
    text = _draw_short_text(sample, language, views, rng)

    long_text = sample.long_caption(views.long_caption, language) if views.long_caption else None
    if long_text is None:
        return text, text
    if rng.random() < views.long_first:
        return long_text, text
    return text, long_text


def _draw_short_text(sample: Sample, language: str, views: ViewsConfig, rng: np.random.Generator) -> str:
    # Drawn also for a sample without tags, so that the draws that follow do not depend on its tags.
    use_tags = rng.random() < views.tag_probability
    tags = sample.tag_list(language)
    if use_tags and tags:
        order = rng.permutation(len(tags)) if views.shuffle_tags else range(len(tags))
        return format_tags([tags[position] for position in order], language, views)
    if not views.caption_lines:
        return sample.caption(language)
    lines = sample.caption_lines(language)
    return lines[rng.integers(len(lines))]
