"""Plans equal arithmetic by hand and the traffic of a real step, and advice fits when it is planned again."""

import json
from collections import defaultdict
from dataclasses import asdict, replace

import pytest

from benchmarks.traffic import counted_traffic
from ernie_vil2.cli.plan import read_step_seconds
from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.io.run_folder import CONFIG, LOG
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.planning.plan import (
    DEVICES,
    GIB,
    HOW_TO_MEASURE,
    DataSheet,
    Plan,
    advise,
    check_run,
    describe,
    plan_run,
    recognise_device,
)
from ernie_vil2.planning.towers import Towers
from ernie_vil2.tasks.task import apply_tuning
from ernie_vil2.training.optimizer import WeightAverage
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


def make_plan(towers, *overrides, ranks=4, device=DEVICE, step_seconds=None):
    config = load_config(None, [*SMALL, *overrides])
    check_run(config, ranks, device)
    return Plan(config, towers, ranks, device, sample_bytes=1000, step_seconds=step_seconds)


def test_memory_equals_that_by_hand(towers):
    plan = make_plan(towers)
    parameters = sum(towers.parameter_sizes)
    image, text = towers.row_cost("image", "float32"), towers.row_cost("text", "float32")
    # Of 64 rows each of four ranks has 16, with two views of uint8 pixels each.
    images = 16 * 2 * 3 * 32 * 32
    assert plan.permanent_memory == {
        "weights": 4 * parameters,
        "gradients": 4 * parameters,
        "optimiser state": 8 * parameters,
        "images of the batches": 3 * images,
    }
    activations = 16 * 2 * (image.saved + text.saved)
    assert plan.phase_memory["backward"]["activations"] == activations
    # On a GPU logits this few are computed without tiles, see below. Twice the four views of 16 local and 64 gathered
    # rows of width 32.
    assert plan.phase_memory["loss"]["logits"] == (3 * 4 + 3) * 16 * 64 * 4
    assert plan.phase_memory["loss"]["embeddings"] == 2 * (16 + 64) * 4 * 32 * 4
    assert plan.peak_memory == sum(plan.permanent_memory.values()) + sum(plan.phase_memory["backward"].values())
    assert plan.usable_memory == 0.92 * 2**30 and plan.fits


def test_unused_views_cost_nothing(towers):
    single = make_plan(towers, "Loss.weights.image_image=0", "Loss.weights.text_text=0")
    assert single.num_views == {"image": 1, "text": 1}
    # Forward and backward of every view, and three products for each of four pairs of views of a whole batch.
    encoding = sum(towers.row_cost(kind, "float32").flops for kind in ("image", "text"))
    plan = make_plan(towers)
    assert plan.flops == 3 * 64 * 2 * encoding + 4 * 3 * 2 * 64**2 * 32
    sent = sum(transfer.sent for transfer in plan.transfers if not transfer.is_overlapped)
    assert plan.cost == (plan.flops / 1e12, sent)
    texts = make_plan(towers, "Loss.weights={image_image: 0, image_text: 0, text_image: 0}")
    assert texts.num_views == {"image": 0, "text": 2}
    assert texts.permanent_memory["images of the batches"] == 0
    on_cpu = make_plan(towers, device=replace(DEVICE, name="cpu"))
    assert on_cpu.permanent_memory["images of the batches"] == 2 * 16 * 2 * 3 * 32 * 32
    assert on_cpu.permanent_memory["copy for a checkpoint"] == 12 * sum(towers.parameter_sizes)
    assert texts.flops < single.flops < make_plan(towers).flops


def test_widths_cost_products_but_no_memory_or_traffic(towers):
    # On a CPU, where the loss of one width is computed in tiles too.
    on_cpu = replace(DEVICE, name="cpu")
    plain, widths = (make_plan(towers, *options, device=on_cpu) for options in ([], ["Loss.widths=[8, 16, 32]"]))
    assert widths.flops - plain.flops == 4 * 4 * 2 * 64**2 * (8 + 16)
    assert (widths.phase_memory, widths.transfers) == (plain.phase_memory, plain.transfers)


