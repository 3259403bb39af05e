"""Images whose sides are no multiple of the patch: only the pixels of whole patches are used.

The expected embeddings are those of the published folder for the pixels of the whole patches.
"""

import json

import numpy as np
import paddle
import pytest

import ernie_vil2
from ernie_vil2.towers.base import ImageVariant
from tests.support.other_families import FOLDERS, copy_folder
from tests.support.towers import make_image_config

SIDE, LARGER = 32, 35  # both have 4 x 4 patches of 8 pixels
CARRIED_FOLDERS = ["cn_clip_pt", "hf_chinese_clip_bin", "hf_clip", "hf_siglip", "openclip_siglip_timm"]
SQUARE_FOLDERS = [*CARRIED_FOLDERS, *sorted({"eva_pt", "openclip_eva02", "openclip_pe", "pe_pt"} & FOLDERS.keys())]
MORE = 3  # pixels on each side, fewer than a patch of any of the folders
SIZE_KEYS = ("image_size", "image_resolution", "size", "crop_size", "shortest_edge", "height", "width")


def enlarge(value, side, key=""):
    """Return JSON settings in which only the side of the images is changed, from `side` to `side + MORE`."""
    if isinstance(value, dict):
        enlarged = {name: enlarge(inner, side, name) for name, inner in value.items()}
        if {"layers", "hidden_size", "heads"} & value.keys() and "width" in value:
            enlarged["width"] = value["width"]  # the width of a tower's states, not of images
        return enlarged
    return side + MORE if key in SIZE_KEYS and value == side else value


def copy_with_larger_images(name, folder, side):
    copy_folder(name, folder)
    names = ["config.json", "preprocessor_config.json", "processor_config.json", "open_clip_config.json"]
    names.append("pe_config.json")
    for path in [*(folder / name for name in names), *folder.glob("model_configs/*.json")]:
        if path.is_file():
            path.chmod(0o644)
            path.write_text(json.dumps(enlarge(json.loads(path.read_text()), side)))
    return folder


@pytest.mark.parametrize("name", SQUARE_FOLDERS)
def test_pixels_beyond_the_last_whole_patch_are_not_used(name, tmp_path):
    original = ernie_vil2.load_model(FOLDERS[name], device="cpu")
    side = original.preprocessing.size
    model = ernie_vil2.load_model(copy_with_larger_images(name, tmp_path / name, side), device="cpu")
    assert model.preprocessing.size == side + MORE
    pixels = list(np.random.default_rng(0).integers(0, 256, [3, side + MORE, side + MORE, 3], dtype=np.uint8))
    expected = original.encode_pixels([image[:side, :side] for image in pixels])
    np.testing.assert_allclose(model.encode_pixels(pixels), expected, atol=1e-6)


@pytest.mark.parametrize("patches", ["convolution", "linear", "PaddleClas"])
def test_new_tower_may_have_any_image_size(patches):
    sizes = {"name": "ViT", "patch_size": 8, "width": 16, "depth": 1, "heads": 2}
    if patches == "PaddleClas":
        pytest.importorskip("paddleclas")
        sizes["name"] = "paddleclas:ViT"
    else:
        sizes["variant"] = ImageVariant(patches=patches, class_token=False, pooling="mean")
    larger_tower = make_image_config(image_size=LARGER, **sizes).build().eval()
    tower = make_image_config(image_size=SIDE, **sizes).build().eval()
    tower.set_state_dict(larger_tower.state_dict())
    images = paddle.rand([1, 3, LARGER, LARGER])
    expected = tower(images[:, :, :SIDE, :SIDE]).numpy()
    np.testing.assert_allclose(larger_tower(images).numpy(), expected, atol=1e-6)


def test_a_resnet_takes_the_sizes_that_its_authors_code_takes():
    sizes = {"name": "ModifiedResNet", "layers": [1, 1, 1, 1], "width": 4, "heads": 4, "projection": 8}
    for side in (95, 31):
        with pytest.raises(ValueError, match=rf"image_size \({side}\)"):
            make_image_config(image_size=side, **sizes).build()
    tower = make_image_config(image_size=70, **sizes).build().eval()
    assert tower.attnpool.pos_embed.shape[1] == 1 + 4
    assert tower(paddle.rand([2, 3, 70, 70])).shape == [2, 8]
