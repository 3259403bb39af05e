"""A plan's arithmetic by hand and against the counter of a real step; advice planned again; what cannot be planned."""

import json
from collections import defaultdict
from dataclasses import asdict, replace

import pytest

from benchmarks.traffic import counted_traffic
from ernie_vil2.cli.plan import read_step_seconds
from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.io.run_folder import CONFIG, LOG
from ernie_vil2.planning.plan import (
    DEVICES,
    GIB,
    HOW_TO_MEASURE,
    DataSheet,
    Plan,
    advise,
    check_run,
    describe,
    recognise_device,
)
from ernie_vil2.planning.towers import Towers
from ernie_vil2.training.trainer import Trainer
from tests.support.ranks import run_ranks
from tests.support.trainings import REPVGG

SMALL = [
    "Model.image.name=ViT", "Model.image.image_size=32", "Model.image.patch_size=8", "Model.image.width=64",
    "Model.image.depth=2", "Model.image.heads=4", "Model.text.name=ernie", "Model.text.width=32",
    "Model.text.depth=2", "Model.text.heads=4", "Training.global_batch=64", "Training.steps=1000",
    "Schedule.warmup_steps=10",
]  # fmt: skip
DEVICE = DataSheet("desk", 2**30, flops={"float32": 1e12, "bfloat16": 4e12})


@pytest.fixture(scope="module")
def towers():
    return Towers(load_config(None, SMALL))


def planned(towers, *overrides, ranks=4, device=DEVICE, step_seconds=None):
    config = load_config(None, [*SMALL, *overrides])
    check_run(config, ranks, device)
    return Plan(config, towers, ranks, device, sample_bytes=1000, step_seconds=step_seconds)


def test_memory_by_hand(towers):
    plan = planned(towers)
    parameters, image, text = (
        sum(towers.parameter_sizes),
        *(towers.row_cost(kind, "float32") for kind in ("image", "text")),
    )
    images = 16 * 2 * 3 * 32 * 32
    assert plan.permanent_memory == {
        "weights": 4 * parameters,
        "gradients": 4 * parameters,
        "optimiser state": 8 * parameters,
        "images of the batches": 3 * images,
    }
    activations = 16 * 2 * (image.saved + text.saved)
    assert plan.phase_memory["backward"]["activations"] == activations
    assert plan.phase_memory["loss"]["logits"] == 12 * 16 * 64 * 4
    assert plan.phase_memory["loss"]["embeddings"] == 2 * (16 + 64) * 4 * 32 * 4
    assert plan.peak_memory == sum(plan.permanent_memory.values()) + sum(plan.phase_memory["backward"].values())
    assert plan.usable_memory == 0.92 * 2**30 and plan.fits


def test_views_that_the_loss_does_not_need_cost_nothing(towers):
    single = planned(towers, "Loss.weights.image_image=0", "Loss.weights.text_text=0")
    assert single.views == {"image": 1, "text": 1}
    # Forward and backward of every view, and the products of four pairs of views of a whole batch.
    encoding = sum(towers.row_cost(kind, "float32").flops for kind in ("image", "text"))
    plan = planned(towers)
    assert plan.flops == 3 * 64 * 2 * encoding + 4 * 4 * 2 * 64**2 * 32
    assert plan.cost == (
        plan.flops / 1e12,
        sum(transfer.sent for transfer in plan.transfers if not transfer.is_overlapped),
    )
    texts = planned(towers, "Loss.weights={image_image: 0, image_text: 0, text_image: 0}")
    assert texts.views == {"image": 0, "text": 2}
    assert texts.permanent_memory["images of the batches"] == 0
    on_cpu = planned(towers, device=replace(DEVICE, name="cpu"))
    assert on_cpu.permanent_memory["images of the batches"] == 2 * 16 * 2 * 3 * 32 * 32
    assert texts.flops < single.flops < planned(towers).flops


def test_widths_cost_products_and_send_and_hold_no_more(towers):
    plain, widths = planned(towers), planned(towers, "Loss.widths=[8, 16, 32]")
    assert widths.flops - plain.flops == 4 * 4 * 2 * 64**2 * (8 + 16)
    assert (widths.phase_memory, widths.transfers) == (plain.phase_memory, plain.transfers)