def test_traffic_equals_that_by_hand(towers):
    sent = {transfer.name: transfer for transfer in make_plan(towers).transfers}
    embeddings = 16 * 4 * 32 * 4
    assert sent["embeddings"].payload == embeddings and sent["embeddings"].sent == 3 * embeddings
    assert sent["gradients of the embeddings"].payload == 4 * embeddings
    assert sent["gradients of the embeddings"].sent == 3 * embeddings
    assert sent["gradients of the parameters"].sent == 2 * 3 / 4 * 4 * sum(towers.parameter_sizes)
    assert sent["ids of the rows"].payload == 16 * 16
    assert make_plan(towers, ranks=1).transfers == []


def test_sharding_equals_that_by_hand(towers):
    plain = make_plan(towers, "Training.sharding=none")
    stage1, stage2 = make_plan(towers, "Training.sharding=stage1"), make_plan(towers, "Training.sharding=stage2")
    # A parameter is never split: the word embedding, more than half of this model, is the largest share of a rank.
    embedding = max(towers.parameter_sizes)
    assert 2 * embedding > sum(towers.parameter_sizes) and towers.largest_share(4) == embedding
    # Two float32 moments of each parameter, and in stage 2 a float32 gradient.
    assert stage1.permanent_memory["optimiser state"] == stage2.permanent_memory["optimiser state"] == 8 * embedding
    assert stage1.permanent_memory["gradients"] == plain.permanent_memory["gradients"]
    assert stage2.permanent_memory["gradients"] == 4 * embedding
    assert "buckets of gradients" not in stage1.phase_memory["backward"] and "optimiser" not in stage1.phase_memory
    gradients, parameters = stage1.transfers[-2:]
    assert (gradients.collective, parameters.collective) == ("reduce", "broadcast")
    assert gradients.sent + parameters.sent == plain.transfers[-1].sent
    assert gradients.num_calls == parameters.num_calls == 4 and not gradients.is_overlapped  # a bucket for each rank
    assert [transfer.num_calls for transfer in stage2.transfers[-2:]] == [len(towers.parameter_sizes), 4]
    single_rank = make_plan(towers, "Training.sharding=stage1", ranks=1)
    assert single_rank.permanent_memory["optimiser state"] == 8 * sum(towers.parameter_sizes)


def test_days_follow_from_a_measured_step(towers):
    plan, measured = make_plan(towers), make_plan(towers, step_seconds=0.5)
    assert measured.days == pytest.approx(1000 * 0.5 / 86400) and measured.samples_per_second == 64 / 0.5
    assert plan.as_dict() == measured.as_dict() | {"step_seconds": None, "days": None, "samples_per_second": None}
    assert HOW_TO_MEASURE in "\n".join(describe(plan)) and HOW_TO_MEASURE not in "\n".join(describe(measured))
    assert "96.0 device hours" in "\n".join(describe(make_plan(towers, "Training.steps=172800", step_seconds=0.5)))


def test_untiled_logits_need_more_memory(towers):
    tiled = make_plan(towers, "Loss.tile=512", "Training.global_batch=4096", ranks=1, device=DEVICES["cpu"])
    untiled = make_plan(towers, "Loss.tile=null", "Training.global_batch=4096", ranks=1, device=DEVICES["cpu"])
    # Float32 matrices: three saved for each of four pairs and three at work; and twelve tiles.
    assert untiled.phase_memory["loss"]["logits"] == (3 * 4 + 3) * 4096**2 * 4
    assert tiled.phase_memory["loss"]["logits"] == 12 * 512**2 * 4
    assert untiled.flops < tiled.flops


