"""Fixtures for tests of commands."""

from tests.support.command_examples import command, inputs  # noqa: F401  -- pytest finds fixtures by their names here
