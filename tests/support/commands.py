"""Commands run in the process of the test, and small disks for them to write to."""

import io
import subprocess
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest

from ernie_vil2 import cli as commands
from tests.support.processes import run_process


def call(command, *arguments):
    """Run a command in this process; return what `subprocess.run` would with text=True."""
    output, error = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(error):
        try:
            code = commands.run(command, list(map(str, arguments)))
        except SystemExit as system_exit:  # raised by --help
            code = system_exit.code
    return subprocess.CompletedProcess([command, *arguments], code, output.getvalue(), error.getvalue())


def succeed(command, *arguments):
    """Run a command in this process that must succeed, and return what it printed."""
    result = call(command, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


@contextmanager
def mount_small_disk(folder, size):
    """Mount a file system of a size at a new folder; skip the test where that is not allowed."""
    folder.mkdir()
    mount = run_process(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    try:
        yield folder
    finally:
        run_process(["umount", "--lazy", folder], check=True)  # its files may still be mapped
