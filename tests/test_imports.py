"""Every module imports, and the command lines answer before anything heavy is loaded."""

import importlib
import os
import pkgutil
import sys
from pathlib import Path

import pytest

import ernie_vil2
import experiments
from tests.support.limits import PATIENCE
from tests.support.processes import run_process

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("paddle", "paddlenlp", "paddleclas", "numpy", "cv2", "pydantic", "visualdl")
MODULES = sorted(
    module.name
    for package in (ernie_vil2, experiments)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)
TOOLS = sorted((ROOT / "tools").glob("*.py"))


def run(*arguments):
    """Run this Python with -X importtime; returns the process and the top-level names of what it imported."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = run_process(
        [sys.executable, "-X", "importtime", *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    lines = [line for line in child.stderr.splitlines() if line.startswith("import time:")]
    return child, {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in lines}


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name):
    importlib.import_module(name)


def test_there_are_modules_and_tools():
    assert {"ernie_vil2.device.runtime", "ernie_vil2.losses.multi_view"} <= set(MODULES)
    assert "doctor.py" in [tool.name for tool in TOOLS]


def test_every_folder_with_modules_is_a_package():
    """A folder without __init__.py imports in a checkout but is left out of an installation."""
    folders = {file.parent for name in ("ernie_vil2", "experiments") for file in (ROOT / name).rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_importing_the_package_imports_nothing_heavy():
    child, imported = run("-c", "import ernie_vil2; print(ernie_vil2.__version__)")
    assert child.returncode == 0, child.stderr
    assert child.stdout.strip() == ernie_vil2.__version__
    assert "ernie_vil2" in imported and not imported & set(HEAVY)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_help_needs_no_paddle(tool):
    child, imported = run(str(tool), "--help")
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith("usage:")
    assert "argparse" in imported and not imported & {"paddle", "paddlenlp", "paddleclas"}
