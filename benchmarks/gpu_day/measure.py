"""The program of a measurement: one function of a step's module, on one rank or several.

    python benchmarks/gpu_day/measure.py ceilings kernels --output gpu_report --gpus 1

The figures are printed, and written to a file that `day.py` names in the environment.
"""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.gpu_day.day import STEP_MINUTES
from benchmarks.gpu_day.measuring import RESULTS_VARIABLE, LeftOut, Options, Results, list_launcher_arguments
from benchmarks.gpu_day.processes import MARK
from ernie_vil2.device import runtime
from ernie_vil2.device.launch import launched_rank, run_ranks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEP_MINUTES)
    parser.add_argument("name", help="the measurement")
    parser.add_argument("--output", type=Path, required=True, help="folder of the report")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of the day")
    parser.add_argument("--ranks", type=int, default=1, help="ranks of this measurement")
    parser.add_argument("--dry", action="store_true", help="on the CPU")
    args = parser.parse_args()

    runtime.configure()
    if args.ranks > 1 and "PADDLE_TRAINER_ID" not in os.environ:
        if args.dry:
            return run_ranks([sys.executable, *sys.argv], args.ranks)
        log_folder = args.output / "logs" / f"{args.step}_{args.name}_ranks"
        command = [*list_launcher_arguments(args.ranks, log_folder), *sys.argv]
        os.execv(command[0], command)  # noqa: S606  -- this program again, once for each GPU

    os.environ.setdefault(MARK, str(os.getpid()))  # of a measurement that is started by hand
    rank, _ = launched_rank()
    path = os.environ.get(RESULTS_VARIABLE)
    results = Results(Path(path) if path and rank == 0 else None)
    module = import_module(f"benchmarks.gpu_day.{args.step}")
    try:
        module.measure(args.name, Options(args.output, args.gpus, args.dry), results)
    except LeftOut as reason:
        results.add(left_out=str(reason))
    return 0


if __name__ == "__main__":
    sys.exit(main())
