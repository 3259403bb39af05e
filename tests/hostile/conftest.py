"""Fixtures for tests with hostile input."""

from tests.support.command_examples import command, inputs  # noqa: F401  -- pytest finds fixtures by their names here
from tests.support.exported_models import exports, model  # noqa: F401
