"""Calculate the length of the paper's runs on A100, the bytes that they read, and the cost of failures.

    python benchmarks/run_lengths.py

Nothing is measured. A step takes the operations that `tools/plan.py` counts for encoding every row once, at the share
of the device's peak in bfloat16 that is expected with the towers of PaddleClas and PaddleNLP, which the configurations
name (benchmarks/expectations.yaml). That share was calculated for micro batches, so it includes the second encoding of
every row. docs/notes/scale.md has the figures. The script takes two to four minutes, mostly to build the towers.
"""

import os
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

DEVICE = "a100-80g"
# Configuration in configs/pretrain -> ranks: 112 as in the paper, or 100 if 112 does not divide its batch.
RUNS = {
    "efficientnet_l2_bert_large_en": 112,
    "efficientnet_l2_ernie_large_zh": 100,
    "vit_b16_ernie_base_zh": 112,
}
NUM_MACHINES = 14  # of 8 GPUs
SAMPLE_BYTES = 50_000  # of an image-text pair
LOADER_RATE = 708  # pairs per CPU second of the whole loader, docs/notes/loader.md
STORAGE_RATE = 1e9  # bytes per second at which checkpoints are written and read
HOURS_BETWEEN_FAILURES = 450  # of 112 GPUs, as in the training of Llama 3
DETECTION_SECONDS = 30  # until a failure is noticed, docs/ranks.md
STEPS_BETWEEN_CHECKPOINTS = 1000


def main() -> int:
    os.environ.setdefault("GLOG_minloglevel", "2")
    warnings.simplefilter("ignore")
    from benchmarks.expectations import expect_step
    from ernie_vil2.planning.plan import DEVICES

    expected = expect_step(DEVICE, "suite")
    if expected is None:
        raise SystemExit(f"error: nothing is expected of {DEVICE}")
    flops_per_second = expected.share_of_peak * DEVICES[DEVICE].flops["bfloat16"]
    share = f"{expected.share_of_peak:.0%}"
    print(f"{DEVICE} at {share} of its peak in bfloat16, calculated for towers of PaddleClas and PaddleNLP")
    for name, num_ranks in RUNS.items():
        print_run(name, num_ranks, flops_per_second)
    return 0


def print_run(name: str, num_ranks: int, flops_per_second: float) -> None:
    """Print the figures of a run.

    Args:
        name: configuration in configs/pretrain.
        num_ranks: GPUs.
        flops_per_second: operations that a GPU does in a second.
    """
    from ernie_vil2.config import load_config
    from ernie_vil2.planning.plan import DEVICES, Plan
    from ernie_vil2.planning.towers import Towers

    # Every row is encoded once here: the cost of the second encoding is in the expected share.
    encode_once = ["Training.micro_batch=null", "Training.recompute=false"]
    config = load_config(ROOT / "configs" / "pretrain" / f"{name}.yaml", encode_once)
    plan = Plan(config, Towers(config), num_ranks, DEVICES[DEVICE])
    step_seconds = plan.flops / num_ranks / flops_per_second
    run_hours = plan.steps * step_seconds / 3600
    pairs_per_second = plan.global_batch / step_seconds
    machine_rate = pairs_per_second / NUM_MACHINES
    megabytes_per_second = pairs_per_second * SAMPLE_BYTES / 1e6
    print(f"\n{name}, {num_ranks} ranks")
    print(f"  step                    {step_seconds:.2f} s for {plan.global_batch:,} pairs")
    print(f"  length                  {run_hours:.1f} h for {plan.steps:,} steps")
    print(
        f"  a machine of {NUM_MACHINES}         {machine_rate:,.0f} pairs a second, "
        f"{machine_rate / LOADER_RATE:.1f} cores for views; {megabytes_per_second:,.0f} MB/s to each if it requests "
        "the data of all"
    )

    checkpoint_bytes = 12 * plan.parameters["all"]  # weights and both moments, in float32
    interval = STEPS_BETWEEN_CHECKPOINTS * step_seconds
    write_seconds = checkpoint_bytes / STORAGE_RATE
    read_seconds = num_ranks * checkpoint_bytes / STORAGE_RATE  # all ranks read the whole of it from one storage
    print(
        f"  checkpoint              {checkpoint_bytes / 1e9:.1f} GB every {interval:,.0f} s, written in "
        f"{write_seconds:.1f} s next to steps; {read_seconds:,.0f} s until all ranks have read one"
    )

    num_failures = run_hours / HOURS_BETWEEN_FAILURES
    repeated_seconds = interval / 2  # a failure comes halfway between two checkpoints, on average
    failure_seconds = repeated_seconds + DETECTION_SECONDS + read_seconds
    print(
        f"  failures                {num_failures:.2f}, each costs {failure_seconds / 60:.0f} minutes, "
        f"{repeated_seconds / 60:.1f} of them steps that are repeated"
    )


if __name__ == "__main__":
    sys.exit(main())
