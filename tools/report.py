"""`ernie-vil2 report` in a checkout."""

import sys

from ernie_vil2.commands import run

if __name__ == "__main__":
    sys.exit(run("report"))
