"""Options and results of a measurement, and functions to time calls and to start trainings."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from benchmarks.gpu_day.processes import ROOT
from ernie_vil2.io.files import write_json

T = TypeVar("T")

# Environment variables of a measurement's process: the file of its figures, and the seconds it may take.
RESULTS_VARIABLE = "ERNIE_VIL2_GPU_DAY_RESULTS"
SECONDS_VARIABLE = "ERNIE_VIL2_GPU_DAY_SECONDS"
WITHOUT_LIMIT = 3600.0  # seconds of a measurement that was started by hand
MAX_LINE = 300  # letters of a printed figure; the file has all of it


class LeftOut(Exception):  # noqa: N818  -- named by what happens to the measurement
    """Raised by a measurement that makes no sense on this machine; the message says why."""


@dataclass(frozen=True)
class Options:
    """Options of the day.

    Attributes:
        output: folder of the report.
        num_gpus: GPUs that are used; in a dry run, ranks on the CPU.
        is_dry: whether the day is a dry run, which measures tiny towers on the CPU.
    """

    output: Path
    num_gpus: int
    is_dry: bool

    @property
    def device(self) -> str:
        """Device as `Training.device` names it."""
        return self.choose("gpu", "cpu")

    def choose(self, on_gpus: T, in_dry_run: T) -> T:
        """Return the first value on GPUs, the second one in a dry run."""
        return in_dry_run if self.is_dry else on_gpus

    @property
    def work_folder(self) -> Path:
        """Folder for runs and data, which are not sent back."""
        return self.output / "work"

    def run_folder(self, name: str) -> Path:
        """Return the folder of a run."""
        return self.work_folder / "runs" / name

    def results_file(self, step: str, name: str) -> Path:
        """Return the file of a measurement's figures."""
        return self.output / "results" / step / f"{name}.json"

    def read_figures(self, step: str, measurement: str) -> dict[str, Any]:
        """Return the figures of an earlier measurement; none if it has left none."""
        return read_json(self.results_file(step, measurement))


@dataclass(frozen=True)
class Measurement:
    """One process of the day.

    Attributes:
        name: unique within the step.
        command: its command line.
        seconds: time limit in a day of 60 minutes.
        variables: changes of its environment.
    """

    name: str
    command: Sequence[str]
    seconds: float
    variables: tuple[tuple[str, str], ...] = ()


def make_measurement(
    step: str, name: str, options: Options, seconds: float, num_ranks: int = 1, **variables: str
) -> Measurement:
    """Return the measurement that calls `measure(name, ...)` of a step's module, on each of the ranks."""
    program = Path(__file__).with_name("measure.py")
    arguments = [
        step,
        name,
        "--output",
        str(options.output),
        "--gpus",
        str(options.num_gpus),
        "--ranks",
        str(num_ranks),
    ]
    if options.is_dry:
        arguments.append("--dry")
    return Measurement(name, [sys.executable, str(program), *arguments], seconds, tuple(variables.items()))


class Results:
    """The figures of a measurement; what was added is on the disk at once.

    Args:
        path: file to write to; None: the figures are only printed.
    """

    def __init__(self, path: Path | None):
        self._path = path
        self.figures: dict[str, Any] = {}

    def add(self, **figures: Any) -> None:
        """Add figures that JSON can hold, and print them."""
        self.figures |= figures
        for name, value in figures.items():
            print(f"{name}: {json.dumps(value, ensure_ascii=False)}"[:MAX_LINE], flush=True)
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, self.figures)

    def attempt(self, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Add the figures that a function returns; if it fails, add the reason, and go on."""
        try:
            self.add(**measure())
        except Exception as error:  # one kernel that fails, in whatever way, must not cost the figures after it
            self.add(**{f"{name}_error": f"{type(error).__name__}: {error}"[:500]})


def read_json(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file; an empty one if the file is missing or was cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def read_time_limit() -> float:
    """Return the seconds that this measurement may take."""
    return float(os.environ.get(SECONDS_VARIABLE, WITHOUT_LIMIT))


def wait_for_device() -> None:
    """Wait until the device has computed everything that is queued."""
    import paddle

    if paddle.get_device() != "cpu":
        paddle.device.synchronize()


def time_calls(call: Callable[[], object], seconds: float = 0.5) -> float:
    """Return the median seconds of a call on the device.

    Args:
        call: starts work on the device.
        seconds: roughly how long to measure.
    """
    for _ in range(3):  # the first calls choose kernels and allocate memory
        call()
    wait_for_device()
    start = time.perf_counter()
    call()
    wait_for_device()
    # The device is waited for after several calls, so that starting them costs nothing; five such rounds.
    calls_per_round = max(1, int(seconds / 5 / max(time.perf_counter() - start, 1e-6)))
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(calls_per_round):
            call()
        wait_for_device()
        rounds.append((time.perf_counter() - start) / calls_per_round)
    return median(rounds)


def list_gpu_labels(num_gpus: int) -> list[str]:
    """Return the first GPUs as Paddle's launcher names them: by the entries of CUDA_VISIBLE_DEVICES, if it is set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    labels = visible.split(",") if visible else [str(number) for number in range(num_gpus)]
    return labels[:num_gpus]


def list_launcher_arguments(num_ranks: int, log_folder: Path) -> list[str]:
    """Return the beginning of a command line that starts a script on several GPUs."""
    gpus = ",".join(list_gpu_labels(num_ranks))
    return [sys.executable, "-m", "paddle.distributed.launch", "--gpus", gpus, "--log_dir", str(log_folder)]


def quote_path(path: Path) -> str:
    """Return a path as a value of YAML, of which JSON is a part: plain, it must have no comma, quote or ` #`."""
    return json.dumps(str(path), ensure_ascii=False)


def list_demo_command(options: Options, name: str, num_ranks: int, overrides: Sequence[str]) -> list[str]:
    """Return the command line of a training of the demo.

    Args:
        options: options of the day.
        name: name of the run's folder; that of the ranks' logs is derived from it.
        num_ranks: number of ranks.
        overrides: settings of the run besides its folder and device.
    """
    script = str(ROOT / "tools" / "train.py")
    arguments = ["-c", str(ROOT / "configs" / "demo" / "emoji.yaml")]
    output = quote_path(options.run_folder(name))
    for override in (*overrides, f"Training.output={output}", f"Training.device={options.device}"):
        arguments += ["-o", override]
    if num_ranks == 1:
        return [sys.executable, script, *arguments]
    if options.is_dry:
        return [sys.executable, script, "--processes", str(num_ranks), *arguments]
    return [*list_launcher_arguments(num_ranks, options.output / "logs" / f"{name}_ranks"), script, *arguments]
