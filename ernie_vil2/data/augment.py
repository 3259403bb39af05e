"""The views of a training sample (paper, section 3.1).

Of its image: resize and crop, flip, colour jitter, blur, grayscale. Of its texts: the caption, or the object tags
behind a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from ernie_vil2.config import ViewsConfig
from ernie_vil2.data.decoding import WHITE, EncodedImage, resized, with_short_side

if TYPE_CHECKING:
    import paddle

    from ernie_vil2.data.samples import Sample

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_TO_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
# A colour is its grey and what is left; hue turns the latter, saturation scales it.
_GREY = np.tile(LUMA, (3, 1))
_CHROMA = np.eye(3) - _GREY
_CHROMA_TURNED = np.linalg.inv(_TO_YIQ) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ _TO_YIQ  # by a quarter


def training_views(
    data: bytes,
    name: str,
    count: int,
    size: int,
    views: ViewsConfig,
    rng: np.random.Generator,
    background: Sequence[int] = WHITE,
) -> list[np.ndarray]:
    """Random views for training, in the paper's order: resize and crop, flip, jitter, blur, grayscale.

    The image is decoded once, as small as the views allow, and the colour of a JPEG by the quicker way, whose jagged
    edges of colour the resize takes back; everything happens in uint8.

    Args:
        data: the encoded image.
        name: its name, for the error.
        count: number of views.
        size: side of a view in pixels.
        views: strengths and probabilities.
        rng: decides everything that is random here.
        background: [red, green, blue] behind transparent pixels, 0 to 255.

    Returns:
        `count` arrays `[size, size, 3]` uint8 RGB, contiguous.

    Raises:
        BadSample: the image cannot be used, see `EncodedImage`.
    """
    image = EncodedImage(data, name, background)
    draws = [_Draws(*numbers) for numbers in rng.random((count, len(_Draws._fields))).tolist()]
    windows = (
        _windows(image, draws, size, views.resize)
        if views.crop_area is None
        else _crops(image, draws, size, views.crop_area)
    )
    return [_augmented(window, drawn, views) for window, drawn in zip(windows, draws, strict=True)]


class _Draws(NamedTuple):
    """Numbers from 0 to 1 that decide a view, all drawn at once whatever is switched on."""

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


def _between(low: float, high: float, drawn: float) -> float:
    return low + (high - low) * drawn


def _corner(drawn: _Draws, height: int, width: int) -> tuple[int, int]:
    """Top and left of a window, as far down and to the right as it may go."""
    return int(drawn.top * (height + 1)), int(drawn.left * (width + 1))


def _windows(image: EncodedImage, draws: Sequence[_Draws], size: int, short_side: int) -> Iterator[np.ndarray]:
    """Windows of the input size from the resized image, of which only what they cover together is made."""
    height, width = with_short_side(image.height, image.width, short_side)
    corners = np.array([_corner(drawn, height - size, width - size) for drawn in draws])
    first = corners.min(axis=0)
    extent = corners.max(axis=0) + size - first
    pixels = image.decode(min(image.height / height, image.width / width), fast=True)
    pixels = resized(_part(pixels, first.tolist(), extent.tolist(), (height, width)), *extent[::-1].tolist())
    for top, left in (corners - first).tolist():
        yield pixels[top : top + size, left : left + size]


def _crops(image: EncodedImage, draws: Sequence[_Draws], size: int, area: Sequence[float]) -> Iterator[np.ndarray]:
    """Crops of random area and aspect, each resized to the input size."""
    boxes = [_box(image.height, image.width, area, drawn) for drawn in draws]
    pixels = image.decode(min(min(extent) for _, extent in boxes) / size, fast=True)
    for corner, extent in boxes:
        yield resized(_part(pixels, corner, extent, (image.height, image.width)), size, size)


def _box(height: int, width: int, area: Sequence[float], drawn: _Draws) -> tuple[tuple[int, int], tuple[int, int]]:
    """A crop's corner, top and left, and its height and width."""
    share = _between(area[0], area[1], drawn.area)
    aspect = math.exp(_between(math.log(3 / 4), math.log(4 / 3), drawn.aspect))
    crop_height = min(height, max(1, round(math.sqrt(height * width * share / aspect))))
    crop_width = min(width, max(1, round(math.sqrt(height * width * share * aspect))))
    return _corner(drawn, height - crop_height, width - crop_width), (crop_height, crop_width)


