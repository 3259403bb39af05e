"""Folders of other families that are damaged, incomplete or hostile: one clear error each, and no memory for it."""

import json
import pickle
import resource
import shutil
import struct
import zipfile

import numpy as np
import pytest

from ernie_vil2 import load_model
from ernie_vil2.data.tokenizer import open_tokenizer
from ernie_vil2.models.weights.files import WeightFileError, read_weights, set_weights
from ernie_vil2.models.weights.stored import read_model
from ernie_vil2.models.weights.torch_files import write_torch
from tests.support.other_families import OWN, built

CLIP, BIN, CN_CLIP = OWN / "hf_clip", OWN / "hf_chinese_clip_bin", OWN / "cn_clip_pt"
MOST = 64 << 20


@pytest.fixture
def folder(tmp_path):
    """A copy of CLIP's folder, without inputs and what is expected."""
    shutil.copytree(CLIP, tmp_path / "clip", ignore=shutil.ignore_patterns("inputs", "expected.*"))
    return tmp_path / "clip"


def rewritten(folder, change):
    """The folder with the arrays that `change` makes of its own."""
    from safetensors.numpy import save_file

    arrays = {name: np.array(array) for name, array in read_weights(folder / "model.safetensors").items()}
    save_file(change(arrays), folder / "model.safetensors")
    return folder


def settings(folder, **changes):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    for key, value in changes.items():
        tower, _, inner = key.partition("__")
        if inner:
            values[f"{tower}_config"][inner] = value
        else:
            values[key] = value
    path.write_text(json.dumps(values))
    return folder


def without(name):
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


def test_a_config_yaml_of_something_else_is_not_in_the_way(folder):
    (folder / "config.yaml").write_text("defaults: [training]\n")
    assert read_model(folder).layout == "CLIP"


def test_a_missing_array_is_named_as_the_authors_do(folder):
    rewritten(folder, without("vision_model.post_layernorm.bias"))
    with pytest.raises(ValueError, match=r"an array is missing: vision_model.post_layernorm.bias, which config.json"):
        load_model(folder)


def test_an_array_that_the_family_does_not_know_is_an_error_unless_it_is_allowed(folder):
    rewritten(folder, lambda arrays: {**arrays, "adapter.weight": np.ones(3, np.float32)})
    stored = read_model(folder)
    with pytest.raises(ValueError, match=r"1 unexpected \(adapter.weight\)"):
        stored.build()
    stored.build(["adapter.*"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "blip"}, "model_type is blip; known are clip, "),
        ({"projection_dim": 15}, "of another shape .* the weights are not those that config.json describes"),
        ({"vision__patch_size": 16}, "the weights are not those that config.json describes"),
        ({"vision__num_hidden_layers": 3}, "16 arrays are missing: vision_model.encoder.layers.2.layer_norm1.weight"),
        ({"text__num_hidden_layers": 1}, "16 unexpected .*the weights are not those that config.json describes"),
        ({"vision__hidden_act": "relu"}, "vision_config.hidden_act is 'relu'; known are quick_gelu, gelu"),
        ({"vision__num_attention_heads": 5}, r"width \(32\) must be divisible by heads \(5\)"),
        ({"vision__num_channels": 4}, "vision_config.num_channels is 4; only models with 3"),
        ({"text__hidden_size": 60_000, "text__intermediate_size": 60_000}, "describes a model of at least"),
        ({"text__hidden_size": "wide"}, "text_config.hidden_size is 'wide'; a whole number"),
        ({"vision__hidden_size": 10**6}, "config.json describes a tower that is not built: width: .*65536"),
        ({"text__vocab_size": 1117}, "text_config.vocab_size is 1117; its weights say 1116"),
        ({"text__layer_norm_eps": -1}, "text_config.layer_norm_eps is -1; a number above 0"),
        ({"text_config": [1]}, "text_config is missing or no JSON object"),
    ],
)
def test_settings_that_do_not_fit(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        read_model(settings(folder, **changes)).build()


def test_weights_that_are_not_there_or_have_no_settings(folder):
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="the folder of a CLIP, but its weights are not there"):
        load_model(folder)
    with pytest.raises(ValueError, match="config.json, .* missing next to"):
        load_model(folder.parent / "model.safetensors")


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_not_finite(folder, number):
    def spoilt(arrays):
        arrays["text_projection.weight"][3, 1] = number
        return arrays

    with pytest.raises(ValueError, match="text_projection.weight holds numbers that are not finite"):
        read_model(rewritten(folder, spoilt)).build()


