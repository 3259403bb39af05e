"""Models in the layout of other families are written back bit by bit, and the authors' classes load them.

The authors' classes load them where they are installed: in this environment, or in that of `ERNIE_VIL2_PEERS`, a Python
with PyTorch and transformers, open_clip_torch or cn_clip. tests/fixtures/others/handed_back.json has the digests of
files that tests/support/peers.py has compared; elsewhere equal files are enough.
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
from ernie_vil2.io.files import read_integrity, sha256, write_integrity
from ernie_vil2.io.run_folder import MODEL
from ernie_vil2.models.heads import HEAD_PREFIX
from ernie_vil2.models.lora import add_lora
from ernie_vil2.models.weights.files import INDEX_SUFFIX, as_float32, read_weights, write_torch_weights, write_weights
from ernie_vil2.models.weights.format import WORD_EMBEDDING, find_weights, read_model, write_model
from ernie_vil2.models.weights.torch_files import BFLOAT16
from ernie_vil2.models.weights.write_back import find_layout, find_origin
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.commands import call, succeed
from tests.support.other_families import (
    FAMILY_FIXTURES,
    FOLDERS,
    NAMES_WITH_MARKS,
    build_for_evaluation,
    change_arrays,
    check_with_authors,
    copy_folder,
    read_expected,
)
from tests.support.towers import assert_same_bits

COMPARED_FILES = json.loads((FAMILY_FIXTURES / "handed_back.json").read_text())
NUM_TEXTS = 6
"""Number of a fixture's texts whose words a trimmed vocabulary has."""


def read_folder_weights(folder):
    return read_weights(find_weights(folder), keep_bfloat16=True)


def write_back(name, folder):
    """Write a fixture's model back into a new folder, and return the notes."""
    return write_model(read_model(FOLDERS[name]), folder, find_layout(FOLDERS[name]), origin=FOLDERS[name])


def compute_tree_digest(folder):
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "integrity.json":
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", FOLDERS)
def test_unchanged_model_comes_back_bit_equal(name, tmp_path):
    notes = write_back(name, tmp_path / "back")
    assert_same_bits(read_folder_weights(FOLDERS[name]), read_folder_weights(tmp_path / "back"))
    assert len(notes) == 1 and "arrays are the model's" in notes[0]
    for path in FOLDERS[name].rglob("*"):
        is_settings = path.suffix in (".json", ".txt", ".model") and path.parent.name != "inputs"
        if is_settings and not path.name.endswith(INDEX_SUFFIX):
            assert (tmp_path / "back" / path.relative_to(FOLDERS[name])).read_bytes() == path.read_bytes()
    if name in COMPARED_FILES:
        (file,) = [path for path in (tmp_path / "back").iterdir() if path.suffix in (".safetensors", ".bin", ".pt")]
        assert (file.name, sha256(file)) == (COMPARED_FILES[name]["file"], COMPARED_FILES[name]["sha256"])
        check_with_authors(tmp_path / "back", FOLDERS[name])


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES_WITH_MARKS)
def test_trimmed_model_goes_back_with_its_tokenizer(name, tmp_path):
    texts = json.loads((FOLDERS[name] / "inputs" / "texts.json").read_text("utf-8"))[:NUM_TEXTS]
    (tmp_path / "texts.txt").write_text("".join(text.replace("\n", " ") + "\n" for text in texts), "utf-8")
    succeed("trim", FOLDERS[name], "--texts", tmp_path / "texts.txt", "--output", tmp_path / "small")
    result = call("convert", tmp_path / "small", tmp_path / "back")
    model, stored = load_model(FOLDERS[name]), read_model(FOLDERS[name])
    obstacle = stored.family.format.explain_obstacle(stored.config.Model, stored.config.Model, True)
    if stored.config.Model.text.tokenizer == "open_clip":
        obstacle = "by the byte pairs of its package"
    small_model = load_model(tmp_path / ("small" if obstacle else "back"))
    assert small_model.tokenizer.vocab_size < model.tokenizer.vocab_size
    np.testing.assert_array_equal(small_model.encode_texts(texts), model.encode_texts(texts))
    if obstacle:
        assert result.returncode == 2 and obstacle in result.stderr
        return
    assert result.returncode == 0, result.stderr
    settings = "".join(path.read_text() for path in tmp_path.glob("back/**/*.json") if path.name != "integrity.json")
    assert f'"vocab_size": {len(read_model(tmp_path / "back").arrays[WORD_EMBEDDING])}' in settings
    if name not in COMPARED_FILES:
        return
    # The authors' tokenizer gives the ids of the remaining rows.
    assert compute_tree_digest(tmp_path / "back") == COMPARED_FILES[name]["trimmed"]
    check_with_authors(tmp_path / "back", FOLDERS[name], NUM_TEXTS)


