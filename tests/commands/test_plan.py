"""The planner as a user runs it."""

import json
from functools import partial
from pathlib import Path

from ernie_vil2.cli import run
from ernie_vil2.planning.devices import DEVICES
from tests.support.commands import call

DEMO = Path(__file__).parents[2] / "configs" / "demo" / "emoji.yaml"
plan = partial(call, "plan")


def test_a_plan_of_the_demo(tmp_path):
    arguments = ["-c", DEMO, "--ranks", 2, "--device", "cpu"]
    made = plan(*arguments, "--step-seconds", 0.5, "--json", tmp_path / "plan.json")
    assert made.returncode == 0, made.stderr
    assert made.stderr == ""
    for part in ("memory of a rank", "sent by a rank", "samples a second", "schedule", "fits"):
        assert part in made.stdout
    figures = json.loads((tmp_path / "plan.json").read_text())
    assert figures["ranks"] == 2 and figures["fits"] and figures["advice"] is None
    assert figures["global_batch"] == 2 * figures["rows"]
    assert figures["samples_per_second"] == figures["global_batch"] / 0.5
    unmeasured = plan(*arguments)
    assert "measure a step: tools/train.py -o" in unmeasured.stdout and "samples a second" not in unmeasured.stdout


def test_a_plan_names_commands_as_the_user_called_it(capsys):
    assert run("plan", ["-c", str(DEMO), "--ranks", "2", "--device", "cpu"], "ernie-vil2 plan") == 0
    assert "measure a step: ernie-vil2 train -o" in capsys.readouterr().out


def test_errors_name_the_next_action():
    unknown = plan("--ranks", 1, "--device", "a100")
    assert unknown.returncode == 2 and "choose from 'a100-40g', 'a100-80g'" in unknown.stderr
    uneven = plan("-c", DEMO, "--ranks", 7, "--device", "cpu")
    assert uneven.returncode == 2 and "plan for --ranks" in uneven.stderr


def test_help_names_every_device():
    text = " ".join(plan("--help").stdout.split())
    assert ",".join(DEVICES) in text
