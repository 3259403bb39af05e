"""Run `ernie-vil2 plan` in a checkout."""

import sys

from ernie_vil2.cli import run

if __name__ == "__main__":
    sys.exit(run("plan"))
