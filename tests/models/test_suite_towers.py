"""Towers of PaddleClas and PaddleNLP ("the suite"), and the native towers, which are equal to them."""

import numpy as np
import paddle
import pytest

from ernie_vil2.tasks.dropout import CounterBasedDropout
from tests.support.towers import make_image_config, make_text_config

pytest.importorskip("paddleclas", reason="PaddleClas is not installed")
pytest.importorskip("paddlenlp", reason="PaddleNLP is not installed")
from paddleclas.ppcls.arch.backbone.model_zoo import efficientnet, foundation_vit

from tests.support.towers import encode

pytestmark = pytest.mark.thorough

SMALL_VIT = {"image_size": 12, "patch_size": 4, "width": 24, "depth": 2, "heads": 3}
SMALL_TEXT = {"width": 24, "depth": 2, "heads": 3, "max_positions": 8, "dropout": 0.3, "attention_dropout": 0.3}
TWICE = {
    "ViT": {**SMALL_VIT, "drop_path": 0.4},
    "RepVGG": {"image_size": 32, "width": 8, "depth": 2},
    "ernie": SMALL_TEXT,
    "ernie, mean": {**SMALL_TEXT, "pooling": "mean"},
    "bert": SMALL_TEXT,
    "bert, mean": {**SMALL_TEXT, "pooling": "mean"},
}
IDS = np.array([[1, 7, 5, 9, 2], [1, 4, 2, 0, 0], [1, 2, 0, 0, 0]])


def build(name="ViT", **fields):
    paddle.seed(0)
    fields = {**SMALL_VIT, **fields} if name == "ViT" else {"image_size": 64, **fields}
    return make_image_config(**fields, name=name if ":" in name else f"paddleclas:{name}").build()


def both(name):
    """A tower as this package and as the suite builds it from one seed, an input, and what is drawn next."""
    family, towers, drawn = name.partition(",")[0], [], []
    for prefix in ("", "paddleclas:" if family in ("ViT", "RepVGG") else "paddlenlp:"):
        fields = {**TWICE[name], "name": prefix + family}
        paddle.seed(3)
        if "image_size" in fields:
            towers.append(make_image_config(**fields).build())
        else:
            towers.append(make_text_config(**fields).build(vocab_size=11))
        drawn.append(paddle.rand([4]).numpy())
    size = TWICE[name].get("image_size")
    return towers, paddle.randn([3, 3, size, size]) if size else paddle.to_tensor(IDS), drawn


def assert_near(found, expected, of_largest=1e-6):
    np.testing.assert_allclose(found, expected, rtol=0, atol=of_largest * np.abs(expected).max())


@pytest.mark.parametrize("name", TWICE)
def test_one_seed_gives_both_the_same_parameters(name):
    towers, _, drawn = both(name)
    states = [tower.state_dict() for tower in towers]
    assert list(states[0]) == list(states[1])
    for key, value in states[0].items():
        np.testing.assert_allclose(value.numpy(), states[1][key].numpy(), rtol=1e-6, atol=0, err_msg=key)
    np.testing.assert_array_equal(*drawn)
    assert len(towers[0].blocks) == len(towers[1].blocks)


@pytest.mark.parametrize("name", TWICE)
def test_features_and_gradients_are_equal(name):
    """To 1e-6 of a tensor's largest; the bias of attention's keys, whose gradient is zero but for rounding, of all."""
    (native, theirs), batch, _ = both(name)
    theirs.set_state_dict(native.state_dict())
    features = []
    for tower in (native, theirs):
        tower.eval()
        features.append(tower(batch))
    assert_near(features[0].numpy(), features[1].numpy())
    directions = paddle.randn(features[0].shape)
    for each in features:
        (each * directions).sum().backward()
    learned = [key for key, value in native.named_parameters() if not value.stop_gradient]
    gradients = [dict(tower.named_parameters()) for tower in (native, theirs)]
    found, expected = ({key: named[key].grad.numpy() for key in learned} for named in gradients)
    largest = max(np.abs(value).max() for value in expected.values())
    for key in learned:
        if key.endswith("k_proj.bias"):
            assert np.abs(found[key]).max() < 1e-6 * largest
        else:
            assert_near(found[key], expected[key])


@pytest.mark.parametrize("name", TWICE)
def test_dropout_draws_in_the_same_order(name):
    (native, theirs), batch, _ = both(name)
    theirs.set_state_dict(native.state_dict())
    kind = "image" if "image_size" in TWICE[name] else "text"
    features = []
    for tower in (native, theirs):
        other = paddle.nn.Identity()
        model = paddle.nn.LayerDict(
            {"image": tower, "text": other} if kind == "image" else {"image": other, "text": tower}
        )
        dropout = CounterBasedDropout(model, seed=5)
        keys = dropout.make_keys(2, [f"{kind}_1"], np.arange(3))
        tower.train()
        with dropout.use_keys({view: paddle.to_tensor(key) for view, key in keys.items()}):
            features.append(tower(batch).numpy())
    assert_near(*features, of_largest=2e-6)
    if name != "RepVGG":
        assert np.abs(features[0] - encode(native, batch)).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "size", "width"),
    [
        ("FasterNet_T0", 64, 1280),
        ("ResNet18", 64, 512),
        ("DeiT_tiny_patch16_224", 64, 192),
        pytest.param("PPLCNet_x0_25", 64, 1280, marks=pytest.mark.slow),
        pytest.param("EfficientNetB0", 64, 1280, marks=pytest.mark.slow),
        pytest.param("SwinTransformer_tiny_patch4_window7_224", 56, 768, marks=pytest.mark.slow),
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


@pytest.mark.parametrize("name", ["ViT", pytest.param("MOCOV3_vit_small", marks=pytest.mark.slow)])
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
    first, second = build("EfficientNetB0"), build("paddleclas:EfficientNetB0")
    names = [parameter.name for parameter in first.parameters() + second.parameters()]
    assert len(set(names)) == len(names)
    images = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype("float32")
    np.testing.assert_array_equal(encode(first, images), encode(second, images))


@pytest.mark.parametrize(
    ("name", "culprit"),
    [
        ("EfficientNetL3", "EfficientNetL2"),
        ("get_apis", "'get_apis'"),
        ("DeiT_tiny_distilled_patch16_224", "found 2"),
        ("AdaFace_IR_18", "'AdaFace_IR_18'"),
    ],
)
def test_unusable_names(name, culprit):
    with pytest.raises(ValueError, match=culprit):
        build(name)
