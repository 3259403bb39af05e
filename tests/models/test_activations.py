"""Activations and their MLPs, compared with float64 formulas of NumPy and with the layers one by one."""

import math

import numpy as np
import paddle
import pytest
from paddle.autograd import saved_tensors_hooks
from paddle.distributed.fleet.utils import recompute
from paddle.nn import functional as F

from ernie_vil2.device.cpu_kernels import speed_up
from ernie_vil2.towers.layers.activations import quick_gelu, silu
from ernie_vil2.towers.layers.blocks import Mlp
from tests.support.steps import use_default_dtype


def compute_sigmoid_product(x, scale):
    """Return `x * sigmoid(scale * x)` and its derivative, float64."""
    x = x.astype("float64")
    sigmoid = 1 / (1 + np.exp(-scale * x))
    return x * sigmoid, sigmoid * (1 + scale * x * (1 - sigmoid))


def compute_gelu(x):
    """Return GELU and its derivative, float64."""
    normal = np.vectorize(math.erf)(x.astype("float64") / math.sqrt(2)) / 2 + 0.5
    return x * normal, normal + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


FORMULAS = {
    "quick_gelu": lambda x: compute_sigmoid_product(x, 1.702),
    "silu": lambda x: compute_sigmoid_product(x, 1.0),
    "gelu": compute_gelu,
}


@pytest.mark.parametrize("function", [quick_gelu, silu])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
@pytest.mark.parametrize("is_recomputed", [False, True])
def test_activations_equal_their_formulas(function, dtype, tolerance, is_recomputed):
    values = np.concatenate([np.linspace(-12, 12, 97), [-200, -60, 60]]).astype(dtype)
    x = paddle.to_tensor(values, stop_gradient=False)
    weights = paddle.to_tensor(np.linspace(-2, 3, values.size).astype(dtype))

    def activate(x):
        return function(1.0 * x)

    y = recompute(activate, x, use_reentrant=False) if is_recomputed else activate(x)
    (gradient,) = paddle.grad((y * weights).sum(), [x], retain_graph=True)
    (second_gradient,) = paddle.grad((y * weights).sum(), [x])
    expected, derivative = FORMULAS[function.__name__](values)
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(gradient, derivative * weights.numpy(), rtol=tolerance, atol=4 * tolerance)
    np.testing.assert_array_equal(gradient, second_gradient)


@pytest.mark.parametrize("function", [quick_gelu, silu])
def test_activations_keep_only_their_input(function):
    x = paddle.randn([3, 4])
    x.stop_gradient = False
    saved = []
    with saved_tensors_hooks(lambda tensor: saved.append(tensor.numpy()), lambda _: x):
        function(x)
    assert len(saved) == 1 and np.array_equal(saved[0], x)


@pytest.mark.parametrize("function", [quick_gelu, silu])
def test_activations_are_traced_as_plain_operations(function):
    spec = paddle.static.InputSpec([None, 4], "float32")
    static, x = paddle.jit.to_static(function, input_spec=[spec], full_graph=True), paddle.randn([3, 4])
    np.testing.assert_allclose(static(x), function(x), atol=1e-6)


@pytest.mark.parametrize("is_sped_up", [True, False], ids=["CPU", "plain"])
@pytest.mark.parametrize("frozen", [None, "fc1", "fc2"])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "relu"])
def test_mlp_in_training_equals_its_layers_one_by_one(activation, frozen, is_sped_up):
    calls = []
    with use_default_dtype("float64"):
        model = Mlp(6, 10, activation)
        if is_sped_up:
            speed_up(model)
        if frozen:
            for parameter in getattr(model, frozen).parameters():
                parameter.stop_gradient = True
        x = paddle.randn([2, 5, 6])
        x.stop_gradient = False
        arrays_by_kind = []
        for has_hooks in (False, True):
            if has_hooks:  # then both layers must be called
                for layer in (model.fc1, model.fc2):
                    layer.register_forward_post_hook(lambda layer, *_: calls.append(layer))
            y = model(x)
            trained = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
            gradients = paddle.grad((y * y).sum(), [x, *trained])
            arrays_by_kind.append([value.numpy() for value in (y, *gradients)])
    assert calls == [model.fc1, model.fc2]
    for together, one_by_one in zip(*arrays_by_kind, strict=True):
        np.testing.assert_allclose(together, one_by_one, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_mlp_of_float32_is_as_exact_as_its_formula(activation):
    # Identities as weights: only the activation is left.
    model = Mlp(200, 200, activation)
    for layer in (model.fc1, model.fc2):
        layer.weight.set_value(paddle.eye(200))
    speed_up(model)
    x = paddle.linspace(-12, 12, 200).unsqueeze(0)
    x.stop_gradient = False
    y = model(x)
    y.backward()
    expected, derivative = FORMULAS[activation](x.numpy().squeeze(0))
    np.testing.assert_allclose(y.squeeze(0), expected, atol=2e-6)
    np.testing.assert_allclose(x.grad.squeeze(0), derivative, atol=1e-6)


def test_factors_stay_in_the_activation_in_evaluation():
    model, x = Mlp(4, 4, "quick_gelu"), paddle.randn([3, 4])
    model.eval()
    np.testing.assert_array_equal(model(x), F.linear(quick_gelu(model.fc1(x)), *model.fc2.parameters()))
