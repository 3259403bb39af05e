"""Folders of transformers' VisionTextDualEncoder: both versions of transformers, and what is refused by name."""

import json

import paddle
import pytest

from ernie_vil2.models.weights.format import read_model
from tests.support.other_families import (
    FOLDERS,
    build_for_evaluation,
    change_arrays,
    copy_folder,
    measure_image_difference,
    read_expected,
)

VIT, CLIP = "hf_vision_text_dual", "hf_vision_text_dual_clip"
pytestmark = pytest.mark.skipif(VIT not in FOLDERS, reason="its folders are not carried")


def test_names_and_files_of_transformers_5_are_read(tmp_path):
    folder = copy_folder(CLIP, tmp_path / "m")
    change_arrays(folder, lambda arrays: {name.replace("vision_model." * 2, "vision_model."): array
                                          for name, array in arrays.items()})  # fmt: skip
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": processor}))
    stored, original = read_model(folder), read_model(FOLDERS[CLIP])
    assert stored.config.Model == original.config.Model
    assert measure_image_difference(build_for_evaluation(stored), CLIP, 12) < 5e-7


def test_image_processor_decides_what_missing_settings_mean(tmp_path):
    folder = copy_folder(CLIP, tmp_path / "m", "preprocessor_config.json", image_mean=None, image_std=None)
    assert read_model(folder).config.Model.image.mean == pytest.approx([0.481, 0.458, 0.408], abs=1e-3)
    settings = {"image_processor_type": "ViTImageProcessorFast", "size": {"height": 36, "width": 36}}
    (folder / "preprocessor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    image = read_model(folder).config.Model.image
    assert (image.mean, image.std, image.resize, image.interpolation) == ([0.5] * 3, [0.5] * 3, "squash", "bilinear")


@pytest.mark.parametrize(
    "name", [None, "BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"]
)
def test_tokenizer_of_a_bert_is_known_by_its_class_or_its_tower(name, tmp_path):
    folder = copy_folder(VIT, tmp_path / "m", "tokenizer_config.json", tokenizer_class=name)
    assert read_model(folder).config.Model.text.tokenizer == "bert"


def test_positions_of_a_roberta_begin_after_its_padding(tmp_path):
    folder = copy_folder(VIT, tmp_path / "m", "config.json", "text_config", model_type="roberta", pad_token_id=0)
    stored = read_model(folder)
    text = stored.config.Model.text
    assert (text.first_position, text.max_tokens, stored.config.Data.max_length) == (1, 63, 63)
    ids = read_expected(VIT)["input_ids"][:3, :20]
    roberta, bert = build_for_evaluation(stored), build_for_evaluation(read_model(FOLDERS[VIT]))
    positions = bert.text.network["embeddings"]["position_embeddings"].weight
    positions.set_value(paddle.concat([positions[1:], positions[:1]]))
    with paddle.no_grad():
        difference = roberta.encode_text(paddle.to_tensor(ids)) - bert.encode_text(paddle.to_tensor(ids))
    assert difference.abs().max().item() < 1e-6


@pytest.mark.parametrize(
    ("file", "section", "key", "value"),
    [
        ("config.json", "vision_config", "model_type", "deit"),
        ("config.json", "text_config", "model_type", "albert"),
        ("config.json", "vision_config", "pooler_act", "gelu"),
        ("config.json", "vision_config", "qkv_bias", False),
        ("preprocessor_config.json", None, "image_processor_type", "DeiTImageProcessor"),
        ("tokenizer_config.json", None, "tokenizer_class", "RobertaTokenizer"),
        # Both have a vocab.txt, and other rules than BERT.
        ("tokenizer_config.json", None, "tokenizer_class", "BertJapaneseTokenizer"),
        ("tokenizer_config.json", None, "tokenizer_class", "BertweetTokenizer"),
    ],
)
def test_what_is_not_read_is_refused_by_name(file, section, key, value, tmp_path):
    folder = copy_folder(VIT, tmp_path / "m", file, section, **{key: value})
    with pytest.raises(ValueError, match=f"{key} is {value!r}"):
        read_model(folder)
