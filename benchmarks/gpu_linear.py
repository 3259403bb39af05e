"""Paddle's linear layer as its GPU build computes it, on the CPU build."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any


class GpuBuild:
    """The package `paddle`, which says that it is a build for GPUs."""

    def __init__(self, package: ModuleType):
        self._package = package

    def __getattr__(self, name: str) -> Any:
        return getattr(self._package, name)

    def is_compiled_with_cuda(self) -> bool:
        return True


def make_gpu_linear(module: Any) -> Callable:
    """Return the function `linear` of `paddle.nn.functional.common` as it runs in a GPU build.

    It is Paddle's own code, in which only the name `paddle` means something else. So it obeys Paddle's flags, and it
    stays right when Paddle changes it.
    """
    variables = vars(module) | {"paddle": GpuBuild(module.paddle)}
    return FunctionType(module.linear.__code__, variables, "linear", module.linear.__defaults__)
