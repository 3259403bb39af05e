"""CPU seconds of a whole training step: this package, with its own towers and with those of PaddleClas and PaddleNLP,
these libraries as installed, and PyTorch eager.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --torch-python ~/torch/bin/python
    python benchmarks/train_step.py --switches

A step is forward, four-pair loss, backward and AdamW with clipping, of a small ViT and an ERNIE with dropout, on one
thread. Each arm has a process of its own; they take turns, step by step, so that a busy machine slows all of them
alike. Before the first step all arms score the same batch with the same weights, without dropout: the losses must
agree. --torch-python is an interpreter with torch and numpy; PyTorch runs as installed, and with the thresholds of
glibc's malloc that this package sets. The libraries' towers are left out where they are not installed. --switches
compares this package with itself without one switch of ERNIE_VIL2_RUNTIME instead.
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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OVERRIDES = [
    "Model.image={name: ViT, image_size: 48, patch_size: 8, width: 192, depth: 4, heads: 3}",
    "Model.text={name: ernie, width: 192, depth: 4, heads: 3, max_positions: 48}",
]
VOCABULARY, LENGTH = 40_000, 32
ONE_THREAD = {"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62), "MALLOC_TOP_PAD_": str(256 << 20)}
SWITCHES_SHOWN = ("mkl", "malloc", "strides", "layers", "denormals")  # threads: there is one here


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", metavar="PATH", help="interpreter with torch, for the comparison with it")
    parser.add_argument("--switches", nargs="*", choices=SWITCHES_SHOWN, metavar="NAME",
                        help="measure without each of these switches instead; default: of all")  # fmt: skip
    parser.add_argument("--batch", type=int, default=128, help="pairs in a step")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each arm, after one that is not")
    parser.add_argument("--worker", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--implementation", default="native", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        from ernie_vil2.device import runtime

        runtime.configure()
        serve(*paddle_step(Path(args.worker), args.batch, args.implementation))
        return 0

    with tempfile.TemporaryDirectory() as folder:
        this = [sys.executable, __file__, "--batch", str(args.batch), "--worker", folder]
        theirs = [args.torch_python, str(Path(__file__).with_name("train_step_torch.py")), folder]
        print(f"{processor_name()}, {len(os.sched_getaffinity(0))} cores, one thread; "
              f"load average {os.getloadavg()[0]:.1f}")  # fmt: skip
        if args.switches is None:
            compare_libraries(this, theirs if args.torch_python else None, args.rounds)
        else:
            for name in args.switches or SWITCHES_SHOWN:
                compare_with(f"without {name}", (this, {"ERNIE_VIL2_RUNTIME": f"-{name}"}), this, args.rounds)
    return 0


def compare_libraries(this, theirs, rounds):
    """Compare this package with the libraries that are installed, and with PyTorch if there is a command for it."""
    arms: dict[str, tuple[list[str], dict[str, str]]] = {"this package": (this, {})}
    if find_spec("paddleclas") and find_spec("paddlenlp"):
        suite = [*this, "--implementation", "suite"]
        arms |= {"the suite's towers": (suite, {}), "Paddle as installed": (suite, {"ERNIE_VIL2_RUNTIME": "0"})}
    if theirs:
        arms["PyTorch eager"] = (theirs, {})
    show(in_turn(arms, rounds, shown=True), list(arms)[-1])
    if theirs:
        compare_with("PyTorch eager, malloc set", (theirs, MALLOC), this, rounds)


def compare_with(name, arm, this, rounds):
    """Compare an arm with this package, two at a time: each holds a gigabyte or two."""
    show(in_turn({"this package": (this, {}), name: arm}, rounds), "this package")


def processor_name() -> str:
    """Return the name of the processor, with the numbers that distinguish it from others of that name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = {name.strip(): value for name, _, value in (line.partition(": ") for line in lines)}
    return f"{fields.get('model name')}, family {fields.get('cpu family')}, model {fields.get('model')}"


