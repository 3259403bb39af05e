"""Batch norms of two ranks with uneven rows equal Paddle's on the joined batch, and statistics are averaged."""

from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle import nn

from ernie_vil2.parallel import average_statistics
from ernie_vil2.parallel.norms import find_batch_norms, find_frozen_norms, preserve_statistics, synchronise_norms
from ernie_vil2.parallel.ranks import join_ranks
from tests.support.ranks import run_ranks

# A momentum that float32 holds exactly: Paddle's kernel takes it as one, even for float64.
NORMS = {
    "2d": (lambda: nn.BatchNorm2D(3, momentum=0.75, epsilon=1e-3), [7, 3, 4, 2]),
    "1d": (lambda: nn.BatchNorm1D(3, momentum=0.875), [7, 3]),
    "older, with activation": (lambda: nn.BatchNorm(3, act="relu", momentum=0.5, dtype=paddle.get_default_dtype()),
                               [7, 3, 4, 2]),
    "without weights": (lambda: nn.BatchNorm2D(3, momentum=0.75, weight_attr=False, bias_attr=False), [7, 3, 4, 2]),
}  # fmt: skip
ROWS_OF_RANKS = (slice(0, 2), slice(2, 7))


def run_norm(name, dtype, rows, is_synchronised):
    """Return the outputs, gradients and running statistics of a norm after a step on some rows."""
    paddle.set_default_dtype(dtype)
    build, shape = NORMS[name]
    model = nn.Sequential(build())
    rng = np.random.default_rng(0)
    for parameter in (model[0].weight, model[0].bias):
        values = rng.normal(size=[3]).astype(dtype)
        if parameter is not None:
            parameter.set_value(values)
    # A mean far above the deviation: sums of squares alone would lose the variance.
    x = rng.normal(size=shape).astype(dtype) + 100.0
    gradient = rng.normal(size=shape).astype(dtype) + 0.0
    x = paddle.to_tensor(x[rows].astype(dtype), stop_gradient=False)
    if is_synchronised:
        assert synchronise_norms(model) == []
    y = model(x)
    (y * paddle.to_tensor(gradient[rows].astype(dtype))).sum().backward()
    norm = model[0]
    tensors = {"y": y, "x": x.grad, "mean": norm._mean, "variance": norm._variance}
    tensors |= {name: parameter.grad for name, parameter in norm.named_parameters() if not parameter.stop_gradient}
    model.eval()
    tensors["evaluated"] = model(x)
    return {key: tensor.numpy() for key, tensor in tensors.items()}


def average(rank):
    """Return a norm's statistics averaged over the ranks, and assert that nothing else has changed."""
    model = nn.Sequential(nn.BatchNorm2D(2), nn.Linear(2, 2), nn.BatchNorm2D(2))
    for norm in (model[0], model[2]):
        norm._mean.set_value(np.array([1, 2], "float32") + 10 * rank)
    model[2]._use_global_stats = True  # never updated: averaging equal values would only round them
    weight = model[1].weight.numpy()
    average_statistics(model)
    assert (model[1].weight.numpy() == weight).all()
    assert model[2]._mean.numpy().tolist() == [1 + 10 * rank, 2 + 10 * rank]
    return [model[0]._mean.numpy(), model[0]._variance.numpy()]


def main(folder):
    """Write the results of a rank to `folder`/RANK.npz."""
    rank, _ = join_ranks()
    arrays = {"average": average(rank)}
    for name in NORMS:
        for dtype in ("float32", "float64"):
            results = run_norm(name, dtype, ROWS_OF_RANKS[rank], is_synchronised=True)
            arrays |= {f"{name}/{dtype}/{key}": value for key, value in results.items()}
    np.savez(f"{folder}/{rank}.npz", **arrays)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("norms")
    run_ranks(main, folder)
    return [np.load(folder / f"{rank}.npz") for rank in range(2)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-4), ("float64", 1e-10)])
