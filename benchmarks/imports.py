"""CPU seconds that it takes to import the package, to show the help, and to have a model, next to Python's own start.

    python benchmarks/imports.py
    python benchmarks/imports.py --model runs/emoji

Each command runs in a process of its own, and the quickest of several runs counts. Python's own start reads the
environment's .pth files, which an editable installation adds to.
"""

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PADDLE = "import paddle"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="MODEL", help="what load_model takes, for example runs/emoji")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command")
    args = parser.parse_args()
    commands = {
        "python": ["-c", ""],
        "import ernie_vil2": ["-c", "import ernie_vil2"],
        "ernie-vil2 --help": ["-c", "import sys; sys.argv[1:] = ['--help']; from ernie_vil2.cli import main; main()"],
        "ernie-vil2 train --help": [str(ROOT / "tools" / "train.py"), "--help"],
        PADDLE: ["-c", f"from ernie_vil2.device import runtime; runtime.configure(); {PADDLE}"],
    }
    if args.model:
        commands["load_model"] = [
            "-c",
            f"import ernie_vil2; ernie_vil2.runtime.configure(); ernie_vil2.load_model({args.model!r})",
        ]
    print(f"Python {sys.version.split()[0]}\n{'':<28}{'CPU seconds':>12}{'of Python':>11}{'beyond Paddle':>15}")
    seconds: dict[str, float] = {}
    for name, command in commands.items():
        seconds[name] = min(cpu_seconds(command) for _ in range(args.rounds))
        beyond = f"{seconds[name] - seconds[PADDLE]:>15.3f}" if name == "load_model" else ""
        print(f"{name:<28}{seconds[name]:>12.3f}{seconds[name] / seconds['python']:>11.1f}{beyond}", flush=True)
    return 0


def cpu_seconds(arguments: list[str]) -> float:
    """Return the user and system time of this Python with arguments."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(  # noqa: S603  -- a command of this script
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
