"""Position embeddings of images, resized from one grid of patches to another."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import paddle
from paddle.nn import functional as F

# End of the names of position embeddings of images.
IMAGE_POSITIONS = "pos_embed"


def find_grids(num_tokens: int, new_num_tokens: int) -> tuple[int, int, int] | None:
    """Return the number of class tokens and the sides of two square grids of patches; None if they are not square."""
    for num_class_tokens in (1, 0, 2):  # 2: DeiT's class and distillation token
        if min(num_tokens, new_num_tokens) <= num_class_tokens:
            continue  # no patches
        side, new_side = math.isqrt(num_tokens - num_class_tokens), math.isqrt(new_num_tokens - num_class_tokens)
        if side**2 + num_class_tokens == num_tokens and new_side**2 + num_class_tokens == new_num_tokens:
            return num_class_tokens, side, new_side
    return None


def resize_positions(
    array: np.ndarray, num_tokens: int, mode: Literal["bicubic", "bilinear"] = "bicubic"
) -> np.ndarray:
    """Resize a square grid of positions `[1, tokens, width]` to another number of tokens.

    Rows of class tokens stay. An array of anything but the numbers of one square grid is returned as it is.
    """
    grids = find_grids(array.shape[1], num_tokens)
    if grids is None or len(array) != 1 or array.dtype.kind != "f":
        return array
    num_class_tokens, side, new_side = grids
    grid = array[:, num_class_tokens:].reshape(1, side, side, -1).transpose(0, 3, 1, 2)  # [1, width, h, w]
    resized = F.interpolate(paddle.to_tensor(grid), size=[new_side, new_side], mode=mode, align_corners=False)
    patches = resized.numpy().transpose(0, 2, 3, 1).reshape(1, new_side * new_side, -1)
    return np.concatenate([array[:, :num_class_tokens], patches], axis=1)


def fit_positions(
    arrays: Mapping[str, np.ndarray],
    shapes: Mapping[str, Sequence[int]],
    mode: Literal["bicubic", "bilinear"] = "bicubic",
) -> dict[str, np.ndarray]:
    """Return the arrays with the position embeddings of images resized to other shapes; the others as they are.

    Args:
        arrays: arrays by the name of a parameter.
        shapes: shapes of the parameters.
        mode: interpolation.
    """
    fitted = dict(arrays)
    for name, array in arrays.items():
        shape = shapes.get(name)
        if name.endswith(IMAGE_POSITIONS) and shape is not None and array.ndim == 3 and array.shape != tuple(shape):
            fitted[name] = resize_positions(array, shape[1], mode)
    return fitted
