"""Tracing of layers into Paddle's static graphs, so that a trace leaves nothing behind in the process."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import paddle

# Private, as of Paddle 3.3.1: nothing public removes what a failed trace has left in these tables, see `tracing`.
from paddle.jit.dy2static.parameter_recorder import _global_inplace_map, _global_parameter_recorder
from paddle.nn.attention import SDPBackend, sdpa_kernel

# Without this flag, `paddle.nn.functional.linear` of a GPU build adds the operation `linear_v2` to a graph, in place of
# `matmul` and `add` (Paddle 3.3.1).
_LINEAR_FLAG = "FLAGS_use_legacy_linear"
# Paddle's tables of a trace belong to the whole process, so only one thread may trace at a time.
_TRACING_LOCK = RLock()


@contextmanager
def tracing() -> Iterator[None]:
    """Clean up after a trace: put `paddle.jit.to_static` and the first use of what it returns into the block.

    Paddle records the parameters of a graph under `id(program)` while it traces, and removes them at the end, but not
    if the layer raises. The next graph at the same address is then given values of a program that no longer exists, and
    the process ends with SIGSEGV or SIGFPE (measured with Paddle 3.3.1). Paddle also keeps the Python stack of every
    operation for ever, 50,000 frames for a model of base size, unless stacks are limited to no frame.

    In a GPU build, too, a graph gets the operations of a CPU build: linear layers and fused attention become matrix
    products. Exports need them, because neither paddle2onnx 2.1.0 nor Paddle's inference on CPUs has those of a GPU
    build; a plan counts them.
    """
    with _TRACING_LOCK, sdpa_kernel(SDPBackend.MATH):
        previous_limit = vars(sys).get("tracebacklimit")
        previous_flag = paddle.get_flags(_LINEAR_FLAG)
        sys.tracebacklimit = 0
        paddle.set_flags({_LINEAR_FLAG: True})
        try:
            yield
        except BaseException:
            _global_parameter_recorder.params_dict.clear()
            _global_parameter_recorder.tensor2value.clear()
            _global_inplace_map.params_dict.clear()
            raise
        finally:
            paddle.set_flags(previous_flag)
            if previous_limit is None:
                del sys.tracebacklimit
            else:
                sys.tracebacklimit = previous_limit
