"""Files of earlier versions, and of later ones."""

from pathlib import Path

import pytest
import yaml

from ernie_vil2.config import Config, ConfigError, dump_config, load, load_config
from ernie_vil2.io.terminal import print_once


@pytest.fixture(autouse=True)
def nothing_reported_yet():
    print_once.cache_clear()


def written(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_written_says_its_version_and_comes_back(tmp_path):
    text = dump_config(Config())
    assert yaml.safe_load(text)["version"] == load.VERSION
    assert load_config(written(tmp_path, text)) == Config()


@pytest.mark.parametrize("head", ["", "version: 1\n"])
def test_a_key_that_is_gone_is_a_message_and_no_refusal(tmp_path, capsys, head):
    path = written(tmp_path, f"{head}Data: {{samples_per_text: 4, max_length: 20}}\n")
    for _ in range(2):
        assert load_config(path).Data.max_length == 20
    error = capsys.readouterr().err
    assert error.startswith(f"warning: {path}: Data.samples_per_text is gone: all samples are shuffled")
    assert error.count("\n") == 1  # reported once
    assert load_config(None, ["Data.samples_per_text=1"]) == Config() and capsys.readouterr().err == ""  # as it is now


def test_a_key_of_an_earlier_version_is_none_of_this_one(tmp_path):
    path = written(tmp_path, f"version: {load.VERSION}\nData: {{samples_per_text: 4}}\n")
    with pytest.raises(ConfigError, match="unknown key Data.samples_per_text"):
        load_config(path)


def test_every_version_leads_to_the_next_and_a_renamed_key_is_named(tmp_path, capsys, monkeypatch):
    """By a table with two steps more: a key that is renamed twice is found under its last name."""

    def renames(old, new):
        def migration(tree):
            if old not in tree.get("Training", {}):
                return []
            tree["Training"][new] = tree["Training"].pop(old)
            return [f"Training.{old} is now Training.{new}"]

        return migration

    monkeypatch.setattr(load, "VERSION", 4)
    monkeypatch.setitem(load.MIGRATIONS, 2, renames("length", "updates"))
    monkeypatch.setitem(load.MIGRATIONS, 3, renames("updates", "steps"))
    path = written(tmp_path, "version: 2\nTraining: {length: 70000}\n")
    assert load_config(path).Training.steps == 70000
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {path}: Training.length is now Training.updates",
        f"warning: {path}: Training.updates is now Training.steps",
    ]
    assert load_config(path, ["Training.updates=80000"]).Training.steps == 80000


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("99", "version: 99 is of a later release of this package, which knows up to"),
        ("0", "version: 0 is none"),
        ("true", "version: True is none"),
        ("two", "version: 'two' is none"),
    ],
)
def test_a_version_that_is_not_known_is_refused(tmp_path, version, message):
    with pytest.raises(ConfigError, match=f"config.yaml: {message}"):
        load_config(written(tmp_path, f"version: {version}\n"))


@pytest.mark.parametrize(
    ("head", "tuning", "moving"),
    [
        ("version: 2\n", "{freeze: [image.*]}", True),
        ("version: 2\n", "{lora: {rank: 2}}", True),
        ("version: 2\n", "{freeze: [image.*], moving_statistics: false}", False),
        ("version: 2\n", "{freeze: [], lora: null}", False),
        ("version: 3\n", "{freeze: [image.*]}", False),
        ("", "{freeze: [image.*]}", False),
    ],
)
def test_frozen_norms_of_a_run_of_version_2_follow_the_batches(tmp_path, head, tuning, moving):
    path = written(tmp_path, f"{head}Tuning: {tuning}\n")
    for overrides in ([], ["Training.seed=1"]):
        config = load_config(path, overrides)
        assert config.Tuning.moving_statistics == moving
    assert load_config(written(tmp_path, dump_config(config))) == config


@pytest.mark.parametrize("data", ["null", "[a]", "text"])
def test_a_section_that_is_none_stays_the_schemas_affair(tmp_path, data):
    with pytest.raises(ConfigError, match="config.yaml: Data: Input should be"):
        load_config(written(tmp_path, f"Data: {data}\n"))


@pytest.mark.parametrize(
    ("head", "image", "text"),
    [
        ("", "ViT-L/14", "bert-base"),
        ("version: 3\n", "paddleclas:ViT-L/14", "paddlenlp:bert-base"),
        ("version: 2\n", "paddleclas:ViT-L/14", "paddlenlp:bert-base"),
        (f"version: {load.VERSION}\n", "ViT-L/14", "bert-base"),
    ],
    ids=["a user's own", "3", "2", "now"],
)  # fmt: skip
def test_runs_of_earlier_versions_were_on_the_towers_of_the_suite(tmp_path, head, image, text):
    model = load_config(
        written(tmp_path, f"{head}Model: {{image: {{name: ViT-L/14}}, text: {{name: bert-base}}}}\n")
    ).Model
    assert (model.image.name, model.text.name) == (image, text)


def test_a_run_keeps_its_towers_under_overrides(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(load_config(Path(__file__).parents[2] / "configs/demo/emoji.yaml")), encoding="utf-8")
    model = load_config(path, ["Training.steps=2000"]).Model
    assert (model.image.name, model.text.name) == ("RepVGG", "ernie")
