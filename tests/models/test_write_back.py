"""Models in the layout of other families, written back: bit-equal, and loaded by the authors' own classes.

The authors' classes are asked where they are: in this environment, or in that of `ERNIE_VIL2_PEERS`, a Python with
PyTorch and transformers, open_clip_torch or cn_clip. tests/fixtures/others/handed_back.json has the digests of files
that they loaded, as tests/support/peers.py compares; elsewhere equal files are enough.
"""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import paddle
import pytest

from ernie_vil2.cli.trim import trim_model
from ernie_vil2.config import LoraConfig, TuningConfig
from ernie_vil2.encoder import load_model
from ernie_vil2.io.files import sha256
from ernie_vil2.models.lora import add_lora
from ernie_vil2.models.weights.files import INDEX_SUFFIX, as_float32, read_weights, write_torch_weights
from ernie_vil2.models.weights.format import WORD_EMBEDDING, find_weights, read_model, write_model
from ernie_vil2.models.weights.torch_files import BFLOAT16
from ernie_vil2.models.weights.write_back import find_layout, find_origin
from tests.support.commands import call, succeed
from tests.support.other_families import (
    FAMILY_FIXTURES,
    FOLDERS,
    NAMES_WITH_MARKS,
    build_for_evaluation,
    check_with_authors,
    read_expected,
)
from tests.support.towers import assert_same_bits

RECORDED = json.loads((FAMILY_FIXTURES / "handed_back.json").read_text())


TEXTS = 6
"""Of a fixture, what a vocabulary is trimmed to."""


def weights_in(folder):
    return read_weights(find_weights(folder), keep_bfloat16=True)


def given_back(name, folder, change=lambda array: array):
    """A fixture's model, its arrays changed, in a new folder; what was noted."""
    stored = read_model(FOLDERS[name])
    arrays = {key: change(array) for key, array in stored.arrays.items()}
    return write_model(replace(stored, arrays=arrays), folder, find_layout(FOLDERS[name]), origin=FOLDERS[name])


def tree_digest(folder):
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "integrity.json":
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", FOLDERS)
def test_an_untouched_model_comes_back_bit_equal(name, tmp_path):
    """With all other files; the authors' class loads it to the same embeddings."""
    notes = given_back(name, tmp_path / "back")
    assert_same_bits(weights_in(FOLDERS[name]), weights_in(tmp_path / "back"))
    assert len(notes) == 1 and "arrays are the model's" in notes[0]
    for path in FOLDERS[name].rglob("*"):
        is_settings = path.suffix in (".json", ".txt", ".model") and path.parent.name != "inputs"
        if is_settings and not path.name.endswith(INDEX_SUFFIX):
            assert (tmp_path / "back" / path.relative_to(FOLDERS[name])).read_bytes() == path.read_bytes()
    if name in RECORDED:
        (file,) = [path for path in (tmp_path / "back").iterdir() if path.suffix in (".safetensors", ".bin", ".pt")]
        assert (file.name, sha256(file)) == (RECORDED[name]["file"], RECORDED[name]["sha256"])
        check_with_authors(tmp_path / "back", FOLDERS[name])


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES_WITH_MARKS)
def test_a_trimmed_model_goes_back_with_its_tokenizer(name, tmp_path):
    """The files of the authors' tokenizer give the ids of the rows that are left."""
    texts = json.loads((FOLDERS[name] / "inputs" / "texts.json").read_text("utf-8"))[:TEXTS]
    (tmp_path / "texts.txt").write_text("".join(text.replace("\n", " ") + "\n" for text in texts), "utf-8")
    succeed("trim", FOLDERS[name], "--texts", tmp_path / "texts.txt", "--output", tmp_path / "small")
    done = call("convert", tmp_path / "small", tmp_path / "back")
    if read_model(FOLDERS[name]).config.Model.text.tokenizer == "open_clip":
        assert done.returncode == 2 and "OpenCLIP" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    model, small = load_model(FOLDERS[name]), load_model(tmp_path / "back")
    assert small.tokenizer.vocab_size < model.tokenizer.vocab_size
    np.testing.assert_array_equal(small.encode_texts(texts), model.encode_texts(texts))
    settings = "".join(path.read_text() for path in tmp_path.glob("back/**/*.json") if path.name != "integrity.json")
    assert f'"vocab_size": {len(read_model(tmp_path / "back").arrays[WORD_EMBEDDING])}' in settings
    if name not in RECORDED:
        return
    assert tree_digest(tmp_path / "back") == RECORDED[name]["trimmed"]
    check_with_authors(tmp_path / "back", FOLDERS[name], TEXTS)


