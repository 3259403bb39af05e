"""Seconds that a training step waits for a checkpoint: written by the step, and by a thread from a copy.

    python benchmarks/checkpoint_wait.py
    python benchmarks/checkpoint_wait.py --folder /data --rounds 5

ViT-B/16 with ERNIE base, random weights and moments of AdamW, on the CPU; the two ways take turns. Both first copy the
state. Their files must be equal, byte by byte. Golden embeddings are not in it: a run computes them only where it
evaluates and where it ends.

While the thread writes, the main thread calls small operations of Paddle, and counts how often it has to wait for a
lock. Compared with the count without a write, this shows how often hashing and writing hold Python's interpreter lock.
Unlike seconds, it does not depend on how busy the machine is. Needs 7 GB of memory, and 5 GB of disk in --folder.
"""

import argparse
import filecmp
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ernie_vil2.device import runtime

NUM_CALLS = 2_000  # of an operation before the main thread looks whether the other still writes: a few milliseconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default=".", help="where the checkpoints are written and removed again")
    parser.add_argument("--rounds", type=int, default=3, help="checkpoints of each way, after one that is not counted")
    args = parser.parse_args()
    runtime.configure()

    import paddle

    from ernie_vil2.training.checkpoint import save_checkpoint
    from ernie_vil2.training.checkpoint_writer import CheckpointWriter

    paddle.set_device("cpu")
    make_checkpoint, state_bytes = build_state()
    figures: dict[str, list[float]] = {}

    @contextmanager
    def measure(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        figures.setdefault(name, []).append(time.perf_counter() - start)

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        step_run, thread_run = Path(folder, "step"), Path(folder, "thread")
        with CheckpointWriter(thread_run) as writer:
            for step in range(args.rounds + 1):
                with measure("copy of the state"):
                    checkpoint = make_checkpoint(step)
                with measure("write, in the step"):
                    save_checkpoint(step_run, checkpoint)

                counts = []
                with measure("write, in the thread"):
                    writer.start(checkpoint)
                    waiting = threading.Thread(target=writer.wait)
                    waiting.start()
                    while waiting.is_alive():
                        counts.append(count_waits())
                figures.setdefault("waits while writing", []).append(statistics.mean(counts))
                figures.setdefault("waits alone", []).append(statistics.mean(count_waits() for _ in counts))
                del checkpoint
                compare_folders(step_run, thread_run)

    medians = {name: statistics.median(values[1:]) for name, values in figures.items()}
    print(f"state of {state_bytes / 2**30:.2f} GiB; seconds, median of {args.rounds}")
    for name in ("copy of the state", "write, in the step", "write, in the thread"):
        print(f"  {name:<24}{medians[name]:8.2f}")
    wait_of_thread = medians["copy of the state"]
    wait_of_step = wait_of_thread + medians["write, in the step"]
    print(f"a step that writes waits {wait_of_step:.2f} s; if a thread writes, {wait_of_thread:.2f} s, "
          f"{wait_of_thread / wait_of_step:.3f} of it")  # fmt: skip
    print(f"waits for a lock in a thousand calls: {medians['waits while writing']:.2f} while the thread writes, "
          f"{medians['waits alone']:.2f} alone")  # fmt: skip
    return 0


def build_state():
    """Build a model with the state of its optimiser.

    Returns:
        A function that copies the state into a checkpoint of a step, and the bytes of the state.
    """
    import paddle

    from ernie_vil2.config import load_config
    from ernie_vil2.device.transfers import copy_to_host
    from ernie_vil2.io.run_folder import State
    from ernie_vil2.tasks import build_task
    from ernie_vil2.training.checkpoint import Checkpoint
    from ernie_vil2.training.optimizer import build_optimizer, gather_optimizer_state

    config = load_config(None, ["Model.implementation=native", "Training.keep_checkpoints=1"])
    paddle.seed(0)
    task = build_task(config)
    task.build(initialize=False)
    model = task.model
    optimizer = build_optimizer(model, task.parameter_groups(), config.Optimizer)
    for parameter in model.parameters():
        parameter.grad = paddle.randn(parameter.shape)
    optimizer.step()
    optimizer.clear_grad(set_to_zero=False)

    def make_checkpoint(step: int) -> Checkpoint:
        state: State = {
            "step": step,
            "seed": config.Training.seed,
            "ranks": 1,
            "scaler": {},
            "bad_samples": {},
            "skipped_steps": [0, 0],
            "data": {},
            "evaluated_step": -1,
            "best": None,
        }
        weights = {name: copy_to_host(value) for name, value in model.state_dict().items()}
        return Checkpoint(state, weights, gather_optimizer_state(optimizer, model), config, task.tokenizer)

    checkpoint = make_checkpoint(0)
    arrays = [*checkpoint.weights.values(), *checkpoint.optimizer_state.values()]
    return make_checkpoint, sum(array.nbytes for array in arrays)


def count_waits() -> float:
    """Return how often this thread waits for a lock in a thousand small operations of Paddle."""
    import paddle

    value = paddle.zeros([16])
    # Voluntary context switches: the thread waits for something, such as a lock. When another one takes its core, that
    # is an involuntary switch.
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    for _ in range(NUM_CALLS):
        value = value + 1.0
    return 1000 * (resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before) / NUM_CALLS


def compare_folders(left: Path, right: Path) -> None:
    """Exit with an error unless two runs have the same checkpoints, byte by byte."""
    names = sorted(str(path.relative_to(left)) for path in left.rglob("*") if path.is_file())
    _, different, missing = filecmp.cmpfiles(left, right, names, shallow=False)
    if different or missing or len(names) < 6:  # at least the files of one checkpoint
        sys.exit(f"error: the files differ: {different}, {missing}")


if __name__ == "__main__":
    sys.exit(main())
