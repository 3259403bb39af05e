"""Optional packages: the extras that have them, and the error that names a missing one before any work."""

import re
import runpy
import shlex
import sys
from importlib.metadata import packages_distributions

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ernie_vil2.apps.search.store import open_store
from ernie_vil2.data.readers import open_sources
from ernie_vil2.device import extras
from ernie_vil2.device.extras import EXTRAS, MissingPackage, install_command, is_installed, missing_package_error
from ernie_vil2.evaluation.scorer import make_scorer
from ernie_vil2.export import require_backend
from tests.support.paths import ROOT
from tests.support.processes import run_process


@pytest.fixture(scope="module")
def setup_arguments():
    """Return the arguments of `setup` in setup.py."""
    arguments = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", arguments.update)
        runpy.run_path(str(ROOT / "setup.py"))
    return arguments


def read_names(lines):
    """Return the normalised names of the packages of requirement lines."""
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in lines}


def test_setup_declares_every_module_in_its_extra(setup_arguments):
    packages = {**packages_distributions(), "paddle": ["paddlepaddle"]}
    for name in ("paddlenlp", "paddleclas", "paddle2onnx", "ray"):  # which this Python may lack
        packages[name] = [name]
    for module, extra in EXTRAS.items():
        assert read_names(packages[module]) & read_names(setup_arguments["extras_require"][extra]), module


def test_base_has_no_paddle_and_the_dev_set_has_everything(setup_arguments):
    dev = read_names(setup_arguments["extras_require"]["dev"])
    base = read_names(setup_arguments["install_requires"])
    assert not {"paddlepaddle", "paddlenlp", "paddleclas", "scipy", "fastapi"} & base and base <= dev
    for extra in set(EXTRAS.values()) - {"ray"}:  # only clusters have Ray
        assert read_names(setup_arguments["extras_require"][extra]) <= dev
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1] not in ("", "#")]
    assert {"paddlepaddle", "paddlenlp", "paddleclas", "opencv-python", "numpy", "pytest"} <= read_names(lines)


@pytest.mark.parametrize("python_version", ["3.11", "3.12"])
def test_onnx_extra_is_complete_for_pythons_that_export_onnx(setup_arguments, python_version):
    requirements = [Requirement(line) for line in setup_arguments["extras_require"]["onnx"]]
    environment = {"python_version": python_version}
    requirements = [line for line in requirements if line.marker is None or line.marker.evaluate(environment)]
    assert {line.name for line in requirements} == {"onnx", "onnxruntime", "paddle2onnx", "ml_dtypes"}


@pytest.mark.parametrize("python_version", ["3.11", "3.12", "3.13"])
def test_constraints_hold_the_dev_set_with_hashes(setup_arguments, python_version):
    constraints = {}
    text = (ROOT / f"constraints-{python_version}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if not line.startswith("#"):
            pin, *hashes = line.split()
            name, version = pin.split("==")
            assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in hashes), pin
            constraints[name] = version

    environment = {"python_version": python_version}
    for line in setup_arguments["install_requires"] + setup_arguments["extras_require"]["dev"]:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert requirement.specifier.contains(constraints[name]), line


def test_error_on_an_unpublished_package_suggests_another_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 5))
    text = str(missing_package_error("paddleclas", "EfficientNet"))
    assert "python3.11 -m venv" in text and "--no-deps paddleclas==2.6.0" in text
    assert "-m venv" not in str(missing_package_error("faiss", "search"))
    monkeypatch.setitem(sys.modules, "paddle2onnx", None)
    with pytest.raises(MissingPackage, match=r"python3\.12 -m venv .*\[cpu,onnx\].* --to paddle-inference"):
        require_backend("onnx")


def test_folder_with_the_name_of_a_package_is_none(monkeypatch, tmp_path):
    (tmp_path / "onnx_of_a_user").mkdir()
    (tmp_path / "package_of_a_user").mkdir()
    (tmp_path / "package_of_a_user" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed("onnx_of_a_user") and is_installed("package_of_a_user")


def test_installed_package_suggests_no_package_of_an_index(monkeypatch, tmp_path):
    monkeypatch.setattr(extras, "ROOT", tmp_path)  # a folder of installed packages, without a checkout
    requirement = shlex.split(install_command("serve"))[4]
    assert requirement == ".[serve]"


@pytest.mark.parametrize(
    ("module", "start_work"),
    [
        ("faiss", lambda folder: open_store(folder / "index", writable=True)),
        ("pymilvus", lambda folder: open_store(folder / "index.db", writable=True)),
        ("scipy", lambda folder: make_scorer("retrieval", {"protocol": ["cxc-correlation"]})),
        ("fsspec", lambda folder: open_sources(["http://127.0.0.1:9/rows.tar"])),
    ],
)
def test_missing_package_is_named_before_any_work(monkeypatch, tmp_path, module, start_work):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackage, match=f"needs {module}"):
        start_work(tmp_path)


def test_help_of_all_commands_needs_no_extra():
    code = f"""
import sys
sys.modules |= dict.fromkeys({sorted(EXTRAS)!r})
sys.argv = ["ernie-vil2", "--help"]
from ernie_vil2 import cli
cli.main()
"""
    child = run_process([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert re.search(r"^  curate  ", child.stdout, re.MULTILINE)


def test_without_paddle_data_are_prepared_and_the_rest_refused(shapes, tmp_path):
    code = f"""
import sys
sys.modules["paddle"] = None
import ernie_vil2
from ernie_vil2 import cli
try:
    ernie_vil2.load_model("demo_data")
except ImportError as error:
    print(error, file=sys.stderr)
assert cli.run("train", ["-c", "configs/demo/emoji.yaml"])
assert cli.run("embed", "--checkpoint demo_data --images demo_data --output runs".split())
sys.exit(cli.run("prepare", [{str(shapes["train"])!r}, "--output", {str(tmp_path / "out")!r}]))
"""
    child = run_process([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert len(re.findall(r"needs paddle, which is not installed: .*pip install .*\[cpu\]", child.stderr)) == 3
    assert any((tmp_path / "out").glob("*.tar"))
