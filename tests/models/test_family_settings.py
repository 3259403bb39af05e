"""Settings of other people's folders that change embeddings: each is followed, or refused and named."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.models.weights.format import read_model
from ernie_vil2.models.weights.settings import Settings
from ernie_vil2.towers.base import ImageVariant
from tests.support.other_families import FOLDERS, copy_folder
from tests.support.towers import make_image_config, make_text_config

TEXTS = ["a red disc and a green square and a blue disc, again and again and again", "红色的圆和绿色的方块" * 3]


@pytest.mark.parametrize("name", ["hf_clip", "hf_chinese_clip_bin", "hf_siglip2_naflex"])
def test_texts_are_cut_at_the_length_of_the_tokenizer(name, tmp_path):
    folder = copy_folder(name, tmp_path / name, "tokenizer_config.json", model_max_length=9)
    model = ernie_vil2.load_model(folder, device="cpu")
    short_model = ernie_vil2.load_model(FOLDERS[name], device="cpu", max_length=9)
    long_model = ernie_vil2.load_model(FOLDERS[name], device="cpu")
    assert model.tokenizer(TEXTS).shape[1] == 9
    np.testing.assert_array_equal(model.encode_texts(TEXTS), short_model.encode_texts(TEXTS))
    assert np.abs(model.encode_texts(TEXTS) - long_model.encode_texts(TEXTS)).max() > 1e-3


def test_length_is_bounded_by_the_positions(tmp_path):
    # transformers writes 10^30 for a tokenizer without a length.
    folder = copy_folder("hf_clip", tmp_path / "m", "tokenizer_config.json", model_max_length=10**30)
    assert read_model(folder).config.Data.max_length == 77


@pytest.mark.parametrize(
    ("name", "file", "section", "key", "value"),
    [
        ("hf_clip", "config.json", "text_config", "eos_token_id", 7),  # its tokenizer writes another token
        ("hf_chinese_clip_bin", "config.json", "text_config", "is_decoder", True),
        ("openclip_siglip_timm", "open_clip_config.json", "preprocess_cfg", "std", [0.5, 0.5, 57]),
        ("openclip_siglip_timm", "open_clip_config.json", "model_cfg.text_cfg", "qk_norm", True),
    ],
)
def test_unsupported_setting_is_named(name, file, section, key, value, tmp_path):
    # tests/hostile/test_family_folders.py has more of them.
    folder = copy_folder(name, tmp_path / name, file, section, **{key: value})
    with pytest.raises(ValueError, match=key.removeprefix("image_")):
        read_model(folder)


def test_older_section_of_the_text_tower_goes_first(tmp_path):
    source = read_model(FOLDERS["hf_clip"])
    text = json.loads((FOLDERS["hf_clip"] / "config.json").read_text())["text_config"]
    # What is left in text_config are defaults, as in some older folders.
    folder = copy_folder(
        "hf_clip", tmp_path / "m", "config.json", text_config_dict=text, text_config={"vocab_size": 49_408}
    )
    assert read_model(folder).config.Model == source.config.Model
    text["vocab_size"] = 49_408
    folder = copy_folder("hf_clip", tmp_path / "wrong", "config.json", text_config_dict=text)
    with pytest.raises(ValueError, match="text_config_dict.vocab_size is 49408"):
        read_model(folder)


@pytest.mark.parametrize(
    ("make_section", "key", "value"),
    [
        (ImageVariant, "epsilon", 1.1e-3),  # Paddle accepts up to 1e-3
        (make_text_config, "epsilon", 1.1e-3),
        (make_image_config, "mean", [0.5, 0.5, 124.0]),
        (make_image_config, "std", [0.2, 0.2, 57.0]),
    ],
)
def test_configuration_refuses_numbers_out_of_range(make_section, key, value):
    with pytest.raises(ValueError, match=key):
        make_section(**{key: value})
    assert ImageVariant(epsilon=1e-3).epsilon == 1e-3


def test_contradicting_files_of_a_tower_are_named(tmp_path):
    folder = copy_folder("cn_clip_pt", tmp_path / "m")
    (path,) = [path for path in (folder / "model_configs").iterdir() if "vision_width" in path.read_text()]
    settings = json.loads(path.read_text())
    second_path = path.with_name("another.json")
    # A file with another number of blocks describes another tower, so it does not contradict the first one.
    second_path.write_text(json.dumps(settings | {"vision_layers": 24, "vision_head_width": 16}))
    assert read_model(folder).config.Model.image.heads == 4
    second_path.write_text(json.dumps(settings | {"vision_head_width": 16}))
    with pytest.raises(ValueError, match="vision_head_width"):
        read_model(folder)
    shutil.rmtree(folder / "model_configs")  # a width that was never published needs its settings
    with pytest.raises(ValueError, match="model_configs"):
        read_model(folder)


def test_key_of_a_stranger_is_quoted_briefly():
    settings = Settings(Path("config.json"), {"\x1b[2J" + 1000 * "x": 1})
    with pytest.raises(ValueError, match="config.json: .*there is no setting") as error:
        settings.check_keys(["width"])
    assert len(str(error.value)) < 300 and str(error.value).isprintable()


def test_factor_of_pixels_that_is_no_number_is_refused():
    settings = Settings(Path("preprocessor_config.json"), {"rescale_factor": math.nan})
    with pytest.raises(ValueError, match="rescale_factor is nan"):
        settings.read_normalisation([0.5] * 3, [0.5] * 3)


@pytest.mark.parametrize("content", [{}, {"tokenizer_kwargs": None}, {"tokenizer_kwargs": {}}])
def test_missing_section_is_empty(content):
    section = Settings(Path("config.json"), content).open_optional_section("tokenizer_kwargs")
    assert section.values == {} and section.prefix == "tokenizer_kwargs."
    with pytest.raises(ValueError, match=r"config\.json: tokenizer_kwargs "):
        Settings(Path("config.json"), {"tokenizer_kwargs": "x"}).open_optional_section("tokenizer_kwargs")
