"""The files of docs/launch have what NCCL and a training need; the scripts of the repository are right."""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from ernie_vil2.cli import make_parser
from ernie_vil2.config import load_config
from tests.support.page_commands import list_commands
from tests.support.paths import ROOT
from tests.support.processes import run_process

FOLDER = ROOT / "docs" / "launch"
JOBS = sorted(FOLDER.glob("*.yaml"))


def find_pods(tree):
    """Yield the pods of a job: every mapping that has containers."""
    if isinstance(tree, dict):
        if "containers" in tree:
            yield tree
        for value in tree.values():
            yield from find_pods(value)


def list_training_containers(path):
    """Return (pod, container, arguments of tools/train.py) of each container that trains."""
    containers = []
    for pod in find_pods(yaml.safe_load(path.read_text(encoding="utf-8"))):
        for container in pod["containers"]:
            words = [*container["command"], *container["args"]]
            if words[:2] == ["bash", "-c"]:
                words = shlex.split(words[2])
            if "tools/train.py" in words:
                containers.append((pod, container, words[words.index("tools/train.py") + 1 :]))
    return containers


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_training_containers_have_gpus_and_shared_memory(path):
    containers = list_training_containers(path)
    assert containers
    for pod, container, _ in containers:
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        # A volume of a disk, or without a size, would not be one of the machine's memory with a bound.
        shared_memory = mounts["/dev/shm"]["emptyDir"]  # noqa: S108 - a path in the container
        assert shared_memory["medium"] == "Memory"
        assert int(re.fullmatch(r"(\d+)Gi", shared_memory["sizeLimit"])[1]) >= 1


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_jobs_run_a_valid_command(path):
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
    worker = spec["paddleReplicaSpecs"]["Worker"] if path.stem == "kubeflow" else spec["worker"]
    ((_, _, words),) = list_training_containers(path)
    arguments = make_parser("train", "train").parse_args(words)
    config = load_config(arguments.config, arguments.override)
    assert config.Data.train == ["s3://bucket/{00000..05799}.tar"]
    assert arguments.resume and config.Data.groups == worker["replicas"] == 2


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_lines_for_infiniband_are_valid_when_they_are_used(path):
    text = re.sub(r"# (rdma/|securityContext)", r"\1", path.read_text(encoding="utf-8"))
    (pod,) = find_pods(yaml.safe_load(text))
    (container,) = pod["containers"]
    assert container["securityContext"]["capabilities"]["add"] == ["IPC_LOCK"]
    limits = container["resources"]["limits"]
    assert limits.pop("nvidia.com/gpu") == 8 and list(limits.values()) == [1]


def test_launch_page_trains_in_bfloat16():
    commands = [words for words in list_commands("launch.md") if "tools/train.py" in words]
    assert commands
    for words in commands:
        options = make_parser("train", "train").parse_args(words[words.index("tools/train.py") + 1 :])
        assert load_config(options.config, options.override).Training.precision == "bfloat16"


@pytest.mark.parametrize("script", ["docs/launch/train.slurm", ".ci/run", ".ci/run_python3.13"])
def test_scripts_have_no_mistakes_of_the_shell(script):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shellcheck = shutil.which("shellcheck", path=path)
    # Bash itself finds errors of syntax alone, in an environment without the tools for development.
    command = [shellcheck] if shellcheck else ["bash", "-n"]
    process = run_process([*command, script], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
