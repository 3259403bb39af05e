"""Check this installation, one line a check, with the command that mends what is wrong.

    python tools/doctor.py

The exit code is 1 when anything FAILs. It takes about half a minute, the last ten seconds a tiny training.
"""

import argparse

from ernie_vil2.commands.arguments import amount


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=amount, default=10, help="time of the tiny training (default 10)")


def run(args: argparse.Namespace) -> int:
    from ernie_vil2 import doctor

    return doctor.diagnose(doctor.all_checks(args.seconds))
