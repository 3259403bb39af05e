"""Run `ernie-vil2 serve` in a checkout."""

import sys

from ernie_vil2.cli import run

if __name__ == "__main__":
    sys.exit(run("serve"))
