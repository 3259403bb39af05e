"""Commands in configurations and lists (pipe:) run only with --allow-pipes."""

import os
import sys
from pathlib import Path

import pytest

from ernie_vil2 import cli as commands
from tests.support.processes import run_process
from tests.support.shapes import draw_shape_members, write_tar

ROOT = Path(__file__).parents[2]
# Commands that open sources, and their arguments.
COMMANDS = {
    "train": "-o Data.train=['DATA'] -o Training.output=OUT/run",
    "train --dry-run": "-o Data.train=['DATA'] -o Training.output=OUT/run",
    "eval": "--check --data DATA",
    "prepare": "DATA --check",
    "tag file": "DATA --tags OUT/tags.jsonl --output OUT/out.jsonl",
    "trim": "--data DATA --output OUT/vocab.txt",
}


@pytest.mark.parametrize(("command", "in_list"), [("eval", True), *((command, False) for command in COMMANDS)])
def test_pipe_runs_only_if_it_is_allowed(command, in_list, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ERNIE_VIL2_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tags.jsonl").write_text('{"id": "1", "tags": []}\n')
    data = f"pipe:touch {tmp_path}/ran"
    if in_list:
        (tmp_path / "list.txt").write_text(f"{data}\n")
        data = str(tmp_path / "list.txt")
    name, *options = f"{command} {COMMANDS[command]}".split()
    options = [option.replace("OUT", str(tmp_path)).replace("DATA", data) for option in options]

    assert commands.run(name, options) == 2
    error = capsys.readouterr().err
    assert f"pipe:touch {tmp_path}/ran" in error and "--allow-pipes" in error and error.count("\n") == 1
    assert not (tmp_path / "ran").exists()
    # When it is allowed, it runs; its output, which is empty, is not a shard.
    assert commands.run(name, [*options, "--allow-pipes"]) == 2
    assert (tmp_path / "ran").exists() and "not a tar shard" in capsys.readouterr().err
    # The permission ends with its command.
    assert commands.run(name, options) == 2 and "--allow-pipes" in capsys.readouterr().err


@pytest.mark.parametrize("tool", ["prepare.py", pytest.param("train.py", marks=pytest.mark.slow)])
def test_permission_reaches_workers_and_ranks(tool, tmp_path):
    write_tar(tmp_path / "a.tar", draw_shape_members(1, seed=1))
    data = f"pipe:cat {tmp_path}/a.tar"
    options = {
        "prepare.py": [data, "--output", tmp_path / "out", "--samples-per-shard", "3"],
        "train.py": ["-c", "configs/demo/emoji.yaml", "-o", f"Data.train=['{data}']", "-o", "Data.val=[]",
                     "-o", "Data.text_id=null", "-o", "Evaluation.every=0", "-o", "Data.workers=1",
                     "-o", "Training.steps=1", "-o", "Training.global_batch=8", "-o", "Schedule.warmup_steps=0",
                     "-o", f"Training.output={tmp_path / 'out'}"],
    }[tool]  # fmt: skip
    result = run_process(
        [sys.executable, f"tools/{tool}", *map(str, options), "--processes", "2", "--allow-pipes"],
        cwd=ROOT, env=os.environ | {"ERNIE_VIL2_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert {"prepare.py": "16 samples in 6 shards", "train.py": "finished: 1 step,"}[tool] in result.stdout
