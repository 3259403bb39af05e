"""The plan command prints a plan, writes it as JSON, and names the next step on errors."""

import json
from functools import partial
from pathlib import Path

from ernie_vil2.cli import run
from tests.support.commands import call

DEMO = Path(__file__).parents[2] / "configs" / "demo" / "emoji.yaml"
plan = partial(call, "plan")


def test_demo_is_planned(tmp_path, capsys):
    arguments = ["-c", DEMO, "--ranks", 2, "--device", "cpu"]
    result = plan(*arguments, "--step-seconds", 0.5, "--json", tmp_path / "plan.json")
    assert result.returncode == 0 and result.stderr == "", result.stderr
    figures = json.loads((tmp_path / "plan.json").read_text())
    assert figures["ranks"] == 2 and figures["fits"] and figures["advice"] is None
    assert figures["global_batch"] == 2 * figures["rows_per_rank"]
    assert figures["samples_per_second"] == figures["global_batch"] / 0.5
    assert "samples a second" in result.stdout and "samples a second" not in plan(*arguments).stdout
    assert run("plan", list(map(str, arguments)), "ernie-vil2 plan") == 0
    assert "measure a step: ernie-vil2 train -o" in capsys.readouterr().out


def test_training_refuses_the_ranks_of_a_plan():
    for option in (["--ranks", 2], ["--device", "cpu"]):
        result = call("train", "-c", DEMO, *option)
        assert result.returncode == 2 and "--dry-run" in result.stderr


def test_errors_name_the_next_step():
    unknown = plan("--ranks", 1, "--device", "a100")
    assert unknown.returncode == 2 and "'a100-40g'" in unknown.stderr
    uneven = plan("-c", DEMO, "--ranks", 7, "--device", "cpu")
    assert uneven.returncode == 2 and "plan for --ranks" in uneven.stderr
    other_task = plan("-c", DEMO, "--ranks", 1, "--device", "cpu", "-o", "Training.task=entailment")
    assert other_task.returncode == 2 and "Training.task=entailment" in other_task.stderr
