"""Models of all configurations that OpenCLIP ships, and how embeddings by this package compare with OpenCLIP's.

    python -m tests.support.open_clip_models [NAME ...]

reads the folders of all models, or of those named, and prints what came of each, and the table of
docs/notes/open_clip_configurations.md.
`tests/fixtures/open_clip_configs/make.py` says what the models are. Their folders are written here, from the names and
shapes of their weights, and read as any other folder.
"""

import json
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from ernie_vil2 import load_model
from ernie_vil2.data.tokenizer_files import byte_characters
from tests.support.named_arrays import draw_pixels, fill_array
from tests.support.paths import FIXTURES

FOLDER = FIXTURES / "open_clip_configs"
CONFIG_FILE = "open_clip_config.json"
MAX_DIFFERENCE = 2e-6
"""Largest length of the difference of two embeddings, relative to theirs, for another order of float32 sums.

Measured are at most 1.7e-6 for equal models, and 6e-5 for the nearest other way: an epsilon of norms of 1e-6 for 1e-5.
"""
STATES = ("equal", "refused", "wrong", "crash")
TIMM_TOWERS = {
    "convnext": "ConvNeXt",
    "eva02": "EVA-02",
    "eva_giant": "EVA-01",
    "fastvit": "FastViT (MobileCLIP)",
    "vit_base_mci": "ViT with a convolutional stem (MobileCLIP)",
    "vit_large_patch14_clip": "ViT of timm (MobileCLIP 2 L)",
    "vit_pe_core": "PE-Core",
    "vitamin": "ViTamin",
    "swin": "other towers of timm",
    "vit_medium": "other towers of timm",
    "vit_relpos": "other towers of timm",
    "vit_": "SigLIP",
}
"""Image towers of timm by the beginning of their name; the first that fits counts."""
LANGUAGE_MODELS = {"roberta": "RoBERTa", "xlm-roberta": "XLM-R", "facebook/nllb": "NLLB", "google/mt5": "mT5"}
"""Text towers of transformers by the beginning of their name."""


class Outcome(NamedTuple):
    """What came of reading a model.

    Attributes:
        state: one of STATES, or "not made" if OpenCLIP itself cannot run the configuration.
        details: the message of the error, or the largest differences.
    """

    state: str
    details: str


@cache
def read_description():
    """Return `versions` of OpenCLIP's libraries and `models` by name; see make.py."""
    with np.load(FOLDER / "embeddings.npz") as arrays:
        return json.loads(arrays["description"].tobytes())


@cache
def read_refusals():
    """Return the names of models that are refused, by the setting that the message names.

    A model that is read from now on leaves the file, and the table of the page changes with it.
    """
    return json.loads((FOLDER / "refused.json").read_text())


def read_embeddings(name):
    """Return ids of texts, and OpenCLIP's embeddings of images and texts."""
    with np.load(FOLDER / "embeddings.npz") as arrays:
        return [arrays[f"{name}/{key}"] for key in ("ids", "images", "texts")]


