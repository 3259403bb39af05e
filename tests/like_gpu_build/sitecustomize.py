"""Let the CPU build of Paddle take the Python paths of a GPU build, in every process with this folder on PYTHONPATH.

Python imports a module of this name when it starts, so this also works in processes that tests start. Of the functions
that a GPU build computes in another way, the towers use one: `paddle.nn.functional.linear` calls `linear_v2`, also in
traced graphs (nn/functional/common.py, Paddle 3.3.1). The CPU build has that kernel too.
"""

import importlib.abc
import importlib.util
import sys
from types import FunctionType

LINEAR_MODULE = "paddle.nn.functional.common"


class GpuBuild:
    """The package `paddle`, which says that it is a build for GPUs."""

    def __init__(self, package):
        self._package = package

    def __getattr__(self, name):
        return getattr(self._package, name)

    def is_compiled_with_cuda(self):
        return True


def make_gpu_linear(module):
    """Return the function `linear` of Paddle's module as it runs in a GPU build.

    It is Paddle's own code, in which only the name `paddle` means something else. So it obeys Paddle's flags, and it
    stays right when Paddle changes it.
    """
    variables = vars(module) | {"paddle": GpuBuild(module.paddle)}
    return FunctionType(module.linear.__code__, variables, "linear", module.linear.__defaults__)


class LinearFinder(importlib.abc.MetaPathFinder):
    """Replace `linear` as soon as its module is imported, before other modules of Paddle import it from there."""

    def find_spec(self, name, path, target=None):
        if name != LINEAR_MODULE:
            return None
        sys.meta_path.remove(self)  # for the other finders, and because the module is imported once
        spec = importlib.util.find_spec(name)
        execute_original = spec.loader.exec_module

        def execute(module):
            execute_original(module)
            module.linear = make_gpu_linear(module)

        spec.loader.exec_module = execute
        return spec


if __name__ == "sitecustomize":  # a test that imports `make_gpu_linear` has Paddle already
    sys.meta_path.insert(0, LinearFinder())
