"""The configurations of docs/finetuning.md, which tests/pages runs on small data."""

from pathlib import Path

import pytest

from ernie_vil2.config import load_config
from tests.support.page_commands import page_commands
from tests.support.paths import ROOT

CONFIGURATIONS = sorted((ROOT / "configs" / "finetune").glob("*.yaml"))
WITH_IMAGES = [path for path in CONFIGURATIONS if path.stem != "new_language"]
ALL_PAIRS = ("chinese_clip", "siglip2", "small_student")
"""Configurations that train on all view pairs."""


def test_the_configurations_of_the_page_are_those_that_there_are():
    words = {word for command in page_commands("finetuning.md") for word in command}
    named = {Path(word) for word in words if "configs/finetune/" in word}
    assert named == {path.relative_to(ROOT) for path in CONFIGURATIONS}


@pytest.mark.parametrize("path", WITH_IMAGES, ids=lambda path: path.stem)
def test_images_and_captions_alone_unless_all_pairs_are_meant(path):
    config = load_config(path)
    weights = config.Loss.weights.model_dump()
    if path.stem in ALL_PAIRS:
        assert set(weights.values()) == {1.0} and config.Model.text.dropout == 0.1
        assert "kind" not in config.model_dump(exclude_unset=True).get("Loss", {}), "the folder says it"
    else:
        assert weights == {"image_image": 0, "text_text": 0, "image_text": 1, "text_image": 1}
        switched = load_config(path, ["Loss.weights={}"]).Loss.weights.model_dump()
        assert set(switched.values()) == {1.0}
