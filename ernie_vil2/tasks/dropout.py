"""Dropout that depends on a row's place in the global batch and on nothing else of how the step is computed.

Dropout is the augmentation of texts here (paper, section 3), so its masks belong to the objective. They are a function
of seed, step, view, the row's place in the global batch, the number of the draw within its tower's forward, and the
place of the element within the row. Ranks, micro batches, their order, padding and recomputation do not change them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import paddle
from paddle import nn
from paddle.autograd import PyLayer
from paddle.nn import functional as F

from ernie_vil2.config.view_names import VIEWS, VIEWS_OF

# Odd multipliers of the finalisers of MurmurHash3, as int32, and of SplitMix64.
_MULTIPLY_1, _MULTIPLY_2 = 0x85EBCA6B - 2**32, 0xC2B2AE35 - 2**32
_WEYL, _MIX_1, _MIX_2 = (np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class Place(NamedTuple):
    """Where in a tower's forward its random draws have arrived.

    rows: uint64 `[R]`, a hash of seed, step, view and place of each row that the tower sees.
    draws: draws that have been made.
    """

    rows: np.ndarray
    draws: int


class PlacedDropout:
    """Makes the random draws of a dual encoder's towers, row by row.

    While `rows` or `replay` is in force, `paddle.nn.functional.dropout` and `paddle.rand`, from which all layers of
    PaddleNLP's and PaddleClas's towers draw (dropout of states and of attention weights, stochastic depth), are this
    object's. Paddle's own random state is neither read nor moved.

    Args:
        model: the dual encoder, with towers `image` and `text`.
        seed: the run's.

    Raises:
        ValueError: a layer of the model draws in another way.
    """

    def __init__(self, model: nn.Layer, seed: int):
        others = nn.Dropout2D | nn.Dropout3D | nn.AlphaDropout | nn.RReLU
        for name, layer in model.named_sublayers():
            if isinstance(layer, others):
                raise ValueError(f"{name} is a {type(layer).__name__}, whose random draws cannot be placed by row")
        self.seed = seed
        self._tower_rows: dict[str, np.ndarray] = {}
        self._rows, self._draws = np.empty(0, np.uint64), 0
        for tower in VIEWS_OF:
            getattr(model, tower).register_forward_pre_hook(lambda layer, inputs, tower=tower: self._enter(tower))

    @contextmanager
    def rows(self, step: int, views: Collection[str], places: np.ndarray) -> Iterator[None]:
        """For a forward of the dual encoder over `views`.

        Args:
            step: number of the optimiser step.
            views: names of the views that are encoded.
            places: int64 `[b]`, the place of each row in the global batch.
        """
        for tower, own in VIEWS_OF.items():
            keys = [_row_keys(self.seed, step, VIEWS.index(view), places) for view in own if view in views]
            self._tower_rows[tower] = np.concatenate([np.empty(0, np.uint64), *keys])
        with self._drawing():
            yield

    @property
    def place(self) -> Place:
        """The place of the next draw, for `replay`."""
        return Place(self._rows, self._draws)

    @contextmanager
    def replay(self, place: Place) -> Iterator[None]:
        """Draws again what was drawn from `place` on; afterwards goes on where it was."""
        before = self.place
        self._rows, self._draws = place
        try:
            with self._drawing():
                yield
        finally:
            self._rows, self._draws = before

    def _enter(self, tower: str) -> None:
        self._rows, self._draws = self._tower_rows.get(tower, self._rows), 0

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        before = F.dropout, paddle.rand
        F.dropout, paddle.rand = self._dropout, self._rand
        try:
            yield
        finally:
            F.dropout, paddle.rand = before

    def _dropout(self, x, p=0.5, axis=None, training=True, mode="upscale_in_train", inplace=False, name=None):
        upscale = mode == "upscale_in_train"
        if not training or p == 0:
            return x if upscale or training else x * (1 - p)
        if p == 1:
            return x * 0.0
        axes = range(x.ndim) if axis is None else np.atleast_1d(axis).tolist()
        bits = self._draw([size if dimension in axes else 1 for dimension, size in enumerate(x.shape)])
        # As signed numbers the bits are uniform from -2^31 on.
        kept = bits >= round(p * 2**32) - 2**31
        return _Mask.apply(x, kept, 1 / (1 - p) if upscale else 1.0)

    def _rand(self, shape, dtype=None, name=None):
        bits = self._draw(list(shape))
        # 24 bits: what float32 holds without rounding up to 1.
        return _shift(bits, 8).astype(dtype or paddle.get_default_dtype()) * 2.0**-24

    def _draw(self, shape: Sequence[int]) -> paddle.Tensor:
        """int32 of `shape`, all values equally probable; the rows of the tower lie along the first axis."""
        count = len(self._rows)
        first, *rest = shape
        if not count or first % count:
            raise ValueError(
                f"a random draw of shape {list(shape)} in a tower that sees {count} rows: "
                "only draws with the rows, or equal parts of them, along the first axis can be placed"
            )
        keys = _fold(self._rows, self._draws)
        self._draws += 1
        low, high = (
            paddle.to_tensor(half.astype(np.uint32).view(np.int32)).reshape([count] + [1] * (1 + len(rest)))
            for half in (keys, keys >> np.uint64(32))
        )
        bits = (_coordinates(first // count, *rest) ^ low) * _MULTIPLY_1
        bits = ((bits ^ _shift(bits, 15)) + high) * _MULTIPLY_2
        return bits.reshape(list(shape))


class _Mask(PyLayer):
    """`x` times a mask of which one byte an element is kept for backward."""

    @staticmethod
    def forward(ctx, x, kept, scale):
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return x * (kept.astype(x.dtype) * scale)

    @staticmethod
    def backward(ctx, gradient):
        (kept,) = ctx.saved_tensor()
        return gradient * (kept.astype(gradient.dtype) * ctx.scale)


def _row_keys(seed: int, step: int, view: int, places: np.ndarray) -> np.ndarray:
    key = np.zeros(1, np.uint64)
    for part in (seed, step, view, places):
        key = _fold(key, part)
    return key


def _fold(key: np.ndarray, part: int | np.ndarray) -> np.ndarray:
    """A new uint64 key of a key and of one number more: a step of SplitMix64 (Steele et al. 2014)."""
    x = key + _WEYL * (np.atleast_1d(part).astype(np.uint64) + np.uint64(1))
    x = (x ^ x >> np.uint64(30)) * _MIX_1
    x = (x ^ x >> np.uint64(27)) * _MIX_2
    return x ^ x >> np.uint64(31)


@lru_cache(maxsize=64)
def _coordinates(*shape: int) -> paddle.Tensor:
    """int32 `[1, *shape]`, a hash of every element's coordinates; the sizes of the axes do not enter it."""
    key = np.zeros(1, np.uint64)
    for size in shape:
        key = _fold(key[..., None], np.arange(size))
    return paddle.to_tensor((key >> np.uint64(32)).astype(np.uint32).view(np.int32))


def _shift(bits: paddle.Tensor, by: int) -> paddle.Tensor:
    return paddle.bitwise_right_shift(bits, paddle.to_tensor(by, dtype="int32"), is_arithmetic=False)
