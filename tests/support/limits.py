"""How long tests wait, and how many examples they draw."""

import time

from hypothesis import settings

PATIENCE = 600
"""Seconds that a test waits for another process or thread: ten times what a busy machine needs."""


def wait_until(condition):
    """Wait for a condition to become true."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < PATIENCE, "the condition does not become true"
        time.sleep(0.01)


def limit_examples(count):
    """Return the settings of a test with this many examples; with --fast at most as many as its profile has."""
    fast_count = settings.get_profile("fast").max_examples
    if settings.default.max_examples == fast_count:
        count = min(count, fast_count)
    return settings(max_examples=count)
