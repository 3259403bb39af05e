"""LoRA: a merged model computes the same as the unmerged one, and only LoRA's factors are trained."""

from itertools import chain

import numpy as np
import paddle
import pytest

from ernie_vil2.config import ConfigError, LoraConfig, ModelConfig, TuningConfig
from ernie_vil2.models import build_dual_encoder, set_weights
from ernie_vil2.models.lora import LoraConv2D, add_lora, merge_lora
from ernie_vil2.tasks import decay_groups
from ernie_vil2.tasks.task import apply_tuning
from tests.support.towers import CNN, TEXT, VIT

CONVOLUTIONS = LoraConfig(rank=3, alpha=6.0, layers=["image.network.*", "text.network.encoder.*", "*_projection"])


def build_models(image, config):
    """Return a model, and one of the same weights with LoRA whose second factors are not zero any more."""
    paddle.seed(0)
    plain_model = build_dual_encoder(ModelConfig(image=image, text=TEXT, embed_dim=48), 100)
    lora_model = build_dual_encoder(ModelConfig(image=image, text=TEXT, embed_dim=48), 100)
    set_weights(lora_model, {name: value.numpy() for name, value in plain_model.state_dict().items()})
    add_lora(lora_model, config)
    rng = np.random.default_rng(1)
    for name, value in lora_model.named_parameters():
        if name.endswith("lora_b"):
            assert not value.numpy().any()
            value.set_value(rng.normal(size=value.shape).astype(np.float32) * 0.1)
    return plain_model, lora_model


def embed(model):
    """Return embeddings of three images and three texts."""
    rng = np.random.default_rng(0)
    model.eval()
    images = paddle.to_tensor(rng.normal(size=[3, 3, 32, 32]).astype(np.float32))
    ids = paddle.to_tensor(rng.integers(4, 100, [3, 7]))
    return np.concatenate([model.encode_image(images).numpy(), model.encode_text(ids).numpy()])


@pytest.mark.parametrize(
    ("image", "config"),
    [(VIT, LoraConfig()), (CNN, CONVOLUTIONS), (VIT, LoraConfig(rank=3, layers=["image.patch_embed.proj"]))],
    ids=["linear", "convolutions", "patches"],
)
def test_merged_weights_give_the_same_embeddings(image, config):
    plain_model, lora_model = build_models(image, config)
    arrays = {name: value.numpy() for name, value in lora_model.state_dict().items()}
    expected = embed(lora_model)
    assert np.abs(embed(plain_model) - expected).max() > 1e-3
    set_weights(plain_model, merge_lora(arrays))  # fails for any name that the plain model lacks
    assert np.allclose(embed(plain_model), expected, atol=2e-6)  # rounding of weights that are added up


def test_change_of_a_convolution_has_its_stride_and_padding():
    paddle.seed(0)
    options = {"stride": 2, "padding": 3, "dilation": 2}
    layer = paddle.nn.Conv2D(3, 5, 3, **options)
    layer.__class__ = LoraConv2D
    layer.add_factors(2)
    layer.register_buffer("lora_scale", paddle.full([1], 0.5))
    layer.lora_b.set_value(paddle.randn(layer.lora_b.shape))
    weight = merge_lora({f"l.{name}": value.numpy() for name, value in layer.state_dict().items()})["l.weight"]
    images = paddle.randn([2, 3, 11, 11])
    expected = paddle.nn.functional.conv2d(images, paddle.to_tensor(weight), layer.bias, **options)
    np.testing.assert_allclose(layer(images).numpy(), expected.numpy(), atol=1e-5)


def test_merged_weight_is_as_by_hand():
    linear = {"l.weight": np.ones([2, 2], np.float32), "l.lora_a": np.array([[1.0], [2.0]], np.float32),
              "l.lora_b": np.array([[3.0, 4.0]], np.float32), "l.lora_scale": np.array([0.5], np.float32)}  # fmt: skip
    # 1 + 0.5 * [[1 * 3, 1 * 4], [2 * 3, 2 * 4]]
    assert merge_lora(linear)["l.weight"].tolist() == [[2.5, 3], [4, 5]] and merge_lora(linear).keys() == {"l.weight"}


def test_new_lora_changes_nothing_and_is_trained_alone():
    paddle.seed(0)
    model = build_dual_encoder(ModelConfig(image=VIT, text=TEXT), 100)
    initial_embeddings = embed(model)
    message = add_lora(model, LoraConfig(rank=2, alpha=3.0))
    assert np.array_equal(embed(model), initial_embeddings)
    scales = {value.item() for name, value in model.state_dict().items() if name.endswith("lora_scale")}
    assert scales == {1.5}
    trained = {*chain.from_iterable(group.names for group in decay_groups(model))}
    assert all(name.endswith((".lora_a", ".lora_b")) for name in trained - {"log_logit_scale"})
    assert "image.blocks.2.attn.qkv.lora_a" in trained and "text.network.encoder.layers.1.linear2.lora_b" in trained
    # 3 blocks of qkv, proj, fc1, fc2 and 2 layers of q, k, v, out, linear1, linear2, all of width 64
    count = 2 * (3 * (64 + 192 + 128 + 2 * 320) + 2 * (4 * 128 + 2 * 320))
    assert message.startswith(f"LoRA of rank 2 in 24 layers: {count:,} weights")