def test_a_vocabulary_that_is_not_the_origins_does_not_go_back(tmp_path):
    stored = read_model(FOLDERS["hf_chinese_clip_bin"])
    for words in (stored, trim_model(stored, range(100))):
        renamed = replace(words, tokens=[*words.tokens[:-1], "other"])
        with pytest.raises(ValueError, match="the words of this model are"):
            write_model(renamed, tmp_path / "back", "hf", origin=FOLDERS["hf_chinese_clip_bin"])
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(("suffix", "dtype"), [("safetensors", BFLOAT16), ("bin", BFLOAT16), ("bin", np.dtype("<f2"))])
def test_narrow_numbers_stay_unless_training_needs_wider_ones(suffix, dtype, tmp_path):
    for path in FOLDERS["hf_clip"].glob("*.json"):
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / path.name).write_bytes(path.read_bytes())

    def narrow(array):
        if dtype != BFLOAT16:
            return array.astype(dtype)
        return (np.ascontiguousarray(array).view("<u4") >> 16).astype("<u2").view(BFLOAT16).reshape(array.shape)

    arrays = {name: narrow(array) for name, array in weights_in(FOLDERS["hf_clip"]).items()}
    file = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}[suffix]
    write_torch_weights(tmp_path / "model" / file, arrays)
    stored = read_model(tmp_path / "model")
    wide = {name: np.asarray(array, "float32") for name, array in stored.arrays.items()}  # as a run of ours has them
    write_model(replace(stored, arrays=wide), tmp_path / "back", "hf", origin=tmp_path / "model")
    assert_same_bits(arrays, weights_in(tmp_path / "back"))
    trained = {name: array + np.float32(1e-5) for name, array in wide.items()}
    notes = write_model(replace(stored, arrays=trained), tmp_path / "trained", "hf", origin=tmp_path / "model")
    spelt = "bfloat16" if dtype == BFLOAT16 else "float16"
    assert notes[-1].startswith("weights are float32; those of") and f", {spelt}, cannot hold" in notes[-1]
    after = weights_in(tmp_path / "trained")
    assert {array.dtype.str for array in after.values()} == {"<f4"}
    name = "visual_projection.weight"
    np.testing.assert_array_equal(after[name], as_float32(arrays[name]).astype("<f4") + np.float32(1e-5))


def test_a_run_after_a_run_goes_back_to_the_first_origin(tmp_path):
    """What a run began with says where it came from."""
    stored, source = read_model(FOLDERS["hf_chinese_clip_bin"]), FOLDERS["hf_chinese_clip_bin"]
    for name, weights in (("first", source), ("second", tmp_path / "first")):
        model = stored.config.Model.model_copy(update={"weights": str(weights)})
        begun = replace(stored, config=stored.config.model_copy(update={"Model": model}))
        write_model(begun, tmp_path / name, "ernie_vil2")
    assert find_origin(tmp_path / "second") == source
    succeed("convert", tmp_path / "second", tmp_path / "back")
    assert_same_bits(weights_in(source), weights_in(tmp_path / "back"))
    again = call("convert", tmp_path / "second", tmp_path / "back")
    assert again.returncode == 2 and str(tmp_path / "back") in again.stderr
    adapter = call("convert", tmp_path / "second", tmp_path / "adapter", "--lora", "peft")
    assert adapter.returncode == 2 and "no LoRA" in adapter.stderr
    assert not (tmp_path / "adapter").exists()


def test_what_does_not_go_back_is_explained(tmp_path):
    stored = read_model(FOLDERS["hf_clip"])
    model = stored.config.Model
    image = model.image.model_copy(update={"variant": model.image.variant.model_copy(update={"activation": "gelu"})})
    changed = stored.config.model_copy(update={"Model": model.model_copy(update={"image": image})})
    for candidate, origin, layout, culprit in (
        (replace(stored, config=changed), "hf_clip", "hf", "Model.image.variant.activation is gelu"),
        (stored, "hf_clip", "openclip", "of the layout hf"),
        (stored, "hf_siglip", "hf", "missing|cannot hold|has no|shape|is of another model"),
    ):
        with pytest.raises(ValueError, match=culprit):
            write_model(candidate, tmp_path / "back", layout, origin=FOLDERS[origin])
    assert not (tmp_path / "back").exists()
    succeed("convert", FOLDERS["hf_chinese_clip_bin"], tmp_path / "own", "--to", "ernie_vil2")
    lost = call("convert", tmp_path / "own", tmp_path / "back")
    assert lost.returncode == 2 and "--origin" in lost.stderr
    succeed("convert", tmp_path / "own", tmp_path / "back", "--origin", FOLDERS["hf_chinese_clip_bin"])


def test_larger_images_are_in_the_settings_that_go_back(tmp_path):
    stored = read_model(FOLDERS["hf_clip"])
    model, name = stored.config.Model, "image.pos_embed"
    image = model.image.model_copy(update={"image_size": 2 * model.image.image_size})
    _, tokens, width = stored.arrays[name].shape
    arrays = {**stored.arrays, name: np.ones([1, 4 * (tokens - 1) + 1, width], "float32")}
    larger = stored.config.model_copy(update={"Model": model.model_copy(update={"image": image})})
    write_model(replace(stored, arrays=arrays, config=larger), tmp_path / "back", "hf", origin=FOLDERS["hf_clip"])
    assert read_model(tmp_path / "back").config.Model.image.image_size == 64
    settings = json.loads((tmp_path / "back" / "preprocessor_config.json").read_text())
    assert settings["size"] == {"shortest_edge": 64} and settings["crop_size"] == {"height": 64, "width": 64}


