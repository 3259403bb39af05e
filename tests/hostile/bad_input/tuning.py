"""What fine-tuning cannot start from: weights, patterns and teachers that do not fit."""

import json
from functools import cache

import numpy as np

from ernie_vil2.config import LoraConfig, ModelConfig, TuningConfig, load_config
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.models.weights.files import read_weights, write_weights
from ernie_vil2.models.weights.initial import load_initial_weights, with_model_like
from ernie_vil2.models.weights.mixtures import check_alike
from ernie_vil2.models.weights.stored import read_model
from ernie_vil2.tasks.model_setup import tune
from ernie_vil2.tasks.teacher import Teacher
from tests.hostile.bad_input.case import Case
from tests.support.checkpoints import untrained_checkpoint
from tests.support.shapes import SPECIAL_TOKENS

TOKENS = [*SPECIAL_TOKENS, "a"]
TEXT = {"name": "ernie", "width": 32, "depth": 1, "heads": 1, "max_positions": 16}
VIT = {"name": "ViT", "image_size": 32, "patch_size": 16, "width": 32, "depth": 1, "heads": 1}
CNN = {"name": "RepVGG", "image_size": 32, "width": 8, "depth": 1}


def checkpoint(folder, name="model"):
    untrained_checkpoint(folder / name, TOKENS)
    return folder / name


def weights_of_another_width(position):
    text = {**TEXT, "vocabulary": f"{position}/vocab.txt"}
    config = ModelConfig(image={**VIT, "width": 64}, text=text, weights=position)
    load_initial_weights(build_dual_encoder(config, len(TOKENS)), config)


@cache
def tower(kind):
    return build_dual_encoder(ModelConfig(image={"ViT": VIT, "CNN": CNN}[kind], text=TEXT), len(TOKENS))


def pattern(input, name, stopped, kind="ViT", lora=False):
    """A pattern of `Tuning.freeze`, or of the layers of LoRA, for a model with such an image tower."""
    tuning = {"lora": LoraConfig(layers=[name])} if lora else {"freeze": [name]}
    return Case(input, lambda folder: name, stopped=stopped, opened=lambda _: tune(tower(kind), TuningConfig(**tuning)))


def half_lora(folder):
    path = checkpoint(folder) / "model.safetensors"
    write_weights(path, {**read_weights(path), "image.blocks.0.attn.qkv.lora_a": np.zeros([32, 2], np.float32)})
    return path.parent


def pair(folder):
    """A model and one of another width, by the name of the second."""
    checkpoint(folder)
    other = checkpoint(folder, "wider")
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("heads: 1", "heads: 2"))
    return other


def mixed_with_its_neighbour(position):
    names = [position.replace("wider", "model"), position]
    check_alike([read_model(name) for name in names], names)


def teacher(input, change, stopped):
    """A folder of a teacher's embeddings of three images and texts, after `change` of it."""

    def make(folder):
        for kind, key in (("image", "image_id"), ("text", "text")):
            np.save(folder / f"{kind}_embeddings.npy", np.ones([3, 4], np.float32))
            rows = "".join(json.dumps({key: str(row)}) + "\n" for row in range(3))
            (folder / f"{kind}s.jsonl").write_text(rows)
        change(folder)
        return folder

    return Case(input, make, stopped=stopped, opened=Teacher)


def cut(folder):
    path = folder / "image_embeddings.npy"
    path.write_bytes(path.read_bytes()[:-8])


def narrower(folder):
    np.save(folder / "text_embeddings.npy", np.ones([3, 2], np.float32))


CASES = [
    Case("initial weights of another width", checkpoint, stopped="of another shape",
         note="Model.like takes the sizes from them", opened=weights_of_another_width),
    Case("fine-tuning without a model to start from", lambda folder: "weights",
         stopped="names no model: set -o Model.weights=",
         opened=lambda _: with_model_like(load_config(None, ["Model.like=weights"]))),
    pattern("Tuning.freeze of a part that the model has not", "vision.*", "names no layer group and no parameter of "
            "this model; its groups are image.embeddings, image.blocks.0"),
    pattern("LoRA on a tower that lacks the pattern", "image.blocks.*", "names no linear layer and no convolution; the "
            "image tower has image.network.stage0", "CNN", lora=True),
    Case("LoRA without its second matrix", half_lora, opened=read_model,
         stopped="the weights are not whole: image.blocks.0.attn.qkv.lora_b is missing"),
    Case("mixture of models that differ", pair, stopped="Model.image.heads is 1 in one and 2 in the other",
         opened=mixed_with_its_neighbour),
    teacher("teacher without embeddings of texts", lambda folder: (folder / "text_embeddings.npy").unlink(),
            "text_embeddings.npy: no such file"),
    teacher("teacher whose embeddings are cut", cut, "not a whole .npy file of numbers"),
    teacher("teacher with more names than embeddings", lambda folder: (folder / "images.jsonl").write_text(
        '{"image_id": "a"}\n' * 4), "4 rows for 3 embeddings; the folder mixes two runs"),
    teacher("teacher of two widths", narrower, "image embeddings are 4 wide, text embeddings 2"),
]  # fmt: skip