@pytest.mark.parametrize("name", NORMS)
def test_two_ranks_normalise_like_a_single_one(ranks, name, dtype, tolerance):
    # Float32 holds 100 plus a unit deviation to 1e-5 of that deviation, and sums of it a little worse.
    try:
        expected = run_norm(name, dtype, slice(None), is_synchronised=False)
    finally:
        paddle.set_default_dtype("float32")
    for key, value in expected.items():
        actual = [rank[f"{name}/{dtype}/{key}"] for rank in ranks]
        if key in ("y", "x", "evaluated"):
            actual = [np.concatenate(actual)]
        elif key in ("weight", "bias"):
            actual = [sum(actual)]
        # Running statistics are equal on both ranks.
        for array in actual:
            np.testing.assert_allclose(array, value, rtol=tolerance, atol=tolerance, err_msg=key)


def test_statistics_are_averaged_over_ranks(ranks):
    assert [rank["average"].tolist() for rank in ranks] == [[[6, 7], [1, 1]]] * 2


def test_unsupported_norms_are_named():
    model = nn.Sequential(nn.BatchNorm2D(2), nn.BatchNorm3D(2), nn.BatchNorm2D(2, data_format="NHWC"), nn.LayerNorm(2))
    assert list(find_batch_norms(model)) == ["0", "1", "2"]
    assert synchronise_norms(model) == ["1", "2"]


def test_norm_on_a_gpu_is_a_single_kernel(monkeypatch):
    calls = []

    def kernel(x, *arguments):
        calls.append(arguments)
        return x.value * 2, None, None, None, None, None

    monkeypatch.setattr(paddle._C_ops, "sync_batch_norm_", kernel)
    model = nn.Sequential(nn.BatchNorm2D(3, momentum=0.8, epsilon=1e-3), nn.BatchNorm(3, act="relu"))
    assert synchronise_norms(model) == []
    x = paddle.randn([2, 3, 4, 4])

    on_gpu = SimpleNamespace(place=SimpleNamespace(is_gpu_place=lambda: True), value=x)
    assert np.array_equal(model[0].forward(on_gpu), 2 * x)
    assert np.array_equal(model[1].forward(on_gpu), 2 * paddle.nn.functional.relu(x))
    mean, variance, weight, bias, is_test, momentum, epsilon, layout, *_ = calls[0]
    norm = model[0]
    assert mean is norm._mean and variance is norm._variance and weight is norm.weight and bias is norm.bias
    assert (is_test, momentum, epsilon, layout) == (False, 0.8, 1e-3, "NCHW")


def test_statistics_are_restored_after_an_error():
    model = nn.BatchNorm1D(2)
    wrapped = nn.Sequential(model)
    wrapped(paddle.to_tensor([[1.0, 2.0], [3.0, 4.0]]))
    mean, variance = model._mean.numpy(), model._variance.numpy()
    assert mean.tolist() == pytest.approx([0.2, 0.3])
    with pytest.raises(RuntimeError, match="out of memory"), preserve_statistics(wrapped):  # noqa: PT012  -- what comes before the error belongs to it
        wrapped(paddle.ones([2, 2]))
        assert model._mean.numpy().tolist() != mean.tolist()
        raise RuntimeError("out of memory")
    assert np.array_equal(model._mean, mean) and np.array_equal(model._variance, variance)


@pytest.mark.parametrize(("fixed", "expected"), [
    (["0.0.weight", "0.0.bias", "0.1.weight"], []),  # a convolution before a norm, and half of the norm
    (["0.1.weight", "0.1.bias"], ["0.1"]),
    (["1.0.weight", "1.0.bias"], ["1.1"]),  # a norm without weights follows the layer around it
    (["1.0.weight"], []),
])  # fmt: skip
def test_norm_is_frozen_with_its_weights(fixed, expected):
    norms = nn.BatchNorm2D(3), nn.BatchNorm2D(3, weight_attr=False, bias_attr=False)
    model = nn.Sequential(*(nn.Sequential(nn.Conv2D(3, 3, 1), norm) for norm in norms))
    trained = {name for name, value in model.named_parameters() if not value.stop_gradient}
    for name, value in model.named_parameters():
        value.stop_gradient |= name in fixed
    assert list(find_frozen_norms(model, trained)) == expected
