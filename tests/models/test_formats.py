"""Every format recognises its folders and files, and no other format does."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from ernie_vil2.models.weights import format as module
from ernie_vil2.models.weights.files import read_weights, write_weights
from ernie_vil2.models.weights.format import (
    FORMATS,
    WORD_EMBEDDING,
    ModelFiles,
    NoWeights,
    read_model,
    recognise_model,
    write_model,
)
from ernie_vil2.towers.base import ImageVariant, Rotary
from tests.support.other_families import FAMILY_FIXTURES
from tests.support.paths import FIXTURES

RELEASED = FIXTURES / "released"
FOLDERS = {
    "official": RELEASED / "official_tiny",
    "paddlenlp": RELEASED / "paddlenlp_tiny",
    "clip": FAMILY_FIXTURES / "hf_clip",
    "cn_clip": FAMILY_FIXTURES / "cn_clip_pt",
    "siglip": FAMILY_FIXTURES / "hf_siglip",
}


@pytest.fixture
def run_folder(tmp_path):
    """Write a model in this package's format."""
    write_model(read_model(FOLDERS["official"]), tmp_path / "run", "ernie_vil2")
    return tmp_path / "run"


def is_recognised(name, path):
    try:
        return FORMATS.find(name).recognise(ModelFiles(path)) is not None
    except NoWeights:
        return False


@pytest.mark.parametrize("name", [*FOLDERS, "ernie_vil2"])
def test_format_recognises_only_its_models(name, run_folder):
    folder = FOLDERS.get(name, run_folder)
    assert [candidate for candidate in FORMATS if is_recognised(candidate, folder)] == [name]
    for path in (folder, recognise_model(folder)[1].weights):
        assert recognise_model(path)[0] is FORMATS.find(name)


def test_releases_are_recognised_by_their_arrays(tmp_path):
    # Neither a config.yaml next to the weights nor PaddleNLP's name of the file changes the format.
    shutil.copytree(FOLDERS["official"], tmp_path / "model")
    (tmp_path / "model" / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "model" / "model.pdparams").rename(tmp_path / "model" / "model_state.pdparams")
    assert read_model(tmp_path / "model").layout == "official"


def test_file_is_read_once_to_recognise_and_load_it(monkeypatch):
    paths = []

    def record_and_read(path, *options):
        paths.append(path)
        return read_weights(path, *options)

    monkeypatch.setattr(module, "read_weights", record_and_read)
    assert read_model(FOLDERS["official"]).layout == "official"
    assert len(paths) == 1


def test_weights_of_openclip_alone_miss_their_settings(tmp_path):
    source = FAMILY_FIXTURES / "openclip_siglip_timm" / "open_clip_model.safetensors"
    shutil.copyfile(source, tmp_path / source.name)
    with pytest.raises(ValueError, match=r"open_clip_config\.json.* next to"):
        read_model(tmp_path / source.name)


def test_weights_of_a_run_without_configuration_are_named(run_folder):
    (run_folder / "integrity.json").unlink()
    (run_folder / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors: there is no config\.yaml"):
        read_model(run_folder / "model.safetensors")


@pytest.mark.parametrize("layout", ["official", "paddlenlp"])
@pytest.mark.parametrize(
    "variant",
    [ImageVariant(activation="gelu"), ImageVariant(pooling="mean"), ImageVariant(rotary=Rotary(first_half="rows"))],
)
def test_release_does_not_hold_a_variant_of_its_image_tower(layout, variant, tmp_path):
    # These have the arrays of the released tower; the release would compute other embeddings with them.
    stored = read_model(FOLDERS["official"])

    def with_variant(variant):
        image = stored.config.Model.image.model_copy(update={"variant": variant})
        model = stored.config.Model.model_copy(update={"image": image})
        return replace(stored, config=stored.config.model_copy(update={"Model": model}))

    with pytest.raises(ValueError, match=f"the {layout} format holds"):
        write_model(with_variant(variant), tmp_path / "model", layout)
    assert not (tmp_path / "model").exists()
    write_model(with_variant(ImageVariant()), tmp_path / "model", layout)  # the released tower by another name


@pytest.mark.parametrize(
    ("name", "shape", "culprit"),
    [
        ("text_model.pos_emb.weight", [2, 32], "max_length"),
        ("text_model.pos_emb.weight", [70_000, 32], "max_positions"),
        ("visual.positional_embedding", [1, 1, 32], "image_size"),
    ],
)
def test_sizes_that_no_model_has_are_named_on_one_line(name, shape, culprit, tmp_path):
    arrays = read_weights(FOLDERS["official"] / "model.pdparams")
    write_weights(tmp_path / "w.pdparams", {**arrays, name: np.zeros(shape, "float32")})
    with pytest.raises(ValueError, match=rf"w\.pdparams .*{culprit}") as error:
        read_model(tmp_path / "w.pdparams", heads=(2, 2))
    assert "\n" not in str(error.value)


def test_word_embedding_without_rows_is_named(run_folder):
    (run_folder / "integrity.json").unlink()
    arrays = read_weights(run_folder / "model.safetensors")
    write_weights(run_folder / "model.safetensors", {**arrays, WORD_EMBEDDING: np.array(1, "float32")})
    with pytest.raises(ValueError, match=WORD_EMBEDDING):
        read_model(run_folder)
