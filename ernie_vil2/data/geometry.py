"""The three ways from an image's pixels to a model's square input."""

from __future__ import annotations

import math

import cv2
import numpy as np
from PIL import Image


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Means of blocks of 1, 2, 4, ... pixels, then bilinear for the factor below two that is left.

    There, two neighbours in each direction are as many as the mean over the area would take, and it would take
    eight times as long.
    """
    rows, columns = (_power_of_two(old // new) for old, new in zip(image.shape, (height, width), strict=False))
    if rows * columns > 1:
        small = (image.shape[1] // columns, image.shape[0] // rows)
        # Means are quick where the blocks cover the image exactly: what is over is left out, half on either side.
        top, left = image.shape[0] % rows // 2, image.shape[1] % columns // 2
        image = image[top : top + small[1] * rows, left : left + small[0] * columns]
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _power_of_two(limit: int) -> int:
    """The largest one that is not above the limit; 1 for less."""
    return 1 << max(0, limit.bit_length() - 1)


def with_short_side(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of the same aspect whose smaller is `side`."""
    scale = side / min(height, width)
    return max(side, round(height * scale)), max(side, round(width * scale))


def evaluation_view(image: np.ndarray, size: int) -> np.ndarray:
    """The view that is scored: short side to `size`, centre crop.

    Args:
        image: `[H, W, 3]` uint8 RGB.
        size: side of the result in pixels.

    Returns:
        `[size, size, 3]` uint8.
    """
    height, width = with_short_side(*image.shape[:2], size)
    image = resized(image, width, height)
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
