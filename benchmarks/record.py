"""Train the rows of docs/record.md, and measure the CPU time to the demo's recall.

    python benchmarks/record.py demo faster --seeds 0 1 2        # appends a line for each training to the log
    python benchmarks/record.py demo faster --seeds 3 --no-test  # for choosing: scores only the validation style
    python benchmarks/record.py --table                          # prints the table of docs/record.md from the log
    python benchmarks/record.py demo faster --step-cost 10 50    # CPU seconds of a step, from runs of 10 and 50 steps

A row is a configuration and a number of processes. Rows take turns, seed by seed, so that a machine that becomes slower
does so for all of them. CPU time is that of the training command and of all processes that it starts, from start to
end: with data, evaluations on the validation style and checkpoints. The checkpoint that is best on the validation style
is then scored on the test style, once.
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
    """A row of the record.

    Attributes:
        config: path of its configuration in configs/.
        num_processes: processes of its training.
    """

    config: str
    num_processes: int


# A single process computes with one thread: with two, MKL's threads wait for each other, which counts as CPU time.
ROWS = {
    "demo": Row("demo/emoji.yaml", 2),
    "half": Row("record/half.yaml", 2),
    "faster": Row("demo/faster.yaml", 1),
}
STOPPED = STOP_EXIT_CODES[signal.SIGTERM]  # exit code of a training that was terminated and has saved a checkpoint


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"rows to train: {', '.join(ROWS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--no-test", action="store_true", help="do not score the test style")
    parser.add_argument("--minutes", type=float, default=float("inf"),
                        help="stop after so many minutes; the same command continues")  # fmt: skip
    parser.add_argument("--step-cost", type=int, nargs=2, metavar="STEPS",
                        help="measure the CPU seconds of a step instead, from two numbers of steps")  # fmt: skip
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "record", help="folder of the run folders")
    parser.add_argument("--log", type=Path, default=ROOT / "docs" / "record" / "log.jsonl",
                        help="file of the finished trainings; default: docs/record/log.jsonl")  # fmt: skip
    parser.add_argument("--table", action="store_true", help="print the table of the log")
    args = parser.parse_args()
    # With `choices`, argparse would refuse an empty list of rows.
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
                print("not finished: the same command continues")
                return 1
            record = make_record(row, seed, folder)
            if not args.no_test:
                record["test"] = score(folder)
            with args.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(record) + "\n")
            print(json.dumps(record), flush=True)
    if args.table:
        print_table(read_log(args.log))
    return 0


def read_log(log: Path) -> list[dict]:
    """Return the records of the log; none if there is no log."""
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def is_logged(log: Path, row: str, seed: int) -> bool:
    return any((record["row"], record["seed"]) == (row, seed) for record in read_log(log))


def train(row: str, seed: int, folder: Path, end: float) -> bool:
    """Train a row, or continue its training, and add its usage to that of earlier starts.

    A training that is stopped saves a checkpoint, from which it continues without a difference. Its second start costs
    some CPU seconds more, which count.

    Args:
        row: key of `ROWS`.
        seed: seed of the training.
        folder: the run folder.
        end: time of `time.monotonic()` at which the training is stopped.

    Returns:
        Whether the training is finished.
    """
    start, cpu_before = time.monotonic(), measure_children()
    process = start_training(row, seed, folder, "--resume")
    try:
        code = process.wait(max(0.0, end - start))
    except subprocess.TimeoutExpired:
        process.terminate()
        code = process.wait()
    finally:
        # After Ctrl-C the training still saves a checkpoint, from which it continues: its CPU time counts as well.
        process.wait()
        usage = read_usage(folder)
        usage["cpu_seconds"] += measure_children() - cpu_before
        usage["wall_seconds"] += time.monotonic() - start
        usage["starts"] += 1
        path = usage_path(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(usage), encoding="utf-8")
    if code not in (0, STOPPED):
        raise SystemExit(f"error: the training of {folder} ended with code {code}")
    return code == 0


def start_training(row: str, seed: int, folder: Path, *options: str) -> subprocess.Popen:
    """Start the training of a row with further options of tools/train.py."""
    config, num_processes = ROWS[row]
    environment = dict(os.environ)
    if num_processes == 1:
        environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = "1"
    command = ["tools/train.py", "-c", f"configs/{config}", "--processes", str(num_processes)]
    command += ["-o", f"Training.seed={seed}", "-o", f"Training.output={folder.resolve()}", *options]
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment)  # noqa: S603  -- a command of this repository


def measure_children() -> float:
    """Return the CPU seconds of all child processes that have ended, and of their children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def usage_path(folder: Path) -> Path:
    """Return the file with the usage of a training, summed over its starts; it lies next to the run folder."""
    return folder.with_name(f"{folder.name}.json")


