"""Layers and sums that a CPU computes faster: same parameters, outputs and gradients equal to rounding.

The gradients of biases and of LayerNorm's parameters are sums over the rows of a matrix. Paddle's CPU kernels take ten
times longer over one than MKL over the product of a row of ones with that matrix. On other devices sums are Paddle's
own: there a product of float32 may be one of fewer bits.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.autograd import PyLayer, PyLayerContext
from paddle.nn import functional as F

from ernie_vil2.device import runtime


def speed_up(model: nn.Layer) -> None:
    """Turns the plain layers within `model` into those of this module, in place, if Paddle's device is the CPU, and
    unless `ERNIE_VIL2_RUNTIME=-layers`. Parameters, their names and the state stay what they are."""
    if paddle.get_device() != "cpu" or not runtime.is_enabled("layers"):
        return
    for layer in model.sublayers(include_self=True):
        for kind in (CpuLinear, CpuLayerNorm, CpuPatchConv2D):
            if kind.fits(layer):
                layer.__class__ = kind
    runtime.record_switch(
        "layers", "gradients of biases and norms, and small convolutions, by products, none of padding"
    )


_tokens: ContextVar[Tensor | None] = ContextVar("tokens", default=None)


def tokens_alone(ids: Tensor, padding: int) -> AbstractContextManager[None]:
    """Within the block, `CpuLinear` layers that train leave out the padding of texts, and give 0 there.

    Attention and pooling mask it, so that features and gradients are the same to rounding. Texts of a batch have the
    length of its longest one: of captions among tags more than half is padding.

    Args:
        ids: `[B, L]`, the tokens of the texts; the layers' inputs in the block that have three axes are `[B, L, D]`.
        padding: the id that is none.
    """
    applies = paddle.in_dynamic_mode() and ids.place.is_cpu_place()
    return _tokens_alone(ids, padding) if applies else nullcontext()


@contextmanager
def _tokens_alone(ids: Tensor, padding: int) -> Iterator[None]:
    before = _tokens.set(paddle.nonzero((ids != padding).reshape([-1])).squeeze(1))
    try:
        yield
    finally:
        _tokens.reset(before)


class CpuLinear(nn.Linear):
    """A linear layer whose bias gets its gradient by a matrix product, and which leaves out what is padding."""

    @staticmethod
    def fits(layer: nn.Layer) -> bool:
        """Whether a layer is a linear one with a bias and nothing more special."""
        return type(layer) is nn.Linear and layer.bias is not None

    def forward(self, x: Tensor) -> Tensor:
        return _linear(x, self.weight, self.bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if not _trains(x, weight, bias):
        return F.linear(x, weight, bias)
    tokens = _tokens.get()
    if tokens is not None and x.ndim == 3:
        return _LinearOfTokens.apply(x, weight, bias, tokens)
    return _Linear.apply(x, weight, bias)


def together(layers: Sequence[nn.Layer]) -> Callable[[Tensor], Tensor] | None:
    """Linear layers of one input as one, whose outputs lie side by side; on any device.

    None where one of them is not a plain linear layer with a bias, is frozen, or has hooks: each is computed by itself.
    """
    kinds = {type(layer) for layer in layers}
    if kinds not in ({nn.Linear}, {CpuLinear}) or any(layer.bias is None for layer in layers):
        return None
    if any(layer._forward_pre_hooks or layer._forward_post_hooks for layer in layers):
        return None
    if any(parameter.stop_gradient for layer in layers for parameter in layer.parameters()):
        return None
    weight, bias = (paddle.concat([getattr(layer, name) for layer in layers], axis=-1) for name in ("weight", "bias"))
    return partial(_linear if kinds == {CpuLinear} else F.linear, weight=weight, bias=bias)


class CpuLayerNorm(nn.LayerNorm):
    """A LayerNorm of the last axis with all its gradients made of matrix products and elementwise operations."""

    @staticmethod
    def fits(layer: nn.Layer) -> bool:
        """Whether a layer is such a LayerNorm, with weight and bias."""
        return (
            type(layer) is nn.LayerNorm
            and len(layer._normalized_shape) == 1
            and layer.weight is not None
            and layer.bias is not None
        )

    def forward(self, x: Tensor) -> Tensor:
        if not _trains(x, self.weight, self.bias):
            return super().forward(x)
        return _LayerNorm.apply(x, self.weight, self.bias, self._epsilon)


class CpuPatchConv2D(nn.Conv2D):
    """A convolution of patches that do not overlap (1x1 among them) as one matrix product over all images.

    Paddle's CPU kernel multiplies image by image, which costs more on small maps, and less for a tower's first one.
    """

    @staticmethod
    def fits(layer: nn.Layer) -> bool:
        """Whether a layer is such a convolution and nothing more special."""
        return (
            type(layer) is nn.Conv2D
            and list(layer.weight.shape[2:]) == list(layer._stride)
            and layer._groups == 1
            and layer._in_channels > 3
            and layer._padding == 0
            and layer._data_format == "NCHW"
        )

    def forward(self, x: Tensor) -> Tensor:
        if not paddle.in_dynamic_mode():  # a traced graph does not know the number of images
            return super().forward(x)
        (images, channels, height, width), (down, across) = x.shape, self._stride
        rows, columns = height // down, width // across
        patches = x[:, :, : rows * down, : columns * across]
        patches = patches.reshape([images, channels, rows, down, columns, across]).transpose([1, 3, 5, 0, 2, 4])
        y = paddle.matmul(
            self.weight.reshape([self._out_channels, -1]), patches.reshape([channels * down * across, -1])
        )
        y = y.reshape([-1, images, rows, columns]).transpose([1, 0, 2, 3])
        return y if self.bias is None else y + self.bias.reshape([1, -1, 1, 1])


class _Linear(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        keep(ctx, x, weight)
        ctx.input_learns = not x.stop_gradient
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensor()
        g = _rows(gradient)
        input_gradient = paddle.matmul(gradient, weight, transpose_y=True) if ctx.input_learns else None
        return input_gradient, paddle.matmul(_rows(x), g, transpose_x=True), sums(g, 0)


class _LinearOfTokens(PyLayer):
    """Of the rows `tokens` of `[B * L, D]` alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, tokens: Tensor) -> Tensor:
        rows = paddle.gather(_rows(x), tokens)
        keep(ctx, rows, weight, tokens)
        ctx.input_learns = not x.stop_gradient
        return _scattered(F.linear(rows, weight, bias), tokens, x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        rows, weight, tokens = ctx.saved_tensor()
        g = paddle.gather(_rows(gradient), tokens)
        parameters = paddle.matmul(rows, g, transpose_x=True), sums(g, 0)
        if not ctx.input_learns:
            return None, *parameters, None
        return _scattered(paddle.matmul(g, weight, transpose_y=True), tokens, gradient.shape), *parameters, None


def _scattered(rows: Tensor, tokens: Tensor, shape: Sequence[int]) -> Tensor:
    """Rows `[T, D]` where they were in `[B, L, ...]`, and zeros elsewhere."""
    zeros = paddle.zeros([shape[0] * shape[1], rows.shape[1]], rows.dtype)
    return paddle.scatter_(zeros, tokens, rows).reshape([*shape[:2], rows.shape[1]])


class _LayerNorm(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        keep(ctx, x, weight)
        ctx.epsilon = epsilon
        ctx.input_learns = not x.stop_gradient
        return F.layer_norm(x, weight.shape, weight, bias, epsilon)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """With c = x - mean(x), s = 1 / deviation and g the gradient, row by row:

        dx = s (g w - mean(g w) - s^2 c mean(g w c)),  dw = sum of s g c over the rows,  db = sum of g.

        Means and what is constant in a row are matrix products with one column or one row.
        """
        x, weight = ctx.saved_tensor()
        x, g, width = _rows(x), _rows(gradient), weight.shape[0]
        mean = paddle.full([width, 1], 1 / width, x.dtype)
        spread = paddle.ones([1, width], x.dtype)
        centred = x - x @ mean @ spread
        scale = (centred.square() @ mean + ctx.epsilon).rsqrt()  # [N, 1]
        product = g * centred
        parameters = scale.squeeze(1) @ product, sums(g, 0)
        if not ctx.input_learns:
            return None, *parameters
        weighted_mean = weight.unsqueeze(1) / width
        input_gradient = (
            (scale @ weight.unsqueeze(0)) * g
            - (scale * (g @ weighted_mean)) @ spread
            - centred * (scale**3 * (product @ weighted_mean))
        )
        return input_gradient.reshape(gradient.shape), *parameters


def _rows(x: Tensor) -> Tensor:
    """`[..., D]` to `[N, D]`."""
    return x.reshape([-1, x.shape[-1]])


def _trains(x: Tensor, *parameters: Tensor | None) -> bool:
    """Whether autograd will ask for the gradients of all these parameters, on a CPU; not in a traced graph."""
    return (
        paddle.in_dynamic_mode()
        and paddle.is_grad_enabled()
        and x.place.is_cpu_place()
        and not any(parameter is None or parameter.stop_gradient for parameter in parameters)
    )


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
    """A tensor to be combined with others in a shape that it broadcasts to; on CPU it is copied into that shape, as
    broadcasting integers within an operation costs Paddle ten times as much."""
    return x.expand(shape) if x.place.is_cpu_place() else x


def keep(ctx: PyLayerContext, *tensors: paddle.Tensor) -> None:
    """Saves tensors for the backward of a PyLayer, of which `ctx` is the context; lazy views are copied.

    In a recomputed block Paddle hands saved tensors on without their strides: backward would take other elements of the
    storage for those of the view.
    """
    ctx.save_for_backward(*(tensor.contiguous() for tensor in tensors))