def _part(pixels: np.ndarray, corner: Sequence[int], extent: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """What a box in an image of this height and width covers of the same image in other pixels, to the nearest one."""
    (top, left), (height, width) = (
        [round(value * (have / size)) for value, have, size in zip(values, pixels.shape, shape, strict=False)]
        for values in (corner, extent)
    )
    # A box may be less than a pixel, and beyond the last one's centre.
    top, left = min(top, pixels.shape[0] - 1), min(left, pixels.shape[1] - 1)
    return pixels[top : top + max(1, height), left : left + max(1, width)]


def _augmented(image: np.ndarray, drawn: _Draws, views: ViewsConfig) -> np.ndarray:
    if drawn.flip < views.flip:
        image = cv2.flip(image, 1)
    grayscale = drawn.grayscale < views.grayscale
    if grayscale:
        # Neither jitter nor blur brings colour into the luma: dropped first, it leaves one channel to do.
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if drawn.jitter < views.jitter:
        brightness, contrast, saturation = (
            _between(max(0.0, 1 - strength), 1 + strength, share)
            for strength, share in (
                (views.brightness, drawn.brightness),
                (views.contrast, drawn.contrast),
                (views.saturation, drawn.saturation),
            )
        )
        image = jitter_colours(image, brightness, contrast, saturation, _between(-views.hue, views.hue, drawn.hue))
    if drawn.blur < views.blur:
        image = gaussian_blur(image, _between(views.blur_sigma[0], views.blur_sigma[1], drawn.sigma))
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if grayscale else np.ascontiguousarray(image)


def jitter_colours(image: np.ndarray, brightness: float, contrast: float, saturation: float, turn: float) -> np.ndarray:
    """Brightness, contrast, saturation and hue, in this order: all linear in the pixels, so that one matrix does it.

    Hue is the angle in the plane of I and Q of the YIQ colours, whose rotation leaves the luma as it is. (The hue of
    HSV, which many libraries turn, divides the circle in another way, and its rotation is not linear.)

    Args:
        image: `[H, W, 3]` uint8 RGB, or `[H, W]` grey, for which saturation and hue mean nothing.
        brightness, contrast, saturation: factors; contrast is about the mean luma of the image.
        turn: rotation of the hue as a share of the circle.

    Returns:
        as `image`, rounded and clipped once, at the end.
    """
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    gain = brightness * contrast
    shift = (1 - contrast) * brightness * cv2.mean(grey)[0]
    if image is grey:
        return cv2.transform(image, np.array([[gain, shift]]))
    angle = 2 * math.pi * turn
    matrix = np.full((3, 4), shift)
    matrix[:, :3] = gain * (
        _GREY + saturation * math.cos(angle) * _CHROMA + saturation * math.sin(angle) * _CHROMA_TURNED
    )
    return cv2.transform(image, matrix)


def gaussian_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """`[H, W]` or `[H, W, 3]` uint8, blurred; the deviation is in pixels, the kernel ends at three deviations."""
    # OpenCV's own GaussianBlur takes twice the time to have the same last bit on every processor.
    kernel = cv2.getGaussianKernel(2 * math.ceil(3 * sigma) + 1, sigma, cv2.CV_32F)
    return cv2.sepFilter2D(image, -1, kernel, kernel)


class ImageNormalization:
    """`normalize_images` of preprocessing with what it needs already on the device, in one pass in the towers' type.

    Args:
        mean, std: as for `normalize_images`.
        dtype: of the result: float32, float64, bfloat16 or float16.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], dtype: str):
        import paddle

        self._dtype = getattr(paddle, dtype)
        wide = paddle.float64 if dtype == "float64" else paddle.float32
        self._mean, self._variance, self._one, self._zero = (
            paddle.to_tensor(channels, wide)
            for channels in (255 * np.array(mean), (255 * np.array(std)) ** 2, np.ones(3), np.zeros(3))
        )

    def __call__(self, images: paddle.Tensor) -> paddle.Tensor:
        """`[B, H, W, 3]` uint8 to `[B, 3, H, W]`."""
        import paddle
        from paddle.nn import functional as F

        # Whole numbers up to 255 are exact in every type, and what follows is rounded once.
        pixels = images.transpose([0, 3, 1, 2]).astype(self._dtype)
        with paddle.amp.auto_cast(enable=False):
            return F.batch_norm(pixels, self._mean, self._variance, self._one, self._zero, epsilon=0.0)


def tags_text(tags: Sequence[str], language: str, views: ViewsConfig) -> str:
    """Object tags as a sentence: prompt, then the tags, as in "The picture contains red car, tree"."""
    return views.prompts[language] + views.separators[language].join(tags)


def draw_texts(sample: Sample, views: ViewsConfig, rng: np.random.Generator) -> tuple[str, str]:
    """The texts that describe the sample in this step: that of the view `text_1`, and that of `text_2`.

    A language is drawn by its weight, then caption or tags by `tag_probability`; a sample without
    tags gives its caption, or one of the lines of it where these are `caption_lines`. The other text is the same one,
    of which the dropout of the text tower makes two views, or the sample's `long_caption` in that language.

    Raises:
        BadSample: the sample has neither tags nor caption in the language.
    """
    languages = list(views.languages)
    weights = np.array(list(views.languages.values()))
    language = languages[rng.choice(len(languages), p=weights / weights.sum())]
    text = _short_text(sample, language, views, rng)
    long = sample.long_caption(views.long_caption, language) if views.long_caption else None
    if long is None:
        return text, text
    return (long, text) if rng.random() < views.long_first else (text, long)


def _short_text(sample: Sample, language: str, views: ViewsConfig, rng: np.random.Generator) -> str:
    use_tags = rng.random() < views.tag_probability
    tags = sample.tag_list(language)
    if use_tags and tags:
        order = rng.permutation(len(tags)) if views.shuffle_tags else range(len(tags))
        return tags_text([tags[i] for i in order], language, views)
    if not views.caption_lines:
        return sample.caption(language)
    lines = sample.caption_lines(language)
    return lines[rng.integers(len(lines))]
