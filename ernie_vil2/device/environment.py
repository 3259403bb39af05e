"""What a figure depends on beside code and data: versions, git revision, runtime settings."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from ernie_vil2 import __version__
from ernie_vil2.device import cpu

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
