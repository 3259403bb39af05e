"""Let the CPU build of Paddle take the Python paths of a GPU build, where this folder and the root are on PYTHONPATH.

Python imports a module of this name when it starts, so this also works in processes that tests start. Of the functions
that a GPU build computes in another way, the towers use one: `paddle.nn.functional.linear` calls `linear_v2`, also in
traced graphs (nn/functional/common.py, Paddle 3.3.1). The CPU build has that kernel too.
"""

import importlib.abc
import importlib.util
import sys

from benchmarks.gpu_linear import make_gpu_linear

LINEAR_MODULE = "paddle.nn.functional.common"


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


sys.meta_path.insert(0, LinearFinder())
