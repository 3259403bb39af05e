"""Batch norms of two ranks with uneven rows against Paddle's own on the joined batch, and means of statistics."""

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
}  # fmt: skip
OWN = (slice(0, 2), slice(2, 7))


def run(name, dtype, rows, synced):
    """What a norm gives and leaves for some rows: outputs, gradients, running statistics."""
    paddle.set_default_dtype(dtype)
    build, shape = NORMS[name]
    model = nn.Sequential(build())
    rng = np.random.default_rng(0)
    for parameter in (model[0].weight, model[0].bias):
        parameter.set_value(rng.normal(size=[3]).astype(dtype))
    # A mean far above the deviation: sums of squares alone would lose the variance.
    x, gradient = (rng.normal(size=shape).astype(dtype) + shift for shift in (100.0, 0.0))
    x = paddle.to_tensor(x[rows].astype(dtype), stop_gradient=False)
    if synced:
        assert synchronise_norms(model) == []
    y = model(x)
    (y * paddle.to_tensor(gradient[rows].astype(dtype))).sum().backward()
    norm = model[0]
    trained = {"y": y, "x": x.grad, "mean": norm._mean, "variance": norm._variance}
    trained |= {"weight": norm.weight.grad, "bias": norm.bias.grad}
    model.eval()
    return {key: value.numpy() for key, value in (trained | {"evaluated": model(x)}).items()}


def average(rank):
    """Return a norm's statistics after they were averaged over the ranks; all else is as it was."""
    model = nn.Sequential(nn.BatchNorm2D(2), nn.Linear(2, 2), nn.BatchNorm2D(2))
    for norm in (model[0], model[2]):
        norm._mean.set_value(np.array([1, 2], "float32") + 10 * rank)
    model[2]._use_global_stats = True  # the mean of what never differs would be off by rounding
    weight = model[1].weight.numpy()
    average_statistics(model)
    assert (model[1].weight.numpy() == weight).all()
    assert model[2]._mean.numpy().tolist() == [1 + 10 * rank, 2 + 10 * rank]
    return [model[0]._mean.numpy(), model[0]._variance.numpy()]


def main(folder):
    """One of the ranks."""
    rank, _ = join_ranks()
    found = {"average": average(rank)}
    for name in NORMS:
        for dtype in ("float32", "float64"):
            found |= {f"{name}/{dtype}/{key}": value for key, value in run(name, dtype, OWN[rank], True).items()}
    np.savez(f"{folder}/{rank}.npz", **found)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("norms")
    run_ranks(main, folder)
    return [np.load(folder / f"{rank}.npz") for rank in range(2)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-4), ("float64", 1e-10)])
@pytest.mark.parametrize("name", NORMS)
def test_two_ranks_normalise_as_one(ranks, name, dtype, tolerance):
    """float32 holds 100 plus a unit deviation to 1e-5 of that deviation, and sums of it a little worse."""
    try:
        expected = run(name, dtype, slice(None), False)
    finally:
        paddle.set_default_dtype("float32")
    for key, value in expected.items():
        parts = [rank[f"{name}/{dtype}/{key}"] for rank in ranks]
        if key in ("y", "x", "evaluated"):
            parts = [np.concatenate(parts)]
        elif key in ("weight", "bias"):
            parts = [sum(parts)]
        for part in parts:
            np.testing.assert_allclose(part, value, rtol=tolerance, atol=tolerance, err_msg=key)


def test_ranks_end_with_the_mean_of_their_statistics(ranks):
    assert [rank["average"].tolist() for rank in ranks] == [[[6, 7], [1, 1]]] * 2


def test_norms_of_other_kinds_are_named():
    model = nn.Sequential(nn.BatchNorm2D(2), nn.BatchNorm3D(2), nn.BatchNorm2D(2, data_format="NHWC"), nn.LayerNorm(2))
    assert list(find_batch_norms(model)) == ["0", "1", "2"]
    assert synchronise_norms(model) == ["1", "2"]


def test_on_gpus_a_norm_is_one_kernel(monkeypatch):
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


def test_statistics_are_kept():
    model = nn.BatchNorm1D(2)
    wrapped = nn.Sequential(model)
    wrapped(paddle.to_tensor([[1.0, 2.0], [3.0, 4.0]]))
    before = model._mean.numpy(), model._variance.numpy()
    assert before[0].tolist() == pytest.approx([0.2, 0.3])
    with pytest.raises(RuntimeError, match="out of memory"), preserve_statistics(wrapped):  # noqa: PT012  -- what comes before the error belongs to it
        wrapped(paddle.ones([2, 2]))
        assert model._mean.numpy().tolist() != before[0].tolist()
        raise RuntimeError("out of memory")
    assert np.array_equal(model._mean, before[0]) and np.array_equal(model._variance, before[1])


@pytest.mark.parametrize(("fixed", "frozen"), [
    (["0.0.weight", "0.0.bias", "0.1.weight"], []),  # a convolution before a norm, and half of that
    (["0.1.weight", "0.1.bias"], ["0.1"]),
    (["1.0.weight", "1.0.bias"], ["1.1"]),  # without weights: as the layer around it
    (["1.0.weight"], []),
])  # fmt: skip
def test_a_norm_is_frozen_with_its_own_weights(fixed, frozen):
    norms = nn.BatchNorm2D(3), nn.BatchNorm2D(3, weight_attr=False, bias_attr=False)
    model = nn.Sequential(*(nn.Sequential(nn.Conv2D(3, 3, 1), norm) for norm in norms))
    trained = {name for name, value in model.named_parameters() if not value.stop_gradient}
    for name, value in model.named_parameters():
        value.stop_gradient |= name in fixed
    assert list(find_frozen_norms(model, trained)) == frozen
