"""Weight files and model folders that are damaged, hostile, or none."""

import json
import shutil
from pathlib import Path

import numpy as np

from ernie_vil2.models.weights.files import read_weights, write_weights
from ernie_vil2.models.weights.format import read_model
from tests.hostile.bad_input.case import Case
from tests.hostile.bad_input.settings import hole

RELEASED = Path(__file__).parents[2] / "fixtures" / "released"


def model(input, change, stopped, source="paddlenlp_tiny"):
    """A model folder of a release after `change` of it."""

    def make(folder):
        shutil.copytree(RELEASED / source, folder / "model")
        change(folder / "model")
        return folder / "model"

    return Case(input, make, stopped=stopped, opened=read_model)


def arrays(**changes):
    """`change` of the arrays in an official file; dots are written as two underscores."""

    def change(folder):
        path = folder / "model.pdparams"
        write_weights(path, read_weights(path) | {name.replace("__", "."): value for name, value in changes.items()})

    return change


def lead_out_of_the_folder(folder):
    """Replace a whole save by an index of shards."""
    (folder / "model_state.pdparams").unlink()
    content = {"weight_map": {"w": "../w.pdparams"}}
    (folder / "model_state.pdparams.index.json").write_text(json.dumps(content))


LAYER = np.zeros(32, "float32")


CASES = [
    Case("weights without an end (/dev/zero)", lambda folder: Path("/dev/zero"), stopped="no model here",
         opened=read_model),
    model("name of layer 999,999,999 in a weight file", arrays(visual__blocks__999999999__norm1__bias=LAYER),
          "the weights are not whole: image.blocks.2 is missing", "official_tiny"),
    model("shape with 10^12 rows of width 0", arrays(text_model__word_emb__weight=np.zeros([10**12, 0], "float32")),
          "none of them empty", "official_tiny"),
    model("config.json of 64 GB", lambda folder: hole("config.json")(folder), "more than 1,048,576 characters"),
    model("index of shards that leads out of its folder", lead_out_of_the_folder,
          "not an index of shards: a weight_map from arrays to files next to it"),
]  # fmt: skip
