"""Image views: resize and crop, flip, colour jitter, blur, grayscale (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ernie_vil2.config import ViewsConfig

if TYPE_CHECKING:
    import paddle

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


def _resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    shrinks = width * height < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _resize_short_side(image: np.ndarray, side: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = side / min(height, width)
    return _resize(image, max(side, round(width * scale)), max(side, round(height * scale)))


def evaluation_view(image: np.ndarray, size: int) -> np.ndarray:
    """The view that is scored: short side to `size`, centre crop.

    Args:
        image: `[H, W, 3]` uint8 RGB.
        size: side of the result in pixels.

    Returns:
        `[size, size, 3]` uint8.
    """
    image = _resize_short_side(image, size)
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def _crop_of_area(image: np.ndarray, area: list[float], rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    share = rng.uniform(*area)
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    crop_width = min(width, max(1, round(np.sqrt(height * width * share * aspect))))
    crop_height = min(height, max(1, round(np.sqrt(height * width * share / aspect))))
    return _crop(image, crop_height, crop_width, rng)


def _crop(image: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    top = rng.integers(image.shape[0] - height + 1)
    left = rng.integers(image.shape[1] - width + 1)
    return image[top : top + height, left : left + width]


def _jitter(image: np.ndarray, views: ViewsConfig, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation are linear in the pixels: one 3x4 matrix; then the hue."""
    brightness, contrast, saturation = (
        rng.uniform(max(0.0, 1 - strength), 1 + strength)
        for strength in (views.brightness, views.contrast, views.saturation)
    )
    turn = rng.uniform(-views.hue, views.hue)
    mean_luma = brightness * float(cv2.mean(image)[:3] @ LUMA)
    colour = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * LUMA[None, :]
    shift = np.full([3, 1], (1 - contrast) * mean_luma, dtype=np.float32)
    image = cv2.transform(image, np.hstack([brightness * contrast * colour, shift]))
    if views.hue:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        # OpenCV keeps the hue of uint8 images in half degrees, 0 to 179.
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + round(180 * turn)) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return image


def augmented_view(image: np.ndarray, size: int, views: ViewsConfig, rng: np.random.Generator) -> np.ndarray:
    """A random view for training, in the paper's order: resize and crop, flip, jitter, blur, grayscale.

    Args:
        image: `[H, W, 3]` uint8 RGB.
        size: side of the result in pixels.
        views: strengths and probabilities.
        rng: decides everything that is random here.

    Returns:
        `[size, size, 3]` uint8, contiguous.
    """
    if views.crop_area is not None:
        image = _resize(_crop_of_area(image, views.crop_area, rng), size, size)
    else:
        image = _crop(_resize_short_side(image, views.resize), size, size, rng)
    if rng.random() < views.flip:
        image = image[:, ::-1]
    image = np.ascontiguousarray(image)
    if rng.random() < views.jitter:
        image = _jitter(image, views, rng)
    if rng.random() < views.blur:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(*views.blur_sigma))
    if rng.random() < views.grayscale:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return image


def normalize_images(images: paddle.Tensor, mean: Sequence[float], std: Sequence[float]) -> paddle.Tensor:
    """What the towers take: `[B, H, W, 3]` uint8 to `[B, 3, H, W]` float32, less the mean, over the deviation.

    Args:
        mean: [red, green, blue], of pixels from 0 to 1.
        std: their standard deviation.
    """
    import paddle

    scale = paddle.to_tensor([1 / (255 * deviation) for deviation in std], dtype="float32")
    shift = paddle.to_tensor(
        [average / deviation for average, deviation in zip(mean, std, strict=True)], dtype="float32"
    )
    return (images.astype("float32") * scale - shift).transpose([0, 3, 1, 2])
