"""Fixtures for tests of exports."""

from tests.support.exported_models import exports, model  # noqa: F401  -- pytest finds fixtures by their names here
