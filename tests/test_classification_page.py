"""docs/classification.md, executed: its commands on small data laid out as it says, with an untrained model."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np

from ernie_vil2 import cli as commands
from tests.support.checkpoints import untrained_checkpoint
from tests.support.shapes import COLOURS, SHAPES, SPECIAL_TOKENS, draw, png

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "classification.md"
SHORT = ["Model.image.weights=null", "Data.workers=0", "Schedule.warmup_steps=1", "Training.steps=2",
         "Evaluation.every=2", "Training.output=new"]  # fmt: skip


def drawing(shape, seed):
    return png(draw(list(COLOURS.values())[seed % 4][0], shape, np.random.default_rng(seed)))


def lay_out(folder, shapes):
    """What the page's commands name."""
    untrained_checkpoint(folder / "runs" / "emoji", [*SPECIAL_TOKENS, "a", *SHAPES])
    (folder / "demo_data").mkdir()
    for split, source in (("train", "train"), ("val", "val"), ("test", "val")):
        shutil.copy(shapes[source], folder / "demo_data" / f"emoji-{split}.tar")
    shutil.copy(ROOT / "demo_data" / "vocabulary.txt", folder / "demo_data")
    names = list(SHAPES)
    for label, shape in enumerate(names):
        for split in ("test", "train"):
            position = folder / "cifar-10" / split / str(label)
            position.mkdir(parents=True)
            for copy in range(5):
                (position / f"{copy}.png").write_bytes(drawing(shape, 10 * label + copy))
        (folder / f"{shape}.png").write_bytes(drawing(shape, label))
    texts = {
        "kinds.txt": [f"{shape}\ta {shape}" for shape in names],
        "cifar-10/label_cn.txt": SHAPES.values(),
        "mine.txt": ["{}", "一个{}"],
        "birds.csv": ["image,species", *(f"{shape}.png,{shape}" for shape in names)],
        "zh.txt": [f"{shape}\t{name}" for shape, name in SHAPES.items()],
        "en.txt": sorted(names),
    }
    for name, lines in texts.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_every_command_of_the_page_runs(tmp_path, shapes, monkeypatch, capsys):
    lay_out(tmp_path, shapes)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    assert len(lines) >= 5
    for line in lines:
        python, tool, *arguments = shlex.split(line)
        assert python == "python"
        if tool == "tools/train.py":
            assert commands.run("train", [*arguments, *(part for text in SHORT for part in ("-o", text))]) == 0
            assert "zh/acc1" in Path("new/log.jsonl").read_text()
            continue
        assert tool == "tools/eval_classification.py"
        assert commands.run("eval_classification", [*arguments, "--device", "cpu"]) == 0, line
        assert "mean per class recall" in capsys.readouterr().out
    assert len(list(Path("classification").glob("*.html"))) == 3
