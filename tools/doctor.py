"""Run `ernie-vil2 doctor` in a checkout; the package need not be installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ernie_vil2.cli import run

if __name__ == "__main__":
    sys.exit(run("doctor"))
