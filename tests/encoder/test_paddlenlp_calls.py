"""The calls of PaddleNLP's models on ours: from_pretrained, save_pretrained, get_image_features, get_text_features."""

import numpy as np
import paddle
import pytest

from ernie_vil2 import ErnieViL2
from ernie_vil2.export import export
from tests.support.paths import FIXTURES, ROOT

PADDLENLP = FIXTURES / "released" / "paddlenlp_tiny"
TEXTS = ["一只猫", "a disc", "两个 红 圆"]


@pytest.fixture(scope="module")
def model():
    return ErnieViL2.from_pretrained(PADDLENLP)


@pytest.fixture(scope="module")
def inputs(model):
    """Return pixels and ids, as tensors."""
    size = model.config.Model.image.image_size
    pixels = np.random.default_rng(0).normal(size=(3, 3, size, size)).astype("float32")
    return paddle.to_tensor(pixels), paddle.to_tensor(model.tokenizer(TEXTS))


@paddle.no_grad()
def test_features_equal_those_of_paddlenlp(model, inputs):
    transformers = pytest.importorskip("paddlenlp.transformers", reason="PaddleNLP is not installed")
    theirs = transformers.ErnieViLModel.from_pretrained(str(PADDLENLP)).eval()
    pixels, ids = inputs
    # Not normalised, so that a factor would show.
    np.testing.assert_allclose(model.get_image_features(pixels), theirs.get_image_features(pixels), atol=1e-5)
    np.testing.assert_allclose(model.get_text_features(ids), theirs.get_text_features(ids), atol=1e-5)
    assert abs(np.linalg.norm(model.get_text_features(ids).numpy(), axis=1) - 1).max() > 0.1


def test_gradients_flow_through_features(model, inputs):
    for features in (model.get_image_features(inputs[0]), model.get_text_features(inputs[1])):
        features.sum().backward()
    network = model.backend.model
    for tower in (network.image, network.text):
        assert max(float(parameter.grad.abs().max()) for parameter in tower.parameters()) > 0
    network.clear_gradients()


@pytest.mark.parametrize("layout", ["ernie_vil2", "paddlenlp"])
def test_saved_model_gives_the_embeddings_of_its_changed_weights(layout, tmp_path):
    model = ErnieViL2.from_pretrained(PADDLENLP)
    parameter = model.backend.model.text.parameters()[0]
    parameter.set_value(parameter * 1.5)
    before = model.encode_texts(TEXTS)

    model.save_pretrained(tmp_path / "saved", layout)

    loaded = ErnieViL2.from_pretrained(tmp_path / "saved", verify=True)
    np.testing.assert_array_equal(loaded.encode_texts(TEXTS), before)
    with pytest.raises(FileExistsError, match="saved"):
        model.save_pretrained(tmp_path / "saved")


def test_format_of_paddlenlp_is_refused_for_other_towers(tmp_path):
    model = ErnieViL2.from_pretrained(FIXTURES / "shapes" / "model")  # its image tower is no ViT
    with pytest.raises(ValueError, match="image"):
        model.save_pretrained(tmp_path / "saved", "paddlenlp")
    assert not (tmp_path / "saved").exists()


def test_exports_refuse_calls_that_need_layers(model, inputs, tmp_path):
    export(model, tmp_path / "export", "paddle_inference")
    exported = ErnieViL2.from_pretrained(tmp_path / "export")
    for call in (
        lambda: exported.save_pretrained(tmp_path / "saved"),
        lambda: exported.get_image_features(inputs[0]),
        lambda: exported.get_text_features(inputs[1]),
    ):
        with pytest.raises(ValueError, match="paddle_inference"):
            call()


def test_paddle_hub_loads_a_model_from_a_checkout(model):
    names = paddle.hub.list(str(ROOT), source="local")
    assert {"load_model", "ernie_vil_2_0_base_zh"} <= set(names)
    loaded = paddle.hub.load(str(ROOT), "load_model", source="local", weights=str(PADDLENLP))
    np.testing.assert_array_equal(loaded.encode_texts(TEXTS), model.encode_texts(TEXTS))
