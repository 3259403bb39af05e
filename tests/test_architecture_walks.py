"""How many of its own files a command runs through, none left out, and how long the code is (docs/architecture.md).

A file counts if a function or method that is defined in it runs, not if it is only imported. Threads and worker
processes are not looked into, and moving work there does not make a walk shorter: the training loads in its own
process.
"""

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

import ernie_vil2

ROOT = Path(ernie_vil2.__file__).parents[1]
LONGEST = {"train": 67, "eval": 45, "load": 21}
"""Files that a walk may run through. A commit that raises one of these, or the next two, names the feature for it."""
LINES, MODULES = 47_273, 237
TRACER = """
import atexit, inspect, os, sys

package, seen = os.environ["WALK_PACKAGE"], set()

def note(frame, event, _):
    code = frame.f_code
    if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(package):
        seen.add(code.co_filename[len(package):])

def write():
    sys.setprofile(None)
    open(f"{os.environ['WALK_OUT']}.{os.getpid()}", "w").write("\\n".join(sorted(seen)))

atexit.register(write)
sys.setprofile(note)
"""
SETTINGS = [
    "Model.image={name: ViT, image_size: 32, patch_size: 8, width: 64, depth: 1, heads: 2}",
    "Model.text={name: ernie, width: 64, depth: 1, heads: 2, max_positions: 32}", "Data.max_length=32",
    "Data.workers=0", "Training.global_batch=16", "Training.steps=2", "Schedule.warmup_steps=1",
    "Training.device=cpu", "Views.languages={en: 1.0}",
]  # fmt: skip


@pytest.fixture(scope="module")
def walks(shapes, tmp_path_factory):
    """The files of a training of two steps and its checkpoint, of its evaluation up to the table, and of loading it."""
    folder = tmp_path_factory.mktemp("walks")
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(TRACER)
    settings = [*SETTINGS, f"Data.train=[{shapes['train']}]", f"Training.output={folder / 'run'}"]
    commands = {
        "train": ["tools/train.py", *(f"-o{setting}" for setting in settings)],
        "eval": ["tools/eval.py", "--checkpoint", folder / "run", "--data", shapes["val"], "--language", "en",
                 "--output", folder / "results"],
        "load": ["-c", f"import ernie_vil2; ernie_vil2.load_model({str(folder / 'run')!r}).encode_texts(['a'])"],
    }  # fmt: skip
    found = {}
    for name, command in commands.items():
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(folder / "hook"), str(ROOT)]),
            "WALK_PACKAGE": f"{ROOT / 'ernie_vil2'}/", "WALK_OUT": str(folder / name),
        }  # fmt: skip
        done = subprocess.run([sys.executable, "-W", "ignore", *map(str, command)], cwd=ROOT, env=environment,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        found[name] = {file for part in folder.glob(f"{name}.*") for file in part.read_text().split()}
    return found


@pytest.mark.parametrize(
    ("name", "among"),
    [
        ("train", {"data/readers/tar.py", "data/augment.py", "losses/tiles.py", "training/checkpoint.py"}),
        ("eval", {"evaluation/scorers/retrieval.py", "evaluation/ranking.py", "evaluation/report.py"}),
        ("load", {"encoder/__init__.py", "models/dual_encoder.py", "data/tokenizer.py"}),
    ],
)
def test_a_walk_is_no_longer_than_it_was(walks, name, among):
    assert among <= walks[name]
    assert len(walks[name]) <= LONGEST[name], f"{len(walks[name])} files: {', '.join(sorted(walks[name]))}"


def test_the_code_is_no_longer_than_it_was():
    files = [path for name in ("ernie_vil2", "experiments") for path in (ROOT / name).rglob("*.py")]
    lines = sum(path.read_text(encoding="utf-8").count("\n") for path in files)
    assert lines <= LINES and len(files) <= MODULES, f"{lines} lines in {len(files)} files"
    assert max(path.read_text(encoding="utf-8").count("\n") for path in files) <= 450
    lengths = [path.read_text(encoding="utf-8").count("\n") for path in files]
    assert 130 <= median(lengths) <= 220
    assert sum(path.read_text(encoding="utf-8").count("# fmt: skip") for path in files) <= 171
    row = f"| {' | '.join(map(str, LONGEST.values()))} | {LINES:,} | {MODULES} |"
    assert row in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), f"docs/architecture.md lacks {row}"
    assert len([*Path(ernie_vil2.__file__).parent.glob("*.py")]) <= 4
