"""Training that starts from the folder of another family: `-o Model.like=weights -o Model.weights=FOLDER`."""

from functools import reduce

import numpy as np
import paddle
import pytest

from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.losses import build_loss
from ernie_vil2.models.dual_encoder import layer_groups
from ernie_vil2.models.weights.stored import read_model
from ernie_vil2.tasks.contrastive_step import build_step
from ernie_vil2.training.checkpoint import list_checkpoints
from ernie_vil2.training.trainer import Trainer
from tests.support.commands import call
from tests.support.other_families import FOLDERS, expected
from tests.support.ranks import forked_ranks, train
from tests.support.steps import taken_gradients
from tests.support.trainings import begin_with, built_task, check_resume, fit, like_folder, weights

SQUARE = [name for name in FOLDERS if expected(name)["pixel_values"].ndim == 4]
ONE_OF_A_KIND = {
    "hf_chinese_clip": ["direct", "cached"],
    "cn_clip_rn50": ["direct", "cached"],
    "hf_altclip": ["direct"],
    "hf_clip": ["direct"],
    "openclip_flat": ["direct"],
    "hf_siglip": ["direct"],
    "openclip_siglip_timm": ["direct"],
}
"""A family for each kind of towers, with the steps that are not left to the slow tests."""
SIGMOID = [name for name in FOLDERS if "siglip" in name or "fgclip2" in name]


PAIRS = "Loss.weights={image_image: 0, text_text: 0, image_text: 0.5, text_image: 0.5}"


@pytest.mark.parametrize("name", FOLDERS)
def test_towers_tokenizer_length_and_loss_are_the_folders(name):
    config, source = like_folder(name, "Loss.weights.text_text=0"), read_model(FOLDERS[name])
    assert config.Loss.kind == ("sigmoid" if "logit_bias" in source.arrays else "info_nce")
    assert config.Data.max_length == source.config.Data.max_length
    task = built_task(config)
    texts = ["a red disc", "红色的圆", ""]
    np.testing.assert_array_equal(task.tokenizer(texts), source.tokenizer(source.config.Data.max_length)(texts))
    state = task.model.state_dict()
    assert state.keys() == dict(source.arrays).keys()
    for key, value in state.items():
        np.testing.assert_array_equal(value.numpy(), source.arrays[key].reshape(value.shape), err_msg=key)


@pytest.mark.parametrize("name", ["hf_siglip", "hf_clip"])
def test_loss_may_be_another_than_the_folders(name):
    """The scale of a sigmoid loss is not cut at CLIP's bound of 100: SigLIP's authors set none."""
    kind, bound = ("info_nce", 1000) if name in SIGMOID else ("sigmoid", 100)
    config = like_folder(name, f"Loss.kind={kind}", "Loss.weights.text_text=0", "Loss.bias=-3")
    model = built_task(config).model
    assert (model.logit_bias is None) == (kind == "info_nce")
    assert model.logit_bias is None or model.logit_bias.item() == -3
    assert like_folder(name).Loss.max_logit_scale == bound
    assert like_folder(name, "Loss.max_logit_scale=50").Loss.max_logit_scale == 50


@pytest.mark.parametrize(("name", "micro_batch"), [
    pytest.param(name, micro_batch, id=f"{name}-{step}",
                 marks=() if step in ONE_OF_A_KIND.get(name, ()) else pytest.mark.slow)
    for name in SQUARE for step, micro_batch in (("direct", "null"), ("cached", 2))
])  # fmt: skip
def test_gradients_of_the_trainers_step_are_the_authors(name, micro_batch):
    """(CE(L) + CE(L.T)) / 2 without bias, in evaluation, is equation 2 with half a weight each way."""
    config = like_folder(name, PAIRS, "Loss.kind=info_nce", "Loss.duplicates=ignored", "Training.global_batch=6",
                     f"Training.micro_batch={micro_batch}")  # fmt: skip
    task, arrays = built_task(config), expected(name)
    task.model.eval()
    step = build_step(task.model, build_loss(config.Loss), config)
    views = {"image_1": paddle.to_tensor(arrays["pixel_values"]), "text_1": paddle.to_tensor(arrays["input_ids"][:6])}
    total, _ = step.forward(views, np.arange(12).reshape(6, 2), np.arange(6), 0)
    step.backward()
    np.testing.assert_allclose(total.item(), arrays["loss"], rtol=1e-5)
    found = read_model(FOLDERS[name])
    ours = {key: np.zeros(value.shape, "float32") for key, value in task.model.state_dict().items()}
    ours |= {"logit_bias": np.zeros(1, "float32")} if "logit_bias" in found.arrays else {}
    ours |= taken_gradients(task.model)
    family = found.family
    theirs = family.family.names(found.config.Model, family.dialect, family.names).to_theirs(ours)
    names = [key for key in arrays if key.startswith("grad/")]
    assert len(names) >= 6
    for key in names:
        gradient = theirs[key.removeprefix("grad/").removeprefix("module.")].reshape(arrays[key].shape)
        np.testing.assert_allclose(gradient, arrays[key], rtol=0, atol=1e-4 * np.abs(arrays[key]).max(), err_msg=key)


