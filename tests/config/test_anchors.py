"""Anchors and aliases in a user's own file, and in one that others hand over."""

import pytest

from ernie_vil2.config import ConfigError, load_config

ANCHORED = "Data: {train: &files [a.tsv, b.tsv], val: *files}\n"
MANY = "Data:\n  train: &files [" + ", ".join(f"{number}.tsv" for number in range(2000)) + "]\n"


@pytest.mark.parametrize("is_strangers", [False, True])
def test_an_alias_means_what_its_anchor_names(tmp_path, is_strangers):
    path = tmp_path / "a.yaml"
    path.write_text(ANCHORED)
    data = load_config(path, is_strangers=is_strangers).Data
    assert data.train == data.val == ["a.tsv", "b.tsv"]


def test_a_users_own_file_may_mean_any_number_of_values(tmp_path):
    path = tmp_path / "a.yaml"
    aliases = ", ".join(["*files"] * 60)
    path.write_text(f"{MANY}Training: {{steps: [{aliases}]}}\n")
    with pytest.raises(ConfigError, match=r"Training\.steps: Input should be a valid integer"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"a\.yaml: not valid YAML: more than 100,000 values"):
        load_config(path, is_strangers=True)
