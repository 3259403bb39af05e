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
from tests.support.other_families import FOLDERS, OWN

TEXTS = ["a red disc and a green square and a blue disc, again and again and again", "红色的圆和绿色的方块" * 3]


def copy_folder(name, folder, file=None, section=None, **changes):
    """Copy a folder with other values in one of its JSON files."""
    shutil.copytree(FOLDERS[name], folder, ignore=shutil.ignore_patterns("inputs", "expected.*"))
    if file is None:
        return folder
    path = folder / file
    values = json.loads(path.read_text()) if path.is_file() else {}
    (values if section is None else values.setdefault(section, {})).update(changes)
    if path.is_file():
        path.chmod(0o644)
    path.write_text(json.dumps(values))
    return folder


TOKENIZERS = ["hf_clip", "hf_chinese_clip_bin", "hf_siglip", "hf_siglip2_naflex", "hf_altclip", "hf_metaclip2"]


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if name in FOLDERS])
def test_texts_are_cut_at_the_tokenizers_length(name, tmp_path):
    folder = copy_folder(name, tmp_path / name, "tokenizer_config.json", model_max_length=9)
    model = ernie_vil2.load_model(folder, device="cpu")
    cut = ernie_vil2.load_model(FOLDERS[name], device="cpu", max_length=9)
    whole = ernie_vil2.load_model(FOLDERS[name], device="cpu")
    assert model.tokenizer(TEXTS).shape[1] == 9
    np.testing.assert_array_equal(model.encode_texts(TEXTS), cut.encode_texts(TEXTS))
    assert np.abs(model.encode_texts(TEXTS) - whole.encode_texts(TEXTS)).max() > 1e-3


@pytest.mark.parametrize("limit", [2, 0, -1, True, "64", [64]])
def test_a_length_without_room_for_a_word_is_named(limit, tmp_path):
    folder = copy_folder("hf_clip", tmp_path / "m", "tokenizer_config.json", model_max_length=limit)
    with pytest.raises(ValueError, match="model_max_length"):
        read_model(folder)


def test_a_length_beyond_the_positions_is_that_of_the_positions(tmp_path):
    """What transformers writes where a tokenizer knows no length."""
    folder = copy_folder("hf_clip", tmp_path / "m", "tokenizer_config.json", model_max_length=10**30)
    assert read_model(folder).config.Data.max_length == 77


