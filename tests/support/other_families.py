"""Folders of other people's dual encoders with the results of their authors' code.

tests/fixtures/others/README.md describes them. The repository carries six; others lie in `others` and `towers` of
`ERNIE_VIL2_FIXTURES` where that is set.
"""

import importlib.util
import json
import os
import shutil
import sys
from functools import cache
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import save_file

from ernie_vil2.models.weights.files import read_weights
from ernie_vil2.models.weights.format import read_model
from tests.support.processes import run_process

PEERS = Path(__file__).parent / "peers.py"
PEERS_PYTHON = os.environ.get("ERNIE_VIL2_PEERS") or (
    sys.executable if importlib.util.find_spec("transformers") else None
)
FAMILY_FIXTURES = Path(__file__).parents[1] / "fixtures" / "others"
EXTRA_FIXTURES = Path(os.environ.get("ERNIE_VIL2_FIXTURES", "none"))


def find_folders():
    """Return the folders with expected results by name; a carried folder goes before an extra one of its name."""
    paths = {}
    for root in (EXTRA_FIXTURES / "towers", EXTRA_FIXTURES / "others", FAMILY_FIXTURES):
        if root.is_dir():
            paths |= {path.name: path for path in root.iterdir()}
    return {name: path for name, path in sorted(paths.items()) if (path / "expected.npz").is_file()}


FOLDERS = find_folders()
NAMES = list(FOLDERS)
NAMES_WITH_MARKS = [
    pytest.param(name, marks=() if path.parent == FAMILY_FIXTURES else pytest.mark.slow)
    for name, path in FOLDERS.items()
]
"""Names for tests that the six carried folders mostly cover: the folders that are not carried are marked slow."""


def copy_folder(source, folder, file=None, section=None, **changes):
    """Copy a model's folder, perhaps with other values in one of its JSON files; None removes a key.

    Args:
        source: a name of `FOLDERS`, or a path.
        section: keys within the file, joined by dots.
    """
    source = FOLDERS[source] if isinstance(source, str) else source
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("inputs", "expected.*", "integrity.json"))
    if file is None:
        return folder
    path = folder / file
    values = json.loads(path.read_text()) if path.is_file() else {}
    inner = values
    for key in section.split(".") if section else ():
        inner = inner.setdefault(key, {})
    for key, value in changes.items():
        if value is None:
            inner.pop(key)
        else:
            inner[key] = value
    if path.is_file():
        path.chmod(0o644)
    path.write_text(json.dumps(values))
    return folder


def change_arrays(folder, change, file="model.safetensors"):
    """Replace the arrays in a folder's file by what `change` returns for them."""
    arrays = {name: np.array(array) for name, array in read_weights(folder / file).items()}
    (folder / file).unlink()  # it may be read-only
    save_file(change(arrays), folder / file)
    return folder


@cache
def read_expected(name):
    with np.load(FOLDERS[name] / "expected.npz") as arrays:
        return dict(arrays)


def build_for_evaluation(stored):
    model, _ = stored.build()
    model.eval()
    return model


def read_family(name, dialect=None):
    return read_model(FOLDERS[name], dialect=dialect)


def make_image_batches(name, patch_size):
    """Return the stored pixels as batches `[B, 3, H, W]` of images of equal shape, with the rows of the images."""
    arrays = read_expected(name)
    pixels = arrays["pixel_values"]
    if pixels.ndim == 4:
        return [(pixels, np.arange(len(pixels)))]
    # NaFlex stores patches `[N, patch_size * patch_size * 3]` with padding, and the number of rows and columns.
    batches = []
    for patches, row in zip(pixels, arrays.get("pixel_values_rows", np.arange(len(pixels))), strict=True):
        height, width = arrays["spatial_shapes"][row]
        grid = patches[: height * width].reshape(height, width, patch_size, patch_size, 3).transpose(4, 0, 2, 1, 3)
        batches.append((grid.reshape(1, 3, height * patch_size, width * patch_size), np.array([row])))
    return batches


def measure_image_difference(model, name, patch_size):
    """Return the largest difference from the authors' image embeddings."""
    largest = 0.0
    with paddle.no_grad():
        for batch, rows in make_image_batches(name, patch_size):
            embeddings = model.encode_image(paddle.to_tensor(batch)).numpy()
            largest = max(largest, np.abs(embeddings - read_expected(name)["image_embeddings"][rows]).max())
    return largest


def list_inputs(name):
    """Return the image files, in the order of the embeddings, and the texts."""
    folder = FOLDERS[name] / "inputs"
    files = sorted(path for path in folder.iterdir() if path.suffix != ".json")
    return files, json.loads((folder / "texts.json").read_text(encoding="utf-8"))


def measure_text_difference(model, name, way=""):
    """Return the largest difference from the authors' text embeddings, for the stored ids.

    Args:
        way: suffix of the arrays of another way of reading texts, such as "/long"; default: the model's default way.
    """
    arrays = read_expected(name)
    with paddle.no_grad():
        ids = arrays.get(f"input_ids{way}", arrays["input_ids"])
        embeddings = model.encode_text(paddle.to_tensor(ids)).numpy()
    return np.abs(embeddings - arrays[f"text_embeddings{way}"]).max()


def check_with_authors(folder, fixture, *num_texts):
    """Check that the authors' own class loads a folder to the embeddings of a fixture.

    Nothing is checked where no Python has the authors' library.

    Args:
        fixture: a folder of the form of tests/fixtures/others.
        num_texts: number of texts whose ids the authors' tokenizer of the folder makes; default: the stored ids.
    """
    if PEERS_PYTHON is None:
        return
    command = [PEERS_PYTHON, PEERS, folder, fixture, *map(str, num_texts)]
    process = run_process(command, capture_output=True, text=True)
    if process.returncode and "ModuleNotFoundError" in process.stderr:
        pytest.skip(process.stderr.splitlines()[-1])
    assert process.returncode == 0, process.stderr
    differences = json.loads(process.stdout.splitlines()[-1])
    # Versions of the authors' libraries agree to 2e-7; the nearest other way of computing is 2e-5 away.
    assert max(differences["image_embeddings"], differences["text_embeddings"]) < 2e-6