@pytest.mark.parametrize(("batch", "ranks", "is_tiled"), [(8192, 1, False), (16384, 4, False), (8448, 1, True)])
def test_gpus_compute_256_mib_of_logits_without_tiles(towers, batch, ranks, is_tiled):
    plan = make_plan(towers, "Loss.tile=512", f"Training.global_batch={batch}", ranks=ranks)
    expected = 12 * 512**2 if is_tiled else (3 * 4 + 3) * batch * batch // ranks
    assert plan.phase_memory["loss"]["logits"] == 4 * expected


def test_micro_batches_save_memory_and_encode_twice(towers):
    plain, split = make_plan(towers), make_plan(towers, "Training.micro_batch=5")
    assert split.rows_at_once == 4  # 16 rows in four micro batches, as even as they can be
    expected = plain.phase_memory["backward"]["activations"] / 4
    assert split.phase_memory["backward"]["activations"] == pytest.approx(expected, 0.01)
    assert "activations" not in split.phase_memory["loss"]
    # A backward pass costs two forward passes: 3 without micro batches, and 4 where the forward pass runs twice.
    scoring = 4 * 3 * 2 * 64**2 * 32
    assert 3 * (split.flops - scoring) == 4 * (plain.flops - scoring)


def test_reduced_residual_saves_memory_of_tokens_only(towers):
    precision = "Training.precision=bfloat16"
    plain, reduced = (make_plan(towers, precision, f"Training.residual={kind}") for kind in ("float32", "reduced"))
    weights = 2 * sum(towers.parameter_sizes)
    before, after = (plan.phase_memory["backward"]["activations"] - weights for plan in (plain, reduced))
    # 0.04 of 0.71 of the bytes in float32.
    assert after / before == pytest.approx(1 - 0.04 / 0.71)
    convolutional = Towers(load_config(None, [REPVGG]))
    costs = [convolutional.row_cost("image", "bfloat16", residual=kind) for kind in ("float32", "reduced")]
    assert costs[0] == costs[1]


def test_micro_batches_as_large_as_a_rank_change_nothing(towers):
    # Each of four ranks has 16 of 64 rows.
    plain, whole = make_plan(towers), make_plan(towers, "Training.micro_batch=16")
    assert whole.as_dict() == plain.as_dict()
    assert make_plan(towers, "Training.micro_batch=15").flops > plain.flops


def test_recomputed_blocks_save_memory_and_run_twice(towers):
    plain, recomputed = make_plan(towers), make_plan(towers, "Training.recompute=true")
    saved_per_row = sum(towers.row_cost(kind, recompute=True).saved for kind in ("image", "text"))
    assert recomputed.phase_memory["backward"]["activations"] == pytest.approx(16 * 2 * saved_per_row, rel=0.01)
    assert recomputed.peak_memory < plain.peak_memory and recomputed.flops > plain.flops


def test_advice_is_the_cheapest_plan_that_fits(towers):
    overrides = ["Training.global_batch=2048", "Loss.tile=null"]
    plans = {}

    def replan(changes):
        plans[changes] = make_plan(towers, *overrides, *changes, ranks=1)
        return plans[changes]

    plan = make_plan(towers, *overrides, ranks=1)
    changes, advised_plan = advise(plan, replan)
    assert not plan.fits and advised_plan.fits
    repeated = make_plan(towers, *overrides, *changes, ranks=1)
    assert repeated.fits and repeated.cost == min(plan.cost for plan in plans.values() if plan.fits)

    # A run that fits may be faster in another precision, if the device has one.
    changes, _ = advise(make_plan(towers), lambda changes: make_plan(towers, *changes))
    assert changes == ("Training.precision=bfloat16",)
    float32_only = replace(DEVICE, flops={"float32": 1e12})
    plan = make_plan(towers, device=float32_only)
    assert advise(plan, lambda changes: make_plan(towers, *changes, device=float32_only)) is None


