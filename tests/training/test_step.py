"""The cached step against the direct one: the same losses and gradients from micro batches."""

from contextlib import contextmanager, nullcontext

import numpy as np
import paddle
import pytest
from paddle import nn

from ernie_vil2.config import load_config
from ernie_vil2.losses import build_loss, initial_bias
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.parallel.norms import batch_norms
from ernie_vil2.planning.towers import operations
from ernie_vil2.tasks.contrastive_step import CachedStep, DirectStep, build_step
from tests.support.ranks import forked_ranks
from tests.training.test_dropout import keys_on_device

ROWS = 10
OWN = (np.array([0, 1, 2, 4]), np.arange(5, ROWS))
"""Rows of two ranks; the first has lost one to a bad sample."""
VIT = "Model.image={name: ViT, image_size: 32, patch_size: 16, width: 32, depth: 2, heads: 2, drop_path: 0.4}"
SIGMOID = ["Loss.kind=sigmoid", "Loss.bias=-2", "Loss.tile=3"]
WIDTHS = ["Loss.widths=[4, 16, 32]", "Loss.tile=3"]
REPVGG = "Model.image={name: RepVGG, image_size: 32, width: 8, depth: 1}"


@contextmanager
def default_dtype(dtype):
    before = paddle.get_default_dtype()
    paddle.set_default_dtype(dtype)
    try:
        yield
    finally:
        paddle.set_default_dtype(before)


def setting(*changes):
    text = "{name: ernie, width: 32, depth: 2, heads: 2, max_positions: 8, dropout: 0.3, attention_dropout: 0.3}"
    return load_config(
        None,
        ["Views.resize=32", "Data.max_length=8", f"Model.text={text}", "Loss.weights={image_text: 0.5}",
         "Loss.duplicates=positives", "Schedule.warmup_steps=0", f"Training.global_batch={ROWS}", *changes],
    )  # fmt: skip


def settings_of(run):
    """Those of the loss that the name of a run on two ranks ends with."""
    return next((settings for name, settings in (("Sigmoid", SIGMOID), ("Widths", WIDTHS)) if run.endswith(name)), [])


def model_and_loss(config):
    paddle.seed(0)
    model = build_dual_encoder(config.Model, 50, config.Loss.temperature, initial_bias(config.Loss))
    model.train()
    return model, build_loss(config.Loss)


def batch(dtype="float32", rows=range(ROWS)):
    """Views, ids and positions of some rows of the global batch."""
    rng = np.random.default_rng(0)
    rows = np.array(rows)
    texts = rng.integers(1, 50, size=[ROWS, 8])
    texts[:, 5:] *= rng.integers(0, 2, size=[ROWS, 1])  # some are shorter
    images = rng.normal(size=[2, ROWS, 3, 32, 32]).astype(dtype)
    views = {name: paddle.to_tensor(view[rows]) for name, view in zip(("image_1", "image_2"), images, strict=True)}
    views |= {name: paddle.to_tensor(texts[rows]) for name in ("text_1", "text_2")}
    return views, rng.integers(0, 8, size=[ROWS, 2])[rows], rows


def compute(step, rows, number=3):
    """Losses, and gradients of the parameters, which are cleared."""
    total, pairs = step.forward(*rows, number)
    step.backward()
    return as_numbers(total, pairs), taken_gradients(step.model)


def as_numbers(total, pairs):
    return {"total": float(total), **{pair: float(loss) for pair, loss in pairs.items()}}


def taken_gradients(model):
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:  # the means and variances of some batch norms are parameters
            gradients[name] = parameter.grad.numpy().astype("float64")
            parameter.clear_gradient(set_to_zero=False)
    return gradients


def errors(found, expected):
    """Largest relative error of the losses, and of a parameter's gradient by its norm."""
    assert found[1].keys() == expected[1].keys() and found[0].keys() == expected[0].keys()
    losses = max(abs(found[0][name] / value - 1) for name, value in expected[0].items())
    # A bias before a softmax or a batch norm has no gradient but rounding: measured by the largest norm.
    largest = max(map(np.linalg.norm, expected[1].values()))
    differences = [
        np.linalg.norm(found[1][name] - value) / max(np.linalg.norm(value), 1e-3 * largest)
        for name, value in expected[1].items()
    ]
    return losses, max(differences)


