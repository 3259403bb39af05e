"""Fixtures for tests of the curation."""

from tests.support.crawled_pairs import curated_table, steps_of_text  # noqa: F401  -- pytest finds fixtures here
