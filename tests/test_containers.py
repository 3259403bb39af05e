"""The files in containers/ install what setup.py and requirements.txt have; nothing here builds an image."""

import ast
import re

import pytest
import yaml
from packaging.requirements import Requirement

from tests.support.paths import ROOT

CONTAINERFILES = sorted((ROOT / "containers").glob("Containerfile*"))
TRAINING = ROOT / "containers" / "Containerfile.train"


def read_extras():
    """Return the names of the extras of setup.py."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "EXTRAS":
            return {key.value for key in node.value.keys}
    raise AssertionError("setup.py has no EXTRAS")


def read_pins():
    """Return the version of each package that requirements.txt pins on Python 3.11."""
    pins = {}
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"python_version": "3.11"}):
            pins[requirement.name] = str(requirement.specifier).removeprefix("==")
    return pins


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: path.name)
def test_containers_install_extras_that_exist(path):
    text = path.read_text(encoding="utf-8")
    (extras,) = re.findall(r'"(?:\.|/src)\[([\w,-]+)\]"', text)
    assert set(extras.split(",")) <= read_extras()
    for source in re.findall(r"^COPY (\S+) ", text, re.M):
        assert (ROOT / source).exists()
    assert f"-f {path.relative_to(ROOT)}" in text  # the command that builds it


def test_training_container_has_the_pinned_packages_on_a_gpu():
    text, pins = TRAINING.read_text(encoding="utf-8"), read_pins()
    assert re.search(r"^FROM \S*/python:3\.11-", text, re.M)
    assert re.findall(r"paddlepaddle-gpu==(\S+)", text) == [pins["paddlepaddle"]]
    assert re.findall(r"opencv-python-headless==(\S+)", text) == [pins["opencv-python"]]
    (capabilities,) = re.findall(r"NVIDIA_DRIVER_CAPABILITIES=(\S+)", text)
    assert set(capabilities.split(",")) == {"compute", "utility"}
    # The GPU build comes first: otherwise the extra gpu would look for it in the default index, which lacks it.
    assert text.index("paddlepaddle-gpu==") < text.index("[gpu,")


def test_training_container_has_the_folder_and_name_of_the_jobs():
    text = TRAINING.read_text(encoding="utf-8")
    (folder,), (name,) = re.findall(r"^WORKDIR (\S+)", text, re.M), re.findall(r" -t (\S+) ", text)
    for path in sorted((ROOT / "docs" / "launch").glob("*.yaml")):
        job = path.read_text(encoding="utf-8")
        assert yaml.safe_load(job)["kind"] == "PaddleJob"
        assert re.findall(r"workingDir: (\S+)", job) == [folder] and re.findall(r"image: (\S+):", job) == [name]


def test_compose_mounts_what_the_server_reads():
    service = yaml.safe_load((ROOT / "containers" / "compose.yaml").read_text(encoding="utf-8"))["services"]["search"]
    text = (ROOT / service["build"]["dockerfile"]).read_text(encoding="utf-8")
    (entrypoint,) = re.findall(r"^ENTRYPOINT (.*)$", text, re.M)
    words = [*ast.literal_eval(entrypoint), *service["command"]]
    options = {words[number]: words[number + 1] for number in range(len(words) - 1)}
    # NAME:TARGET[:ro], where NAME may hold a colon, as in ${INDEX:?message}.
    targets = {re.sub(r"^\$\{.*?\}:", "", volume) for volume in service["volumes"]}
    assert targets == {options["--index"], f"{options['--checkpoint']}:ro", f"{options['--root']}:ro"}
    assert options["--token-file"] == f"/run/secrets/{service['secrets'][0]}"
