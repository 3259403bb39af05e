"""Model folders of other families and of the releases with an unsupported setting or array, which the error names."""

from pathlib import Path

import numpy as np
import pytest

from ernie_vil2.models.weights.files import read_weights, write_torch_weights
from ernie_vil2.models.weights.format import read_model, recognise_model
from tests.support.other_families import FAMILY_FIXTURES, FOLDERS, copy_folder

RELEASED = Path(__file__).parents[1] / "fixtures" / "released"
CLIP, CHINESE_CLIP, SIGLIP = (
    FAMILY_FIXTURES / "hf_clip",
    FAMILY_FIXTURES / "hf_chinese_clip_bin",
    FAMILY_FIXTURES / "hf_siglip",
)
NAFLEX = FAMILY_FIXTURES / "hf_siglip2_naflex"
TIMM, CN_CLIP = FAMILY_FIXTURES / "openclip_siglip_timm", FAMILY_FIXTURES / "cn_clip_pt"
PADDLENLP, OFFICIAL = RELEASED / "paddlenlp_tiny", RELEASED / "official_tiny"


def find_settings_file(key):
    """Return the file of the fixture of Chinese-CLIP that holds a setting; each of its towers has a file."""
    for path in sorted(CN_CLIP.rglob("*.json")):
        if key in path.read_text():
            return str(path.relative_to(CN_CLIP))
    raise AssertionError(f"no file has {key}")


TEXT_FILE, IMAGE_FILE = find_settings_file("text_hidden_size"), find_settings_file("vision_width")
BLOCKS = {"qk_norm": [True], "scaled_cosine_attn": [True], "scale_heads": [True], "scale_attn_inner": [True],
          "scale_attn": [True], "scale_fc": [True], "block_type": ["custom"], "ls_init_value": [1e-5],
          "rotary": [True]}  # fmt: skip
LONG = [["\x1b[2J" * 10**3] * 9] * 9
BAD_SETTINGS = {
    (CLIP, "config.json", None): {"text_config": [[1]]},
    (CLIP, "config.json", "text_config"): {
        "eos_token_id": [1116], "layer_norm_eps": [-1], "hidden_size": ["wide"]},
    (CLIP, "config.json", "vision_config"): {
        "patch_size": [16], "hidden_act": ["relu"], "num_channels": [4], "hidden_size": [10**6]},
    (CLIP, "preprocessor_config.json", None): {
        "image_mean": [[-0.1, 0.5, 0.5]], "image_std": [[58.4, 57.1, 57.4]], "resample": [[3], True]},
    (CLIP, "tokenizer_config.json", None): {"model_max_length": [0, [64], float("nan")]},
    (CHINESE_CLIP, "config.json", "text_config"): {"layer_norm_eps": [1e-2], "pad_token_id": [287, 5]},
    (SIGLIP, "config.json", "vision_config"): {"layer_norm_eps": [1e-2]},
    (NAFLEX, "preprocessor_config.json", None): {"max_num_patches": [10**9, 4097, 0, "256"]},
    (CN_CLIP, TEXT_FILE, None): {"text_hidden_size": ["24", 24.0, 32], "text_num_hidden_layers": ["2"]},
    (CN_CLIP, IMAGE_FILE, None): {
        "vision_width": ["32"], "vision_patch_size": ["8"], "vision_head_width": [7], "image_resolution": ["32"],
        "vision_layers": ["two", "3, 4, 6, " + "3" * 5000]},
    (TIMM, "open_clip_config.json", "model_cfg"): {"quick_gelu": ["false"], "freeze": [True]},
    (TIMM, "open_clip_config.json", "model_cfg.vision_cfg"): BLOCKS | {"timm_proj": [""], "timm_pool": ["avg"]},
    (TIMM, "open_clip_config.json", "model_cfg.text_cfg"): BLOCKS | {
        "proj_bias": [False, "no"], "no_causal_mask": ["no"], "pad_id": [420], "width": [10**400],
        "norm_kwargs": [{"eps": 2e-3}], "tokenizer_mode": ["clips"]},
    (PADDLENLP, "config.json", "text_config"): {
        "hidden_act": ["relu", LONG], "type_vocab_size": [4], "num_attention_heads": ["2", 5],
        "hidden_size": [64], "vocab_size": [9]},
    (PADDLENLP, "config.json", "vision_config"): {
        "layer_norm_eps": [1e-5], "num_attention_heads": [5], "num_hidden_layers": [10**9], "image_size": [224]},
    (PADDLENLP, "preprocessor_config.json", None): {
        "resample": [2], "do_normalize": [False], "size": [10], "rescale_factor": [1 / 127.5],
        "crop_size": [{"height": 32, "width": 33}], "image_std": [[1, 0, 1]]},
    (PADDLENLP, "tokenizer_config.json", None): {"do_lower_case": [False], "model_max_length": [2]},
    (OFFICIAL, "ernie_config.json", None): {
        "hidden_act": ["relu"], "has_pooler": [False], "num_attention_heads": ["2", 5], "num_hidden_layers": [3],
        "max_position_embeddings": [2048], "hidden_dropout_prob": [1.5], "hidden_size": [float("nan")]},
}  # fmt: skip
"""Folder, file and section -> key -> refused values."""
CULPRITS = {"patch_size": "config.json", "num_attention_heads": "num_attention_heads|attention heads",
            "vision_head_width": "head_width|heads", "hidden_size": "hidden_size|width"}  # fmt: skip
