"""Dropout that depends on a row's position in the global batch, and not on how the step is computed.

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

from ernie_vil2.config.sections import TOWER_VIEWS, VIEWS
from ernie_vil2.device.cpu_kernels import expand_for_cpu, save_for_backward
from ernie_vil2.device.token_packing import get_packed_layout

# Odd multipliers of the finalisers of MurmurHash3, as int32, and of SplitMix64, as uint64.
_MURMUR_1, _MURMUR_2 = 0x85EBCA6B - 2**32, 0xC2B2AE35 - 2**32
_SPLITMIX_STEP, _SPLITMIX_1, _SPLITMIX_2 = map(np.uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
# Draws whose keys are computed by the same kernels. A tower of twelve layers makes some dozens of draws: fewer at once
# launch more kernels, more compute keys that no draw uses.
_DRAWS_PER_BLOCK = 64
# Bytes of the hashed coordinates that are kept on the device. A forward draws for few shapes, a dozen times each, so
# that the last shapes must be kept; but every length of the texts has its own, and those of 512 tokens and 12 heads
# take 14 MB. 64 MiB hold all shapes of a forward, and are too few to matter on a GPU, as no plan counts them.
_COORDINATE_BYTES = 64 << 20
_INT32_BYTES = 4
_LAZY_VIEWS = "FLAGS_use_stride_kernel"  # Paddle's switch for views that share memory


class DropoutState(NamedTuple):
    """Position in the random draws of a tower's forward."""

    keys: DrawKeys | None  # keys of the draws of its rows; None outside of a tower
    num_draws: int  # draws made so far


