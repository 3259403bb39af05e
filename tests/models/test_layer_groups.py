"""Layer groups, the learning rates that follow from them, and frozen layers."""

from itertools import chain

import numpy as np
import paddle
import pytest

from ernie_vil2.config import ConfigError, ModelConfig, TuningConfig, load_config
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.models.dual_encoder import compute_rate_factors, find_layer_groups
from ernie_vil2.parallel.norms import find_batch_norms, get_running_statistics
from ernie_vil2.tasks import decay_groups
from ernie_vil2.tasks.task import apply_tuning
from ernie_vil2.training.optimizer import build_optimizer
from tests.support.towers import CNN, TEXT, VIT

RESNET = {"name": "ModifiedResNet", "image_size": 32, "width": 8, "layers": [1, 2, 1, 1], "heads": 4, "projection": 20}


def build_model(image=VIT, embed_dim=None):
    return build_dual_encoder(ModelConfig(image=image, text=TEXT, embed_dim=embed_dim), 100)


@pytest.mark.parametrize(
    "image", [VIT, CNN, RESNET, {"name": "ResNet18", "image_size": 32}], ids=lambda image: image["name"]
)
def test_every_parameter_of_a_tower_is_in_one_group(image):
    model = build_model(image, embed_dim=48)
    grouped_names = []
    for groups in find_layer_groups(model).values():
        for names in groups.values():
            grouped_names += names
    assert sorted(grouped_names) == sorted(name for name, _ in model.named_parameters() if name != "log_logit_scale")


def test_groups_run_from_the_input_to_the_joint_space():
    image, text = find_layer_groups(build_model(embed_dim=48)).values()
    assert list(image) == ["image.embeddings", "image.blocks.0", "image.blocks.1", "image.blocks.2", "image.head"]
    assert list(text) == ["text.embeddings", "text.blocks.0", "text.blocks.1", "text.head"]
    assert {"image.cls_token", "image.pos_embed", "image.patch_embed.proj.weight"} <= set(image["image.embeddings"])
    assert image["image.head"] == ["image.norm.weight", "image.norm.bias", "image_projection.weight"]
    assert all(name.startswith("image.blocks.1.") for name in image["image.blocks.1"])
    assert "text.network.embeddings.word_embeddings.weight" in text["text.embeddings"]
    assert text["text.head"] == [
        "text.network.pooler.dense.weight", "text.network.pooler.dense.bias", "text_projection.weight"
    ]  # fmt: skip


def test_optimizer_moves_each_group_at_its_rate():
    # Each group has half the rate of the next one towards the head, the text tower a tenth. Adam's first step is the
    # rate, whatever the gradient is.
    model = build_model()
    tuning = TuningConfig(layer_decay=0.5, text_rate=0.1)
    config = load_config(None, ["Optimizer={learning_rate: 0.1, weight_decay: 0, clip_norm: null}"]).Optimizer
    optimizer = build_optimizer(model, decay_groups(model, compute_rate_factors(model, tuning)), config)
    initial_arrays = {name: value.numpy() for name, value in model.named_parameters()}
    for value in model.parameters():
        value.grad = paddle.full_like(value, 3.0)
    optimizer.step()
    steps = {name: float((initial_arrays[name] - value.numpy()).mean()) for name, value in model.named_parameters()}
    # The epsilon of Adam, and rounding of the parameters in float32, are far below a thousandth of a step.
    assert steps["log_logit_scale"] == pytest.approx(0.1, rel=1e-3)
    assert steps["image.norm.bias"] == pytest.approx(0.1, rel=1e-3)
    assert steps["image.pos_embed"] == pytest.approx(0.00625, rel=1e-3)  # 4 groups before the head: 0.1 / 16
    assert steps["image.blocks.1.mlp.fc1.bias"] == pytest.approx(0.025, rel=1e-3)
    assert steps["text.network.encoder.layers.0.linear1.bias"] == pytest.approx(0.0025, rel=1e-3)


@pytest.mark.parametrize(
    ("patterns", "frozen", "trained"),
    [
        (["text.*", "image.embeddings"], "text_projection.weight", "image_projection.weight"),
        (["image.blocks.[01]", "image.embeddings"], "image.cls_token", "image.blocks.2.attn.qkv.weight"),
        (["*.attn.qkv.*"], "image.blocks.2.attn.qkv.bias", "image.blocks.2.attn.proj.bias"),
        (["log_logit_scale"], "log_logit_scale", "image.cls_token"),
    ],
)
def test_patterns_freeze_groups_and_parameters(patterns, frozen, trained):
    model = build_model(embed_dim=48)
    (message,) = apply_tuning(model, TuningConfig(freeze=patterns))
    parameters = dict(model.named_parameters())
    assert parameters[frozen].stop_gradient and not parameters[trained].stop_gradient
    count = sum(value.size for value in parameters.values() if not value.stop_gradient)
    assert message.startswith(f"frozen: {', '.join(patterns)}; {count:,} of ")
    optimized_names = {*chain.from_iterable(group.names for group in decay_groups(model))}
    assert frozen not in optimized_names and trained in optimized_names


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        ({"freeze": ["vision.*"]}, r"vision.\* .* image.embeddings, image.blocks.0, .*text.embeddings"),
        ({"freeze": ["*"]}, "nothing of the towers"),
        ({"freeze_norms": True}, "no batch norms"),
    ],
)  # fmt: skip
def test_freezing_nothing_or_everything_is_refused(tuning, message):
    with pytest.raises(ConfigError, match=message):
        apply_tuning(build_model(), TuningConfig(**tuning))


@pytest.mark.parametrize(("frozen", "trained"), [("weight", "bias"), ("bias", "weight")])
def test_batch_norm_frozen_in_part_is_refused(frozen, trained):
    # Paddle would train neither, and say nothing.
    with pytest.raises(ConfigError, match=rf"bn\.{trained} .*bn\.{frozen} "):
        apply_tuning(build_model(CNN), TuningConfig(freeze=[f"image.*.{frozen}"]))


def test_frozen_batch_norms_compute_as_in_evaluation():
    model = build_model(CNN, embed_dim=16)
    rng = np.random.default_rng(0)
    for value in get_running_statistics(model):
        value.set_value(rng.uniform(0.5, 1.5, value.shape).astype(np.float32))
    initial_statistics = [value.numpy() for value in get_running_statistics(model)]
    images = paddle.to_tensor(rng.normal(size=[4, 3, 32, 32]).astype(np.float32))
    model.eval()
    expected = model.encode_image(images).numpy()
    norms = find_batch_norms(model)
    (message,) = apply_tuning(model, TuningConfig(freeze_norms=True))
    assert f"{len(norms)} batch norms" in message
    model.train()
    embeddings = model.encode_image(images)
    (embeddings * paddle.to_tensor(rng.normal(size=embeddings.shape).astype(np.float32))).sum().backward()
    assert np.allclose(embeddings.numpy(), expected, atol=1e-6)
    for initial, statistic in zip(initial_statistics, get_running_statistics(model), strict=True):
        assert np.array_equal(initial, statistic.numpy())
    assert all(norm.weight.grad is None for norm in norms.values())
    assert all(np.isfinite(value.grad.numpy()).all() for value in model.image.parameters() if not value.stop_gradient)
