"""Everything that only makes Paddle fast on CPU; results stay equal to rounding, other devices as they are.

Each switch is set only where the user has not decided otherwise. `runtime.configure`, for the command lines, sets the
first three, as they must stand before Paddle is imported, `runtime.set_device` sets `strides`, `layers.speed_up` a
model's `layers`, and training runs within `flushed_denormals`:

- `mkl`: `MKL_DEBUG_CPU_TYPE=5` on AMD processors with AVX2; the bundled MKL keeps its fast path for Intel otherwise.
  Left alone when it is set.
- `threads`: `MKL_NUM_THREADS`, the usable cores divided by the local ranks; Paddle's default is one thread.
  Left alone when it or `OMP_NUM_THREADS` is set (to other than 1 under Paddle's launcher, which writes that 1 itself).
- `malloc`: thresholds of glibc's malloc. Freed memory stays with the process, so that results need no new pages, which
  cost more than an elementwise operation itself. The price is that memory once used is not given back.
  Left alone when `MALLOC_TOP_PAD_` or a relative of it, or a `glibc.malloc` tunable, is set.
- `denormals`: training takes numbers below 1.2e-38 for 0, see `flushed_denormals`.
- `strides`: transposed tensors are copied at once. Left alone when `FLAGS_use_stride_kernel` is set.
- `layers`: gradients of biases and norms, and small convolutions, by matrix products, and no products of padding, see
  `cpu.layers`.

`ERNIE_VIL2_RUNTIME=-malloc,-layers` switches these two off, `ERNIE_VIL2_RUNTIME=0` all. The first two reach child
processes through the environment.
"""

from .switches import (
    SWITCH,
    SWITCHES,
    applied,
    copy_transposed,
    enabled,
    flushed_denormals,
    processor,
    set_before_paddle,
    summary,
    threads,
    usable_cores,
)

__all__ = [
    "SWITCH",
    "SWITCHES",
    "applied",
    "copy_transposed",
    "enabled",
    "flushed_denormals",
    "processor",
    "set_before_paddle",
    "summary",
    "threads",
    "usable_cores",
]
