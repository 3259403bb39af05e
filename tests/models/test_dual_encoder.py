"""The dual encoder: joint space, views, temperature, and the parameters with weight decay."""

import numpy as np
import paddle
import pytest

from ernie_vil2.config import HeadConfig, ModelConfig
from ernie_vil2.models import build_dual_encoder, has_weight_decay
from ernie_vil2.models.dual_encoder import count_min_parameters
from ernie_vil2.models.heads import build_classifier
from tests.support.towers import make_image_config, make_text_config


def build(width=24, embed_dim=None, text="ernie", dropout=0.1):
    paddle.seed(0)
    return build_dual_encoder(
        ModelConfig(
            image=make_image_config(name="ViT", image_size=12, patch_size=4, width=width, depth=2, heads=2),
            text=make_text_config(name=text, width=24, depth=2, heads=2, max_positions=8, dropout=dropout),
            embed_dim=embed_dim,
        ),
        vocab_size=11,
        temperature=0.05,
    )


VIT = {"name": "ViT", "image_size": 12, "patch_size": 4, "width": 32, "depth": 3, "heads": 2}
TRANSFORMER = {"name": "transformer", "width": 32, "depth": 3, "heads": 2, "max_positions": 200, "pooling": "first"}
REPVGG = {"name": "RepVGG", "image_size": 32, "width": 16, "depth": 3}
RESNET = {"name": "ModifiedResNet", "image_size": 32, "width": 8, "layers": [2, 1, 1, 1], "heads": 4, "projection": 40}
CONVNEXT = {"name": "ConvNeXt", "image_size": 32, "width": 8, "layers": [1, 2, 2, 1]}


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (VIT, TRANSFORMER),
        (VIT | {"variant": {"hidden": 16}}, TRANSFORMER | {"variant": {"hidden": 16}}),
        (VIT | {"variant": {"mlp": "swiglu", "hidden": 90}}, TRANSFORMER | {"variant": {"positions": "sinusoids"}}),
        (CONVNEXT, TRANSFORMER | {"name": "bert", "pooling": "cls"}),
        (REPVGG, TRANSFORMER),
        (REPVGG | {"depth": 1}, TRANSFORMER),
        (RESNET, TRANSFORMER),
        (RESNET | {"layers": [1, 1, 1, 3]}, TRANSFORMER),
    ],
)
def test_count_before_building_is_a_lower_bound(image, text):
    config = ModelConfig(image=make_image_config(**image), text=make_text_config(**text), embed_dim=24)
    count = sum(value.size for value in build_dual_encoder(config, 11).parameters())
    assert count / 2 < count_min_parameters(config, 11) <= count


def make_views(rng):
    ids = paddle.to_tensor([[1, 7, 5, 2], [1, 4, 2, 0]])
    images = paddle.to_tensor(rng.normal(size=(2, 2, 3, 12, 12)).astype("float32"))
    return {"image_1": images[0], "image_2": images[1], "text_1": ids, "text_2": ids}


@pytest.mark.parametrize(
    ("width", "embed_dim", "expected_dim", "projections"),
    [(24, None, 24, []), (16, None, 24, ["image"]), (24, 10, 10, ["image", "text"]), (16, 16, 16, ["text"])],
)
def test_towers_are_projected_only_where_widths_differ(width, embed_dim, expected_dim, projections):
    model = build(width, embed_dim)
    views = make_views(np.random.default_rng(0))
    for embeddings in (model.encode_image(views["image_1"]), model.encode_text(views["text_1"])):
        assert embeddings.shape == [2, expected_dim]
        assert embeddings.dtype == paddle.float32
        np.testing.assert_allclose(np.linalg.norm(embeddings.numpy(), axis=1), 1, atol=1e-6)
    projection_names = [name for name, _ in model.named_parameters() if "projection" in name]
    assert projection_names == [f"{kind}_projection.weight" for kind in projections]


@pytest.mark.parametrize("projections", ["by_width", "both", "image", "text"])
def test_classifier_has_the_projections_of_the_dual_encoder(projections):
    image, text = make_image_config(**VIT), make_text_config(**TRANSFORMER)
    config = ModelConfig(image=image, text=text, embed_dim=32, projections=projections)
    names = {name for name in build_classifier(config, HeadConfig(), 11, 1, 3).state_dict() if name[:5] != "head."}
    assert names == build_dual_encoder(config, 11).state_dict().keys()


def test_half_precision_features_are_normalised_in_float32():
    model = build(embed_dim=10)
    images = make_views(np.random.default_rng(0))["image_1"]
    model.image_projection.register_forward_post_hook(lambda layer, inputs, output: output.astype("bfloat16"))
    embeddings = model.encode_image(images)
    assert embeddings.dtype == paddle.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings.numpy(), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("names", [["image_1", "image_2", "text_1", "text_2"], ["text_2", "image_1"]])
def test_views_are_encoded_together_as_alone(names):
    model = build(16)
    model.eval()
    views = make_views(np.random.default_rng(0))
    passes = []  # each tower runs once, however many views it has
    for kind in ("image", "text"):
        getattr(model, kind).register_forward_pre_hook(lambda layer, inputs, kind=kind: passes.append(kind))
    embeddings, scalars = model({name: views[name] for name in names})
    assert passes == ["image", "text"]
    assert set(embeddings) == set(names)
    for name in names:
        encode = model.encode_image if name.startswith("image") else model.encode_text
        np.testing.assert_allclose(embeddings[name].numpy(), encode(views[name]).numpy(), atol=1e-6)
    np.testing.assert_allclose(scalars["logit_scale"].numpy(), [20], rtol=1e-6)  # 1 / 0.05


def test_temperature_is_clamped_in_place_and_still_learns():
    model = build()
    parameter = model.log_logit_scale
    for scale, clamped_scale in ((150.0, 100.0), (0.5, 1.0), (42.0, 42.0)):
        parameter.set_value(np.log([scale]).astype("float32"))
        model.clamp_temperature(100.0)
        assert model.log_logit_scale is parameter
        np.testing.assert_allclose(model.logit_scale.item(), clamped_scale, rtol=1e-6)
    optimizer = paddle.optimizer.SGD(0.1, parameters=[parameter])
    model.clamp_temperature(10.0)
    model.logit_scale.sum().backward()
    optimizer.step()
    # The derivative of exp(log scale) is the scale, 10, and the rate 0.1.
    np.testing.assert_allclose(parameter.numpy(), [np.log(10) - 0.1 * 10], rtol=1e-5)


def test_only_matrices_and_word_embeddings_decay():
    model = build(16)
    names = {name for name, parameter in model.named_parameters() if has_weight_decay(name, parameter)}
    expected = {"image.patch_embed.proj.weight", "image_projection.weight"}
    expected |= {"text.network.pooler.dense.weight", "text.network.embeddings.word_embeddings.weight"}
    for block in ("image.blocks.0", "image.blocks.1"):
        expected |= {f"{block}.{layer}.weight" for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    for block in ("text.network.encoder.layers.0", "text.network.encoder.layers.1"):
        expected |= {f"{block}.{layer}.weight" for layer in ("linear1", "linear2")}
        expected |= {f"{block}.self_attn.{matrix}_proj.weight" for matrix in ("q", "k", "v", "out")}
    assert names == expected