class CounterBasedDropout:
    """Random draws of a dual encoder's towers, made row by row.

    Within `use_keys` and `replay`, this object replaces `paddle.nn.functional.dropout` and `paddle.rand`, from which
    all layers of PaddleNLP's and PaddleClas's towers draw (dropout of states and of attention weights, stochastic
    depth). Paddle's own random state is neither read nor changed. `paddle.to_tensor` of a number, which PaddleClas's
    stochastic depth calls for its rate, then fills a tensor on the device instead of sending one there.

    Args:
        model: the dual encoder, with towers `image` and `text`.
        seed: seed of the run.

    Raises:
        ValueError: a layer of the model draws in another way.
    """

    def __init__(self, model: nn.Layer, seed: int):
        unsupported = nn.Dropout2D | nn.Dropout3D | nn.AlphaDropout | nn.RReLU
        for name, layer in model.named_sublayers():
            if isinstance(layer, unsupported):
                raise ValueError(f"{name} is a {type(layer).__name__}, whose random draws cannot be counted by row")
        self.seed = seed
        self._tower_keys: dict[str, DrawKeys | None] = {}
        self._state = DropoutState(None, 0)
        for tower in TOWER_VIEWS:
            getattr(model, tower).register_forward_pre_hook(lambda layer, inputs, tower=tower: self._enter(tower))

    def make_keys(self, step: int, views: Collection[str], positions: np.ndarray) -> dict[str, np.ndarray]:
        """Return the keys of a step's rows for `use_keys`: all that the device needs for its dropout.

        Args:
            step: number of the optimiser step.
            views: names of the views.
            positions: int64 `[b]`, positions of the rows in the global batch.

        Returns:
            By view int64 `[b]`, a hash of seed, step, view and the row's position in the global batch.
        """
        keys = {}
        for number, view in enumerate(VIEWS):
            if view in views:
                keys[view] = _hash_rows(self.seed, step, number, positions).view(np.int64)
        return keys

    @contextmanager
    def use_keys(self, keys: Mapping[str, paddle.Tensor]) -> Iterator[None]:
        """Draw by these keys in the block, which is a forward of the dual encoder over their views and rows."""
        for tower, views in TOWER_VIEWS.items():
            tower_keys = [keys[view] for view in views if view in keys]
            self._tower_keys[tower] = DrawKeys(paddle.concat(tower_keys)) if tower_keys else None
        with self._replace_functions():
            yield

    @property
    def state(self) -> DropoutState:
        """State before the next draw, for `replay`."""
        return self._state

    @contextmanager
    def replay(self, state: DropoutState) -> Iterator[None]:
        """Repeat in the block the draws from `state` on; afterwards continue with the current state."""
        current, self._state = self._state, state
        try:
            with self._replace_functions():
                yield
        finally:
            self._state = current

    def _enter(self, tower: str) -> None:
        self._state = DropoutState(self._tower_keys.get(tower), 0)

    @contextmanager
    def _replace_functions(self) -> Iterator[None]:
        originals = F.dropout, paddle.rand, paddle.to_tensor
        # Any, because they do not take every argument that Paddle's functions take.
        replacements: Any = self._dropout, self._rand, partial(_fill_tensor, paddle.to_tensor)
        F.dropout, paddle.rand, paddle.to_tensor = replacements
        try:
            yield
        finally:
            F.dropout, paddle.rand, paddle.to_tensor = originals

    def _dropout(
        self,
        x: paddle.Tensor,
        p: float = 0.5,
        axis: int | Sequence[int] | None = None,
        training: bool = True,
        mode: str = "upscale_in_train",
        **_: Any,  # inplace and name
    ) -> paddle.Tensor:
        # As `paddle.nn.functional.dropout`: "upscale_in_train" scales in training, the other mode in evaluation.
        should_upscale = mode == "upscale_in_train"
        if not training and not should_upscale:
            return x * (1 - p)
        if not training or p == 0:
            return x
        if p == 1:
            return x * 0.0
        axes = range(x.ndim) if axis is None else np.atleast_1d(axis).tolist()
        bits = self._draw([size if dimension in axes else 1 for dimension, size in enumerate(x.shape)])
        # As signed numbers the bits are uniform from -2^31 on.
        mask = bits >= round(p * 2**32) - 2**31
        return _ApplyMask.apply(x, _to_bytes(mask), 1 / (1 - p) if should_upscale else 1.0)

    def _rand(self, shape: Sequence[int], dtype: Any = None, name: str | None = None) -> paddle.Tensor:
        # float32 holds 24 bits without rounding up to 1. A narrower type rounds the number, not its bits.
        uniform = _shift(self._draw(list(shape)), 8).astype("float32") * 2.0**-24
        return uniform.astype(dtype or paddle.get_default_dtype())

    def _draw(self, shape: Sequence[int]) -> paddle.Tensor:
        """Return int32 of `shape`, all values equally probable; the rows of the tower lie along the first axis.

        Packed tokens `[T, D]` get the same bits as in the padded texts `[B, L, D]`.
        """
        layout = get_packed_layout(shape)
        keys, draw = self._state
        num_rows = keys.num_rows if keys else 0
        first_size, *other_sizes = shape if layout is None else [layout.num_texts, layout.length, shape[1]]
        if keys is None or not num_rows or first_size % num_rows:
            raise ValueError(
                f"a random draw of shape {list(shape)} in a tower that sees {num_rows} rows: "
                "only draws with the rows, or equal parts of them, along the first axis can be assigned"
            )
        self._state = DropoutState(keys, draw + 1)
        coordinates = _COORDINATES.get(first_size // num_rows, *other_sizes)
        low, high = keys.get_halves(draw)
        if layout is None:
            size = [num_rows, coordinates.size]
            coordinates = expand_for_cpu(coordinates.reshape([1, -1]), size)
        else:
            # Only for the tokens: coordinates by their place in the row, keys by their row.
            size = list(shape)
            tokens_per_row = first_size // num_rows * layout.length
            coordinates = coordinates.reshape([-1, shape[1]]).gather(layout.rows % tokens_per_row)
            rows = layout.rows // tokens_per_row
            low, high = low.gather(rows), high.gather(rows)

        # The finaliser of MurmurHash3, with the two halves of the key mixed in. Its first operation makes a new tensor,
        # since the coordinates are kept; the others need no further ones.
        bits = coordinates ^ expand_for_cpu(low.unsqueeze(1), size)
        bits.scale_(_MURMUR_1)
        bits.bitwise_xor_(_shift(bits, 15))
        bits.add_(expand_for_cpu(high.unsqueeze(1), size)).scale_(_MURMUR_2)
        return bits.reshape(shape)


class NativeDropout:
    """Paddle's dropout, seeded by step and rank, so that a repeated step draws the same masks.

    It replaces `CounterBasedDropout` where every row is encoded once, and masks may depend on the ranks of the rows.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def make_keys(self, step: int, views: Collection[str], positions: np.ndarray) -> dict[str, np.ndarray]:
        """Seed Paddle's generator for this step; return no keys, because no row needs one."""
        key = _hash_rows(self.seed, step, len(VIEWS), np.array([dist.get_rank()]))[0]
        paddle.seed(int(key >> np.uint64(32)))
        return {}

    @contextmanager
    def use_keys(self, keys: Mapping[str, paddle.Tensor]) -> Iterator[None]:
        """Do nothing: the towers call Paddle's functions."""
        yield


class DrawKeys:
    """Keys of the draws in one forward of a tower, computed on the device from a row's key and a draw's number.

    Args:
        row_keys: int64 `[R]`, the keys of the rows that the tower sees.

    Attributes:
        num_rows: R.
    """

    def __init__(self, row_keys: paddle.Tensor):
        self.num_rows = row_keys.shape[0]
        self._row_keys = row_keys
        self._blocks: list[tuple[paddle.Tensor, paddle.Tensor]] = []

    def get_halves(self, draw: int) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return the lower and the upper half of the keys of a draw, int32 `[R]` each."""
        while draw >= _DRAWS_PER_BLOCK * len(self._blocks):
            self._blocks.append(self._compute_block())
        low, high = self._blocks[draw // _DRAWS_PER_BLOCK]
        return low[draw % _DRAWS_PER_BLOCK], high[draw % _DRAWS_PER_BLOCK]

    def _compute_block(self) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return both halves of the keys of the next draws, int32 `[_DRAWS_PER_BLOCK, R]` each."""
        first = _DRAWS_PER_BLOCK * len(self._blocks)
        draws = paddle.arange(first, first + _DRAWS_PER_BLOCK).unsqueeze(1)
        keys = _fold_on_device(self._row_keys.unsqueeze(0), draws)
        return keys.astype("int32"), _shift(keys, 32).astype("int32")


def _fill_tensor(
    to_tensor: Callable[..., paddle.Tensor], data: Any, *arguments: Any, dtype: Any = None, **options: Any
) -> paddle.Tensor:
    """Call `to_tensor`, but make a tensor of a single number on the device, without a copy from the host."""
    if arguments or options or not isinstance(data, float):
        return to_tensor(data, *arguments, dtype=dtype, **options)
    default_dtype = "float64" if isinstance(data, np.float64) else paddle.get_default_dtype()
    return paddle.full([], data, dtype or default_dtype)


class _ApplyMask(PyLayer):
    """Product of `x`, a mask and a scale that keeps only the mask for backward, one byte an element."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, mask: paddle.Tensor, scale: float) -> paddle.Tensor:
        save_for_backward(ctx, mask)
        ctx.scale = scale
        return _multiply_by_mask(x, mask, scale)

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        (mask,) = ctx.saved_tensor()
        return _multiply_by_mask(gradient, mask, ctx.scale)


def _multiply_by_mask(x: paddle.Tensor, mask: paddle.Tensor, scale: float) -> paddle.Tensor:
    # Paddle's CPU kernel (3.3.1) rounds the scale to the type of `x`: in bfloat16 it would be off by up to 0.2 %, and
    # all values with it. The kernel for GPUs multiplies in float32 and rounds the product, as read in its source.
    if x.place.is_cpu_place() and x.dtype in (paddle.bfloat16, paddle.float16):
        return _multiply_by_mask(x.astype("float32"), mask, scale).astype(x.dtype)
    if mask.shape != x.shape:
        mask = mask.expand(x.shape).contiguous()

    # Private (3.3.1): the gradient of dropout multiplies by a mask of bytes in one kernel; a product of tensors needs
    # another one, which casts the mask. With downscale_in_infer the kernel does not scale, as read in its sources for
    # both devices. Otherwise each would compute 1 / (1 - p) itself, and round it in its own way.
    product = paddle._C_ops.dropout_grad(mask, x, 0.0, False, "downscale_in_infer")
    return product.scale_(scale)


def _to_bytes(mask: paddle.Tensor) -> paddle.Tensor:
    """Return a mask of bools as one of uint8."""
    # A view takes no pass over the mask, but needs Paddle's lazy views, which are off on CPUs (device/runtime.py).
    if paddle.get_flags(_LAZY_VIEWS)[_LAZY_VIEWS]:
        return mask.view("uint8")
    return mask.astype("uint8")


def _hash_rows(seed: int, step: int, view: int, positions: np.ndarray) -> np.ndarray:
    """Return a key for each row, uint64 `[b]`."""
    key = np.zeros(1, np.uint64)
    for number in (seed, step, view, positions):
        key = _fold(key, number)
    return key


def _fold(key: np.ndarray, number: int | np.ndarray) -> np.ndarray:
    """Combine uint64 keys with one more number: a step of SplitMix64 (Steele et al. 2014)."""
    x = key + _SPLITMIX_STEP * (np.atleast_1d(number).astype(np.uint64) + np.uint64(1))
    x = (x ^ x >> np.uint64(30)) * _SPLITMIX_1
    x = (x ^ x >> np.uint64(27)) * _SPLITMIX_2
    return x ^ x >> np.uint64(31)


def _fold_on_device(key: paddle.Tensor, number: paddle.Tensor) -> paddle.Tensor:
    """Compute `_fold` on the device with int64 keys, whose products keep the lower 64 bits."""
    device = paddle.get_device()
    x = key + (number + 1) * _make_constant(device, _SPLITMIX_STEP, "int64")
    x = (x ^ _shift(x, 30)) * _make_constant(device, _SPLITMIX_1, "int64")
    x = (x ^ _shift(x, 27)) * _make_constant(device, _SPLITMIX_2, "int64")
    return x ^ _shift(x, 31)


class _CoordinateCache:
    """Hashed coordinates by shape and device: the last used ones, up to `max_bytes`, but at least one shape."""

    def __init__(self, max_bytes: int):
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._hashes: dict[tuple[str, tuple[int, ...]], paddle.Tensor] = {}  # in the order of their last use

    def get(self, *shape: int) -> paddle.Tensor:
        """Return `_hash_coordinates(*shape)`, on Paddle's current device, from the cache if it is there."""
        key = paddle.get_device(), shape
        hashes = self._hashes.pop(key, None)
        if hashes is None:
            hashes = _hash_coordinates(*shape)
            self.num_bytes += _INT32_BYTES * hashes.size
        self._hashes[key] = hashes
        while self.num_bytes > self.max_bytes and len(self._hashes) > 1:
            oldest = next(iter(self._hashes))
            self.num_bytes -= _INT32_BYTES * self._hashes.pop(oldest).size
        return hashes


_COORDINATES = _CoordinateCache(_COORDINATE_BYTES)


def _hash_coordinates(*shape: int) -> paddle.Tensor:
    """Return int32 `[1, *shape]`, a hash of every element's coordinates, whatever the sizes of the axes."""
    key = paddle.zeros([1], "int64")
    for size in shape:
        key = _fold_on_device(key.unsqueeze(-1), paddle.arange(size))
    return _shift(key, 32).astype("int32")


@lru_cache(maxsize=64)
def _make_constant(device: str, value: int | np.uint64, dtype: str) -> paddle.Tensor:
    """Return a 0-D integer tensor of the lowest bits of a number, on a device."""
    return paddle.to_tensor(np.array(value).astype(dtype), place=device)


def _shift(bits: paddle.Tensor, distance: int) -> paddle.Tensor:
    """Shift bits to the right, filling with zeros."""
    dtype = "int64" if bits.dtype == paddle.int64 else "int32"
    distances = expand_for_cpu(_make_constant(paddle.get_device(), distance, dtype), bits.shape)
    return paddle.bitwise_right_shift(bits, distances, is_arithmetic=False)
