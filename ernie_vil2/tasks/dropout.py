"""Dropout that depends on a row's position in the global batch and on nothing else of how the step is computed.

Dropout is the augmentation of texts here (paper, section 3), so its masks belong to the objective. They are a function
of seed, step, view, the row's position in the global batch, the number of the draw within its tower's forward, and the
position of the element within the row. Ranks, micro batches, their order, padding and recomputation do not change them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import nn
from paddle.autograd import PyLayer
from paddle.nn import functional as F

from ernie_vil2.config.sections import VIEWS, VIEWS_OF
from ernie_vil2.device.cpu_kernels import broadcast, keep

# Odd multipliers of the finalisers of MurmurHash3, as int32, and of SplitMix64.
_MULTIPLY_1, _MULTIPLY_2 = 0x85EBCA6B - 2**32, 0xC2B2AE35 - 2**32
_WEYL, _MIX_1, _MIX_2 = map(np.uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_DRAWS_AT_ONCE = 64


class DropoutState(NamedTuple):
    """Where in a tower's forward its random draws have arrived.

    keys: of its rows' draws; None outside of a tower.
    draws: draws that have been made.
    """

    keys: DrawKeys | None
    draws: int


class CounterBasedDropout:
    """Makes the random draws of a dual encoder's towers, row by row.

    While `rows` or `replay` is in force, `paddle.nn.functional.dropout` and `paddle.rand`, from which all layers of
    PaddleNLP's and PaddleClas's towers draw (dropout of states and of attention weights, stochastic depth), are this
    object's. Paddle's own random state is neither read nor moved. `paddle.to_tensor` of a number, by which stochastic
    depth of PaddleClas makes its rate, fills a tensor on the device instead of sending one there.

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
                raise ValueError(f"{name} is a {type(layer).__name__}, whose random draws cannot be counted by row")
        self.seed = seed
        self._tower_keys: dict[str, DrawKeys | None] = {}
        self._state = DropoutState(None, 0)
        for tower in VIEWS_OF:
            getattr(model, tower).register_forward_pre_hook(lambda layer, inputs, tower=tower: self._enter(tower))

    def keys(self, step: int, views: Collection[str], positions: np.ndarray) -> dict[str, np.ndarray]:
        """The keys of a step's rows, for `rows`: all that the device needs for its dropout.

        Returns:
            By view int64 `[b]`, a hash of seed, step, view and the row's position in the global batch.
        """
        return {
            view: _row_keys(self.seed, step, number, positions).view(np.int64)
            for number, view in enumerate(VIEWS)
            if view in views
        }

    @contextmanager
    def rows(self, keys: Mapping[str, paddle.Tensor]) -> Iterator[None]:
        """For a forward of the dual encoder over the views and rows that `keys` are of."""
        for tower, own in VIEWS_OF.items():
            found = [keys[view] for view in own if view in keys]
            self._tower_keys[tower] = DrawKeys(paddle.concat(found)) if found else None
        with self._drawing():
            yield

    @property
    def state(self) -> DropoutState:
        """The state before the next draw, for `replay`."""
        return self._state

    @contextmanager
    def replay(self, state: DropoutState) -> Iterator[None]:
        """Draws again what was drawn from `state` on; afterwards goes on where it was."""
        before, self._state = self._state, state
        try:
            with self._drawing():
                yield
        finally:
            self._state = before

    def _enter(self, tower: str) -> None:
        self._state = DropoutState(self._tower_keys.get(tower), 0)

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        before = F.dropout, paddle.rand, paddle.to_tensor
        ours: Any = self._dropout, self._rand, partial(_filled, before[2])  # not every way to call Paddle's
        F.dropout, paddle.rand, paddle.to_tensor = ours
        try:
            yield
        finally:
            F.dropout, paddle.rand, paddle.to_tensor = before

    def _dropout(
        self,
        x: paddle.Tensor,
        p: float = 0.5,
        axis: int | Sequence[int] | None = None,
        training: bool = True,
        mode: str = "upscale_in_train",
        **_: Any,  # inplace and name
    ) -> paddle.Tensor:
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

    def _rand(self, shape: Sequence[int], dtype: Any = None, name: str | None = None) -> paddle.Tensor:
        # 24 bits: what float32 holds without rounding up to 1. A narrower type rounds the number, not its bits.
        uniform = _shift(self._draw(list(shape)), 8).astype("float32") * 2.0**-24
        return uniform.astype(dtype or paddle.get_default_dtype())

    def _draw(self, shape: Sequence[int]) -> paddle.Tensor:
        """int32 of `shape`, all values equally probable; the rows of the tower lie along the first axis."""
        keys, draw = self._state
        count = keys.rows if keys else 0
        first, *rest = shape
        if keys is None or not count or first % count:
            raise ValueError(
                f"a random draw of shape {list(shape)} in a tower that sees {count} rows: "
                "only draws with the rows, or equal parts of them, along the first axis can be assigned"
            )
        self._state = DropoutState(keys, draw + 1)
        coordinates = _coordinates(paddle.get_device(), first // count, *rest).reshape([1, -1])
        size = [count, coordinates.size]
        low, high = (broadcast(half.unsqueeze(1), size) for half in keys.of(draw))
        bits = (broadcast(coordinates, size) ^ low) * _MULTIPLY_1
        bits = ((bits ^ _shift(bits, 15)) + high) * _MULTIPLY_2
        return bits.reshape(list(shape))


class NativeDropout:
    """Paddle's own dropout, of which every step and rank has its own, and a step that is repeated the same.

    As `CounterBasedDropout` where a row is encoded once and masks may depend on how rows are shared out over ranks.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def keys(self, step: int, views: Collection[str], positions: np.ndarray) -> dict[str, np.ndarray]:
        """None: that Paddle draws for this step from now on is all that there is to do."""
        (key,) = _row_keys(self.seed, step, len(VIEWS), np.array([dist.get_rank()]))
        paddle.seed(int(key >> np.uint64(32)))
        return {}

    @contextmanager
    def rows(self, keys: Mapping[str, paddle.Tensor]) -> Iterator[None]:
        """Nothing: the towers draw as they are."""
        yield


class DrawKeys:
    """The keys of the draws in one forward of a tower, made on the device: of each row's key and each draw's number.

    Args:
        rows: int64 `[R]`, the keys of the rows that the tower sees.

    Attributes:
        rows: R.
    """

    def __init__(self, rows: paddle.Tensor):
        self.rows = rows.shape[0]
        self._keys = rows
        self._halves: list[tuple[paddle.Tensor, paddle.Tensor]] = []

    def of(self, draw: int) -> tuple[paddle.Tensor, paddle.Tensor]:
        """The lower and the upper half of the keys of a draw, int32 `[R]` each."""
        while draw >= _DRAWS_AT_ONCE * len(self._halves):
            self._halves.append(self._next_halves())
        low, high = self._halves[draw // _DRAWS_AT_ONCE]
        return low[draw % _DRAWS_AT_ONCE], high[draw % _DRAWS_AT_ONCE]

    def _next_halves(self) -> tuple[paddle.Tensor, paddle.Tensor]:
        """For the next draws, int32 `[_DRAWS_AT_ONCE, R]` each."""
        first = _DRAWS_AT_ONCE * len(self._halves)
        keys = _folded(self._keys.unsqueeze(0), paddle.arange(first, first + _DRAWS_AT_ONCE).unsqueeze(1))
        return keys.astype("int32"), _shift(keys, 32).astype("int32")


def _filled(
    to_tensor: Callable[..., paddle.Tensor], data: Any, *arguments: Any, dtype: Any = None, **options: Any
) -> paddle.Tensor:
    """`to_tensor`, without a copy to the device where the data is one number and nothing else is asked for."""
    if arguments or options or not isinstance(data, float):
        return to_tensor(data, *arguments, dtype=dtype, **options)
    own = "float64" if isinstance(data, np.float64) else paddle.get_default_dtype()
    return paddle.full([], data, dtype or own)


class _Mask(PyLayer):
    """`x` times a mask of which one byte an element is kept for backward."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, kept: paddle.Tensor, scale: float) -> paddle.Tensor:
        keep(ctx, kept)
        ctx.scale = scale
        return _masked(x, kept, scale)

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        (kept,) = ctx.saved_tensor()
        return _masked(gradient, kept, ctx.scale)


def _masked(x: paddle.Tensor, kept: paddle.Tensor, scale: float) -> paddle.Tensor:
    # In bfloat16 the scale itself would be off by up to 0.2 %, and all that is kept with it.
    dtype = paddle.float64 if x.dtype == paddle.float64 else paddle.float32
    return (x.astype(dtype) * (kept.astype(dtype) * scale)).astype(x.dtype)


def _row_keys(seed: int, step: int, view: int, positions: np.ndarray) -> np.ndarray:
    key = np.zeros(1, np.uint64)
    for part in (seed, step, view, positions):
        key = _fold(key, part)
    return key


def _fold(key: np.ndarray, part: int | np.ndarray) -> np.ndarray:
    """A new uint64 key of a key and of one number more: a step of SplitMix64 (Steele et al. 2014)."""
    x = key + _WEYL * (np.atleast_1d(part).astype(np.uint64) + np.uint64(1))
    x = (x ^ x >> np.uint64(30)) * _MIX_1
    x = (x ^ x >> np.uint64(27)) * _MIX_2
    return x ^ x >> np.uint64(31)


def _folded(key: paddle.Tensor, part: paddle.Tensor) -> paddle.Tensor:
    """`_fold` on the device, of int64 keys: their products keep the lower 64 bits."""
    device = paddle.get_device()
    x = key + (part + 1) * _constant(device, _WEYL, "int64")
    x = (x ^ _shift(x, 30)) * _constant(device, _MIX_1, "int64")
    x = (x ^ _shift(x, 27)) * _constant(device, _MIX_2, "int64")
    return x ^ _shift(x, 31)


@lru_cache(maxsize=256)
def _coordinates(device: str, *shape: int) -> paddle.Tensor:
    """int32 `[1, *shape]`, a hash of every element's coordinates; the sizes of the axes do not enter it. On Paddle's
    device, by which it is kept."""
    key = paddle.zeros([1], "int64")
    for size in shape:
        key = _folded(key.unsqueeze(-1), paddle.arange(size))
    return _shift(key, 32).astype("int32")


@lru_cache(maxsize=64)
def _constant(device: str, value: int | np.uint64, dtype: str) -> paddle.Tensor:
    """A 0-D integer tensor of the lowest bits of a number."""
    return paddle.to_tensor(np.array(value).astype(dtype), place=device)


def _shift(bits: paddle.Tensor, by: int) -> paddle.Tensor:
    dtype = "int64" if bits.dtype == paddle.int64 else "int32"
    return paddle.bitwise_right_shift(bits, _constant(paddle.get_device(), by, dtype), is_arithmetic=False)