def with_lora(name, run):
    """A run that began with a folder and has learned changes of rank 2, as if by training."""
    stored = read_model(FOLDERS[name])
    begun = stored.config.Model.model_copy(update={"weights": str(FOLDERS[name])})
    lora = LoraConfig(rank=2, alpha=6.0)
    config = stored.config.model_copy(update={"Model": begun, "Tuning": TuningConfig(lora=lora)})
    model, _ = stored.build()
    add_lora(model, lora)
    rng = np.random.default_rng(0)
    for key, value in model.named_parameters():
        if key.endswith("lora_b"):
            value.set_value(rng.normal(size=value.shape).astype("float32"))
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    write_model(replace(stored, arrays=arrays, config=config), run, "ernie_vil2")
    return run


@pytest.mark.parametrize("name", ["hf_chinese_clip_bin", "hf_siglip"])
def test_lora_is_kept_in_the_layout_of_peft(name, tmp_path):
    """W + alpha / r * B A of each of their layers is what merging makes of ours and what their model computes."""
    run = with_lora(name, tmp_path / "run")
    succeed("convert", run, tmp_path / "adapter", "--lora", "peft")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["peft_type"]) == (2, 6.0, "LORA")
    changes = read_weights(tmp_path / "adapter" / "adapter_model.safetensors")
    succeed("convert", run, tmp_path / "back")
    before, after = weights_in(FOLDERS[name]), weights_in(tmp_path / "back")
    changed = {key for key in before if not np.array_equal(before[key], after[key])}
    assert {f"{layer}.weight" for layer in settings["target_modules"]} == changed
    for layer in settings["target_modules"]:
        a, b = (changes[f"base_model.model.{layer}.lora_{matrix}.weight"] for matrix in "AB")
        weight = before[f"{layer}.weight"] + 3.0 * b @ a
        np.testing.assert_allclose(after[f"{layer}.weight"], weight, atol=1e-5, err_msg=layer)

    model, arrays = build_for_evaluation(read_model(run)), dict(read_expected(name))
    with paddle.no_grad():
        arrays["image_embeddings"] = model.encode_image(paddle.to_tensor(arrays["pixel_values"])).numpy()
        arrays["text_embeddings"] = model.encode_text(paddle.to_tensor(arrays["input_ids"])).numpy()
    for key in ("image_embeddings", "text_embeddings"):
        assert np.abs(arrays[key] - read_expected(name)[key]).max() > 0.01
    (tmp_path / "fixture").mkdir()
    np.savez(tmp_path / "fixture" / "expected.npz", **arrays)
    shutil.copy(FOLDERS[name] / "expected.json", tmp_path / "fixture")
    check_with_authors(tmp_path / "adapter", tmp_path / "fixture")


def test_chinese_clip_goes_to_transformers_and_back(tmp_path):
    """Both classes load it to the same embeddings, as tests/support/peers.py found once."""
    source = read_model(FOLDERS["cn_clip_pt"])
    assert "load_from_name" not in succeed("convert", FOLDERS["cn_clip_pt"], tmp_path / "hf", "--to", "hf")
    assert "load_from_name" in succeed("convert", tmp_path / "hf", tmp_path / "back", "--to", "chinese-clip")
    for folder in ("hf", "back"):
        stored = read_model(tmp_path / folder)
        assert stored.tokens == source.tokens
        for key, array in source.arrays.items():
            np.testing.assert_array_equal(stored.arrays[key], array, err_msg=key)
    assert read_model(tmp_path / "back").config.Model == source.config.Model
    narrow = call("convert", FOLDERS["hf_chinese_clip_bin"], tmp_path / "narrow", "--to", "chinese-clip")
    assert narrow.returncode == 2 and "four times as wide" in narrow.stderr


@pytest.mark.skipif("fgclip2" not in FOLDERS, reason="ERNIE_VIL2_FIXTURES has it")
def test_a_way_of_reading_texts_that_is_not_the_default_is_noted(tmp_path):
    """Whoever loads what went back gets the other head, without an error."""
    long = read_model(FOLDERS["fgclip2"], dialect={"text": "long"})
    notes = write_model(long, tmp_path / "back", "hf", origin=FOLDERS["fgclip2"])
    assert any("dialect={'text': 'long'}" in note for note in notes)
    assert not any("dialect" in note for note in given_back("fgclip2", tmp_path / "short"))


def test_no_array_of_the_origin_replaces_a_missing_one(tmp_path):
    stored = read_model(FOLDERS["hf_siglip"])
    for name in ("logit_bias", "image.blocks.0.norm1.weight"):
        arrays = {key: array for key, array in stored.arrays.items() if key != name}
        with pytest.raises(ValueError, match=name):
            write_model(replace(stored, arrays=arrays), tmp_path / "made", "hf", origin=FOLDERS["hf_siglip"])
    assert list(tmp_path.iterdir()) == []
