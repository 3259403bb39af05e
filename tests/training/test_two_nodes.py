"""Two machines under Paddle's launcher, one of which is killed and replaced: network namespaces.

It takes root's rights and `ip` (Debian: iproute2); each namespace has its own network and its own `/etc/hosts`.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ernie_vil2.run_folder import list_checkpoints
from ernie_vil2.training.run_log import read_log
from tests.training.conftest import MINUTE, ROOT, as_arguments, rank_process, run, wait_for_steps

NETWORK = "10.203.77"
PORT = 8765


def ip(*arguments):
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no network namespaces here: {done.stderr.strip()}")


@pytest.fixture
def machines():
    """Names of three namespaces on one bridge, with the addresses `NETWORK`.1 to .3."""
    if sys.platform != "linux" or not shutil.which("ip") or os.geteuid():
        pytest.skip("needs Linux, `ip` and root")
    bridge, names = f"evb{os.getpid()}", [f"ev{os.getpid()}n{number}" for number in range(3)]
    with contextlib.ExitStack() as undo:
        ip("link", "add", bridge, "type", "bridge")
        undo.callback(subprocess.run, ["ip", "link", "del", bridge])
        ip("link", "set", bridge, "up")
        for number, name in enumerate(names):
            hosts = Path("/etc/netns", name, "hosts")
            hosts.parent.mkdir(parents=True)
            undo.callback(shutil.rmtree, hosts.parent)
            hosts.write_text(f"127.0.0.1 localhost\n{NETWORK}.{number + 1} {socket.gethostname()}\n")
            ip("netns", "add", name)
            undo.callback(subprocess.run, ["ip", "netns", "del", name])
            ip("link", "add", f"{name}o", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"{name}o", "master", bridge, "up")
            ip("-n", name, "addr", "add", f"{NETWORK}.{number + 1}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names


def node(machine, folder, arguments):
    """One machine's launcher, started as docs/launch.md says."""
    launch = ["--nnodes", 2, "--nproc_per_node", 1, "--master", f"{NETWORK}.1:{PORT}", "--log_dir", folder / machine]
    command = ["ip", "netns", "exec", machine, sys.executable, "-m", "paddle.distributed.launch", *launch, *arguments]
    return subprocess.Popen(list(map(str, command)), cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip


def losses(folder):
    return [record["loss"] for record in read_log(folder / "log.jsonl") if "loss" in record]


@pytest.mark.slow
def test_a_machine_that_is_killed_is_replaced_and_the_run_ends_as_one_process_does(machines, overrides, tmp_path):
    changes = ["Training.steps=40", "Training.checkpoint_every=2", "Data.groups=2", "Optimizer.learning_rate=1e-4"]
    whole = run("tools/train.py", *as_arguments([*overrides, *changes, f"Training.output={tmp_path / 'whole'}"]))
    assert whole.returncode == 0, whole.stderr
    arguments = ["tools/train.py", *as_arguments([*overrides, *changes]), "--resume"]
    first, second = (node(machine, tmp_path, arguments) for machine in machines[:2])
    wait_for_steps(first, tmp_path / "run", 10)
    for process in (rank_process(second.pid, 1), second.pid):  # all of the machine, its launcher and its rank
        os.kill(process, signal.SIGKILL)
    output = first.communicate(timeout=2 * MINUTE)[0]
    # Whichever notices first: a collective whose peer is gone, or rank 0, who hears nothing more of it.
    assert (first.returncode, "rank 1 has died, or did not answer" in output) == (2, True) or (
        first.returncode, "rank 1 has given no sign of life" in output) == (1, True), output  # fmt: skip
    second.communicate()
    assert 2 <= len(losses(tmp_path / "run")) < 40
    first, second = (node(machine, tmp_path, arguments) for machine in (machines[0], machines[2]))
    outputs = [process.communicate(timeout=5 * MINUTE)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert np.allclose(losses(tmp_path / "run"), losses(tmp_path / "whole"), rtol=1e-3)


@pytest.mark.slow
def test_a_machine_that_is_told_to_stop_stops_both_and_they_go_on(machines, overrides, tmp_path):
    arguments = ["tools/train.py", *as_arguments([*overrides, "Training.steps=400", "Data.groups=2"]), "--resume"]
    first, second = (node(machine, tmp_path, arguments) for machine in machines[:2])
    rank = rank_process(second.pid, 1)
    wait_for_steps(first, tmp_path / "run", 10)
    second.send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=2 * MINUTE)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [75, 15] and rank, outputs
    assert "go on with the same command and --resume" in outputs[0] and list_checkpoints(tmp_path / "run")
