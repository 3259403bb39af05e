"""Settings of other people's folders that change embeddings: each is followed, or refused by its name."""

import json
import shutil

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.models.weights.format import read_model
from ernie_vil2.towers.base import ImageVariant
from tests.support.other_families import FOLDERS, copy_folder
from tests.support.towers import make_image_config, make_text_config

TEXTS = ["a red disc and a green square and a blue disc, again and again and again", "红色的圆和绿色的方块" * 3]


@pytest.mark.parametrize("name", ["hf_clip", "hf_chinese_clip_bin", "hf_siglip2_naflex"])
def test_texts_are_cut_at_the_tokenizers_length(name, tmp_path):
    folder = copy_folder(name, tmp_path / name, "tokenizer_config.json", model_max_length=9)
    model = ernie_vil2.load_model(folder, device="cpu")
    cut = ernie_vil2.load_model(FOLDERS[name], device="cpu", max_length=9)
    whole = ernie_vil2.load_model(FOLDERS[name], device="cpu")
    assert model.tokenizer(TEXTS).shape[1] == 9
    np.testing.assert_array_equal(model.encode_texts(TEXTS), cut.encode_texts(TEXTS))
    assert np.abs(model.encode_texts(TEXTS) - whole.encode_texts(TEXTS)).max() > 1e-3


def test_a_length_beyond_the_positions_is_that_of_the_positions(tmp_path):
    """What transformers writes where a tokenizer knows no length."""
    folder = copy_folder("hf_clip", tmp_path / "m", "tokenizer_config.json", model_max_length=10**30)
    assert read_model(folder).config.Data.max_length == 77


@pytest.mark.parametrize(
    ("name", "file", "section", "key", "value"),
    [
        ("hf_clip", "config.json", "text_config", "eos_token_id", 7),  # its tokenizer writes another one
        ("hf_chinese_clip_bin", "config.json", "text_config", "is_decoder", True),
        ("openclip_siglip_timm", "open_clip_config.json", "preprocess_cfg", "std", [0.5, 0.5, 57]),
        ("openclip_siglip_timm", "open_clip_config.json", "model_cfg.text_cfg", "qk_norm", True),
    ],
)
def test_a_setting_that_cannot_be_followed_is_named(name, file, section, key, value, tmp_path):
    """More of them are in tests/hostile/test_family_folders.py."""
    folder = copy_folder(name, tmp_path / name, file, section, **{key: value})
    with pytest.raises(ValueError, match=key.removeprefix("image_")):
        read_model(folder)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (ImageVariant, "epsilon", 1.1e-3),  # Paddle takes up to 1e-3
        (make_text_config, "epsilon", 1.1e-3),
        (make_image_config, "mean", [0.5, 0.5, 124.0]),
        (make_image_config, "std", [0.2, 0.2, 57.0]),
    ],
)
def test_a_configuration_refuses_numbers_out_of_range(section, key, value):
    with pytest.raises(ValueError, match=key):
        section(**{key: value})
    assert ImageVariant(epsilon=1e-3).epsilon == 1e-3


def test_two_files_that_describe_one_tower_otherwise_are_named(tmp_path):
    folder = copy_folder("cn_clip_pt", tmp_path / "m")
    (path,) = [path for path in (folder / "model_configs").iterdir() if "vision_width" in path.read_text()]
    settings = json.loads(path.read_text())
    other = path.with_name("another.json")
    other.write_text(json.dumps(settings | {"vision_layers": 24, "vision_head_width": 16}))
    assert read_model(folder).config.Model.image.heads == 4  # it has other blocks, so it is of another tower
    other.write_text(json.dumps(settings | {"vision_head_width": 16}))
    with pytest.raises(ValueError, match="vision_head_width"):
        read_model(folder)
    shutil.rmtree(folder / "model_configs")  # a width that was not published needs its settings
    with pytest.raises(ValueError, match="model_configs"):
        read_model(folder)
