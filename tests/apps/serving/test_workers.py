"""Worker processes that are asked to end before they serve."""

import os
import signal
import subprocess
import sys

import pytest

from tests.support.limits import PATIENCE, wait_until
from tests.support.paths import ROOT
from tests.support.processes import start_process

LOADING_FOR_EVER = """
import sys
import time
from contextlib import contextmanager

from ernie_vil2.apps.serving.server import Settings, serve


@contextmanager
def open_application(metrics, access):
    print("loading", flush=True)
    time.sleep(600)
    yield


if __name__ == "__main__":
    sys.exit(serve(open_application, Settings(port=0, workers=2)))
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_workers_that_still_load_end_without_traceback(tmp_path, signum):
    program, log = tmp_path / "program.py", tmp_path / "log.txt"
    program.write_text(LOADING_FOR_EVER)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with log.open("wb") as file:
        process = start_process(
            [sys.executable, program], env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_until(lambda: log.read_text().count("loading") == 2)
        os.killpg(process.pid, signum)  # as a terminal does: to all processes of the command
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
    assert log.read_text() == 2 * "loading\n"
