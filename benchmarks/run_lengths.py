"""Days that the paper's runs would take on A100, bytes that they read, and the cost of failures: docs/notes/scale.md.

    python benchmarks/run_lengths.py

Calculated, not measured: a step takes the operations that `tools/plan.py` counts for encoding every row once, at the
share of the device's peak in bfloat16 that is expected of towers of PaddleClas and PaddleNLP, which the configurations
name (benchmarks/expectations.yaml). The share was calculated for micro batches, so it includes the second encoding of
every row. The script takes four minutes, mostly to build the towers.
"""

import os
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

DEVICE = "a100-80g"
# Configuration in configs/pretrain -> ranks: 112 of the paper, or 100 if these do not divide its batch.
RUNS = {
    "efficientnet_l2_bert_large_en": 112,
    "efficientnet_l2_ernie_large_zh": 100,
    "vit_b16_ernie_base_zh": 112,
}
MACHINES = 14
SAMPLE_BYTES = 50_000
VIEW_RATE = 870  # pairs a second and core, docs/notes/loader.md
DISK_RATE = 1e9  # bytes a second at which storage writes and reads checkpoints
HOURS_BETWEEN_FAILURES = 450  # of 112 GPUs, as in the training of Llama 3
NOTICE_SECONDS = 30  # until a failure is noticed, docs/ranks.md
STEPS_BETWEEN_CHECKPOINTS = 1000


def main() -> int:
    os.environ.setdefault("GLOG_minloglevel", "2")
    warnings.simplefilter("ignore")
    from benchmarks.expectations import expect_step
    from ernie_vil2.planning.plan import DEVICES

    expected = expect_step(DEVICE, "suite")
    if expected is None:
        raise SystemExit(f"error: nothing is expected of {DEVICE}")
    speed = expected.share_of_peak * DEVICES[DEVICE].flops["bfloat16"]
    share = f"{expected.share_of_peak:.0%}"
    print(f"{DEVICE} at {share} of its peak in bfloat16, calculated for towers of PaddleClas and PaddleNLP")
    for name, ranks in RUNS.items():
        show_run(name, ranks, speed)
    return 0


def show_run(name: str, ranks: int, speed: float) -> None:
    """Print the figures of a run whose ranks do this many operations a second."""
    from ernie_vil2.config import load_config
    from ernie_vil2.planning.plan import DEVICES, Plan
    from ernie_vil2.planning.towers import Towers

    # Every row is encoded once here: the cost of the second encoding is in the expected share.
    encode_once = ["Training.micro_batch=null", "Training.recompute=false"]
    config = load_config(ROOT / "configs" / "pretrain" / f"{name}.yaml", encode_once)
    plan = Plan(config, Towers(config), ranks, DEVICES[DEVICE])
    seconds = plan.flops / ranks / speed
    hours = plan.steps * seconds / 3600
    rate = plan.global_batch / seconds / MACHINES
    traffic = plan.global_batch / seconds * SAMPLE_BYTES / 1e6
    print(f"\n{name}, {ranks} ranks")
    print(f"  step                    {seconds:.2f} s for {plan.global_batch:,} pairs")
    print(f"  length                  {hours:.1f} h for {plan.steps:,} steps")
    print(f"  a machine of {MACHINES}         {rate:,.0f} pairs a second, {rate / VIEW_RATE:.1f} cores for views; "
          f"{traffic:,.0f} MB/s to each if it requests the data of all")  # fmt: skip

    # Weights and both moments, in float32.
    checkpoint_bytes = 12 * plan.parameters["all"]
    write_seconds, interval = checkpoint_bytes / DISK_RATE, STEPS_BETWEEN_CHECKPOINTS * seconds
    read_seconds = ranks * checkpoint_bytes / DISK_RATE
    print(f"  checkpoint              {checkpoint_bytes / 1e9:.1f} GB every {interval:,.0f} s, written in "
          f"{write_seconds:.1f} s next to steps; {read_seconds:,.0f} s until all ranks have read one")  # fmt: skip
    cost = interval / 2 + NOTICE_SECONDS + read_seconds
    print(f"  failures                {hours / HOURS_BETWEEN_FAILURES:.2f}, each costs {cost / 60:.0f} minutes, "
          f"{interval / 120:.1f} of them steps that are repeated")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
