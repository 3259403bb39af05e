"""Folders of other families that are incomplete or contradict themselves: each gives a clear error."""

import shutil

import numpy as np
import pytest
from paddle import nn
from tokenizers import Tokenizer, models

from ernie_vil2 import load_model
from ernie_vil2.data.tokenizer import open_tokenizer
from ernie_vil2.models.weights.families.family import read_licence
from ernie_vil2.models.weights.files import read_weights, set_weights
from ernie_vil2.models.weights.format import read_model
from ernie_vil2.models.weights.torch_files import write_torch
from tests.support.other_families import FAMILY_FIXTURES, change_arrays, copy_folder

CLIP, BIN = FAMILY_FIXTURES / "hf_clip", FAMILY_FIXTURES / "hf_chinese_clip_bin"


@pytest.fixture
def folder(tmp_path):
    return copy_folder(CLIP, tmp_path / "clip")


def test_missing_and_unknown_arrays_are_named(folder):
    name = "vision_model.post_layernorm.bias"
    change_arrays(folder, lambda arrays: {**arrays, "adapter.weight": np.ones(3, np.float32)})
    stored = read_model(folder)
    with pytest.raises(ValueError, match=r"1 unexpected \(adapter.weight\)"):
        stored.build()
    stored.build(["adapter.*"])
    change_arrays(folder, lambda arrays: {key: array for key, array in arrays.items() if key != name})
    with pytest.raises(ValueError, match=name):
        load_model(folder)


@pytest.mark.parametrize(
    ("section", "changes", "culprit"),
    [
        (None, {"model_type": "blip"}, "model_type is blip"),
        (None, {"projection_dim": 15}, "of another shape .* config.json"),
        ("vision_config", {"num_hidden_layers": 3}, "vision_model.encoder.layers.2.layer_norm1.weight"),
        ("vision_config", {"num_attention_heads": 5}, r"width \(32\) .* heads \(5\)"),
        ("text_config", {"hidden_size": 60_000, "intermediate_size": 60_000}, "a model of at least"),
        ("text_config", {"vocab_size": 1117}, "text_config.vocab_size is 1117"),
    ],
)
def test_settings_that_contradict_weights_are_refused(tmp_path, section, changes, culprit):
    # tests/hostile/test_family_folders.py has more of them.
    folder = copy_folder(CLIP, tmp_path / "clip", "config.json", section, **changes)
    with pytest.raises(ValueError, match=culprit):
        read_model(folder).build()


def test_array_by_a_name_of_this_package_is_refused(folder):
    # It would replace the norm that is made of vision_model.post_layernorm.
    change_arrays(folder, lambda arrays: {**arrays, "image.norm.bias": np.ones(32, np.float32)})
    with pytest.raises(ValueError, match=r"model.safetensors: image\.norm\.bias"):
        read_model(folder)


def test_heads_that_the_model_does_not_have_are_refused(folder):
    assert load_model(folder, heads=(4, 3)).tokenizer
    with pytest.raises(ValueError, match=r"model.safetensors: \(8, 8\) .* \(4, 3\)"):
        load_model(folder, heads=(8, 8))


def test_missing_weights_and_missing_settings_are_named(folder):
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="weights are not there"):
        load_model(folder)
    with pytest.raises(ValueError, match="config.json, .* missing"):
        load_model(folder.parent / "model.safetensors")


def test_infinite_weights_are_named(folder):
    def add_infinity(arrays):
        arrays["text_projection.weight"][3, 1] = np.inf
        return arrays

    with pytest.raises(ValueError, match="text_projection.weight"):
        read_model(change_arrays(folder, add_infinity)).build()


def test_checkpoint_of_openclip_loads_next_to_its_settings(tmp_path):
    folder = FAMILY_FIXTURES / "openclip_siglip_timm"
    arrays = {name: np.array(array) for name, array in read_weights(folder / "open_clip_model.safetensors").items()}
    write_torch(tmp_path / "epoch_3.pt", arrays, is_checkpoint=True)
    with pytest.raises(ValueError, match="open_clip_config.json"):
        load_model(tmp_path / "epoch_3.pt")
    for name in ("open_clip_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path)
    texts = ["a cat", "Zwei Hunde!"]
    np.testing.assert_array_equal(
        load_model(tmp_path / "epoch_3.pt").encode_texts(texts), load_model(folder).encode_texts(texts)
    )


def test_summary_names_licence_and_unused_arrays(folder):
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\ntags: [x]\n---\n# A model\nlicense: other\n")
    assert "licence cc-by-nc-4.0" in str(read_model(folder).family)
    line = str(read_model(BIN).family)
    assert "unused text_model.embeddings.position_ids and 1 more: the numbers 0 to n - 1" in line
    assert "activation quick_gelu (images), gelu (texts)" in line and "\n" not in line


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("license: mit", "mit"),
        ("tags: [x]\r\nlicense: 'apache-2.0' # see below\r", "apache-2.0"),
        ("license:\n- cc-by-4.0\n- mit", "cc-by-4.0"),
        ("license: [openrail]", "openrail"),
        ("tags: [x]", None),
        ("tags: [x]\nlicense:\nlanguage: en", None),
    ],
)
def test_licence_is_that_of_the_metadata(metadata, licence, tmp_path):
    card = f"---\n{metadata}\n---\n# A model\nlicense: of the data it saw\n".encode()
    for mark in (b"", b"\xef\xbb\xbf"):  # as some editors on Windows write it
        (tmp_path / "README.md").write_bytes(mark + card)
        assert read_licence(tmp_path) == licence


def test_tokenizer_of_another_kind_is_refused(tmp_path):
    # OpenCLIP's tokenizer has byte pairs and CLIP's special tokens; the first file lacks the tokens, the second both.
    byte_pairs = models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])
    word_pieces = models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")  # noqa: S106  -- a word of a vocabulary
    for tokens, complaint in ((byte_pairs, r"<\|startoftext\|>"), (word_pieces, "the kind open_clip")):
        (tmp_path / "tokenizer.json").write_text(Tokenizer(tokens).to_str())
        with pytest.raises(ValueError, match=f"tokenizer.json: .*{complaint}"):
            open_tokenizer(tmp_path, 77, "open_clip")


def test_comparing_many_arrays_takes_linear_time():
    class Name(str):
        num_compared = 0
        __hash__ = str.__hash__

        def __eq__(self, name):
            Name.num_compared += 1
            return str.__eq__(self, name)

    arrays = {Name(f"k{number}"): np.zeros(1, "float32") for number in range(1000)}
    with pytest.raises(ValueError, match="1000 unexpected"):
        set_weights(nn.Linear(2, 2), arrays, ("weight", "bias"))
    # Comparing every name with every other one would take a million comparisons.
    assert Name.num_compared < 20_000
