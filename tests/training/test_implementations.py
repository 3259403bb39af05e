"""Towers of this package and of PaddleClas and PaddleNLP have equal losses, and a run changes between them only on
request."""

import shutil
import sys

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.device.extras import MissingPackage, is_installed
from ernie_vil2.towers import base
from ernie_vil2.towers.layers import suite
from ernie_vil2.training.trainer import Trainer
from tests.support.towers import make_image_config
from tests.support.trainings import crash_after, fit, read_logged_losses

SUITE = "Model.implementation=suite"
NATIVE = "Model.implementation=native"
needs_suite = pytest.mark.skipif(
    not (is_installed("paddleclas") and is_installed("paddlenlp")), reason="PaddleClas and PaddleNLP are missing"
)


def read_tower_names(run):
    model = load_config(run / "config.yaml").Model
    return model.image.name, model.text.name


@pytest.fixture
def hide_suite(monkeypatch):
    """Make both libraries look as if they were not installed."""
    for module in (suite, base):
        monkeypatch.setattr(module, "is_installed", lambda library: False)
    for library in ("paddleclas", "paddlenlp"):
        for module in [name for name in sys.modules if name.partition(".")[0] == library]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, library, None)


@needs_suite
def test_resumed_run_keeps_its_towers(config, tmp_path):
    # The run is bit-equal if the configuration does not name an implementation. It changes to other towers only if the
    # configuration says so, and is then equal up to rounding.
    settings = ["Training.checkpoint_every=2", "Training.steps=4"]
    expected_losses = read_logged_losses(fit(config(SUITE, *settings, f"Training.output={tmp_path / 'whole'}")).run)
    interrupted = Trainer(config(SUITE, *settings))
    crash_after(interrupted, 2)
    assert read_tower_names(interrupted.run) == ("paddleclas:ViT", "paddlenlp:ernie")
    resumed = {}
    for change in ("Training.log_every=1", NATIVE):
        run = shutil.copytree(interrupted.run, tmp_path / change.replace("=", "-"), symlinks=True)
        fit(config(change, *settings, f"Training.output={run}"), resume=True)
        resumed[change] = read_logged_losses(run)
        expected_names = ("ViT", "ernie") if change == NATIVE else ("paddleclas:ViT", "paddlenlp:ernie")
        assert read_tower_names(run / "checkpoints" / "step_00000004") == expected_names
    assert resumed["Training.log_every=1"] == expected_losses
    assert resumed[NATIVE][:2] == expected_losses[:2] and resumed[NATIVE] == pytest.approx(expected_losses, rel=1e-5)


@needs_suite
def test_native_towers_load_a_run_of_missing_libraries(config, request, tmp_path, capsys):
    # Loading replaces the towers, but training goes on with others only on request.
    settings = ["Training.checkpoint_every=1", "Training.steps=2"]
    interrupted = Trainer(config(SUITE, *settings))
    crash_after(interrupted, 1)
    texts = ["红色的圆", "a red disc"]
    expected = ernie_vil2.load_model(interrupted.run).encode_texts(texts)
    request.getfixturevalue("hide_suite")
    model = ernie_vil2.load_model(interrupted.run)
    assert type(model.backend.model.image).__name__ == "VisionTransformer"
    np.testing.assert_allclose(model.encode_texts(texts), expected, atol=1e-6)
    assert "own ernie replaces paddlenlp:ernie" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"paddleclas:ViT and paddlenlp:ernie.*Model\.implementation=native"):
        Trainer(config(SUITE, *settings), resume=True)
    assert fit(config(NATIVE, *settings), resume=True).step == 2


def test_new_run_without_the_libraries_has_native_towers(config, hide_suite):
    trainer = fit(config(SUITE, "Training.steps=1"))
    assert read_tower_names(trainer.run) == ("ViT", "ernie")
    with pytest.raises(MissingPackage, match="EfficientNetB5 needs paddleclas"):
        make_image_config(name="paddleclas:EfficientNetB5").build()
