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
LAST_PYTHON = {"paddlenlp": (3, 11), "paddleclas": (3, 11), "paddle2onnx": (3, 12)}
"""The newest Python that a package can be installed for, where this package supports newer ones."""
_BESIDES = {
    "paddle": "; for a GPU docs/installation.md has the commands",
    "paddleclas": ", or without its requirements: pip install --no-deps paddleclas==2.6.0",
}


class MissingPackage(ImportError):
    """A package of an extra is not installed; the message says what needs it and how it is installed."""


def install_command(extra: str = "") -> str:
    """What installs this package again, resolving all that it requires, with an extra where one is named."""
    wanted = f"[{extra}]" if extra else ""
    if (ROOT / "setup.py").is_file():
        return f"{PYTHON} -m pip install -e {shlex.quote(f'{ROOT}{wanted}')}"
    return f"{PYTHON} -m pip install {shlex.quote(f'ernie_vil2{wanted}')}"


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
    how = install_command(EXTRAS[module])
    last = LAST_PYTHON.get(module)
    if last and sys.version_info[:2] > last:
        how = f"it is published for Python {'.'.join(map(str, last))} and older: use that"
    text = f"{task} needs {module}, which is not installed: {how}{_BESIDES.get(module, '')}"
    return MissingPackage(text, name=module)
