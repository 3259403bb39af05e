"""A small model, its exports by backend, and inputs for it."""

import numpy as np
import paddle
import pytest

from ernie_vil2.config import load_config
from ernie_vil2.data.preprocessing import Preprocessing
from ernie_vil2.data.tokenizer import WordPieceTokenizer
from ernie_vil2.encoder import ErnieViL2, PaddleBackend
from ernie_vil2.export import export
from ernie_vil2.losses import get_initial_bias
from ernie_vil2.models import build_dual_encoder
from tests.support.shapes import COLOURS, SHAPES, TOKENS, draw, encode_png

TEXT_TOWER = "Model.text={name: %s, width: 32, depth: 2, heads: 2, max_positions: 16, pooling: %s}"
TEXTS = [f"a {colour} {shape}{' a' * more}" for more, (colour, shape) in enumerate(zip(COLOURS, SHAPES, strict=True))]
IMAGES = [encode_png(draw(rgb, shape, np.random.default_rng(0), size)) for (rgb, _), shape, size in
          zip(COLOURS.values(), SHAPES, (32, 40, 55, 90), strict=True)]  # fmt: skip
GRAPHS = {
    "onnx": {"image.onnx", "text.onnx"},
    "paddle_inference": {"image.json", "image.pdiparams", "text.json", "text.pdiparams"},
}


def make_untrained_encoder(*overrides):
    """Return an encoder with untrained towers of this package."""
    config = load_config(None, ["Data.max_length=16", *overrides])
    paddle.seed(0)
    model = build_dual_encoder(config.Model, len(TOKENS), bias=get_initial_bias(config.Loss))
    model.eval()
    return ErnieViL2(
        PaddleBackend(model, Preprocessing.from_config(config.Model.image)), WordPieceTokenizer(TOKENS, 16), config
    )


@pytest.fixture(scope="session")
def model():
    return make_untrained_encoder(
        "Model.image={name: ViT, image_size: 32, patch_size: 16, width: 32, depth: 1, heads: 2}",
        TEXT_TOWER % ("ernie", "cls"),
    )


@pytest.fixture(scope="session")
def exports(model, tmp_path_factory):
    """Export the model for every backend; a test that changes a folder copies it first."""
    folder = tmp_path_factory.mktemp("exports")
    for backend in GRAPHS:
        export(model, folder / backend, backend, inputs=(IMAGES, TEXTS))
    return folder
