"""Every module can be imported, and commands answer without loading heavy packages."""

import importlib
import os
import pkgutil
import sys

import pytest

import ernie_vil2
import experiments
from tests.support.limits import PATIENCE
from tests.support.paths import ROOT
from tests.support.processes import run_process

HEAVY = {"paddle", "paddlenlp", "paddleclas", "numpy", "cv2", "pydantic", "visualdl"}
PACKAGES = (ernie_vil2, experiments)
TOOLS = sorted((ROOT / "tools").glob("*.py"))


def import_in_process(*arguments):
    """Run this Python with -X importtime, and return the process and the top-level names that it imported."""
    child = run_process([sys.executable, "-X", "importtime", *arguments], cwd=ROOT, capture_output=True, text=True,
                           env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=PATIENCE)  # fmt: skip
    assert child.returncode == 0, child.stderr
    lines = [line for line in child.stderr.splitlines() if line.startswith("import time:")]
    return child, {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in lines}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_module_can_be_imported(package):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def test_importing_the_package_imports_nothing_heavy():
    child, imported = import_in_process("-c", "import ernie_vil2; print(ernie_vil2.__version__)")
    assert child.stdout.strip() == ernie_vil2.__version__
    assert "ernie_vil2" in imported and not imported & HEAVY


def test_help_needs_no_paddle():
    # A single process prints the help of all tools, which is faster; any import of Paddle shows.
    code = """
import runpy, sys
for tool in sys.argv[1:]:
    sys.argv = [tool, "--help"]
    try:
        runpy.run_path(tool, run_name="__main__")
    except SystemExit as error:
        assert not error.code, tool
"""
    child, imported = import_in_process("-c", code, *map(str, TOOLS))
    assert child.stdout.count("usage:") == len(TOOLS)
    assert "argparse" in imported and not imported & {"paddle", "paddlenlp", "paddleclas"}
