"""The version that a configuration names."""

import pytest
import yaml

from ernie_vil2.config import Config, ConfigError, dump_config, load_config


def write(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_written_names_its_version(tmp_path):
    """A user's file may leave it out."""
    text = dump_config(Config())
    assert yaml.safe_load(text)["version"] == 1
    assert load_config(write(tmp_path, text)) == Config()
    assert load_config(write(tmp_path, "Training: {seed: 3}\n")).Training.seed == 3


@pytest.mark.parametrize("version", ["0", "2", "true", "null", "9" * 80])
def test_another_version_is_refused(tmp_path, version):
    path = write(tmp_path, f"version: {version}\nTraining: {{seed: 3}}\n")
    with pytest.raises(ConfigError, match="version") as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < len(str(path)) + 200


def test_an_override_cannot_name_a_version(tmp_path):
    with pytest.raises(ConfigError, match="unknown key version"):
        load_config(write(tmp_path, "version: 1\n"), ["version=1"])


@pytest.mark.parametrize("data", ["null", "[a]"])
def test_a_section_that_is_none_is_refused_by_its_name(tmp_path, data):
    with pytest.raises(ConfigError, match="config.yaml: Data: Input should be"):
        load_config(write(tmp_path, f"Data: {data}\n"))