def in_turn(arms, rounds, shown=False) -> dict[str, list[float]]:
    """Return CPU seconds of `rounds` steps of each arm, name -> (command, environment), one of each in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, (command, variables) in arms.items():  # the first leaves weights and batch for those that follow
            workers[name] = stack.enter_context(Worker(command, variables))
            if shown:
                print(f"{name}: {workers[name].about}", flush=True)
        losses = [worker.loss for worker in workers.values()]
        if max(losses) - min(losses) > 1e-4:
            raise SystemExit(f"error: the arms do not agree on the loss of one batch: {losses}")
        for worker in workers.values():
            worker.step()
        for _ in range(rounds):
            for name, worker in workers.items():
                seconds[name].append(worker.step())
    return seconds


def show(seconds, baseline) -> None:
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        print(
            f"  {name:<28}{median[name]:7.2f} s a step ({min(values):.2f} to {max(values):.2f}), "
            f"{median[name] / median[baseline]:.2f} of {baseline}",
            flush=True,
        )


class Worker:
    """A process that takes one step when it is asked to."""

    def __init__(self, command: list[str], variables: dict[str, str]):
        ours = ("ERNIE_VIL2_", "MKL_", "OMP_", "MALLOC_", "FLAGS_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
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
        about = self._answer()
        self.loss = about["loss"]
        self.about = f"{about['parameters']:,} parameters, loss {self.loss:.5f}; {about['note']}"

    def step(self) -> float:
        self._commands.write("step\n")
        self._commands.flush()
        return self._answer()["seconds"]

    def _answer(self) -> dict:
        for line in self._answers:
            if line.startswith('{"'):
                return json.loads(line)
        raise SystemExit(f"error: a worker ended early; to see why, run: {' '.join(self._command)}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._commands.close()
        self.process.wait()


def serve(about, step) -> None:
    """Say what this worker holds, then answer each line of its input with the CPU seconds of one step."""
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        start = time.process_time()
        step()
        print(json.dumps({"seconds": time.process_time() - start}), flush=True)


def paddle_step(folder: Path, batch: int, implementation: str):
    """Return a step as `tools/train.py` takes it on one process; with all switches off, as Paddle alone takes it."""
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
    model = build_dual_encoder(config.Model, VOCABULARY, config.Loss.temperature)
    optimizer = build_optimizer(model, decay_groups(model), config.Optimizer)
    loss = MultiViewLoss(config.Loss.weights.model_dump(), config.Loss.duplicates)

    random = np.random.default_rng(0)
    size = config.Model.image.image_size
    images = random.standard_normal((2, batch, 3, size, size), np.float32)
    ids = random.integers(4, VOCABULARY, (batch, LENGTH))
    ids[:, 0] = 1
    ids[np.arange(LENGTH) >= random.integers(LENGTH // 4, LENGTH + 1, (batch, 1))] = 0
    if not (folder / "config.json").exists():
        weights: dict[str, Any] = {name: value.numpy() for name, value in model.state_dict().items()}
        np.savez(folder / "weights.npz", **weights)
        np.savez(folder / "batch.npz", images=images, ids=ids)
        (folder / "config.json").write_text(json.dumps(config.model_dump()))
    arrays = {"image_1": images[0], "image_2": images[1], "text_1": ids, "text_2": ids}
    views = {name: paddle.to_tensor(array) for name, array in arrays.items()}
    positions = np.arange(batch)
    names = np.stack([positions, positions], axis=1)  # of images and texts: no two are the same
    of_rows = paddle.to_tensor(names)

    def score():
        embeddings, scalars = model(views)
        return loss(embeddings, embeddings, scalars, of_rows, of_rows)[0]

    def plain_step():
        score().backward()
        optimizer.step()
        optimizer.clear_grad()

    def own_step():
        with runtime.flush_denormals():
            step.forward(views, names, positions, 0)
            step.backward()
            float(compute_squared_gradient_norms(optimizer, trained, "none")[1].sum())
            optimizer.step()
            optimizer.clear_grad()

    model.eval()
    with paddle.no_grad():
        value = float(score())
    model.train()
    step = DirectStep(model, loss, config)
    trained = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    parameters = sum(parameter.size for parameter in model.parameters())
    plain = not any(map(runtime.is_enabled, runtime.SWITCHES))
    about = {"parameters": parameters, "loss": value, "note": "no switches" if plain else runtime.summarize_switches()}
    return about, plain_step if plain else own_step


if __name__ == "__main__":
    sys.exit(main())
