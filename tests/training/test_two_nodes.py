"""Trainings on two machines, which are network namespaces: a machine is killed and replaced, folders are not shared.

The tests need root and `ip` (Debian: iproute2). Each namespace has its own network and its own `/etc/hosts`.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from ernie_vil2.io.run_folder import list_checkpoints
from tests.support.limits import PATIENCE
from tests.support.paths import ROOT
from tests.support.processes import run_process, start_process
from tests.support.trainings import find_rank_process, read_logged_losses, run_tool, to_arguments, wait_for_steps

NETWORK = "10.203.77"


def run_ip(*arguments):
    process = run_process(["ip", *arguments], capture_output=True, text=True)
    if process.returncode:
        pytest.skip(f"no network namespaces here: {process.stderr.strip()}")


@pytest.fixture
def machines():
    """Make three namespaces on one bridge, with the addresses `NETWORK`.1 to .3, and return their names."""
    if sys.platform != "linux" or not shutil.which("ip") or os.geteuid():
        pytest.skip("needs Linux, `ip` and root")
    bridge, names = f"evb{os.getpid()}", [f"ev{os.getpid()}n{number}" for number in range(3)]
    with contextlib.ExitStack() as undo:
        run_ip("link", "add", bridge, "type", "bridge")
        undo.callback(subprocess.run, ["ip", "link", "del", bridge])
        run_ip("link", "set", bridge, "up")
        for number, name in enumerate(names):
            hosts = Path("/etc/netns", name, "hosts")
            hosts.parent.mkdir(parents=True)
            undo.callback(shutil.rmtree, hosts.parent)
            hosts.write_text(
                f"127.0.0.1 localhost\n{NETWORK}.{number + 1} {socket.gethostname()}\n{NETWORK}.1 ernie-vil2-worker-0\n"
            )
            run_ip("netns", "add", name)
            undo.callback(subprocess.run, ["ip", "netns", "del", name])
            run_ip("link", "add", f"{name}o", "type", "veth", "peer", "name", "eth0", "netns", name)
            run_ip("link", "set", f"{name}o", "master", bridge, "up")
            run_ip("-n", name, "addr", "add", f"{NETWORK}.{number + 1}/24", "dev", "eth0")
            run_ip("-n", name, "link", "set", "eth0", "up")
            run_ip("-n", name, "link", "set", "lo", "up")
        yield names


def start_in(machine, command, directory, **environment):
    command = ["ip", "netns", "exec", machine, *map(str, command)]
    return start_process(command, cwd=directory, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip


def start_node(machine, folder, arguments, directory=ROOT):
    """Start the launcher of one machine in a working directory, as docs/launch.md says."""
    launch = ["--nnodes", 2, "--nproc_per_node", 1, "--master", f"{NETWORK}.1:8765", "--log_dir", folder / machine]
    return start_in(machine, [sys.executable, "-m", "paddle.distributed.launch", *launch, *arguments], directory)


@pytest.mark.slow
def test_run_with_a_replaced_machine_ends_the_same(machines, overrides, tmp_path):
    changes = ["Training.steps=40", "Training.checkpoint_every=2", "Data.groups=2", "Optimizer.learning_rate=1e-4"]
    process = run_tool("tools/train.py", *to_arguments([*overrides, *changes, f"Training.output={tmp_path / 'whole'}"]))
    assert process.returncode == 0, process.stderr
    arguments = ["tools/train.py", *to_arguments([*overrides, *changes]), "--resume"]
    first = start_node(machines[0], tmp_path, arguments)
    second = start_node(machines[1], tmp_path, arguments)
    wait_for_steps(first, tmp_path / "run", 10)
    for process in (find_rank_process(second.pid, 1), second.pid):  # the rank and the launcher: the whole machine
        os.kill(process, signal.SIGKILL)
    output = first.communicate(timeout=PATIENCE)[0]
    # Either a collective fails without its peer (code 2), or rank 0 misses the signs of life of rank 1 first (code 1).
    reasons = {2: "rank 1 has died, or did not answer", 1: "rank 1 has given no sign of life"}
    assert first.returncode in reasons and reasons[first.returncode] in output, output
    second.communicate()
    assert 2 <= len(read_logged_losses(tmp_path / "run")) < 40
    first = start_node(machines[0], tmp_path, arguments)
    second = start_node(machines[2], tmp_path, arguments)
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert np.allclose(read_logged_losses(tmp_path / "run"), read_logged_losses(tmp_path / "whole"), rtol=1e-3)


@pytest.mark.slow
def test_unshared_run_folder_is_copied_before_a_resume(machines, overrides, tmp_path):
    homes = [tmp_path / machine for machine in machines[:2]]
    for home in homes:
        home.mkdir()
        (home / "tools").symlink_to(ROOT / "tools")

    def train_on_both(steps, *options):
        changes = [*overrides, "Training.output=run", "Data.groups=2", f"Training.steps={steps}"]
        arguments = ["tools/train.py", *to_arguments(changes), *options]
        nodes = [start_node(home.name, home / "log", arguments, home) for home in homes]
        outputs = [process.communicate(timeout=PATIENCE)[0] for process in nodes]
        return [process.returncode for process in nodes], outputs[0]

    assert train_on_both(4)[0] == [0, 0]
    assert [len(list_checkpoints(home / "run")) for home in homes] == [1, 0]
    codes, output = train_on_both(8, "--resume", "--extend")
    assert 0 not in codes and "rank 1 has None; rank 0 has 'step_00000004'" in output, output
    shutil.rmtree(homes[1] / "run", ignore_errors=True)
    shutil.copytree(homes[0] / "run", homes[1] / "run")
    codes, output = train_on_both(8, "--resume", "--extend")
    assert codes == [0, 0] and len(read_logged_losses(homes[0] / "run")) == 8, output


def list_variables(operator, number):
    """Return what Kubeflow (`envvar.go`) or PaddleCloud (`paddlejob_helper.go`) sets for a worker of two."""
    address, addresses = f"{NETWORK}.{number + 1}", [f"{NETWORK}.1", f"{NETWORK}.2"]
    if operator == "kubeflow":
        master = address if number == 0 else "ernie-vil2-worker-0"  # the first worker itself, and its service
        return {"PADDLE_JOB_ID": "ernie-vil2", "PADDLE_NNODES": "2", "PADDLE_MASTER": f"{master}:37777"}
    return {
        "POD_IP": address, "PADDLE_TRAINER_ID": str(number), "PADDLE_TRAINERS_NUM": "2", "PADDLE_PORT": "2379",
        "PADDLE_TRAINERS": ",".join(addresses), "TRAINING_ROLE": "TRAINER", "PADDLE_TRAINING_ROLE": "TRAINER",
        "PADDLE_TRAINER_ENDPOINTS": ",".join(f"{host}:2379" for host in addresses), "TRAINER_PORTS_NUM": "32",
        "PADDLE_PSERVERS_IP_PORT_LIST": "", "PADDLE_HETER_TRAINER_IP_PORT_LIST": "",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["kubeflow", "paddlecloud"])
def test_workers_of_kubernetes_find_each_other(operator, machines, overrides, tmp_path):
    for name in ("configs", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    spec = yaml.safe_load((ROOT / "docs" / "launch" / f"{operator}.yaml").read_text())["spec"]
    worker = spec["paddleReplicaSpecs"]["Worker"] if operator == "kubeflow" else spec["worker"]
    (container,) = worker["template"]["spec"]["containers"]
    command = [*container["command"], *container["args"]]
    changes = to_arguments([*overrides, "Training.precision=float32"])  # as CPUs have no other
    if operator == "kubeflow":
        command += changes
    else:  # the last argument is a line for a shell
        command[-1] += f" {shlex.join(changes)}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    workers = [
        start_in(machine, command, tmp_path, PATH=path, **list_variables(operator, number))
        for number, machine in enumerate(machines[:2])
    ]
    outputs = [worker.communicate(timeout=PATIENCE)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    (checkpoint,) = list_checkpoints(tmp_path / "run")
    assert json.loads((checkpoint / "state.json").read_text())["ranks"] == 2
    assert len(read_logged_losses(tmp_path / "run")) == 8