TOLERANCES = [("float32", 1e-6), ("float64", 1e-10)]


@pytest.mark.parametrize(
    ("dtype", "tolerance", "loss", "micro_batch"),
    [
        pytest.param(*of_dtype, loss, rows, id=f"{of_dtype[0]}-{name}-{rows}",
                     marks=() if rows == 3 or (not loss and of_dtype[0] == "float64") else pytest.mark.slow)
        for of_dtype in TOLERANCES
        for name, loss in (("info_nce", []), ("sigmoid", SIGMOID), ("widths", WIDTHS))
        for rows in (1, 3, 5, 10, 64)
    ],
)  # fmt: skip
def test_cached_gradients_are_those_of_the_direct_step(dtype, tolerance, micro_batch, loss):
    with default_dtype(dtype):
        config = setting(VIT, f"Training.micro_batch={micro_batch}", *loss)
        model, loss = model_and_loss(config)
        expected = compute(DirectStep(model, loss, config), batch(dtype))
        assert "log_logit_scale" in expected[1] and ("logit_bias" in expected[1]) == ("logit_bias" in model.scalars)
        found = compute(CachedStep(model, loss, config), batch(dtype))
    assert max(errors(found, expected)) < tolerance


def test_without_replay_of_dropout_the_comparison_fails():
    """The control: ordinary dropout, whose second masks are others."""
    config = setting(VIT, "Training.micro_batch=3")
    model, loss = model_and_loss(config)
    step = CachedStep(model, loss, config)
    step.dropout.rows = lambda *arguments: nullcontext()
    expected = compute(DirectStep(model, loss, config), batch())
    assert errors(compute(step, batch()), expected)[1] > 0.1


def test_batch_norms_see_micro_batches_and_count_each_once():
    """Against the same definition with the graph of all micro batches kept."""
    with default_dtype("float64"):
        config = setting(REPVGG, "Training.micro_batch=4")
        model, loss = model_and_loss(config)
        norms = batch_norms(model).values()
        initial = [norm._mean.clone() for norm in norms]
        views, ids, positions = batch("float64")
        step = CachedStep(model, loss, config)
        parts = []
        for rows in (slice(0, 3), slice(3, 6), slice(6, 10)):
            with step.dropout.rows(keys_on_device(step.dropout, 3, views, positions[rows])):
                parts.append(model({name: view[rows] for name, view in views.items()})[0])
        statistics = [norm._mean.numpy() for norm in norms]
        joined = {name: paddle.concat([part[name] for part in parts]) for name in views}
        total, pairs = loss(joined, joined, model.scalars, *[paddle.to_tensor(ids)] * 2)
        total.backward()
        expected = as_numbers(total, pairs), taken_gradients(model)
        for norm, mean in zip(norms, initial, strict=True):
            norm._mean.set_value(mean)
        found = compute(step, (views, ids, positions))
    assert len(norms) > 5 and max(errors(found, expected)) < 1e-10
    for norm, mean in zip(norms, statistics, strict=True):
        np.testing.assert_allclose(norm._mean.numpy(), mean, rtol=1e-10)


@pytest.mark.parametrize("micro_batch", ["null", 3])
@pytest.mark.parametrize("image", [VIT, REPVGG], ids=["ViT", "RepVGG"])
def test_recomputed_blocks_change_nothing(image, micro_batch):
    """With dropout, drop path, and batch norms, whose running statistics count a batch once."""
    with default_dtype("float64"):
        found = []
        for recompute in ("false", "true"):
            config = setting(image, f"Training.micro_batch={micro_batch}", f"Training.recompute={recompute}")
            model, loss = model_and_loss(config)
            step = build_step(model, loss, config)
            runs = []
            for tower in (model.image, model.text):
                inner = next(part for part in tower.blocks[-1].sublayers() if isinstance(part, nn.Linear | nn.Conv2D))
                inner.register_forward_post_hook(lambda *_, runs=runs: runs.append(1))
            result = compute(step, batch("float64"))
            found.append((result, {name: norm._mean.numpy() for name, norm in batch_norms(model).items()}, len(runs)))
    (plain, statistics, runs), (recomputed, statistics_again, more_runs) = found
    assert more_runs == runs + 2 * (1 if micro_batch == "null" else 4)
    assert max(errors(recomputed, plain)) < 1e-10
    for name, mean in statistics.items():
        np.testing.assert_allclose(statistics_again[name], mean, rtol=1e-10, err_msg=name)


