"""Rotary positions in two dimensions (Su et al. 2021, arXiv 2104.09864), as in PE-Core and EVA-02.

The numbers of a query or key are taken in pairs of neighbours. Attention rotates each pair by an angle: the position of
the patch times the pair's frequency. The product of a query and a key then depends on how far apart their patches are.
One half of a head is rotated by the row of the patch, the other half by its column.
"""

import numpy as np
import paddle

from ernie_vil2.towers.base import Rotary

BASE = 10_000  # ratio of the highest frequency to the one that would follow the lowest; of the paper and all models


def compute_rope(side: int, head_width: int, rotary: Rotary, has_class_token: bool) -> np.ndarray:
    """Return the cosines and sines that rotate the tokens of an image, `[2, T, head_width]` in float32.

    Args:
        side: rows of patches, and columns.
        head_width: width of a head, a multiple of 4.
        rotary: how positions are counted.
        has_class_token: whether a token that is not rotated goes before the patches, so that T = side^2 + 1.
    """
    positions = np.arange(side) + float(rotary.start)
    if rotary.grid is not None:
        positions = positions / side * rotary.grid
    num_frequencies = head_width // 4
    frequencies = BASE ** (-np.arange(num_frequencies) / num_frequencies)
    # Each angle serves the two numbers of a pair.
    angles = np.repeat(positions[:, None] * frequencies, 2, axis=1)  # [side, head_width / 2]

    # Patches go row by row.
    by_row = np.repeat(angles, side, axis=0)
    by_column = np.tile(angles, [side, 1])
    halves = [by_column, by_row] if rotary.first_half == "columns" else [by_row, by_column]
    angles = np.concatenate(halves, axis=1)
    if has_class_token:
        angles = np.concatenate([np.zeros([1, head_width]), angles])
    return np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def apply_rope(x: paddle.Tensor, rope: paddle.Tensor) -> paddle.Tensor:
    """Rotate the pairs of queries or keys `[B, heads, T, d]`.

    Args:
        x: queries or keys.
        rope: result of `compute_rope`, the same for all rows, or that of `kept_tokens.gather_rope`.
    """
    pairs = x.reshape([0, 0, 0, -1, 2])
    rotated = paddle.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).flatten(3)
    # Under mixed precision the product with float32 is float32; attention needs the type of the values.
    return (x * rope[0] + rotated * rope[1]).astype(x.dtype)
