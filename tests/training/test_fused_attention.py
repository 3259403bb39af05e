"""Fused attention against the layers' own: the same losses and gradients; where it is on."""

import paddle
import pytest

from ernie_vil2.config import ConfigError
from ernie_vil2.tasks.contrastive_step import DirectStep
from ernie_vil2.tasks.fused_attention import fuse_attention
from tests.training.test_step import (
    REPVGG,
    TOLERANCES,
    VIT,
    batch,
    compute,
    default_dtype,
    errors,
    model_and_loss,
    setting,
)  # fmt: skip


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("recompute", ["false", "true"])
def test_losses_and_gradients_are_those_of_the_layers_own(monkeypatch, dtype, tolerance, recompute):
    """By Paddle's plain formula, which is what its call computes on a CPU; dropout and drop path are on."""
    calls = []
    original = paddle.nn.functional.scaled_dot_product_attention

    def counted(*arguments, **options):
        calls.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(paddle.nn.functional, "scaled_dot_product_attention", counted)
    with default_dtype(dtype):
        config = setting(VIT, f"Training.recompute={recompute}")
        found = []
        for choice in ("off", "on"):
            model, loss = model_and_loss(config)
            fuse_attention(model, choice)
            found.append(compute(DirectStep(model, loss, config), batch(dtype)))
            assert len(calls) == (0 if choice == "off" else 2 if recompute == "false" else 4)  # two blocks
    assert max(errors(found[1], found[0])) < tolerance


def test_auto_follows_the_device(monkeypatch):
    model, _ = model_and_loss(setting(VIT))

    def fused():
        return [block.attn.use_fused_attn for block in model.image.blocks]

    assert fuse_attention(model, "auto") == "fused attention: off, Paddle has no such kernel for CPUs"
    assert fuse_attention(model, "off") == "" and fused() == [False, False]
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    assert fuse_attention(model, "auto") == "fused attention: on, in the image tower" and fused() == [True, True]


def test_towers_of_other_kinds_are_left_alone_or_refused():
    model, _ = model_and_loss(setting(REPVGG))
    assert fuse_attention(model, "auto") == ""
    with pytest.raises(ConfigError, match="is for image towers named ViT.*set auto or off"):
        fuse_attention(model, "on")
