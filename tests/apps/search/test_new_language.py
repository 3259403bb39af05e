"""An index of images stays valid for a model that differs only in its text tower."""

import shutil

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.apps.search import OtherModel, open_index
from tests.support.commands import call, succeed


@pytest.fixture(scope="module")
def models(checkpoint, tmp_path_factory):
    """Return folders of a model, of one with another text tower, and of one with another image tower."""
    from safetensors.numpy import load_file, save_file

    folders = {"original": checkpoint}
    for tower in ("text", "image"):
        folder = folders[tower] = tmp_path_factory.mktemp(tower) / "model"
        shutil.copytree(checkpoint, folder)
        (folder / "integrity.json").unlink(missing_ok=True)
        arrays = load_file(folder / "model.safetensors")
        for name in arrays:
            if name.startswith(f"{tower}."):
                arrays[name] = (arrays[name] + 0.25).astype(np.float32)
        save_file(arrays, folder / "model.safetensors")
    return folders


@pytest.fixture
def index_folder(models, shapes, tmp_path):
    """Return the folder of an index of images and of their tags."""
    data = ["--data", shapes["val"], "--texts", shapes["val"]]
    succeed("search", "build", "--index", tmp_path / "index", "--checkpoint", models["original"], *data)
    return tmp_path / "index"


def test_another_text_tower_searches_the_same_images(index_folder, models):
    model = ernie_vil2.load_model(models["text"])
    with open_index(index_folder, models["original"]) as original, open_index(index_folder, models["text"]) as index:
        assert original.has("texts") and not index.has("texts")
        with pytest.raises(OtherModel, match="has the same image tower"):
            index.collection("texts")
        hits = index.search(["red disc"], count=16)[0]
    with pytest.raises(OtherModel, match="two models"):
        open_index(index_folder, models["image"])
    with open_index(index_folder, models["original"]) as original:
        # The scores are equal to the bit: both come from the stored rows of 16 bits.
        expected = original.search_embeddings(model.encode_texts(["red disc"]), 16)[0]
    assert {hit.id: hit.score for hit in hits} == {hit.id: hit.score for hit in expected}


def test_another_text_tower_adds_images_and_no_texts(index_folder, models, shapes):
    build = ["build", "--index", index_folder, "--checkpoint", models["text"]]
    description = (index_folder / "index.json").read_bytes()
    succeed("search", *build, "--data", shapes["train"])
    result = call("search", *build, "--data", shapes["val"], "--texts", shapes["val"])
    assert result.returncode == 2 and "has the same image tower but another text tower" in result.stderr
    assert (index_folder / "index.json").read_bytes() == description
    with open_index(index_folder) as original:
        assert len(original.collection("images")) == 144 and original.has("texts")


def test_model_object_is_not_named_after_the_index(index_folder, models):
    # A model that is passed as an object has no name. The name in the index belongs to the model that made the index.
    for tower in ("text", "image"):
        model = ernie_vil2.load_model(models[tower])
        with pytest.raises(OtherModel) as error, open_index(index_folder, model) as index:
            index.collection("texts")
        message = str(error.value)
        assert "the model given" in message and message.count(str(models["original"])) == 1
    with open_index(index_folder, ernie_vil2.load_model(models["original"])) as index:
        assert index.name == str(models["original"])
