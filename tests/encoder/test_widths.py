"""Models trained with Loss.widths give prefixes of their embeddings, in encoding and in exports."""

import json
from functools import partial

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2 import cli as commands
from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.export import NotExportable, export
from ernie_vil2.export.immich import export_for_immich
from ernie_vil2.models.weights.integrity import (
    IntegrityError,
    check_conventions,
    collect_conventions,
    write_model_integrity,
)
from ernie_vil2.runtime_onnx import OnnxModel
from tests.support.checkpoints import write_checkpoint_with_widths, write_untrained_checkpoint
from tests.support.shapes import COLOURS, SHAPES, TOKENS, draw, encode_png

TEXTS = [f"a {colour} {shape}" for colour, shape in zip(COLOURS, SHAPES, strict=True)]
DRAWINGS = [
    draw(rgb, shape, np.random.default_rng(0)) for (rgb, _), shape in zip(COLOURS.values(), SHAPES, strict=True)
]
IMAGES = [encode_png(drawing) for drawing in DRAWINGS]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint_with_widths(tmp_path_factory.mktemp("widths"))


@pytest.fixture(scope="module")
def model(checkpoint):
    return ernie_vil2.load_model(checkpoint)


@pytest.fixture(scope="module")
def plain_model(tmp_path_factory):
    """Return a model with the same weights, but without widths."""
    return ernie_vil2.load_model(write_untrained_checkpoint(tmp_path_factory.mktemp("plain"), TOKENS))


def truncate(embeddings, width):
    return embeddings[:, :width] / np.linalg.norm(embeddings[:, :width], axis=1, keepdims=True)


def test_encoding_gives_normalised_prefixes(model, plain_model):
    pixels = [model.preprocess(image) for image in IMAGES]
    for method, inputs in (("encode_images", IMAGES), ("encode_texts", TEXTS), ("encode_pixels", pixels)):
        encode, expected = getattr(model, method), getattr(plain_model, method)(inputs)
        np.testing.assert_array_equal(encode(inputs), expected)
        np.testing.assert_array_equal(encode(inputs, width=32), expected)
        for width in (8, 16):
            np.testing.assert_allclose(encode(inputs, width=width), truncate(expected, width), atol=1e-6)
        assert encode([], width=8).shape == (0, 8)
    result = model.encode_images([*IMAGES, b"not an image"], on_error="skip", width=8)
    assert result.embeddings.shape == (4, 8) and list(result.skipped) == [4]


def test_model_reports_its_widths_and_refuses_others(model, plain_model):
    assert model.widths == (8, 16, 32) and "8 or 16 or 32 numbers" in repr(model)
    assert plain_model.widths == (32,)
    assert model.fingerprint == plain_model.fingerprint != model.with_width(16).fingerprint
    assert model.with_width(16).widths == (8, 16) and model.with_width(32) is model
    with pytest.raises(ValueError, match="cannot be cut to 12.* 8, 16, 32"):
        model.encode_texts(TEXTS, width=12)
    with pytest.raises(ValueError, match=r"cannot be cut to 16.* Loss\.widths"):
        plain_model.encode_images(IMAGES, width=16)


def test_model_with_cut_embeddings_asks_for_the_whole_one(model, tmp_path):
    narrow = model.with_width(16)
    for use in (narrow.save_pretrained, narrow.get_image_features, narrow.get_text_features):
        with pytest.raises(ValueError, match=r"with_width\(16\)"):
            use(tmp_path / "saved")
    for write in (partial(export, backend="onnx"), export_for_immich):
        with pytest.raises(NotExportable, match="width=16"):
            write(narrow, tmp_path / "exported")


def test_integrity_file_holds_the_widths(model, plain_model, tmp_path):
    assert collect_conventions(model.config)["widths"] == [8, 16, 32]
    assert "widths" not in collect_conventions(plain_model.config)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"")
    write_model_integrity(tmp_path, model.config, [weights.name])
    check_conventions(weights, model.config)
    with pytest.raises(IntegrityError, match=r"Model\.widths \[8, 16, 32\]"):
        check_conventions(weights, plain_model.config)


@pytest.mark.parametrize("target", ["onnx", pytest.param("paddle-inference", marks=pytest.mark.slow)])
def test_export_at_a_width_gives_prefixes(target, model, checkpoint, shapes, tmp_path):
    folder, data = tmp_path / "exported", ["--data", str(shapes["val"])]
    assert commands.run("export", [str(checkpoint), str(folder), "--to", target, "--width", "16", *data]) == 0
    exported = ernie_vil2.load_model(folder)
    assert (exported.embed_dim, exported.widths) == (16, (8, 16))
    assert exported.fingerprint == model.with_width(16).fingerprint
    np.testing.assert_allclose(exported.encode_images(IMAGES), model.encode_images(IMAGES, width=16), atol=2e-6)
    np.testing.assert_allclose(exported.encode_texts(TEXTS, width=8), model.encode_texts(TEXTS, width=8), atol=2e-6)
    if target == "onnx":
        runtime = OnnxModel(folder)
        assert runtime.embed_dim == 16
        np.testing.assert_allclose(runtime.encode_texts(TEXTS), model.encode_texts(TEXTS, width=16), atol=2e-6)


def test_embeddings_are_written_and_scored_at_a_width(checkpoint, model, shapes, tmp_path, capsys):
    data = ["--checkpoint", str(checkpoint), "--data", str(shapes["val"]), "--language", "en"]
    assert commands.run("embed", [*data, "--output", str(tmp_path / "out"), "--width", "16"]) == 0
    embeddings = np.load(tmp_path / "out" / "text_embeddings.npy")
    texts = [json.loads(line)["text"] for line in (tmp_path / "out" / "texts.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(embeddings, model.encode_texts(texts, width=16), atol=1e-6)
    output = ["--output", str(tmp_path / "scores"), "--no-cache"]
    tables = []
    for width in ([], ["--width", "32"], ["--width", "8"]):
        assert commands.run("eval", [*data, *output, *width]) == 0
        tables.append(capsys.readouterr().out.split("\n\n")[1])
    assert tables[0] == tables[1] != tables[2]
    records = list((tmp_path / "scores").glob("*.json"))
    (narrow_record,) = [path for path in records if "width-8" in path.name]
    assert len(records) == 3 and json.loads(narrow_record.read_text())["model"].endswith(", 8 numbers")
    assert commands.run("eval", [*data, *output, "--width", "9"]) == 2
    assert "cannot be cut to 9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("widths", "message"),
    [("[64, 128]", "ends with 128.* 768"), ("[64, 32, 768]", "ascend"), ("[0, 768]", "greater than or equal to 1")],
)
def test_wrong_widths_are_named(widths, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [f"Loss.widths={widths}"])
