"""Paddle's process: its device, and switches that make Paddle fast on a CPU.

With these switches results are equal to rounding, and other devices are not affected. A switch is set only if the user
has not decided otherwise. The command lines call `configure`, which sets the first three: they must be set before
Paddle is imported. `set_device` sets `strides`, `cpu_kernels.speed_up` a model's `layers`, and training runs within
`flush_denormals`.

- `mkl`: `MKL_DEBUG_CPU_TYPE=5` on AMD processors with AVX2; without it, the MKL that Paddle brings keeps its fast
  kernels for Intel. Not set if the user has set it.
- `threads`: `MKL_NUM_THREADS`, the usable cores divided by the local ranks; Paddle's default is one thread. Not set if
  the user has set it or `OMP_NUM_THREADS` (to other than 1 under Paddle's launcher, which writes that 1 itself).
- `malloc`: thresholds of glibc's malloc. The process keeps freed memory, so that results need no new pages, which cost
  more than an elementwise operation. The price is that memory is never given back to the system. Not set if the user
  has set `MALLOC_TOP_PAD_` or a similar variable, or a `glibc.malloc` tunable.
- `denormals`: training treats numbers below 1.2e-38 as 0, see `flush_denormals`.
- `strides`: transposed tensors are copied at once. Not set if the user has set `FLAGS_use_stride_kernel`.
- `layers`: texts are computed without their padding, and layers and gradients by kernels that are faster on CPUs, see
  `token_packing` and `cpu_kernels`.

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

from ernie_vil2.device.extras import missing_package_error
from ernie_vil2.version import __version__

SWITCH_VARIABLE = "ERNIE_VIL2_RUNTIME"
SWITCHES = ("mkl", "threads", "malloc", "denormals", "strides", "layers")
# Tells child processes which number of threads this package has set: that number was not chosen by the user.
INHERITED_THREADS = "ERNIE_VIL2_MKL_NUM_THREADS"

# With one of these variables the user has set up malloc.
_MALLOC_VARIABLES = ("MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
# Parameters of mallopt, numbered as in glibc's malloc.h: no block gets a mapping of its own, which would be returned to
# the system when it is freed; the end of the heap is never returned; and the heap grows by 256 MiB, so that it rarely
# has to grow.
_MALLOC_SETTINGS = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1), "M_TOP_PAD": (-2, 256 << 20)}

# Packages whose versions are recorded.
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

# Oldest version of Paddle that may use GPUs. Where flash attention is not available, in float32 and on GPUs before
# Ampere, earlier versions compute attention by an operation for inference, which has no dropout and no gradient. This
# was read in Paddle's sources, pull request 70166.
OLDEST_GPU_PADDLE = (3, 3)
GPU_PADDLE_ADVICE = "Install the GPU build of Paddle 3.3.1 (docs/installation.md says how)"

_states: dict[str, str] = {}


def configure(environ: MutableMapping[str, str] = os.environ) -> None:
    """Prepare this process, and those that it starts, for Paddle: set the CPU switches and suppress idle warnings.

    Call it before Paddle is imported. It is for programs: the command lines call it, `import ernie_vil2` does not.

    Raises:
        ValueError: `ERNIE_VIL2_RUNTIME` is malformed.
    """
    if "paddle" not in sys.modules:
        _states.clear()
    for name in _find_switched_off(environ):
        _states[name] = f"off ({SWITCH_VARIABLE}={environ[SWITCH_VARIABLE]})"
    for name, set_switch in (("mkl", _set_mkl_cpu_type), ("threads", _set_mkl_threads), ("malloc", _set_malloc)):
        if not is_enabled(name, environ):
            continue
        # MKL reads its variables when Paddle loads it; malloc can be set up at any time.
        if name != "malloc" and "paddle" in sys.modules:
            _states.setdefault(name, "not set: paddle was imported first; call ernie_vil2.runtime.configure() before")
        else:
            _states[name] = set_switch(environ)
    ignore_ccache_hint()
    # Warnings that do not concern a user here: of Paddle's batch norm, and of setuptools.
    for message in ("When training, we now always track", "Setuptools is replacing distutils"):
        warnings.filterwarnings("ignore", message=message)


def ignore_ccache_hint() -> None:
    """Suppress what Paddle prints when it is imported: a hint for compiling extensions, which nothing here does."""
    warnings.filterwarnings("ignore", message="No ccache found")


def is_surely_cpu(device: str | None) -> bool:
    """Return whether a device, named as for `set_device`, is the CPU, as far as is known without importing Paddle."""
    if device is None or device.lower() == "auto":
        return not any(importlib.metadata.distributions(name="paddlepaddle-gpu"))
    return device.lower() == "cpu"


def set_device(name: str | None, task: str = "this command") -> str:
    """Import Paddle, make a device the one of this process, and return its name in Paddle.

    Args:
        name: `auto`, `cpu`, `gpu`, `gpu:0`, ...; `cuda` is the same as `gpu`; None: the device that Paddle has now.
        task: what needs Paddle, as the subject of a sentence.

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
        raise missing_package_error("paddle", task) from None

    if name is None:
        name = paddle.get_device()
    name = name.lower()  # as Paddle reads it: GPU is gpu, too
    if not name.strip():
        raise ValueError("the name of the device is empty: name auto, cpu, gpu or gpu:0")

    has_gpu_build = paddle.is_compiled_with_cuda()
    num_gpus = paddle.device.cuda.device_count() if has_gpu_build else 0
    if name == "auto":
        name = "gpu" if num_gpus else "cpu"
    gpu_match = re.fullmatch(r"(?:gpu|cuda)(?::(\d+))?", name)
    if gpu_match:
        if not has_gpu_build:
            raise ValueError(f"device {name}: the installed Paddle is its CPU build. {GPU_PADDLE_ADVICE}, or name cpu")
        number = gpu_match[1]
        name = "gpu" if number is None else f"gpu:{number}"
        if int(number or 0) >= num_gpus:
            raise ValueError(f"device {name}: Paddle sees {num_gpus} GPUs; name another, or look at nvidia-smi and "
                             "CUDA_VISIBLE_DEVICES")  # fmt: skip
        if objection := find_objection_to_gpus(paddle.__version__):
            raise ValueError(f"device {name}: {objection}. {GPU_PADDLE_ADVICE}, or name cpu")
    if name == "cpu":
        copy_transposed()
    paddle.set_device(name)
    return paddle.get_device()


