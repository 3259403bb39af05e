"""The last block computes only the token that is pooled, and all tokens where they are pooled."""

import paddle
import pytest

from ernie_vil2.models import build_dual_encoder
from ernie_vil2.tasks.contrastive_step import build_step
from tests.support.steps import (
    EVA_02,
    VIT,
    build_model_and_loss,
    compute_step,
    make_batch,
    make_config,
    measure_errors,
    use_default_dtype,
)

KEPT_TOKENS = VIT.replace("drop_path", "keep_tokens: 0.5, drop_path")


def record_calls(tower, should_compute_all=False):
    """Return a list that gets `only_first` of each call of the last block; it can compute all tokens nevertheless."""
    block, calls = list(tower.blocks)[-1], []
    forward = block.forward

    def compute(*inputs, only_first=False):
        calls.append(only_first)
        if should_compute_all:
            tokens = forward(*inputs)
            return tokens[:, :1] if only_first else tokens
        return forward(*inputs, only_first=only_first)

    block.__dict__["forward"] = compute
    return calls


@pytest.mark.parametrize("image", [VIT, EVA_02, KEPT_TOKENS], ids=["ViT", "EVA-02", "kept tokens"])
@pytest.mark.parametrize("training", [{}, {"recompute": True, "micro_batch": 3}], ids=["direct", "recomputed"])
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_pooled_token_has_gradients_of_all_tokens(image, training, fused):
    # With drop path, dropout and attention dropout: the pooled token must have the masks that it has among all tokens.
    # Paddle's fused attention draws its own.
    changes = [f"Training.{key}={value}" for key, value in training.items()]
    if fused:
        changes.append("Model.text.attention_dropout=0")
    results = []
    with use_default_dtype("float64"):
        for should_compute_all in (True, False):
            model, loss = build_model_and_loss(make_config(image, *changes))
            calls = []
            for tower in (model.image, model.text):
                tower.fuse_attention(fused)
                calls.append(record_calls(tower, should_compute_all))
            step = build_step(model, loss, make_config(image, *changes))
            results.append(compute_step(step, make_batch("float64")))
            assert all(all(calls_of_tower) and calls_of_tower for calls_of_tower in calls)
    assert max(measure_errors(results[1], results[0])) < 1e-10


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_pooled_patches_are_all_computed(pooling):
    image = VIT.removesuffix("}") + f", variant: {{pooling: {pooling}}}}}"
    model = build_dual_encoder(make_config(image, "Model.text.pooling=mean").Model, 50)
    calls = [record_calls(tower) for tower in (model.image, model.text)]
    embeddings, _ = model(make_batch()[0])
    assert calls == [[False], [False]] and embeddings["image_1"].shape == embeddings["text_1"].shape


@pytest.mark.parametrize("mask", ["none", "padding", "causal"])
def test_first_state_of_a_text_equals_that_among_all(mask):
    sizes = "width: 32, depth: 2, heads: 2, max_positions: 8"
    text = f"Model.text={{name: transformer, {sizes}, pooling: first, variant: {{mask: {mask}}}}}"
    with use_default_dtype("float64"):
        model = build_dual_encoder(make_config(VIT, text).Model, 50)
        model.eval()
        ids = make_batch()[0]["text_1"]
        features = model.text(ids)
        record_calls(model.text, should_compute_all=True)
        expected = model.text(ids)
    assert float(paddle.abs(features - expected).max()) < 1e-10
