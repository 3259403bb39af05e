"""The layers for CPU, compared with Paddle's own, and their sums with NumPy's; views that are saved for backward."""

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
    CpuSmallMapConv2D,
    add_to_rows,
    embed_patches,
    fuse_linears,
    save_for_backward,
    speed_up,
    sum_channels,
    unbind,
)
from ernie_vil2.device.mixed_precision import keep_maps_narrow
from ernie_vil2.device.token_packing import pack, skip_padding, unpack
from tests.support.freezing import Case, build_case
from tests.support.limits import limit_examples


@pytest.fixture(autouse=True)
def restore_float32():
    yield
    paddle.set_default_dtype("float32")


def compute_gradients(layer, x, weights):
    """Return the output, and the gradients of its weighted sum for the input and for each parameter."""
    x = paddle.to_tensor(x, stop_gradient=False)
    y = layer(x)
    gradients = paddle.grad((y * paddle.to_tensor(weights)).sum(), [x, *layer.parameters()])
    return [value.numpy() for value in (y, *gradients)]


def compute_plain_and_fast(layer, x, weights):
    """Return the arrays of Paddle's layer, and those of the layer that replaces it."""
    plain_type = type(layer)
    plain_arrays = compute_gradients(layer, x, weights)
    speed_up(layer)
    assert type(layer) is not plain_type and isinstance(layer, plain_type)
    return plain_arrays, compute_gradients(layer, x, weights)


LEADING_SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)


