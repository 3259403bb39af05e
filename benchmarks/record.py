"""CPU minutes to the demo's recall: train the rows of docs/record.md, and count the CPU time of all their processes.

    python benchmarks/record.py demo faster --seeds 0 1 2        # appends a line for each training to the log
    python benchmarks/record.py demo faster --seeds 3 --no-test  # to choose: scores the validation style alone
    python benchmarks/record.py --table                          # the table of docs/record.md, of what there is
    python benchmarks/record.py demo faster --step-cost 10 50    # CPU seconds of a step, from trainings of 10 and of 50

A row is a configuration, with the processes of its training. Rows take turns, seed by seed, so that a machine that
becomes slower does so for all of them. CPU time is that of the training command and of all processes that it starts,
from their start to their end: data, evaluations on the validation style and checkpoints included. The best checkpoint
by the validation style is then scored on the test style, once.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ernie_vil2.device import runtime  # noqa: E402
from ernie_vil2.device.launch import STOP_EXIT_CODES  # noqa: E402
from ernie_vil2.io.run_folder import EVALUATION  # noqa: E402

TEST = ROOT / "demo_data" / "emoji-test.tar"
LANGUAGES = ("zh", "en")


class Row(NamedTuple):
    """A row of the record: its configuration, in configs/, and the processes of its training."""

    config: str
    processes: int


# One process computes with one thread: on two, MKL's threads wait for each other, which counts as CPU time.
ROWS = {
    "demo": Row("demo/emoji.yaml", 2),
    "half": Row("record/half.yaml", 2),
    "faster": Row("demo/faster.yaml", 1),
}
STOPPED = STOP_EXIT_CODES[signal.SIGTERM]  # exit code of a training that was stopped, and has saved a checkpoint


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--no-test", action="store_true", help="leave the test style alone")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="after which the command ends; it continues"
    )
    parser.add_argument("--step-cost", type=int, nargs=2, metavar="STEPS", help="train these numbers of steps instead")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "record", help="folder of the run folders")
    parser.add_argument("--log", type=Path, default=ROOT / "docs" / "record" / "log.jsonl")
    parser.add_argument("--table", action="store_true", help="print the table of the log")
    args = parser.parse_args()
    # argparse checks the empty list of no rows against `choices`, too.
    for row in args.rows:
        if row not in ROWS:
            parser.error(f"no row {row}; there are {', '.join(ROWS)}")
    runtime.configure()
    if args.step_cost:
        measure_step_costs(args.rows, *args.step_cost)
        return 0

    end = time.monotonic() + 60 * args.minutes
    for seed in args.seeds:
        for row in args.rows:
            folder = args.runs / f"{row}-{seed}"
            if is_logged(args.log, row, seed):
                continue
            if not train(row, seed, folder, end):
                print("not finished: the same command goes on")
                return 1
            record = make_record(row, seed, folder)
            if not args.no_test:
                record["test"] = score(folder)
            with args.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")
            print(json.dumps(record), flush=True)
    if args.table:
        print_table([json.loads(line) for line in args.log.read_text(encoding="utf-8").splitlines()])
    return 0


def is_logged(log: Path, row: str, seed: int) -> bool:
    if not log.exists():
        return False
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return any((record["row"], record["seed"]) == (row, seed) for record in records)


def train(row: str, seed: int, folder: Path, end: float) -> bool:
    """Train a row, or continue; return whether it is finished, which it is not if the time `end` came before.

    A training that is stopped saves a checkpoint, from which it continues without a difference. Its second start costs
    some CPU seconds more, which count.
    """
    start, used = time.monotonic(), measure_children()
    with start_training(row, seed, folder, "--resume") as process:
        try:
            code = process.wait(max(0.0, end - start))
        except subprocess.TimeoutExpired:
            process.terminate()
            code = process.wait()
    usage = read_usage(folder)
    usage["cpu_seconds"] += measure_children() - used
    usage["wall_seconds"] += time.monotonic() - start
    usage["starts"] += 1
    usage_path(folder).write_text(json.dumps(usage), encoding="utf-8")
    if code not in (0, STOPPED):
        raise SystemExit(f"error: the training of {folder} ended with code {code}")
    return code == 0


def start_training(row: str, seed: int, folder: Path, *options: str) -> subprocess.Popen:
    """Start the training of a row."""
    config, processes = ROWS[row]
    environment = dict(os.environ)
    if processes == 1:
        environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = "1"
    command = ["tools/train.py", "-c", f"configs/{config}", "--processes", str(processes)]
    command += ["-o", f"Training.seed={seed}", "-o", f"Training.output={folder}", *options]
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment)  # noqa: S603  -- a command of this repository


def measure_children() -> float:
    """Return the CPU seconds of all children that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def usage_path(folder: Path) -> Path:
    """Return the file that sums up the starts of a training, next to its run folder."""
    return folder.with_name(f"{folder.name}.json")


