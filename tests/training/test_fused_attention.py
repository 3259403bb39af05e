"""Fused attention has the losses and gradients of the layers' own attention, and is used where it should be."""

import numpy as np
import paddle
import pytest

from ernie_vil2.config import ConfigError, TrainingConfig
from ernie_vil2.tasks.contrastive_step import DirectStep
from ernie_vil2.tasks.task import prepare_attention
from ernie_vil2.towers.layers import attention as attention_module
from ernie_vil2.towers.layers.attention import MASKED, FusedQkvAttention, SplitAttention
from tests.support.steps import (
    TOLERANCES,
    VIT,
    build_model_and_loss,
    compute_step,
    make_batch,
    make_config,
    measure_errors,
    use_default_dtype,
)
from tests.support.trainings import REPVGG


@pytest.fixture
def calls(monkeypatch):
    """Record the dropout rates of calls of Paddle's fused attention, which computes its plain formula on a CPU."""
    rates = []
    original = paddle.nn.functional.scaled_dot_product_attention

    def record_call(*arguments, **options):
        rates.append(options.get("dropout_p", 0.0))
        return original(*arguments, **options)

    monkeypatch.setattr(paddle.nn.functional, "scaled_dot_product_attention", record_call)
    return rates


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize(("dropout", "changes", "rates"), [
    ("counter", [], [0.0] * 2),  # two blocks of the image tower
    ("counter", ["Training.recompute=true"], [0.0] * 4),
    ("native", ["Training.dropout=native"], [0.0, 0.0, 0.3, 0.3]),  # the text tower as well
    ("native", ["Training.dropout=native", "Model.text.name=bert"], [0.0, 0.0, 0.3, 0.3]),
])  # fmt: skip
def test_losses_and_gradients_match_unfused_attention(calls, dtype, tolerance, dropout, changes, rates):
    # Dropout and drop path are on, and some texts are padded. Paddle's plain formula draws the masks of the layers.
    with use_default_dtype(dtype):
        config = make_config(VIT, *changes)
        results = {}
        for choice in ("off", "on"):
            model, loss = build_model_and_loss(config)
            prepare_attention(model, make_training_config(choice, dropout))
            results[choice] = compute_step(DirectStep(model, loss, config), make_batch(dtype))
            assert sorted(calls) == (rates if choice == "on" else [])
    assert max(measure_errors(results["on"], results["off"])) < tolerance
    if dropout == "native":
        model.eval()
        model.encode_text(make_batch()[0]["text_1"])
        assert calls[4:] == [0.0, 0.0]


@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize("layer_class", [FusedQkvAttention, lambda *sizes: SplitAttention(*sizes, 0.0)])
def test_packed_projections_have_the_results_of_the_formula(calls, monkeypatch, layer_class, has_mask):
    # As on a GPU with flash attention; on a CPU Paddle computes it by its plain formula.
    packed_calls = []
    packed = paddle.nn.functional.flash_attn_qkvpacked

    def record_packed(qkv, *arguments, **options):
        packed_calls.append(qkv.shape)
        return packed(qkv, *arguments, **options)

    monkeypatch.setattr(paddle.nn.functional, "flash_attn_qkvpacked", record_packed)
    monkeypatch.setattr(attention_module, "has_qkv_kernel", lambda qkv: True)
    paddle.seed(0)
    layer = layer_class(24, 3)
    mask = (paddle.arange(5) >= 3).astype("float32").reshape([1, 1, 1, 5]) * MASKED if has_mask else None
    results = []
    for fused in (False, True):
        layer.fused = fused
        x = paddle.to_tensor(np.random.default_rng(0).normal(size=[2, 5, 24]).astype("float32"), stop_gradient=False)
        output = layer(x, mask)
        (output * output).sum().backward()
        results.append([output.numpy(), x.grad.numpy()] + [parameter.grad.numpy() for parameter in layer.parameters()])
        layer.clear_gradients()
    # A mask has no place in the packed kernel.
    assert (packed_calls, len(calls)) == (([], 1) if has_mask else ([[2, 5, 3, 3, 8]], 0))
    for expected, actual in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def make_training_config(setting, dropout="counter"):
    return TrainingConfig(fused_attention=setting, dropout=dropout)


def test_auto_depends_on_the_device(monkeypatch):
    model, _ = build_model_and_loss(make_config(VIT))

    def list_fused():
        return [block.attn.fused for block in model.image.blocks]

    for choice in ("auto", "off"):
        prepare_attention(model, make_training_config(choice))
        assert not any(list_fused())
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    prepare_attention(model, make_training_config("auto"))
    assert list_fused() == [True, True]
    # Towers without fused attention stay as they are, or are refused.
    model, _ = build_model_and_loss(make_config(REPVGG))
    assert prepare_attention(model, make_training_config("auto")) == []
    assert "text tower" in prepare_attention(model, make_training_config("auto", "native"))[1]
    with pytest.raises(ConfigError, match="ViT"):
        prepare_attention(model, make_training_config("on"))
