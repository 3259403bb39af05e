"""OpenCLIP's settings: sizes that no array shows are those of its libraries, and unsupported settings are refused."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import save_file

from ernie_vil2.models.weights.families.family import Folder
from ernie_vil2.models.weights.families.open_clip import OPEN_CLIP, TIMM_VITS
from ernie_vil2.models.weights.families.timm_convnext import TIMM_CONVNEXTS, read_convnext
from ernie_vil2.models.weights.families.timm_towers import TIMM_EVA02_CLIPS, TIMM_PE_CORES, TIMM_PLAIN_VITS
from ernie_vil2.models.weights.files import read_weights
from ernie_vil2.models.weights.format import read_model
from ernie_vil2.models.weights.settings import Settings
from tests.support.encoding_model import normalise_rows
from tests.support.other_families import (
    FAMILY_FIXTURES,
    FOLDERS,
    build_for_evaluation,
    change_arrays,
    copy_folder,
    measure_image_difference,
    measure_text_difference,
    read_expected,
)

TIMM = FAMILY_FIXTURES / "openclip_siglip_timm"
PEERS = Path(__file__).parents[1] / "fixtures" / "open_clip"
TIMM_FACTS = json.loads((PEERS / "timm_siglip.json").read_text())
EVA_FACTS = json.loads((PEERS / "timm_eva.json").read_text())
CONVNEXT_FACTS = json.loads((PEERS / "timm_convnext.json").read_text())
VIT_FACTS = json.loads((PEERS / "timm_vit.json").read_text())
EVA_TOWERS = {**TIMM_PE_CORES, **TIMM_EVA02_CLIPS}
FILE = "open_clip_config.json"
TIMM_NAME = {"timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none"}


def read_image_config(name, width, depth=2, **vision):
    """Return the image configuration of an OpenCLIP folder of a width, without values for its arrays.

    Such a folder states neither depth nor heads.
    """
    model = {
        "embed_dim": width,
        "vision_cfg": {**TIMM_NAME, "image_size": 256, "timm_model_name": name, **vision},
        "text_cfg": {"width": 8, "heads": 2, "layers": 1},
    }
    shapes = {"patch_embed.proj.weight": (width, 3, 16, 16)}
    for matrix in ("fc1", "fc1_g"):
        shapes |= {f"blocks.{block}.mlp.{matrix}.weight": (4 * width, width) for block in range(depth)}
    shapes["head.weight"] = (width, width)
    shapes["attn_pool.mlp.fc1.weight"] = (4 * width, width)
    arrays = {f"visual.trunk.{key}": np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    folder = Folder(
        Path("model.safetensors"), Settings(Path("open_clip_config.json"), {"model_cfg": model}), arrays, {}
    )
    return OPEN_CLIP.configure(folder)[0].image


def test_table_of_towers_is_the_registry_of_timm():
    assert {name: facts._asdict() for name, facts in TIMM_VITS.items()} == TIMM_FACTS
    assert {name: facts._asdict() for name, facts in EVA_TOWERS.items()} == EVA_FACTS
    assert {name: facts["epsilon"] for name, facts in CONVNEXT_FACTS.items()} == TIMM_CONVNEXTS
    assert {name: facts._asdict() for name, facts in TIMM_PLAIN_VITS.items()} == VIT_FACTS


@pytest.mark.parametrize("name", TIMM_FACTS)
def test_heads_of_a_trunk_follow_from_its_name(name):
    facts = TIMM_FACTS[name]
    image = read_image_config(name, facts["width"])
    assert (image.heads, image.depth, image.variant.activation) == (facts["heads"], 2, facts["activation"])
    assert read_image_config(f"{name}.webli", facts["width"]).heads == facts["heads"]


@pytest.mark.parametrize("name", EVA_FACTS)
def test_pe_core_and_eva02_follow_from_their_names(name):
    facts, is_pe_core = EVA_FACTS[name], name in TIMM_PE_CORES
    settings = {"timm_pool": "map" if is_pe_core else "token", "timm_proj": None}
    image = read_image_config(name, facts["width"], **settings)
    assert (image.heads, image.depth, image.variant.rotary.grid) == (facts["heads"], 2, facts["grid"])
    assert image.variant.pooling_heads == (8 if is_pe_core else None)
    with pytest.raises(ValueError, match="timm_model_name is .* give head_width"):
        read_image_config(name, facts["width"] + 64, **settings)
    for key, value in (("timm_pool", "avg"), ("timm_proj", "linear")):
        with pytest.raises(ValueError, match=f"vision_cfg.{key} is '{value}'"):
            read_image_config(name, facts["width"], **settings | {key: value})


@pytest.mark.parametrize("name", VIT_FACTS)
def test_plain_vits_follow_from_their_names(name):
    facts, settings = VIT_FACTS[name], {"timm_pool": "token", "timm_proj": "linear"}
    image = read_image_config(name, facts["width"], **settings)
    variant = image.variant
    assert (image.heads, variant.activation, variant.pooling) == (facts["heads"], facts["activation"], "class")
    is_clip = (variant.epsilon, variant.input_norm, variant.patch_bias) == (1e-5, True, False)
    is_plain = (variant.epsilon, variant.input_norm, variant.patch_bias) == (1e-6, False, True)
    assert (is_clip, is_plain) == (facts["is_clip"], not facts["is_clip"])


@pytest.mark.parametrize(("key", "value"), [("timm_pool", "avg"), ("timm_pool", "map"), ("timm_proj", "mlp")])
def test_plain_vit_with_another_ending_is_refused(key, value):
    settings = {"timm_pool": "", "timm_proj": "linear", key: value}
    with pytest.raises(ValueError, match=f"vision_cfg.{key} is '{value}'"):
        read_image_config("vit_base_patch16_224", 768, **settings)


@pytest.mark.skipif("openclip_bert_timm" not in FOLDERS, reason="its folder is not carried")
@pytest.mark.parametrize(
    ("projection", "has_bias", "layer"),
    [(None, False, "trunk.head"), ("linear", True, "head.proj"), ("linear", False, "head.proj"), ("none", False, None)],
)
def test_every_projection_of_a_plain_vit(projection, has_bias, layer, tmp_path):
    """The projection is applied to the features of the tower, which are those of the authors' code."""
    name, weights = "openclip_bert_timm", "open_clip_pytorch_model.bin"
    settings = json.loads((FOLDERS[name] / FILE).read_text())["model_cfg"]
    width = settings["vision_cfg"]["width"]
    embed_dim = settings["embed_dim"] if layer else width
    settings["vision_cfg"] |= {"timm_proj": projection, "timm_proj_bias": has_bias}
    settings["embed_dim"] = embed_dim
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(embed_dim, width)).astype("float32") if layer else np.eye(width, dtype="float32")
    bias = rng.normal(size=embed_dim).astype("float32") if projection is None or has_bias else np.float32(0)

    folder = copy_folder(name, tmp_path / "m", FILE, "model_cfg", **settings)
    arrays = {key: np.array(array) for key, array in read_weights(folder / weights).items()}
    del arrays["visual.head.proj.weight"]
    hidden = (width + embed_dim) // 2  # of the projection of texts
    arrays["text.proj.0.weight"] = rng.normal(size=(hidden, width)).astype("float32")
    arrays["text.proj.2.weight"] = rng.normal(size=(embed_dim, hidden)).astype("float32")
    if layer:
        arrays[f"visual.{layer}.weight"] = matrix
    if bias.ndim:
        arrays[f"visual.{layer}.bias"] = bias
    (folder / weights).unlink()
    save_file(arrays, folder / "open_clip_model.safetensors")
    model = build_for_evaluation(read_model(folder))

    pixels = paddle.to_tensor(read_expected(name)["pixel_values"])
    with paddle.no_grad():
        embeddings = model.encode_image(pixels).numpy()
        features = build_for_evaluation(read_model(FOLDERS[name])).image(pixels).numpy() @ matrix.T + bias
    np.testing.assert_allclose(embeddings, normalise_rows(features), atol=2e-6)


