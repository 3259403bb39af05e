import runpy
import sys

import pytest

from tests.test_imports import ROOT


@pytest.fixture
def run_tool(monkeypatch):
    """Calls a command line in this process; returns its exit status."""

    def run(*arguments, tool="extract_tags"):
        monkeypatch.setattr(sys, "argv", [f"{tool}.py", *map(str, arguments)])
        return runpy.run_path(str(ROOT / "tools" / f"{tool}.py"))["main"]()

    return run