@pytest.mark.parametrize("setting", ["sharding=stage2", "dropout=native"])
def test_advice_leaves_out_settings_that_exclude_each_other(towers, setting):
    # Neither goes with micro batches, and native dropout not with recomputation either.
    overrides = ["Training.global_batch=2048", f"Training.{setting}"]
    peak_memory = make_plan(towers, *overrides).peak_memory
    device = replace(DEVICE, memory=int(0.9 * peak_memory))
    plan = make_plan(towers, *overrides, device=device)
    changes, advised_plan = advise(plan, lambda changes: make_plan(towers, *overrides, *changes, device=device))
    assert not plan.fits and advised_plan.fits and changes


@pytest.mark.parametrize(("setting", "num_copies"), [("ema=0.9", 1), ("initial_share=0.3", 2)])
def test_averages_of_the_weights_take_memory(towers, setting, num_copies):
    config = load_config(None, [*SMALL, f"Tuning.{setting}"])
    model = build_dual_encoder(config.Model, vocab_size=50)
    average = WeightAverage(model, config.Tuning.ema or 0.0, config.Tuning.initial_share)
    copies = [*average._averages.values(), *average._initial.values()]
    weights = sum(value.size for value in model.parameters() if not value.stop_gradient)
    assert sum(value.size for value in copies) == num_copies * weights

    plan = make_plan(towers, f"Tuning.{setting}", device=replace(DEVICE, name="cpu"))
    without = make_plan(towers, device=replace(DEVICE, name="cpu"))
    parameters = sum(towers.parameter_sizes)
    # A checkpoint is written from a copy of the averages and of the weights.
    assert plan.peak_memory - without.peak_memory == (num_copies + 1) * 4 * parameters


def test_frozen_weights_have_neither_gradients_nor_moments(towers):
    whole = make_plan(towers)
    for setting in ("lora={rank: 2, layers: [text.*]}", "freeze=[image.*]"):
        config = load_config(None, [*SMALL, f"Tuning.{setting}"])
        tuned_towers = Towers(config)
        num_words = tuned_towers.num_word_embedding_parameters // config.Model.text.width
        model = build_dual_encoder(config.Model, num_words)
        apply_tuning(model, config.Tuning)
        num_trained = sum(value.size for value in model.parameters() if not value.stop_gradient)
        plan = make_plan(tuned_towers, f"Tuning.{setting}")
        assert plan.permanent_memory["gradients"] == 4 * num_trained
        assert plan.permanent_memory["optimiser state"] == 8 * num_trained
        assert plan.permanent_memory["weights"] == 4 * sum(value.size for value in model.parameters())
        assert plan.peak_memory < whole.peak_memory
        sent = {transfer.name: transfer for transfer in plan.transfers}
        assert sent["gradients of the parameters"].sent == 2 * 3 / 4 * 4 * num_trained
        assert any("trained" in line for line in describe(plan))


def test_devices_are_recognised_by_driver_name_and_memory():
    assert recognise_device("NVIDIA A100-SXM4-40GB", 39.4 * GIB) is DEVICES["a100-40g"]
    assert recognise_device("NVIDIA A100-SXM4-80GB", 79.2 * GIB) is DEVICES["a100-80g"]
    with pytest.raises(ValueError, match="NVIDIA L4"):
        recognise_device("NVIDIA L4", 22.0 * GIB)


def test_impossible_plans_are_refused(towers):
    with pytest.raises(ConfigError, match="--ranks 4 or 8, or set -o Training.global_batch=60 or 65"):
        make_plan(towers, ranks=5)
    with pytest.raises(ConfigError, match="--ranks 64, or set -o Training.global_batch=100 or 200"):
        make_plan(towers, ranks=100)
    with pytest.raises(ConfigError, match="v100-32g does not compute in bfloat16"):
        make_plan(towers, "Training.precision=bfloat16", device=DEVICES["v100-32g"])