@pytest.mark.parametrize(
    ("name", "file", "section", "changes"),
    [
        ("hf_clip", "config.json", "text_config", {"eos_token_id": 1116}),
        ("hf_clip", "config.json", "text_config", {"eos_token_id": 49407}),
        ("hf_clip", "config.json", "text_config", {"eos_token_id": 7}),  # its tokenizer writes another one
        ("hf_clip", "config.json", "text_config", {"layer_norm_eps": 2e-3}),
        ("hf_clip", "config.json", "vision_config", {"layer_norm_eps": 1.1e-3}),
        ("hf_chinese_clip_bin", "config.json", "text_config", {"layer_norm_eps": 1e-2}),
        ("hf_chinese_clip_bin", "config.json", "text_config", {"pad_token_id": 287}),
        ("hf_chinese_clip_bin", "config.json", "text_config", {"pad_token_id": 5}),
        ("hf_chinese_clip_bin", "config.json", "text_config", {"is_decoder": True}),
        ("hf_siglip", "config.json", "text_config", {"layer_norm_eps": 1e-2}),
        ("hf_siglip", "config.json", "vision_config", {"layer_norm_eps": 1e-2}),
        ("hf_clip", "preprocessor_config.json", None, {"image_mean": [0.5, 0.5, 1.5]}),
        ("hf_clip", "preprocessor_config.json", None, {"image_mean": [123.7, 116.3, 103.5]}),
        ("hf_clip", "preprocessor_config.json", None, {"image_mean": [-0.1, 0.5, 0.5]}),
        ("hf_clip", "preprocessor_config.json", None, {"image_std": [58.4, 57.1, 57.4]}),
        ("hf_clip", "preprocessor_config.json", None, {"resample": [3]}),
        ("hf_clip", "preprocessor_config.json", None, {"resample": {"3": 3}}),
        ("hf_clip", "preprocessor_config.json", None, {"resample": True}),
        ("hf_siglip2_naflex", "preprocessor_config.json", None, {"resample": []}),
        ("openclip_siglip_timm", "open_clip_config.json", "preprocess_cfg", {"mean": [0.5, 0.5, 2]}),
        ("openclip_siglip_timm", "open_clip_config.json", "preprocess_cfg", {"std": [0.5, 0.5, 57]}),
        ("cn_clip_pt", "model_configs/RoBERTa-tiny.json", None, {"text_hidden_size": "24"}),
        ("cn_clip_pt", "model_configs/RoBERTa-tiny.json", None, {"text_hidden_size": 24.0}),
        ("cn_clip_pt", "model_configs/RoBERTa-tiny.json", None, {"text_hidden_size": [24]}),
        ("cn_clip_pt", "model_configs/RoBERTa-tiny.json", None, {"text_hidden_size": 32}),
        ("cn_clip_pt", "model_configs/RoBERTa-tiny.json", None, {"text_num_hidden_layers": "2"}),
        ("cn_clip_pt", "model_configs/ViT-tiny.json", None, {"vision_width": "32"}),
        ("cn_clip_pt", "model_configs/ViT-tiny.json", None, {"vision_patch_size": "8"}),
        ("cn_clip_pt", "model_configs/ViT-tiny.json", None, {"vision_layers": "two"}),
        ("cn_clip_pt", "model_configs/ViT-tiny.json", None, {"vision_head_width": 7}),
        ("cn_clip_pt", "model_configs/ViT-tiny.json", None, {"image_resolution": "32"}),
    ],
)
def test_a_setting_that_cannot_be_followed_is_named(name, file, section, changes, tmp_path):
    files = {"RoBERTa-tiny.json": "text_hidden_size", "ViT-tiny.json": "vision_width"}
    if (key := files.get(file.rpartition("/")[2])) is not None:
        # The fixture's files have names of their own; here the one that describes the tower is meant.
        paths = sorted((FOLDERS[name] / "model_configs").iterdir())
        (path,) = [path for path in paths if key in json.loads(path.read_text())]
        file = f"model_configs/{path.name}"
    folder = copy_folder(name, tmp_path / name, file, section, **changes)
    with pytest.raises(ValueError, match=next(iter(changes)).removeprefix("image_")) as caught:
        read_model(folder)
    assert "\n" not in str(caught.value)


def test_epsilons_up_to_paddles_limit_are_read(tmp_path):
    folder = copy_folder("hf_clip", tmp_path / "m", "config.json", "vision_config", layer_norm_eps=1e-3)
    pixels = [np.zeros((32, 32, 3), np.uint8)]
    assert np.isfinite(ernie_vil2.load_model(folder, device="cpu").encode_pixels(pixels)).all()


@pytest.mark.parametrize("section", [ImageVariant, TextTowerConfig])
def test_a_configuration_refuses_an_epsilon_that_paddle_does_not_take(section):
    assert section(epsilon=1e-3).epsilon == 1e-3
    with pytest.raises(ValueError, match="epsilon"):
        section(epsilon=1.1e-3)


@pytest.mark.parametrize("values", [{"mean": [0.5, 0.5, 124.0]}, {"std": [0.2, 0.2, 57.0]}])
def test_a_configuration_refuses_a_mean_of_bytes(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        ImageTowerConfig(**values)


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


def test_a_width_that_was_not_published_needs_its_settings(tmp_path):
    folder = copy_folder("cn_clip_pt", tmp_path / "m")
    shutil.rmtree(folder / "model_configs")
    with pytest.raises(ValueError, match="model_configs"):
        read_model(folder)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    from tests.support.commands import call

    folder = tmp_path_factory.mktemp("export") / "onnx"
    result = call("export", str(OWN / "hf_siglip"), str(folder), "--to", "onnx")
    assert result.returncode == 0, result.stderr
    return folder


def cut_vocabulary(folder, first):
    content = json.loads((folder / "tokenizer.json").read_text())
    del content["model"]["vocab"][first : first + 20]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    write_checksums(folder, [path.name for path in folder.iterdir() if path.name != CHECKSUMS])


@pytest.mark.parametrize("first", [100, 400])
@pytest.mark.parametrize("load", [ernie_vil2.load_model, OnnxModel])
def test_an_export_with_a_shorter_vocabulary_is_refused(export, load, first, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(export, folder)
    entries = json.loads((folder / ABOUT).read_text())["tokenizer"]["entries"]
    assert entries == len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    load(folder)
    cut_vocabulary(folder, first)
    with pytest.raises(BadExport, match=r"tokenizer.json has 400 entries, and 420"):
        load(folder)
