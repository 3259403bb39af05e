"""The walks of docs/architecture.md stay short: which files of the package a sample passes, and an evaluation."""

import inspect
import os
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path

import ernie_vil2
from ernie_vil2.config import load_config
from ernie_vil2.data.loader import training_batches
from ernie_vil2.training.trainer import Trainer
from tests.conftest import COLOURS, SHAPES, untrained_checkpoint

PACKAGE = Path(ernie_vil2.__file__).parent
FILES, EVALUATION = 20, 65
LINES, MODULES = 34_600, 260
SETTINGS = [
    "Model.image={name: ViT, image_size: 32, patch_size: 8, width: 64, depth: 1, heads: 2}",
    "Model.text={name: ernie, width: 64, depth: 1, heads: 2, max_positions: 24}",
    "Data.max_length=24",
    "Data.workers=0",
    "Training.global_batch=16",
    "Loss.duplicates=positives",
]


def test_the_code_is_no_longer_than_it_was():
    """Library and experiments together; a commit that raises a number names the feature that needs it."""
    files = [path for name in ("ernie_vil2", "experiments") for path in (PACKAGE.parent / name).rglob("*.py")]
    lines = sum(path.read_text(encoding="utf-8").count("\n") for path in files)
    assert lines <= LINES and len(files) <= MODULES, f"{lines} lines in {len(files)} files"


def own_file(frame):
    """The file of the package that a frame is of, the nearest frame of one above it, or None."""
    while frame and not frame.f_code.co_filename.startswith(f"{PACKAGE}/"):
        frame = frame.f_back
    return frame and frame.f_code.co_filename.removeprefix(f"{PACKAGE}/")


@contextmanager
def files_entered():
    """Fills a dict with the package's files of which a function is called, and for each the files that call it."""
    files = {}

    def note(frame, event, _):
        code = frame.f_code
        # Neither modules nor bodies of classes, which run when they are imported.
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(f"{PACKAGE}/"):
            files.setdefault(own_file(frame), set()).add(own_file(frame.f_back))

    sys.setprofile(note)
    try:
        yield files
    finally:
        sys.setprofile(None)


def lowest_layers():
    """The packages and modules of the lowest layers, which know nothing of samples: io, device, registry."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    return {name.strip() for layer in layers[-3:] for name in layer.split("|")}


def test_a_sample_passes_few_files_on_its_way_to_a_gradient(shapes, tmp_path):
    data = [f"Data.train=[{shapes['train']}]", f"Training.output={tmp_path / 'run'}", "Evaluation.every=0"]
    trainer = Trainer(load_config(None, [*SETTINGS, *data]))
    with files_entered() as files:
        batch = next(training_batches(trainer.rows, trainer.config))
        trainer.task.forward(batch, 0)
        trainer.task.backward()
    assert all(parameter.grad is not None for parameter in trainer.model.parameters())
    leaves = lowest_layers()
    # The trainer's update has the task do the latter two.
    passed = ["training/update.py", *(file for file in files if file.split("/")[0].removesuffix(".py") not in leaves)]
    assert {"data/readers/tar.py", "data/augment.py", "models/dual_encoder.py", "losses/tiles.py"} <= {*passed}
    assert len(passed) <= FILES, f"{len(passed)} files: {', '.join(passed)}"


TRACER = """
import atexit, inspect, os, sys

package, out, seen = os.environ["WALK_PACKAGE"], os.environ["WALK_OUT"], set()

def note(frame, event, _):
    code = frame.f_code
    if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(package):
        seen.add(code.co_filename[len(package):])

def write():
    sys.setprofile(None)
    open(out, "w").write("\\n".join(sorted(seen)))

atexit.register(write)
sys.setprofile(note)
"""


def test_an_evaluation_goes_through_few_files(shapes, tmp_path):
    """From the command line to the table: every file of which a function runs, imports among it, none left out."""
    untrained_checkpoint(tmp_path, ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "a", *COLOURS, *SHAPES])
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(TRACER)
    options = {"checkpoint": tmp_path, "data": shapes["val"], "language": "en", "output": tmp_path / "results"}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "hook"), str(PACKAGE.parent)]),
        "WALK_PACKAGE": f"{PACKAGE}/", "WALK_OUT": str(tmp_path / "files"),
    }  # fmt: skip
    command = [sys.executable, "-W", "ignore", "tools/eval_retrieval.py", *arguments, "--device", "cpu"]
    done = subprocess.run(command, cwd=PACKAGE.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = (tmp_path / "files").read_text().split()
    assert {"evaluation/scorers/retrieval.py", "evaluation/ranking.py", "evaluation/report.py"} <= {*files}
    assert len(files) <= EVALUATION, f"{len(files)} files: {', '.join(files)}"