"""Pattern of the message where it does not name the key itself but the file, or a consequence of the key."""


def list_cases():
    for (source, file, section), settings in BAD_SETTINGS.items():
        for key, values in settings.items():
            for value in values:
                identifier = f"{source.name}-{section or Path(file).stem}-{key}-{str(value)[:10]!a}"
                yield pytest.param(source, file, section, key, value, id=identifier)


@pytest.mark.parametrize(("source", "file", "section", "key", "value"), [*list_cases()])
def test_unsupported_setting_is_named(source, file, section, key, value, tmp_path):
    folder = copy_folder(source, tmp_path / "model", file, section, **{key: value})
    with pytest.raises(ValueError, match=CULPRITS.get(key, key.removeprefix("image_"))) as error:
        read_model(folder).build()
    assert len(str(error.value)) < 600 and str(error.value).isprintable()


@pytest.mark.parametrize(
    ("name", "array", "shape"),
    [
        ("hf_clip", "text_model.embeddings.token_embedding.weight", ()),
        ("cn_clip_pt", "bert.embeddings.word_embeddings.weight", (287,)),
        ("cn_clip_pt", "visual.conv1.weight", (32, 3, 0, 0)),
        ("cn_clip_pt", "visual.positional_embedding", (0, 32)),
        ("cn_clip_pt", "visual.positional_embedding", (1, 32)),
        ("cn_clip_pt", "visual.positional_embedding", (16, 32)),
        ("cn_clip_rn50", "visual.attnpool.positional_embedding", (0, 128)),
        ("eva_pt", "visual.pos_embed", (1, 0, 24)),
        ("openclip_pe", "visual.trunk.attn_pool.mlp.fc1.weight", ()),
    ],
)
def test_array_of_an_impossible_shape_is_named(name, array, shape, tmp_path):
    if name not in FOLDERS:
        pytest.skip("its folder is not carried")
    folder = copy_folder(name, tmp_path / "model")
    weights = recognise_model(folder)[1].weights
    arrays = read_weights(weights) | {array: np.zeros(shape, np.float32)}
    write_torch_weights(weights, {key: np.array(value) for key, value in arrays.items()})
    with pytest.raises(ValueError, match=array) as error:
        read_model(folder)
    assert str(folder) in str(error.value) and str(error.value).isprintable()


def test_model_of_texts_without_room_for_a_word_is_refused(tmp_path):
    folder = copy_folder(CLIP, tmp_path / "model", "config.json", "text_config", max_position_embeddings=2)
    with pytest.raises(ValueError, match=r"config.json: .* 2 tokens") as error:
        read_model(folder)
    assert str(error.value).isprintable()