@pytest.mark.parametrize(
    ("image", "config"), [(VIT, LoraConfig()), (CNN, CONVOLUTIONS)], ids=["linear", "convolutions"]
)
def test_scale_of_a_loaded_state_is_used(image, config):
    plain_model, model = build_models(image, config)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in state.items():
        if name.endswith("lora_scale"):
            value.set_value(3 * value)
    model.set_state_dict(state)
    set_weights(plain_model, merge_lora({name: value.numpy() for name, value in state.items()}))
    assert np.allclose(embed(model), embed(plain_model), atol=2e-6)


def test_only_the_second_factor_has_gradients_at_first():
    model = build_dual_encoder(ModelConfig(image=CNN, text=TEXT), 100)
    add_lora(model, CONVOLUTIONS.model_copy(update={"layers": CONVOLUTIONS.layers[:2]}))
    model.train()
    model.encode_image(paddle.randn([4, 3, 32, 32])).sum().backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    nonzero_names = {name for name, gradient in gradients.items() if gradient.abs().sum() > 0}
    assert nonzero_names
    # The gradient of the first factor is a product with the second one, which begins at zero.
    assert all(name.endswith("lora_b") for name in nonzero_names)


def test_frozen_tower_stays_frozen_with_lora():
    model = build_dual_encoder(ModelConfig(image=VIT, text=TEXT), 100)
    apply_tuning(model, TuningConfig(lora=LoraConfig(), freeze=["text.*"]))
    trained = chain.from_iterable(group.names for group in decay_groups(model))
    assert not any(name.startswith("text") for name in trained)


@pytest.mark.parametrize(
    ("image", "layers", "culprit"),
    [
        (CNN, ["image.blocks.*"], r"image.blocks.\* .* the image tower has image.network.stage0.rbr_dense.conv, "),
        (VIT, ["*.attn.kv"], "this model has image."),
    ],
)
def test_pattern_without_layers_is_refused_in_one_line(image, layers, culprit):
    model = build_dual_encoder(ModelConfig(image=image, text=TEXT), 100)
    with pytest.raises(ConfigError, match=f"^Tuning.lora.layers: .*{culprit}") as error:
        apply_tuning(model, TuningConfig(lora=LoraConfig(layers=layers)))
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_layer_of_a_derived_class_gets_no_lora():
    class ScaledLinear(paddle.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model, _ = build_models(VIT, LoraConfig(rank=1, layers=["text_projection"]))
    model.image.head = ScaledLinear(4, 4)
    x = paddle.randn([2, 4])
    expected = model.image.head(x).numpy()
    with pytest.raises(ValueError, match="image.head matches no"):
        add_lora(model, LoraConfig(rank=1, layers=["image.head"]))
    add_lora(model, LoraConfig(rank=1, layers=["image.*"]))
    np.testing.assert_array_equal(model.image.head(x).numpy(), expected)


def make_lora_arrays(weight=(2, 3), a=(2, 1), b=(1, 3), scale=(1,)):
    """Return the arrays of a layer "l" with LoRA, of these shapes."""
    shapes = {"weight": weight, "lora_a": a, "lora_b": b, "lora_scale": scale}
    return {f"l.{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", ["lora_a", "lora_b", "lora_scale", "weight"])
def test_incomplete_lora_is_refused(name):
    arrays = make_lora_arrays()
    del arrays[f"l.{name}"]
    with pytest.raises(ValueError, match=f"l.{name} is missing"):
        merge_lora(arrays)


@pytest.mark.parametrize(
    "shapes",
    [
        {"b": (1, 2)},
        {"b": (2, 3)},
        {"a": (2,)},
        {"a": (), "b": (1, 1, 1, 1)},
        {"a": (1, 2, 3, 3)},
        {"scale": (0,)},
        {"scale": (2,)},
        {"weight": (4, 2, 3, 3), "a": (1, 2, 3, 3), "b": (4, 2, 1, 1)},
        # Of 4 MB each; the product would take 7 TiB.
        {"a": (10**6, 1), "b": (1, 10**6)},
    ],
)
def test_lora_that_does_not_fit_its_weight_is_refused(shapes):
    with pytest.raises(ValueError, match="the LoRA of l does not fit"):
        merge_lora(make_lora_arrays(**shapes))


@pytest.mark.parametrize(
    ("image", "layers", "width", "weight"),
    [
        (VIT, ["image.blocks.*"], 64, "image.blocks.0.attn.qkv has a weight of 64 x 192"),
        (CNN, ["image.network.*"], 3, "image.network.stage0.rbr_1x1.conv has a weight of 8 x 3"),
        (CNN, ["text.network.encoder.*", "image_projection"], 48, "image_projection has a weight of 64 x 48"),
    ],
)
def test_rank_above_the_width_of_a_layer_is_refused(image, layers, width, weight):
    def set_rank(rank, resumed=False):
        model = build_dual_encoder(ModelConfig(image=image, text=TEXT, embed_dim=48), 100)
        return apply_tuning(model, TuningConfig(lora=LoraConfig(rank=rank, layers=layers)), resumed)

    assert f"LoRA of rank {width} in" in set_rank(width)[0]
    assert f"LoRA of rank {width + 1} in" in set_rank(width + 1, resumed=True)[0]  # a run that began with it goes on
    with pytest.raises(ConfigError, match=rf"{weight}.* above {width}: lower Tuning.lora.rank \({width + 1}\)"):
        set_rank(width + 1)


def test_first_factor_is_drawn_within_its_bound():
    _, model = build_models(VIT, LoraConfig())
    factors = [value.numpy() for name, value in model.named_parameters() if name.endswith("lora_a")]
    assert factors
    for factor in factors:
        num_inputs = factor.shape[0]
        bound = num_inputs**-0.5
        assert -bound <= factor.min() < -bound / 2 and bound / 2 < factor.max() <= bound