def read_usage(folder: Path) -> dict:
    path = usage_path(folder)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return {"cpu_seconds": 0.0, "wall_seconds": 0.0, "starts": 0}
    return json.loads(path.read_text(encoding="utf-8"))


def make_record(row: str, seed: int, folder: Path) -> dict:
    """Return what the log says of a finished training."""
    evaluation = json.loads((folder / "checkpoints" / "best" / EVALUATION).read_text(encoding="utf-8"))
    usage = read_usage(folder)
    return {
        "row": row,
        "seed": seed,
        "cpu_minutes": round(usage["cpu_seconds"] / 60, 2),
        "wall_minutes": round(usage["wall_seconds"] / 60, 2),
        "starts": usage["starts"],
        "load": os.getloadavg()[2],
        "best": evaluation["best"],
        "git": runtime.describe_environment()["git"],
    }


def measure_step_costs(rows: list[str], few: int, many: int) -> None:
    """Print the CPU seconds of a step of each row: the difference of a long and a short training by their steps.

    Rows take turns, in one order and then in the opposite one. Evaluations and checkpoints are left out.
    """
    costs: dict[str, list[float]] = {row: [] for row in rows}
    for row in [*rows, *reversed(rows)]:
        seconds = []
        for steps in (few, many):
            options = ["-o", f"Training.steps={steps}", "-o", f"Training.checkpoint_every={steps}"]
            used = measure_children()
            with tempfile.TemporaryDirectory() as folder:
                process = start_training(row, 0, Path(folder) / "run", *options, "-o", "Evaluation.every=0")
                if process.wait():
                    raise SystemExit(f"error: the training of {row} failed")
            seconds.append(measure_children() - used)
        costs[row].append((seconds[1] - seconds[0]) / (many - few))
    for row, values in costs.items():
        print(f"{row}: {' and '.join(f'{value:.4f}' for value in values)} CPU seconds a step")


def score(folder: Path) -> dict[str, float]:
    """Return the two-way mean recall of a run's best checkpoint on the test style, by language, in percent."""
    from ernie_vil2.data.readers import open_benchmarks
    from ernie_vil2.encoder import load_model
    from ernie_vil2.evaluation.encoded import encode_benchmark
    from ernie_vil2.evaluation.protocol import find_protocol, score_embeddings

    model = load_model(folder)
    recalls = {}
    for language, benchmark in open_benchmarks(str(TEST), languages=LANGUAGES, text_id="id").items():
        encoded = encode_benchmark(model, benchmark)
        mean_recall = score_embeddings(encoded, find_protocol("pairs")).mean_recall
        if mean_recall is None:
            raise ValueError(f"{TEST} has no queries in one direction")
        recalls[language] = round(mean_recall, 2)
    return recalls


def print_table(records: list[dict]) -> None:
    """Print a line in Markdown for each row: CPU minutes, and recall on both styles, means over its seeds."""
    print("| row | seeds | CPU minutes | wall minutes | validation mR | test zh | test en |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in ROWS:
        runs = [record for record in records if record["row"] == row and "test" in record]
        if not runs:
            continue
        cells = [fmean(run[name] for run in runs) for name in ("cpu_minutes", "wall_minutes")]
        cells.append(fmean(run["best"]["value"] for run in runs))
        cells += [fmean(run["test"][language] for run in runs) for language in LANGUAGES]
        print(f"| {row} | {len(runs)} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")


if __name__ == "__main__":
    sys.exit(main())
