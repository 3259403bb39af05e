"""Dropout by position draws equal masks however a batch is divided, and independent ones otherwise."""

import math

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paddle import nn
from paddle.nn import functional as F

from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.device import runtime
from ernie_vil2.device.token_packing import pack, skip_padding
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.tasks import dropout as dropout_module
from ernie_vil2.tasks.dropout import CounterBasedDropout, NativeDropout
from ernie_vil2.tasks.multi_view import check_text_pair
from tests.support.dropout_bits import compute_bits
from tests.support.limits import limit_examples
from tests.support.steps import make_keys_on_device


@pytest.fixture(autouse=True)
def set_device_as_in_training():
    """Set the device as a run does, with its switches."""
    if paddle.get_device() == "cpu":
        runtime.set_device("cpu")


class Towers(nn.Layer):
    """The smallest model that `CounterBasedDropout` accepts."""

    def __init__(self, *layers):
        super().__init__()
        self.image, self.text = nn.Identity(), nn.Sequential(*layers)


def draw_for(dropout, step, views, positions):
    """Draw for these views and rows within the block."""
    return dropout.use_keys(make_keys_on_device(dropout, step, views, positions))


def compute_masks(texts, step=0, views=("text_1",), positions=None, p=0.5, layers=1, seed=0):
    """Return the output of dropout layers for ones, `[layers, R, ...]`; R counts the rows of all views."""
    outputs = []
    towers = Towers(*[nn.Dropout(p) for _ in range(layers)])
    for layer in towers.text:
        layer.register_forward_pre_hook(lambda layer, inputs: paddle.ones_like(inputs[0]))
        layer.register_forward_post_hook(lambda layer, inputs, output: outputs.append(output.numpy()))
    if positions is None:
        positions = np.arange(texts.shape[0] // len(views))
    with draw_for(CounterBasedDropout(towers, seed), step, views, positions):
        towers.text(texts)
    return np.stack(outputs)


def test_masks_match_their_formula():
    positions = [4, 0, 9]
    actual = compute_masks(
        paddle.ones([6, 3, 5]), 7, ("text_1", "text_2"), np.array(positions), p=0.3, layers=2, seed=3
    )
    for draw, row, i, j in np.ndindex(2, 6, 3, 5):
        view, position = 2 + row // 3, positions[row % 3]
        # The rows of the tower are not divided, so the first coordinate within a row is 0. The bits are a signed
        # number: flipping the sign bit makes it uniform from 0.
        uniform = (compute_bits(3, 7, view, position, draw, 0, i, j) ^ 0x80000000) / 2**32
        assert actual[draw, row, i, j] == pytest.approx(1 / 0.7 if uniform >= 0.3 else 0), (draw, row, i, j)


@limit_examples(10)
@given(
    order=st.permutations(range(8)), cuts=st.sets(st.integers(1, 7)), lengths=st.lists(st.integers(4, 9), min_size=8)
)
def test_masks_do_not_depend_on_division_order_or_padding(order, cuts, lengths):
    # The inputs are attention weights [R, heads, L, L], in micro batches of other lengths and in another order.
    expected = compute_masks(paddle.ones([16, 2, 9, 9]), views=("text_1", "text_2"), layers=2)
    for chunk, length in zip(np.split(np.array(order), sorted(cuts)), lengths, strict=False):
        texts = paddle.ones([2 * len(chunk), 2, length, length])
        actual = compute_masks(texts, views=("text_1", "text_2"), positions=chunk, layers=2)
        rows = np.concatenate([chunk, chunk + 8])
        np.testing.assert_array_equal(actual, expected[:, rows, :, :length, :length])


def test_packed_tokens_get_the_masks_of_padded_texts():
    if paddle.get_device() != "cpu" or not runtime.is_enabled("layers"):
        pytest.skip("texts are packed by the layers for CPUs alone")
    # Two views of three texts, of one to four tokens.
    is_token = np.arange(4) < np.array([2, 4, 1, 3, 4, 1])[:, None]
    ids, x = paddle.to_tensor(is_token.astype("int64")), paddle.ones([6, 4, 50])
    towers = Towers(nn.Identity())
    dropout = CounterBasedDropout(towers, 0)
    views, outputs = ("text_1", "text_2"), []
    for skips_padding in (False, True):
        with draw_for(dropout, 3, views, np.arange(3)), skip_padding(ids, 0 if skips_padding else -1):
            towers.text(ids)
            weights = F.dropout(paddle.ones([6, 2, 4, 4]), 0.5)  # of attention: they are not packed
            outputs.append((F.dropout(pack(x), 0.5).numpy(), weights.numpy()))
    (padded_output, padded_weights), (packed_output, packed_weights) = outputs
    np.testing.assert_array_equal(packed_output, padded_output[is_token])
    np.testing.assert_array_equal(packed_weights, padded_weights)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_types_round_the_draws_of_float32(dtype):
    towers = Towers(nn.Identity())
    dropout = CounterBasedDropout(towers, 0)
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=[4, 5000]).astype("float32")).astype(dtype)
    x.stop_gradient = False
    draws = {}
    for draw_dtype in ("float32", dtype):
        with draw_for(dropout, 0, ["text_1"], np.arange(4)):
            towers.text(x)
            uniform = paddle.rand([4, 5000], dtype=draw_dtype)
            y = F.dropout(x.astype(draw_dtype), 0.1)
        assert uniform.dtype == y.dtype == getattr(paddle, draw_dtype)
        draws[draw_dtype] = uniform.astype("float64").numpy(), y.astype("float64").numpy()
    y.sum().backward()
    # Half the distance between two numbers of the type, relative to them
    spacing = {"float16": 2**-11, "bfloat16": 2**-8}[dtype]
    for wide, narrow in zip(draws["float32"], draws[dtype], strict=True):
        np.testing.assert_allclose(narrow, wide, rtol=spacing, atol=0)
    # Each product is rounded by itself, so the errors cancel in the mean. A rounded scale would shift all of them.
    is_nonzero = draws["float32"][1] != 0
    ratios = draws[dtype][1][is_nonzero] / draws["float32"][1][is_nonzero]
    assert abs(ratios.mean() - 1) < 0.05 * spacing
    assert set(x.grad.astype("float64").numpy().ravel()) == {0, float(paddle.to_tensor(1 / 0.9, dtype))}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dropout_rounds_the_product_of_float32_once(dtype):
    towers = Towers(nn.Identity())
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=[4, 5000]).astype("float32")).astype(dtype)
    with draw_for(CounterBasedDropout(towers, 0), 0, ["text_1"], np.arange(4)):
        towers.text(x)
        y = F.dropout(x, 0.3).astype("float32").numpy()
    product = paddle.to_tensor(x.astype("float32").numpy() * np.float32(1 / 0.7))
    is_kept = y != 0
    assert is_kept.mean() == pytest.approx(0.7, abs=0.02)
    np.testing.assert_array_equal(y[is_kept], product.astype(dtype).astype("float32").numpy()[is_kept])


