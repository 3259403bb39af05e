"""Exports of other people's models: the same embeddings, with their tokenizer and preprocessing in the folder."""

import json

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.export import export
from ernie_vil2.runtime_onnx import OnnxModel
from tests.support.other_families import FOLDERS, expected


@pytest.mark.parametrize("backend", ["onnx", "paddle_inference"])
def test_an_export_encodes_files_and_strings_as_the_authors_do(backend, tmp_path):
    """SigLIP, whose GELU by tanh paddle2onnx would make the exact one: 1e-4 away."""
    folder = FOLDERS["hf_siglip"]
    texts = json.loads((folder / "inputs" / "texts.json").read_text("utf-8"))
    files = [path for path in sorted((folder / "inputs").iterdir()) if path.suffix != ".json"]
    model = ernie_vil2.load_model(folder, device="cpu")
    report = export(model, tmp_path / "made", backend, images=files, texts=texts)
    assert report["images"]["largest_difference"] < 5e-6 and report["texts"]["largest_difference"] < 5e-6
    loaded = ernie_vil2.load_model(tmp_path / "made", device="cpu")
    assert loaded.fingerprint == model.fingerprint
    for one in [loaded, *([OnnxModel(tmp_path / "made")] if backend == "onnx" else [])]:
        np.testing.assert_allclose(one.encode_texts(texts), expected("hf_siglip")["text_embeddings"], atol=5e-6)
        np.testing.assert_allclose(one.encode_images(files), expected("hf_siglip")["image_embeddings"], atol=5e-6)
