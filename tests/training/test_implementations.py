"""Runs on towers of this package, and of PaddleClas and PaddleNLP: equal losses, and no change from one to the other
that nobody asked for."""

import shutil
import sys

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.config import ConfigError, ImageTowerConfig, ModelConfig, load_config
from ernie_vil2.device.extras import MissingPackage
from ernie_vil2.models import build_image_tower
from ernie_vil2.models.towers import suite
from ernie_vil2.training.run_log import read_log
from ernie_vil2.training.trainer import Trainer
from tests.training.conftest import ROOT
from tests.training.test_trainer import crash_after

SUITE = "Model.implementation=suite"
NATIVE = "Model.implementation=native"
REPVGG = "Model.image={name: RepVGG, image_size: 32, width: 8, depth: 1}"
needs_suite = pytest.mark.skipif(
    not (suite.installed("paddleclas") and suite.installed("paddlenlp")), reason="PaddleClas and PaddleNLP are missing"
)


def fit(config, **options):
    trainer = Trainer(config, **options)
    assert trainer.fit()
    return losses(trainer.run)


def losses(run):
    return [record["loss"] for record in read_log(run / "log.jsonl") if record["kind"] == "train"]


def names(run):
    model = load_config(run / "config.yaml").Model
    return model.image.name, model.text.name


@pytest.fixture
def without_suite(monkeypatch):
    """As where neither library is installed."""
    monkeypatch.setattr(suite, "installed", lambda library: False)
    for library in ("paddleclas", "paddlenlp"):
        for module in [name for name in sys.modules if name.partition(".")[0] == library]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, library, None)


@needs_suite
@pytest.mark.parametrize("changes", [[], [REPVGG], ["Model.text.name=bert", "Model.text.pooling=mean"]],
                         ids=["ViT and ERNIE", "RepVGG", "BERT"])  # fmt: skip
def test_losses_of_a_training_are_equal(config, tmp_path, changes):
    found = [fit(config(*changes, choice, f"Training.output={tmp_path / choice}")) for choice in (NATIVE, SUITE)]
    assert len(found[0]) == 8 and found[0][-1] < found[0][0]
    np.testing.assert_allclose(*found, rtol=1e-5)


@needs_suite
def test_a_run_goes_on_with_the_towers_that_it_began_with(config, tmp_path):
    """Bit by bit, whatever the configuration names; on others only where it says so, equal to rounding."""
    whole = fit(config(SUITE, f"Training.output={tmp_path / 'whole'}"))
    begun = Trainer(config(SUITE, "Training.checkpoint_every=4"))
    crash_after(begun, 4)
    assert names(begun.run) == ("paddleclas:ViT", "paddlenlp:ernie")
    found = {}
    for change in ("Training.log_every=1", NATIVE):
        run = shutil.copytree(begun.run, tmp_path / change.replace("=", "-"), symlinks=True)
        own = f"Training.output={run}"
        found[change] = fit(config(change, own), resume=True)
        assert names(run / "checkpoints" / "step_00000008") == (
            ("ViT", "ernie") if change == NATIVE else ("paddleclas:ViT", "paddlenlp:ernie")
        )
    assert found["Training.log_every=1"] == whole
    assert found[NATIVE][:4] == whole[:4] and found[NATIVE] == pytest.approx(whole, rel=1e-5)


@needs_suite
def test_where_the_suite_is_missing_native_towers_load_its_runs_and_are_not_trained_unasked(
    config, request, tmp_path, capsys
):
    begun = Trainer(config(SUITE, "Training.checkpoint_every=4"))
    crash_after(begun, 4)
    texts = ["红色的圆", "a red disc"]
    expected = ernie_vil2.load_model(begun.run).encode_texts(texts)
    request.getfixturevalue("without_suite")
    model = ernie_vil2.load_model(begun.run)
    assert type(model.backend.model.image).__name__ == "VisionTransformer"
    np.testing.assert_allclose(model.encode_texts(texts), expected, atol=1e-6)
    reported = capsys.readouterr().err
    assert "paddlenlp is not installed: this package's own ernie replaces paddlenlp:ernie" in reported
    with pytest.raises(ConfigError, match=r"paddleclas:ViT and paddlenlp:ernie.*Model\.implementation=native"):
        Trainer(config(SUITE), resume=True)
    found = fit(config(NATIVE), resume=True)
    assert len(found) == 8 and found[-1] < found[0]


def test_a_new_run_without_the_suite_is_one_of_native_towers(config, without_suite):
    trainer = Trainer(config(SUITE, "Training.steps=3"))
    assert trainer.fit() and names(trainer.run) == ("ViT", "ernie")


def test_what_only_paddleclas_builds_is_named_with_the_ways_to_get_it(without_suite):
    ways = r"EfficientNetB5 needs paddleclas, which is not installed: .*paddle-suite.*--no-deps paddleclas"
    with pytest.raises(MissingPackage, match=ways):
        build_image_tower(ImageTowerConfig(name="paddleclas:EfficientNetB5"))


def test_one_option_names_all_towers_that_there_are_twice():
    config = load_config(ROOT / "configs/pretrain/efficientnet_b5_ernie_base_zh.yaml", [NATIVE]).Model
    assert (config.image.name, config.text.name) == ("paddleclas:EfficientNetB5", "ernie-base")
    config = load_config(ROOT / "configs/pretrain/vit_b16_ernie_base_zh.yaml", [NATIVE]).Model
    assert (config.image.name, config.text.name) == ("ViT-B/16", "ernie-base")
    config = ModelConfig(implementation="suite")
    assert (config.image.name, config.text.name) == ("paddleclas:ViT-B/16", "paddlenlp:ernie-base")
