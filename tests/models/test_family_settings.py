"""Settings of other people's folders that change embeddings: each is followed, or refused by its name."""

import json
import shutil

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.config import ImageTowerConfig, TextTowerConfig
from ernie_vil2.config.model import ImageVariant
from ernie_vil2.io.export_folder import ABOUT, BadExport
from ernie_vil2.io.files import CHECKSUMS, write_checksums
from ernie_vil2.models.weights.stored import read_model
from ernie_vil2.runtime_onnx import OnnxModel
from tests.support.commands import call
from tests.support.other_families import FOLDERS, OWN, copy_folder

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


@pytest.mark.parametrize("limit", [2, True, "64"])
def test_a_length_without_room_for_a_word_is_named(limit, tmp_path):
    folder = copy_folder("hf_clip", tmp_path / "m", "tokenizer_config.json", model_max_length=limit)
    with pytest.raises(ValueError, match="model_max_length"):
        read_model(folder)


def test_a_length_beyond_the_positions_is_that_of_the_positions(tmp_path):
    """What transformers writes where a tokenizer knows no length."""
    folder = copy_folder("hf_clip", tmp_path / "m", "tokenizer_config.json", model_max_length=10**30)
    assert read_model(folder).config.Data.max_length == 77


@pytest.mark.parametrize(
    ("name", "file", "section", "key", "value"),
    [
        ("hf_clip", "config.json", "text_config", "eos_token_id", 7),  # its tokenizer writes another one
        ("hf_clip", "config.json", "vision_config", "layer_norm_eps", 1.1e-3),
        ("hf_chinese_clip_bin", "config.json", "text_config", "is_decoder", True),
        ("hf_clip", "preprocessor_config.json", None, "image_mean", [123.7, 116.3, 103.5]),
        ("openclip_siglip_timm", "open_clip_config.json", "preprocess_cfg", "std", [0.5, 0.5, 57]),
    ],
)
def test_a_setting_that_cannot_be_followed_is_named(name, file, section, key, value, tmp_path):
    """More of them are in tests/hostile/test_family_folders.py."""
    folder = copy_folder(name, tmp_path / name, file, section, **{key: value})
    with pytest.raises(ValueError, match=key.removeprefix("image_")):
        read_model(folder)


def test_epsilons_up_to_paddles_limit_are_read(tmp_path):
    folder = copy_folder("hf_clip", tmp_path / "m", "config.json", "vision_config", layer_norm_eps=1e-3)
    pixels = [np.zeros((32, 32, 3), np.uint8)]
    assert np.isfinite(ernie_vil2.load_model(folder, device="cpu").encode_pixels(pixels)).all()


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (ImageVariant, "epsilon", 1.1e-3),  # Paddle takes up to 1e-3
        (TextTowerConfig, "epsilon", 1.1e-3),
        (ImageTowerConfig, "mean", [0.5, 0.5, 124.0]),
        (ImageTowerConfig, "std", [0.2, 0.2, 57.0]),
    ],
)
def test_a_configuration_refuses_numbers_out_of_range(section, key, value):
    with pytest.raises(ValueError, match=key):
        section(**{key: value})


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


def test_an_export_with_a_shorter_vocabulary_is_refused(tmp_path):
    pytest.importorskip("paddle2onnx", reason="paddle2onnx has no release for this Python")
    folder = tmp_path / "onnx"
    result = call("export", OWN / "hf_siglip", folder, "--to", "onnx")
    assert result.returncode == 0, result.stderr
    content = json.loads((folder / "tokenizer.json").read_text())
    assert json.loads((folder / ABOUT).read_text())["tokenizer"]["entries"] == len(content["model"]["vocab"])
    del content["model"]["vocab"][100:120]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    write_checksums(folder, [path.name for path in folder.iterdir() if path.name != CHECKSUMS])
    for load in (ernie_vil2.load_model, OnnxModel):
        with pytest.raises(BadExport, match=r"tokenizer.json has 400 entries, and 420"):
            load(folder)
