"""docs/entailment.md: the commands at its head, as they are there, on small folders laid out as they are published."""

import re
import shlex
from pathlib import Path

from ernie_vil2 import cli as commands
from ernie_vil2.training.run_log import read_log
from tests.support.checkpoints import untrained_checkpoint
from tests.support.entailment_data import TOKENS, entailment_folder, nlvr2_folder

PAGE = Path(__file__).parents[1] / "docs" / "entailment.md"
TOOLS = {"tools/train.py": "train", "tools/eval.py": "eval"}


def test_the_commands_do_what_the_page_says(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    untrained_checkpoint(Path("runs/english"), TOKENS)
    entailment_folder(Path("data/snli-ve"))
    nlvr2_folder(Path("data/nlvr2"))
    block = re.search(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)[1]
    lines = [shlex.split(line) for line in block.splitlines()]
    # What --check finds in folders so small is another count than the authors', which it says by its exit code.
    assert [commands.run(TOOLS[tool], arguments) for _, tool, *arguments in lines] == [0, 0, 0, 0, 1], (
        capfd.readouterr()
    )
    printed = capfd.readouterr().out
    assert "published: ERNIE-ViL 2.0" in printed and "86,373" in printed
    for run in ("snli_ve", "nlvr2"):
        assert [record["best_by"] for record in read_log(Path("runs") / run / "log.jsonl") if "best_by" in record]
