"""A ViT for images of any shape, whose position embedding is resized to each (SigLIP 2 NaFlex, FG-CLIP 2)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import paddle
from paddle.nn import functional as F

from ernie_vil2.models.towers.encoders import VisionTransformer

Size = int | paddle.Tensor
"""A number of patches, which a traced graph has as a tensor."""


class NaFlexTransformer(VisionTransformer):
    """`[B, 3, H, W]` images, H and W of whole patches, to `[B, width]` (Tschannen et al. 2025, arXiv 2502.14786).

    Images of one batch have one shape: the authors pad images of several shapes to one number of patches, and mask the
    padding wherever it could be seen, so that an image's features are the same by itself.

    Args:
        image_size: side in pixels of the square whose patches have the learned positions; the other arguments are those
            of `VisionTransformer`. There is no class token.

    Raises:
        ValueError: sizes that do not divide each other.
    """

    @paddle.jit.not_to_static
    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        check_patches(images.shape[2], images.shape[3], self.patch_size)
        return self.encode(self.embed(images) + self.positions(*self.grid(images)))

    def positions(self, rows: Size, columns: Size) -> paddle.Tensor:
        """The position embedding for a grid of patches, `[1, rows * columns, width]`."""
        side = self.image_size // self.patch_size
        grid = self.pos_embed.reshape([side, side * self.width])
        grid = paddle.matmul(_tensor(rows, side, grid), grid).reshape([rows, side, self.width])
        return paddle.matmul(_tensor(columns, side, grid), grid).reshape([1, -1, self.width])


def _tensor(size: Size, side: int, like: paddle.Tensor) -> paddle.Tensor:
    if isinstance(size, int):
        return paddle.to_tensor(resizing(size, side), dtype=like.dtype, place=like.place)
    scale = side / size.astype(like.dtype)
    centres = scale * (paddle.cumsum(paddle.ones([size], like.dtype)) - 0.5)
    cells = paddle.to_tensor(np.arange(side) + 0.5, dtype=like.dtype)
    weights = F.relu(1 - paddle.abs((cells - centres.unsqueeze(1)) / paddle.clip(scale, min=1.0)))
    return weights / weights.sum(axis=1, keepdim=True)


@lru_cache(maxsize=256)
def resizing(size: int, side: int) -> np.ndarray:
    """The matrix `[size, side]` by which `side` values in a row become `size`: bilinear, with antialiasing where they
    become fewer, as PyTorch's `interpolate` and Pillow have it."""
    scale = side / size
    reach = max(scale, 1.0)
    matrix = np.zeros([size, side])
    for row in range(size):
        centre = scale * (row + 0.5)
        first, last = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), side)
        weights = np.maximum(0, 1 - np.abs((np.arange(first, last) - centre + 0.5) / reach))
        matrix[row, first:last] = weights / weights.sum()
    return matrix


@paddle.jit.not_to_static
def check_patches(height: int, width: int, patch_size: int) -> None:
    """ValueError if an image is not of whole patches; a traced graph has -1 for a size that it does not know."""
    if paddle.in_dynamic_mode() and (height % patch_size or width % patch_size):
        raise ValueError(f"images of {height} x {width} pixels; this tower takes multiples of {patch_size}")
