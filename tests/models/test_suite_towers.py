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
FIELDS_BY_TOWER = {
    "ViT": {**SMALL_VIT, "drop_path": 0.4},
    "ViT, kept tokens": {**SMALL_VIT, "drop_path": 0.4, "keep_tokens": 0.5},
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


def build_both(name):
    """Return the native tower and the suite's tower from the same seed, and a random number drawn after each."""
    family, towers, next_draws = name.partition(",")[0], [], []
    suite = "paddleclas:" if family in ("ViT", "RepVGG") else "paddlenlp:"
    for prefix in ("", suite):
        fields = {**FIELDS_BY_TOWER[name], "name": prefix + family}
        paddle.seed(3)
        if "image_size" in fields:
            towers.append(make_image_config(**fields).build())
        else:
            towers.append(make_text_config(**fields).build(vocab_size=11))
        next_draws.append(paddle.rand([4]).numpy())
    return towers, next_draws


def make_inputs(name):
    size = FIELDS_BY_TOWER[name].get("image_size")
    return paddle.randn([3, 3, size, size]) if size else paddle.to_tensor(IDS)


def assert_near(actual, expected, of_largest=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=of_largest * np.abs(expected).max())


@pytest.mark.parametrize("name", FIELDS_BY_TOWER)
def test_seed_gives_both_towers_the_same_parameters(name):
    (native, suite), next_draws = build_both(name)
    assert list(native.state_dict()) == list(suite.state_dict())
    for key, value in native.state_dict().items():
        np.testing.assert_allclose(value.numpy(), suite.state_dict()[key].numpy(), rtol=1e-6, atol=0, err_msg=key)
    np.testing.assert_array_equal(*next_draws)
    assert len(native.blocks) == len(suite.blocks)


def list_gradients(tower):
    return {key: value.grad.numpy() for key, value in tower.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("name", FIELDS_BY_TOWER)
def test_features_and_gradients_equal_those_of_the_suite(name):
    (native, suite), _ = build_both(name)
    batch = make_inputs(name)
    suite.set_state_dict(native.state_dict())
    features = []
    for tower in (native, suite):
        tower.eval()
        features.append(tower(batch))
    assert_near(features[0].numpy(), features[1].numpy())

    directions = paddle.randn(features[0].shape)
    for output in features:
        (output * directions).sum().backward()
    actual, expected = list_gradients(native), list_gradients(suite)
    learned_keys = {key for key, value in native.named_parameters() if not value.stop_gradient}
    assert learned_keys <= actual.keys() and learned_keys <= expected.keys()
    largest = max(np.abs(expected[key]).max() for key in learned_keys)
    for key in learned_keys:
        if key.endswith("k_proj.bias"):  # a bias of the keys changes no attention: its gradient is only rounding
            assert np.abs(actual[key]).max() < 1e-6 * largest
        else:
            assert_near(actual[key], expected[key])


@pytest.mark.parametrize("name", FIELDS_BY_TOWER)
def test_dropout_draws_in_the_order_of_the_suite(name):
    (native, suite), _ = build_both(name)
    batch = make_inputs(name)
    suite.set_state_dict(native.state_dict())
    kind = "image" if "image_size" in FIELDS_BY_TOWER[name] else "text"
    features = []
    for tower in (native, suite):
        model = paddle.nn.LayerDict({"image": paddle.nn.Identity(), "text": paddle.nn.Identity()} | {kind: tower})
        dropout = CounterBasedDropout(model, seed=5)
        keys = dropout.make_keys(2, [f"{kind}_1"], np.arange(3))
        tower.train()
        with dropout.use_keys({view: paddle.to_tensor(key) for view, key in keys.items()}):
            features.append(tower(batch).numpy())
    assert_near(*features, of_largest=2e-6)
    if name != "RepVGG":  # it has no dropout
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
def test_family_of_paddleclas_has_features_and_gradients(name, size, width):
    tower = build(name, image_size=size)
    features = tower(paddle.randn([2, 3, size, size]))
    assert tower.width == width
    assert features.shape == [2, width]
    (features * paddle.randn(features.shape)).sum().backward()
    unused = [name for name, value in tower.named_parameters() if not value.stop_gradient and value.grad is None]
    assert not unused


def test_efficientnet_l2_has_its_published_sizes(monkeypatch):
    repeats = []
    round_repeats = efficientnet.round_repeats

    def record_and_return_one(count, sizes):
        repeats.append(round_repeats(count, sizes))
        return 1

    monkeypatch.setattr(efficientnet, "round_repeats", record_and_return_one)  # all 88 blocks would take 2 GB
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
def test_building_related_models_changes_no_features(name):
    # PaddleClas's vision transformers keep settings of the last model that was built in globals.
    size = 12 if name == "ViT" else 224
    images = np.random.default_rng(0).normal(size=(1, 3, size, size)).astype("float32")
    tower = build(name, image_size=size)
    expected = encode(tower, images)
    for related_name in ("CLIP_vit_base_patch16_224", "BEiTv2_vit_base_patch16_224"):
        foundation_vit.VisionTransformer(related_name, img_size=12, patch_size=4, embed_dim=24, depth=1, num_heads=3)
        np.testing.assert_array_equal(encode(tower, images), expected)
        np.testing.assert_array_equal(encode(build(name, image_size=size), images), expected)


def test_backbone_with_fixed_parameter_names_is_built_twice():
    first, second = build("EfficientNetB0"), build("paddleclas:EfficientNetB0")
    names = [parameter.name for parameter in first.parameters() + second.parameters()]
    assert len(set(names)) == len(names)
    images = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype("float32")
    np.testing.assert_array_equal(encode(first, images), encode(second, images))


@pytest.mark.parametrize(("name", "size"), [("AlexNet", 100), ("pcpvt_small", 100)])
def test_image_size_that_a_backbone_does_not_take_is_named(name, size):
    with pytest.raises(ValueError, match=f"{name}' takes no images of {size} pixels .*image_size") as error:
        build(name, image_size=size)(paddle.randn([1, 3, size, size]))
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("name", "culprit"),
    [
        ("EfficientNetL3", "EfficientNetL2"),
        ("get_apis", "'get_apis'"),
        ("DeiT_tiny_distilled_patch16_224", "found 2"),
        ("AdaFace_IR_18", "'AdaFace_IR_18'"),
    ],
)
def test_unusable_name_is_refused(name, culprit):
    with pytest.raises(ValueError, match=culprit):
        build(name)
