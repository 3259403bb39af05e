"""Cases of weight files and model folders that are damaged or hostile."""

import json
import shutil
from pathlib import Path

import numpy as np

from ernie_vil2.models.weights.files import read_weights, write_weights
from ernie_vil2.models.weights.format import read_model
from tests.hostile.bad_input.case import Case
from tests.hostile.bad_input.settings import hole_writer

RELEASED = Path(__file__).parents[2] / "fixtures" / "released"


def model_case(input, change, error, source="paddlenlp_tiny"):
    """Return the case of a model folder of a release after a change."""

    def make(folder):
        shutil.copytree(RELEASED / source, folder / "model")
        change(folder / "model")
        return folder / "model"

    return Case(input, make, error=error, open=read_model)


def change_arrays(**changes):
    """Return a change of arrays in an official weight file; two underscores stand for a dot in their names."""

    def change(folder):
        path = folder / "model.pdparams"
        write_weights(path, read_weights(path) | {name.replace("__", "."): value for name, value in changes.items()})

    return change


def write_index_that_leads_out(folder):
    """Replace the weight file by an index of shards outside the folder."""
    (folder / "model_state.pdparams").unlink()
    content = {"weight_map": {"w": "../w.pdparams"}}
    (folder / "model_state.pdparams.index.json").write_text(json.dumps(content))


LAYER = np.zeros(32, "float32")


CASES = [
    Case("weights without an end (/dev/zero)", lambda folder: Path("/dev/zero"), error="no model here",
         open=read_model),
    model_case("name of layer 999,999,999 in a weight file",
               change_arrays(visual__blocks__999999999__norm1__bias=LAYER),
               "the weights are not whole: image.blocks.2 is missing", "official_tiny"),
    model_case("shape with 10^12 rows of width 0",
               change_arrays(text_model__word_emb__weight=np.zeros([10**12, 0], "float32")), "none of them empty",
               "official_tiny"),
    model_case("config.json of 64 GB", lambda folder: hole_writer("config.json")(folder),
               "more than 1,048,576 characters"),
    model_case("index of shards that leads out of its folder", write_index_that_leads_out,
               "not an index of shards: a weight_map from arrays to files next to it"),
]  # fmt: skip
