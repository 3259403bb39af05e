"""How long tests wait, and how many examples they draw."""

import time

from hypothesis import settings

PATIENCE = 600
"""Seconds that a test waits for what another process does: ten times what a busy machine needs."""


def wait_until(condition):
    """Wait for a condition to become true."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < PATIENCE, "this does not come"
        time.sleep(0.01)


def limit_examples(count):
    """Settings of a test of so many examples, and of at most those of the profile "fast" with --fast."""
    fast = settings.get_profile("fast").max_examples
    return settings(max_examples=min(count, fast) if settings.default.max_examples == fast else count)
