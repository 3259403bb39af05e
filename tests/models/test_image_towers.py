"""Image towers against a NumPy ViT written from the formula, and EfficientNet-L2's sizes worked out by hand."""

import subprocess
import sys

import numpy as np
import paddle
import pytest
from paddleclas.ppcls.arch.backbone.model_zoo import efficientnet, foundation_vit

from ernie_vil2.config import ImageTowerConfig
from ernie_vil2.models import build_image_tower

SMALL_VIT = {"name": "ViT", "image_size": 12, "patch_size": 4, "width": 24, "depth": 2, "heads": 3}


def build(name="ViT", **fields):
    paddle.seed(0)
    fields = {**SMALL_VIT, **fields} if name == "ViT" else {"image_size": 64, "name": name, **fields}
    return build_image_tower(ImageTowerConfig(**fields))


def encode(tower, images):
    tower.eval()
    with paddle.no_grad():
        return tower(paddle.to_tensor(images)).numpy()


def randomise(tower, rng):
    """Every parameter random; the residual stream small, so that LayerNorm's epsilon shows."""
    for name, parameter in tower.named_parameters():
        scale = 0.003 if "ln_pre" in name or name.endswith(("proj.bias", "fc2.bias")) else 0.02
        scale = 0.4 if name.endswith("fc1.weight") or "qkv" in name else scale
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.set_value((centre + scale * rng.normal(size=parameter.shape)).astype("float32"))


