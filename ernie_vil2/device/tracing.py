"""Tracing a layer into one of Paddle's static graphs, so that a trace leaves nothing behind."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from paddle.jit.dy2static.parameter_recorder import _global_inplace_map, _global_parameter_recorder

_TRACING = RLock()
"""What Paddle keeps while it traces is the whole process's."""


@contextmanager
def tracing() -> Iterator[None]:
    """Belongs around `paddle.jit.to_static` and the first use of what it returns.

    While it traces, Paddle keeps a graph's parameters under `id(program)`, and forgets them at the end. If the layer
    raises, it keeps them: the next graph at the same address is given values of a program that no longer exists, and
    the process ends with SIGSEGV or SIGFPE (measured with Paddle 3.3.1). For every operation it keeps the Python stack
    for ever, too: 50,000 frames of a model of base size, unless stacks are asked for without any.
    """
    with _TRACING:
        before = vars(sys).get("tracebacklimit")
        sys.tracebacklimit = 0
        try:
            yield
        except BaseException:
            _global_parameter_recorder.params_dict.clear()
            _global_parameter_recorder.tensor2value.clear()
            _global_inplace_map.params_dict.clear()
            raise
        finally:
            if before is None:
                del sys.tracebacklimit
            else:
                sys.tracebacklimit = before
