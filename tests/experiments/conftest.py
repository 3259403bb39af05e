"""A study of two tiny models on coloured shapes."""

from functools import partial

import pytest

from experiments.ablation.runs import make_run
from tests.support.small_study import write_definition, write_study


@pytest.fixture
def definition(shapes, tmp_path):
    """What the file of the study says; `written(definition)` writes it."""
    return write_definition(tmp_path, shapes)


@pytest.fixture
def written(tmp_path):
    """`written(definition)`: the study of it."""
    return partial(write_study, tmp_path)


@pytest.fixture(scope="session")
def made(shapes, tmp_path_factory):
    """A study of which one seed of the main group is made, and its definition."""
    folder = tmp_path_factory.mktemp("study")
    definition = write_definition(folder, shapes)
    study = write_study(folder, definition)
    for run in study.runs():
        if run.group == "main" and run.seed == 0:
            make_run(study, run)
    return study, definition
