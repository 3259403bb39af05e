"""The configurations of configs/pretrain fit on GPUs of 80 GB, and so do their overlays on 8, 16 and 64 of them."""

import math

import pytest
import yaml

from ernie_vil2.config import differences, load_config
from ernie_vil2.planning.plan import DEVICES, Plan, check_run
from ernie_vil2.planning.towers import Towers
from tests.support.paths import ROOT

FOLDER = ROOT / "configs" / "pretrain"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
GPU_COUNTS = (8, 16, 64)
GPUS_OF_A_MACHINE = 8


def load_overlay(name, gpu_count):
    return load_config(FOLDER / f"on_{gpu_count}_gpus" / f"{name}.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_pretraining_names_its_precision_and_rows_at_once(name):
    training = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["Training"]
    assert training["precision"] == "bfloat16"
    assert training.get("micro_batch") or training.get("recompute")


@pytest.mark.parametrize("gpu_count", GPU_COUNTS)
@pytest.mark.parametrize("name", NAMES)
def test_overlay_divides_the_batch_and_keeps_the_objective(name, gpu_count):
    base, overlay = load_config(FOLDER / f"{name}.yaml"), load_overlay(name, gpu_count)
    check_run(overlay, gpu_count, DEVICES["a100-80g"])
    # The paper's batch, or the next one that the GPUs divide.
    assert overlay.Training.global_batch == gpu_count * math.ceil(base.Training.global_batch / gpu_count)
    assert overlay.Data.groups == gpu_count // GPUS_OF_A_MACHINE
    changed_keys = {key for key, _ in differences(base.model_dump(), overlay.model_dump())}
    assert changed_keys <= {"Data.groups", *(f"Training.{key}" for key in ("global_batch", "micro_batch", "recompute"))}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_pretraining_fits_into_80_gb(name):
    base = load_config(FOLDER / f"{name}.yaml")
    if "EfficientNet" in base.Model.image.name:
        pytest.importorskip("paddleclas")
    # The cost of a row is measured once, for all plans.
    towers = Towers(base)
    runs = [(load_overlay(name, gpu_count), gpu_count) for gpu_count in GPU_COUNTS]
    # The paper's number of GPUs, or one near it that divides the batch.
    runs += [(base, gpu_count) for gpu_count in (8, 16, 100, 112) if base.Training.global_batch % gpu_count == 0]
    too_large = []
    for config, gpu_count in runs:
        plan = Plan(config, towers, gpu_count, DEVICES["a100-80g"])
        if not plan.fits:
            too_large.append((gpu_count, plan.peak_memory, plan.usable_memory))
    assert len(runs) >= 6 and too_large == []
