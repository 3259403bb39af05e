"""Check this installation, one line a check, with the command that mends what is wrong.

    python tools/doctor.py

The exit code is 1 when anything FAILs. It takes about half a minute, the last ten seconds a tiny training.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ernie_vil2 import doctor  # noqa: E402


def main():
    """Parse the command line, run every check, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="time of the tiny training (default 10)")
    arguments = parser.parse_args()
    return doctor.diagnose(doctor.all_checks(arguments.seconds))


if __name__ == "__main__":
    sys.exit(main())