def test_vocabulary_of_another_origin_is_refused(tmp_path):
    stored = read_model(FOLDERS["hf_chinese_clip_bin"])
    for model in (stored, trim_model(stored, range(100))):
        renamed = replace(model, tokens=[*model.tokens[:-1], "other"])
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
        # bfloat16 is the upper half of a float32.
        return (np.ascontiguousarray(array).view("<u4") >> 16).astype("<u2").view(BFLOAT16).reshape(array.shape)

    arrays = {name: narrow(array) for name, array in read_folder_weights(FOLDERS["hf_clip"]).items()}
    file = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}[suffix]
    write_torch_weights(tmp_path / "model" / file, arrays)
    stored = read_model(tmp_path / "model")
    wide_arrays = {name: np.asarray(array, "float32") for name, array in stored.arrays.items()}  # as runs save them
    write_model(replace(stored, arrays=wide_arrays), tmp_path / "back", "hf", origin=tmp_path / "model")
    assert_same_bits(arrays, read_folder_weights(tmp_path / "back"))

    # 1e-5 is lost in the narrow types.
    trained_arrays = {name: array + np.float32(1e-5) for name, array in wide_arrays.items()}
    notes = write_model(replace(stored, arrays=trained_arrays), tmp_path / "trained", "hf", origin=tmp_path / "model")
    dtype_name = "bfloat16" if dtype == BFLOAT16 else "float16"
    assert notes[-1].startswith("weights are float32; those of") and f", {dtype_name}, cannot hold" in notes[-1]
    written_arrays = read_folder_weights(tmp_path / "trained")
    assert {array.dtype.str for array in written_arrays.values()} == {"<f4"}
    name = "visual_projection.weight"
    np.testing.assert_array_equal(written_arrays[name], as_float32(arrays[name]).astype("<f4") + np.float32(1e-5))


def test_run_after_a_run_goes_back_to_the_first_origin(tmp_path):
    stored, source = read_model(FOLDERS["hf_chinese_clip_bin"]), FOLDERS["hf_chinese_clip_bin"]
    for name, weights in (("first", source), ("second", tmp_path / "first")):
        model = stored.config.Model.model_copy(update={"weights": str(weights)})
        run = replace(stored, config=stored.config.model_copy(update={"Model": model}))
        write_model(run, tmp_path / name, "ernie_vil2")
    assert find_origin(tmp_path / "second") == source
    succeed("convert", tmp_path / "second", tmp_path / "back")
    assert_same_bits(read_folder_weights(source), read_folder_weights(tmp_path / "back"))
    result = call("convert", tmp_path / "second", tmp_path / "back")  # the folder exists now
    assert result.returncode == 2 and str(tmp_path / "back") in result.stderr
    result = call("convert", tmp_path / "second", tmp_path / "adapter", "--lora", "peft")
    assert result.returncode == 2 and "no LoRA" in result.stderr
    assert not (tmp_path / "adapter").exists()


def test_refusal_to_write_back_names_the_reason(tmp_path):
    stored = read_model(FOLDERS["hf_clip"])
    model = stored.config.Model
    image = model.image.model_copy(update={"variant": model.image.variant.model_copy(update={"activation": "gelu"})})
    config = stored.config.model_copy(update={"Model": model.model_copy(update={"image": image})})
    for candidate, origin, layout, culprit in (
        (replace(stored, config=config), "hf_clip", "hf", "Model.image.variant.activation is gelu"),
        (stored, "hf_clip", "openclip", "of the layout hf"),
        (stored, "hf_siglip", "hf", "missing|cannot hold|has no|shape|is of another model"),
    ):
        with pytest.raises(ValueError, match=culprit):
            write_model(candidate, tmp_path / "back", layout, origin=FOLDERS[origin])
    assert not (tmp_path / "back").exists()
    succeed("convert", FOLDERS["hf_chinese_clip_bin"], tmp_path / "own", "--to", "ernie_vil2")
    result = call("convert", tmp_path / "own", tmp_path / "back")
    assert result.returncode == 2 and "--origin" in result.stderr
    succeed("convert", tmp_path / "own", tmp_path / "back", "--origin", FOLDERS["hf_chinese_clip_bin"])


