"""Configurations of small towers, helpers for their arrays, and a tower that only tests have."""

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from ernie_vil2.towers import ImageTowerConfig, TextTowerConfig

VIT = {"name": "ViT", "image_size": 32, "patch_size": 8, "width": 64, "depth": 3, "heads": 2}
CNN = {"name": "RepVGG", "image_size": 32, "width": 8, "depth": 1}
TEXT = {"name": "ernie", "width": 64, "depth": 2, "heads": 2, "max_positions": 24}


def make_image_config(**fields):
    """Return the configuration of an image tower; default of `name`: ViT-B/16."""
    return ImageTowerConfig.read(fields)


def make_text_config(**fields):
    """Return the configuration of a text tower; default of `name`: ernie-base."""
    return TextTowerConfig.read(fields)


def copy_arrays(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def encode(tower, inputs):
    """Return the features that a tower computes in evaluation."""
    tower.eval()
    with paddle.no_grad():
        return tower(paddle.to_tensor(inputs)).numpy()


def assert_same_bits(arrays, expected):
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape), name
        assert arrays[name].tobytes() == array.tobytes(), name


def randomize(model, seed=0):
    """Set all weights far from their initial values, so that a forgotten weight changes the features."""
    rng = np.random.default_rng(seed)
    for name, value in model.state_dict().items():
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        value.set_value((centre + 0.3 * rng.normal(size=value.shape)).astype("float32"))
    return model.eval()


class Cropping(nn.Layer):
    """Image tower whose blocks crop the output of a convolution before the norm, as EfficientNet's do.

    A linear layer over the channels of every pixel follows. The inputs of norm and linear layer are views that Paddle
    has not copied yet.
    """

    def __init__(self, config):
        super().__init__()
        self.width = config.width
        self.stem = nn.Conv2D(3, 6, 3, stride=2, padding=1)
        self.blocks = nn.LayerList([CroppingBlock(6, 9), CroppingBlock(9, self.width)])

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return x.mean(axis=[2, 3])


class CroppingBlock(nn.Layer):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2D(inputs, outputs, 2, stride=2, padding=1)
        self.norm = nn.BatchNorm2D(outputs)
        self.gate = nn.Linear(outputs, outputs)

    def forward(self, x):
        x = F.swish(self.norm(self.conv(x)[:, :, 1:, 1:]))
        return x * F.sigmoid(self.gate(x.transpose([0, 2, 3, 1]))).transpose([0, 3, 1, 2])
