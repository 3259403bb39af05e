"""Activations of transformers, and MLPs whose weights take the constant factors of their activation."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import paddle
from paddle import nn
from paddle.autograd import PyLayer
from paddle.nn import functional as F

from ernie_vil2.device.cpu_kernels import CpuLinear, save_for_backward, scale_linear

Activation = Callable[[paddle.Tensor], paddle.Tensor]
# Factor in `x * sigmoid(factor * x)` for which it is close to GELU (Hendrycks and Gimpel 2016).
QUICK_GELU_FACTOR = 1.702


def gelu_tanh(x: paddle.Tensor) -> paddle.Tensor:
    """Return the tanh approximation of GELU."""
    if paddle.in_dynamic_mode():
        return F.gelu(x, approximate=True)
    # Written out in traced graphs, because paddle2onnx exports every GELU as the exact one.
    return 0.5 * x * (1 + paddle.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def quick_gelu(x: paddle.Tensor) -> paddle.Tensor:
    """Return `x * sigmoid(1.702 x)`, the activation of OpenAI's CLIP and of the released models."""
    if paddle.in_dynamic_mode():
        return _ScaledSilu.apply(x, QUICK_GELU_FACTOR)
    return x * F.sigmoid(QUICK_GELU_FACTOR * x)


def silu(x: paddle.Tensor) -> paddle.Tensor:
    """Return `x * sigmoid(x)`."""
    if paddle.in_dynamic_mode():
        return _ScaledSilu.apply(x, 1.0)  # F.silu would also keep its output for backward
    return F.silu(x)


ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "silu": silu,
    "relu": F.relu,
}


class _ScaledSilu(PyLayer):
    """`silu(scale * x) / scale`, which keeps only its input for backward."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, scale: float) -> paddle.Tensor:
        save_for_backward(ctx, x)
        ctx.scale = scale
        if scale == 1:
            return F.silu(x)
        return F.silu(scale * x).scale_(1 / scale)

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        (x,) = ctx.saved_tensor()
        scaled = x if ctx.scale == 1 else ctx.scale * x
        if x.place.is_cpu_place():
            # Paddle's CPU kernel returns NaN below -84, where x exp(-x) overflows. The gradient is below 1e-32 there.
            scaled = scaled.clip(min=-80.0)
        # A private function (3.3.1). Its second argument, the output of silu, is not read.
        return paddle._C_ops.silu_grad(scaled, scaled, gradient)


class _ErfProduct(PyLayer):
    """`x * (1 + erf(x))`, and its gradient, by kernels that take half the time of those for GELU on CPUs."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor) -> paddle.Tensor:
        save_for_backward(ctx, x)
        return paddle.erf(x).scale_(1.0, bias=1.0).multiply_(x)

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> paddle.Tensor:
        (x,) = ctx.saved_tensor()
        # A private function (3.3.1): the derivative of erf at `x`, times the second argument.
        slope = paddle._C_ops.erf_grad(x, gradient * x)
        return paddle.erf(x).scale_(1.0, bias=1.0).multiply_(gradient).add_(slope)


class _ScaledForm(NamedTuple):
    """An activation as `output_scale * function(input_scale * x)`.

    Attributes:
        function: the activation without its constant factors.
        input_scale: factor of the input, which can move to the linear layer before it.
        output_scale: factor of the output, which can move to the linear layer after it.
        is_for_cpus: whether it is used on CPUs only, because GPUs have one kernel for the whole activation.
    """

    function: Activation
    input_scale: float
    output_scale: float
    is_for_cpus: bool


_SCALED_FORMS: dict[Activation, _ScaledForm] = {
    quick_gelu: _ScaledForm(silu, QUICK_GELU_FACTOR, 1 / QUICK_GELU_FACTOR, is_for_cpus=False),
    F.gelu: _ScaledForm(_ErfProduct.apply, math.sqrt(0.5), math.sqrt(0.5), is_for_cpus=True),
}


def compute_mlp(x: paddle.Tensor, first: nn.Layer, activation: Activation, last: nn.Layer) -> paddle.Tensor:
    """Return `last(activation(first(x)))`, with fewer passes over the hidden values in training.

    In training, constant factors of the activation are multiplied into the weights, which are smaller than the hidden
    values of many tokens. The kernels of quick_gelu and its gradient then read or write 5 tensors of hidden values, not
    20.

    Args:
        x: input of the first layer.
        first: linear layer before the activation.
        activation: one of `ACTIVATIONS`.
        last: linear layer after the activation.
    """
    form = None
    if last.training and paddle.in_dynamic_mode():
        form = _SCALED_FORMS.get(activation)
    if form is not None and (isinstance(first, CpuLinear) or not form.is_for_cpus):
        scaled_first = scale_linear(first, form.input_scale, form.input_scale)
        scaled_last = scale_linear(last, form.output_scale, 1.0)
        if scaled_first is not None and scaled_last is not None:
            return scaled_last(form.function(scaled_first(x)))
    return last(activation(first(x)))