def test_memory_of_the_coordinates_is_bounded(monkeypatch):
    # Texts of 10 lengths; the coordinates of 8 x 8 weights of 2 heads take 512 bytes.
    lengths = [*range(8, 18), 8]
    expected = [compute_masks(paddle.ones([2, 2, length, length])) for length in lengths]
    shapes = []
    cache = dropout_module._CoordinateCache(3000)
    hash_coordinates = dropout_module._hash_coordinates
    monkeypatch.setattr(dropout_module, "_COORDINATES", cache)
    monkeypatch.setattr(
        dropout_module, "_hash_coordinates", lambda *shape: shapes.append(shape) or hash_coordinates(*shape)
    )
    for length, masks in zip(lengths, expected, strict=True):
        np.testing.assert_array_equal(compute_masks(paddle.ones([2, 2, length, length]), layers=2)[0], masks[0])
        cached_bytes = sum(4 * math.prod(shape) for _, shape in cache._hashes)
        assert 0 < cache.num_bytes == cached_bytes <= 3000
    # The shape of a forward's second draw is that of its first one, and 8 x 8 had to make room.
    assert shapes == [(1, 2, length, length) for length in lengths]


def test_dropout_supports_axes_modes_and_extreme_rates():
    x = paddle.full([4, 6, 50], 3.0)
    towers = Towers(nn.Identity())
    with draw_for(CounterBasedDropout(towers, 0), 0, ["text_1"], np.arange(4)):
        towers.text(x)
        whole_rows = F.dropout(x, 0.5, axis=0).numpy()
        unscaled = F.dropout(x, 0.5, mode="downscale_in_infer").numpy()
        assert np.array_equal(F.dropout(x, 0.5, training=False, mode="downscale_in_infer"), x / 2)
        assert np.array_equal(F.dropout(x, 0.0), x) and not F.dropout(x, 1.0).any()
        windows = F.dropout(paddle.ones([8, 50]), 0.5).numpy()  # two windows for each row of the batch
        uniform = paddle.rand([4, 1, 1000]).numpy()
        with pytest.raises(ValueError, match=r"shape \[3, 5\] in a tower that sees 4 rows"):
            paddle.rand([3, 5])
    assert set(map(tuple, whole_rows.reshape([4, -1]))) <= {(0,) * 300, (6,) * 300}
    assert set(unscaled.ravel()) == {0, 3} and len(np.unique(windows, axis=0)) == 8
    assert 0 <= uniform.min() < 0.01 and 0.99 < uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.02
    with pytest.raises(ValueError, match="image is a Dropout2D"):  # noqa: PT012  -- what comes before the error belongs to it
        towers.image = nn.Dropout2D(0.1)
        CounterBasedDropout(towers, 0)


