"""One GPU: fused attention has the outputs and gradients of the plain formula."""

import numpy as np
import paddle
import pytest
from paddle.nn.functional import sdpa

from ernie_vil2.towers.layers import attention as attention_module
from ernie_vil2.towers.layers import transformer
from ernie_vil2.towers.layers.attention import MASKED, Attention
from tests.support.towers import make_text_config

BATCH, HEADS, WIDTH = 3, 2, 64
# float32: a kernel may round its operands to the 11 bits of TF32. The others: 5 to 10 times the error of the plain
# formula in that type, emulated on a CPU. Without its mask attention is off by 80 %.
TOLERANCES = {"float32": 2e-3, "float16": 5e-3, "bfloat16": 3e-2}


@pytest.fixture
def kernels(monkeypatch):
    """Record which of Paddle's kernels computes attention."""
    names = []
    select = sdpa.select_sdp_for_sdpa  # private, as of Paddle 3.3.1

    def record_name(parameters):
        names.append(select(parameters))
        return names[-1]

    monkeypatch.setattr(sdpa, "select_sdp_for_sdpa", record_name)
    return names


def make_mask(kind, length):
    """Return what is added to the scores, `[B or 1, 1, L or 1, L]`."""
    if kind is None:
        return None
    if kind == "causal":
        hidden = np.triu(np.ones([length, length]), 1)[None, None]
    else:
        lengths = np.array([length, length // 2, 1])
        hidden = (np.arange(length) >= lengths[:, None])[:, None, None]
    return paddle.to_tensor((hidden * MASKED).astype(np.float32))


def compute_gradients(dtype, fused, length, mask):
    """Return the output of attention and the gradients of queries, keys and values, in float64."""
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=[4, BATCH, HEADS, length, WIDTH])
    # Equal numbers for all types, so that only the arithmetic differs.
    q, k, v, weights = [paddle.to_tensor(array.astype(np.float16)).astype(dtype) for array in arrays]
    for tensor in (q, k, v):
        tensor.stop_gradient = False
    attention = Attention(HEADS)
    attention.fused = fused
    output = attention.attend(q, k, v, mask)  # [B, L, heads * d]
    (output * weights.transpose([0, 2, 1, 3]).flatten(2)).sum().backward()
    return [tensor.astype("float64").numpy() for tensor in (output, q.grad, k.grad, v.grad)]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("mask", [None, "padding", "causal"])
@pytest.mark.parametrize("length", [40, 37, 197])
def test_fused_attention_has_the_gradients_of_the_formula(kernels, report, dtype, mask, length):
    mask_tensor = make_mask(mask, length)
    # In float64 Paddle has the plain formula alone.
    expected = compute_gradients("float64", False, length, mask_tensor)
    actual = compute_gradients(dtype, True, length, mask_tensor)
    errors = [
        np.linalg.norm(array - reference) / np.linalg.norm(reference)
        for array, reference in zip(actual, expected, strict=True)
    ]
    report(dtype=dtype, mask=mask, length=length, kernel=kernels[-1], errors=errors)
    assert max(errors) < TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("length", [40, 197])
def test_packed_attention_has_the_bits_of_separate_tensors(monkeypatch, dtype, length):
    rng = np.random.default_rng(0)
    qkv_array, weights_array = rng.normal(size=[BATCH, length, 3 * HEADS * WIDTH]), rng.normal(size=[BATCH, length, 1])
    weights = paddle.to_tensor(weights_array.astype(np.float32)).astype(dtype)
    attention = Attention(HEADS)
    attention.fused = True
    results = []
    for is_packed in (True, False):
        if not is_packed:
            monkeypatch.setattr(attention_module, "has_qkv_kernel", lambda qkv: False)
        qkv = paddle.to_tensor(qkv_array.astype(np.float32)).astype(dtype)
        qkv.stop_gradient = False
        output = attention.attend_to_itself(qkv, None, None)
        (output * weights).sum().backward()
        results.append([tensor.astype("float32").numpy() for tensor in (output, qkv.grad)])
    (packed_output, packed_gradient), (output, gradient) = results
    np.testing.assert_array_equal(packed_output, output)
    # The gradient of the queries is added up by several blocks of threads, in any order.
    assert np.linalg.norm(packed_gradient - gradient) < TOLERANCES[dtype] * np.linalg.norm(gradient)


@pytest.mark.parametrize(
    ("dtype", "mask", "length", "kernel"),
    [
        ("bfloat16", None, 197, "flash_attn"),
        ("bfloat16", "padding", 37, "flash_attn"),
        ("float32", None, 197, "mem_efficient"),
        ("float32", "padding", 40, "mem_efficient"),
        # Paddle's kernel for float32 wants masks of a multiple of 8 tokens.
        ("float32", "padding", 37, "math"),
    ],
)
def test_kernel_of_attention_depends_on_type_and_mask(kernels, dtype, mask, length, kernel):
    compute_gradients(dtype, True, length, make_mask(mask, length))
    assert kernels == [kernel]


def test_texts_of_any_length_get_a_fused_kernel(kernels):
    # A text tower pads them; in float32 Paddle would compute 37 tokens by the plain formula.
    sizes = {"width": 128, "depth": 1, "heads": 2, "max_positions": 37}
    tower = make_text_config(name="ernie", dropout=0.0, attention_dropout=0.0, **sizes).build(vocab_size=11)
    tower(paddle.to_tensor(np.random.default_rng(0).integers(1, 11, [3, 37])))
    assert kernels == ["mem_efficient"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_texts_without_padding_equal_padded_texts(monkeypatch, report, dtype):
    sizes = {"width": 128, "depth": 2, "heads": 2, "max_positions": 40}
    tower = make_text_config(name="ernie", **sizes).build(vocab_size=11)
    tower.eval()
    ids = np.random.default_rng(0).integers(1, 11, [3, 37])
    ids[np.arange(37) >= np.array([37, 18, 1])[:, None]] = 0
    num_calls, attend = [], attention_module.flash_attn_unpadded

    def record_call(*arguments, **options):
        num_calls.append(1)
        return attend(*arguments, **options)

    monkeypatch.setattr(attention_module, "flash_attn_unpadded", record_call)
    features = []
    for has_kernel in (True, False):
        if not has_kernel:
            monkeypatch.setattr(transformer, "has_flash_attention", lambda x, head_width: False)
        with paddle.no_grad(), paddle.amp.auto_cast(dtype=dtype):
            features.append(tower(paddle.to_tensor(ids)).astype("float32").numpy())
    assert len(num_calls) == 2
    error = np.linalg.norm(features[0] - features[1]) / np.linalg.norm(features[1])
    report(dtype=dtype, error=error)
    assert error < TOLERANCES[dtype]
