"""Weight files and model folders that are damaged, hostile, or none."""

import json
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np

from ernie_vil2.models.weights.files import read_weights, write_weights
from ernie_vil2.models.weights.stored import read_model, write_model
from tests.hostile.bad_input.case import Case, file
from tests.hostile.bad_input.settings import hole, pipe
from tests.support.weight_files import RUN, calls

RELEASED = Path(__file__).parents[2] / "fixtures" / "released"


def weights(input, content, stopped, name="w.pdparams"):
    """A weight file of this content."""
    return Case(input, file(name, content), stopped=stopped, opened=read_weights)


def model(input, change, stopped, source="paddlenlp_tiny"):
    """A model folder of a release, or of ours, after `change` of it."""

    def make(folder):
        if source == "ernie_vil2":
            write_model(read_model(RELEASED / "official_tiny"), folder / "model", source)
        else:
            shutil.copytree(RELEASED / source, folder / "model")
        change(folder / "model")
        return folder / "model"

    return Case(input, make, stopped=stopped, opened=read_model)


def own(old, new):
    """`change` of a word in the configuration of a folder of ours that has no checksums."""

    def change(folder):
        (folder / "checksums.json").unlink()
        path = folder / "config.yaml"
        path.write_text(path.read_text().replace(old, new, 1))

    return change


def arrays(**changes):
    """`change` of the arrays in an official file; dots are written as two underscores."""

    def change(folder):
        path = folder / "model.pdparams"
        write_weights(path, read_weights(path) | {name.replace("__", "."): value for name, value in changes.items()})

    return change


def zeros(name):
    """`change` of the last bytes of a file to zeros."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-64] + bytes(64))


def index(content):
    """`change` of a whole save to an index of shards."""

    def change(folder):
        (folder / "model_state.pdparams").unlink()
        (folder / "model_state.pdparams.index.json").write_text(json.dumps(content))

    return change


LAYER = np.zeros(32, "float32")
INDEX = "not an index of shards: a weight_map from arrays to files next to it"

CASES = [
    weights(".pdparams that would run a command", calls(exec, RUN), "it asks for builtins.exec"),
    weights(".pdparams, cut off", pickle.dumps({"w": np.zeros(9)})[:-9], "not a plain weight file"),
    weights("safetensors header of a gigabyte", struct.pack("<Q", 2**30) + b"{" * 99,
            "1,073,741,824 bytes; 16,777,216 are", "w.safetensors"),
    Case("weights without an end (/dev/zero)", lambda folder: Path("/dev/zero"), stopped="no model here",
         opened=read_model),
    Case("pipe as weights", pipe("a.pdparams"), stopped="no model here", opened=read_model),
    model("name of layer 999,999,999 in a weight file", arrays(visual__blocks__999999999__norm1__bias=LAYER),
          "the weights are not whole: image.blocks.2 is missing", "official_tiny"),
    model("shape with 10^12 rows of width 0", arrays(text_model__word_emb__weight=np.zeros([10**12, 0], "float32")),
          "none of them empty", "official_tiny"),
    model("depth: 1000 in the config.yaml of two layers", own("depth: 2", "depth: 1000"),
          "its configuration describes a model of at least", "ernie_vil2"),
    model("config.json of 64 GB", lambda folder: hole("config.json")(folder), "more than 1,048,576 characters"),
    model("config.json, 100,000 brackets deep", lambda folder: (folder / "config.json").write_text("[" * 10**5),
          "not valid JSON"),
    model("index of shards that leads out of its folder", index({"weight_map": {"w": "../w.pdparams"}}), INDEX),
    model("index of shards that names itself", index({"weight_map": {"w": "model_state.pdparams.index.json"}}), INDEX),
    model("checkpoint whose weights have zeros in them", zeros("model.safetensors"),
          "model.safetensors differs from its SHA-256 checksum: it is damaged", "ernie_vil2"),
]  # fmt: skip
