"""Training that starts from the folder of another family: `-o Model.like=weights -o Model.weights=FOLDER`."""

import re

import numpy as np
import paddle
import pytest

from ernie_vil2 import load_model
from ernie_vil2.config import load_config
from ernie_vil2.losses import build_loss
from ernie_vil2.models.dual_encoder import find_layer_groups
from ernie_vil2.models.weights.format import read_model
from ernie_vil2.tasks.contrastive_step import build_step
from ernie_vil2.training.checkpoint import list_checkpoints
from tests.support.commands import succeed
from tests.support.other_families import FOLDERS, read_expected
from tests.support.steps import take_gradients
from tests.support.trainings import begin_with, build_seeded_task, check_resume, fit, resolve_like_folder

SQUARE = [name for name in FOLDERS if read_expected(name)["pixel_values"].ndim == 4]
CACHED = ["hf_chinese_clip", "cn_clip_rn50"]
DIRECT = [
    *CACHED,
    "hf_altclip",
    "hf_clip",
    "openclip_flat",
    "hf_siglip",
    "openclip_siglip_timm",
    "openclip_bert_timm",
    "hf_vision_text_dual",
]
"""A family for each kind of towers, which is not left to the slow tests."""
EVERY = [pytest.param(name, marks=() if name in DIRECT else pytest.mark.slow) for name in FOLDERS]
PAIRS = "Loss.weights={image_image: 0, text_text: 0, image_text: 0.5, text_image: 0.5}"


@pytest.mark.parametrize("name", EVERY)
def test_towers_tokenizer_length_and_loss_are_the_folders(name):
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


@pytest.mark.parametrize(("name", "kind", "bound"), [("hf_siglip", "info_nce", 1000), ("hf_clip", "sigmoid", 100)])
def test_loss_may_be_another_than_the_folders(name, kind, bound):
    """The scale of a sigmoid loss is not cut at CLIP's bound of 100: SigLIP's authors set none."""
    config = resolve_like_folder(name, f"Loss.kind={kind}", "Loss.weights.text_text=0", "Loss.bias=-3")
    model = build_seeded_task(config).model
    assert (model.logit_bias is None) == (kind == "info_nce")
    assert model.logit_bias is None or model.logit_bias.item() == -3
    assert resolve_like_folder(name).Loss.max_logit_scale == bound
    assert resolve_like_folder(name, "Loss.max_logit_scale=50").Loss.max_logit_scale == 50


@pytest.mark.parametrize(("name", "micro_batch"), [
    pytest.param(name, micro_batch, id=f"{name}-{step}",
                 marks=() if name in fast else pytest.mark.slow)
    for name in SQUARE for step, micro_batch, fast in (("direct", "null", DIRECT), ("cached", 2, CACHED))
])  # fmt: skip
def test_gradients_of_the_trainers_step_are_the_authors(name, micro_batch):
    """(CE(L) + CE(L.T)) / 2 without bias, in evaluation, is equation 2 with half a weight each way."""
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
    found = read_model(FOLDERS[name])
    ours = {key: np.zeros(value.shape, "float32") for key, value in task.model.state_dict().items()}
    ours |= {"logit_bias": np.zeros(1, "float32")} if "logit_bias" in found.arrays else {}
    ours |= take_gradients(task.model)
    family = found.family
    theirs = family.format.make_name_table(found.config.Model, family.dialect, family.array_names).to_theirs(ours)
    names = [key for key in arrays if key.startswith("grad/")]
    assert len(names) >= 6
    for key in names:
        gradient = theirs[key.removeprefix("grad/").removeprefix("module.")].reshape(arrays[key].shape)
        np.testing.assert_allclose(gradient, arrays[key], rtol=0, atol=1e-4 * np.abs(arrays[key]).max(), err_msg=key)


@pytest.mark.parametrize("name", EVERY)
def test_layer_groups_run_from_the_input_to_the_joint_space(name):
    model, _ = read_model(FOLDERS[name]).build()
    towers = find_layer_groups(model)
    for tower, groups in towers.items():
        blocks = [f"{tower}.blocks.{number}" for number in range(len(groups) - 2)]
        assert list(groups) == [f"{tower}.embeddings", *blocks, f"{tower}.head"] and all(groups.values())
        assert any("embed" in parameter or "conv1" in parameter for parameter in groups[f"{tower}.embeddings"])
        assert any(re.search("projection|head|pool", parameter) for parameter in groups[f"{tower}.head"])
    parameters = [parameter for groups in towers.values() for names in groups.values() for parameter in names]
    assert len(set(parameters)) == len(parameters) == len(list(model.parameters())) - len(model.scalars)


TUNINGS = {
    "hf_chinese_clip_bin": ["Tuning.lora={rank: 2}", "Tuning.layer_decay=0.8", "Training.micro_batch=4"],
    "hf_siglip": ["Tuning.ema=0.9", "Tuning.freeze=[image.embeddings, text.blocks.0]"],
}


@pytest.mark.parametrize("name", ["hf_chinese_clip_bin", pytest.param("hf_siglip", marks=pytest.mark.slow)])
def test_resume_is_bit_equal(overrides, tmp_path, name):
    def config(*changes):
        return load_config(None, begin_with(overrides, name, *TUNINGS[name], *changes))

    whole = check_resume(config, tmp_path)
    # A run says all by itself: tokenizer, towers and loss are in its folder.
    alone, source = read_model(list_checkpoints(whole.run)[-1]), read_model(FOLDERS[name])
    texts = ["a red disc", "红色的圆"]
    np.testing.assert_array_equal(alone.build_tokenizer(20)(texts), source.build_tokenizer(20)(texts))
    assert alone.config.Loss.kind == source.config.Loss.kind
    load_model(whole.run, verify=True)


def test_teacher_of_another_family_and_a_mixture_of_two_models(overrides, shapes, tmp_path):
    """A SigLIP teaches a Chinese-CLIP; half of what was learned is a model of the same kind."""
    taught, teacher, half = (tmp_path / name for name in ("run", "teacher", "half"))
    source, other = FOLDERS["hf_chinese_clip_bin"], FOLDERS["hf_siglip"]
    succeed("embed", "--checkpoint", other, "--data", shapes["train"], "--language", "zh", "--output", teacher)
    changes = ["Views.languages={zh: 1.0}", "Views.tag_probability=0", "Loss.weights.text_text=0", "Training.steps=2",
               f"Tuning.teacher={{embeddings: {teacher}, weight: 1}}"]  # fmt: skip
    fit(load_config(None, begin_with(overrides, "hf_chinese_clip_bin", *changes)))
    succeed("interpolate", source, taught, "--alpha", 0.5, "--write", half)
    before, after, between = (read_model(folder).arrays for folder in (source, taught, half))
    for key in before:
        np.testing.assert_allclose(between[key], (before[key] + after[key]) / 2, atol=1e-6, err_msg=key)
    assert any((before[key] != after[key]).any() for key in before)