MODELS = {
    "ViT and ERNIE": "Model.image={name: ViT, image_size: 32, patch_size: 16, width: 32, depth: 3, heads: 2, "
    "drop_path: 0.5}",
    "EfficientNetB0": "Model.image={name: EfficientNetB0, image_size: 32}",
}


@pytest.mark.parametrize("image", MODELS.values(), ids=MODELS)
def test_towers_draw_only_from_counter_based_dropout(image):
    # If a layer drew from anything else, a divided batch would not have the embeddings of the whole batch.
    text = "Model.text={name: ernie, width: 32, depth: 2, heads: 2, max_positions: 8, dropout: 0.3, " \
           "attention_dropout: 0.3}"  # fmt: skip
    model = build_dual_encoder(load_config(None, [image, text, "Views.resize=32", "Data.max_length=8"]).Model, 50)
    model.train()
    for layer in model.sublayers():
        if isinstance(layer, nn.BatchNorm2D | nn.BatchNorm):
            layer.eval()  # its statistics would be those of the micro batch
    rng = np.random.default_rng(0)
    images = paddle.to_tensor(rng.normal(size=[6, 3, 32, 32]).astype("float32"))
    texts = paddle.to_tensor(rng.integers(1, 50, size=[6, 8]))
    dropout = CounterBasedDropout(model, 0)

    def encode(rows, step=0):
        views = {"image_1": images[rows], "image_2": images[rows], "text_1": texts[rows], "text_2": texts[rows]}
        with draw_for(dropout, step, views, np.array(rows)), paddle.no_grad():
            return {name: value.numpy() for name, value in model(views)[0].items()}

    paddle.seed(5)
    next_paddle_draws = paddle.rand([3]).tolist()
    paddle.seed(5)
    batch = encode(list(range(6)))
    chunks = [(rows, encode(rows)) for rows in ([5, 1], [0], [4, 2, 3])]
    assert paddle.rand([3]).tolist() == next_paddle_draws, "Paddle's own random state has moved"
    for rows, embeddings in chunks:
        for name, value in embeddings.items():
            np.testing.assert_allclose(value, batch[name][rows], atol=2e-6, err_msg=name)
    # Views and steps draw different masks.
    next_step = encode(list(range(6)), step=1)
    for name in ("image", "text"):
        assert np.abs(batch[f"{name}_1"] - batch[f"{name}_2"]).max() > 1e-3, name
        assert np.abs(batch[f"{name}_1"] - next_step[f"{name}_1"]).max() > 1e-3, name


def test_native_dropout_depends_on_step_and_seed():
    def draw_mask(seed, step):
        dropout = NativeDropout(seed)
        with dropout.use_keys(dropout.make_keys(step, ["text_1"], np.arange(4))):
            return F.dropout(paddle.ones([4, 1000]), 0.5).numpy()

    assert np.array_equal(draw_mask(0, 3), draw_mask(0, 3))
    distinct = {draw_mask(seed, step).tobytes() for seed, step in ((0, 3), (0, 4), (1, 3))}
    assert len(distinct) == 3


@pytest.mark.parametrize("setting", ["micro_batch=2", "recompute=true"])
def test_native_dropout_is_refused_where_rows_are_encoded_twice(setting):
    with pytest.raises(ConfigError, match="dropout: native"):
        load_config(None, ["Training.dropout=native", f"Training.{setting}"])


def test_text_pair_of_equal_encodings_is_refused():
    # With tags, too: the text is the caption or the tags, and both encodings are of the same text.
    equal = [
        "Data.train=[a.tar]",
        "Model.text.dropout=0",
        "Model.text.attention_dropout=0",
        "Views.tag_probability=0.5",
    ]
    with pytest.raises(ConfigError, match="Model.text.dropout"):
        check_text_pair(load_config(None, equal))
    for change in ("Loss.weights.text_text=0", "Model.text.attention_dropout=0.1", "Views.long_caption=long"):
        check_text_pair(load_config(None, [*equal, change]))
