"""Check and measure this package on GPUs for an hour, and pack the results into one archive to send back.

    python tools/gpu_day.py --output gpu_report
    python tools/gpu_day.py --output gpu_report --minutes 120 --gpus 4
    python tools/gpu_day.py --output dry_report --dry          # all steps on the CPU, with tiny towers

Seven steps: the machine, correctness, the machine's own ceilings, throughput, scaling over GPUs, failures, accuracy.
Each measurement is a process with a time limit. One that fails or takes too long is recorded, and the rest goes on.
report.json and report.md are written after each. docs/gpu.md describes what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ernie_vil2.cli.arguments import count, output_folder, positive_number

DRY_RANKS = 2
# Counting GPUs opens no context on them; a process of its own leaves nothing behind in any case.
COUNT_GPUS = (
    "import json, paddle; has_build = paddle.is_compiled_with_cuda(); "
    "print(json.dumps([has_build, paddle.device.cuda.device_count() if has_build else 0]))"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--output", type=output_folder, required=True, metavar="FOLDER",
        help="folder of the report; the archive FOLDER.tar.gz is written next to it")  # fmt: skip
    add("--minutes", type=positive_number, default=60, help="time for all steps (default 60)")
    add("--gpus", type=count, metavar="N", help="number of GPUs to use (default: all); with --dry, ranks on the CPU")
    add("--dry", action="store_true", help="run all steps on the CPU with tiny towers: a check of this command")


def run(args: argparse.Namespace) -> int:
    from benchmarks.gpu_day.day import Day, list_steps
    from benchmarks.gpu_day.measuring import Options, list_gpu_labels
    from benchmarks.gpu_day.report import pack, write_report

    output = Path(args.output).resolve()
    if (output / "report.json").exists():
        raise ValueError(f"{output} holds the report of another day: name another folder as --output")
    options = Options(output, DRY_RANKS if args.dry else count_gpus(args.gpus), args.dry)
    if args.gpus and args.dry:
        options = Options(output, args.gpus, args.dry)
    elif args.gpus:
        # The tests and Paddle's check of itself take all GPUs that they see.
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(list_gpu_labels(args.gpus))
    output.mkdir(parents=True, exist_ok=True)

    def show(report: dict[str, Any]) -> None:
        write_report(output, report, is_finished=False)
        print(describe_record(report["measurements"][-1]), flush=True)

    header = {"begun": time.strftime("%Y-%m-%d %H:%M:%S %z"), "gpus": options.num_gpus, "is_dry": options.is_dry}
    day = Day(options, args.minutes, header, show)
    # An end by SIGTERM, as of a batch system, has to end the processes too, and to leave the archive.
    previous_handler = signal.signal(signal.SIGTERM, lambda *_: raise_interrupt())
    is_finished = False
    try:
        day.run(list_steps(options))
        is_finished = True
    except KeyboardInterrupt:
        print("ended before its end", file=sys.stderr)
    finally:
        signal.signal(signal.SIGTERM, previous_handler)
        rows = write_report(output, day.report, is_finished)
        archive = pack(output)
    show_end(output, archive, rows)
    if not is_finished:
        return 130
    # A dry run checks this command, so what fails in it is a fault; on a GPU it is a result.
    has_failed = any(record.status in ("failed", "timed out") for record in day.records)
    return int(options.is_dry and has_failed)


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def count_gpus(num_wanted: int | None) -> int:
    """Return the number of GPUs to use.

    Raises:
        ValueError: there are fewer.
    """
    process = subprocess.run([sys.executable, "-c", COUNT_GPUS], capture_output=True, text=True, check=False)  # noqa: S603
    lines = process.stdout.splitlines()
    if process.returncode or not lines:
        raise ValueError(f"Paddle cannot be imported: {process.stderr.strip().splitlines()[-1:]}")
    has_build, num_gpus = json.loads(lines[-1])
    if not num_gpus:
        lack = "sees none (look at nvidia-smi and CUDA_VISIBLE_DEVICES)" if has_build else "is the build for CPUs"
        raise ValueError(
            f"a day on GPUs needs an NVIDIA GPU and Paddle's GPU build (docs/installation.md), and Paddle here {lack}; "
            "--dry tries the command on the CPU"
        )
    if num_wanted and num_wanted > num_gpus:
        raise ValueError(f"--gpus {num_wanted}: Paddle sees {num_gpus}")
    return num_wanted or num_gpus


def describe_record(record: dict[str, Any]) -> str:
    """Return a line about a measurement for the terminal."""
    figures = record["figures"]
    text = f"{record['step']:<12} {record['name']:<40} {record['status']:<10} {record['seconds']:6.1f} s"
    for name, unit in (("samples_per_second", "samples/s"), ("share_of_peak", "of peak"), ("failed", "tests failed")):
        value = figures.get(name)
        if value is not None:
            text += f", {value:.4g} {unit}"
    return text


def show_end(output: Path, archive: Path, rows: list[Any]) -> None:
    """Print the last table, what differs, and what to send back."""
    from benchmarks.gpu_day.comparison import TOLERANCE
    from benchmarks.gpu_day.report import describe_differences, format_figure

    print(f"\n{'':<60}{'expected':>12}{'measured':>12}{'ratio':>8}")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        print(f"{row.name:<60}{format_figure(row.expected):>12}{format_figure(row.measured):>12}{ratio:>8}")
    print(f"\nDiffers by more than {100 * TOLERANCE:.0f} %:", *describe_differences(rows), sep="\n")
    size = archive.stat().st_size / 2**20
    print(f"\n{output / 'report.md'} has all of it. Send back {archive} ({size:.1f} MiB).")
