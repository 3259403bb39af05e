"""The layers for CPU against Paddle's plain ones, their sums against NumPy's, and what they keep of a lazy view."""

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paddle import nn
from paddle.autograd import PyLayer
from paddle.distributed.fleet.utils import recompute

from ernie_vil2.device.cpu_kernels import (
    CpuLayerNorm,
    CpuLinear,
    CpuPatchConv2D,
    fuse_linears,
    save_for_backward,
    skip_padding,
    speed_up,
    sum_channels,
)
from tests.support.freezing import Case, build_case
from tests.support.limits import limit_examples


@pytest.fixture(autouse=True)
def float32():
    yield
    paddle.set_default_dtype("float32")


def outputs_and_gradients(layer, x, weights):
    """Output, and gradients of its sum with fixed weights, for the input and for each parameter."""
    x = paddle.to_tensor(x, stop_gradient=False)
    y = layer(x)
    gradients = paddle.grad((y * paddle.to_tensor(weights)).sum(), [x, *layer.parameters()])
    return [value.numpy() for value in (y, *gradients)]


def as_plain_and_fast(layer, x, weights):
    plain = type(layer)
    before = outputs_and_gradients(layer, x, weights)
    speed_up(layer)
    assert type(layer) is not plain and isinstance(layer, plain)
    return zip(before, outputs_and_gradients(layer, x, weights), strict=True)


shapes = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)


