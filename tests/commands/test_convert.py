"""The convert command keeps every weight bit for bit, and reports what does not match."""

from functools import partial

import numpy as np
import pytest

from ernie_vil2.config import Config, ModelConfig
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.models.weights.files import read_weights, write_weights
from ernie_vil2.models.weights.format import StoredModel, write_model
from tests.support.commands import call, succeed
from tests.support.shapes import SPECIAL_TOKENS
from tests.support.towers import make_image_config, make_text_config
from tests.support.trainings import assert_same_arrays

TOKENS = [*SPECIAL_TOKENS, "一"]
convert = partial(call, "convert")


@pytest.fixture
def official(tmp_path):
    config = ModelConfig(
        image=make_image_config(name="ViT", image_size=8, patch_size=4, width=24, depth=1, heads=3),
        text=make_text_config(name="ernie", width=24, depth=1, heads=2, max_positions=8),
    )
    arrays = {name: value.numpy() for name, value in build_dual_encoder(config, 6).state_dict().items()}
    stored = StoredModel("ernie_vil2", arrays, Config(Model=config, Data={"max_length": 8}), TOKENS)
    write_model(stored, tmp_path / "official", "official")
    return tmp_path / "official"


def test_conversion_and_back_is_bit_exact_and_reported(official, tmp_path):
    options = ["--to", "paddlenlp", "--heads", 3, 2]
    printed = succeed("convert", official / "model.pdparams", tmp_path / "paddlenlp", *options)
    # Image tower: 8 for stem and end, 12 for a block. Text tower: 4 + 2, and 16 for a layer. And the temperature.
    for line in ("42 matched", "0 missing", "0 unexpected", "0 of another shape"):
        assert f"  {line}" in printed
    succeed("convert", tmp_path / "paddlenlp", tmp_path / "back", "--to", "official")
    converted = read_weights(tmp_path / "back/model.pdparams")
    assert_same_arrays(converted, read_weights(official / "model.pdparams"))
    for file in ("vocab.txt", "ernie_config.json"):
        assert (official / file).read_bytes() == (tmp_path / "back" / file).read_bytes()


def test_mismatch_is_refused_unless_allowed(official, tmp_path):
    path = official / "model.pdparams"
    write_weights(path, {**read_weights(path), "visual.head.weight": np.zeros(3, "float32")})
    (official / "integrity.json").unlink()  # its checksums would report the change first
    refused = convert(path, tmp_path / "own", "--to", "ernie_vil2", "--heads", 3, 2)
    assert refused.returncode == 2 and "1 unexpected (visual.head.weight)" in refused.stderr
    assert not (tmp_path / "own").exists()
    allowed = convert(path, tmp_path / "own", "--to", "ernie_vil2", "--heads", 3, 2, "--allow", "visual.head.*")
    assert allowed.returncode == 0 and "1 unexpected: visual.head.weight" in allowed.stdout, allowed.stderr
    assert "visual.head.weight" not in read_weights(tmp_path / "own/model.safetensors")