@pytest.mark.parametrize(
    ("size", "resized", "larger_size"),
    [({"shortest_edge": 32}, None, {"shortest_edge": 64}), ({"shortest_edge": 36}, 72, {"shortest_edge": 72}),
     (36, 72, 72)],
)  # fmt: skip
def test_settings_that_go_back_have_the_larger_image_size(size, resized, larger_size, tmp_path):
    origin = copy_folder("hf_clip", tmp_path / "origin", "preprocessor_config.json", size=size)
    stored = read_model(origin)
    model, name = stored.config.Model, "image.pos_embed"
    image = model.image.model_copy(update={"image_size": 2 * model.image.image_size, "resized": resized})
    _, tokens, width = stored.arrays[name].shape
    arrays = {**stored.arrays, name: np.ones([1, 4 * (tokens - 1) + 1, width], "float32")}
    config = stored.config.model_copy(update={"Model": model.model_copy(update={"image": image})})
    write_model(replace(stored, arrays=arrays, config=config), tmp_path / "back", "hf", origin=origin)
    assert read_model(tmp_path / "back").config.Model.image == image
    settings = json.loads((tmp_path / "back" / "preprocessor_config.json").read_text())
    assert settings["size"] == larger_size and settings["crop_size"] == {"height": 64, "width": 64}


def test_width_of_a_tower_that_equals_the_image_size_stays(tmp_path):
    origin = FOLDERS["openclip_siglip_timm"]
    stored, name = read_model(origin), "image.pos_embed"
    image = stored.config.Model.image
    assert image.width == image.image_size == 32
    model = stored.config.Model.model_copy(update={"image": image.model_copy(update={"image_size": 64})})
    arrays = {**stored.arrays, name: np.ones([1, 64, 32], "float32")}
    larger = stored.config.model_copy(update={"Model": model})
    write_model(replace(stored, arrays=arrays, config=larger), tmp_path / "back", "openclip", origin=origin)
    settings = json.loads((tmp_path / "back" / "open_clip_config.json").read_text())["model_cfg"]
    assert (settings["vision_cfg"]["image_size"], settings["vision_cfg"]["width"]) == (64, 32)
    assert settings["text_cfg"]["width"] == 32


