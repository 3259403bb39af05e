"""Sums that Paddle's CPU kernels take many times longer over than MKL takes over a product with ones, and broadcasting.

On other devices they are Paddle's own: there a product of float32 may be one of fewer bits. And what Paddle's lazy
views, which the switch `strides` leaves out on CPU, ask of a PyLayer.
"""

from collections.abc import Sequence

import paddle
from paddle.autograd import PyLayerContext


def sums(x: paddle.Tensor, axis: int) -> paddle.Tensor:
    """Of a matrix `[r, c]` over an axis: `[c]` or `[r]`."""
    if not x.place.is_cpu_place():
        return x.sum(axis)
    return paddle.matmul(x, paddle.ones([x.shape[axis]], x.dtype), transpose_x=axis == 0)


def channel_sums(x: paddle.Tensor) -> paddle.Tensor:
    """`[B, C, ...]` to `[C]`."""
    rows, channels = x.shape[:2]
    by_row = sums(x.reshape([rows * channels, -1]), 1)
    return sums(by_row.reshape([rows, channels]), 0)


def pairwise_sums(rows: paddle.Tensor, columns: paddle.Tensor) -> paddle.Tensor:
    """`[r]` and `[c]` to `[r, c]`; adding `[r, 1]` and `[c]` costs Paddle on CPU five times as much."""
    return columns.expand([rows.shape[0], columns.shape[0]]) + rows.unsqueeze(1)


def broadcast(x: paddle.Tensor, shape: Sequence[int]) -> paddle.Tensor:
    """A tensor to be combined with others in a shape that it broadcasts to.

    On CPU it is copied into that shape: to broadcast integers within an operation costs Paddle ten times as much.
    """
    return x.expand(shape) if x.place.is_cpu_place() else x


def keep(ctx: PyLayerContext, *tensors: paddle.Tensor) -> None:
    """Saves tensors for the backward of a PyLayer, of which `ctx` is the context; lazy views are copied.

    In a recomputed block Paddle hands saved tensors on without their strides: backward would take other elements of the
    storage for those of the view.
    """
    ctx.save_for_backward(*(tensor.contiguous() for tensor in tensors))
