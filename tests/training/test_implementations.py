"""Runs on towers of this package, and of PaddleClas and PaddleNLP: equal losses, and no change from one to the other
that nobody asked for."""

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


def names(run):
    model = load_config(run / "config.yaml").Model
    return model.image.name, model.text.name


@pytest.fixture
def strip_suite_prefix(monkeypatch):
    """As where neither library is installed."""
    for module in (suite, base):
        monkeypatch.setattr(module, "is_installed", lambda library: False)
    for library in ("paddleclas", "paddlenlp"):
        for module in [name for name in sys.modules if name.partition(".")[0] == library]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, library, None)


@needs_suite
def test_run_goes_on_with_the_towers_that_it_began_with(config, tmp_path):
    """Bit by bit, whatever the configuration names; on others only where it says so, equal to rounding."""
    settings = ["Training.checkpoint_every=2", "Training.steps=4"]
    whole = read_logged_losses(fit(config(SUITE, *settings, f"Training.output={tmp_path / 'whole'}")).run)
    begun = Trainer(config(SUITE, *settings))
    crash_after(begun, 2)
    assert names(begun.run) == ("paddleclas:ViT", "paddlenlp:ernie")
    resumed = {}
    for change in ("Training.log_every=1", NATIVE):
        run = shutil.copytree(begun.run, tmp_path / change.replace("=", "-"), symlinks=True)
        fit(config(change, *settings, f"Training.output={run}"), resume=True)
        resumed[change] = read_logged_losses(run)
        expected = ("ViT", "ernie") if change == NATIVE else ("paddleclas:ViT", "paddlenlp:ernie")
        assert names(run / "checkpoints" / "step_00000004") == expected
    assert resumed["Training.log_every=1"] == whole
    assert resumed[NATIVE][:2] == whole[:2] and resumed[NATIVE] == pytest.approx(whole, rel=1e-5)


@needs_suite
def test_native_towers_load_a_run_of_a_suite_that_is_missing(config, request, tmp_path, capsys):
    """They are not trained unasked."""
    settings = ["Training.checkpoint_every=1", "Training.steps=2"]
    begun = Trainer(config(SUITE, *settings))
    crash_after(begun, 1)
    texts = ["红色的圆", "a red disc"]
    expected = ernie_vil2.load_model(begun.run).encode_texts(texts)
    request.getfixturevalue("strip_suite_prefix")
    model = ernie_vil2.load_model(begun.run)
    assert type(model.backend.model.image).__name__ == "VisionTransformer"
    np.testing.assert_allclose(model.encode_texts(texts), expected, atol=1e-6)
    assert "own ernie replaces paddlenlp:ernie" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"paddleclas:ViT and paddlenlp:ernie.*Model\.implementation=native"):
        Trainer(config(SUITE, *settings), resume=True)
    assert fit(config(NATIVE, *settings), resume=True).step == 2


def test_new_run_without_the_suite_is_one_of_native_towers(config, strip_suite_prefix):
    trainer = fit(config(SUITE, "Training.steps=1"))
    assert names(trainer.run) == ("ViT", "ernie")
    with pytest.raises(MissingPackage, match="EfficientNetB5 needs paddleclas"):
        make_image_config(name="paddleclas:EfficientNetB5").build()
