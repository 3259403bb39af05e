"""The walks of docs/architecture.md stay short: which files of the package a sample and an evaluation pass."""

import importlib
import inspect
import pkgutil
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path

import ernie_vil2
from ernie_vil2 import cli as commands
from ernie_vil2.config import load_config
from ernie_vil2.data.loader import training_batches
from ernie_vil2.training.trainer import Trainer
from tests.conftest import COLOURS, SHAPES, untrained_checkpoint

PACKAGE = Path(ernie_vil2.__file__).parent
FILES, ROOMS = 20, 12
SETTINGS = [
    "Model.image={name: ViT, image_size: 32, patch_size: 8, width: 64, depth: 1, heads: 2}",
    "Model.text={name: ernie, width: 64, depth: 1, heads: 2, max_positions: 24}",
    "Data.max_length=24",
    "Data.workers=0",
    "Training.global_batch=16",
    "Loss.duplicates=positives",
]


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
    """The packages and modules of the two lowest layers, which know nothing of samples: files, geometry, cpu, ..."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    return {name.strip() for layer in layers[-2:] for name in layer.split("|")}


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


def is_room(file):
    """Whether an evaluation is what a file is about: not reading a sample, nor making a model of a file."""
    return (
        file.startswith(("evaluation/", "pages/", "commands/", "data/sources/published/"))
        or file in ("data/benchmark.py", "data/readers/opening.py", "data/readers/layout.py", "data/readers/layouts.py")
    ) and file.endswith(".py")


def test_an_evaluation_goes_through_few_rooms(shapes, tmp_path, monkeypatch):
    untrained_checkpoint(tmp_path, ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "a", *COLOURS, *SHAPES])
    options = {"checkpoint": tmp_path, "data": shapes["val"], "language": "en", "output": tmp_path / "results"}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    for module in pkgutil.walk_packages(commands.__path__, "ernie_vil2.cli."):
        importlib.import_module(module.name)
    command = sys.modules["ernie_vil2.cli.eval"]
    run, files = command.run, {}

    def traced(args):
        with files_entered() as entered:
            code = run(args)
        files.update(entered)
        return code

    monkeypatch.setattr(command, "run", traced)
    assert commands.run("eval", [*arguments, "--device", "cpu"]) == 0
    rooms = [file for file in files if is_room(file) and file != "cli/eval.py"]
    assert {"data/readers/opening.py", "evaluation/ranking.py", "evaluation/results.py", "pages/page.py"} <= {*rooms}
    assert len(rooms) <= ROOMS, f"{len(rooms)} rooms: {', '.join(rooms)}"
    both_ways = [(room, caller) for room in rooms for caller in files[room]
                 if caller in rooms and caller != room and room in files[caller]]  # fmt: skip
    assert not both_ways, both_ways