def layer_norm(x, weights, name):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def vit_reference(weights, images, patch, heads):
    """Dosovitskiy et al. 2021, equations 1 to 4, with CLIP's LayerNorm before the blocks and QuickGELU."""
    weights = {name: value.numpy().astype("float64") for name, value in weights.items()}
    count, _, height, width = images.shape
    kernel = weights["patch_embed.proj.weight"]  # [width, 3, patch, patch]
    patches = [
        np.einsum("bchw,dchw->bd", images[:, :, y : y + patch, x : x + patch], kernel)
        for y in range(0, height, patch)
        for x in range(0, width, patch)
    ]
    classes = np.broadcast_to(weights["cls_token"][0, 0], patches[0].shape)
    z = np.stack([classes, *patches], axis=1) + weights["pos_embed"]
    z = layer_norm(z, weights, "ln_pre")
    tokens, dim = z.shape[1:]
    for i in range(1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))):

        def linear(x, name, block=f"blocks.{i}"):
            return x @ weights[f"{block}.{name}.weight"] + weights[f"{block}.{name}.bias"]

        qkv = linear(layer_norm(z, weights, f"blocks.{i}.norm1"), "attn.qkv")
        q, k, v = qkv.reshape(count, tokens, 3, heads, dim // heads).transpose(2, 0, 3, 1, 4)
        scores = np.exp(q @ k.transpose(0, 1, 3, 2) / np.sqrt(dim // heads))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(count, tokens, dim)
        z = z + linear(mixed, "attn.proj")
        hidden = linear(layer_norm(z, weights, f"blocks.{i}.norm2"), "mlp.fc1")
        z = z + linear(hidden / (1 + np.exp(-1.702 * hidden)), "mlp.fc2")
    return layer_norm(z[:, 0], weights, "norm")


def test_vit_equals_the_formula():
    rng = np.random.default_rng(0)
    tower = build()
    randomise(tower, rng)
    images = rng.normal(size=(3, 3, 12, 12)).astype("float32")
    expected = vit_reference(tower.state_dict(), images, patch=4, heads=3)
    np.testing.assert_allclose(encode(tower, images), expected, atol=1e-5)


def test_vit_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"image_size \(13\) must be divisible by patch_size \(4\)"):
        build(image_size=13)
    with pytest.raises(ValueError, match=r"width \(24\) must be divisible by heads \(5\)"):
        build(heads=5)
    with pytest.raises(ValueError, match="16 x 12 pixels; this tower takes 12 x 12"):
        build()(paddle.zeros([1, 3, 16, 12]))


def test_released_vit_sizes(monkeypatch):
    built = {}
    parts = foundation_vit.VisionTransformer

    def shallow(*names, **sizes):
        built.update(sizes)
        return parts(*names, **{**sizes, "depth": 1})

    monkeypatch.setattr(foundation_vit, "VisionTransformer", shallow)
    for name, width, patch, depth, heads, tokens in (
        ("ViT-B/16", 768, 16, 12, 12, 197),
        ("ViT-L/14", 1024, 14, 24, 16, 257),
    ):
        tower = build(name, image_size=224)
        assert (built["depth"], built["num_heads"]) == (depth, heads)
        assert tower.width == width
        assert tower.pos_embed.shape == [1, tokens, width]
        assert tower.patch_embed.proj.weight.shape == [width, 3, patch, patch]


@pytest.mark.parametrize(
    ("name", "size", "width"),
    [
        ("ViT", 12, 24),
        ("FasterNet_T0", 64, 1280),
        ("ResNet18", 64, 512),
        ("PPLCNet_x0_25", 64, 1280),
        ("PPLCNetV2_small", 64, 1280),
        ("EfficientNetB0", 64, 1280),
        ("MobileNetV2_x0_25", 64, 1280),
        ("DeiT_tiny_patch16_224", 64, 192),
        ("SwinTransformer_tiny_patch4_window7_224", 56, 768),
    ],
)
def test_features_and_gradients_of_each_family(name, size, width):
    tower = build(name, image_size=size)
    features = tower(paddle.randn([2, 3, size, size]))
    assert tower.width == width
    assert features.shape == [2, width]
    (features * paddle.randn(features.shape)).sum().backward()
    unused = [name for name, value in tower.named_parameters() if not value.stop_gradient and value.grad is None]
    assert not unused


def test_features_are_what_the_classifier_saw():
    from paddleclas.ppcls.arch.backbone import ResNet18

    paddle.seed(0)
    classifying = ResNet18(class_num=10)
    tower = build("ResNet18")
    tower.network.set_state_dict({k: v for k, v in classifying.state_dict().items() if not k.startswith("fc.")})
    images = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype("float32")
    logits = encode(tower, images) @ classifying.fc.weight.numpy() + classifying.fc.bias.numpy()
    np.testing.assert_allclose(logits, encode(classifying, images), atol=1e-4)


def test_repvgg_of_any_size():
    """Stem and first stage have `width` channels; a block is a 3x3 and a 1x1 convolution side by side."""
    tower = build("RepVGG", image_size=32, width=8, depth=2)
    kernels = [list(weight.shape) for name, weight in tower.named_parameters() if weight.ndim == 4]
    channels = [(3, 8), (8, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64)]
    expected = [[after, before, size, size] for before, after in channels for size in (3, 1)]
    assert sorted(kernels) == sorted(expected)
    assert tower.width == 64 and encode(tower, np.zeros((2, 3, 32, 32), "float32")).shape == (2, 64)


def test_efficientnet_l2_sizes(monkeypatch):
    repeats = []
    round_repeats = efficientnet.round_repeats

    def single(count, sizes):
        repeats.append(round_repeats(count, sizes))
        return 1

    monkeypatch.setattr(efficientnet, "round_repeats", single)  # all 88 blocks would take 2 GB
    tower = build("EfficientNetL2")
    # B0's 1, 2, 2, 3, 3, 4, 1 times 5.3, rounded up
    assert repeats[-7:] == [6, 11, 11, 16, 16, 22, 6]
    # B0's 32; 16, 24, 40, 80, 112, 192, 320; 1280 times 4.3 (137.6; 68.8, 103.2, ...), to the nearest multiple of 8
    assert tower.network._ef._conv_stem._conv._conv._conv.weight.shape[0] == 136
    assert [block.final_oup for block in tower.network._ef.conv_seq] == [72, 104, 176, 344, 480, 824, 1376]
    assert tower.width == 5504
    assert tower.network._drop.p == 0.5
    assert tower(paddle.randn([1, 3, 64, 64])).shape == [1, 5504]


@pytest.mark.parametrize("name", ["ViT", "MOCOV3_vit_small"])
def test_other_models_of_the_family_do_not_disturb(name):
    size = 12 if name == "ViT" else 224
    images = np.random.default_rng(0).normal(size=(1, 3, size, size)).astype("float32")
    tower = build(name, image_size=size)
    alone = encode(tower, images)
    for other in ("CLIP_vit_base_patch16_224", "BEiTv2_vit_base_patch16_224"):
        foundation_vit.VisionTransformer(other, img_size=12, patch_size=4, embed_dim=24, depth=1, num_heads=3)
        np.testing.assert_array_equal(encode(tower, images), alone)
        np.testing.assert_array_equal(encode(build(name, image_size=size), images), alone)


def test_two_of_a_backbone_with_fixed_parameter_names():
    first, second = build("EfficientNetB0"), build("EfficientNetB0")
    names = [parameter.name for parameter in first.parameters() + second.parameters()]
    assert len(set(names)) == len(names)
    images = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype("float32")
    np.testing.assert_array_equal(encode(first, images), encode(second, images))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ResNet5", "did you mean ResNet50"),
        ("EfficientNetL3", "did you mean EfficientNetL2"),
        ("get_apis", "there is no image tower 'get_apis'"),
        ("SqueezeNet1_0", "one linear classifier to remove, found 0"),
        ("DeiT_tiny_distilled_patch16_224", "one linear classifier to remove, found 2"),
        ("AdaFace_IR_18", "'AdaFace_IR_18' cannot be built without its classifier"),
    ],
)
def test_unusable_names(name, message):
    with pytest.raises(ValueError, match=message):
        build(name)


def test_paddleclas_is_silent():
    script = """
from ernie_vil2.config import ImageTowerConfig
from ernie_vil2.models import build_image_tower
for name in ("PPLCNet_x0_25", "ResNet18", "ViT-B/16"):
    build_image_tower(ImageTowerConfig(name=name))
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")
