"""Fixtures for tests of commands."""

import pytest

from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.command_examples import command, inputs  # noqa: F401  -- pytest finds fixtures by their names here


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Return the folder of an untrained model."""
    return write_untrained_checkpoint(tmp_path_factory.mktemp("model"))
