"""Single `.pt` files of the authors of PE-Core and EVA-02-CLIP: what tells their sizes, and what is refused.

Embeddings, gradients and the way back are compared with the authors' in the tests of all families.
"""

import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from ernie_vil2.models.weights.files import read_weights
from ernie_vil2.models.weights.format import read_model, recognise_model, write_model
from ernie_vil2.models.weights.torch_files import read_torch, write_torch
from tests.support.other_families import FOLDERS, copy_folder
from tests.support.weight_files import pickle_text

PE, PE_FILE, PE_SETTINGS = "pe_pt", "PE-Core-tiny.pt", "pe_config.json"
EVA, EVA_FILE, EVA_SETTINGS = "eva_pt", "EVA02_CLIP_tiny_psz8.pt", "model_configs/EVA02-CLIP-tiny.json"
needs_pe = pytest.mark.skipif(PE not in FOLDERS, reason="needs the folder towers/pe_pt of ERNIE_VIL2_FIXTURES")
needs_eva = pytest.mark.skipif(EVA not in FOLDERS, reason="needs the folder towers/eva_pt of ERNIE_VIL2_FIXTURES")


@needs_pe
@pytest.mark.parametrize(
    ("section", "setting", "culprit"),
    [
        ("vision", {"use_rope2d": False}, "vision.use_rope2d is False"),
        ("vision", {"use_cls_token": True}, "vision.use_cls_token is True; its weights say False"),
        ("vision", {"depth": 2}, "vision.depth is 2; there is no setting of this name"),
        ("vision", {"heads": 5}, r"width \(24\) must be divisible by heads \(5\)"),
        ("text", {"width": 24}, "text.width is 24; its weights say 16"),
    ],
)
def test_settings_that_do_not_fit_pe_cores_weights_are_named(section, setting, culprit, tmp_path):
    folder = copy_folder(PE, tmp_path / "model", PE_SETTINGS, section, **setting)
    with pytest.raises(ValueError, match=culprit):
        read_model(folder).build()


@needs_pe
def test_heads_of_unpublished_widths_are_not_guessed(tmp_path):
    folder = copy_folder(PE, tmp_path / "model")
    (folder / PE_SETTINGS).unlink()
    with pytest.raises(ValueError, match="a tower of width 16 is not one of the published models"):
        read_model(folder)


@needs_pe
@pytest.mark.parametrize("heads", [{192: 3}, {1536: 16}], ids=str)
def test_heads_of_published_widths_are_known_without_settings(heads, tmp_path):
    ((width, num_heads),) = heads.items()
    folder = copy_folder(PE, tmp_path / "model")
    (folder / PE_SETTINGS).unlink()
    arrays = read_weights(folder / PE_FILE)
    # Twenty-four numbers are the width of the images' tower only, sixteen that of the texts'.
    sizes = {24: width, 72: 3 * width, 48: 2 * width, 96: 4 * width}
    text_sizes = {16: 512, 48: 3 * 512, 64: 2048}
    resized = {}
    for name, array in arrays.items():
        sizes_of_tower = sizes if name.startswith("visual.") else text_sizes
        shape = [sizes_of_tower.get(size, size) for size in array.shape]
        resized[name] = np.zeros(shape, np.float32)
    (folder / PE_FILE).unlink()
    write_torch(folder / PE_FILE, resized, is_checkpoint=False)
    model = read_model(folder).config.Model
    assert (model.image.heads, model.image.variant.pooling_heads, model.text.heads) == (num_heads, 8, 8)


@needs_eva
@pytest.mark.parametrize(
    ("section", "setting", "culprit"),
    [
        ("vision_cfg", {"subln": False}, "subln is False"),
        ("vision_cfg", {"width": 32}, "width is 32; its weights say 24"),
        ("vision_cfg", {"head_width": 7}, "head_width is 7; it does not divide the width, 24"),
        ("vision_cfg", {"use_mean_pooling": False}, "use_mean_pooling is False; there is no setting of this name"),
        ("text_cfg", {"hf_model_name": "bert-base"}, "hf_model_name is 'bert-base'; there is no setting of this name"),
    ],
)
def test_settings_that_do_not_fit_eva_clips_weights_are_named(section, setting, culprit, tmp_path):
    folder = copy_folder(EVA, tmp_path / "model", EVA_SETTINGS, section, **setting)
    with pytest.raises(ValueError, match=culprit):
        read_model(folder)


