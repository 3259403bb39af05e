"""Fixtures of the tests of search: a tiny untrained model and an index of 16 shapes."""

import pytest

from ernie_vil2 import load_model
from ernie_vil2.apps.search import open_index
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.small_index import TEXTS, TOKENS, fill_index


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return write_untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"), TOKENS)


@pytest.fixture(scope="session")
def model(checkpoint):
    return load_model(checkpoint)


@pytest.fixture(scope="session")
def shapes_index(tmp_path_factory, model, shapes):
    """Return the folder of an index of 16 shapes and two texts; a test that changes it copies it."""
    return fill_index(tmp_path_factory.mktemp("shapes_index") / "index", model, shapes["val"], TEXTS)


@pytest.fixture
def index(shapes_index, model):
    with open_index(shapes_index, model) as index:
        yield index
