"""Packages that only some tasks need: the extra that installs each, and the error if one is missing."""

import importlib.util
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = shlex.quote(sys.executable)
# Extra of setup.py by module.
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
    "threadpoolctl": "curate",
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
# The newest Python for which a package has releases in the supported range, if this package supports newer ones.
LAST_PYTHON = {"paddlenlp": (3, 11), "paddleclas": (3, 11), "paddle2onnx": (3, 12), "ray": (3, 12)}
# Ends of error messages, by module.
_HINTS = {
    "paddle": "; for a GPU docs/installation.md has the commands",
    "paddleclas": ", or without its requirements: pip install --no-deps paddleclas==2.6.0",
    "paddle2onnx": "; --to paddle-inference exports float32 and bfloat16 without it",
}


class MissingPackage(ImportError):  # noqa: N818  -- named by what has happened
    """A package of an extra is not installed; the message says what needs it and how to install it."""


def install_command(extra: str = "", python: str = PYTHON) -> str:
    """Return the command that installs this package again with its requirements and those of an extra.

    Args:
        extra: extras of setup.py, separated by commas; "": the base alone.
        python: interpreter to install for; default: this one.
    """
    suffix = f"[{extra}]" if extra else ""
    if (ROOT / "setup.py").is_file():
        return f"{python} -m pip install -e {shlex.quote(f'{ROOT}{suffix}')}"
    # The package is on no index, where pip might find something else under its name.
    return f"{python} -m pip install {shlex.quote(f'.{suffix}')} in a checkout of ernie_vil2"


def is_installed(module: str) -> bool:
    """Return whether a top-level module can be imported, without importing it."""
    if module in sys.modules:
        return sys.modules[module] is not None
    spec = importlib.util.find_spec(module)
    # Python also imports any folder of that name, such as one with exported models named onnx; it has no origin.
    return spec is not None and spec.origin is not None


def require(task: str, *modules: str) -> None:
    """Raise MissingPackage if one of the modules of `EXTRAS` is not installed.

    Args:
        task: what needs the modules, as the subject of a sentence.
        *modules: names of modules.
    """
    for module in modules:
        if not is_installed(module):
            raise missing_package_error(module, task)


def missing_package_error(module: str, task: str = "this") -> MissingPackage:
    """Return the error for a module of `EXTRAS` that is not installed, see `require`."""
    extra = EXTRAS[module]
    remedy = install_command(extra)
    last_python = LAST_PYTHON.get(module)
    if last_python and sys.version_info[:2] > last_python:
        version = ".".join(map(str, last_python))
        environment = f".venv-{version}"
        # A new environment is empty. A curation, which needs Ray, needs its own extra; everything else needs Paddle.
        extras = "curate,ray" if module == "ray" else f"cpu,{extra}"
        command = install_command(extras, f"{environment}/bin/python")
        remedy = f"it is for Python {version} and older here: python{version} -m venv {environment} && {command}"
    text = f"{task} needs {module}, which is not installed: {remedy}{_HINTS.get(module, '')}"
    return MissingPackage(text, name=module)
