"""A dual encoder of another family, all the way: from its folder through a fine-tuning with LoRA, an evaluation, an
index, a query and an ONNX export, and back to the authors' layout."""

import json

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2 import runtime_onnx
from ernie_vil2.models.weights.format import read_model
from ernie_vil2.models.weights.write_back import find_layout
from tests.support.commands import succeed
from tests.support.other_families import FOLDERS
from tests.support.trainings import assert_same_arrays

TEXTS = ["a red disc", "a green square", "红色的圆"]
CASES = [pytest.param(name, marks=() if name == "hf_siglip" else pytest.mark.slow) for name in FOLDERS]
LORA = {"cn_clip_rn50": "image.layer*"}
"""Layers with LoRA, where those of the image tower have other names."""


def hits_of(printed):
    """Return the ids of what was found, by query."""
    return [[hit["id"] for hit in json.loads(line)["hits"]] for line in printed.splitlines() if line[:1] == "{"]


@pytest.mark.parametrize("name", CASES)
def test_from_the_folder_and_back(name, shapes, tmp_path):
    folder, run = FOLDERS[name], tmp_path / "run"
    layers = [LORA.get(name, "image.blocks.*"), "text.network.encoder.layers.*"]
    settings = [
        "Model.like=weights", f"Model.weights={folder}", f"Tuning.lora={{rank: 2, layers: {layers}}}",
        "Loss.weights={image_image: 0, text_text: 0}", "Views.languages={zh: 1.0, en: 1.0}", "Data.text_id=id",
        f"Data.train=[{shapes['train']}]", "Data.workers=0", "Optimizer.learning_rate=1e-2", "Schedule.warmup_steps=1",
        "Training.steps=10", "Training.global_batch=16", "Training.device=cpu", f"Training.output={run}",
    ]  # fmt: skip
    succeed("train", *(word for setting in settings for word in ("-o", setting)))
    source, trained = read_model(folder), read_model(run)
    assert trained.arrays.keys() == dict(source.arrays).keys()
    changed = [key for key in trained.arrays if not np.array_equal(trained.arrays[key], source.arrays[key])]
    assert any(key.startswith("image.") for key in changed) and any(key.startswith("text.network.") for key in changed)

    evaluation = ["--checkpoint", run, "--data", shapes["val"], "--language", "en", "--output", tmp_path / "e"]
    assert "R@1" in succeed("eval", *evaluation)
    index, graphs = tmp_path / "index", tmp_path / "graphs"
    succeed("search", "build", "--index", index, "--checkpoint", run, "--data", shapes["val"])
    printed = succeed("search", "query", "--index", index, "--json", *TEXTS)

    succeed("export", run, graphs, "--to", "onnx")
    model, exported = ernie_vil2.load_model(run), ernie_vil2.load_model(graphs)
    np.testing.assert_allclose(exported.encode_texts(TEXTS), model.encode_texts(TEXTS), atol=1e-5)
    images = sorted(path for path in (folder / "inputs").iterdir() if path.suffix != ".json")
    np.testing.assert_allclose(exported.encode_images(images), model.encode_images(images), atol=1e-5)
    light = runtime_onnx.OnnxModel(graphs)  # without Paddle
    np.testing.assert_allclose(light.encode_texts(TEXTS), exported.encode_texts(TEXTS), atol=1e-6)
    np.testing.assert_allclose(light.encode_images(images), exported.encode_images(images), atol=1e-6)
    assert exported.fingerprint == model.fingerprint, "an index of the run serves from its export"
    again = succeed("search", "query", "--index", index, "--checkpoint", graphs, "--json", *TEXTS)
    assert hits_of(printed) == hits_of(again) and len(hits_of(printed)) == len(TEXTS)

    succeed("convert", run, tmp_path / "back")
    back = read_model(tmp_path / "back")
    assert (
        find_layout(tmp_path / "back") == find_layout(folder) and back.family.array_names == source.family.array_names
    )
    assert_same_arrays(dict(back.arrays), dict(trained.arrays))
    handed = ernie_vil2.load_model(tmp_path / "back")
    np.testing.assert_array_equal(handed.encode_texts(TEXTS), model.encode_texts(TEXTS))
    np.testing.assert_array_equal(handed.encode_images(images), model.encode_images(images))
