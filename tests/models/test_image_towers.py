"""The native image towers, compared with NumPy ones that are written from the formulas."""

import math
from itertools import product

import numpy as np
import paddle
import pytest

from tests.support import tower_formulas as formulas
from tests.support.towers import encode, make_image_config

SMALL_SIZES = {"image_size": 12, "patch_size": 4, "width": 24, "depth": 2, "heads": 3}
SMALL_VIT = {"name": "ViT", **SMALL_SIZES}


def build(name="ViT", **fields):
    paddle.seed(0)
    fields = {**SMALL_VIT, **fields} if name == "ViT" else {"image_size": 64, "name": name, **fields}
    return make_image_config(**fields).build()


def randomise(tower, rng):
    """Set every parameter to random values, with a residual stream so small that LayerNorm's epsilon shows."""
    for name, parameter in tower.named_parameters():
        if name.endswith(("fc1.weight", "gate.weight", "q_proj.weight", "k_proj.weight")) or "qkv" in name:
            scale = 0.4  # activations and attention far from linear
        elif "ln_pre" in name or name.endswith(("proj.bias", "fc2.bias")):
            scale = 0.003
        else:
            scale = 0.02
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.set_value((centre + scale * rng.normal(size=parameter.shape)).astype("float32"))


VITS = {
    "ERNIE-ViL 2.0": {},
    "CLIP": {"epsilon": 1e-5},
    "LAION": {"epsilon": 1e-5, "activation": "gelu"},
    "SigLIP": {"patch_bias": True, "class_token": False, "input_norm": False, "pooling": "attention",
               "activation": "gelu_tanh", "hidden": 40},
    "NaFlex": {"patches": "linear", "patch_bias": True, "class_token": False, "input_norm": False,
               "pooling": "attention", "activation": "gelu_tanh"},
    "mean": {"class_token": False, "pooling": "mean"},
    "CLIPA": {"epsilon": 1e-5, "activation": "gelu", "input_norm": False, "pooling": "mean", "norm_after_mean": True},
    "ViT of transformers": {"patch_bias": True, "input_norm": False, "pooling": "tanh", "activation": "gelu",
                            "epsilon": 1e-12},
}  # fmt: skip


@pytest.mark.parametrize("name", VITS)
def test_vit_equals_the_formula(name):
    options, rng = VITS[name], np.random.default_rng(0)
    tower = build(variant=options)
    randomise(tower, rng)
    images = rng.normal(size=(3, 3, 12, 12)).astype("float32")
    settings = {key: options[key] for key in ("epsilon", "activation", "norm_after_mean") if key in options}
    expected = formulas.compute_vit_features(tower.state_dict(), images, patch=4, heads=3, **settings)
    assert tower.width == expected.shape[1]
    np.testing.assert_allclose(encode(tower, images), expected, atol=1e-5)
    features = tower(paddle.to_tensor(images))
    (features * paddle.randn(features.shape)).sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


# Settings, and the places of the tokens by which the two halves of a head are rotated.
GRID = list(product(range(3), range(3)))
ROTARY_VITS = {
    "PE-Core": (
        {"rotary": {"first_half": "columns", "start": 1}, "pooling": "attention", "pooling_heads": 2,
         "pooling_hidden": 24, "epsilon": 1e-5, "activation": "gelu"},
        [(0, 0), *((column + 1, row + 1) for row, column in GRID)],
    ),
    "EVA-02": (
        {"rotary": {"first_half": "rows", "grid": 16}, "mlp": "swiglu", "hidden": 40, "activation": "silu",
         "key_bias": False, "attention_norm": True, "patch_bias": True, "input_norm": False, "head": 10},
        [(0, 0), *((16 * row / 3, 16 * column / 3) for row, column in GRID)],
    ),
    "without a class token": (
        {"rotary": {"first_half": "rows", "start": 5}, "class_token": False, "pooling": "mean"}, GRID,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROTARY_VITS)
def test_vit_with_rotary_positions_equals_the_formula(name):
    options, places = ROTARY_VITS[name]
    rng = np.random.default_rng(0)
    tower = build(variant=options)
    randomise(tower, rng)
    assert "rope" not in tower.state_dict()
    images = rng.normal(size=(3, 3, 12, 12)).astype("float32")
    settings = {key: options[key] for key in ("epsilon", "activation", "pooling_heads") if key in options}
    weights, places = tower.state_dict(), np.array(places, float)
    expected = formulas.compute_vit_features(weights, images, patch=4, heads=3, places=places, **settings)
    unturned = formulas.compute_vit_features(weights, images, patch=4, heads=3, places=0 * places, **settings)
    assert tower.width == expected.shape[1] and np.abs(unturned - expected).max() > 1e-4
    np.testing.assert_allclose(encode(tower, images), expected, atol=1e-5)
    tower.fuse_attention()
    np.testing.assert_allclose(encode(tower, images), expected, atol=1e-5)
    features = tower(paddle.to_tensor(images))
    (features * paddle.randn(features.shape)).sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(("name", "variant", "culprit"), [
    ("NaFlex", None, "NaFlex has no class token"),
    ("NaFlex", {"pooling": "attention"}, "NaFlex has no class token"),
    ("NaFlex", {"class_token": False}, "pooling: class"),
    ("ViT", {"class_token": False, "pooling": "tanh"}, "pooling: tanh"),
])  # fmt: skip
def test_pooling_by_a_missing_class_token_is_refused(name, variant, culprit):
    # The configuration is refused when it is read, before a tower is built from it.
    with pytest.raises(ValueError, match=culprit):
        make_image_config(name=name, **SMALL_SIZES, variant=variant)


def test_tower_refuses_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"patch_size \(4\) .* image_size \(3\)"):
        build(image_size=3)
    with pytest.raises(ValueError, match=r"width \(24\) .* heads \(5\)"):
        build(heads=5)
    rotary = {"rotary": {"first_half": "rows"}}
    with pytest.raises(ValueError, match=r"width of a head \(6\) .* rotary positions \(4\)"):
        build(heads=4, variant=rotary)
    with pytest.raises(ValueError, match=r"width \(24\) .*pooling_heads \(5\)"):
        build(variant={"pooling": "attention", "pooling_heads": 5})
    with pytest.raises(ValueError, match="NaFlex has no rotary positions"):
        build("NaFlex", **SMALL_SIZES, variant=rotary)
    with pytest.raises(ValueError, match="16 x 12 pixels"):
        build()(paddle.zeros([1, 3, 16, 12]))
    with pytest.raises(ValueError, match=r"width \(4\) .* heads \(3\)"):
        build("ModifiedResNet", **CLIP_RESNET | {"heads": 3})
    with pytest.raises(ValueError, match="32 x 64 pixels"):
        build("ModifiedResNet", **CLIP_RESNET)(paddle.zeros([1, 3, 32, 64]))


