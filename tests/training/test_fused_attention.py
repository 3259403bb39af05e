"""Fused attention against the layers' own: the same losses and gradients; where it is on."""

import paddle
import pytest

from ernie_vil2.config import ConfigError, TrainingConfig
from ernie_vil2.tasks.contrastive_step import DirectStep
from ernie_vil2.tasks.model_setup import prepare_attention
from tests.support.steps import (
    TOLERANCES,
    VIT,
    batch,
    compute,
    default_dtype,
    errors,
    model_and_loss,
    setting,
)
from tests.support.trainings import REPVGG


@pytest.fixture
def calls(monkeypatch):
    """Dropout rates of the calls of Paddle's fused attention, which computes its plain formula on a CPU."""
    rates = []
    original = paddle.nn.functional.scaled_dot_product_attention

    def counted(*arguments, **options):
        rates.append(options.get("dropout_p", 0.0))
        return original(*arguments, **options)

    monkeypatch.setattr(paddle.nn.functional, "scaled_dot_product_attention", counted)
    return rates


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("recompute", ["false", "true"])
def test_losses_and_gradients_are_those_of_the_layers_own(calls, dtype, tolerance, recompute):
    """Dropout and drop path are on."""
    with default_dtype(dtype):
        config = setting(VIT, f"Training.recompute={recompute}")
        found = []
        for choice in ("off", "on"):
            model, loss = model_and_loss(config)
            prepare_attention(model, chosen(choice))
            found.append(compute(DirectStep(model, loss, config), batch(dtype)))
            assert len(calls) == (0 if choice == "off" else 2 if recompute == "false" else 4)  # two blocks
    assert max(errors(found[1], found[0])) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES[1:])
@pytest.mark.parametrize("family", ["ernie", "bert"])
def test_with_native_dropout_the_text_tower_is_fused_as_well(calls, dtype, tolerance, family):
    """Paddle's plain formula draws what the layers draw; some texts are padded."""
    with default_dtype(dtype):
        config = setting(VIT, "Training.dropout=native", f"Model.text.name={family}")
        found = []
        for choice in ("off", "on"):
            model, loss = model_and_loss(config)
            lines = prepare_attention(model, chosen(choice, "native"))
            assert lines[0] == "dropout: Paddle's own; another number of ranks draws other masks"
            found.append(compute(DirectStep(model, loss, config), batch(dtype)))
    assert lines[1].startswith("fused attention: on in the image and the text tower, by Paddle's plain formula")
    assert sorted(calls) == [0.0, 0.0, 0.3, 0.3]
    assert max(errors(found[1], found[0])) < tolerance
    model.eval()
    model.encode_text(batch()[0]["text_1"])
    assert calls[4:] == [0.0, 0.0]


def chosen(setting, dropout="counter"):
    return TrainingConfig(fused_attention=setting, dropout=dropout)


def test_auto_follows_the_device(monkeypatch):
    model, _ = model_and_loss(setting(VIT))

    def fused():
        return [block.attn.fused for block in model.image.blocks]

    assert prepare_attention(model, chosen("auto")) == ["fused attention: off, Paddle has no such kernel for CPUs"]
    assert prepare_attention(model, chosen("off")) == [] and fused() == [False, False]
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    assert prepare_attention(model, chosen("auto")) == ["fused attention: on in the image tower"]
    assert fused() == [True, True]
    model, _ = model_and_loss(setting(REPVGG))
    assert prepare_attention(model, chosen("auto", "native"))[1:] == ["fused attention: on in the text tower"]


def test_towers_of_other_kinds_are_left_alone_or_refused():
    model, _ = model_and_loss(setting(REPVGG))
    assert prepare_attention(model, chosen("auto")) == []
    with pytest.raises(ConfigError, match="is for image towers named ViT.*set auto or off"):
        prepare_attention(model, chosen("on"))