IMAGES = {
    "vit": (2, {"cls_token", "pos_embed", "patch_embed", "ln_pre"}, {"norm", "image_projection"}),
    "siglip": (2, {"pos_embed", "patch_embed"}, {"norm", "attn_pool"}),
    "resnet": (5, {"conv1", "conv2", "conv3", "bn1", "bn2", "bn3"}, {"attnpool"}),
}
"""Blocks, and the parts before the first and after the last."""
TEXTS = {
    "bert": ({"word_embeddings", "position_embeddings", "token_type_embeddings", "layer_norm"}, {"text_projection"}),
    "altclip": (
        {"word_embeddings", "position_embeddings", "token_type_embeddings", "layer_norm"},
        {"head_norm", "head", "text_projection"},
    ),
    "clip": ({"word_embeddings", "position_embeddings"}, {"norm", "text_projection"}),
    "siglip": ({"word_embeddings", "position_embeddings"}, {"norm", "head"}),
}
GROUPS = {
    **dict.fromkeys(("hf_chinese_clip", "hf_chinese_clip_bin", "cn_clip_pt"), ("vit", "bert")),
    "cn_clip_rn50": ("resnet", "bert"),
    "hf_altclip": ("vit", "altclip"),
    **dict.fromkeys(("hf_clip", "hf_clip_laion", "hf_metaclip2"), ("vit", "clip")),
    **dict.fromkeys(("openclip_custom_text", "openclip_flat", "openclip_flat_quickgelu"), ("vit", "clip")),
    **dict.fromkeys(("hf_siglip", "hf_siglip2", "hf_siglip2_naflex", "fgclip2"), ("siglip", "siglip")),
    "openclip_siglip_timm": ("siglip", "siglip"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_layer_groups_run_from_the_input_to_the_joint_space(name):
    blocks, stem, image_head = IMAGES[GROUPS[name][0]]
    embeddings, text_head = TEXTS[GROUPS[name][1]]
    model, _ = read_model(FOLDERS[name]).build()
    image, text = layer_groups(model).values()
    for tower, groups, count in (("image", image, blocks), ("text", text, 2)):
        assert list(groups) == [f"{tower}.embeddings", *(f"{tower}.blocks.{n}" for n in range(count)), f"{tower}.head"]
        assert all(groups[f"{tower}.blocks.{n}"] for n in range(count))
    assert sum(map(len, (*image.values(), *text.values()))) == len(list(model.parameters())) - len(model.scalars)

    def parts(names):
        prefixes = ("image.", "text.", "network.", "embeddings.")
        return {reduce(str.removeprefix, prefixes, name).partition(".")[0] for name in names}

    assert parts(image["image.embeddings"]) == stem and parts(image["image.head"]) == image_head
    assert parts(text["text.embeddings"]) == embeddings and parts(text["text.head"]) == text_head


TUNINGS = {
    "hf_chinese_clip_bin": ["Tuning.lora={rank: 2}", "Tuning.layer_decay=0.8", "Training.micro_batch=4"],
    "hf_siglip": ["Tuning.ema=0.9", "Tuning.freeze=[image.embeddings, text.blocks.0]"],
    "hf_clip": ["Tuning={lora: {rank: 2, layers: [image.blocks.*]}, ema: 0.9, text_rate: 0.5}"],
}


@pytest.mark.parametrize("name", [*list(TUNINGS)[:2], pytest.param("hf_clip", marks=pytest.mark.slow)])
def test_resume_is_bit_equal(overrides, tmp_path, name):
    def config(*changes):
        return load_config(None, begin_with(overrides, name, *TUNINGS[name], *changes))

    whole = check_resume(config, tmp_path)
    # A run says all by itself: tokenizer, towers and loss are in its folder.
    alone = read_model(list_checkpoints(whole.run)[-1])
    texts = ["a red disc", "红色的圆"]
    np.testing.assert_array_equal(alone.tokenizer(20)(texts), read_model(FOLDERS[name]).tokenizer(20)(texts))
    assert alone.config.Loss.kind == read_model(FOLDERS[name]).config.Loss.kind


@pytest.mark.parametrize("name", [pytest.param("hf_chinese_clip_bin", marks=pytest.mark.slow), "hf_siglip"])
def test_two_ranks_train_what_one_process_does(overrides, tmp_path, name):
    settings = begin_with(overrides, name, "Training.steps=4")
    alone = fit(load_config(None, [*settings, f"Training.output={tmp_path / 'alone'}"]))
    forked_ranks(train, [*settings, "Training.device=cpu"])
    other = read_model(tmp_path / "run").arrays
    for key, value in weights(alone).items():
        np.testing.assert_allclose(other[key], value, atol=2e-4, rtol=1e-3, err_msg=key)


def test_teacher_of_another_family_and_a_mixture_of_two_models(overrides, shapes, tmp_path):
    """A SigLIP teaches a Chinese-CLIP; half of what was learned is a model of the same kind."""
    taught, teacher, half = (tmp_path / name for name in ("run", "teacher", "half"))
    source, other = FOLDERS["hf_chinese_clip_bin"], FOLDERS["hf_siglip"]
    made = call("embed", "--checkpoint", other, "--data", shapes["train"], "--language", "zh", "--output", teacher)
    assert made.returncode == 0, made.stderr
    changes = ["Views.languages={zh: 1.0}", "Views.tag_probability=0", "Loss.weights.text_text=0", "Training.steps=2",
               f"Tuning.teacher={{embeddings: {teacher}, weight: 1}}"]  # fmt: skip
    fit(load_config(None, begin_with(overrides, "hf_chinese_clip_bin", *changes)))
    mixed = call("interpolate", source, taught, "--alpha", 0.5, "--write", half)
    assert mixed.returncode == 0, mixed.stderr
    before, after, between = (read_model(folder).arrays for folder in (source, taught, half))
    for key in before:
        np.testing.assert_allclose(between[key], (before[key] + after[key]) / 2, atol=1e-6, err_msg=key)
    assert any((before[key] != after[key]).any() for key in before)


def test_text_pair_without_dropout_is_refused(overrides):
    changes = ["Model.text.dropout=0", "Views.tag_probability=0"]
    with pytest.raises(ConfigError, match="Model.text.dropout"):
        Trainer(load_config(None, begin_with(overrides, "hf_clip", *changes)))
