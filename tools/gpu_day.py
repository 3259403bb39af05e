"""Check and measure this package on GPUs (`benchmarks/gpu_day`) in a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_day import command
from ernie_vil2.cli import run

if __name__ == "__main__":
    sys.exit(run(command))
