"""Corrections of Paddle's mixed precision (O1), which leaves some results in float32."""

from typing import Any

import paddle
from paddle import Tensor, nn


def keep_maps_narrow(model: nn.Layer) -> None:
    """Make the convolutions of a model return feature maps of 16 bits under mixed precision, as linear layers do.

    Hooks are added to its layers. Paddle (3.3.1) adds the bias of a convolution in float32 under O1, and computes all
    of a depthwise one in float32. Norms and activations up to the next convolution would then be computed in float32,
    and kept so for backward.
    Batch norms need no correction: they compute in the type of their input, with statistics in float32
    (`GetPromoteType` in Paddle's amp_utils.h; `sync_batch_norm_` is not converted at all).

    The depthwise convolution itself stays in float32. On the white list, `depthwise_conv2d` would compute the gradient
    of its weight in 16 bits, in which a thread of Paddle's kernel adds up the products of all rows
    (KernelDepthwiseConvFilterGradNCHW in phi/kernels/gpu/depthwise_conv.h). Emulated with bfloat16, that gradient is
    off by 2 to 5 %; rounding the right one costs 0.2 %.
    """
    for layer in model.sublayers(include_self=True):
        if isinstance(layer, nn.Conv1D | nn.Conv2D):
            layer.register_forward_post_hook(convert_output)


def convert_output(layer: nn.Layer, inputs: Any, output: Tensor) -> Tensor:
    """Convert the output of a layer to the type of mixed precision, if it is on; a hook of the layer."""
    if not paddle.amp.is_autocast_enabled():
        return output
    return output.astype(paddle.amp.get_autocast_dtype())
