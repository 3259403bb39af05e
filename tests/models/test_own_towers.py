"""Towers of a user's own module: named by its import path, trained, saved and loaded by the seams alone."""

import sys

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.config import model as sections
from ernie_vil2.models import build_image_tower, build_text_tower, towers
from ernie_vil2.planning.towers import Towers
from ernie_vil2.registry import import_named
from ernie_vil2.training.trainer import Trainer

MODULE = '''
from paddle import nn

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

def a_function(config):
    return None
'''
TOWERS = ["Model.image={name: 'my_towers:Pixels', image_size: 32, width: 16}",
          "Model.text={name: 'my_towers:Bag', width: 16, max_positions: 24}"]  # fmt: skip


@pytest.fixture
def my_towers(tmp_path, monkeypatch):
    (tmp_path / "my_towers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sections, "OWN_TOWERS", set())
    monkeypatch.setattr(towers, "OWN_TOWERS", sections.OWN_TOWERS)
    yield
    sys.modules.pop("my_towers", None)


def a_run(shapes, tmp_path, named, steps):
    """A finished training of towers."""
    trainer = Trainer(load_config(None, [
        *named, f"Data.train=[{shapes['train']}]", f"Data.val=[{shapes['val']}]", "Data.max_length=24",
        "Data.workers=0", "Views.languages={en: 1.0}", f"Training.steps={steps}", "Training.global_batch=16",
        "Training.log_every=1", "Schedule.warmup_steps=1", "Optimizer.learning_rate=1e-2", "Views.crop_area=[0.6, 1.0]",
        "Views.grayscale=0", "Views.hue=0", "Evaluation.every=0", f"Training.output={tmp_path / 'run'}",
    ]))  # fmt: skip
    assert trainer.fit()
    return trainer


def test_towers_of_ones_own_train_and_come_back(my_towers, shapes, tmp_path):
    trainer = a_run(shapes, tmp_path, TOWERS, 10)
    model = ernie_vil2.load_model(tmp_path / "run")
    model_towers = model.backend.model
    assert type(model_towers.image).__name__ == "Pixels" and type(model_towers.text).__name__ == "Bag"
    np.testing.assert_array_equal(model_towers.image.linear.weight.numpy(), trainer.model.image.linear.weight.numpy())
    losses = [line for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines() if '"train"' in line]
    assert len(losses) == 10

    # The configuration next to weights may be a stranger's: it alone imports nothing.
    del sys.modules["my_towers"]
    with pytest.raises(ValueError, match="my_towers:Pixels"):
        ernie_vil2.load_model(tmp_path / "run")
    assert "my_towers" not in sys.modules


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_towers:a_function", "is not a class of paddle.nn.Layer"),
        ("my_towers:Missing", "my_towers has no Missing"),
        ("my_towers:Nameless", "does not say its output width"),
    ],
)
def test_what_is_not_a_tower_is_named(my_towers, name, message):
    config = load_config(None, [f"Model.image.name={name}"])
    import_named(config.names)
    with pytest.raises(ValueError, match=message):
        build_image_tower(config.Model.image)


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no_such_module.*PYTHONPATH"):
        import_named(load_config(None, ["Model.text.name=no_such_module:Bag"]).names)
    with pytest.raises(ConfigError, match="there is no text tower 'gpt'; known: ernie-base"):
        load_config(None, ["Model.text.name=gpt"])


def test_a_plan_of_ones_own_towers(my_towers):
    """They list no blocks: a row keeps its pixels and the width of its embedding at the least."""
    config = load_config(None, [*TOWERS, "Data.max_length=24"])
    import_named(config.names)
    cost = Towers(config).cost("image")
    assert cost.flops == 2 * 3 * 16
    assert cost.saved >= 4 * (3 * 32 * 32 + 16)
    assert Towers(config).cost("image", recompute=True).saved == cost.saved


def test_a_registered_tower_is_chosen_by_its_name(my_towers, monkeypatch):
    """With the sizes that it likes, and neither heads nor blocks."""
    import_named(["my_towers:Bag"])
    for registry, name in ((towers.TEXT_TOWERS, "Bag"), (towers.IMAGE_TOWERS, "Pixels")):
        with pytest.raises(ValueError, match=f"my-{name}"):
            load_config(None, [f"Model.{'text' if name == 'Bag' else 'image'}={{name: my-{name}, width: 10}}"])
        monkeypatch.setitem(registry, f"my-{name}", getattr(sys.modules["my_towers"], name))
    config = load_config(None, ["Model.text={name: my-Bag, width: 10}", "Model.image={name: my-Pixels, width: 12}"])
    text, image = build_text_tower(config.Model.text, 7), build_image_tower(config.Model.image)
    assert (type(text).__name__, text.width, text.blocks) == ("Bag", 10, [])
    assert (type(image).__name__, image.width, image.blocks) == ("Pixels", 12, [])


def test_a_tower_of_the_package_is_a_line_of_its_registry(my_towers, monkeypatch):
    """The configuration asks the registries, which are imported then, for a name that it does not know."""
    import_named(["my_towers:Bag"])
    asked = []

    def registries(name):
        asked.append(name)
        towers.Towers("text tower", {"ernie": None, "bag": sys.modules["my_towers"].Bag}, sections.TEXT_SIZES)
        towers.Towers("image tower", {"ViT-B/16": None, "pixels": None}, {*sections.IMAGE_SIZES, *sections.VIT_SIZES})

    monkeypatch.setattr(sections.importlib, "import_module", registries)
    load_config(None, ["Model.text.name=bert-base"])
    assert asked == []
    load_config(None, ["Model.text={name: bag, width: 10}", "Model.image={name: pixels, depth: 3}"])
    assert asked == ["ernie_vil2.models.towers"] and {"bag", "pixels"} == sections.OWN_TOWERS
    with pytest.raises(ConfigError, match="'EfficientNetB0' has fixed sizes: remove depth"):
        load_config(None, ["Model.image={name: EfficientNetB0, depth: 3}"])


def test_without_paddle_a_name_that_is_not_known_is_named(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name="paddle")

    monkeypatch.setattr(sections.importlib, "import_module", missing)
    with pytest.raises(ConfigError, match="there is no text tower 'my-bag'"):
        load_config(None, ["Model.text.name=my-bag"])
