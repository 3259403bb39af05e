"""Folders of the repository, and scripts of demo_data as modules."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO_DATA = ROOT / "demo_data"
FIXTURES = ROOT / "tests" / "fixtures"


def import_demo_script(name):
    """Import a script of demo_data, which finds its neighbours by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DEMO_DATA))
        return importlib.import_module(name)
