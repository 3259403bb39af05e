"""The setup chooses a Python, pages install extras and exports, and fragile packages have upper bounds."""

import os
import re

import pytest
from packaging.requirements import Requirement

from tests.support.page_commands import PAGES
from tests.support.paths import ROOT
from tests.support.processes import run_process

DOCUMENTS = [*PAGES.values(), ROOT / "README.zh.md", *sorted((ROOT / "docs" / "zh").glob("*.md"))]


def test_setup_prefers_a_python_with_onnx_export(tmp_path):
    # Programs that answer every question of the Makefile with an exit code, and install nothing.
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, exit_code in (("python3.11", 127), ("python3.12", 0), ("python3.13", 0)):
        (programs / name).write_text(f"#!/bin/sh\nexit {exit_code}\n")
        (programs / name).chmod(0o755)

    arguments = ["make", "-f", str(ROOT / "Makefile"), "setup"]
    for name in ("requirements.txt", "setup.py", "pyproject.toml", "constraints-3.12.txt"):
        (tmp_path / name).touch()
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    child = run_process(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert re.findall(r"with (python\S+)", child.stdout) == ["python3.12"]


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_install_from_the_checkout_and_link_onnx_on_3_13(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"pip install.*ernie_vil2\[", text), "extras are installed from the checkout"
    if "--to onnx" in text and page.name != "installation.md":
        assert re.search(r"installation\.md#(onnx-on-python-313|在-python-313-上导出-onnx)", text)


@pytest.mark.parametrize("name", ["fastapi", "starlette", "uvicorn", "h11", "fsspec", "scipy", "scikit-learn"])
def test_packages_with_private_behaviour_are_bounded(name):
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    (line,) = [line.split("  #")[0] for line in lines if re.match(rf"{name}\b(?!-)", line)]
    assert any(specifier.operator == "<" for specifier in Requirement(line).specifier)
