"""A parameter's initial scale."""

import paddle


def rescale(parameter: paddle.Tensor, factor: float) -> None:
    """Multiplies a parameter in place; one that `paddle.LazyGuard` has left without values stays so."""
    if parameter._is_initialized():
        parameter.set_value(parameter * factor)
