"""Folders of other people's dual encoders with what their own code computes; see tests/fixtures/others/README.md.

The repository carries six; `ERNIE_VIL2_FIXTURES/others`, where that is set, has ten more.
"""

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import paddle

from ernie_vil2.models.weights.stored import read_model

OWN = Path(__file__).parents[1] / "fixtures" / "others"
MORE = Path(os.environ.get("ERNIE_VIL2_FIXTURES", "none"), "others")


def _folders():
    found = {path.name: path for root in (MORE, OWN) if root.is_dir() for path in sorted(root.iterdir())}
    return {name: path for name, path in sorted(found.items()) if (path / "expected.npz").is_file()}


FOLDERS = _folders()
NAMES = list(FOLDERS)


@cache
def expected(name):
    with np.load(FOLDERS[name] / "expected.npz") as arrays:
        return dict(arrays)


def built(stored, **variants):
    """The model in evaluation, perhaps of other variants of its towers than the folder's."""
    config = stored.config.Model
    for tower, changes in variants.items():
        section = getattr(config, tower)
        own = {key: value for key, value in changes.items() if key in type(section).model_fields}
        inner = {key: value for key, value in changes.items() if key not in own}
        if inner:
            own["variant"] = section.variant.model_copy(update=inner)
        config = config.model_copy(update={tower: section.model_copy(update=own)})
    model, _ = replace(stored, config=stored.config.model_copy(update={"Model": config})).build()
    model.eval()
    return model


def stored(name, dialect=None):
    return read_model(FOLDERS[name], dialect=dialect)


def images(name, patch_size):
    """The stored pixels as batches of images of one shape `[B, 3, H, W]`, with the rows that each is."""
    arrays = expected(name)
    pixels = arrays["pixel_values"]
    if pixels.ndim == 4:
        return [(pixels, np.arange(len(pixels)))]
    batches = []
    for patches, row in zip(pixels, arrays.get("pixel_values_rows", np.arange(len(pixels))), strict=True):
        height, width = arrays["spatial_shapes"][row]
        grid = patches[: height * width].reshape(height, width, patch_size, patch_size, 3).transpose(4, 0, 2, 1, 3)
        batches.append((grid.reshape(1, 3, height * patch_size, width * patch_size), np.array([row])))
    return batches


def image_difference(model, name, patch_size):
    """The largest difference to the authors' image embeddings."""
    worst = 0.0
    with paddle.no_grad():
        for batch, rows in images(name, patch_size):
            found = model.encode_image(paddle.to_tensor(batch)).numpy()
            worst = max(worst, np.abs(found - expected(name)["image_embeddings"][rows]).max())
    return worst


def inputs(name):
    """The files of the images, in the order of the embeddings, and the texts."""
    folder = FOLDERS[name] / "inputs"
    files = sorted(path for path in folder.iterdir() if path.suffix != ".json")
    return files, json.loads((folder / "texts.json").read_text(encoding="utf-8"))


def text_difference(model, name, way=""):
    """Likewise of texts, from the stored ids."""
    arrays = expected(name)
    with paddle.no_grad():
        found = model.encode_text(paddle.to_tensor(arrays.get(f"input_ids{way}", arrays["input_ids"]))).numpy()
    return np.abs(found - arrays[f"text_embeddings{way}"]).max()
