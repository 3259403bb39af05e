"""`ernie-vil2 study` in a checkout."""

import sys

from ernie_vil2.commands import run

if __name__ == "__main__":
    sys.exit(run("study"))