def test_stages_are_planned_as_runs_of_their_own():
    stages = "Training.stages=[{until: 0.75, image_size: 16, max_length: 24}, {until: 1}]"
    run = plan_run(load_config(None, [*SMALL, stages]), 4, DEVICE, step_seconds=[0.5, 2.0])
    first, last = run.stages
    for plan, changes in ((first, ["Model.image.image_size=16", "Data.max_length=24"]), (last, [])):
        expected = plan_run(load_config(None, [*SMALL, *changes]), 4, DEVICE)
        assert not expected.stages
        assert (plan.peak_memory, plan.flops) == (expected.plan.peak_memory, expected.plan.flops)
    assert run.plan is last
    assert (first.steps, last.steps) == (750, 250) and first.days + last.days == pytest.approx(875 / 86400)
    (total,) = (line for line in run.text.splitlines() if line.startswith("  all "))
    assert "1,000 steps" in total and total.endswith("14.6 minutes")  # 750 * 0.5 + 250 * 2 seconds


def test_step_seconds_are_read_from_the_log_of_a_run(tmp_path):
    def write_log(*rates):
        record = {"kind": "train", "seconds": 1.0, "loss": 1.0, "loader_wait": 0.0}
        records = [record | {"step": step, "samples_per_second": rate} for step, rate in enumerate(rates, 1)]
        (tmp_path / LOG).write_text("".join(f"{json.dumps(record)}\n" for record in records))

    (tmp_path / CONFIG).write_text("Training: {global_batch: 64}")
    with pytest.raises(ValueError, match="no step"):
        read_step_seconds(str(tmp_path), 64)
    write_log(16.0)
    assert read_step_seconds(str(tmp_path), 64) == 4.0
    # The first step includes the start, the last was stopped; of the three between, the median counts.
    write_log(1.0, 32.0, 64.0, 16.0, 0.0)
    with pytest.raises(ValueError, match="stage 2"):
        read_step_seconds(str(tmp_path), 64, stage=2)
    assert read_step_seconds(str(tmp_path), 64) == 2.0
    with pytest.raises(ValueError, match="64 samples.* 128"):
        read_step_seconds(str(tmp_path), 128)


def count_traffic(folder, settings):
    """Train as a rank, and write the traffic of the second step into a file of `folder`."""
    trainer = Trainer(load_config(None, settings))
    train_step = trainer._train_step

    def count_step(batch, rate):
        with counted_traffic() as traffic:
            losses = train_step(batch, rate)
        if trainer.step == 2:
            entries = {kind: asdict(entry) for kind, entry in traffic.items()}
            (folder / f"{trainer.rank}.json").write_text(json.dumps(entries))
        return losses

    trainer._train_step = count_step
    trainer.fit()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [
    [REPVGG, "Training.micro_batch=3"], ["Loss.weights={text_text: 0, text_image: 0}", "Training.global_batch=12"],
    ["Training.sharding=stage1"],
], ids=["norms", "two pairs", "sharded"])  # fmt: skip
def test_traffic_equals_that_of_a_real_step(overrides, tmp_path, changes):
    settings = [*overrides, *changes, "Training.steps=3", "Training.device=cpu"]
    run_ranks(count_traffic, tmp_path, settings)

    config = load_config(None, settings)
    expected = defaultdict(lambda: {"calls": 0, "payload": 0, "sent": 0.0})
    for transfer in Plan(config, Towers(config), 2, DEVICES["cpu"]).transfers:
        # Paddle's own data parallel is not counted.
        if transfer.name == "gradients of the parameters" and transfer.collective == "all_reduce":
            continue
        collective, sent = transfer.collective, transfer.sent
        if collective == "reduce_scatter":
            # Gloo has none: every rank sums the whole tensor, which sends twice as much.
            collective, sent = "all_reduce", 2 * sent
        entry = expected[collective]
        entry["calls"] += transfer.num_calls
        entry["payload"] += transfer.payload
        entry["sent"] += sent
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == expected
