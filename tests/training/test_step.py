"""The cached step computes the losses and gradients of the direct step from micro batches."""

from itertools import product

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.distributed import fleet

from ernie_vil2.parallel.norms import find_batch_norms, synchronise_norms
from ernie_vil2.parallel.ranks import join_ranks
from ernie_vil2.planning.towers import operations
from ernie_vil2.tasks.contrastive_step import CachedStep, DirectStep, build_step
from tests.support.freezing import check_ranks, compute_rank_arrays, list_rank_cases
from tests.support.ranks import run_ranks
from tests.support.steps import (
    EVA_02,
    RANK_ROWS,
    SIGMOID,
    TOLERANCES,
    VIT,
    WIDTHS,
    build_model_and_loss,
    compute_step,
    list_loss_settings,
    make_batch,
    make_config,
    make_keys_on_device,
    measure_errors,
    take_gradients,
    to_numbers,
    use_default_dtype,
)
from tests.support.trainings import REPVGG


@pytest.mark.parametrize("settings", [[], SIGMOID, WIDTHS], ids=["info_nce", "sigmoid", "widths"])
@pytest.mark.parametrize("micro_batch", [3, *(pytest.param(rows, marks=pytest.mark.slow) for rows in (1, 5, 9))])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
def test_cached_gradients_match_the_direct_step(dtype, tolerance, micro_batch, settings):
    if settings == WIDTHS and dtype == "float32":
        tolerance = 3e-6  # prefixes are normalised again: each of the two steps differs from float64 by up to 2.6e-6
    with use_default_dtype(dtype):
        config = make_config(VIT, f"Training.micro_batch={micro_batch}", *settings)
        model, loss = build_model_and_loss(config)
        direct, cached = build_step(model, loss, make_config(VIT, *settings)), build_step(model, loss, config)
        assert (type(direct), type(cached)) == (DirectStep, CachedStep)
        expected = compute_step(direct, make_batch(dtype))
        assert "log_logit_scale" in expected[1] and ("logit_bias" in expected[1]) == ("logit_bias" in model.scalars)
        actual = compute_step(cached, make_batch(dtype))
    assert max(measure_errors(actual, expected)) < tolerance


@pytest.mark.parametrize("micro_batch", [10, 64])
def test_rows_that_fit_into_one_micro_batch_are_encoded_once(micro_batch):
    config = make_config(VIT, f"Training.micro_batch={micro_batch}")
    step = build_step(*build_model_and_loss(config), config)
    assert type(step) is DirectStep and step.num_micro_batches == 1


def test_batch_norms_count_each_micro_batch_once():
    # The expected values are computed by the definition, with the graphs of all micro batches in memory.
    with use_default_dtype("float64"):
        config = make_config(REPVGG, "Training.micro_batch=4")
        model, loss = build_model_and_loss(config)
        norms = find_batch_norms(model).values()
        initial = [norm._mean.clone() for norm in norms]
        views, ids, positions = make_batch("float64")
        step = CachedStep(model, loss, config)
        embeddings = []
        for rows in (slice(0, 3), slice(3, 6), slice(6, 10)):
            with step.dropout.use_keys(make_keys_on_device(step.dropout, 3, views, positions[rows])):
                embeddings.append(model({name: view[rows] for name, view in views.items()})[0])
        statistics = [norm._mean.numpy() for norm in norms]
        joined = {}
        for name in views:
            joined[name] = paddle.concat([chunk[name] for chunk in embeddings])
        total, pairs = loss(joined, joined, model.scalars, *[paddle.to_tensor(ids)] * 2)
        total.backward()
        expected = to_numbers(total, pairs), take_gradients(model)
        for norm, mean in zip(norms, initial, strict=True):
            norm._mean.set_value(mean)
        actual = compute_step(step, (views, ids, positions))
    assert len(norms) > 5 and max(measure_errors(actual, expected)) < 1e-10
    for norm, mean in zip(norms, statistics, strict=True):
        np.testing.assert_allclose(norm._mean.numpy(), mean, rtol=1e-10)


@pytest.mark.parametrize("micro_batch", ["null", 3])
@pytest.mark.parametrize("image", [VIT, EVA_02, REPVGG], ids=["ViT", "EVA-02", "RepVGG"])
def test_recomputation_changes_nothing(image, micro_batch):
    # Dropout and drop path must draw the same masks again, and running statistics must count a batch only once.
    with use_default_dtype("float64"):
        results, statistics, call_counts = [], [], []
        for recompute in ("false", "true"):
            config = make_config(image, f"Training.micro_batch={micro_batch}", f"Training.recompute={recompute}")
            model, loss = build_model_and_loss(config)
            step = build_step(model, loss, config)
            calls = []
            linear = next(layer for layer in model.text.blocks[-1].sublayers() if isinstance(layer, nn.Linear))
            linear.register_forward_post_hook(lambda *_, calls=calls: calls.append(1))
            results.append(compute_step(step, make_batch("float64")))
            call_counts.append(len(calls))
            statistics.append({name: norm._mean.numpy() for name, norm in find_batch_norms(model).items()})
    # The block is computed once more for each micro batch: ten rows in micro batches of three are four.
    recomputed_count = 1 if micro_batch == "null" else 4
    assert call_counts[1] == call_counts[0] + recomputed_count
    assert max(measure_errors(results[1], results[0])) < 1e-10
    for name, mean in statistics[0].items():
        np.testing.assert_allclose(statistics[1][name], mean, rtol=1e-10, err_msg=name)