def read_usage(folder: Path) -> dict:
    path = usage_path(folder)
    if not path.exists():
        return {"cpu_seconds": 0.0, "wall_seconds": 0.0, "starts": 0}
    return json.loads(path.read_text(encoding="utf-8"))


def make_record(row: str, seed: int, folder: Path) -> dict:
    """Return the record of a finished training for the log."""
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


def measure_step_costs(rows: list[str], few_steps: int, many_steps: int) -> None:
    """Print the CPU seconds of a step of each row: the difference of a long and a short training, divided by the steps.

    Rows take turns, in one order and then in the opposite one. Evaluations and checkpoints are left out.
    """
    costs: dict[str, list[float]] = {row: [] for row in rows}
    for row in [*rows, *reversed(rows)]:
        seconds = measure_training(row, many_steps) - measure_training(row, few_steps)
        costs[row].append(seconds / (many_steps - few_steps))
    for row, values in costs.items():
        print(f"{row}: {' and '.join(f'{value:.4f}' for value in values)} CPU seconds a step")


def measure_training(row: str, steps: int) -> float:
    """Return the CPU seconds of a training of so many steps."""
    options = ["-o", f"Training.steps={steps}", "-o", f"Training.checkpoint_every={steps}", "-o", "Evaluation.every=0"]
    cpu_before = measure_children()
    with tempfile.TemporaryDirectory() as folder:
        process = start_training(row, 0, Path(folder) / "run", *options)
        if process.wait():
            raise SystemExit(f"error: the training of {row} failed")
    return measure_children() - cpu_before


def score(folder: Path) -> dict[str, float]:
    """Return the mean recall of a run's best checkpoint on the test style, both ways, in percent, by language."""
    from ernie_vil2.data.readers import open_benchmarks
    from ernie_vil2.encoder import load_model
    from ernie_vil2.evaluation.encoded import encode_benchmark
    from ernie_vil2.evaluation.protocol import find_protocol, score_embeddings

    model = load_model(f"{folder}@best")
    recalls = {}
    for language, benchmark in open_benchmarks(str(TEST), languages=LANGUAGES, text_id="id").items():
        encoded = encode_benchmark(model, benchmark)
        mean_recall = score_embeddings(encoded, find_protocol("pairs")).mean_recall
        if mean_recall is None:
            raise ValueError(f"{TEST} has no queries in one direction")
        recalls[language] = round(mean_recall, 2)
    return recalls


def print_table(records: list[dict]) -> None:
    """Print a line in Markdown for each row: CPU minutes and recall on both styles, means over its seeds."""
    print("| row | seeds | CPU minutes | wall minutes | validation mR | test zh | test en |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in ROWS:
        runs = [record for record in records if record["row"] == row and "test" in record]
        if not runs:
            continue
        means = [
            fmean(run["cpu_minutes"] for run in runs),
            fmean(run["wall_minutes"] for run in runs),
            fmean(run["best"]["value"] for run in runs),
        ]
        for language in LANGUAGES:
            means.append(fmean(run["test"][language] for run in runs))
        print(f"| {row} | {len(runs)} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |")


if __name__ == "__main__":
    sys.exit(main())
