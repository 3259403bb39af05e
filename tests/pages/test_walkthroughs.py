"""The commands of docs/walkthrough.md and docs/curate_walkthrough.md run in a fresh folder and print what is shown."""

import json
import re

import pytest

from tests.support.page_commands import PAGES, list_blocks, make_environment
from tests.support.paths import ROOT
from tests.support.processes import run_process

pytestmark = pytest.mark.slow


def read_bash(page):
    return "\n".join(text for language, text in list_blocks(PAGES[page]) if language == "bash")


def run_commands(folder, commands):
    """Run the commands in a folder with the repository's data and programs, and return what they print."""
    for name in ("benchmarks", "configs", "demo_data", "ernie_vil2", "tools"):
        (folder / name).symlink_to(ROOT / name)
    result = run_process(
        ["bash", "-euxo", "pipefail", "-c", commands],
        cwd=folder, env=make_environment(), capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    print(result.stdout, result.stderr)  # shown where the test fails
    assert result.returncode == 0
    return result


def test_killed_run_ends_as_the_uninterrupted_run(tmp_path):
    result = run_commands(tmp_path, read_bash("walkthrough.md"))
    outputs = [text for language, text in list_blocks(PAGES["walkthrough.md"]) if not language]
    for output in outputs:
        assert output in result.stdout, "the page shows another output"
    assert "Killed" in result.stderr
    losses = (tmp_path / "runs" / "walk" / "run.losses").read_text().splitlines()
    assert len(losses) == len(set(losses)) == 20


def test_crawl_is_curated_trained_on_and_compared(tmp_path):
    commands = read_bash("curate_walkthrough.md")
    assert commands.count("tools/train.py") == 2
    changes = {
        "--rows 4000": "--rows 500",
        "configs/demo/crawl.yaml": "configs/demo/crawl.yaml -o Training.steps=4 -o Schedule.warmup_steps=1",
        "configs/curate/crawl.yaml": "configs/curate/crawl.yaml -o text_rules.images_of_a_caption=2",
    }
    for text, replacement in changes.items():
        assert text in commands
        commands = commands.replace(text, replacement)
    printed = run_commands(tmp_path, commands).stdout
    num_pairs = json.loads((tmp_path / "runs" / "crawl" / "curated" / "curation.json").read_text())["num_kept"]
    assert f"{num_pairs} of 500 pairs stay" in printed
    lost_row = re.search(r"^\| good, lost \| (\d+) \| (\d+) \|", printed, re.MULTILINE)
    assert int(lost_row[1]) > 120 and int(lost_row[2]) <= 3
    assert re.findall(r"^- (zh|en): clean is .* raw\b", printed, re.MULTILINE) == ["zh", "en"]
