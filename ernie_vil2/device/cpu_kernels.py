"""Layers and sums that are faster on a CPU than Paddle's, with the same parameters and results equal to rounding.

The gradients of biases and of LayerNorm's parameters are sums over the rows of a matrix. Paddle's CPU kernels take ten
times longer for one than MKL takes for the product of a row of ones with that matrix. On other devices Paddle's own
sums are used: there, a matrix product of float32 may be computed with fewer bits.

Paddle's layers (as of 3.3.1) keep their settings in private attributes such as `_epsilon` and `_stride` only.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import paddle
from paddle import Tensor, nn
from paddle.autograd import PyLayer, PyLayerContext
from paddle.nn import functional as F

from ernie_vil2.device import runtime
from ernie_vil2.device.mixed_precision import convert_output
from ernie_vil2.device.token_packing import get_layout, scatter_tokens


def speed_up(model: nn.Layer) -> None:
    """Replace the plain layers in a model by those of this module, in place; parameters, names and state stay the same.

    Nothing changes if Paddle's device is not the CPU, or with `ERNIE_VIL2_RUNTIME=-layers`.
    """
    if paddle.get_device() != "cpu" or not runtime.is_enabled("layers"):
        return
    for layer in model.sublayers(include_self=True):
        for layer_class in (CpuLinear, CpuLayerNorm, CpuPatchConv2D, CpuSmallMapConv2D):
            if layer_class.can_replace(layer):
                # The classes only replace forward, so that a layer keeps its parameters, hooks and place in the model.
                layer.__class__ = layer_class
    state = "gradients of biases and norms, and small convolutions, by products, none of padding"
    runtime.record_switch("layers", state)


class CpuLinear(nn.Linear):
    """Linear layer that computes the gradient of its bias by a matrix product, and can skip padding."""

    @staticmethod
    def can_replace(layer: nn.Layer) -> bool:
        """Return whether a layer is a plain linear one with a bias, and not of a derived class."""
        return type(layer) is nn.Linear and layer.bias is not None

    def forward(self, x: Tensor) -> Tensor:
        return _linear(x, self.weight, self.bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if not _needs_gradients(x, weight, bias):
        return F.linear(x, weight, bias)
    layout = get_layout()
    if layout is not None and x.ndim == 3:
        return _LinearOfTokens.apply(x, weight, bias, layout.rows)
    return _Linear.apply(x, weight, bias)


def fuse_linears(layers: Sequence[nn.Layer]) -> Callable[[Tensor], Tensor] | None:
    """Return a function that computes several linear layers of one input as one, with their outputs concatenated.

    It works on any device. None if a layer is not a plain linear one with a bias, is frozen, or has hooks: then each
    layer must be called by itself.
    """
    compute = _find_linear_function(layers)
    if compute is None or any(layer.weight.stop_gradient or layer.bias.stop_gradient for layer in layers):
        return None
    weight = paddle.concat([layer.weight for layer in layers], axis=-1)
    bias = paddle.concat([layer.bias for layer in layers], axis=-1)
    return partial(compute, weight=weight, bias=bias)


def scale_linear(layer: nn.Layer, weight_scale: float, bias_scale: float) -> Callable[[Tensor], Tensor] | None:
    """Return a function that computes a linear layer with its weight and bias multiplied by these numbers.

    It works on any device. None if the layer is not a plain linear one with a bias, or has hooks.

    Args:
        layer: the layer, which is not changed; gradients reach its weight and bias.
        weight_scale: factor of the weight.
        bias_scale: factor of the bias.
    """
    compute = _find_linear_function([layer])
    if compute is None:
        return None
    return partial(compute, weight=layer.weight * weight_scale, bias=layer.bias * bias_scale)


def _find_linear_function(layers: Sequence[nn.Layer]) -> Callable[..., Tensor] | None:
    """Return the function of input, weight and bias that all these linear layers compute.

    None if a layer is of another class, lacks a bias, or has hooks, whose lists are private (Paddle 3.3.1).
    """
    types = {type(layer) for layer in layers}
    if types not in ({nn.Linear}, {CpuLinear}):
        return None
    if any(layer.bias is None or layer._forward_pre_hooks or layer._forward_post_hooks for layer in layers):
        return None
    return _linear if types == {CpuLinear} else F.linear


class CpuLayerNorm(nn.LayerNorm):
    """LayerNorm of the last axis whose gradients come from the kernels of batch norms, and from matrix products."""

    @staticmethod
    def can_replace(layer: nn.Layer) -> bool:
        """Return whether a layer is a plain LayerNorm of the last axis with weight and bias."""
        return (
            type(layer) is nn.LayerNorm
            and len(layer._normalized_shape) == 1
            and layer._normalized_shape[0] > 1  # Paddle's batch norm leaves a single value as it is
            and layer.weight is not None
            and layer.bias is not None
        )

    def forward(self, x: Tensor) -> Tensor:
        if not _needs_gradients(x, self.weight, self.bias):
            return super().forward(x)
        return _LayerNorm.apply(x, self.weight, self.bias, self._epsilon)


class CpuPatchConv2D(nn.Conv2D):
    """Convolution of patches that do not overlap (1x1 included) as one matrix product over all images.

    Paddle's CPU kernel multiplies image by image. That is slower on small maps, but faster for the first convolution of
    a tower.
    """

    @staticmethod
    def can_replace(layer: nn.Layer) -> bool:
        """Return whether a layer is a plain convolution of this kind; not one of pixels, see above."""
        return (
            type(layer) is nn.Conv2D
            and list(layer.weight.shape[2:]) == list(layer._stride)
            and layer._groups == 1
            and layer._in_channels > 3
            and layer._padding == 0
            and list(layer._dilation) == [1, 1]
            and layer._data_format == "NCHW"
        )

    def forward(self, x: Tensor) -> Tensor:
        if not paddle.in_dynamic_mode():  # a traced graph does not know the number of images
            return super().forward(x)
        images, channels, height, width = x.shape
        patch_height, patch_width = self._stride
        rows, columns = height // patch_height, width // patch_width
        x = x[:, :, : rows * patch_height, : columns * patch_width]

        # One column for each patch of all images.
        x = x.reshape([images, channels, rows, patch_height, columns, patch_width]).transpose([1, 3, 5, 0, 2, 4])
        patches = x.reshape([channels * patch_height * patch_width, -1])  # [C * h * w, N * rows * columns]
        y = paddle.matmul(self.weight.reshape([self._out_channels, -1]), patches)
        y = y.reshape([-1, images, rows, columns]).transpose([1, 0, 2, 3])  # [N, C_out, rows, columns]
        return y if self.bias is None else y + self.bias.reshape([1, -1, 1, 1])


class CpuSmallMapConv2D(nn.Conv2D):
    """Convolution whose small maps of all images are computed by one matrix product.

    Paddle's CPU kernel multiplies image by image. For a map of few cells, such as the last stages of a network have for
    small images, it then reads the whole weight for each image to multiply it with a handful of columns.
    """

    # Cells of the output, per image. Forward and backward of a 3x3 convolution of 256 images on one core take 24 ms by
    # Paddle's kernel and 10 ms so for 1 cell of 256 channels, 21 and 11 for 4 of 128, but 13 and 14 for 16 of 64.
    MAX_CELLS = 4

    @staticmethod
    def can_replace(layer: nn.Layer) -> bool:
        """Return whether a layer is a plain convolution, not one of pixels, with the same padding on all sides."""
        return (
            type(layer) is nn.Conv2D
            and layer._groups == 1
            and layer._in_channels > 3
            and isinstance(layer._padding, int)
            and list(layer._dilation) == [1, 1]
            and layer._padding_mode == "zeros"
            and layer._data_format == "NCHW"
        )

    def forward(self, x: Tensor) -> Tensor:
        if not paddle.in_dynamic_mode():  # a traced graph does not know the number of images
            return super().forward(x)
        kernel, padding = self.weight.shape[2:], cast(int, self._padding)
        rows, columns = (
            (side + 2 * padding - kernel_side) // stride + 1
            for side, kernel_side, stride in zip(x.shape[2:], kernel, self._stride, strict=True)
        )
        if not 0 < rows * columns <= self.MAX_CELLS:
            return super().forward(x)
        patches = F.unfold(x, kernel, self._stride, padding)  # [N, C * h * w, rows * columns]
        patches = patches.transpose([1, 0, 2]).flatten(1)
        y = paddle.matmul(self.weight.reshape([self._out_channels, -1]), patches)
        y = y.reshape([-1, x.shape[0], rows, columns]).transpose([1, 0, 2, 3])  # [N, C_out, rows, columns]
        return y if self.bias is None else y + self.bias.reshape([1, -1, 1, 1])


class _Linear(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        save_for_backward(ctx, x, weight)
        ctx.needs_input_gradient = not x.stop_gradient
        return _affine(_as_rows(x), weight, bias).reshape([*x.shape[:-1], weight.shape[1]])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensor()
        row_gradients = _as_rows(gradient)
        input_gradient = paddle.matmul(gradient, weight, transpose_y=True) if ctx.needs_input_gradient else None
        weight_gradient = paddle.matmul(_as_rows(x), row_gradients, transpose_x=True)
        return input_gradient, weight_gradient, sum_axis(row_gradients, 0)


class _LinearOfTokens(PyLayer):
    """Linear layer on the given rows of `[B * L, D]` only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, token_rows: Tensor) -> Tensor:
        tokens = paddle.gather(_as_rows(x), token_rows)
        save_for_backward(ctx, tokens, weight, token_rows)
        ctx.needs_input_gradient = not x.stop_gradient
        return scatter_tokens(_affine(tokens, weight, bias), token_rows, x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        tokens, weight, token_rows = ctx.saved_tensor()
        token_gradients = paddle.gather(_as_rows(gradient), token_rows)
        parameter_gradients = paddle.matmul(tokens, token_gradients, transpose_x=True), sum_axis(token_gradients, 0)
        if not ctx.needs_input_gradient:
            return None, *parameter_gradients, None
        input_gradients = paddle.matmul(token_gradients, weight, transpose_y=True)
        return scatter_tokens(input_gradients, token_rows, gradient.shape), *parameter_gradients, None


def _affine(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return `rows @ weight + bias`; the product begins from the bias, which spares a pass over the result."""
    return paddle.addmm(bias, rows, weight)


class _LayerNorm(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        save_for_backward(ctx, x, weight)
        ctx.epsilon = epsilon
        ctx.needs_input_gradient = not x.stop_gradient
        return F.layer_norm(x, weight.shape, weight, bias, epsilon)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensor()
        x, gradient_rows = _as_rows(x), _as_rows(gradient)
        num_rows = x.shape[0]
        ones = paddle.ones([num_rows], x.dtype)

        # Paddle's kernels of batch norms take a quarter of the time of its kernel for gradients of LayerNorm. Each row
        # of `x` is a channel of one image here, so that the norm of a channel is the LayerNorm of a row.
        #
        # The kernels and the order of their arguments are private (3.3.1). After the tensors come is_test, momentum,
        # epsilon, layout, use_global_stats and trainable_statistics; in backward is_test comes after the layout.
        image = x.unsqueeze(0)  # [1, N, D]
        zeros = paddle.zeros([num_rows], x.dtype)
        running_mean, running_variance = zeros.clone(), zeros.clone()  # required, and not used
        normed, _, _, means, scales, _ = paddle._C_ops.batch_norm(
            image, running_mean, running_variance, ones, zeros, False, 1.0, ctx.epsilon, "NCHW", False, False
        )
        input_gradient = None
        if ctx.needs_input_gradient:
            # Not `gradient_rows * weight`: Paddle multiplies operands of equal shape three times as fast.
            normed_gradient = paddle.matmul(ones.unsqueeze(1), weight.unsqueeze(0)).multiply_(gradient_rows)
            gradients = paddle._C_ops.batch_norm_grad(
                image, ones, zeros, None, None, means, scales, None, normed_gradient.unsqueeze(0),
                1.0, ctx.epsilon, "NCHW", False, False, False,
            )  # fmt: skip
            input_gradient = gradients[0].reshape(gradient.shape)
        weight_gradient = sum_axis(normed.squeeze(0).multiply_(gradient_rows), 0)
        return input_gradient, weight_gradient, sum_axis(gradient_rows, 0)


def _as_rows(x: Tensor) -> Tensor:
    """Reshape `[..., D]` to `[N, D]`."""
    return x.reshape([-1, x.shape[-1]])


def _needs_gradients(x: Tensor, *parameters: Tensor | None) -> bool:
    """Return whether autograd on a CPU will request the gradients of all these parameters; False in a traced graph."""
    if not paddle.in_dynamic_mode() or not paddle.is_grad_enabled() or not x.place.is_cpu_place():
        return False
    return all(parameter is not None and not parameter.stop_gradient for parameter in parameters)


def sum_axis(x: paddle.Tensor, axis: int) -> paddle.Tensor:
    """Sum a matrix `[r, c]` over an axis: `[c]` (axis 0) or `[r]` (axis 1)."""
    if not x.place.is_cpu_place():
        return x.sum(axis)
    return paddle.matmul(x, paddle.ones([x.shape[axis]], x.dtype), transpose_x=axis == 0)


def sum_channels(x: paddle.Tensor) -> paddle.Tensor:
    """Sum `[B, C, ...]` for each channel: `[C]`."""
    batch_size, channels = x.shape[:2]
    map_sums = sum_axis(x.reshape([batch_size * channels, -1]), 1)
    return sum_axis(map_sums.reshape([batch_size, channels]), 0)


def add_pairwise(rows: paddle.Tensor, columns: paddle.Tensor) -> paddle.Tensor:
    """Add `[r]` and `[c]` to `[r, c]`; on CPU, Paddle takes five times as long to add `[r, 1]` and `[c]`."""
    return columns.expand([rows.shape[0], columns.shape[0]]) + rows.unsqueeze(1)


def expand_for_cpu(x: paddle.Tensor, shape: Sequence[int]) -> paddle.Tensor:
    """Expand a tensor on a CPU to a shape that it broadcasts to; elsewhere and in a traced graph return it unchanged.

    Paddle takes ten times as long on CPU to broadcast within an operation.
    """
    return x.expand(shape) if paddle.in_dynamic_mode() and x.place.is_cpu_place() else x


def add_to_rows(x: Tensor, row: Tensor) -> Tensor:
    """Add a parameter to each row of a batch; on a CPU its gradient is a matrix product.

    Args:
        x: `[B, P, D]`.
        row: the parameter, `[D]` or `[1, P, D]`.
    """
    if not runtime.uses_cpu_layers(x):
        return x + row
    return _AddToRows.apply(x, row)


class _AddToRows(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, row: Tensor) -> Tensor:
        ctx.row_shape = None if row.stop_gradient else row.shape
        ctx.needs_input_gradient = not x.stop_gradient
        return x + row.expand(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        row_gradient = None
        if ctx.row_shape is not None:
            rows = gradient.reshape([-1, math.prod(ctx.row_shape)])
            row_gradient = sum_axis(rows, 0).reshape(ctx.row_shape)
        return gradient if ctx.needs_input_gradient else None, row_gradient


def embed_patches(images: Tensor, layer: nn.Conv2D) -> Tensor:
    """Convolve images of whole patches that do not overlap.

    On a CPU this is a matrix product over all images. Paddle's kernel multiplies image by image, and its result would
    have to be transposed.

    Args:
        images: `[B, C, H, W]`.
        layer: convolution whose stride is the size of its kernel.

    Returns:
        The patches row by row, `[B, P, D]`.
    """
    # A layer with hooks, or of a derived class such as LoRA's, must be called. The hook of mixed precision does nothing
    # on CPUs, which have none.
    hooks = {*layer._forward_pre_hooks.values(), *layer._forward_post_hooks.values()} - {convert_output}
    if hooks or type(layer) is not nn.Conv2D or not runtime.uses_cpu_layers(images):
        return layer(images).flatten(2).transpose([0, 2, 1])
    num_images, channels, height, width = images.shape
    out_channels, _, patch_height, patch_width = layer.weight.shape
    rows, columns = height // patch_height, width // patch_width
    patches = images.reshape([num_images, channels, rows, patch_height, columns, patch_width])
    patches = patches.transpose([0, 2, 4, 1, 3, 5]).reshape([num_images, rows * columns, -1])  # [B, P, C * h * w]
    weight = layer.weight.reshape([out_channels, -1])
    if layer.bias is None:
        return paddle.matmul(patches, weight, transpose_y=True)
    return _linear(patches, weight.t(), layer.bias)


def unbind(x: Tensor) -> list[Tensor]:
    """Return `x[0]`, `x[1]`, ...; on a CPU they share the memory of `x`."""
    if x.shape[0] == 1:
        return [x.squeeze(0)]
    # Paddle's lazy views share it, too, but are off on CPUs, see the switch `strides` of `device/runtime.py`.
    if runtime.uses_cpu_layers(x) and x.is_contiguous():
        return list(_Unbind.apply(x))
    return x.unbind(0)


class _Unbind(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, ...]:
        # A private method (3.3.1): the rows from the first number up to the second, without a copy.
        return tuple(x._slice(index, index + 1).squeeze(0) for index in range(x.shape[0]))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return paddle.stack(gradients)


def save_for_backward(ctx: PyLayerContext, *tensors: paddle.Tensor) -> None:
    """Save tensors in the context of a PyLayer for its backward; lazy views are copied.

    In a recomputed block, Paddle (3.3.1) passes saved tensors on without their strides: backward would read other
    elements of the storage than those of the view.
    """
    ctx.save_for_backward(*(tensor.contiguous() for tensor in tensors))
