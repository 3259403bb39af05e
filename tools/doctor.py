"""`ernie-vil2 doctor` in a checkout, also where the package is not installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ernie_vil2.cli import run

if __name__ == "__main__":
    sys.exit(run("doctor"))