def test_half_precision_is_read_into_float32(folder):
    whole = built(read_model(folder))
    halves = built(read_model(rewritten(folder, lambda arrays: {k: v.astype(np.float16) for k, v in arrays.items()})))
    for (name, one), (_, other) in zip(whole.named_parameters(), halves.named_parameters(), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_checkpoint_of_openclips_training_next_to_its_settings(tmp_path):
    folder = OWN / "openclip_siglip_timm"
    arrays = {name: np.array(array) for name, array in read_weights(folder / "open_clip_model.safetensors").items()}
    write_torch(tmp_path / "epoch_3.pt", arrays, checkpoint=True)
    with pytest.raises(ValueError, match="a checkpoint of OpenCLIP needs its open_clip_config.json next to it"):
        load_model(tmp_path / "epoch_3.pt")
    for name in ("open_clip_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path)
    texts = ["a cat", "Zwei Hunde!"]
    np.testing.assert_array_equal(
        load_model(tmp_path / "epoch_3.pt").encode_texts(texts), load_model(folder).encode_texts(texts)
    )


def test_an_unknown_dialect(folder):
    with pytest.raises(ValueError, match="SigLIP has no dialect activation=relu; activation: stored, gelu"):
        read_model(OWN / "hf_siglip", dialect={"activation": "relu"})
    with pytest.raises(ValueError, match="CLIP has no dialect text=long; tokenizer: stored, "):
        read_model(folder, dialect={"text": "long"})


def archive(path, change=lambda name, content: content, compression=zipfile.ZIP_STORED, more=None):
    """Chinese-CLIP's file with other contents; None leaves a file out."""
    with zipfile.ZipFile(CN_CLIP / "clip_cn_vit-b-16.pt") as source, zipfile.ZipFile(path, "w", compression) as target:
        for name in source.namelist():
            content = change(name.partition("/")[2], source.read(name))
            if content is not None:
                target.writestr(name, content)
        for name, content in (more or {}).items():
            target.writestr(name, content)
    return path


class Hostile:
    def __reduce__(self):
        import os

        return os.system, ("touch canary",)


def of_pickle(content):
    return lambda name, old: content if name == "data.pkl" else old


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: archive(path, of_pickle(pickle.dumps({"state_dict": Hostile()}, 2))), "asks for .*system"),
        (lambda path: archive(path, compression=zipfile.ZIP_DEFLATED), "is compressed or encrypted in the archive"),
        (lambda path: archive(path, more={"model/code/__torch__.py": "x"}), "a TorchScript archive"),
        (lambda path: archive(path, lambda name, old: None if name == "data/3" else old), "data/3 is not in the arch"),
        (
            lambda path: archive(path, lambda name, old: old[:-4] if name == "data/3" else old),
            "a storage of .* numbers",
        ),
        (lambda path: archive(path, of_pickle(pickle.dumps([1], 2))), "it holds no dict of arrays but a list"),
        (lambda path: archive(path, of_pickle(pickle.dumps({"epoch": 3}, 2))), "no arrays at its top level .* epoch"),
        (lambda path: path.write_bytes(archive(path).read_bytes()[:-100]), "the zip archive is missing|damaged"),
        (lambda path: path.write_bytes(archive(path).read_bytes()[:200_000]), "the file is cut off"),
    ],
)
def test_a_hostile_or_damaged_file_of_torch(tmp_path, monkeypatch, make, message):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "w.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightFileError, match=message):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "canary").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST >> 10


def test_a_tensor_beyond_its_storage(tmp_path):
    """Shapes and strides are numbers in the pickle: here the first tensor's becomes larger."""
    found = []

    def larger(name, content):
        if name != "data.pkl":
            return content
        start = content.index(b"_rebuild_tensor_v2")
        position = content.index(b"K\x18K\x10\x86", start)  # BININT1 24, BININT1 16, TUPLE2: text_projection's shape
        found.append(position)
        return content[:position] + b"K\xffK\xff\x86" + content[position + 5 :]

    archive(tmp_path / "w.pt", larger)
    with pytest.raises(WeightFileError, match="reaches beyond its storage"):
        read_weights(tmp_path / "w.pt")
    assert found


def test_a_header_of_10_gb(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 10 << 30) + b'{"a": {' + bytes(4096))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="a header of 10,737,418,240 bytes; 16,777,216 are read"):
        load_model(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST >> 10


def test_a_table_of_files_that_would_fill_the_memory(tmp_path):
    path = archive(tmp_path / "w.pt")
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    content[end + 12 : end + 16] = struct.pack("<I", 1 << 31)
    path.write_bytes(bytes(content))
    with pytest.raises(WeightFileError, match="a table of files of 2,147,483,648 bytes"):
        read_weights(path)


def test_the_licence_and_unused_arrays_are_in_the_line(folder):
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\ntags: [x]\n---\n# A model\nlicense: other\n")
    assert "licence cc-by-nc-4.0" in str(read_model(folder).family)
    line = str(read_model(BIN).family)
    assert "unused text_model.embeddings.position_ids and 1 more: the numbers 0 to n - 1" in line
    assert "activation quick_gelu (images), gelu (texts)" in line and "\n" not in line


def test_a_tokenizer_of_another_kind_is_named(tmp_path):
    """Byte pairs are looked for in the tokenizer.json of a BERT, and in one without CLIP's special tokens."""
    from tokenizers import Tokenizer, models

    pairs = models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])
    words = models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")  # noqa: S106  -- a word of a vocabulary
    for kind in (pairs, words):
        (tmp_path / "tokenizer.json").write_text(Tokenizer(kind).to_str())
        with pytest.raises(ValueError, match=r"tokenizer.json: not of a tokenizer of the kind open_clip \(\w+\)"):
            open_tokenizer(tmp_path, 77, "open_clip")


def test_a_file_of_many_arrays_is_refused_without_comparing_each_with_all():
    class Name(str):
        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other):
            Name.compared += 1
            return str.__eq__(self, other)

    from paddle import nn

    with pytest.raises(ValueError, match="1000 unexpected"):
        set_weights(nn.Linear(2, 2), {Name(f"k{n}"): np.zeros(1, "float32") for n in range(1000)}, ("weight", "bias"))
    assert Name.compared < 20_000
