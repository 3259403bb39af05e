"""An index of images stays valid for a model of which the text tower alone is another one."""

import shutil

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.apps.search import OtherModel, open_index
from tests.support.commands import call, succeed


@pytest.fixture(scope="module")
def models(checkpoint, tmp_path_factory):
    """Folders of a model, of one with another text tower, and of one with another image tower."""
    from safetensors.numpy import load_file, save_file

    folders = {"own": checkpoint}
    for tower in ("text", "image"):
        folder = folders[tower] = tmp_path_factory.mktemp(tower) / "model"
        shutil.copytree(checkpoint, folder)
        (folder / "integrity.json").unlink(missing_ok=True)
        arrays = load_file(folder / "model.safetensors")
        changed = {name: value + 0.25 * name.startswith(f"{tower}.") for name, value in arrays.items()}
        save_file({name: value.astype(np.float32) for name, value in changed.items()}, folder / "model.safetensors")
    return folders


@pytest.fixture
def index(models, shapes, tmp_path):
    """An index of images and of their tags."""
    what = ["--data", shapes["val"], "--texts", shapes["val"]]
    succeed("search", "build", "--index", tmp_path / "index", "--checkpoint", models["own"], *what)
    return tmp_path / "index"


def test_images_are_found_by_another_text_tower(index, models):
    model = ernie_vil2.load_model(models["text"])
    with open_index(index, models["own"]) as own, open_index(index, models["text"]) as other:
        assert own.has("texts") and not other.has("texts")
        with pytest.raises(OtherModel, match="has the same image tower"):
            other.collection("texts")
        found = other.search(["red disc"], count=16)[0]
    with pytest.raises(OtherModel, match="two models"):
        open_index(index, models["image"])
    with open_index(index, models["own"]) as own:
        # Stored in 16 bits, from which the exact type computes again.
        rows = {hit.id: hit.score for hit in own.search_embeddings(model.encode_texts(["red disc"]), 16)[0]}
    assert {hit.id: hit.score for hit in found} == rows


def test_another_text_tower_adds_images_and_no_texts(index, models, shapes):
    before = (index / "index.json").read_bytes()
    succeed("search", "build", "--index", index, "--checkpoint", models["text"], "--data", shapes["train"])
    refused = call("search", "build", "--index", index, "--checkpoint", models["text"], "--data", shapes["val"],
                   "--texts", shapes["val"])  # fmt: skip
    assert refused.returncode == 2 and "has the same image tower and encodes texts otherwise" in refused.stderr
    assert (index / "index.json").read_bytes() == before
    with open_index(index) as own:
        assert len(own.collection("images")) == 144 and own.has("texts")


def test_an_object_is_not_called_by_the_name_of_the_index_model(index, models):
    """A model that is given as an object has no name, and must not be called by that of the index."""
    for tower in ("text", "image"):
        model = ernie_vil2.load_model(models[tower])
        with pytest.raises(OtherModel) as error, open_index(index, model) as other:
            other.collection("texts")
        message = str(error.value)
        assert "the model given" in message and message.count(str(models["own"])) == 1
    with open_index(index, ernie_vil2.load_model(models["own"])) as own:
        assert own.name == str(models["own"])