def write_folder(name, folder):
    """Write the folder of a model, as OpenCLIP would: settings, weights and a tokenizer without words."""
    model = read_description()["models"][name]
    (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": model["config"], "preprocess_cfg": {}}))
    weights = {}
    for array_name, shape in model["arrays"].items():
        dtype = model["dtypes"].get(array_name)
        if dtype:
            weights[array_name] = np.zeros(shape, dtype)
        else:
            weights[array_name] = fill_array(array_name, tuple(shape))
    save_file(weights, folder / "open_clip_model.safetensors")
    if "hf_tokenizer_name" in model["config"]["text_cfg"]:
        _write_special_tokens(folder, *model["tokens"])
    else:
        _write_byte_pairs(folder)


def _write_byte_pairs(folder):
    """Write CLIP's byte pairs without a single merge."""
    characters = list(byte_characters())
    tokens = [*characters, *(f"{character}</w>" for character in characters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def _write_special_tokens(folder, start, end, padding):
    """Write a `tokenizer.json` whose only words are special ones."""
    names = {padding: "[padding]"}
    names[end] = "[end]"  # SigLIP pads with the end
    if start is not None:
        names[start] = "[start]"
    words = {}
    for number in range(max(names) + 1):  # ids have no gaps
        words[names.get(number, f"[{number}]")] = number
    template = ["[start]", "$A", "[end]"] if start is not None else ["$A", "[end]"]
    library = Tokenizer(models.WordLevel(words, unk_token="[end]"))  # noqa: S106  -- a word of a vocabulary
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.post_processor = processors.TemplateProcessing(
        template, special_tokens=[(token, words[token]) for token in template if token in words]
    )
    library.enable_padding(pad_id=padding, pad_token=names[padding])
    library.save(str(folder / "tokenizer.json"))


def measure_differences(name, model):
    """Return the largest differences of the embeddings of images and of texts, relative to their length.

    Args:
        name: a configuration.
        model: the dual encoder that was read from its folder.
    """
    ids, *expected_embeddings = read_embeddings(name)
    image_size = read_description()["models"][name]["config"]["vision_cfg"]["image_size"]
    pixels = draw_pixels(image_size, len(expected_embeddings[0]))
    with paddle.no_grad():
        images = model.encode_image(paddle.to_tensor(pixels))
        texts = model.encode_text(paddle.to_tensor(ids.astype(np.int64)))
    differences = []
    for rows, expected_rows in zip((images, texts), expected_embeddings, strict=True):
        # The file has the first coordinates only.
        rows = rows.numpy()[:, : expected_rows.shape[1]]
        lengths = np.linalg.norm(rows - expected_rows, axis=1) / np.linalg.norm(expected_rows, axis=1)
        differences.append(float(lengths.max()))
    return differences


def compare_with_open_clip(name, dialect=None):
    """Read the folder of a configuration, and compare its embeddings with OpenCLIP's.

    Args:
        name: a configuration of OpenCLIP.
        dialect: see `load_model`.
    """
    model = read_description()["models"][name]
    if "error" in model:
        return Outcome("not made", model["error"])
    # A folder has up to a gigabyte, and is removed at once.
    with tempfile.TemporaryDirectory() as folder:
        write_folder(name, Path(folder))
        try:
            encoder = load_model(folder, device="cpu", dialect=dialect)
            differences = measure_differences(name, encoder.backend.model)
        except Exception as error:
            message = str(error).replace(f"{folder}/", "")
            is_refusal = type(error) is ValueError and message.startswith(f"{CONFIG_FILE}: ")
            return Outcome("refused" if is_refusal else "crash", f"{type(error).__name__}: {message}")
    state = "equal" if max(differences) <= MAX_DIFFERENCE else "wrong"
    return Outcome(state, "images {:.1e}, texts {:.1e}".format(*differences))


def describe_towers(config):
    """Return the kind of model that a configuration describes: a row of the table."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "multimodal_cfg" in config:
        return "CoCa"
    if "hf_model_name" in text:
        return "texts of " + _find_by_beginning(LANGUAGE_MODELS, text["hf_model_name"])
    if "timm_model_name" in vision:
        return _find_by_beginning(TIMM_TOWERS, vision["timm_model_name"])
    if isinstance(vision["layers"], list):
        return "ResNet of OpenCLIP"
    if vision.get("no_ln_pre"):
        return "CLIPA"
    return "ViT of OpenCLIP"


def _find_by_beginning(table, name):
    return next(value for beginning, value in table.items() if name.startswith(beginning))


def list_expected_states():
    """Return the state of each model that `refused.json` and the file of embeddings promise."""
    states = {}
    for name, model in read_description()["models"].items():
        states[name] = "not made" if "error" in model else "equal"
    for names in read_refusals().values():
        states |= dict.fromkeys(names, "refused")
    return states


def format_table(states):
    """Return the table of docs/notes/open_clip_configurations.md: how many models of each kind are in each state.

    Args:
        states: state of each model by name.
    """
    counts = Counter()
    for name, state in states.items():
        config = read_description()["models"][name].get("config")
        counts[describe_towers(config) if config else "not made by OpenCLIP", state] += 1
    columns = [state for state in (*STATES, "not made") if any(state == other for _, other in counts)]
    lines = ["| | " + " | ".join(["models", *columns]) + " |", "|---" * (len(columns) + 2) + "|"]
    kinds = sorted({kind for kind, _ in counts}, key=str.lower)
    for kind in kinds:
        row = [counts[kind, state] for state in columns]
        lines.append("| " + " | ".join([kind, str(sum(row)), *map(str, row)]) + " |")
    totals = [sum(counts[kind, state] for kind in kinds) for state in columns]
    lines.append("| " + " | ".join(["all", str(sum(totals)), *map(str, totals)]) + " |")
    return "\n".join(lines)


def main(names):
    outcomes = {}
    for name in names:
        outcomes[name] = compare_with_open_clip(name)
        state, details = outcomes[name]
        print(f"{name}: {state}; {details[:200]}", flush=True)
    print(format_table({name: outcome.state for name, outcome in outcomes.items()}))


if __name__ == "__main__":
    main(sys.argv[1:] or list(read_description()["models"]))
