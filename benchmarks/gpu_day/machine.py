"""Step 1, the machine: driver, clocks, memory, links and limits; Paddle's build, what it finds, and its own check."""

import os
import platform
import resource
import shutil
import subprocess
import sys
from typing import Any

from benchmarks.gpu_day.measuring import Measurement, Options, Results, make_measurement
from benchmarks.gpu_day.processes import ROOT

# Fields of `nvidia-smi --query-gpu` that explain slow or failing runs.
GPU_FIELDS = (
    "name", "driver_version", "memory.total", "compute_mode", "ecc.mode.current", "persistence_mode", "power.limit",
    "clocks.max.sm", "clocks.max.memory", "clocks.applications.graphics", "mig.mode.current", "pcie.link.gen.max",
    "pcie.link.width.current",
)  # fmt: skip
# Flags of a GPU build that choose kernels; a CPU build does not have them.
FLAGS = (
    "FLAGS_flash_attn_available", "FLAGS_mem_efficient_attn_available", "FLAGS_cudnn_exhaustive_search",
    "FLAGS_allocator_strategy", "FLAGS_enable_async_trace",
)  # fmt: skip
ENVIRONMENT_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_", "FLAGS_", "PADDLE_", "OMP_", "MKL_", "ERNIE_VIL2_RUNTIME")


def list_measurements(options: Options) -> list[Measurement]:
    measurements = [
        make_measurement("machine", "system", options, 60),
        make_measurement("machine", "paddle", options, 120),
    ]
    # A dry run leaves it out: it checks the installation for half a minute, and not the tools of this day.
    if not options.is_dry:
        measurements.append(Measurement("doctor", [sys.executable, str(ROOT / "tools" / "doctor.py")], 120))
    return measurements


def measure(name: str, options: Options, results: Results) -> None:
    if name == "system":
        describe_system(options, results)
    else:
        describe_paddle(options, results)


def describe_system(options: Options, results: Results) -> None:
    """Add what the machine says without Paddle; the whole texts of nvidia-smi go to a file."""
    from ernie_vil2.device.runtime import num_usable_cores, read_processor

    locked_bytes = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    results.add(
        platform=platform.platform(),
        processor=" ".join(read_processor()[:1]),
        cores=num_usable_cores(),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        # NCCL's shared memory, and memory that InfiniBand locks.
        dev_shm_gib=_measure_disk("/dev/shm"),  # noqa: S108  -- it is looked at, not written to
        locked_memory="unlimited" if locked_bytes == resource.RLIM_INFINITY else f"{locked_bytes} bytes",
        free_disk_gib=_measure_disk(str(options.output), is_free=True),
        environment={name: value for name, value in os.environ.items() if name.startswith(ENVIRONMENT_PREFIXES)},
    )
    if shutil.which("nvidia-smi") is None:
        results.add(nvidia_smi="not found")
        return
    lines = _call_nvidia_smi(f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader").splitlines()
    results.add(gpus=[dict(zip(GPU_FIELDS, line.split(", "), strict=False)) for line in lines])
    texts = [_call_nvidia_smi(*arguments) for arguments in (["topo", "-m"], ["nvlink", "-s"], ["-q"])]
    path = options.output / "results" / "machine" / "nvidia_smi.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(texts), encoding="utf-8")


def _measure_disk(path: str, is_free: bool = False) -> float | None:
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None
    return round((usage.free if is_free else usage.total) / 2**30, 1)


def _call_nvidia_smi(*arguments: str) -> str:
    # Some of its calls fail on some machines, such as nvlink without NVLink; their text says why.
    process = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603, S607
    return process.stdout + process.stderr


def describe_paddle(options: Options, results: Results) -> None:
    """Add the build of Paddle and its devices, and let it check itself on all of them."""
    import paddle

    from ernie_vil2.device.runtime import describe_environment

    environment = describe_environment()
    results.add(
        versions=environment["versions"],
        git=environment["git"],
        cuda=paddle.version.cuda(),
        cudnn=paddle.version.cudnn(),
        nccl=paddle.version.nccl(),
        flags=_read_flags(),
    )
    if not options.is_dry:
        from benchmarks.gpu_day.training import find_data_sheet

        properties = paddle.device.cuda.get_device_properties(0)
        results.add(
            device=properties.name,
            device_memory_gib=round(properties.total_memory / 2**30, 1),
            capability=f"{properties.major}.{properties.minor}",
            num_devices=paddle.device.cuda.device_count(),
            data_sheet=find_data_sheet(options).name,
        )
    paddle.utils.run_check()
    results.add(run_check="passed")


def _read_flags() -> dict[str, Any]:
    import paddle

    flags: dict[str, Any] = {}
    for name in FLAGS:
        try:
            flags |= paddle.get_flags(name)
        except ValueError:  # this build does not have it
            flags[name] = None
    return flags
