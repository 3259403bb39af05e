"""Fixture of the tests of search: an index of 16 shapes."""

import pytest

from ernie_vil2.apps.search import open_index
from tests.support.small_index import TEXTS, fill_index


@pytest.fixture(scope="session")
def shapes_index(tmp_path_factory, model, shapes):
    """Return the folder of an index of 16 shapes and two texts; a test that changes it copies it."""
    return fill_index(tmp_path_factory.mktemp("shapes_index") / "index", model, shapes["val"], TEXTS)


@pytest.fixture
def index(shapes_index, model):
    with open_index(shapes_index, model) as index:
        yield index