@pytest.mark.parametrize(("view", "shape", "dtype"), [("text_1", [8], "int64"), ("image_1", [3, 32, 32], "float32")])
@pytest.mark.parametrize("kind", ["null", 2], ids=["direct", "cached"])
def test_towers_multiply_in_the_precision_of_the_run_and_give_float32(kind, view, shape, dtype):
    """As a graph, which mixed precision changes on any device; to run it so takes a GPU."""
    found = {}
    for precision in ("float32", "bfloat16"):
        config = setting(VIT.replace("0.4", "0.0"), "Model.text.dropout=0.0", "Model.text.attention_dropout=0.0",
                         f"Training.precision={precision}", f"Training.micro_batch={kind}")  # fmt: skip
        model, loss = model_and_loss(config)
        step = build_step(model, loss, config)

        def encode(batch, step=step, model=model):
            return step._encode(model, {view: batch}, {})[0][view]

        images_or_ids = paddle.ones([2, *shape], dtype)
        products = [str(op.results()[0].dtype) for op in operations(encode, images_or_ids)
                    if op.name() in ("pd_op.matmul", "pd_op.conv2d")]  # fmt: skip
        found[precision] = len(products), products.count("paddle.float32")
        with paddle.no_grad():
            assert encode(images_or_ids).dtype == paddle.float32
    count = found["float32"][0]
    assert count > 10 and found == {"float32": (count, count), "bfloat16": (count, 0)}


def test_a_rank_with_too_few_rows_is_reported():
    config = setting(VIT, "Training.micro_batch=3")
    model, loss = model_and_loss(config)
    with pytest.raises(ValueError, match="3 rows cannot be shared out over 4 micro batches; raise"):
        CachedStep(model, loss, config).forward(*batch(rows=range(3)), 0)


def test_the_configuration_chooses():
    model, loss = model_and_loss(setting(VIT))
    assert type(build_step(model, loss, setting(VIT))) is DirectStep
    assert type(build_step(model, loss, setting(VIT, "Training.micro_batch=5"))) is CachedStep


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    from tests.support.step_worker import main  # which imports this module

    forked_ranks(main, folder)
    return [np.load(folder / f"{rank}.npz") for rank in range(2)]


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize(
    "kind", ["DirectStep", "CachedStep", "SyncedNorms", "Sigmoid", "CachedSigmoid", "Widths", "CachedWidths"]
)
def test_two_ranks_with_uneven_rows_are_as_one(ranks, kind, dtype, tolerance):
    """In float32 and float64, under `fleet.distributed_model`; losses add up over the ranks."""
    if kind == "SyncedNorms" and dtype == "float32":
        tolerance = 4e-6  # one process in float32 is 3.5e-6 from float64 here: batch norms magnify rounding
    if kind.endswith("Widths") and dtype == "float32":
        tolerance = 2e-6  # likewise 2.3e-6: prefixes are normalised again
    with default_dtype(dtype):
        config = setting(REPVGG if kind == "SyncedNorms" else VIT, *settings_of(kind))
        model, loss = model_and_loss(config)
        rows = np.concatenate(OWN)
        expected = compute(DirectStep(model, loss, config), batch(dtype, rows))
    run = f"{dtype}/{kind}"
    losses = {name: sum(float(rank[f"{run}/losses/{name}"]) for rank in ranks) for name in expected[0]}
    for rank in ranks:
        gradients = {name: rank[f"{run}/gradients/{name}"] for name in expected[1]}
        assert max(errors((losses, gradients), expected)) < tolerance


def test_two_ranks_of_which_parts_are_frozen_are_as_one(ranks):
    from tests.support.freezing import check_ranks, of_ranks  # which imports this module

    check_ranks([dict(rank) for rank in ranks], of_ranks())
