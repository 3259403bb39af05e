"""Compare the CPU time of a whole training step: this package, Paddle's libraries, and PyTorch.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --torch-python ~/torch/bin/python
    python benchmarks/train_step.py --switches

A step is forward, four-pair loss, backward and AdamW with clipping, of a small ViT and an ERNIE with dropout, in one
thread. This package runs with its own towers and with those of PaddleClas and PaddleNLP, which also run without any
switch, as installed; both are left out if the libraries are not installed. PyTorch runs eagerly, as installed and with
the thresholds of glibc's malloc that this package sets. With --switches, this package is compared with itself without
one switch of ERNIE_VIL2_RUNTIME at a time.

Each contestant is a worker process. The workers take turns, step by step, so that other load slows all of them alike.
Before the first step each computes the loss of the same batch with the same weights, without dropout; the benchmark
fails if the losses differ.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OVERRIDES = [
    "Model.image={name: ViT, image_size: 48, patch_size: 8, width: 192, depth: 4, heads: 3}",
    "Model.text={name: ernie, width: 192, depth: 4, heads: 3, max_positions: 48}",
]
NUM_WORDS = 40_000  # of the vocabulary
TEXT_LENGTH = 32  # tokens
ONE_THREAD = {"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
# What the switch `malloc` sets in `ernie_vil2.device.runtime`.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62), "MALLOC_TOP_PAD_": str(256 << 20)}
SWITCHES = ("mkl", "malloc", "strides", "layers", "denormals")  # without `threads`: there is one thread here
PACKAGE = "this package"

Contestant = tuple[list[str], dict[str, str]]
"""Command and environment variables of a worker."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", metavar="PATH", help="interpreter with PyTorch, to compare with it")
    parser.add_argument("--switches", nargs="*", choices=SWITCHES, metavar="NAME",
                        help="compare this package without each of these switches; default: all")  # fmt: skip
    parser.add_argument("--batch", type=int, default=128, help="pairs in a step")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each worker, after one to warm up")
    parser.add_argument("--worker", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--implementation", default="native", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        from ernie_vil2.device import runtime

        runtime.configure()
        serve(*prepare_step(Path(args.worker), args.batch, args.implementation))
        return 0
    if args.torch_python and args.switches is not None:
        parser.error("--switches compares this package with itself, without --torch-python")

    print(f"{read_processor_name()}, {len(os.sched_getaffinity(0))} cores, one thread; "
          f"load average {os.getloadavg()[0]:.1f}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--batch", str(args.batch), "--worker", folder]
        if args.switches is None:
            compare_libraries(command, args.torch_python, folder, args.rounds)
        else:
            for switch in args.switches or SWITCHES:
                variables = {"ERNIE_VIL2_RUNTIME": f"-{switch}"}
                compare_with_package(f"without {switch}", (command, variables), command, args.rounds)
    return 0


def compare_libraries(command: list[str], torch_python: str | None, folder: str, num_rounds: int) -> None:
    """Compare this package with the libraries that are installed, and with PyTorch if there is an interpreter for it.

    Args:
        command: command of this package's worker.
        torch_python: interpreter with PyTorch.
        folder: folder of the weights and the batch, which the first worker writes.
        num_rounds: timed steps of each worker.
    """
    contestants: dict[str, Contestant] = {PACKAGE: (command, {})}
    baseline = PACKAGE
    if find_spec("paddleclas") and find_spec("paddlenlp"):
        suite_command = [*command, "--implementation", "suite"]
        baseline = "Paddle as installed"
        contestants["the suite's towers"] = (suite_command, {})
        contestants[baseline] = (suite_command, {"ERNIE_VIL2_RUNTIME": "0"})
    if torch_python:
        torch_command = [torch_python, str(Path(__file__).with_name("train_step_torch.py")), folder]
        baseline = "PyTorch eager"
        contestants[baseline] = (torch_command, {})
    print_times(time_in_turn(contestants, num_rounds, should_describe=True), baseline)
    if torch_python:
        compare_with_package("PyTorch eager, malloc set", (torch_command, MALLOC), command, num_rounds)


def compare_with_package(name: str, contestant: Contestant, command: list[str], num_rounds: int) -> None:
    """Compare a contestant with this package, two at a time: each takes a gigabyte or two."""
    print_times(time_in_turn({PACKAGE: (command, {}), name: contestant}, num_rounds), PACKAGE)


def read_processor_name() -> str:
    """Return the name of the processor, with the numbers that distinguish it from others of that name."""
    fields = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(": ")
        fields[name.strip()] = value
    return f"{fields.get('model name')}, family {fields.get('cpu family')}, model {fields.get('model')}"


def time_in_turn(
    contestants: dict[str, Contestant], num_rounds: int, should_describe: bool = False
) -> dict[str, list[float]]:
    """Return the CPU seconds of the steps of each contestant, which take turns step by step.

    Args:
        contestants: command and environment variables by name.
        num_rounds: timed steps of each.
        should_describe: print what each contestant is.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        # One after the other, as the first worker writes the weights and the batch that the others may need.
        for name, (command, variables) in contestants.items():
            workers[name] = stack.enter_context(Worker(command, variables))
            if should_describe:
                print(f"{name}: {workers[name].description}", flush=True)
        losses = [worker.loss for worker in workers.values()]
        if not max(losses) - min(losses) <= 1e-4:  # NaN fails, too
            raise SystemExit(f"error: the losses of one batch differ: {losses}")
        for worker in workers.values():
            worker.step()  # warm-up
        for _ in range(num_rounds):
            for name, worker in workers.items():
                seconds[name].append(worker.step())
    return seconds


def print_times(seconds: dict[str, list[float]], baseline: str) -> None:
    """Print the median time of each contestant, its range, and its ratio to the baseline's."""
    baseline_median = statistics.median(seconds[baseline])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(
            f"  {name:<28}{median:7.2f} s a step ({min(values):.2f} to {max(values):.2f}), "
            f"{median / baseline_median:.2f} of {baseline}",
            flush=True,
        )


class Worker:
    """Process that takes a step on command.

    Attributes:
        loss: loss of the batch with the initial weights, without dropout.
        description: number of parameters, loss, and a note, for display.
    """

    def __init__(self, command: list[str], variables: dict[str, str]):
        # Variables of the caller must not change the time of some of the workers.
        tuning_prefixes = ("ERNIE_VIL2_", "MKL_", "OMP_", "MALLOC_", "FLAGS_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(tuning_prefixes)}
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(  # noqa: S603  -- a command of this script
            command,
            env={**environment, "PYTHONPATH": path, **ONE_THREAD, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        self._commands, self._answers = self.process.stdin, self.process.stdout
        self._command = command
        report = self._read_answer()
        self.loss = report["loss"]
        self.description = f"{report['parameters']:,} parameters, loss {self.loss:.5f}; {report['note']}"

    def step(self) -> float:
        """Take a step; return its CPU seconds."""
        self._commands.write("step\n")
        self._commands.flush()
        return self._read_answer()["seconds"]

    def _read_answer(self) -> dict:
        # Libraries write lines of their own to standard output.
        for line in self._answers:
            if line.startswith('{"'):
                return json.loads(line)
        raise SystemExit(f"error: a worker ended early; to see why, run: {' '.join(self._command)}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._commands.close()
        self.process.wait()


def serve(report: dict[str, Any], step: Callable[[], None]) -> None:
    """Print the report of this worker, then answer each line of the input with the CPU seconds of one step.

    Args:
        report: number of `parameters`, initial `loss` and a `note`.
        step: takes a step.
    """
    print(json.dumps(report), flush=True)
    for _ in sys.stdin:
        start = time.process_time()
        step()
        print(json.dumps({"seconds": time.process_time() - start}), flush=True)


def prepare_step(folder: Path, batch_size: int, implementation: str) -> tuple[dict[str, Any], Callable[[], None]]:
    """Return the report of this worker, and a step as the trainer takes it on one process.

    With all switches off it is a step as Paddle alone takes it. The first worker writes weights and batch into the
    folder; the others draw the same from the same seeds.
    """
    import numpy as np
    import paddle

    from ernie_vil2.config import load_config
    from ernie_vil2.device import runtime
    from ernie_vil2.losses import MultiViewLoss
    from ernie_vil2.models import build_dual_encoder
    from ernie_vil2.tasks import decay_groups
    from ernie_vil2.tasks.contrastive_step import DirectStep
    from ernie_vil2.training.optimizer import build_optimizer, compute_squared_gradient_norms

    config = load_config(None, [*OVERRIDES, f"Model.implementation={implementation}"])
    runtime.set_device("cpu")
    paddle.seed(0)
    model = build_dual_encoder(config.Model, NUM_WORDS, config.Loss.temperature)
    optimizer = build_optimizer(model, decay_groups(model), config.Optimizer)
    loss = MultiViewLoss(config.Loss.weights.model_dump(), config.Loss.duplicates)

    rng = np.random.default_rng(0)
    image_size = config.Model.image.image_size
    images = rng.standard_normal((2, batch_size, 3, image_size, image_size), np.float32)
    ids = rng.integers(4, NUM_WORDS, (batch_size, TEXT_LENGTH))
    ids[:, 0] = 1  # [CLS]
    lengths = rng.integers(TEXT_LENGTH // 4, TEXT_LENGTH + 1, (batch_size, 1))
    ids[np.arange(TEXT_LENGTH) >= lengths] = 0  # padding
    if not (folder / "config.json").exists():
        weights: dict[str, Any] = {name: value.numpy() for name, value in model.state_dict().items()}
        np.savez(folder / "weights.npz", **weights)
        np.savez(folder / "batch.npz", images=images, ids=ids)
        (folder / "config.json").write_text(json.dumps(config.model_dump()))

    arrays = {"image_1": images[0], "image_2": images[1], "text_1": ids, "text_2": ids}
    views = {name: paddle.to_tensor(array) for name, array in arrays.items()}
    positions = np.arange(batch_size)
    pair_ids = np.stack([positions, positions], axis=1)  # of image and text: all differ
    pair_id_tensor = paddle.to_tensor(pair_ids)

    def compute_loss():
        embeddings, scalars = model(views)
        return loss(embeddings, embeddings, scalars, pair_id_tensor, pair_id_tensor)[0]

    model.eval()
    with paddle.no_grad():
        initial_loss = float(compute_loss())
    model.train()
    step = DirectStep(model, loss, config)
    trainable = [parameter for parameter in model.parameters() if not parameter.stop_gradient]

    def take_plain_step():
        compute_loss().backward()
        optimizer.step()
        optimizer.clear_grad()

    def take_step():
        with runtime.flush_denormals():
            step.forward(views, pair_ids, positions, 0)
            step.backward()
            float(compute_squared_gradient_norms(optimizer, trainable, "none")[1].sum())
            optimizer.step()
            optimizer.clear_grad()

    is_plain = not any(map(runtime.is_enabled, runtime.SWITCHES))
    report = {
        "parameters": sum(parameter.size for parameter in model.parameters()),
        "loss": initial_loss,
        "note": "no switches" if is_plain else runtime.summarize_switches(),
    }
    return report, take_plain_step if is_plain else take_step


if __name__ == "__main__":
    sys.exit(main())