@limit_examples(25)
@given(LEADING_SHAPES, st.integers(2, 33), st.sampled_from(["linear", "norm"]), st.integers(0, 2**32 - 1))
def test_float64_layers_equal_paddles_to_rounding(leading_shape, width, kind, seed):
    paddle.set_default_dtype("float64")
    random = np.random.default_rng(seed)
    out_width = int(random.integers(1, 12)) if kind == "linear" else width
    epsilon = float(random.choice([2**-40, 2**-17, 2**-10]))  # exact in float32, to which Paddle rounds
    layer = nn.Linear(width, out_width) if kind == "linear" else nn.LayerNorm(width, epsilon)
    for parameter in layer.parameters():
        parameter.set_value(random.standard_normal(parameter.shape))
    x = random.standard_normal((*leading_shape, width))
    weights = random.standard_normal((*leading_shape, out_width))
    for plain, fast in zip(*compute_plain_and_fast(layer, x, weights), strict=True):
        np.testing.assert_allclose(fast, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("build", [lambda: nn.Linear(48, 64), lambda: nn.LayerNorm(64)], ids=["linear", "norm"])
def test_float32_sums_are_as_exact_as_paddles(build):
    random = np.random.default_rng(0)
    layer = build()
    x = random.standard_normal((64, 128, layer.weight.shape[0])).astype("float32")
    weights = (1 + random.standard_normal((64, 128, 64))).astype("float32")
    # The gradient of the bias is the sum of the weights over 8,192 rows, computed here in float64.
    exact = weights.astype("float64").sum((0, 1))
    plain_arrays, fast_arrays = compute_plain_and_fast(layer, x, weights)
    plain_error = abs(plain_arrays[3] - exact).max() / abs(exact).max()
    fast_error = abs(fast_arrays[3] - exact).max() / abs(exact).max()
    assert fast_error < 1e-5 and fast_error < 4 * plain_error + 1e-6


@limit_examples(25)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_linear_layer_skips_the_padding_of_texts(lengths, seed):
    paddle.set_default_dtype("float64")
    random = np.random.default_rng(seed)
    tokens = np.arange(max(lengths)) < np.array(lengths)[:, None]  # [B, L]
    layer = nn.Linear(5, 3)
    x = random.standard_normal((*tokens.shape, 5))
    weights = random.standard_normal((*tokens.shape, 3)) * tokens[:, :, None]  # padding gets no gradient
    plain = compute_gradients(layer, x, weights)
    speed_up(layer)
    with skip_padding(paddle.to_tensor(np.where(tokens, 9, 0)), 0):
        fast = compute_gradients(layer, x, weights)
        output_of_two_axes = layer(paddle.to_tensor(x[0]))  # not a batch of texts: nothing is skipped
    np.testing.assert_array_equal(fast[0][~tokens], 0)
    np.testing.assert_allclose(fast[0][tokens], plain[0][tokens], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(output_of_two_axes, plain[0][0], rtol=1e-9, atol=1e-11)
    for fast_gradient, plain_gradient in zip(fast[1:], plain[1:], strict=True):
        np.testing.assert_allclose(fast_gradient, plain_gradient, rtol=1e-9, atol=1e-11)
    # Outside of the block nothing is skipped.
    np.testing.assert_allclose(layer(paddle.to_tensor(x)), plain[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("lengths", [(2, 4, 1), (1, 1, 1), (3, 3)])
def test_packed_tokens_are_those_of_the_texts(lengths):
    random = np.random.default_rng(0)
    is_token = np.arange(max(lengths)) < np.array(lengths)[:, None]  # [B, L]
    x = paddle.to_tensor(random.standard_normal((*is_token.shape, 3)), stop_gradient=False)
    weights = random.standard_normal(x.shape)
    ids = paddle.to_tensor(np.where(is_token, 7, 0))
    with skip_padding(ids, 0):
        tokens, token_ids = pack(x), pack(ids)
        restored = unpack(tokens)
    # A batch without padding stays as it is.
    has_padding = not is_token.all()
    np.testing.assert_array_equal(tokens, x.numpy()[is_token] if has_padding else x)
    np.testing.assert_array_equal(token_ids, ids.numpy()[is_token] if has_padding else ids)
    np.testing.assert_array_equal(restored, x.numpy() * is_token[:, :, None])
    (gradient,) = paddle.grad((restored * paddle.to_tensor(weights)).sum(), [x])
    np.testing.assert_array_equal(gradient, weights * is_token[:, :, None])


def test_padding_is_not_skipped_without_the_switch(monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_RUNTIME", "-layers")
    ids = paddle.to_tensor([[1, 2], [1, 0]])
    with skip_padding(ids, 0):
        assert pack(ids) is ids and unpack(ids) is ids


def test_layers_without_a_faster_kind_are_not_replaced():
    norms = [nn.LayerNorm([2, 4]), nn.LayerNorm(4, bias_attr=False)]
    convolutions = [nn.Conv2D(4, 4, 3, dilation=2), nn.Conv2D(3, 4, 4, stride=4), nn.Conv2D(4, 4, 3, padding="same"),
                    nn.Conv2D(4, 4, 3, padding_mode="circular"), nn.Conv2D(4, 4, 1, groups=2),
                    nn.Conv2D(4, 4, 2, stride=2, dilation=2)]  # fmt: skip
    layers = [nn.Linear(4, 4, bias_attr=False), *norms, *convolutions]
    types = list(map(type, layers))
    speed_up(nn.LayerList(layers))
    assert list(map(type, layers)) == types


def test_dual_encoder_has_fast_layers_if_the_switch_is_on(monkeypatch):
    fast = build_case(Case("ViT", "ernie")).model
    monkeypatch.setenv("ERNIE_VIL2_RUNTIME", "-layers")
    plain = build_case(Case("ViT", "ernie")).model
    num_norms = sum(type(layer) is CpuLayerNorm for layer in fast.sublayers())
    num_linears = sum(type(layer) is CpuLinear for layer in fast.sublayers())
    assert (num_norms, num_linears) == (6 + 5, 8 + 12 + 1)
    assert not any(isinstance(layer, CpuLayerNorm | CpuLinear) for layer in plain.sublayers())
    assert list(fast.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_only_a_frozen_parameter_gets_no_gradient(frozen):
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
    arrays_by_type = []
    assert CpuPatchConv2D.can_replace(layer)
    for kind in (nn.Conv2D, CpuPatchConv2D):
        layer.__class__ = kind
        output = layer(images)
        gradients = paddle.grad(output.square().sum(), [images, *layer.parameters()])
        arrays_by_type.append([value.numpy() for value in (output, *gradients)])
    for plain, fast in zip(*arrays_by_type, strict=True):
        assert np.allclose(plain, fast, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"), [(3, 2, 1, 4), (1, 2, 0, 3), (3, 1, 1, 2), (3, 2, 1, 8)]
)
@pytest.mark.parametrize("bias", [None, False])
def test_small_map_convolution_equals_paddles(kernel, stride, padding, size, bias):
    layer = nn.Conv2D(4, 5, kernel, stride=stride, padding=padding, bias_attr=bias)
    images = paddle.randn([3, 4, size, size])
    images.stop_gradient = False
    arrays_by_type = []
    assert CpuSmallMapConv2D.can_replace(layer)
    for kind in (nn.Conv2D, CpuSmallMapConv2D):
        layer.__class__ = kind
        output = layer(images)
        gradients = paddle.grad(output.square().sum(), [images, *layer.parameters()])
        arrays_by_type.append([value.numpy() for value in (output, *gradients)])
    for plain, fast in zip(*arrays_by_type, strict=True):
        assert np.allclose(plain, fast, rtol=1e-4, atol=1e-5)


def test_patch_convolution_is_traced_for_any_batch_size():
    layer = nn.Sequential(nn.Conv2D(8, 6, 1))
    speed_up(layer)
    layer.eval()
    spec = paddle.static.InputSpec([None, 8, 4, 4], "float32")
    static, x = paddle.jit.to_static(layer, input_spec=[spec], full_graph=True), paddle.randn([3, 8, 4, 4])
    assert isinstance(layer[0], CpuPatchConv2D)
    np.testing.assert_allclose(static(x).numpy(), nn.Sequential.forward(layer, x).numpy(), atol=1e-6)


@pytest.mark.parametrize("is_sped_up", [True, False], ids=["CPU", "plain"])
def test_fused_linears_equal_separate_ones(is_sped_up):
    layers = nn.LayerList([nn.Linear(6, 5) for _ in range(3)])
    if is_sped_up:
        speed_up(layers)
    results = []
    for is_fused in (False, True):
        x = paddle.to_tensor(np.random.default_rng(0).normal(size=(2, 4, 6)).astype("float32"), stop_gradient=False)
        y = fuse_linears(layers)(x) if is_fused else paddle.concat([layer(x) for layer in layers], axis=-1)
        (y * paddle.arange(15, dtype="float32")).sum().backward()
        gradients = [parameter.grad.numpy() for parameter in layers.parameters()]
        results.append([y.numpy(), x.grad.numpy(), *gradients])
        layers.clear_gradients()
    for separate, fused in zip(*results, strict=True):
        np.testing.assert_allclose(separate, fused, rtol=1e-5, atol=1e-6)

    # Layers of another kind, with a hook or with a frozen parameter are not fused.
    assert fuse_linears([*layers, nn.Identity()]) is None
    hook = layers[1].register_forward_post_hook(lambda *_: None)
    assert fuse_linears(layers) is None
    hook.remove()
    assert fuse_linears(layers) is not None
    layers[2].bias.stop_gradient = True
    assert fuse_linears(layers) is None


@limit_examples(30)
@given(shape=st.lists(st.integers(1, 9), min_size=2, max_size=4), seed=st.integers(0, 99))
def test_sums_of_channels_equal_numpys(shape, seed):
    values = np.random.default_rng(seed).normal(size=shape)
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    expected = values.sum(axis=axes)
    np.testing.assert_allclose(sum_channels(paddle.to_tensor(values)).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("row_shape", [[1, 3, 4], [4]])
@pytest.mark.parametrize("frozen", ["input", "row", None])
def test_rows_get_the_sum_and_the_parameter_its_gradient(row_shape, frozen):
    random = np.random.default_rng(0)
    x = paddle.to_tensor(random.normal(size=[5, 3, 4]), stop_gradient=frozen == "input")
    row = paddle.to_tensor(random.normal(size=row_shape), stop_gradient=frozen == "row")
    weights = random.normal(size=x.shape)
    y = add_to_rows(x, row)
    (y * paddle.to_tensor(weights)).sum().backward()
    np.testing.assert_array_equal(y, x.numpy() + row.numpy())
    if frozen != "input":
        np.testing.assert_array_equal(x.grad, weights)
    if frozen != "row":
        summed_axes = (0,) if len(row_shape) == 3 else (0, 1)
        np.testing.assert_allclose(row.grad, weights.sum(summed_axes).reshape(row_shape), rtol=1e-12)


@pytest.mark.parametrize("bias", [None, False])
@pytest.mark.parametrize("switch", ["", "-layers"])
def test_patches_are_embedded_as_by_a_convolution(bias, switch, monkeypatch):
    monkeypatch.setenv("ERNIE_VIL2_RUNTIME", switch)
    paddle.set_default_dtype("float64")
    layer = nn.Conv2D(3, 5, (2, 3), stride=(2, 3), bias_attr=bias)
    keep_maps_narrow(layer)  # as in a model: a hook that has no effect here
    for parameter in layer.parameters():
        parameter.set_value(paddle.randn(parameter.shape))
    images = paddle.randn([2, 3, 4, 9])
    tokens = embed_patches(images, layer)
    maps = layer(images)  # [2, 5, 2, 3]
    np.testing.assert_allclose(tokens, maps.numpy().reshape([2, 5, 6]).transpose([0, 2, 1]), rtol=1e-10, atol=1e-12)
    for actual, expected in zip(
        paddle.grad((tokens**2).sum(), layer.parameters()),
        paddle.grad((maps**2).sum(), layer.parameters()),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("is_recomputed", [False, True])
def test_unbound_tensors_share_memory_and_have_their_gradients(is_recomputed):
    x = paddle.randn([3, 4, 5])
    x.stop_gradient = False
    addresses = [part.data_ptr() - x.data_ptr() for part in unbind(x)]
    assert addresses == [0, 80, 160]  # 4 * 5 * 4 bytes each

    def multiply(x):
        first, second, third = unbind(2.0 * x)
        return first * second + third * third

    y = recompute(multiply, x, use_reentrant=False) if is_recomputed else multiply(x)
    (gradient,) = paddle.grad(y.sum(), [x])
    values = x.numpy()
    np.testing.assert_allclose(y, 4 * values[0] * values[1] + 4 * values[2] ** 2, rtol=1e-5)
    np.testing.assert_allclose(gradient, np.stack([4 * values[1], 4 * values[0], 8 * values[2]]), rtol=1e-5)


def test_hooks_of_a_patch_embedding_are_called():
    layer, images = nn.Conv2D(3, 5, 2, stride=2), paddle.randn([2, 3, 4, 4])
    calls = []
    monitor = layer.register_forward_post_hook(lambda *_: calls.append(layer))
    embed_patches(images, layer)
    monitor.remove()
    keep_maps_narrow(layer)
    layer.forward = None  # what a model has by itself is no reason to call it
    embed_patches(images, layer)
    assert calls == [layer]


class Square(PyLayer):
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
def test_lazy_view_in_a_recomputed_block_is_saved_as_it_is(view):
    strides = "FLAGS_use_stride_kernel"
    flags = paddle.get_flags(strides)
    paddle.set_flags({strides: True})
    try:
        x = paddle.arange(48, dtype="float32").reshape([2, 4, 6])
        x.stop_gradient = False
        y = recompute(lambda x: Square.apply(view(x + 1)), x, preserve_rng_state=False, use_reentrant=False)
        (gradient,) = paddle.grad(y.sum(), [x])
        (expected,) = paddle.grad(view(x + 1).square().sum(), [x])
    finally:
        paddle.set_flags(flags)
    np.testing.assert_array_equal(gradient.numpy(), expected.numpy())
