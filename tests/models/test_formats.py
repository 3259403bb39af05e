"""Every format recognises its folders and files, and no other format does."""

import shutil

import pytest

from ernie_vil2.models.weights import format as module
from ernie_vil2.models.weights.files import read_weights
from ernie_vil2.models.weights.format import FORMATS, ModelFiles, NoWeights, read_model, recognise_model, write_model
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


def test_weights_of_a_run_without_configuration_are_named(run_folder):
    (run_folder / "integrity.json").unlink()
    (run_folder / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors: there is no config\.yaml"):
        read_model(run_folder / "model.safetensors")
