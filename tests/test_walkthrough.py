"""docs/walkthrough.md, executed: its own commands, in a folder of their own."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.processes import run_process

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "walkthrough.md"


def blocks(language):
    page = PAGE.read_text(encoding="utf-8")
    return [
        text for name, text in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE) if name == language
    ]


@pytest.mark.slow
def test_the_demo_prepared_tagged_trained_killed_and_resumed_ends_where_the_uninterrupted_run_ends(tmp_path):
    for name in ("configs", "demo_data", "ernie_vil2", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    walked = run_process(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(blocks("bash"))],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    print(walked.stdout, walked.stderr)  # shown where the test fails
    assert walked.returncode == 0
    for output in blocks(""):
        assert output in walked.stdout, "the page shows another output"
    assert "Killed" in walked.stderr
    losses = (tmp_path / "runs" / "walk" / "run.losses").read_text().splitlines()
    assert len(losses) == len(set(losses)) == 20
