"""What a plan says that a rank sends, against the counter of a real step of two ranks."""

import json
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from ernie_vil2.config import load_config
from ernie_vil2.device.launch import run_ranks
from ernie_vil2.planning.devices import DEVICES
from ernie_vil2.planning.plan import Plan
from ernie_vil2.planning.towers import Towers
from tests.support import traffic_rank
from tests.support.paths import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            ["Model.image={name: RepVGG, image_size: 32, width: 8, depth: 1}", "Training.micro_batch=3"], id="norms"
        ),
        pytest.param(
            ["Loss.weights={text_text: 0, text_image: 0}", "Training.global_batch=12"],
            id="two pairs",
        ),
    ],
)
def test_bytes_and_calls_are_those_of_a_step(overrides, tmp_path, monkeypatch, changes):
    settings = [*overrides, *changes, "Training.steps=3", "Training.device=cpu"]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    worker = Path(traffic_rank.__file__)
    assert run_ranks([sys.executable, str(worker), str(tmp_path), *settings], 2) == 0

    config = load_config(None, settings)
    planned = defaultdict(lambda: {"calls": 0, "payload": 0, "sent": 0.0})
    for transfer in Plan(config, Towers(config), 2, DEVICES["cpu"]).transfers:
        if transfer.what == "gradients of the parameters":  # sent by Paddle's own data parallel, which is not counted
            continue
        # Gloo has no reduce_scatter: the whole is summed on every rank, which sends twice as much.
        on_gloo = transfer.collective == "reduce_scatter"
        entry = planned["all_reduce" if on_gloo else transfer.collective]
        entry["calls"] += transfer.calls
        entry["payload"] += transfer.payload
        entry["sent"] += transfer.sent * (2 if on_gloo else 1)
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == planned
