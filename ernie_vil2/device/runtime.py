"""The process that Paddle runs in, its device, and all that only makes Paddle fast on CPU.

With the switches below results stay equal to rounding, and other devices as they are. Each is set only where the user
has not decided otherwise. `configure`, for the command lines, sets the first three, which must be set before Paddle is
imported, `set_device` sets `strides`, `cpu_kernels.speed_up` a model's `layers`, and training runs within
`flushed_denormals`:

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
  `cpu_kernels`.

`ERNIE_VIL2_RUNTIME=-malloc,-layers` switches these two off, `ERNIE_VIL2_RUNTIME=0` all. The first two reach child
processes through the environment. Only the standard library is imported.
"""

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Literal

from ernie_vil2.device.extras import missing
from ernie_vil2.version import __version__

SWITCH = "ERNIE_VIL2_RUNTIME"
SWITCHES = ("mkl", "threads", "malloc", "denormals", "strides", "layers")
INHERITED_THREADS = "ERNIE_VIL2_MKL_NUM_THREADS"
"""Our own thread count, left for child processes: what equals it was not the user's choice."""

_MALLOC_VARIABLES = [f"MALLOC_{x}_" for x in ("TOP_PAD", "MMAP_MAX", "MMAP_THRESHOLD", "TRIM_THRESHOLD")]
# glibc's malloc.h: never map a block of its own, never give the heap's end back, grow the heap by 256 MiB.
_MALLOC_SETTINGS = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1), "M_TOP_PAD": (-2, 256 << 20)}

PACKAGES = (
    "paddlepaddle",
    "paddlepaddle-gpu",
    "paddlenlp",
    "paddleclas",
    "numpy",
    "opencv-python",
    "pillow",
    "simplejpeg",
)

_applied: dict[str, str] = {}


def configure(environ: MutableMapping[str, str] = os.environ) -> None:
    """Prepares this process, and those that it starts, for Paddle, which must not have been imported: the CPU switches,
    and fewer warnings. It is for a program to call: the command lines do, `import ernie_vil2` does not. ValueError if
    `ERNIE_VIL2_RUNTIME` is not understood."""
    if "paddle" not in sys.modules:
        _applied.clear()
    for name in _switched_off(environ):
        _applied[name] = f"off ({SWITCH}={environ[SWITCH]})"
    for name, set_switch in (("mkl", _set_mkl_cpu_type), ("threads", _set_mkl_threads), ("malloc", _set_malloc)):
        if not enabled(name, environ):
            continue
        if name != "malloc" and "paddle" in sys.modules:
            _applied.setdefault(name, "not set: paddle was imported first; call ernie_vil2.runtime.configure() before")
        else:
            _applied[name] = set_switch(environ)
    ignore_ccache_hint()
    # Of no use to a user here: a note on batch norm, and one of setuptools.
    for message in ("When training, we now always track", "Setuptools is replacing distutils"):
        warnings.filterwarnings("ignore", message=message)


def ignore_ccache_hint() -> None:
    """Leave out what Paddle prints when it is imported: a hint for compiling extensions, which nothing here does."""
    warnings.filterwarnings("ignore", message="No ccache found")


def is_surely_cpu(device: str | None) -> bool:
    """Whether a device, named as for `set_device`, is the CPU, as far as is known without importing Paddle."""
    if device in (None, "auto"):
        return not any(importlib.metadata.distributions(name="paddlepaddle-gpu"))
    return device == "cpu"


def set_device(name: str | None, task: str = "this command") -> str:
    """Makes a device (`auto`, `cpu`, `gpu`, `gpu:0`, ...; `cuda` is `gpu`; None: the one that Paddle has now) this
    process's, and returns its name in Paddle, which is imported. `task` is what needs it, as the subject of a sentence.

    Raises:
        MissingPackage: Paddle is not installed.
        ValueError: there is no such device, or Paddle cannot use it; the message says what to do.
    """
    ignore_ccache_hint()
    try:
        import paddle
    except ModuleNotFoundError as error:
        if error.name != "paddle":
            raise
        raise missing("paddle", task) from None

    if name is None:
        name = paddle.get_device()
    if not name.strip():
        raise ValueError("the name of the device is empty: name auto, cpu, gpu or gpu:0")
    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if name == "auto":
        name = "gpu" if gpus else "cpu"
    if asked := re.fullmatch(r"(?:gpu|cuda)(:\d+)?", name):
        if not paddle.is_compiled_with_cuda():
            raise ValueError(f"device {name}: the installed Paddle is its CPU build. Install the GPU build instead "
                             "(docs/installation.md says how), or name cpu")  # fmt: skip
        name = f"gpu{asked[1] or ''}"
        if int((asked[1] or ":0")[1:]) >= gpus:
            raise ValueError(f"device {name}: Paddle sees {gpus} GPUs; name another, or look at nvidia-smi and "
                             "CUDA_VISIBLE_DEVICES")  # fmt: skip
    if name == "cpu":
        copy_transposed()
    paddle.set_device(name)
    return paddle.get_device()


def check_precision(
    precision: Literal["float32", "bfloat16", "float16"], option: str = "-o Training.precision"
) -> None:
    """ValueError, which names the option, if a matrix product would be computed in another precision: Paddle's mixed
    precision is without effect, and without an error, on CPU and on GPUs too old for it."""
    if precision == "float32":
        return
    import paddle

    one = paddle.ones([1, 1])
    with warnings.catch_warnings(action="ignore"), paddle.amp.auto_cast(dtype=precision):
        computed = (one @ one).dtype
    if computed != getattr(paddle, precision):
        raise ValueError(
            f"{option}={precision}: on {paddle.get_device()} Paddle would compute in "
            f"{str(computed).removeprefix('paddle.')}; set {option}=float32, or take a GPU that has it"
        )


