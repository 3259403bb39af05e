"""Training that starts from a model of another library: `-o Model.like=weights -o Model.weights=FOLDER`."""

import re

import numpy as np
import paddle
import pytest

from ernie_vil2 import load_model
from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.losses import build_loss
from ernie_vil2.models.dual_encoder import find_layer_groups
from ernie_vil2.models.weights.format import read_model
from ernie_vil2.tasks.contrastive_step import build_step
from ernie_vil2.tasks.task import build_task
from ernie_vil2.training.checkpoint import list_checkpoints
from tests.support.commands import succeed
from tests.support.other_families import FOLDERS, read_expected
from tests.support.steps import take_gradients
from tests.support.trainings import begin_with, build_seeded_task, check_resume, fit, resolve_like_folder

IMAGE_FOLDERS = [name for name in FOLDERS if read_expected(name)["pixel_values"].ndim == 4]
FAST_CACHED = ["hf_chinese_clip", "cn_clip_rn50"]
FAST_DIRECT = [
    *FAST_CACHED,
    "hf_altclip",
    "hf_clip",
    "openclip_flat",
    "hf_siglip",
    "openclip_siglip_timm",
    "openclip_bert_timm",
    "hf_vision_text_dual",
]
"""One family for each kind of towers; the others are slow tests."""
ALL_FOLDERS = [pytest.param(name, marks=() if name in FAST_DIRECT else pytest.mark.slow) for name in FOLDERS]
PAIRS = "Loss.weights={image_image: 0, text_text: 0, image_text: 0.5, text_image: 0.5}"


@pytest.mark.parametrize("name", ALL_FOLDERS)
def test_towers_tokenizer_length_and_loss_follow_the_folder(name):
    config, source = resolve_like_folder(name, "Loss.weights.text_text=0"), read_model(FOLDERS[name])
    assert config.Loss.kind == ("sigmoid" if "logit_bias" in source.arrays else "info_nce")
    assert config.Data.max_length == source.config.Data.max_length
    task = build_seeded_task(config)
    texts = ["a red disc", "红色的圆", ""]
    np.testing.assert_array_equal(task.tokenizer(texts), source.build_tokenizer(source.config.Data.max_length)(texts))
    state = task.model.state_dict()
    assert state.keys() == dict(source.arrays).keys()
    for key, value in state.items():
        np.testing.assert_array_equal(value.numpy(), source.arrays[key].reshape(value.shape), err_msg=key)


@pytest.mark.parametrize(
    ("pooling", "variant", "culprit"),
    [("end", "{end: 7}", "token 7 .* ends texts with 2"), ("mean", "{mask: padding, padding: 1}", "pads texts with 0")],
)
def test_tower_with_the_special_tokens_of_another_vocabulary_is_refused(pooling, variant, culprit):
    # With the first of them all texts would have the same embedding.
    tower = "name: transformer, width: 8, depth: 1, heads: 1, max_positions: 48, vocabulary: demo_data/vocabulary.txt"
    with pytest.raises(ConfigError, match=f"Model.text.variant: .*{culprit}"):
        build_task(load_config(None, [f"Model.text={{{tower}, pooling: {pooling}, variant: {variant}}}"]))


@pytest.mark.parametrize(("name", "kind", "bound"), [("hf_siglip", "info_nce", 1000), ("hf_clip", "sigmoid", 100)])
def test_settings_override_the_loss_of_the_folder(name, kind, bound):
    # The scale of a sigmoid loss exceeds CLIP's bound of 100, since SigLIP's authors set no bound.
    config = resolve_like_folder(name, f"Loss.kind={kind}", "Loss.weights.text_text=0", "Loss.bias=-3")
    model = build_seeded_task(config).model
    assert (model.logit_bias is None) == (kind == "info_nce")
    assert model.logit_bias is None or model.logit_bias.item() == -3
    assert resolve_like_folder(name).Loss.max_logit_scale == bound
    assert resolve_like_folder(name, "Loss.max_logit_scale=50").Loss.max_logit_scale == 50


