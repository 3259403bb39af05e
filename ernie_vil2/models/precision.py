"""Whether the device computes in the precision that was asked for."""

from __future__ import annotations

import warnings

import paddle

from ernie_vil2.config import ConfigError
from ernie_vil2.config.section import Precision


def check_precision(precision: Precision, option: str = "-o Training.precision") -> None:
    """Paddle's mixed precision is without effect, and without an error, on CPU and on GPUs too old for it.

    Args:
        precision: float32, bfloat16 or float16.
        option: what asked for it, for the message.

    Raises:
        ConfigError: a matrix product would be computed in another one.
    """
    if precision == "float32":
        return
    one = paddle.ones([1, 1])
    with warnings.catch_warnings(action="ignore"), paddle.amp.auto_cast(dtype=precision):
        computed = (one @ one).dtype
    if computed != getattr(paddle, precision):
        raise ConfigError(
            f"{option}={precision}: on {paddle.get_device()} Paddle would compute in "
            f"{str(computed).removeprefix('paddle.')}; set {option}=float32, or take a GPU that has it"
        )
