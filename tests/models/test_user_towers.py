"""Towers of a user's module: named by their import path, trained, saved and loaded like the package's towers."""

import re
import sys

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.config import ConfigError, load_config, validate_config
from ernie_vil2.planning.towers import Towers
from ernie_vil2.registry import UnknownName, import_user_modules
from ernie_vil2.towers import IMAGE_TOWERS, TEXT_TOWERS
from ernie_vil2.training.trainer import Trainer
from tests.support.paths import ROOT
from tests.support.processes import run_process

MODULE = '''
from types import SimpleNamespace

from paddle import nn

from ernie_vil2.towers import TextTowerConfig

class Pixels(nn.Layer):
    """The mean colour of an image through a linear layer."""

    def __init__(self, config):
        super().__init__()
        self.width = config.width
        self.linear = nn.Linear(3, self.width)

    def forward(self, images):  # [B, 3, H, W]
        return self.linear(images.mean(axis=[2, 3]))

class Bag(nn.Layer):
    """The mean of a text's word embeddings."""

    def __init__(self, config, vocab_size):
        super().__init__()
        self.width = config.width
        self.words = nn.Embedding(vocab_size, self.width)

    def forward(self, ids):  # [B, L]
        return self.words(ids).mean(axis=1)

class Nameless(nn.Layer):
    def __init__(self, config):
        super().__init__()

def make_nothing(config):
    return None

class BagConfig(TextTowerConfig):
    words_wide: int

    def build(self, vocab_size):
        bag = SimpleNamespace(width=self.words_wide)
        return Bag(bag, vocab_size)
'''
TOWERS = ["Model.image={name: 'my_towers:Pixels', image_size: 32, width: 16}",
          "Model.text={name: 'my_towers:Bag', width: 16, max_positions: 24}"]  # fmt: skip


@pytest.fixture
def my_towers(tmp_path, monkeypatch):
    (tmp_path / "my_towers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_towers", None)


def train_towers(shapes, tmp_path, towers, steps):
    """Train towers to the end, and return the trainer."""
    trainer = Trainer(load_config(None, [
        *towers, f"Data.train=[{shapes['train']}]", f"Data.val=[{shapes['val']}]", "Data.max_length=24",
        "Data.workers=0", "Views.languages={en: 1.0}", f"Training.steps={steps}", "Training.global_batch=16",
        "Training.log_every=1", "Schedule.warmup_steps=1", "Optimizer.learning_rate=1e-2", "Views.crop_area=[0.6, 1.0]",
        "Views.grayscale=0", "Views.hue=0", "Evaluation.every=0", f"Training.output={tmp_path / 'run'}",
    ]))  # fmt: skip
    assert trainer.fit()
    return trainer


def test_user_towers_are_trained_and_loaded(my_towers, shapes, tmp_path):
    trainer = train_towers(shapes, tmp_path, TOWERS, 10)
    model = ernie_vil2.load_model(tmp_path / "run").backend.model
    assert type(model.image).__name__ == "Pixels" and type(model.text).__name__ == "Bag"
    np.testing.assert_array_equal(model.image.linear.weight.numpy(), trainer.model.image.linear.weight.numpy())
    records = [line for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines() if '"train"' in line]
    assert len(records) == 10

    # The configuration next to weights may be a stranger's: loading it imports no module.
    del sys.modules["my_towers"]
    with pytest.raises(ValueError, match="my_towers:Pixels"):
        ernie_vil2.load_model(tmp_path / "run")
    assert "my_towers" not in sys.modules


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_towers:make_nothing", "is not a class of paddle.nn.Layer"),
        ("my_towers:Missing", "my_towers has no Missing"),
        ("my_towers:Nameless", "does not say its output width"),
    ],
)
def test_name_of_no_tower_is_refused(my_towers, name, message):
    config = load_config(None, [f"Model.image.name={name}"])
    import_user_modules(config.component_names)
    with pytest.raises(ValueError, match=message):
        config.Model.image.build()


def test_missing_module_is_named():
    with pytest.raises(ValueError, match="no_such_module.*PYTHONPATH"):
        import_user_modules(load_config(None, ["Model.text.name=no_such_module:Bag"]).component_names)
    with pytest.raises(ConfigError, match="there is no text tower 'gpt'; known: ernie-base"):
        load_config(None, ["Model.text.name=gpt"])


@pytest.mark.parametrize("name", [".my_towers:Bag", ":Bag", "my_towers:"])
def test_incomplete_import_path_is_named(my_towers, name):
    with pytest.raises(UnknownName, match=f"^{re.escape(name)}: .*package.module:Name"):
        import_user_modules(load_config(None, [f"Model.text.name='{name}'"]).component_names)


def test_plan_estimates_user_towers(my_towers):
    # They list no blocks: recomputing blocks saves nothing, and a row keeps at least its pixels and its embedding.
    config = load_config(None, [*TOWERS, "Data.max_length=24"])
    import_user_modules(config.component_names)
    cost = Towers(config).row_cost("image")
    assert cost.flops == 2 * 3 * 16
    assert cost.saved >= 4 * (3 * 32 * 32 + 16)
    assert Towers(config).row_cost("image", recompute=True).saved == cost.saved