def test_head_width_of_a_folder_goes_before_the_name():
    assert read_image_config("vit_giantopt_patch16_siglip_256", 1536, head_width=64).heads == 24
    assert read_image_config("vit_giantopt_patch16_siglip_256", 64, head_width=32).heads == 2


@pytest.mark.parametrize(
    ("name", "width"),
    [("vit_giantopt_patch16_siglip_256", 768), ("vit_huge_patch16_siglip_256", 1280), ("vit_giantopt_siglip_", 1536)],
)
def test_trunk_unknown_to_timm_is_refused(name, width):
    with pytest.raises(ValueError, match=f"vision_cfg.timm_model_name is '{name}'"):
        read_image_config(name, width)


def test_quick_gelu_of_a_trunk_changes_texts_as_in_openclip(tmp_path):
    stored = read_model(copy_folder(TIMM, tmp_path / "m", FILE, "model_cfg", quick_gelu=True))
    model = build_for_evaluation(stored)
    assert stored.config.Model.image.variant.activation == "gelu"
    with np.load(TIMM / "expected.npz") as inputs, np.load(PEERS / "quick_gelu.npz") as expected:
        texts = model.encode_text(paddle.to_tensor(inputs["input_ids"])).numpy()
        images = model.encode_image(paddle.to_tensor(inputs["pixel_values"])).numpy()
        np.testing.assert_allclose(texts, expected["text_embeddings"], atol=5e-6)
        np.testing.assert_allclose(images, expected["image_embeddings"], atol=5e-6)
        assert np.abs(texts - inputs["text_embeddings"]).max() > 1e-3  # without quick_gelu


