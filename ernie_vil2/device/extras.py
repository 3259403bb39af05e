"""Packages that only some tasks need: the extra that brings each, and the error where one is missing."""

import importlib.util
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = shlex.quote(sys.executable)
EXTRAS = {
    "paddle": "cpu",
    "faiss": "search",
    "fastapi": "serve",
    "uvicorn": "serve",
    "orjson": "serve",
    "scipy": "eval",
    "sklearn": "eval",
    "visualdl": "log",
    "fsspec": "remote",
    "pyarrow": "parquet",
    "duckdb": "curate",
    "ahocorasick": "curate",
    "ray": "ray",
    "openpyxl": "xlsx",
    "lmdb": "lmdb",
    "paddle2onnx": "onnx",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "pymilvus": "milvus",
    "paddlenlp": "paddle-suite",
    "paddleclas": "paddle-suite",
}
"""Extra of setup.py by module."""
LAST_PYTHON = {"paddlenlp": (3, 11), "paddleclas": (3, 11), "paddle2onnx": (3, 12), "ray": (3, 12)}
"""The newest Python that the supported releases of a package are for, where this package supports newer ones."""
_BESIDES = {
    "paddle": "; for a GPU docs/installation.md has the commands",
    "paddleclas": ", or without its requirements: pip install --no-deps paddleclas==2.6.0",
    "paddle2onnx": "; --to paddle-inference exports float32 and bfloat16 without it",
}


class MissingPackage(ImportError):  # noqa: N818  -- named by what has happened
    """A package of an extra is not installed; the message says what needs it and how it is installed."""


def install_command(extra: str = "", python: str = PYTHON) -> str:
    """Return the command that installs this package again, with all its requirements and those of an extra.

    Args:
        extra: extras of setup.py, separated by commas; "": the base alone.
        python: interpreter to install for; default: this one.
    """
    suffix = f"[{extra}]" if extra else ""
    if (ROOT / "setup.py").is_file():
        return f"{python} -m pip install -e {shlex.quote(f'{ROOT}{suffix}')}"
    # The package is on no index, where pip might find something else under its name.
    return f"{python} -m pip install {shlex.quote(f'.{suffix}')} in a checkout of ernie_vil2"


def installed(module: str) -> bool:
    """Whether a top-level module can be imported, without importing it."""
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None


def require(task: str, *modules: str) -> None:
    """MissingPackage if one of the modules of `EXTRAS` is not installed that a task, as the subject of a sentence,
    needs."""
    for module in modules:
        if not installed(module):
            raise missing(module, task)


def missing(module: str, task: str = "this") -> MissingPackage:
    """The error for a module of `EXTRAS` that is not installed, see `require`."""
    extra = EXTRAS[module]
    how = install_command(extra)
    last = LAST_PYTHON.get(module)
    if last and sys.version_info[:2] > last:
        version = ".".join(map(str, last))
        environment = f".venv-{version}"
        # A new environment has nothing yet: a curation comes with Ray, and Paddle with everything else.
        extras = "curate,ray" if module == "ray" else f"cpu,{extra}"
        command = install_command(extras, f"{environment}/bin/python")
        how = f"it is for Python {version} and older here: python{version} -m venv {environment} && {command}"
    text = f"{task} needs {module}, which is not installed: {how}{_BESIDES.get(module, '')}"
    return MissingPackage(text, name=module)
