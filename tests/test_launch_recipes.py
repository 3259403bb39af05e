"""The recipes of docs/launch: what a shell and a YAML reader say of them, and that their arguments are ours."""

import shlex
from pathlib import Path

import pytest
import yaml

from ernie_vil2.cli import parser
from ernie_vil2.config import load_config
from tests.support.processes import run_process

RECIPES = Path(__file__).parents[1] / "docs" / "launch"


def test_the_script_for_slurm_is_a_shell_script():
    assert run_process(["bash", "-n", RECIPES / "train.slurm"]).returncode == 0


@pytest.mark.parametrize("name", ["kubeflow", "paddlecloud"])
def test_a_job_for_kubernetes_runs_a_command_that_is_understood(name):
    spec = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["spec"]
    worker = spec["paddleReplicaSpecs"]["Worker"] if name == "kubeflow" else spec["worker"]
    pod = worker["template"]["spec"]
    assert "OnFailure" in (worker.get("restartPolicy"), pod.get("restartPolicy"))
    (container,) = pod["containers"]
    words = container["args"] if name == "kubeflow" else shlex.split(container["args"][0])
    arguments = parser("train", "train").parse_args(words[words.index("tools/train.py") + 1 :])
    config = load_config(arguments.config, arguments.override)
    assert config.Data.train == ["s3://bucket/{00000..05799}.tar"]
    assert arguments.resume and config.Data.groups == worker["replicas"] == 2
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
