"""Fixtures of the tests with bad, damaged and hostile input."""

from tests.support.command_examples import command, inputs  # noqa: F401  -- pytest finds fixtures by their names here
from tests.support.exported_models import exports, model  # noqa: F401
