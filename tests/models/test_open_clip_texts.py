"""Text towers of transformers in OpenCLIP's folders: every pooling and projection, and what the name must fit."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest

from ernie_vil2.device.token_packing import unpack
from ernie_vil2.models.weights.families.family import Folder
from ernie_vil2.models.weights.families.open_clip_texts import NLLBS, read_library_text
from ernie_vil2.models.weights.format import read_model
from ernie_vil2.models.weights.settings import Settings
from tests.support.encoding_model import normalise_rows
from tests.support.other_families import FOLDERS, build_for_evaluation, change_arrays, copy_folder, read_expected

FILE, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
WIDTH, EMBED_DIM = 24, 16  # of openclip_xlmr


def describe_tower(hf_model_name, array_width=128, positions=514, token_types=1, **settings):
    """Read a text tower of one block whose arrays have these shapes."""
    shapes = {
        "embeddings.word_embeddings.weight": (100, array_width),
        "embeddings.position_embeddings.weight": (positions, array_width),
        "embeddings.token_type_embeddings.weight": (token_types, array_width),
        "encoder.layer.0.intermediate.dense.weight": (3 * array_width, array_width),
        "embed_tokens.weight": (100, array_width),
        "layers.0.fc1.weight": (4 * array_width, array_width),
    }
    arrays = {f"text.transformer.{name}": np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    text = Settings(Path(FILE), {"hf_model_name": hf_model_name, **settings}, "text_cfg.")
    return read_library_text(text, EMBED_DIM, Folder(Path(WEIGHTS), text, arrays, {}))


def test_facts_of_a_kind_follow_from_its_name():
    roberta = describe_tower("FacebookAI/xlm-roberta-large", positions=514).tower
    bert = describe_tower("microsoft/BiomedNLP-BiomedBERT-base", positions=512, token_types=2).tower
    assert (roberta.variant.padding, roberta.first_position, roberta.max_tokens, roberta.epsilon) == (1, 2, 512, 1e-5)
    assert (bert.variant.padding, bert.first_position, bert.max_tokens, bert.epsilon) == (0, 0, 512, 1e-12)
    assert (bert.width, bert.heads, bert.variant.hidden, bert.depth) == (128, 2, 384, 1)


def test_heads_are_64_wide_unless_the_folder_describes_this_width():
    defaults = {"width": 512, "heads": 8}  # of OpenCLIP's own text tower
    assert describe_tower("roberta-base", array_width=768, **defaults).tower.heads == 12
    assert describe_tower("roberta-base", array_width=24, width=24, heads=3).tower.heads == 3


@pytest.mark.parametrize("name", NLLBS)
def test_facts_of_nllb(name):
    tower = describe_tower(name, array_width=1024, hf_pooler_type="cls_pooler").tower
    assert (tower.heads, tower.depth, tower.first_position, tower.max_tokens) == (16, 1, 2, 1024)
    assert (tower.pooling, tower.variant.padding, tower.variant.hidden) == ("first", 1, 4096)
    assert describe_tower(name, array_width=24, width=24, heads=3).tower.heads == 3


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ({"hf_model_name": "facebook/nllb-200-3.3B", "array_width": 2048}, "3.3B.; .*nllb-200-distilled-600M"),
        ({"hf_model_name": NLLBS[0], "array_width": 2048}, "1024 wide, its weights 2048; give width and heads"),
        ({"hf_model_name": NLLBS[0], "array_width": 1024, "context_length": 1025}, "context_length is 1025"),
        ({"hf_model_name": "google/mt5-base"}, "hf_model_name is 'google/mt5-base'"),
        ({"hf_model_name": "hfl/chinese-roberta-wwm-ext", "token_types": 2}, "has 1 token types, .* have 2"),
        ({"hf_model_name": "roberta-base", "array_width": 96}, "96 wide; give width and heads"),
        ({"hf_model_name": "roberta-base", "context_length": 513}, "context_length is 513"),
        ({"hf_model_name": "roberta-base", "hf_pooler_type": "max_pooler"}, "hf_pooler_type is 'max_pooler'"),
        ({"hf_model_name": "roberta-base", "hf_proj_type": None}, "hf_proj_type is None"),
    ],
)
def test_what_is_not_known_is_refused_by_name(settings, culprit):
    with pytest.raises(ValueError, match=culprit):
        describe_tower(**settings)


def test_arrays_of_another_model_are_named():
    text = Settings(Path(FILE), {"hf_model_name": "xlm-roberta-base"}, "text_cfg.")
    with pytest.raises(ValueError, match="no matrix text.transformer.embeddings.word_embeddings.weight"):
        read_library_text(text, EMBED_DIM, Folder(Path(WEIGHTS), text, {}, {}))


@pytest.mark.skipif("openclip_xlmr" not in FOLDERS, reason="its folder is not carried")
@pytest.mark.parametrize("pooler", ["mean_pooler", "cls_last_hidden_state_pooler", "cls_pooler"])
@pytest.mark.parametrize("projection", ["linear", None])
def test_every_pooling_and_projection(pooler, projection, tmp_path):
    """OpenCLIP's formulas over the states of the tower, which are those of the authors' code."""
    rng, embed_dim = np.random.default_rng(0), EMBED_DIM if projection else WIDTH
    matrix = rng.normal(size=(embed_dim, WIDTH)).astype("float32")
    weight, bias = rng.normal(size=(WIDTH, WIDTH)).astype("float32"), rng.normal(size=WIDTH).astype("float32")

    def change(arrays):
        arrays = {name: array for name, array in arrays.items() if not name.startswith("text.proj.")}
        arrays["visual.proj"] = rng.normal(size=(32, embed_dim)).astype("float32")
        if projection:
            arrays["text.proj.weight"] = matrix
        if pooler == "cls_pooler":
            arrays |= {"text.transformer.pooler.dense.weight": weight, "text.transformer.pooler.dense.bias": bias}
        return arrays

    text = json.loads((FOLDERS["openclip_xlmr"] / FILE).read_text())["model_cfg"]["text_cfg"]
    text |= {"hf_pooler_type": pooler, "hf_proj_type": projection}
    folder = copy_folder("openclip_xlmr", tmp_path / "m", FILE, "model_cfg", text_cfg=text, embed_dim=embed_dim)
    ids = read_expected("openclip_xlmr")["input_ids"]
    model = build_for_evaluation(read_model(change_arrays(folder, change, WEIGHTS)))

    states = encode_states(build_for_evaluation(read_model(FOLDERS["openclip_xlmr"])).text, ids)
    if pooler == "mean_pooler":
        is_token = (ids != 1)[:, :, None]
        features = (states * is_token).sum(1) / is_token.sum(1)
    else:
        features = states[:, 0]
    if pooler == "cls_pooler":
        features = np.tanh(features @ weight.T + bias)
    if projection:
        features = features @ matrix.T
    embeddings = model.encode_text(paddle.to_tensor(ids)).numpy()
    np.testing.assert_allclose(embeddings, normalise_rows(features), atol=2e-6)


def encode_states(tower, ids):
    """Return the states of the last block, `[B, L, width]`."""
    outputs = []

    def record_states(block, inputs, states):
        outputs.append(unpack(states).numpy())

    hook = tower.blocks[-1].register_forward_post_hook(record_states)
    with paddle.no_grad():
        tower(paddle.to_tensor(ids))
    hook.remove()
    return outputs[0]
