"""The process that Paddle runs in, and its device."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from ernie_vil2.device import cpu


def configure(environ: MutableMapping[str, str] = os.environ) -> None:
    """Prepare this process for Paddle, which must not have been imported: the CPU switches, and fewer warnings.

    They concern the whole process and the processes that it starts, so that it is for a program to call, not for a
    library: the command lines do, `import ernie_vil2` does not.

    Raises:
        ValueError: `ERNIE_VIL2_RUNTIME` is not understood.
    """
    cpu.set_before_paddle(environ)
    # Of no use to a user here: a hint for compiling extensions, a note on batch norm, and one of setuptools.
    for message in ("No ccache found", "When training, we now always track", "Setuptools is replacing distutils"):
        warnings.filterwarnings("ignore", message=message)


def has_gpu_build() -> bool:
    """Whether a Paddle for GPUs is installed, without importing it."""
    return any(importlib.metadata.distributions(name="paddlepaddle-gpu"))


def set_device(name: str) -> None:
    """Make a device (`auto`, `cpu`, `gpu`, `gpu:0`, ...; `cuda` is `gpu`) this process's; imports Paddle.

    Raises:
        ValueError: there is no such device, or Paddle cannot use it; the message says what to do.
    """
    import paddle

    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if name == "auto":
        name = "gpu" if gpus else "cpu"
    if asked := re.fullmatch(r"(?:gpu|cuda)(:\d+)?", name):
        if not paddle.is_compiled_with_cuda():
            raise ValueError(f"device {name}: the installed Paddle is its CPU build. Put the GPU build in its place "
                             "(docs/installation.md says how), or name cpu")  # fmt: skip
        name = f"gpu{asked[1] or ''}"
        if int((asked[1] or ":0")[1:]) >= gpus:
            raise ValueError(f"device {name}: Paddle sees {gpus} GPUs; name another, or look at nvidia-smi and "
                             "CUDA_VISIBLE_DEVICES")  # fmt: skip
    if name == "cpu":
        cpu.copy_transposed()
    paddle.set_device(name)


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


def environment() -> dict[str, Any]:
    """Versions, git revision of the package's checkout (None where it is installed) and runtime settings."""
    from ernie_vil2 import __version__  # which imports this module

    versions = {"python": platform.python_version(), "ernie_vil2": __version__}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # An installation may lie within the checkout of something else.
        subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], capture_output=True, check=True)
        revision = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
        revision += "+changes" * bool(changed.stdout.strip())
    except (OSError, subprocess.CalledProcessError):
        revision = None
    return {"versions": versions, "git": revision, "runtime": cpu.applied(), "command": sys.argv}