@pytest.mark.parametrize(("view", "shape", "dtype"), [("text_1", [8], "int64"), ("image_1", [3, 32, 32], "float32")])
@pytest.mark.parametrize("kind", ["null", 2], ids=["direct", "cached"])
def test_towers_multiply_in_the_precision_of_the_run(kind, view, shape, dtype):
    # Running in mixed precision takes a GPU, but the graph shows the types of its products on any device.
    product_counts = {}
    for precision in ("float32", "bfloat16"):
        config = make_config(VIT.replace("0.4", "0.0"), "Model.text.dropout=0.0", "Model.text.attention_dropout=0.0",
                         f"Training.precision={precision}", f"Training.micro_batch={kind}")  # fmt: skip
        model, loss = build_model_and_loss(config)
        step = build_step(model, loss, config)

        def encode(batch, step=step, model=model):
            return step._encode(model, {view: batch}, {})[0][view]

        images_or_ids = paddle.ones([2, *shape], dtype)
        products = [str(op.results()[0].dtype) for op in operations(encode, images_or_ids)
                    if op.name() in ("pd_op.matmul", "pd_op.conv2d")]  # fmt: skip
        product_counts[precision] = len(products), products.count("paddle.float32")
        with paddle.no_grad():
            assert encode(images_or_ids).dtype == paddle.float32
    # (products, products in float32)
    count = product_counts["float32"][0]
    assert count > 10 and product_counts == {"float32": (count, count), "bfloat16": (count, 0)}


def test_rank_with_too_few_rows_is_reported():
    config = make_config(VIT, "Training.micro_batch=3")
    with pytest.raises(ValueError, match="3 rows .* 4 micro batches"):
        CachedStep(*build_model_and_loss(config), config).forward(*make_batch(rows=range(3)), 0)


KEPT_TOKENS = VIT.removesuffix("}") + ", keep_tokens: 0.5}"
RUNS = {"DirectStep": (VIT, DirectStep), "CachedStep": (VIT, CachedStep), "SyncedNorms": (REPVGG, DirectStep),
        "CachedSigmoid": (VIT, CachedStep), "CachedWidths": (VIT, CachedStep),
        "DirectKeptTokens": (KEPT_TOKENS, DirectStep), "CachedKeptTokens": (KEPT_TOKENS, CachedStep)}  # fmt: skip


def compute_rank_steps(folder):
    """Compute a step of every run as a rank, and write losses and gradients to `folder`/RANK.npz."""
    rank, _ = join_ranks()
    arrays = {}
    for dtype, (run, (image, kind)) in product(("float32", "float64"), RUNS.items()):
        with use_default_dtype(dtype):
            config = make_config(image, "Training.micro_batch=2", *list_loss_settings(run))
            model, loss = build_model_and_loss(config)
            assert synchronise_norms(model) == []
            step = kind(model, loss, config, fleet.distributed_model(model))
            losses, gradients = compute_step(step, make_batch(dtype, RANK_ROWS[rank]))
        arrays |= {f"{dtype}/{run}/losses/{name}": value for name, value in losses.items()}
        arrays |= {f"{dtype}/{run}/gradients/{name}": value for name, value in gradients.items()}
    arrays |= compute_rank_arrays(list_rank_cases(), rank)
    np.savez(f"{folder}/{rank}.npz", **arrays)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(compute_rank_steps, folder)
    return [np.load(folder / f"{rank}.npz") for rank in range(2)]


def measure_rank_error(ranks, kind, dtype):
    """Return the largest relative error of the ranks' losses and gradients from those of a direct step of all rows."""
    with use_default_dtype(dtype):
        config = make_config(RUNS[kind][0], *list_loss_settings(kind))
        model, loss = build_model_and_loss(config)
        rows = np.concatenate(RANK_ROWS)
        expected = compute_step(DirectStep(model, loss, config), make_batch(dtype, rows))
    # The losses of the ranks add up to the total.
    run, losses, errors = f"{dtype}/{kind}", {}, []
    for name in expected[0]:
        losses[name] = sum(float(rank[f"{run}/losses/{name}"]) for rank in ranks)
    for rank in ranks:
        gradients = {name: rank[f"{run}/gradients/{name}"] for name in expected[1]}
        errors += measure_errors((losses, gradients), expected)
    return max(errors)


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("kind", RUNS)
def test_two_ranks_with_uneven_rows_match_one_process(ranks, kind, dtype, tolerance):
    # The model of a rank is wrapped by `fleet.distributed_model`.
    if kind == "SyncedNorms" and dtype == "float32":
        tolerance = 4e-6  # float32 differs from float64 by 3.5e-6 in one process: batch norms magnify rounding
    if kind.endswith("Widths") and dtype == "float32":
        tolerance = 2e-6  # likewise by 2.3e-6: prefixes are normalised again
    error = measure_rank_error(ranks, kind, dtype)
    assert error < tolerance
    if kind.endswith("KeptTokens"):
        # Half of the tokens bring two ranks no further from one process, but for rounding in another order.
        assert error < 2 * measure_rank_error(ranks, kind.replace("KeptTokens", "Step"), dtype)


def test_two_ranks_with_frozen_layers_match_one_process(ranks):
    check_ranks([dict(rank) for rank in ranks], list_rank_cases())
