"""Run `ernie-vil2 curate` in a checkout."""

import sys

from ernie_vil2.cli import run

if __name__ == "__main__":
    sys.exit(run("curate"))