def environment() -> dict[str, Any]:
    """Versions, git revision of the package's checkout (None where it is installed) and runtime settings."""
    versions = {"python": platform.python_version(), "ernie_vil2": __version__}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # An installation may lie within the checkout of something else.
        subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True, check=True)  # noqa: S603  -- git, with arguments of ours
        revision = subprocess.run(  # noqa: S603  -- git, with arguments of ours
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)  # noqa: S603  -- git, with arguments of ours
        revision += "+changes" * bool(changed.stdout.strip())
    except (OSError, subprocess.CalledProcessError):
        revision = None
    return {"versions": versions, "git": revision, "runtime": applied(), "command": sys.argv}


def enabled(name: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the user left the switch `name` of `SWITCHES` on; ValueError if `ERNIE_VIL2_RUNTIME` is malformed."""
    return name not in _switched_off(environ)


def copy_transposed() -> None:
    """Set `strides`: Paddle's lazy views cost more later, in kernels that read them element by element."""
    import paddle

    flag = "FLAGS_use_stride_kernel"
    if not enabled("strides"):
        return
    if flag in os.environ:
        note("strides", f"kept {flag}={os.environ[flag]}")
    else:
        paddle.set_flags({flag: False})
        note("strides", f"{flag}=0")


def note(name: str, done: str) -> None:
    """Records what was done for a switch that acts later than `configure`."""
    _applied[name] = done


def applied() -> dict[str, str]:
    """Switch -> what was set, or why nothing was; the last three appear once they have acted."""
    return {name: _applied[name] for name in SWITCHES if name in _applied}


def summary() -> str:
    """The names of `applied` on one line; what each has set is in the `environment.json` of a run."""
    return f"CPU switches: {', '.join(applied())} (see environment.json)"


def _switched_off(environ: Mapping[str, str]) -> set[str]:
    names = [name.strip() for name in environ.get(SWITCH, "").split(",") if name.strip()]
    if names == ["0"]:
        return set(SWITCHES)
    off = {name.removeprefix("-") for name in names}
    if not off <= set(SWITCHES) or not all(name.startswith("-") for name in names):
        raise ValueError(
            f"{SWITCH}={environ[SWITCH]!r} is not understood: 0 switches all off, -NAME,-NAME some of "
            + ", ".join(SWITCHES)
        )
    return off


def processor(cpuinfo: str | Path = "/proc/cpuinfo") -> tuple[str, set[str]]:
    """Vendor (`AuthenticAMD`, `GenuineIntel`, ...) and feature flags of the first core; empty if unknown."""
    fields = {}
    try:
        with Path(cpuinfo).open() as lines:
            for line in lines:
                if not line.strip():
                    break
                name, _, value = line.partition(":")
                fields[name.strip()] = value.strip()
    except OSError:
        pass
    return fields.get("vendor_id", ""), set(fields.get("flags", "").split())


def usable_cores(cpu_max: str | Path = "/sys/fs/cgroup/cpu.max") -> int:
    """Cores that this process may keep busy: its CPU affinity, cut by a container's quota, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with Path(cpu_max).open() as file:
            quota, period = file.read().split()
    except OSError:
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def threads() -> int:
    """Threads for a library that takes their number: those of Paddle, see the switch `threads`."""
    chosen = os.environ.get("MKL_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or ""
    return int(chosen) if chosen.isdecimal() and int(chosen) else max(1, usable_cores() // local_ranks(os.environ))


def local_ranks(environ: Mapping[str, str]) -> int:
    """Training processes on this machine, as Paddle's launcher announces them; 1 without it."""
    return max(1, int(environ.get("PADDLE_LOCAL_SIZE") or environ.get("PADDLE_TRAINERS_NUM") or 1))


def _set_mkl_cpu_type(environ: MutableMapping[str, str]) -> str:
    name = "MKL_DEBUG_CPU_TYPE"
    if name in environ:
        return f"kept {name}={environ[name]}"
    vendor, flags = processor()
    if vendor != "AuthenticAMD" or "avx2" not in flags:
        return f"not needed ({vendor or 'unknown processor'})"
    environ[name] = "5"
    return f"{name}=5 ({vendor})"


def _set_mkl_threads(environ: MutableMapping[str, str]) -> str:
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


def _set_malloc(environ: MutableMapping[str, str]) -> str:
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
def flushed_denormals() -> Iterator[None]:
    """Within the block this thread, and threads it starts, take numbers below 1.2e-38 for 0, as GPUs do.

    The tails of GELU and softmax fill with such numbers as a model gets surer, and an x86 processor takes a hundred
    times longer over each. On other processors, without glibc, and with `denormals` switched off, nothing is changed.
    """
    glibc_x86 = platform.machine() in ("x86_64", "AMD64") and hasattr(ctypes.CDLL(None), "fegetenv")
    if not enabled("denormals") or not glibc_x86:
        yield
        return
    import numpy as np

    for kind in (np.float16, np.float32, np.float64):
        np.finfo(kind)  # NumPy keeps what it measures here, and would measure a smallest number of 0 in the block
    libm = ctypes.CDLL(None)
    # glibc's fenv_t on x86-64: seven words of the x87 unit, then MXCSR, whose bits 15 and 6 flush results and inputs.
    before = (ctypes.c_uint32 * 8)()
    libm.fegetenv(before)
    flushing = type(before)(*before)
    flushing[7] |= 1 << 15 | 1 << 6
    libm.fesetenv(flushing)
    note("denormals", "taken for 0 in training")
    try:
        yield
    finally:
        libm.fesetenv(before)