def test_traffic_by_hand(towers):
    sent = {transfer.name: transfer for transfer in planned(towers).transfers}
    embeddings = 16 * 4 * 32 * 4
    assert sent["embeddings"].payload == embeddings and sent["embeddings"].sent == 3 * embeddings
    assert sent["gradients of the embeddings"].payload == 4 * embeddings
    assert sent["gradients of the embeddings"].sent == 3 * embeddings
    assert sent["gradients of the parameters"].sent == 2 * 3 / 4 * 4 * sum(towers.parameter_sizes)
    assert sent["ids of the rows"].payload == 16 * 16
    assert planned(towers, ranks=1).transfers == []


def test_sharding_by_hand(towers):
    """Each rank owns whole parameters; the word embedding is most of this model."""
    plain, first, second = (planned(towers, f"Training.sharding={stage}") for stage in ("none", "stage1", "stage2"))
    embedding = max(towers.parameter_sizes)
    assert 2 * embedding > sum(towers.parameter_sizes) and towers.largest_share(4) == embedding
    assert first.permanent_memory["optimiser state"] == second.permanent_memory["optimiser state"] == 8 * embedding
    assert (
        first.permanent_memory["gradients"] == plain.permanent_memory["gradients"]
        and second.permanent_memory["gradients"] == 4 * embedding
    )
    assert "buckets of gradients" not in first.phase_memory["backward"] and "optimiser" not in first.phase_memory
    gradients, updated = first.transfers[-2:]
    assert (gradients.collective, updated.collective) == ("reduce", "broadcast")
    assert gradients.sent + updated.sent == plain.transfers[-1].sent
    assert gradients.num_calls == len(towers.parameter_sizes) and not gradients.is_overlapped
    alone = planned(towers, "Training.sharding=stage1", ranks=1)
    assert alone.permanent_memory["optimiser state"] == 8 * sum(towers.parameter_sizes)


def test_days_are_those_of_a_measured_step(towers):
    plan, measured = planned(towers), planned(towers, step_seconds=0.5)
    assert measured.days == pytest.approx(1000 * 0.5 / 86400) and measured.samples_per_second == 64 / 0.5
    assert plan.as_dict() == measured.as_dict() | {"step_seconds": None, "days": None, "samples_per_second": None}
    assert HOW_TO_MEASURE in "\n".join(describe(plan)) and HOW_TO_MEASURE not in "\n".join(describe(measured))
    assert "96.0 device hours" in "\n".join(describe(planned(towers, "Training.steps=172800", step_seconds=0.5)))


def test_the_whole_matrix_of_logits_needs_more_memory(towers):
    tiled, whole = (
        planned(towers, f"Loss.tile={tile}", "Training.global_batch=4096", ranks=1) for tile in (512, "null")
    )
    assert whole.phase_memory["loss"]["logits"] == (3 * 4 + 3) * 4096**2 * 4
    assert tiled.phase_memory["loss"]["logits"] == 12 * 512**2 * 4
    assert whole.flops < tiled.flops


def test_micro_batches_bound_what_is_kept_and_encode_twice(towers):
    whole, parts = planned(towers), planned(towers, "Training.micro_batch=5")
    assert parts.rows_at_once == 4  # 16 rows in four micro batches, as even as they can be
    assert parts.phase_memory["backward"]["activations"] == pytest.approx(
        whole.phase_memory["backward"]["activations"] / 4, 0.01
    )
    assert "activations" not in parts.phase_memory["loss"]
    scoring = 4 * 4 * 2 * 64**2 * 32
    assert 3 * (parts.flops - scoring) == 4 * (whole.flops - scoring)


def test_recomputed_blocks_keep_less_and_run_twice(towers):
    whole, again = planned(towers), planned(towers, "Training.recompute=true")
    kept = sum(towers.row_cost(kind, recompute=True).saved for kind in ("image", "text"))
    assert again.phase_memory["backward"]["activations"] == pytest.approx(16 * 2 * kept, rel=0.01)
    assert again.peak_memory < whole.peak_memory and again.flops > whole.flops