@pytest.mark.parametrize(("name", "micro_batch"), [
    pytest.param(name, micro_batch, id=f"{name}-{step}",
                 marks=() if name in fast else pytest.mark.slow)
    for name in IMAGE_FOLDERS
    for step, micro_batch, fast in (("direct", "null", FAST_DIRECT), ("cached", 2, FAST_CACHED))
])  # fmt: skip
def test_gradients_match_those_of_the_authors(name, micro_batch):
    # The authors' loss, (CE(L) + CE(L.T)) / 2 without bias and in evaluation mode, is equation 2 with weight 0.5 for
    # each direction.
    config = resolve_like_folder(
        name,
        PAIRS,
        "Loss.kind=info_nce",
        "Loss.duplicates=ignored",
        "Training.global_batch=6",
        f"Training.micro_batch={micro_batch}",
    )
    task, arrays = build_seeded_task(config), read_expected(name)
    task.model.eval()
    step = build_step(task.model, build_loss(config.Loss), config)
    views = {"image_1": paddle.to_tensor(arrays["pixel_values"]), "text_1": paddle.to_tensor(arrays["input_ids"][:6])}
    total, _ = step.forward(views, np.arange(12).reshape(6, 2), np.arange(6), 0)
    step.backward()
    np.testing.assert_allclose(total.item(), arrays["loss"], rtol=1e-5)
    source = read_model(FOLDERS[name])
    ours = {key: np.zeros(value.shape, "float32") for key, value in task.model.state_dict().items()}
    if "logit_bias" in source.arrays:
        ours["logit_bias"] = np.zeros(1, "float32")
    ours |= take_gradients(task.model)
    family = source.family
    name_table = family.format.make_name_table(source.config.Model, family.dialect, family.array_names)
    theirs = name_table.to_theirs(ours)
    names = [key for key in arrays if key.startswith("grad/")]
    assert len(names) >= 6
    for key in names:
        expected = arrays[key]
        gradient = theirs[key.removeprefix("grad/").removeprefix("module.")].reshape(expected.shape)
        # The tolerance is relative to the largest element, since small ones are sums of terms that cancel.
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=key)


@pytest.mark.parametrize("name", ALL_FOLDERS)
def test_layer_groups_go_from_input_to_embedding(name):
    model, _ = read_model(FOLDERS[name]).build()
    towers = find_layer_groups(model)
    for tower, groups in towers.items():
        blocks = [f"{tower}.blocks.{number}" for number in range(len(groups) - 2)]
        assert list(groups) == [f"{tower}.embeddings", *blocks, f"{tower}.head"] and all(groups.values())
        assert any("embed" in parameter or "conv1" in parameter for parameter in groups[f"{tower}.embeddings"])
        assert any(re.search("projection|head|pool", parameter) for parameter in groups[f"{tower}.head"])
    # Each parameter but the scalars is in exactly one group.
    parameters = []
    for groups in towers.values():
        for names in groups.values():
            parameters.extend(names)
    assert len(set(parameters)) == len(parameters) == len(list(model.parameters())) - len(model.scalars)


TUNINGS = {
    "hf_chinese_clip_bin": ["Tuning.lora={rank: 2}", "Tuning.layer_decay=0.8", "Training.micro_batch=4"],
    "hf_siglip": ["Tuning.ema=0.9", "Tuning.freeze=[image.embeddings, text.blocks.0]"],
}


@pytest.mark.parametrize("name", ["hf_chinese_clip_bin", pytest.param("hf_siglip", marks=pytest.mark.slow)])
def test_resume_is_bit_equal(overrides, tmp_path, name):
    def config(*changes):
        return load_config(None, begin_with(overrides, name, *TUNINGS[name], *changes))

    trainer = check_resume(config, tmp_path)
    # The folder of the run is complete: it contains tokenizer, towers and loss.
    checkpoint, source = read_model(list_checkpoints(trainer.run)[-1]), read_model(FOLDERS[name])
    texts = ["a red disc", "红色的圆"]
    np.testing.assert_array_equal(checkpoint.build_tokenizer(20)(texts), source.build_tokenizer(20)(texts))
    assert checkpoint.config.Loss.kind == source.config.Loss.kind
    load_model(trainer.run, verify=True)


def test_teacher_of_another_family_and_interpolation(overrides, shapes, tmp_path):
    # A SigLIP teaches a Chinese-CLIP. The mean of the weights before and after is a model of the same family.
    run, teacher, mean = tmp_path / "run", tmp_path / "teacher", tmp_path / "mean"
    source, teacher_model = FOLDERS["hf_chinese_clip_bin"], FOLDERS["hf_siglip"]
    succeed("embed", "--checkpoint", teacher_model, "--data", shapes["train"], "--language", "zh", "--output", teacher)
    changes = ["Views.languages={zh: 1.0}", "Views.tag_probability=0", "Loss.weights.text_text=0", "Training.steps=2",
               f"Tuning.teacher={{embeddings: {teacher}, weight: 1}}"]  # fmt: skip
    fit(load_config(None, begin_with(overrides, "hf_chinese_clip_bin", *changes)))
    succeed("interpolate", source, run, "--alpha", 0.5, "--write", mean)
    initial, trained, interpolated = read_model(source).arrays, read_model(run).arrays, read_model(mean).arrays
    for key in initial:
        np.testing.assert_allclose(interpolated[key], (initial[key] + trained[key]) / 2, atol=1e-6, err_msg=key)
    assert any((initial[key] != trained[key]).any() for key in initial)