def find_objection_to_gpus(version: str) -> str | None:
    """Return why a version of Paddle must not be used on GPUs, or None if it may."""
    match = re.match(r"(\d+)\.(\d+)", version)
    is_development_build = version.startswith("0.0.0")  # what Paddle calls its nightly builds
    if match is None or is_development_build or (int(match[1]), int(match[2])) >= OLDEST_GPU_PADDLE:
        return None
    return f"Paddle {version} computes no gradients of attention in float32, nor of any on GPUs before Ampere"


def check_precision(
    precision: Literal["float32", "bfloat16", "float16"], option: str = "-o Training.precision"
) -> None:
    """Check that the device computes matrix products in a precision.

    On CPU, and on GPUs that are too old for it, Paddle's mixed precision has no effect and raises no error.

    Args:
        precision: the precision.
        option: option that sets it, for the message.

    Raises:
        ValueError: Paddle would compute in another precision.
    """
    if precision == "float32":
        return
    import paddle

    matrix = paddle.ones([1, 1])
    with warnings.catch_warnings(action="ignore"), paddle.amp.auto_cast(dtype=precision):
        product_type = (matrix @ matrix).dtype
    if product_type != getattr(paddle, precision):
        raise ValueError(
            f"{option}={precision}: on {paddle.get_device()} Paddle would compute in "
            f"{str(product_type).removeprefix('paddle.')}; set {option}=float32, or take a GPU that has it"
        )


def describe_environment() -> dict[str, Any]:
    """Return versions, git revision of the package's checkout (None if there is no checkout), switches and command."""
    versions = {"python": platform.python_version(), "ernie_vil2": __version__}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"versions": versions, "git": _find_revision(), "runtime": switch_states(), "command": sys.argv}