def test_registered_tower_is_chosen_by_its_name(my_towers, monkeypatch):
    import_user_modules(["my_towers:Bag"])
    for registry, kind, name in ((TEXT_TOWERS, "text", "Bag"), (IMAGE_TOWERS, "image", "Pixels")):
        with pytest.raises(ValueError, match=f"my-{name}"):
            load_config(None, [f"Model.{kind}={{name: my-{name}, width: 10}}"])
        monkeypatch.setitem(registry, f"my-{name}", getattr(sys.modules["my_towers"], name))
    config = load_config(None, ["Model.text={name: my-Bag, width: 10}", "Model.image={name: my-Pixels, width: 12}"])
    text, image = config.Model.text.build(7), config.Model.image.build()
    assert (type(text).__name__, text.width, text.blocks) == ("Bag", 10, [])
    assert (type(image).__name__, image.width, image.blocks) == ("Pixels", 12, [])


def test_registry_imports_towers_and_their_configurations(my_towers, monkeypatch):
    monkeypatch.setitem(IMAGE_TOWERS, "pixels", "my_towers:Pixels")
    monkeypatch.setitem(TEXT_TOWERS, "bag", "my_towers:BagConfig")
    tower = load_config(None, ["Model.image={name: pixels, width: 12}"]).Model.image.build()
    assert (type(tower).__name__, tower.width) == ("Pixels", 12)
    config = load_config(None, ["Model.text={name: bag, words_wide: 10}"])
    assert config.Model.text.build(7).width == 10
    assert validate_config(config.model_dump(), "its dump") == config
    with pytest.raises(ConfigError, match="'bag' leaves its size open: set words_wide"):
        load_config(None, ["Model.text.name=bag"])


@pytest.mark.parametrize(
    ("name", "field", "holders"),
    [
        ("EfficientNetB0", "depth: 3", "ViT, NaFlex, RepVGG, module:Class"),
        ("ViT-B/16", "layers: [1, 1, 1, 1]", "ModifiedResNet, ConvNeXt, module:Class"),
        ("RepVGG", "width: 8, depth: 1, drop_path: 0.1", "ViT-B/16, ViT-L/14, ViT, NaFlex, module:Class"),
        ("NaFlex", "patch_size: 8, width: 8, depth: 1, heads: 1, projection: 8", "ModifiedResNet, module:Class"),
    ],
)
def test_field_of_another_kind_is_refused_by_names(name, field, holders):
    # Only the last field does not belong to the kind; a list with commas stands alone.
    foreign_field = field.split(", ")[-1] if "[" not in field else field
    culprit = f"Model.image: '{name}' has no {foreign_field.partition(':')[0]}: .*{holders}$"
    with pytest.raises(ConfigError, match=culprit):
        load_config(None, [f"Model.image={{name: {name}, {field}}}"])


@pytest.mark.parametrize(
    ("override", "culprit"),
    [
        ("Model.image={name: 'paddleclas:ViT-B/16', width: 8}", "'paddleclas:ViT-B/16' has no width: remove that"),
        ("Model.text={name: 'paddlenlp:ernie-base', depth: 2}", "'paddlenlp:ernie-base' has no depth: remove that"),
    ],
)
def test_field_of_another_kind_is_refused_for_a_tower_of_a_suite(override, culprit):
    with pytest.raises(ConfigError, match=culprit):
        load_config(None, [override])


def test_fields_that_no_kind_has_together_are_refused_without_a_list():
    with pytest.raises(ConfigError, match="'RepVGG' has no layers, variant: remove that$"):
        load_config(None, ["Model.image={name: RepVGG, width: 8, depth: 1, layers: [1, 1, 1, 1], variant: {head: 8}}"])


def test_unknown_tower_lists_the_registered_and_the_nearest(my_towers, monkeypatch):
    monkeypatch.setitem(TEXT_TOWERS, "bag", "my_towers:BagConfig")
    with pytest.raises(ConfigError, match="'ernie-bace'; did you mean ernie-base.*transformer, bag, or your own"):
        load_config(None, ["Model.text.name=ernie-bace"])
    with pytest.raises(ConfigError, match="'Vit'; did you mean ViT.*RepVGG"):
        load_config(None, ["Model.image={name: Vit, width: 8, depth: 1}"])
    with pytest.raises(ConfigError, match=r"unknown key Model.image.pach_size; did you mean Model.image.patch_size"):
        load_config(None, ["Model.image.pach_size=3"])


def test_configurations_of_towers_need_no_paddle():
    code = """
import sys
sys.modules["paddle"] = None
from ernie_vil2.config import load_config
from ernie_vil2.towers import ImageTowerConfig, TextTowerConfig
assert len(ImageTowerConfig.kinds()) > 4 and len(TextTowerConfig.kinds()) > 2
load_config("configs/default.yaml", ["Model.image={name: RepVGG, width: 8, depth: 1}"])
"""
    child = run_process([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
