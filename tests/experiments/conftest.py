"""Fixtures: a study of two tiny models on coloured shapes."""

from functools import partial

import pytest

from experiments.ablation.runs import make_run
from tests.support.small_study import write_definition, write_study


@pytest.fixture
def definition(shapes, tmp_path):
    """Return the content of the study's file."""
    return write_definition(tmp_path, shapes)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a definition and returns its study."""
    return partial(write_study, tmp_path)


@pytest.fixture(scope="session")
def trained_study(shapes, tmp_path_factory):
    """Return a study with trained runs of one seed of the main group, and its definition."""
    folder = tmp_path_factory.mktemp("study")
    definition = write_definition(folder, shapes)
    study = write_study(folder, definition)
    for run in study.runs():
        if run.group == "main" and run.seed == 0:
            make_run(study, run)
    return study, definition