def write_enlarged(origin, folder):
    """Write a model for images of twice the size back to the layout that it came from; return its image tower."""
    stored = read_model(origin)
    image = stored.config.Model.image
    image = image.model_copy(update={"image_size": 2 * image.image_size})
    config = stored.config.model_copy(update={"Model": stored.config.Model.model_copy(update={"image": image})})
    shape = list(stored.arrays["image.pos_embed"].shape)
    shape[-2] = (image.image_size // image.patch_size) ** 2
    arrays = {**stored.arrays, "image.pos_embed": np.ones(shape, "float32")}
    write_model(replace(stored, arrays=arrays, config=config), folder, find_layout(origin), origin=origin)
    assert read_model(folder).config.Model.image.image_size == image.image_size
    return image


def test_grid_for_images_of_any_shape_goes_back_larger(tmp_path):
    image = write_enlarged(FOLDERS["hf_siglip2_naflex"], tmp_path / "back")
    settings = json.loads((tmp_path / "back" / "config.json").read_text())
    assert settings["vision_config"]["num_patches"] == (image.image_size // image.patch_size) ** 2


def test_image_size_that_is_a_list_goes_back_larger(tmp_path):
    changed = ("open_clip_config.json", "preprocess_cfg")
    origin = copy_folder("openclip_siglip_timm", tmp_path / "origin", *changed, size=[32, 32])
    write_enlarged(origin, tmp_path / "back")
    settings = json.loads((tmp_path / "back" / "open_clip_config.json").read_text())
    assert settings["preprocess_cfg"]["size"] == [64, 64]


def test_image_size_that_was_the_default_goes_back_larger(tmp_path):
    origin = copy_folder("hf_siglip", tmp_path / "origin", "config.json", "vision_config", image_size=None)
    settings = json.loads((origin / "preprocessor_config.json").read_text())
    settings["size"] = {"height": 224, "width": 224}
    (origin / "preprocessor_config.json").write_text(json.dumps(settings))
    arrays, name = read_weights(find_weights(origin)), "vision_model.embeddings.position_embedding.weight"
    patch_size = read_model(FOLDERS["hf_siglip"]).config.Model.image.patch_size
    positions = np.ones([(224 // patch_size) ** 2, arrays[name].shape[1]], "float32")
    write_weights(find_weights(origin), {**arrays, name: positions})
    write_enlarged(origin, tmp_path / "back")
    settings = json.loads((tmp_path / "back" / "config.json").read_text())
    assert settings["vision_config"]["image_size"] == 448


def write_lora_run(name, run):
    """Write a run that began with a folder and has LoRA of rank 2, with random factors as if it had been trained."""
    stored = read_model(FOLDERS[name])
    model_config = stored.config.Model.model_copy(update={"weights": str(FOLDERS[name])})
    lora = LoraConfig(rank=2, alpha=6.0)
    config = stored.config.model_copy(update={"Model": model_config, "Tuning": TuningConfig(lora=lora)})
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
def test_lora_is_written_in_the_layout_of_peft(name, tmp_path):
    run = write_lora_run(name, tmp_path / "run")
    succeed("convert", run, tmp_path / "adapter", "--lora", "peft")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["peft_type"]) == (2, 6.0, "LORA")
    factors = read_weights(tmp_path / "adapter" / "adapter_model.safetensors")

    # Merged weights are W + alpha / r * B A of PEFT's layers, with alpha / r = 3.
    succeed("convert", run, tmp_path / "back")
    original, merged = read_folder_weights(FOLDERS[name]), read_folder_weights(tmp_path / "back")
    changed = {key for key in original if not np.array_equal(original[key], merged[key])}
    assert {f"{layer}.weight" for layer in settings["target_modules"]} == changed
    for layer in settings["target_modules"]:
        a = factors[f"base_model.model.{layer}.lora_A.weight"]
        b = factors[f"base_model.model.{layer}.lora_B.weight"]
        expected = original[f"{layer}.weight"] + 3.0 * b @ a
        np.testing.assert_allclose(merged[f"{layer}.weight"], expected, atol=1e-5, err_msg=layer)

    # The authors' class computes the same embeddings with the adapter.
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


def change_run_weights(run, changes):
    """Set arrays of a run, or remove those that are None, as if it had been written with them."""
    arrays = {**read_weights(run / MODEL), **changes}
    write_weights(run / MODEL, {name: array for name, array in arrays.items() if array is not None})
    integrity = read_integrity(run)
    write_integrity(run, integrity.files, integrity.conventions, integrity.golden)


def test_scalars_that_an_adapter_cannot_hold_are_noted(tmp_path):
    run = write_lora_run("hf_chinese_clip_bin", tmp_path / "run")
    assert "logit" not in succeed("convert", run, tmp_path / "plain", "--lora", "peft")
    # The run was trained with the sigmoid loss, whose bias its origin lacks.
    change_run_weights(run, {"logit_bias": np.array([-10], "float32")})
    output = succeed("convert", run, tmp_path / "adapter", "--lora", "peft")
    assert "logit_bias" in output and "log_logit_scale" not in output
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()


def test_a_head_that_an_adapter_leaves_out_is_named(tmp_path):
    run = write_lora_run("hf_chinese_clip_bin", tmp_path / "run")
    change_run_weights(run, {f"{HEAD_PREFIX}classifier.0.bias": np.zeros([8], "float32")})
    assert "classification head" in succeed("convert", run, tmp_path / "adapter", "--lora", "peft")


@pytest.mark.parametrize("array", [None, np.zeros([], "float32"), np.zeros([2, 31], "float32")])
def test_adapter_of_damaged_lora_is_refused(array, tmp_path):
    run, name = write_lora_run("hf_chinese_clip_bin", tmp_path / "run"), "image.blocks.0.attn.proj.lora_b"
    change_run_weights(run, {name: array})
    result = call("convert", run, tmp_path / "adapter", "--lora", "peft")
    assert result.returncode == 2 and "image.blocks.0.attn.proj" in result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "adapter").exists()


def test_adapter_of_a_changed_file_is_refused(tmp_path):
    run = write_lora_run("hf_chinese_clip_bin", tmp_path / "run")
    content = bytearray((run / MODEL).read_bytes())
    content[-3] ^= 1
    (run / MODEL).write_bytes(content)
    result = call("convert", run, tmp_path / "adapter", "--lora", "peft")
    assert result.returncode == 2 and f"{MODEL} differs" in result.stderr


def test_chinese_clip_goes_to_transformers_and_back(tmp_path):
    # tests/support/peers.py has shown once that the classes of both load the folders to the same embeddings.
    source = read_model(FOLDERS["cn_clip_pt"])
    assert "load_from_name" not in succeed("convert", FOLDERS["cn_clip_pt"], tmp_path / "hf", "--to", "hf")
    assert "load_from_name" in succeed("convert", tmp_path / "hf", tmp_path / "back", "--to", "chinese-clip")
    for folder in ("hf", "back"):
        stored = read_model(tmp_path / folder)
        assert stored.tokens == source.tokens
        for key, array in source.arrays.items():
            np.testing.assert_array_equal(stored.arrays[key], array, err_msg=key)
    assert read_model(tmp_path / "back").config.Model == source.config.Model
    result = call("convert", FOLDERS["hf_chinese_clip_bin"], tmp_path / "narrow", "--to", "chinese-clip")
    assert result.returncode == 2 and "four times as wide" in result.stderr


def test_chinese_clip_with_another_gelu_goes_to_transformers_and_back(tmp_path):
    folder = copy_folder(
        "cn_clip_pt", tmp_path / "source", "model_configs/RoBERTa-tiny.json", text_hidden_act="gelu_new"
    )
    source = read_model(folder)
    assert source.config.Model.text.variant.activation == "gelu_tanh"
    write_model(source, tmp_path / "hf", "hf", origin=folder)
    stored = read_model(tmp_path / "hf")
    assert stored.config.Model.text.variant == source.config.Model.text.variant
    write_model(stored, tmp_path / "back", "chinese-clip", origin=tmp_path / "hf")
    assert read_model(tmp_path / "back").config.Model == source.config.Model


@pytest.mark.skipif("openclip_flat" not in FOLDERS, reason="ERNIE_VIL2_FIXTURES has it")
def test_scale_of_one_axis_keeps_it(tmp_path):
    weights = "open_clip_model.safetensors"
    folder = copy_folder(
        "openclip_flat", tmp_path / "source", "open_clip_config.json", "model_cfg", nonscalar_logit_scale=True
    )
    change_arrays(folder, lambda arrays: {**arrays, "logit_scale": arrays["logit_scale"].reshape(1)}, weights)
    write_model(read_model(folder), tmp_path / "back", "openclip", origin=folder)
    arrays, written = read_weights(folder / weights), read_weights(tmp_path / "back" / weights)
    for name, array in arrays.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name, strict=True)


@pytest.mark.skipif("fgclip2" not in FOLDERS, reason="ERNIE_VIL2_FIXTURES has it")
def test_dialect_that_is_not_the_default_is_noted(tmp_path):
    # Without the note, whoever loads the folder would use the head of short texts, without an error.
    stored = read_model(FOLDERS["fgclip2"], dialect={"text": "long"})
    notes = write_model(stored, tmp_path / "back", "hf", origin=FOLDERS["fgclip2"])
    assert any("dialect={'text': 'long'}" in note for note in notes)
    assert not any("dialect" in note for note in write_back("fgclip2", tmp_path / "short"))


def test_classification_head_that_is_left_out_is_noted(tmp_path):
    run = write_untrained_checkpoint(tmp_path / "run")
    arrays = dict(read_weights(run / MODEL))
    write_weights(run / MODEL, {**arrays, f"{HEAD_PREFIX}0.weight": np.ones([2, 2], np.float32)})
    assert "classification head" in succeed("convert", run, tmp_path / "made", "--to", "ernie_vil2")
    assert read_weights(tmp_path / "made" / MODEL).keys() == arrays.keys()
    assert "classification head" not in succeed("convert", tmp_path / "made", tmp_path / "again", "--to", "ernie_vil2")


def test_origin_of_another_architecture_is_named(tmp_path):
    result = call("convert", FOLDERS["hf_siglip"], tmp_path / "made", "--origin", FOLDERS["hf_clip"])
    assert result.returncode == 2 and str(FOLDERS["hf_clip"]) in result.stderr and "--to" in result.stderr


def test_adapter_of_peft_has_no_other_layout(tmp_path):
    run = write_lora_run("hf_siglip", tmp_path / "run")
    result = call("convert", run, tmp_path / "adapter", "--lora", "peft", "--to", "openclip")
    assert result.returncode == 2 and "--to" in result.stderr and "openclip" in result.stderr
    succeed("convert", run, tmp_path / "adapter", "--lora", "peft", "--to", "hf")


@pytest.mark.parametrize("option", [("--heads", 4, 4), ("--vocabulary", __file__), ("--allow", "image.*")])
def test_adapter_of_peft_refuses_options_of_whole_models(option, tmp_path):
    run = write_lora_run("hf_siglip", tmp_path / "run")
    result = call("convert", run, tmp_path / "adapter", "--lora", "peft", *option)
    assert result.returncode == 2 and option[0] in result.stderr and not (tmp_path / "adapter").exists()


def test_missing_array_is_not_taken_from_the_origin(tmp_path):
    stored = read_model(FOLDERS["hf_siglip"])
    for name in ("logit_bias", "image.blocks.0.norm1.weight"):
        arrays = {key: array for key, array in stored.arrays.items() if key != name}
        with pytest.raises(ValueError, match=name):
            write_model(replace(stored, arrays=arrays), tmp_path / "made", "hf", origin=FOLDERS["hf_siglip"])
    assert list(tmp_path.iterdir()) == []