def _find_revision() -> str | None:
    git = ["git", "-C", str(Path(__file__).parent)]

    def run_git(*arguments: str) -> str:
        child = subprocess.run([*git, *arguments], capture_output=True, text=True, check=True)  # noqa: S603  -- git, with arguments of ours
        return child.stdout.strip()

    try:
        # Fails unless git tracks this file: an installation may lie within the checkout of another project.
        run_git("ls-files", "--error-unmatch", Path(__file__).name)
        revision = run_git("rev-parse", "HEAD")
        if run_git("status", "--porcelain", "-uno"):
            revision += "+changes"
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision


def is_enabled(name: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the user left a switch of `SWITCHES` on; raise ValueError if `ERNIE_VIL2_RUNTIME` is malformed."""
    return name not in _find_switched_off(environ)


def uses_cpu_layers(x: Any) -> bool:
    """Return whether `layers` is on for a tensor: it lies on a CPU; False in a traced graph."""
    import paddle

    return paddle.in_dynamic_mode() and x.place.is_cpu_place() and is_enabled("layers")


def copy_transposed() -> None:
    """Set `strides`: Paddle's lazy views cost more later, in kernels that read them element by element."""
    import paddle

    flag = "FLAGS_use_stride_kernel"
    if not is_enabled("strides"):
        return
    if flag in os.environ:
        record_switch("strides", f"kept {flag}={os.environ[flag]}")
    else:
        paddle.set_flags({flag: False})
        record_switch("strides", f"{flag}=0")


def record_switch(name: str, state: str) -> None:
    """Record the state of a switch that is set later than in `configure`."""
    _states[name] = state


def switch_states() -> dict[str, str]:
    """Return what each switch has set, or why it has set nothing; the last three are missing until they are used."""
    return {name: _states[name] for name in SWITCHES if name in _states}


def summarize_switches() -> str:
    """Return the names of the recorded switches as a line; their states are in the `environment.json` of a run."""
    return f"CPU switches: {', '.join(switch_states())} (see environment.json)"


def _find_switched_off(environ: Mapping[str, str]) -> set[str]:
    words = [word.strip() for word in environ.get(SWITCH_VARIABLE, "").split(",") if word.strip()]
    if words == ["0"]:
        return set(SWITCHES)
    names = {word.removeprefix("-") for word in words}
    if not names <= set(SWITCHES) or not all(word.startswith("-") for word in words):
        raise ValueError(
            f"{SWITCH_VARIABLE}={environ[SWITCH_VARIABLE]!r} is not understood: write 0 to switch all off, or "
            f"-NAME,-NAME for some of {', '.join(SWITCHES)}"
        )
    return names


def read_processor(cpuinfo: str | Path = "/proc/cpuinfo") -> tuple[str, set[str]]:
    """Return vendor (`AuthenticAMD`, `GenuineIntel`, ...) and feature flags of the first core; empty if unknown."""
    fields = {}
    try:
        with Path(cpuinfo).open() as lines:
            for line in lines:
                if not line.strip():  # the end of the first core
                    break
                name, _, value = line.partition(":")
                fields[name.strip()] = value.strip()
    except OSError:
        pass
    return fields.get("vendor_id", ""), set(fields.get("flags", "").split())


def num_usable_cores(cpu_max: str | Path = "/sys/fs/cgroup/cpu.max") -> int:
    """Return how many cores this process may use: its CPU affinity, limited by a container's quota; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        num_cores = len(os.sched_getaffinity(0))
    else:
        num_cores = os.cpu_count() or 1
    try:
        with Path(cpu_max).open() as file:
            quota, period = file.read().split()
    except OSError:
        return num_cores
    if quota == "max":
        return num_cores
    return max(1, min(num_cores, int(quota) // int(period)))


def num_threads() -> int:
    """Return the number of threads that Paddle uses, see the switch `threads`, for libraries that need to be told."""
    setting = os.environ.get("MKL_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or ""
    if setting.isdecimal() and int(setting):
        return int(setting)
    return max(1, num_usable_cores() // num_local_ranks(os.environ))


def num_local_ranks(environ: Mapping[str, str]) -> int:
    """Return the number of training processes on this machine that Paddle's launcher announces; 1 without it."""
    return max(1, int(environ.get("PADDLE_LOCAL_SIZE") or environ.get("PADDLE_TRAINERS_NUM") or 1))


def _set_mkl_cpu_type(environ: MutableMapping[str, str]) -> str:
    name = "MKL_DEBUG_CPU_TYPE"
    if name in environ:
        return f"kept {name}={environ[name]}"
    vendor, flags = read_processor()
    if vendor != "AuthenticAMD" or "avx2" not in flags:
        return f"not needed ({vendor or 'unknown processor'})"
    environ[name] = "5"
    return f"{name}=5 ({vendor})"


def _set_mkl_threads(environ: MutableMapping[str, str]) -> str:
    # MKL's own variable, not OMP_NUM_THREADS: Paddle warns about that one, and writes 1 into it.
    name = "MKL_NUM_THREADS"
    # A number that a parent process of ours has set is computed again: this process may be one of several ranks.
    if name in environ and environ[name] != environ.get(INHERITED_THREADS):
        return f"kept {name}={environ[name]}"
    omp = environ.get("OMP_NUM_THREADS")
    # The launcher and a parent process of ours have imported Paddle, so a 1 from them is what Paddle wrote.
    is_written_by_paddle = omp == "1" and ("PADDLE_LOCAL_SIZE" in environ or INHERITED_THREADS in environ)
    if omp and not is_written_by_paddle:
        return f"kept OMP_NUM_THREADS={omp}"
    num_cores, num_ranks = num_usable_cores(), num_local_ranks(environ)
    environ[name] = environ[INHERITED_THREADS] = str(max(1, num_cores // num_ranks))
    return f"{name}={environ[name]} (usable cores {num_cores}, local ranks {num_ranks})"


def _set_malloc(environ: MutableMapping[str, str]) -> str:
    for name in _MALLOC_VARIABLES:
        if name in environ:
            return f"kept {name}={environ[name]}"
    if "glibc.malloc" in environ.get("GLIBC_TUNABLES", ""):
        return f"kept GLIBC_TUNABLES={environ['GLIBC_TUNABLES']}"
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return "not set (no glibc)"
    refused_names = [name for name, (number, value) in _MALLOC_SETTINGS.items() if not mallopt(number, value)]
    if refused_names:
        return f"glibc refused {', '.join(refused_names)}"
    return "M_MMAP_MAX=0 M_TRIM_THRESHOLD=-1 M_TOP_PAD=256MiB"


@contextlib.contextmanager
def flush_denormals() -> Iterator[None]:
    """Treat numbers below 1.2e-38 as 0 in the block, as GPUs do, in this thread and in those that it starts.

    The tails of GELU and softmax fill with such numbers while a model becomes more certain, and an x86 processor takes
    a hundred times longer for each. Nothing changes on other processors, without glibc, and with `denormals` off.
    """
    is_x86 = platform.machine() in ("x86_64", "AMD64")
    if not is_enabled("denormals") or not is_x86 or not hasattr(ctypes.CDLL(None), "fegetenv"):
        yield
        return
    import numpy as np

    # NumPy measures the smallest number once and keeps it: in the block it would measure 0.
    for kind in (np.float16, np.float32, np.float64):
        np.finfo(kind)

    # glibc's fenv_t on x86-64: seven words of the x87 unit, then MXCSR, whose bits 15 and 6 flush results and inputs.
    libm = ctypes.CDLL(None)
    previous = (ctypes.c_uint32 * 8)()
    libm.fegetenv(previous)
    flushing = type(previous)(*previous)
    flushing[7] |= 1 << 15 | 1 << 6
    libm.fesetenv(flushing)
    record_switch("denormals", "taken for 0 in training")
    try:
        yield
    finally:
        libm.fesetenv(previous)
