"""`tools/eval.py` by its earlier name."""

import sys

from ernie_vil2.cli import run

if __name__ == "__main__":
    sys.exit(run("eval"))