@needs_eva
def test_heads_of_eva_clip_are_those_of_the_settings_or_of_published_widths(tmp_path):
    folder = copy_folder(EVA, tmp_path / "model", EVA_SETTINGS, "vision_cfg", head_width=8, pt_hw_seq_len=24)
    image = read_model(folder).config.Model.image
    assert (image.heads, image.variant.rotary.grid) == (3, 24)
    shutil.copyfile(folder / EVA_SETTINGS, folder / "model_configs" / "other.json")
    copied = json.loads((folder / EVA_SETTINGS).read_text())
    copied["vision_cfg"]["head_width"] = 12
    (folder / EVA_SETTINGS).write_text(json.dumps(copied))
    with pytest.raises(ValueError, match="head_width is 8; EVA02-CLIP-tiny.json describes the same tower differently"):
        read_model(folder)
    shutil.rmtree(folder / "model_configs")
    with pytest.raises(ValueError, match="a tower of width 24 is not one of the published models"):
        read_model(folder)


@needs_eva
def test_settings_of_an_eva01_clip_of_the_same_sizes_do_not_count(tmp_path):
    folder = copy_folder(EVA, tmp_path / "model")
    settings = json.loads((folder / EVA_SETTINGS).read_text())
    sizes = {key: settings["vision_cfg"][key] for key in ("image_size", "layers", "width", "patch_size")}
    settings["vision_cfg"] = sizes | {"eva_model_name": "eva-clip-tiny", "ls_init_value": 0.1, "drop_path_rate": 0.0}
    (folder / "model_configs" / "EVA01-CLIP-tiny.json").write_text(json.dumps(settings))
    assert read_model(folder).config.Model == read_model(FOLDERS[EVA]).config.Model


@needs_eva
def test_eva_clip_without_swiglu_is_refused_by_name(tmp_path):
    folder = copy_folder(EVA, tmp_path / "model")
    arrays = {name: array for name, array in read_weights(folder / EVA_FILE).items() if ".mlp.w1." not in name}
    (folder / EVA_FILE).unlink()
    write_torch(folder / EVA_FILE, arrays, is_checkpoint=True)
    with pytest.raises(ValueError, match="EVA-CLIP without SwiGLU"):
        read_model(folder)


@needs_eva
def test_eva_clip_with_larger_images_goes_back_without_the_old_angles(tmp_path):
    stored = read_model(FOLDERS[EVA])
    model = stored.config.Model
    image = model.image.model_copy(update={"image_size": 48})
    arrays = {**stored.arrays, "image.pos_embed": np.ones([1, 37, 24], "float32")}
    larger = stored.config.model_copy(update={"Model": model.model_copy(update={"image": image})})
    write_model(replace(stored, arrays=arrays, config=larger), tmp_path / "back", "eva-clip", origin=FOLDERS[EVA])
    assert read_model(tmp_path / "back").config.Model.image.image_size == 48
    assert not [name for name in read_weights(tmp_path / "back" / EVA_FILE) if "rope" in name]


def test_only_files_that_may_be_weights_are_counted(tmp_path):
    folder = copy_folder("cn_clip_pt", tmp_path / "m")
    (folder / "._clip_cn.pt").write_bytes(b"\0\5\x16\7")  # as macOS adds it
    (folder / "old.pt").mkdir()
    assert recognise_model(folder)[1].weights == next(folder.glob("clip*.pt"))


@pytest.mark.parametrize("key", ["weights", "model", "module"])
def test_state_dicts_within_checkpoints_are_found(key, tmp_path):
    write_torch(tmp_path / "plain.pt", {"layer": np.ones(3, np.float32)}, is_checkpoint=True)
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "other.pt", "w") as other:
        for name in plain.namelist():
            other.writestr(name, plain.read(name).replace(pickle_text("state_dict"), pickle_text(key)))
    assert read_torch(tmp_path / "other.pt")["layer"].tolist() == [1, 1, 1]
