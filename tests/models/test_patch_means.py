"""Image towers return the mean of the last block's patches on request, with the same features as without."""

import numpy as np
import paddle
import pytest

from ernie_vil2.device.extras import is_installed
from tests.support.towers import make_image_config

VIT = {"name": "ViT", "image_size": 16, "patch_size": 4, "width": 24, "depth": 2, "heads": 3}
EVA_02 = {"mlp": "swiglu", "hidden": 40, "activation": "silu", "rotary": {"first_half": "rows"}, "head": 10}
TOWERS = {
    "ViT": VIT,
    "tanh": {**VIT, "variant": {"pooling": "tanh"}},
    "EVA-02": {**VIT, "variant": EVA_02},
    "mean": {**VIT, "variant": {"pooling": "mean", "class_token": False, "norm_after_mean": True}},
    "NaFlex": {**VIT, "name": "NaFlex", "variant": {"pooling": "attention", "class_token": False}},
    "RepVGG": {"name": "RepVGG", "image_size": 64, "width": 8, "depth": 2},
    "ModifiedResNet": {"name": "ModifiedResNet", "image_size": 64, "width": 8, "layers": [1, 1, 1, 1], "heads": 4,
                       "projection": 20},
    "ConvNeXt": {"name": "ConvNeXt", "image_size": 64, "width": 8, "layers": [1, 1, 1, 1], "head": 12},
    "PaddleClas's ViT": {**VIT, "name": "paddleclas:ViT"},
    "PaddleClas's RepVGG": {"name": "paddleclas:RepVGG", "image_size": 64, "width": 8, "depth": 2},
    "EfficientNet": {"name": "paddleclas:EfficientNetB0", "image_size": 64},
}  # fmt: skip


@pytest.mark.parametrize("name", TOWERS)
def test_mean_is_that_of_the_last_blocks_patches(name):
    fields = TOWERS[name]
    if fields["name"].startswith("paddleclas:") and not is_installed("paddleclas"):
        pytest.skip("PaddleClas is not installed")
    paddle.seed(0)
    tower = make_image_config(**fields).build()
    tower.eval()
    # EfficientNet has a convolution with a norm after its blocks: the map is the input of the pooling.
    is_map_pooled = name == "EfficientNet"
    outputs = []
    if is_map_pooled:
        tower.network._pool.register_forward_pre_hook(lambda layer, inputs: outputs.append(inputs[0].numpy()))
    else:
        tower.blocks[-1].register_forward_post_hook(lambda layer, inputs, output: outputs.append(output.numpy()))
    images = paddle.to_tensor(np.random.default_rng(0).normal(size=[2, 3, fields["image_size"], fields["image_size"]]))
    with paddle.no_grad():
        features, mean = tower(images.astype("float32"), with_patch_mean=True)
        expected_features = tower(images.astype("float32"))

    last = outputs[0]
    has_class_token = "patch_size" in fields and fields.get("variant", {}).get("class_token", True)
    if last.ndim == 4:
        expected = last.mean(axis=(2, 3))
    else:
        expected = last[:, has_class_token:].mean(axis=1)
    assert mean.shape == [2, tower.patch_width]
    np.testing.assert_allclose(mean.numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(features.numpy(), expected_features.numpy(), rtol=1e-5, atol=1e-6)


def test_other_backbones_have_no_mean():
    if not is_installed("paddleclas"):
        pytest.skip("PaddleClas is not installed")
    assert make_image_config(name="paddleclas:PPLCNet_x0_25", image_size=64).build().patch_width is None