def test_quick_gelu_with_arguments_of_a_gelu_is_refused(tmp_path):
    # OpenCLIP fails as well: its QuickGELU takes no arguments.
    text = json.loads((TIMM / FILE).read_text())["model_cfg"]["text_cfg"] | {"act_kwargs": {"approximate": "tanh"}}
    folder = copy_folder(TIMM, tmp_path / "m", FILE, "model_cfg", quick_gelu=True, text_cfg=text)
    with pytest.raises(ValueError, match="text_cfg.act_kwargs"):
        read_model(folder)


def test_projection_bias_loads_without_a_custom_text_tower(tmp_path):
    # Arrays of OpenCLIP's CLIP have the names of its CustomTextCLIP without `text.`.
    folder = copy_folder(TIMM, tmp_path / "m", FILE, "model_cfg", custom_text=None)
    change_arrays(
        folder,
        lambda arrays: {name.removeprefix("text."): array for name, array in arrays.items()},
        "open_clip_model.safetensors",
    )
    model = build_for_evaluation(read_model(folder))
    assert measure_text_difference(model, TIMM.name) < 5e-6
    assert measure_image_difference(model, TIMM.name, 8) < 5e-6


@pytest.mark.parametrize(
    ("settings", "pooling", "input_norm", "norm_after_mean"),
    [
        ({}, "class", True, False),
        ({"final_ln_after_pool": True}, "class", True, False),
        ({"pool_type": "avg"}, "mean", True, False),
        ({"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}, "mean", False, True),
    ],
)
def test_pooling_and_norms_of_open_clips_own_vits(settings, pooling, input_norm, norm_after_mean):
    variant = read_image_config(None, 64, **settings).variant
    assert (variant.pooling, variant.input_norm, variant.norm_after_mean) == (pooling, input_norm, norm_after_mean)


@pytest.mark.parametrize("settings", [{"pool_type": "none"}, {"layers": [1, 1, 1, 1], "no_ln_pre": True}])
def test_pooling_and_norms_of_another_kind_are_refused(settings):
    with pytest.raises(ValueError, match=f"vision_cfg.{list(settings)[-1]} is "):
        read_image_config(None, 64, **settings)


def describe_convnext(name="convnext_base", **settings):
    """Return the tower that settings and arrays describe; the arrays have the shapes of timm's, without values."""
    facts = CONVNEXT_FACTS[name]
    shapes = {"visual.trunk.stem.0.weight": (facts["width"], 3, 4, 4), "visual.head.mlp.fc1.weight": (20, 8)}
    for stage, depth in enumerate(facts["layers"]):
        for number in range(depth):
            shapes[f"visual.trunk.stages.{stage}.blocks.{number}.gamma"] = (2**stage * facts["width"],)
    arrays = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    values = {"timm_model_name": name, "timm_pool": "", "timm_proj": "linear", "image_size": 256, **settings}
    return read_convnext(Settings(Path(FILE), values, "vision_cfg."), arrays)


@pytest.mark.parametrize("name", CONVNEXT_FACTS)
def test_sizes_of_a_convnext_are_those_of_its_arrays(name):
    tower = describe_convnext(name)
    assert {"epsilon": tower.epsilon, "width": tower.width, "layers": tower.layers} == CONVNEXT_FACTS[name]
    assert (tower.head, tower.image_size) == (None, 256)
    assert describe_convnext(name, timm_proj="mlp").head == 20


@pytest.mark.parametrize(("key", "value"), [("timm_pool", "max"), ("timm_proj", None), ("timm_proj_bias", True)])
def test_a_convnext_with_another_head_is_refused(key, value):
    with pytest.raises(ValueError, match=f"vision_cfg.{key} is "):
        describe_convnext(**{key: value})
