"""Tracing of layers into Paddle's static graphs, so that a trace leaves nothing behind in the process."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

# Private, as of Paddle 3.3.1: nothing public removes what a failed trace has left in these tables, see `tracing`.
from paddle.jit.dy2static.parameter_recorder import _global_inplace_map, _global_parameter_recorder

# Paddle's tables of a trace belong to the whole process, so only one thread may trace at a time.
_TRACING_LOCK = RLock()


@contextmanager
def tracing() -> Iterator[None]:
    """Clean up after a trace: put `paddle.jit.to_static` and the first use of what it returns into the block.

    Paddle records the parameters of a graph under `id(program)` while it traces, and removes them at the end, but not
    if the layer raises. The next graph at the same address is then given values of a program that no longer exists, and
    the process ends with SIGSEGV or SIGFPE (measured with Paddle 3.3.1). Paddle also keeps the Python stack of every
    operation for ever, 50,000 frames for a model of base size, unless stacks are limited to no frame.
    """
    with _TRACING_LOCK:
        previous_limit = vars(sys).get("tracebacklimit")
        sys.tracebacklimit = 0
        try:
            yield
        except BaseException:
            _global_parameter_recorder.params_dict.clear()
            _global_parameter_recorder.tensor2value.clear()
            _global_inplace_map.params_dict.clear()
            raise
        finally:
            if previous_limit is None:
                del sys.tracebacklimit
            else:
                sys.tracebacklimit = previous_limit