def test_advice_fits_when_it_is_planned_again(towers):
    """Of what fits, it costs least."""
    overrides = ["Training.global_batch=1024", "Loss.tile=null"]
    tried = {}

    def replan(changes):
        tried[changes] = planned(towers, *overrides, *changes, ranks=1)
        return tried[changes]

    plan = planned(towers, *overrides, ranks=1)
    advice = advise(plan, replan)
    assert not plan.fits and advice[1].fits
    again = planned(towers, *overrides, *advice[0], ranks=1)
    assert again.fits and again.cost == min(plan.cost for plan in tried.values() if plan.fits)
    # A run that fits may be faster in another precision.
    for flops, faster in ((DEVICE.flops, ("Training.precision=bfloat16",)), ({"float32": 1e12}, None)):
        device = replace(DEVICE, flops=flops)
        advice = advise(planned(towers, device=device), lambda changes, of=device: planned(towers, *changes, device=of))
        assert (advice and advice[0]) == faster


def test_devices_by_what_their_driver_says():
    assert recognise_device("NVIDIA A100-SXM4-40GB", 39.4 * GIB) is DEVICES["a100-40g"]
    assert recognise_device("NVIDIA A100-SXM4-80GB", 79.2 * GIB) is DEVICES["a100-80g"]
    with pytest.raises(ValueError, match="NVIDIA L4"):
        recognise_device("NVIDIA L4", 22.0 * GIB)


def test_what_cannot_be_planned_is_refused(towers):
    with pytest.raises(ConfigError, match="--ranks 4 or 8, or set -o Training.global_batch=60 or 65"):
        planned(towers, ranks=5)
    with pytest.raises(ConfigError, match="v100-32g does not compute in bfloat16"):
        planned(towers, "Training.precision=bfloat16", device=DEVICES["v100-32g"])


def test_a_step_is_measured_by_the_log_of_a_run(tmp_path):
    def log(*rates):
        records = [{"kind": "train", "step": step, "seconds": 1.0, "loss": 1.0, "samples_per_second": rate,
                    "loader_wait": 0.0} for step, rate in enumerate(rates, 1)]  # fmt: skip
        (tmp_path / LOG).write_text("".join(f"{json.dumps(record)}\n" for record in records))

    (tmp_path / CONFIG).write_text("Training: {global_batch: 64}")
    with pytest.raises(ValueError, match="no step"):
        read_step_seconds(str(tmp_path), 64)
    log(16.0)
    assert read_step_seconds(str(tmp_path), 64) == 4.0
    log(1.0, 32.0, 64.0, 16.0, 0.0)  # the run starts, and was stopped
    assert read_step_seconds(str(tmp_path), 64) == 2.0
    with pytest.raises(ValueError, match="64 samples.* 128"):
        read_step_seconds(str(tmp_path), 128)


def count_traffic(folder, settings):
    """As a rank: train, and leave what the second step sends in `folder`."""
    trainer = Trainer(load_config(None, settings))
    step = trainer._train_step

    def counted(batch, rate):
        with counted_traffic() as traffic:
            losses = step(batch, rate)
        if trainer.step == 2:
            sent = {kind: asdict(entry) for kind, entry in traffic.items()}
            (folder / f"{trainer.rank}.json").write_text(json.dumps(sent))
        return losses

    trainer._train_step = counted
    trainer.fit()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    [REPVGG, "Training.micro_batch=3"], ["Loss.weights={text_text: 0, text_image: 0}", "Training.global_batch=12"]
], ids=["norms", "two pairs"])  # fmt: skip
def test_bytes_and_calls_are_those_of_a_step(overrides, tmp_path, changes):
    settings = [*overrides, *changes, "Training.steps=3", "Training.device=cpu"]
    run_ranks(count_traffic, tmp_path, settings)

    config = load_config(None, settings)
    planned = defaultdict(lambda: {"calls": 0, "payload": 0, "sent": 0.0})
    for transfer in Plan(config, Towers(config), 2, DEVICES["cpu"]).transfers:
        if transfer.name == "gradients of the parameters":  # sent by Paddle's own data parallel, which is not counted
            continue
        # Gloo has no reduce_scatter: the whole is summed on every rank, which sends twice as much.
        on_gloo = transfer.collective == "reduce_scatter"
        entry = planned["all_reduce" if on_gloo else transfer.collective]
        entry["calls"] += transfer.num_calls
        entry["payload"] += transfer.payload
        entry["sent"] += transfer.sent * (2 if on_gloo else 1)
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == planned
