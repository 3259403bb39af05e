"""Tokens that are left out in training: which ones, that a row's draw is its own, and where all tokens stay."""

from itertools import product

import numpy as np
import paddle
import pytest
from paddle import nn

from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.models.weights.initial import resolve_model_like
from ernie_vil2.tasks.dropout import CounterBasedDropout, NativeDropout
from tests.support.dropout_bits import choose_tokens
from tests.support.paths import ROOT
from tests.support.steps import make_keys_on_device
from tests.support.tower_formulas import compute_vit_features
from tests.support.towers import encode, make_image_config, randomize

SIZES = {"image_size": 12, "patch_size": 4, "width": 24, "depth": 2, "heads": 3}  # nine patches
GRID = list(product(range(3), range(3)))
# Variants of every pooling, with and without class token, and the places of tokens by which rotary positions rotate.
TOWERS = {
    "class token": ("ViT", {}, None),
    "attention": ("ViT", {"class_token": False, "pooling": "attention"}, None),
    "mean": ("ViT", {"pooling": "mean", "norm_after_mean": True}, None),
    "NaFlex": ("NaFlex", {"class_token": False, "pooling": "attention"}, None),
    "rotary": ("ViT", {"rotary": {"first_half": "rows"}}, [(0, 0), *GRID]),
    "rotary, mean": ("ViT", {"rotary": {"first_half": "rows"}, "class_token": False, "pooling": "mean"}, GRID),
    "rotary, SwiGLU": (
        "ViT",
        {"rotary": {"first_half": "rows"}, "mlp": "swiglu", "activation": "silu", "key_bias": False,
         "attention_norm": True},
        [(0, 0), *GRID],
    ),
}  # fmt: skip
LIKE_OFFICIAL = ROOT / "tests" / "fixtures" / "released" / "official_tiny"


def build_tower(name="ViT", **fields):
    paddle.seed(0)
    return randomize(make_image_config(name=name, **SIZES, **fields).build()).train()


# Nine patches: 4.5 and 0.9 are rounded down, and one patch is kept in any case.
@pytest.mark.parametrize(("share", "num_kept"), [(0.5, 4), (0.1, 1)])
@pytest.mark.parametrize("tower", TOWERS)
def test_tower_sees_the_drawn_patches_at_their_places(tower, share, num_kept):
    name, variant, places = TOWERS[tower]
    tower = build_tower(name, variant=variant, keep_tokens=share)
    has_class_token = variant.get("class_token", True)
    seed, step, positions = 3, 7, np.array([4, 0, 9])
    rng = np.random.default_rng(0)
    images = np.tile(rng.normal(size=(3, 3, 12, 12)).astype("float32"), [2, 1, 1, 1])  # both views are equal

    token_positions = []
    for view, position in product((0, 1), positions.tolist()):
        patches = choose_tokens(seed, step, view, position, num_patches=9, num_kept=num_kept)
        token_positions.append([0, *(1 + patch for patch in patches)] if has_class_token else patches)
    if num_kept > 1:
        assert token_positions[:3] != token_positions[3:], "both views keep the same tokens"
    if places is not None:
        places = np.array(places, float)
    options = {key: variant[key] for key in ("activation", "norm_after_mean") if key in variant}
    expected = compute_vit_features(
        tower.state_dict(), images, 4, 3, places=places, visible_tokens=token_positions, **options
    )

    model = nn.LayerDict({"image": tower, "text": nn.Identity()})
    dropout = CounterBasedDropout(model, seed)
    for fused in (False, True):
        tower.fuse_attention(fused)
        with dropout.use_keys(make_keys_on_device(dropout, step, ("image_1", "image_2"), positions)):
            features = tower(paddle.to_tensor(images))
        np.testing.assert_allclose(features.numpy(), expected, atol=2e-5)
    (features * paddle.randn(features.shape)).sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


def test_all_tokens_need_no_draw_and_are_bit_equal(monkeypatch):
    images = np.random.default_rng(0).normal(size=(3, 3, 12, 12)).astype("float32")
    halved, whole = build_tower(keep_tokens=0.5), build_tower(keep_tokens=1.0)
    assert halved.state_dict().keys() == whole.state_dict().keys()
    halved_features = halved(paddle.to_tensor(images)).numpy()
    monkeypatch.setattr(paddle, "rand", None)
    features = whole(paddle.to_tensor(images)).numpy()
    expected = compute_vit_features(whole.state_dict(), images, 4, 3)
    assert np.abs(halved_features - expected).max() > 1e-3
    np.testing.assert_allclose(features, expected, atol=2e-5)
    # Nothing is left out in evaluation, whatever the share.
    np.testing.assert_array_equal(encode(halved, images), encode(whole, images))
    halved.keep_tokens = 1.0
    np.testing.assert_array_equal(halved.train()(paddle.to_tensor(images)).numpy(), features)


def test_native_draws_are_those_of_the_step():
    tower, dropout = build_tower(keep_tokens=0.5), NativeDropout(0)
    images = paddle.to_tensor(np.random.default_rng(0).normal(size=(3, 3, 12, 12)).astype("float32"))

    def compute_features(step):
        with dropout.use_keys(dropout.make_keys(step, ["image_1"], np.arange(3))):
            return tower(images).numpy()

    first, repeated, next_step = (compute_features(step) for step in (2, 2, 3))
    np.testing.assert_array_equal(first, repeated)
    assert np.abs(first - next_step).max() > 1e-3


def test_fine_tuning_sets_the_share_of_another_model():
    overrides = [f"Model.like={LIKE_OFFICIAL}", "Model.image.keep_tokens=0.5"]
    image = resolve_model_like(load_config(None, overrides)).Model.image
    assert (image.name, image.build().keep_tokens) == ("ViT", 0.5)


CONVOLUTIONAL = {
    "RepVGG": "width: 8, depth: 1",
    "ModifiedResNet": "width: 8, layers: [1, 1, 1, 1], heads: 2, projection: 8",
    "ConvNeXt": "width: 8, layers: [1, 1, 1, 1]",
    "EfficientNetB0": "image_size: 32",
}


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_convolutional_towers_refuse_to_leave_out_tokens(name):
    image = f"Model.image={{name: {name}, {CONVOLUTIONAL[name]}, keep_tokens: SHARE}}"
    with pytest.raises(ConfigError, match=f"Model.image: '{name}' has no keep_tokens"):
        load_config(None, [image.replace("SHARE", "0.5")])
    assert load_config(None, [image.replace("SHARE", "1")]).Model.image.name == name
    for share in ("0", "1.5"):
        with pytest.raises(ConfigError, match="keep_tokens"):
            load_config(None, [f"Model.image.keep_tokens={share}"])
