"""Process switches that make Paddle fast on CPU, set before Paddle is imported.

`import ernie_vil2` sets them, each only where the user has not decided otherwise:

- `MKL_DEBUG_CPU_TYPE=5` on AMD processors with AVX2: the bundled MKL keeps its fast path for Intel otherwise.
  Left alone when it is set.
- `MKL_NUM_THREADS`, the usable cores divided by the local ranks: Paddle's default is one thread.
  Left alone when it or `OMP_NUM_THREADS` is set (to other than 1 under Paddle's
  launcher, which writes that 1 itself).
- Thresholds of glibc's malloc: freed memory stays with the process, so that results need no new pages, which
  cost more than an elementwise operation itself. The price is that memory once used is not given back.
  Left alone when `MALLOC_TOP_PAD_` or a relative of it, or a `glibc.malloc` tunable, is set.

`ERNIE_VIL2_RUNTIME=0` switches all of them off. The first two reach child processes through the environment.
Only the standard library is imported.
"""

import contextlib
import ctypes
import os
import platform
import sys
import warnings

SWITCH = "ERNIE_VIL2_RUNTIME"
INHERITED_THREADS = "ERNIE_VIL2_MKL_NUM_THREADS"
"""Our own thread count, left for child processes: what equals it was not the user's choice."""

_MALLOC_VARIABLES = [f"MALLOC_{x}_" for x in ("TOP_PAD", "MMAP_MAX", "MMAP_THRESHOLD", "TRIM_THRESHOLD")]
# glibc's malloc.h: never map a block of its own, never give the heap's end back, grow the heap by 256 MiB.
_MALLOC_SETTINGS = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1), "M_TOP_PAD": (-2, 256 << 20)}

_applied: dict[str, str] = {}


def prepare(environ=os.environ):
    """Set the switches of this module for this process; `applied` then tells what was done."""
    _applied.clear()
    if environ.get(SWITCH) == "0":
        _applied["runtime"] = f"off ({SWITCH}=0)"
        return
    # Of no use to a user here: a hint for compiling extensions, a note on batch norm, and one of setuptools.
    for message in ("No ccache found", "When training, we now always track", "Setuptools is replacing distutils"):
        warnings.filterwarnings("ignore", message=message)
    if "paddle" in sys.modules:
        late = "not set: paddle was imported first; import ernie_vil2 before it"
        _applied.update(mkl_cpu_type=late, mkl_threads=late)
    else:
        _applied["mkl_cpu_type"] = _set_mkl_cpu_type(environ)
        _applied["mkl_threads"] = _set_mkl_threads(environ)
    _applied["malloc"] = _set_malloc(environ)


def applied():
    """What `prepare` did: switch -> what was set, or why nothing was."""
    return dict(_applied)


def cpu(cpuinfo="/proc/cpuinfo"):
    """Vendor (`AuthenticAMD`, `GenuineIntel`, ...) and the set of feature flags of the first core.

    Both are empty where the file does not exist or does not name them.
    """
    fields = {}
    try:
        with open(cpuinfo) as lines:
            for line in lines:
                if not line.strip():
                    break
                name, _, value = line.partition(":")
                fields[name.strip()] = value.strip()
    except OSError:
        pass
    return fields.get("vendor_id", ""), set(fields.get("flags", "").split())


def usable_cores(cpu_max="/sys/fs/cgroup/cpu.max"):
    """Cores that this process may keep busy: its CPU affinity, cut by a container's quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open(cpu_max) as file:
            quota, period = file.read().split()
    except OSError:
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def local_ranks(environ):
    """Training processes on this machine, as Paddle's launcher announces them; 1 without it."""
    return max(1, int(environ.get("PADDLE_LOCAL_SIZE") or environ.get("PADDLE_TRAINERS_NUM") or 1))


def _set_mkl_cpu_type(environ):
    name = "MKL_DEBUG_CPU_TYPE"
    if name in environ:
        return f"kept {name}={environ[name]}"
    vendor, flags = cpu()
    if vendor != "AuthenticAMD" or "avx2" not in flags:
        return f"not needed ({vendor or 'unknown processor'})"
    environ[name] = "5"
    return f"{name}=5 ({vendor})"


def _set_mkl_threads(environ):
    # MKL's own variable, not OMP_NUM_THREADS: Paddle warns about that one, and writes 1 into it.
    name = "MKL_NUM_THREADS"
    if name in environ and environ[name] != environ.get(INHERITED_THREADS):
        return f"kept {name}={environ[name]}"
    omp = environ.get("OMP_NUM_THREADS")
    # The launcher and our own parent process have imported Paddle, so a 1 from them is what Paddle wrote.
    by_paddle = omp == "1" and ("PADDLE_LOCAL_SIZE" in environ or INHERITED_THREADS in environ)
    if omp and not by_paddle:
        return f"kept OMP_NUM_THREADS={omp}"
    cores, ranks = usable_cores(), local_ranks(environ)
    environ[name] = environ[INHERITED_THREADS] = str(max(1, cores // ranks))
    return f"{name}={environ[name]} (usable cores {cores}, local ranks {ranks})"


def _set_malloc(environ):
    for name in _MALLOC_VARIABLES:
        if name in environ:
            return f"kept {name}={environ[name]}"
    if "glibc.malloc" in environ.get("GLIBC_TUNABLES", ""):
        return f"kept GLIBC_TUNABLES={environ['GLIBC_TUNABLES']}"
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return "not set (no glibc)"
    refused = [name for name, (number, value) in _MALLOC_SETTINGS.items() if not mallopt(number, value)]
    if refused:
        return f"glibc refused {', '.join(refused)}"
    return "M_MMAP_MAX=0 M_TRIM_THRESHOLD=-1 M_TOP_PAD=256MiB"


@contextlib.contextmanager
def flushed_denormals():
    """Within the block this thread, and threads it starts, take numbers below 1.2e-38 for 0, as GPUs do.

    The tails of GELU and softmax fill with such numbers as a model gets surer, and an x86 processor takes a hundred
    times longer over each. On other processors, and without glibc, nothing is changed.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not hasattr(ctypes.CDLL(None), "fegetenv"):
        yield
        return
    libm = ctypes.CDLL(None)
    # glibc's fenv_t on x86-64: seven words of the x87 unit, then MXCSR, whose bits 15 and 6 flush results and inputs.
    before = (ctypes.c_uint32 * 8)()
    libm.fegetenv(before)
    flushing = type(before)(*before)
    flushing[7] |= 1 << 15 | 1 << 6
    libm.fesetenv(flushing)
    try:
        yield
    finally:
        libm.fesetenv(before)


def set_device(name):
    """Make `Training.device` (`auto`, `cpu`, `gpu`, `gpu:0`, ...) this process's device; imports Paddle.

    On CPU, transposed tensors are copied at once: Paddle's lazy views cost more later, in kernels that read them
    element by element. `FLAGS_use_stride_kernel=1` in the environment brings the views back.
    """
    import paddle

    if name == "auto":
        name = "gpu" if paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() else "cpu"
    if name == "cpu" and "FLAGS_use_stride_kernel" not in os.environ:
        paddle.set_flags({"FLAGS_use_stride_kernel": False})
    paddle.set_device(name)
