"""docs/walkthrough.md and docs/curate_walkthrough.md, executed: their own commands, in a folder of their own."""

import json
import re

import pytest

from tests.support.page_commands import PAGES, list_blocks, make_environment
from tests.support.paths import ROOT
from tests.support.processes import run_process

pytestmark = pytest.mark.slow


def bash_of(page):
    return "\n".join(text for language, text in list_blocks(PAGES[page]) if language == "bash")


def walk(folder, commands):
    """Run the commands in a folder with the repository's data and programs, and return what they print."""
    for name in ("benchmarks", "configs", "demo_data", "ernie_vil2", "tools"):
        (folder / name).symlink_to(ROOT / name)
    walked = run_process(
        ["bash", "-euxo", "pipefail", "-c", commands],
        cwd=folder, env=make_environment(), capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    print(walked.stdout, walked.stderr)  # shown where the test fails
    assert walked.returncode == 0
    return walked


def test_the_killed_run_ends_where_the_uninterrupted_one_ends(tmp_path):
    walked = walk(tmp_path, bash_of("walkthrough.md"))
    for language, output in list_blocks(PAGES["walkthrough.md"]):
        assert language or output in walked.stdout, "the page shows another output"
    assert "Killed" in walked.stderr
    losses = (tmp_path / "runs" / "walk" / "run.losses").read_text().splitlines()
    assert len(losses) == len(set(losses)) == 20


def test_the_crawl_is_made_curated_trained_on_and_compared(tmp_path):
    commands = bash_of("curate_walkthrough.md")
    assert commands.count("tools/train.py") == 2
    changes = {
        "--rows 4000": "--rows 500",
        "configs/demo/crawl.yaml": "configs/demo/crawl.yaml -o Training.steps=4 -o Schedule.warmup_steps=1",
        "configs/curate/crawl.yaml": "configs/curate/crawl.yaml -o text_rules.images_of_a_caption=2",
    }
    for text, replacement in changes.items():
        assert text in commands
        commands = commands.replace(text, replacement)
    printed = walk(tmp_path, commands).stdout
    num_pairs = json.loads((tmp_path / "runs" / "crawl" / "curated" / "curation.json").read_text())["num_kept"]
    assert f"{num_pairs} of 500 pairs stay" in printed
    lost = re.search(r"^\| good, lost \| (\d+) \| (\d+) \|", printed, re.MULTILINE)
    assert int(lost[1]) > 120 and int(lost[2]) <= 3
    assert re.findall(r"^- (zh|en): clean is .* raw\b", printed, re.MULTILINE) == ["zh", "en"]
