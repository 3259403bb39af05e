"""Timing of the trainer's steps, on a batch that lies on the device or on batches that the loader reads from shards."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_day.measuring import LeftOut, Options, Results, quote_path, read_time_limit, wait_for_device
from benchmarks.gpu_day.processes import ROOT

if TYPE_CHECKING:
    from ernie_vil2.config import Config
    from ernie_vil2.planning.plan import DataSheet
    from ernie_vil2.planning.towers import Towers
    from ernie_vil2.training.trainer import Trainer

# Way to train -> rows of a rank, and settings. "direct" encodes all rows at once. 1,024 rows are those of
# benchmarks/expectations.yaml. Recomputation takes half of them, as it keeps the inputs of all blocks of all rows.
WAYS = {
    "direct": (128, []),
    "micro64": (1024, ["Training.micro_batch=64"]),
    "micro128": (1024, ["Training.micro_batch=128"]),
    "micro256": (1024, ["Training.micro_batch=256"]),
    "recompute": (512, ["Training.recompute=true"]),
}
DRY_WAYS = {
    "direct": (8, []),
    "micro4": (16, ["Training.micro_batch=4"]),
    "recompute": (8, ["Training.recompute=true"]),
}
TOWERS = [
    "Model.image={name: ViT-B/16, image_size: 224}",
    "Model.text={name: ernie-base}",
    "Data.max_length=48",
    "Views.resize=256",
]
DRY_TOWERS = [
    "Model.image={name: ViT, image_size: 32, patch_size: 16, width: 24, depth: 2, heads: 2}",
    "Model.text={name: ernie, width: 24, depth: 2, heads: 2, max_positions: 24}",
    "Data.max_length=24",
    "Views.resize=32",
    "Data.workers=0",
]
# Steps that are dropped before the measured ones, if the time suffices; with less time both numbers shrink.
NUM_DROPPED, NUM_MEASURED = 10, 30
DRY_DROPPED, DRY_MEASURED = 1, 3
NUM_PROFILED = 3
# Share of the time limit for these steps; the rest is for profiling `NUM_PROFILED` more.
TIMED_SHARE = 0.7


@dataclass(frozen=True)
class Case:
    """A way to train whose speed is measured.

    Attributes:
        precision: `Training.precision`.
        way: a key of `WAYS`, or of `DRY_WAYS` in a dry run.
        dropout: `Training.dropout`: "counter", masks by row and step, or "native", Paddle's own.
        data: "synthetic", one batch that stays on the device; or "shards", read by the loader.
    """

    precision: str
    way: str
    dropout: str = "counter"
    data: str = "synthetic"

    @property
    def name(self) -> str:
        """Name of the measurement."""
        return f"{self.precision}_{self.way}_{self.dropout}_{self.data}"

    def list_overrides(self, options: Options, num_ranks: int) -> list[str]:
        """Return the settings of the configuration."""
        rows_per_rank, settings = options.choose(WAYS, DRY_WAYS)[self.way]
        data = shards_folder(options) if self.data == "shards" else ROOT / "demo_data" / "emoji-train.tar"
        return [
            *options.choose(TOWERS, DRY_TOWERS),
            *settings,
            f"Data.train=[{quote_path(data)}]",
            f"Training.global_batch={rows_per_rank * num_ranks}",
            f"Training.precision={self.precision}",
            f"Training.dropout={self.dropout}",
            f"Training.device={options.device}",
        ]


def shards_folder(options: Options) -> Path:
    """Return the folder of the photographs that the step `throughput` of the day writes."""
    return options.work_folder / "shards"


def find_data_sheet(options: Options) -> DataSheet:
    """Return the data sheet of the device at hand; of an unknown GPU one without speeds."""
    import paddle

    from ernie_vil2.planning.plan import DEVICES, DataSheet, recognise_device

    if options.is_dry:
        return DEVICES["cpu"]
    properties = paddle.device.cuda.get_device_properties(0)
    try:
        return recognise_device(properties.name, properties.total_memory)
    except ValueError:
        return DataSheet(properties.name, properties.total_memory, {})


def find_peak(sheet: DataSheet, precision: str) -> float | None:
    """Return the operations a second of a data sheet; float32 means TF32, Paddle's default on GPUs that have it.

    Devices of `DEVICES` with bfloat16 have TF32 at half of its rate: 156 of 312 TFLOP/s on A100, 495 of 989 on H100.
    """
    if precision == "float32" and "bfloat16" in sheet.flops:
        return sheet.flops["bfloat16"] / 2
    return sheet.flops.get(precision)


def measure_case(case: Case, options: Options, results: Results) -> None:
    """Add time, speed, memory, launches and idle time of the steps of a case, on all ranks of this run."""
    from ernie_vil2.config import load_config
    from ernie_vil2.device.launch import launched_rank
    from ernie_vil2.training.trainer import Trainer

    begin = time.monotonic()
    _, num_ranks = launched_rank()
    plans = options.read_figures(step="throughput", measurement="plan").get("plans", {})
    plan = plans.get(f"{case.name}_{num_ranks}", {})
    if plan and plan["peak_bytes"] > plan["device_bytes"]:
        raise LeftOut(f"the plan needs {plan['peak_bytes'] / 2**30:.0f} GiB of {plan['device_bytes'] / 2**30:.0f}")
    run = options.run_folder(f"{case.name}_{num_ranks}")
    config = load_config(None, [*case.list_overrides(options, num_ranks), f"Training.output={quote_path(run)}"])
    trainer = Trainer(config, make_evaluators=lambda *_: {}, should_score_test=False)
    with trainer.folder_lock, closing(open_batches(case, trainer, config)) as batches:
        clock = StepClock(trainer, batches)
        time_case(clock, case, plan, options, results, begin)
        if num_ranks > 1:
            if trainer.rank == 0 and not options.is_dry:
                results.attempt("processes", count_processes_of_gpus)
            # A step waits for all ranks, so the other ones keep their contexts on the GPUs while rank 0 counts.
            clock.take_step()
        results.attempt("profile", lambda: clock.profile())


def open_batches(case: Case, trainer: Trainer, config: Config) -> Any:
    """Return a generator of the batches of this rank."""
    from ernie_vil2.data.loader import load_batches

    if case.data == "shards":
        return load_batches(trainer.sample_rows, config, position=0, rank=trainer.rank, num_ranks=trainer.num_ranks)
    return repeat_batch(make_batch(trainer, config))


def repeat_batch(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    while True:
        yield batch


def make_batch(trainer: Trainer, config: Config) -> dict[str, Any]:
    """Return a batch of noise on the device, with texts of full length, as the plan counts them."""
    import numpy as np
    import paddle

    num_rows = config.Training.global_batch // trainer.num_ranks
    generator = np.random.default_rng(trainer.rank)
    arrays: dict[str, np.ndarray] = {}
    for name, (shape, dtype) in trainer.sample_rows.layout.items():
        if dtype == np.uint8:
            arrays[name] = generator.integers(0, 256, (num_rows, *shape), dtype)
        elif name == "text":
            # The first ids of a vocabulary are padding and other tokens with a meaning.
            vocab_size = trainer.task.tokenizer.vocab_size
            arrays[name] = generator.integers(vocab_size // 2, vocab_size, (num_rows, *shape))
    positions = np.arange(num_rows) + trainer.rank * num_rows
    batch: dict[str, Any] = {name: paddle.to_tensor(array) for name, array in arrays.items()}
    # No two rows have the same image or text.
    batch |= {
        "ids": np.stack([positions, positions], axis=1),
        "positions": positions,
        "names": list(map(str, positions)),
    }
    return {**batch, "rows": num_rows, "bad": [], "remarks": []}


class StepClock:
    """Takes steps of a trainer and measures their times.

    In each step the trainer waits for the losses of the step before, so the host is at most a step ahead of the device.
    From the second step on, times on the host are therefore those of the device.
    """

    def __init__(self, trainer: Trainer, batches: Iterator[dict[str, Any]]):
        self._trainer, self._batches = trainer, batches
        self._step = 0
        self._waited = 0.0

    def take_step(self) -> None:
        start = time.perf_counter()
        batch = next(self._batches)
        self._waited += time.perf_counter() - start
        # With a rate of 0 the weights stay as they are, and noise cannot make them infinite.
        self._trainer.update(batch, self._step, 0.0)
        self._step += 1

    def finish(self) -> None:
        self._trainer.update.finish_pending()
        wait_for_device()

    def measure(self, num_steps: int) -> tuple[list[float], float, float]:
        """Return the seconds of the steps, of all together, and those spent waiting for batches."""
        self.finish()
        self._waited = 0.0
        start = time.perf_counter()
        ends = [start]
        for _ in range(num_steps):
            self.take_step()
            ends.append(time.perf_counter())
        self.finish()
        total = time.perf_counter() - start
        seconds = [step_end - step_start for step_start, step_end in itertools.pairwise(ends)]
        return seconds, total, self._waited

    def profile(self) -> dict[str, Any]:
        from benchmarks.gpu_day.profiles import profile_steps

        return profile_steps(self.take_step, NUM_PROFILED)


def time_case(
    clock: StepClock, case: Case, plan: dict[str, Any], options: Options, results: Results, begin: float
) -> None:
    """Add the figures of timed steps; fewer are timed if the time does not suffice.

    Args:
        clock: takes the steps.
        case: the way to train.
        plan: plan of the case, see `plan_case`; empty if there is none.
        options: options of the day.
        results: the figures are added here.
        begin: time at which the measurement began, of `time.monotonic`.
    """
    import paddle

    from ernie_vil2.device.launch import launched_rank
    from ernie_vil2.parallel.collectives import all_gather_object

    num_dropped, num_measured = options.choose((NUM_DROPPED, NUM_MEASURED), (DRY_DROPPED, DRY_MEASURED))
    # The first step chooses kernels. The next two tell how many steps fit into the time; rank 0 decides for all.
    clock.measure(1)
    probe_seconds = clock.measure(2)[1] / 2
    seconds_left = TIMED_SHARE * read_time_limit() - (time.monotonic() - begin)
    num_possible = all_gather_object(int(seconds_left / probe_seconds))[0]
    if num_possible < num_dropped + num_measured:
        num_dropped, num_measured = max(1, num_possible // 4), max(3, num_possible * 3 // 4)
    clock.measure(num_dropped)

    on_gpu = paddle.get_device() != "cpu"
    if on_gpu:
        paddle.device.cuda.reset_max_memory_allocated()
    # The first step after a pause is shorter for the host, which has no earlier step to wait for: it does not count in
    # median and p90. It counts in the mean, because `total` includes the wait for the last step instead.
    seconds, total, waited = clock.measure(num_measured + 1)
    step_seconds = median(seconds[1:])
    _, num_ranks = launched_rank()
    rows_per_rank = options.choose(WAYS, DRY_WAYS)[case.way][0]
    results.add(
        rows=rows_per_rank,
        ranks=num_ranks,
        num_dropped=3 + num_dropped,  # the first three steps above, too
        num_steps=num_measured,
        step_seconds=step_seconds,
        step_seconds_p90=quantiles(seconds[1:], n=10)[-1],
        step_seconds_mean=total / len(seconds),
        step_seconds_each=[round(value, 5) for value in seconds],
        samples_per_second=rows_per_rank * num_ranks / step_seconds,
        loader_wait=waited / total,
    )
    if on_gpu:
        results.add(
            peak_gib=paddle.device.cuda.max_memory_allocated() / 2**30,
            reserved_gib=paddle.device.cuda.max_memory_reserved() / 2**30,
        )
    if plan:
        speed = plan["useful_flops"] / num_ranks / step_seconds
        gemm = options.read_figures(step="ceilings", measurement="kernels").get(f"gemm_{case.precision}_tflops")
        results.add(
            planned_gib=plan["peak_bytes"] / 2**30,
            useful_tflops_per_second=speed / 1e12,
            # Including what is computed twice, in micro batches and recomputation.
            computed_tflops_per_second=plan["flops"] / num_ranks / step_seconds / 1e12,
            share_of_peak=speed / plan["peak_flops"] if plan["peak_flops"] else None,
            share_of_gemm=speed / 1e12 / gemm if gemm else None,
        )


def count_processes_of_gpus() -> dict[str, Any]:
    """Return the number of processes with memory on each GPU: 1, unless ranks open contexts on GPUs of other ranks."""
    import subprocess
    from collections import Counter

    query = ["nvidia-smi", "--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()  # noqa: S603
    counts = Counter(line.split(",")[0] for line in lines)
    if not counts:  # in a container, nvidia-smi may not see the processes
        return {"processes_per_gpu": None}
    return {"processes_per_gpu": dict(counts), "most_processes_on_a_gpu": max(counts.values())}


def plan_case(
    case: Case, towers: Towers, options: Options, num_ranks: int, make_plan: Callable[..., Any]
) -> dict[str, Any]:
    """Return what `tools/plan.py` says of a case: operations, useful ones, and memory."""
    from ernie_vil2.config import load_config

    overrides = case.list_overrides(options, num_ranks)
    sheet = find_data_sheet(options)
    plan = make_plan(load_config(None, overrides), towers, num_ranks, sheet)
    # Useful operations are those of a step that encodes every row once.
    once = load_config(None, [*overrides, "Training.micro_batch=null", "Training.recompute=false"])
    return {
        "flops": plan.flops,
        "useful_flops": make_plan(once, towers, num_ranks, sheet).flops,
        "peak_bytes": plan.peak_memory,
        "device_bytes": sheet.memory,
        "peak_flops": find_peak(sheet, case.precision),
        "parts": {"permanent": plan.permanent_memory, "phases": plan.phase_memory},
    }
