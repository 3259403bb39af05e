"""Before anything works: versions of Python, names of packages, and the first lines on the screen."""

import os
import re
import sys

import pytest
from packaging.requirements import Requirement

from tests.support.page_commands import PAGES, ROOT
from tests.support.processes import run_process

DOCUMENTS = [*PAGES.values(), ROOT / "README.zh.md", *sorted((ROOT / "docs" / "zh").glob("*.md"))]
WITH_ONNX_EXPORTS = [page for page in DOCUMENTS if "--to onnx" in page.read_text(encoding="utf-8")]


def page_name(page):
    return str(page.relative_to(ROOT))


def write_interpreter(folder, name, exit_code):
    """Write a program that answers every question of the Makefile with an exit code, and installs nothing."""
    path = folder / name
    path.write_text(f"#!/bin/sh\nexit {exit_code}\n")
    path.chmod(0o755)


def test_setup_prefers_a_python_with_onnx_export(tmp_path):
    programs = tmp_path / "programs"
    programs.mkdir()
    write_interpreter(programs, "python3.11", 127)
    write_interpreter(programs, "python3.12", 0)
    write_interpreter(programs, "python3.13", 0)

    arguments = ["make", "-f", str(ROOT / "Makefile"), "setup"]
    for name in ("requirements.txt", "setup.py", "pyproject.toml"):
        (tmp_path / name).touch()
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    child = run_process(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert re.findall(r"with (python\S+)", child.stdout) == ["python3.12"]


@pytest.mark.parametrize("page", WITH_ONNX_EXPORTS, ids=page_name)
def test_pages_with_onnx_export_name_both_other_ways(page):
    text = page.read_text(encoding="utf-8")
    assert "python3.12 -m venv" in text and "--to paddle-inference" in text


@pytest.mark.parametrize("page", DOCUMENTS, ids=page_name)
def test_extras_are_installed_from_the_checkout(page):
    assert not re.search(r"pip install.*ernie_vil2\[", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["fastapi", "starlette", "uvicorn", "h11", "fsspec", "scipy", "scikit-learn"])
def test_packages_with_private_behaviour_are_bounded(name):
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    (line,) = [line.split("  #")[0] for line in lines if re.match(rf"{name}\b(?!-)", line)]
    assert any(specifier.operator == "<" for specifier in Requirement(line).specifier)


def stderr_of(code):
    # Without ccache on the path, wherever these tests run.
    environment = os.environ | {"PATH": "", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONWARNINGS", None)
    child = run_process([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return child.stderr


def test_importing_paddle_alone_hints_at_ccache():
    """Otherwise the tests below find nothing."""
    assert "ccache" in stderr_of("import paddle")


@pytest.mark.parametrize(
    "code",
    [
        "from ernie_vil2 import cli; cli.run('plan', '-c configs/demo/emoji.yaml --ranks 1 --device cpu'.split())",
        "import ernie_vil2; ernie_vil2.runtime.set_device('cpu')",
        "import ernie_vil2; ernie_vil2.compare",
    ],
    ids=["command", "device", "import"],
)
def test_first_use_of_paddle_prints_no_hint_at_ccache(code):
    assert "ccache" not in stderr_of(code)