@pytest.mark.parametrize(
    ("name", "width", "patch", "depth", "heads", "tokens"),
    [("ViT-B/16", 768, 16, 12, 12, 197), ("ViT-L/14", 1024, 14, 24, 16, 257)],
)
def test_released_vit_sizes(name, width, patch, depth, heads, tokens):
    with paddle.LazyGuard():
        tower = build(name, image_size=224)
    assert tower.width == width and len(tower.blocks) == depth and tower.blocks[0].attn.heads == heads
    assert tower.pos_embed.shape == [1, tokens, width]
    assert tower.patch_embed.proj.weight.shape == [width, 3, patch, patch]


CLIP_RESNET = {"image_size": 64, "layers": [1, 2, 1, 1], "width": 4, "heads": 2, "projection": 10}


@pytest.mark.parametrize("training", [False, True], ids=["running statistics", "statistics of the batch"])
def test_resnet_of_clip_equals_the_formula(training):
    rng = np.random.default_rng(0)
    tower = build("ModifiedResNet", **CLIP_RESNET)
    for name, value in tower.state_dict().items():
        is_positive = name.endswith("_variance") or (value.ndim == 1 and name.endswith("weight"))
        centre = 1.0 if is_positive else 0.0
        scale = 0.3 if value.ndim < 4 else math.prod(value.shape[1:]) ** -0.5
        value.set_value((centre + scale * rng.uniform(-1, 1, value.shape)).astype("float32"))
    tower.to(dtype="float64")  # norms of a batch of three divide by deviations as small as rounding in float32
    weights = {name: value.clone() for name, value in tower.state_dict().items()}
    images = rng.normal(size=(3, 3, 64, 64))
    if training:
        tower.train()
    else:
        tower.eval()
    features = tower(paddle.to_tensor(images))
    expected = formulas.compute_clip_resnet_features(weights, images, heads=2, of_the_batch=training)
    assert tower.width == expected.shape[1] == 10
    np.testing.assert_allclose(features.numpy(), expected, atol=1e-10)
    (features * paddle.randn(features.shape, "float64")).sum().backward()
    learned = {name: value for name, value in tower.named_parameters() if not value.stop_gradient}
    assert [name for name, value in learned.items() if value.grad is None] == []


def test_resnet_of_clip_has_its_published_size():
    with paddle.LazyGuard():
        tower = build("ModifiedResNet", image_size=224, layers=[3, 4, 6, 3], width=64, heads=32, projection=1024)
    assert len(tower.blocks) == 16 and tower.attnpool.pos_embed.shape == [1, 50, 2048]
    # The image tower of OpenAI's RN50, without the statistics of its norms.
    assert sum(value.size for value in tower.parameters() if not value.stop_gradient) == 38_316_896


@pytest.mark.parametrize("options", [{}, {"head": 10, "epsilon": 1e-5}], ids=["plain", "MLP"])
def test_convnext_equals_the_formula(options):
    rng = np.random.default_rng(0)
    tower = build("ConvNeXt", image_size=72, width=4, layers=[1, 1, 2, 1], **options)
    for name, value in tower.state_dict().items():
        is_norm_weight = name.endswith("norm.weight")
        value.set_value((is_norm_weight + 0.3 * rng.normal(size=value.shape)).astype("float32"))
    images = rng.normal(size=(2, 3, 72, 72)).astype("float32")  # 72 / 4 = 18, 9, 4 and 2 cells
    epsilon = options.get("epsilon", 1e-6)
    expected = formulas.compute_convnext_features(tower.state_dict(), images, epsilon)
    assert tower.width == expected.shape[1] == options.get("head", 32)
    np.testing.assert_allclose(encode(tower, images), expected, atol=1e-5)
    features = tower(paddle.to_tensor(images))
    (features * paddle.randn(features.shape)).sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


def test_published_size_of_convnext():
    """87,566,464 parameters: timm's convnext_base without its classifier."""
    with paddle.LazyGuard():
        tower = build("ConvNeXt", image_size=256, layers=[3, 3, 27, 3], width=128)
    assert len(tower.blocks) == 36 and tower.width == 1024
    assert sum(value.size for value in tower.parameters()) == 87_566_464
    with pytest.raises(ValueError, match=r"image_size \(31\)"):
        build("ConvNeXt", image_size=31, layers=[1, 1, 1, 1], width=4)
