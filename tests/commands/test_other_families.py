"""A dual encoder of another family is fine-tuned, evaluated, searched with, exported and written back as it came."""

import json

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2 import runtime_onnx
from ernie_vil2.models.weights.format import read_model
from ernie_vil2.models.weights.write_back import find_layout
from tests.support.commands import succeed
from tests.support.other_families import FOLDERS
from tests.support.trainings import assert_same_arrays, to_arguments

TEXTS = ["a red disc", "a green square", "红色的圆"]
CASES = [pytest.param(name, marks=() if name == "hf_siglip" else pytest.mark.slow) for name in FOLDERS]
LORA = {"cn_clip_rn50": "image.layer*", "openclip_convnext": "image.layer*"}
"""Layers of the image tower with LoRA, where they have another name than `image.blocks`."""


def parse_hits(printed):
    """Return the ids of the hits of each query."""
    hits = []
    for line in printed.splitlines():
        if line.startswith("{"):
            hits.append([hit["id"] for hit in json.loads(line)["hits"]])
    return hits


@pytest.mark.parametrize("name", CASES)
def test_model_passes_all_commands_and_keeps_its_layout(name, shapes, tmp_path):
    folder, run = FOLDERS[name], tmp_path / "run"
    layers = [LORA.get(name, "image.blocks.*"), "text.network.encoder.layers.*"]
    settings = [
        "Model.like=weights", f"Model.weights={folder}", f"Tuning.lora={{rank: 2, layers: {layers}}}",
        "Loss.weights={image_image: 0, text_text: 0}", "Views.languages={zh: 1.0, en: 1.0}", "Data.text_id=id",
        f"Data.train=[{shapes['train']}]", "Data.workers=0", "Optimizer.learning_rate=1e-2", "Schedule.warmup_steps=1",
        "Training.steps=10", "Training.global_batch=16", "Training.device=cpu", f"Training.output={run}",
    ]  # fmt: skip
    succeed("train", *to_arguments(settings))
    source, trained = read_model(folder), read_model(run)
    assert trained.arrays.keys() == dict(source.arrays).keys()
    changed = [key for key in trained.arrays if not np.array_equal(trained.arrays[key], source.arrays[key])]
    assert any(key.startswith("image.") for key in changed)
    assert any(key.startswith("text.network.") for key in changed)

    evaluation = ["--checkpoint", run, "--data", shapes["val"], "--language", "en", "--output", tmp_path / "e"]
    assert "R@1" in succeed("eval", *evaluation)
    index, graphs = tmp_path / "index", tmp_path / "graphs"
    succeed("search", "build", "--index", index, "--checkpoint", run, "--data", shapes["val"])
    printed = succeed("search", "query", "--index", index, "--json", *TEXTS)

    succeed("export", run, graphs, "--to", "onnx")
    model, exported = ernie_vil2.load_model(run), ernie_vil2.load_model(graphs)
    # ONNX Runtime sums in another order than Paddle.
    np.testing.assert_allclose(exported.encode_texts(TEXTS), model.encode_texts(TEXTS), atol=1e-5)
    images = sorted(path for path in (folder / "inputs").iterdir() if path.suffix != ".json")
    np.testing.assert_allclose(exported.encode_images(images), model.encode_images(images), atol=1e-5)
    without_paddle = runtime_onnx.OnnxModel(graphs)
    np.testing.assert_allclose(without_paddle.encode_texts(TEXTS), exported.encode_texts(TEXTS), atol=1e-6)
    np.testing.assert_allclose(without_paddle.encode_images(images), exported.encode_images(images), atol=1e-6)
    assert exported.fingerprint == model.fingerprint, "an index of the run serves from its export"
    printed_by_export = succeed("search", "query", "--index", index, "--checkpoint", graphs, "--json", *TEXTS)
    assert parse_hits(printed) == parse_hits(printed_by_export) and len(parse_hits(printed)) == len(TEXTS)

    succeed("convert", run, tmp_path / "back")
    converted = read_model(tmp_path / "back")
    assert find_layout(tmp_path / "back") == find_layout(folder)
    assert converted.family.array_names == source.family.array_names
    assert_same_arrays(dict(converted.arrays), dict(trained.arrays))
    loaded = ernie_vil2.load_model(tmp_path / "back")
    np.testing.assert_array_equal(loaded.encode_texts(TEXTS), model.encode_texts(TEXTS))
    np.testing.assert_array_equal(loaded.encode_images(images), model.encode_images(images))
