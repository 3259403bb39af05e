"""Processes that tests start: commands of this repository, and tools of the machine."""

import subprocess


def run_process(command, **options):
    """Run a command to its end, with the options of subprocess.run."""
    return subprocess.run(command, **options)  # noqa: S603  -- tests write their commands themselves


def start_process(command, **options):
    """Start a command, with the options of subprocess.Popen."""
    return subprocess.Popen(command, **options)  # noqa: S603  -- tests write their commands themselves
