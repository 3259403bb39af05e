"""Packages that only some tasks need: a missing one is named, with the command that installs it, before any work."""

import re
import runpy
import shlex
import sys
from importlib.metadata import packages_distributions

import pytest
import setuptools
from packaging.requirements import Requirement

from ernie_vil2.apps.search.store import open_store
from ernie_vil2.data.readers import open_sources
from ernie_vil2.device import extras
from ernie_vil2.device.extras import EXTRAS, MissingPackage, install_command, missing_package_error
from ernie_vil2.evaluation.scorer import make_scorer
from ernie_vil2.export import require_backend
from tests.support.paths import ROOT
from tests.support.processes import run_process


@pytest.fixture(scope="module")
def declared():
    """The arguments of `setup` in setup.py."""
    arguments = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", arguments.update)
        runpy.run_path(str(ROOT / "setup.py"))
    return arguments


def distributions(lines):
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in lines}


def test_every_module_is_of_the_extra_that_setup_py_says(declared):
    # Those that this Python may lack.
    known = {name: [name] for name in ("paddlenlp", "paddleclas", "paddle2onnx", "ray")} | {"paddle": ["paddlepaddle"]}
    known = packages_distributions() | known
    for module, extra in EXTRAS.items():
        assert distributions(known[module]) & distributions(declared["extras_require"][extra]), module


def test_the_base_has_no_paddle_and_the_whole_set_has_all(declared):
    whole = distributions(declared["extras_require"]["dev"])
    base = distributions(declared["install_requires"])
    assert not {"paddlepaddle", "paddlenlp", "paddleclas", "scipy", "fastapi"} & base and base <= whole
    for extra in set(EXTRAS.values()) - {"ray"}:  # which only clusters have
        assert distributions(declared["extras_require"][extra]) <= whole
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1] not in ("", "#")]
    assert {"paddlepaddle", "paddlenlp", "paddleclas", "opencv-python", "numpy", "pytest"} <= distributions(lines)


@pytest.mark.parametrize("python_version", ["3.11", "3.12"])
def test_onnx_extra_is_whole_where_onnx_can_be_made(declared, python_version):
    requirements = [Requirement(line) for line in declared["extras_require"]["onnx"]]
    environment = {"python_version": python_version}
    names = {one.name for one in requirements if one.marker is None or one.marker.evaluate(environment)}
    assert names == {"onnx", "onnxruntime", "paddle2onnx", "ml_dtypes"}


def test_what_is_not_published_for_this_python_says_so(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13, 5))
    text = str(missing_package_error("paddleclas", "EfficientNet"))
    assert "python3.11 -m venv" in text and "--no-deps paddleclas==2.6.0" in text
    assert "-m venv" not in str(missing_package_error("faiss", "search"))
    monkeypatch.setitem(sys.modules, "paddle2onnx", None)
    with pytest.raises(MissingPackage, match=r"python3\.12 -m venv .*\[cpu,onnx\].* --to paddle-inference"):
        require_backend("onnx")


def test_installed_package_names_no_package_of_an_index(monkeypatch, tmp_path):
    monkeypatch.setattr(extras, "ROOT", tmp_path)  # a folder of installed packages, without a checkout
    requirement = shlex.split(install_command("serve"))[4]
    assert requirement == ".[serve]"


@pytest.mark.parametrize(
    ("module", "begin"),
    [
        ("faiss", lambda folder: open_store(folder / "index", writable=True)),
        ("pymilvus", lambda folder: open_store(folder / "index.db", writable=True)),
        ("scipy", lambda folder: make_scorer("retrieval", {"protocol": ["cxc-correlation"]})),
        ("fsspec", lambda folder: open_sources(["http://127.0.0.1:9/rows.tar"])),
    ],
)
def test_it_is_named_before_any_work(monkeypatch, tmp_path, module, begin):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackage, match=f"needs {module}"):
        begin(tmp_path)


def test_without_paddle_it_is_named_and_data_are_prepared(shapes, tmp_path):
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
