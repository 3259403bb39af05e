"""The wheel works in a fresh environment, from a folder outside of the checkout."""

import os
import sys
import venv
import zipfile

import pytest

from tests.support.checkpoints import SMALLEST_MODEL
from tests.support.limits import PATIENCE
from tests.support.paths import ROOT
from tests.support.processes import run_process
from tests.support.trainings import to_arguments

pytest.importorskip("wheel", reason="a wheel is built without a network, by the package wheel")
TINY = [
    *SMALLEST_MODEL,
    "Model.text.vocabulary=words.txt",
    "Data.workers=0",
    "Training.steps=2",
    "Training.global_batch=8",
    "Training.device=cpu",
    "Schedule.warmup_steps=1",
    "Evaluation.every=2",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    tracked = run_process(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):  # in a copy, because building writes files next to the sources
        if name.startswith(("ernie_vil2/", "configs/")) or "/" not in name:
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, "."]
    run_process(build, cwd=folder / "source", check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def run_installed(wheel, tmp_path_factory):
    """Return a function that runs a command of the wheel in a fresh environment, with the packages of this one."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "venv")
    packages = next((folder / "venv" / "lib").glob("python*/site-packages"))
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "shared.pth").write_text("\n".join(shared) + "\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(command, *arguments):
        child = run_process([folder / "venv" / "bin" / command, *map(str, arguments)], cwd=folder, env=environment,
                               capture_output=True, text=True, timeout=PATIENCE)  # fmt: skip
        assert child.returncode == 0, child.stdout + child.stderr
        return child.stdout

    pip = [sys.executable, "-m", "pip", "--python", folder / "venv" / "bin" / "python"]
    run_process([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    return run


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    tracked = run_process(["git", "ls-files", "ernie_vil2", "configs"], cwd=ROOT, capture_output=True, text=True)
    expected = {name if name.startswith("ernie_vil2") else f"ernie_vil2/{name}" for name in tracked.stdout.split()}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert expected <= names
    metadata = {name for name in names if not name.startswith("ernie_vil2/")}
    folder = f"{wheel.name.rpartition('-py3')[0]}.dist-info"
    files = ("LICENSE", "METADATA", "WHEEL", "entry_points.txt", "top_level.txt", "RECORD")
    assert metadata == {f"{folder}/{name}" for name in files}


def test_wheel_works_from_any_folder(run_installed, shapes):
    assert "site-packages/ernie_vil2" in run_installed("python", "-c", "import ernie_vil2; print(ernie_vil2.__file__)")
    assert "eval" in run_installed("ernie-vil2", "--help")
    assert "tokens written" in run_installed("ernie-vil2", "trim", "--data", shapes["train"],
                                         "--output", "words.txt")  # fmt: skip


@pytest.mark.slow
def test_wheel_trains_scores_and_reports_from_any_folder(run_installed, shapes):
    run_installed("ernie-vil2", "trim", "--data", shapes["train"], "--output", "words.txt")
    overrides = [*TINY, f"Data.train=[{shapes['train']}]", f"Data.val=[{shapes['val']}]", "Training.output=runs/tiny"]
    options = to_arguments(overrides)
    printed = run_installed("ernie-vil2", "train", "-c", "configs/demo/emoji.yaml", *options, "--processes", 2)
    assert "finished: 2 steps" in printed
    run_installed("ernie-vil2", "eval", "--checkpoint", "runs/tiny", "--data", shapes["val"], "--language", "zh")
    assert "report.html" in run_installed("ernie-vil2", "report", "--run", "runs/tiny", "--data", shapes["val"])
