"""docs/curate_walkthrough.md, executed in small: its own commands, in a folder of their own."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.processes import run_process

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "curate_walkthrough.md"


@pytest.mark.slow
def test_the_crawl_is_made_curated_trained_on_and_compared(tmp_path):
    for name in ("benchmarks", "configs", "demo_data", "ernie_vil2", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    commands = "\n".join(
        re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    )
    assert commands.count("--rows 4000") == 1 and commands.count("tools/train.py") == 2
    small = commands.replace("--rows 4000", "--rows 500").replace(
        "configs/demo/crawl.yaml", "configs/demo/crawl.yaml -o Training.steps=4 -o Schedule.warmup_steps=1"
    )
    small = small.replace("configs/curate/crawl.yaml", "configs/curate/crawl.yaml -o text_rules.images_of_a_caption=2")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    walked = run_process(
        ["bash", "-euo", "pipefail", "-c", small],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    print(walked.stdout, walked.stderr)  # shown where the test fails
    assert walked.returncode == 0
    kept = json.loads((tmp_path / "runs" / "crawl" / "curated" / "curation.json").read_text())["kept"]
    assert f"{kept} of 500 pairs stay" in walked.stdout
    lost = re.search(r"^\| good, lost \| (\d+) \| (\d+) \|", walked.stdout, re.MULTILINE)
    assert int(lost[1]) > 120 and int(lost[2]) <= 3
    assert re.findall(r"^- (zh|en): clean is .* raw\b", walked.stdout, re.MULTILINE) == ["zh", "en"]
