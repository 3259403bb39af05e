"""Single `.pt` files of PE-Core's authors: what tells their sizes, and what is refused.

Embeddings, gradients and the way back are compared with the authors' in the tests of all families.
"""

import zipfile

import numpy as np
import pytest

from ernie_vil2.models.weights.files import read_weights
from ernie_vil2.models.weights.format import read_model
from ernie_vil2.models.weights.torch_files import read_torch, write_torch
from tests.support.other_families import FOLDERS, copy_folder
from tests.support.weight_files import pickle_text

PE, PE_FILE, PE_SETTINGS = "pe_pt", "PE-Core-tiny.pt", "pe_config.json"
needs_pe = pytest.mark.skipif(PE not in FOLDERS, reason="needs the folder towers/pe_pt of ERNIE_VIL2_FIXTURES")


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


@pytest.mark.parametrize("key", ["weights", "model", "module"])
def test_state_dicts_within_checkpoints_are_found(key, tmp_path):
    write_torch(tmp_path / "plain.pt", {"layer": np.ones(3, np.float32)}, is_checkpoint=True)
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "other.pt", "w") as other:
        for name in plain.namelist():
            other.writestr(name, plain.read(name).replace(pickle_text("state_dict"), pickle_text(key)))
    assert read_torch(tmp_path / "other.pt")["layer"].tolist() == [1, 1, 1]
