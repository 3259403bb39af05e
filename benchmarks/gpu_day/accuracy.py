"""Step 7, accuracy: the demo for 300 steps in every precision, on one GPU and on two."""

import subprocess

from benchmarks.gpu_day.measuring import Measurement, Options, Results, list_demo_command, make_measurement
from benchmarks.gpu_day.processes import ROOT

NUM_STEPS, DRY_STEPS = 300, 3
# Name -> precision of the training, and the environment. cuBLAS reads this variable; 0 switches TF32 off.
PRECISIONS: dict[str, tuple[str, dict[str, str]]] = {
    "float32": ("float32", {"NVIDIA_TF32_OVERRIDE": "0"}),
    "tf32": ("float32", {}),
    "bfloat16": ("bfloat16", {}),
    "float16": ("float16", {}),
}
DRY_PRECISIONS: tuple[str, ...] = ("float32",)  # a CPU has no other


def list_measurements(options: Options) -> list[Measurement]:
    measurements = []
    for num_ranks in range(1, min(2, options.num_gpus) + 1):
        for name in options.choose(tuple(PRECISIONS), DRY_PRECISIONS):
            _, variables = PRECISIONS[name]
            # The training brings its own ranks.
            measurement = make_measurement("accuracy", f"{name}_{num_ranks}", options, 120, num_ranks=1, **variables)
            measurements.append(measurement)
    return measurements


def measure(name: str, options: Options, results: Results) -> None:
    from ernie_vil2.training.run_log import read_log

    precision, _, num_ranks = name.rpartition("_")
    num_steps = options.choose(NUM_STEPS, DRY_STEPS)
    run_name = f"accuracy_{name}"
    overrides = [
        f"Training.precision={PRECISIONS[precision][0]}",
        f"Training.steps={num_steps}",
        f"Training.log_every={max(1, num_steps // 30)}",
        f"Schedule.warmup_steps={num_steps // 6}",
        f"Training.checkpoint_every={num_steps}",
        f"Evaluation.every={num_steps}",
    ]
    command = list_demo_command(options, run_name, int(num_ranks), overrides)
    subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603  -- a command of this package

    records = read_log(options.run_folder(run_name) / "log.jsonl")
    losses = {record["step"]: record["loss"] for record in records if record["kind"] == "train"}
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    metrics = evaluations[-1]["metrics"]
    results.add(
        losses=losses,
        last_loss=losses[max(losses)],
        mean_recall=metrics[evaluations[-1]["best_by"]],
        samples_per_second=[record["samples_per_second"] for record in records if record["kind"] == "train"][-1],
    )