@limit_examples(25)
@given(shapes, st.integers(2, 33), st.sampled_from(["linear", "norm"]), st.integers(0, 2**32 - 1))
def test_float64_agrees_to_rounding(lead, width, kind, seed):
    paddle.set_default_dtype("float64")
    random = np.random.default_rng(seed)
    out = int(random.integers(1, 12)) if kind == "linear" else width
    epsilon = float(random.choice([2**-40, 2**-17, 2**-10]))  # Paddle rounds it to float32; these are exact there
    layer = nn.Linear(width, out) if kind == "linear" else nn.LayerNorm(width, epsilon)
    for parameter in layer.parameters():
        parameter.set_value(random.standard_normal(parameter.shape))
    x, weights = random.standard_normal((*lead, width)), random.standard_normal((*lead, out))
    for plain, fast in as_plain_and_fast(layer, x, weights):
        np.testing.assert_allclose(fast, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("build", [lambda: nn.Linear(48, 64), lambda: nn.LayerNorm(64)], ids=["linear", "norm"])
def test_float32_sums_are_as_near_to_float64_as_paddles(build):
    """8,192 rows; the error of a sum of rows is measured against the same sum in float64."""
    random = np.random.default_rng(0)
    layer = build()
    x = random.standard_normal((64, 128, layer.weight.shape[0])).astype("float32")
    weights = (1 + random.standard_normal((64, 128, 64))).astype("float32")
    exact = weights.astype("float64").sum((0, 1))
    (_, _, _, plain), (_, _, _, fast) = zip(*as_plain_and_fast(layer, x, weights), strict=True)
    error = abs(fast - exact).max() / abs(exact).max()
    assert error < 1e-5
    assert error < 4 * abs(plain - exact).max() / abs(exact).max() + 1e-6


@limit_examples(25)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_a_linear_layer_of_texts_leaves_out_their_padding(lengths, seed):
    paddle.set_default_dtype("float64")
    random = np.random.default_rng(seed)
    tokens = np.arange(max(lengths)) < np.array(lengths)[:, None]  # [B, L]
    layer = nn.Linear(5, 3)
    x = random.standard_normal((*tokens.shape, 5))
    weights = random.standard_normal((*tokens.shape, 3)) * tokens[:, :, None]  # what is masked gets no gradient
    plain = outputs_and_gradients(layer, x, weights)
    speed_up(layer)
    with skip_padding(paddle.to_tensor(np.where(tokens, 9, 0)), 0):
        found = outputs_and_gradients(layer, x, weights)
        flat = layer(paddle.to_tensor(x[0]))  # no texts: of two axes
    np.testing.assert_array_equal(found[0][~tokens], 0)
    np.testing.assert_allclose(found[0][tokens], plain[0][tokens], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(flat, plain[0][0], rtol=1e-9, atol=1e-11)
    for one, other in zip(found[1:], plain[1:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(layer(paddle.to_tensor(x)), plain[0], rtol=1e-9, atol=1e-11)  # outside of the block


def test_other_layers_are_left_alone():
    norms = [nn.LayerNorm([2, 4]), nn.LayerNorm(4, bias_attr=False)]
    convolutions = [nn.Conv2D(4, 4, 3), nn.Conv2D(3, 4, 4, stride=4), nn.Conv2D(4, 4, 3, stride=3, padding=1),
                    nn.Conv2D(4, 4, 1, stride=2), nn.Conv2D(4, 4, 1, groups=2)]  # fmt: skip
    others = [nn.Linear(4, 4, bias_attr=False), *norms, *convolutions]
    kinds = list(map(type, others))
    speed_up(nn.LayerList(others))
    assert list(map(type, others)) == kinds


def test_a_dual_encoder_has_them_where_the_switch_is_on(monkeypatch):
    fast = build_case(Case("ViT", "ernie")).model
    monkeypatch.setenv("ERNIE_VIL2_RUNTIME", "-layers")
    plain = build_case(Case("ViT", "ernie")).model
    kinds = [sum(type(layer) is kind for layer in fast.sublayers()) for kind in (CpuLayerNorm, CpuLinear)]
    assert kinds == [6 + 5, 8 + 12 + 1]
    assert not any(isinstance(layer, CpuLayerNorm | CpuLinear) for layer in plain.sublayers())
    assert list(fast.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_a_frozen_parameter_gets_no_gradient_others_do(frozen):
    model = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6))
    x = paddle.randn([5, 6])  # needs no gradient itself, as behind a frozen embedding
    (model(x) ** 3).sum().backward()
    expected = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    model.clear_gradients(set_to_zero=False)
    speed_up(model)
    for layer in model:
        getattr(layer, frozen).stop_gradient = True
    (model(x) ** 3).sum().backward()
    for name, parameter in model.named_parameters():
        if name.endswith(frozen):
            assert parameter.grad is None
        else:
            np.testing.assert_allclose(parameter.grad.numpy(), expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kernel", "size"), [(1, 4), (2, 6), (4, 9)])
@pytest.mark.parametrize("bias", [None, False])
def test_patch_convolution_equals_paddles(kernel, size, bias):
    layer = nn.Conv2D(4, 5, kernel, stride=kernel, bias_attr=bias)
    images = paddle.randn([2, 4, size, size])
    images.stop_gradient = False
    results = []
    assert CpuPatchConv2D.can_replace(layer)
    for kind in (nn.Conv2D, CpuPatchConv2D):
        layer.__class__ = kind
        output = layer(images)
        gradients = paddle.grad(output.square().sum(), [images, *layer.parameters()])
        results.append([value.numpy() for value in (output, *gradients)])
    for own, paddles in zip(*results, strict=True):
        assert np.allclose(own, paddles, rtol=1e-4, atol=1e-5)


def test_a_patch_convolution_is_traced_for_any_batch():
    layer = nn.Sequential(nn.Conv2D(8, 6, 1))
    speed_up(layer)
    layer.eval()
    spec = paddle.static.InputSpec([None, 8, 4, 4], "float32")
    static, x = paddle.jit.to_static(layer, input_spec=[spec], full_graph=True), paddle.randn([3, 8, 4, 4])
    assert isinstance(layer[0], CpuPatchConv2D)
    np.testing.assert_allclose(static(x).numpy(), nn.Sequential.forward(layer, x).numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", ["CPU", "plain"])
def test_layers_of_one_input_are_together_what_they_are_apart(kind):
    """Outputs and gradients; one that is frozen, has a hook or is of another kind is computed by itself."""
    layers = nn.LayerList([nn.Linear(6, 5) for _ in range(3)])
    if kind == "CPU":
        speed_up(layers)
    found = []
    for packed in (False, True):
        x = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32"), stop_gradient=False)
        y = fuse_linears(layers)(x) if packed else paddle.concat([layer(x) for layer in layers], axis=-1)
        (y * paddle.arange(15, dtype="float32")).sum().backward()
        found.append([y.numpy(), x.grad.numpy(), *(parameter.grad.numpy() for parameter in layers.parameters())])
        layers.clear_gradients()
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert fuse_linears([*layers, nn.Identity()]) is None
    hook = layers[1].register_forward_post_hook(lambda *_: None)
    assert fuse_linears(layers) is None
    hook.remove()
    assert fuse_linears(layers) is not None
    layers[2].bias.stop_gradient = True
    assert fuse_linears(layers) is None


@limit_examples(30)
@given(shape=st.lists(st.integers(1, 9), min_size=2, max_size=4), seed=st.integers(0, 99))
def test_sums_of_channels(shape, seed):
    values = np.random.default_rng(seed).normal(size=shape)
    expected = values.sum(axis=tuple(axis for axis in range(len(shape)) if axis != 1))
    np.testing.assert_allclose(sum_channels(paddle.to_tensor(values)).numpy(), expected, atol=1e-12)


class Squared(PyLayer):
    @staticmethod
    def forward(ctx, x):
        save_for_backward(ctx, x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensor()
        return 2 * x * gradient


VIEWS = {
    "crop": lambda x: x[:, 1:, 1:4],
    "every other": lambda x: x[:, ::2, 1::2],
    "transposed": lambda x: x.transpose([0, 2, 1]),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_lazy_view_kept_in_a_recomputed_block_is_the_view(view):
    strides = "FLAGS_use_stride_kernel"
    before = paddle.get_flags(strides)
    paddle.set_flags({strides: True})
    try:
        x = paddle.arange(48, dtype="float32").reshape([2, 4, 6])
        x.stop_gradient = False
        y = recompute(lambda x: Squared.apply(view(x + 1)), x, preserve_rng_state=False, use_reentrant=False)
        (found,) = paddle.grad(y.sum(), [x])
        (expected,) = paddle.grad(view(x + 1).square().sum(), [x])
    finally:
        paddle.set_flags(before)
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
