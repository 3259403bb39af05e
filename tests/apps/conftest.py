"""Fixtures of the tests of applications: a tiny untrained model."""

import pytest

from ernie_vil2 import load_model
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.small_index import TOKENS


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return write_untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"), TOKENS)


@pytest.fixture(scope="session")
def model(checkpoint):
    return load_model(checkpoint)
