"""`Model.like`: a training takes over the architecture of another model, in any of the formats."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.config import ConfigError, dump_config, load_config
from ernie_vil2.encoder import PaddleBackend
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.models.heads import build_classifier
from ernie_vil2.models.weights.files import read_weights
from ernie_vil2.models.weights.format import find_weights, read_model, write_model
from ernie_vil2.models.weights.initial import load_initial_weights, resolve_model_like
from ernie_vil2.training.trainer import Trainer
from tests.support.commands import succeed
from tests.support.other_families import FOLDERS, copy_folder, measure_text_difference, read_expected

RELEASED = Path(__file__).parents[1] / "fixtures" / "released"
OFFICIAL, PADDLENLP = RELEASED / "official_tiny", RELEASED / "paddlenlp_tiny"
TEXTS = ["红色的圆", "two discs", "bars, discs"]
POSITIONS = "text_model.embeddings.position_embedding"
"""FG-CLIP 2's name of the position embedding; those of long texts end in _ori and _res."""


@pytest.mark.parametrize("folder", [OFFICIAL, PADDLENLP], ids=lambda folder: folder.name)
def test_towers_tokenizer_and_preprocessing_are_taken_over(folder, tmp_path):
    config = load_config(None, [f"Model.like={folder}", f"Model.weights={folder}", "Model.text.dropout=0.0"])
    resolved = resolve_model_like(config)
    source = read_model(folder).config
    expected = source.Model.model_dump()
    expected["text"] |= {"vocabulary": str(folder / "vocab.txt"), "dropout": 0.0}
    assert resolved.Model.model_dump() == expected | {"weights": str(folder), "like": None}
    assert resolved.Data.max_length == source.Data.max_length
    assert resolved.model_dump(exclude={"Model", "Data"}) == config.model_dump(exclude={"Model", "Data"})
    (tmp_path / "config.yaml").write_text(dump_config(resolved))
    assert load_config(tmp_path / "config.yaml") == resolved == resolve_model_like(resolved)

    original = ernie_vil2.load_model(folder)
    model = build_dual_encoder(resolved.Model, len(original.tokenizer.tokens))
    load_initial_weights(model, resolved.Model)
    encoder = ernie_vil2.ErnieViL2(PaddleBackend(model, original.preprocessing), original.tokenizer, resolved)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), original.encode_texts(TEXTS), atol=1e-6)
    assert encoder.preprocessing == original.preprocessing


def test_dialect_of_a_family_is_chosen_and_stays(tmp_path):
    # OpenCLIP's tokenizer for a CLIP of transformers.
    overrides = ["Model.like=weights", f"Model.weights={FOLDERS['hf_clip']}", "Model.dialect={tokenizer: open_clip}"]
    model = resolve_model_like(load_config(None, overrides)).Model
    assert (model.text.tokenizer, model.dialect) == ("open_clip", {"tokenizer": "open_clip"})
    stored = read_model(FOLDERS["hf_clip"], dialect=model.dialect)
    write_model(stored, tmp_path / "run", "ernie_vil2")

    # A second run that begins with the first one reads texts in the same way, without the option.
    second_model = resolve_model_like(load_config(None, [overrides[0], f"Model.weights={tmp_path / 'run'}"])).Model
    assert (second_model.text.tokenizer, second_model.dialect) == ("open_clip", model.dialect)
    (report,) = load_initial_weights(build_dual_encoder(second_model, stored.vocab_size), second_model)
    assert len(report.matched) == len(stored.arrays)
    for source, message in ((FOLDERS["hf_clip"], "CLIP has no dialect text=long"), (OFFICIAL, "has no dialects")):
        with pytest.raises(ConfigError, match=message):
            resolve_model_like(load_config(None, [f"Model.like={source}", "Model.dialect={text: long}"]))


@pytest.mark.skipif("fgclip2" not in FOLDERS, reason="its folder is not carried")
@pytest.mark.parametrize("way", ["box", "long"])
def test_fgclip_2_reads_texts_in_the_chosen_way(way, tmp_path):
    folder = FOLDERS["fgclip2"]
    overrides = ["Model.like=weights", f"Model.weights={folder}", f"Model.dialect={{text: {way}}}"]
    config = resolve_model_like(load_config(None, overrides))
    stored = read_model(folder, dialect={"text": way})
    model = build_dual_encoder(config.Model, stored.vocab_size, bias=0.0)
    load_initial_weights(model, config.Model)
    model.eval()
    assert measure_text_difference(model, "fgclip2", f"/{way}") < 5e-6
    ids_name = "input_ids/long" if way == "long" else "input_ids"
    assert config.Data.max_length == read_expected("fgclip2")[ids_name].shape[1]

    # A training changes only the head and the positions of its way of reading texts.
    arrays = {name: value.numpy() + np.float32(0.25) for name, value in model.state_dict().items()}
    write_model(replace(stored, arrays=arrays, config=config, family=None), tmp_path / "run", "ernie_vil2")
    succeed("convert", tmp_path / "run", tmp_path / "back")
    original_arrays, arrays = read_weights(find_weights(folder)), read_weights(find_weights(tmp_path / "back"))
    changed = {name for name in original_arrays if not np.array_equal(original_arrays[name], arrays[name])}
    prefixes = {"box": ("boxtext_head", f"{POSITIONS}."), "long": ("longtext_head", f"{POSITIONS}_")}[way]
    text_prefixes = ("text_model.head", "boxtext_head", "longtext_head", "dense_feature_head", POSITIONS)
    assert all(name.startswith(prefixes) for name in changed if name.startswith(text_prefixes))
    for prefix in prefixes:
        assert any(name.startswith(prefix) for name in changed)


def test_classifier_that_began_with_siglip_is_a_dual_encoder_without_bias(tmp_path):
    source = FOLDERS["hf_siglip"]
    overrides = ["Model.like=weights", f"Model.weights={source}", "Training.task=entailment"]
    config, stored = resolve_model_like(load_config(None, overrides)), read_model(source)
    classifier = build_classifier(config.Model, config.Head, stored.vocab_size, 1, 3)
    load_initial_weights(classifier, config.Model)
    arrays = {name: value.numpy() for name, value in classifier.state_dict().items()}
    write_model(replace(stored, arrays=arrays, config=config, family=None), tmp_path / "run", "ernie_vil2")
    model, _ = read_model(tmp_path / "run").build()
    assert model.state_dict().keys() == stored.arrays.keys() - {"logit_bias"}


def test_settings_of_the_configuration_override_the_model():
    config = resolve_model_like(load_config(None, [
        f"Model.like={PADDLENLP}", "Model.image.mean=[0.5, 0.5, 0.5]", "Model.embed_dim=16", "Data.max_length=20",
        "Views.resize=40",
    ]))  # fmt: skip
    image = config.Model.image
    assert (image.mean, image.heads, image.preprocessing) == ([0.5] * 3, 4, "paddlenlp")
    assert (config.Model.embed_dim, config.Data.max_length, config.Views.resize) == (16, 20, 40)
    overrides = [f"Model.like={OFFICIAL}", "Model.image.name=PPLCNet_x0_25"]
    image = resolve_model_like(load_config(None, overrides)).Model.image
    assert (image.name, image.image_size, image.sizes) == ("PPLCNet_x0_25", 32, {})
    overrides = [f"Model.like={OFFICIAL}", "Data.max_length=100", "Model.text.max_positions=64"]
    with pytest.raises(ConfigError, match="Data.max_length .100. .* Model.text.max_positions .64"):
        resolve_model_like(load_config(None, overrides))


def test_resize_before_the_crop_grows_with_the_image_size(tmp_path):
    folder = copy_folder("hf_clip", tmp_path / "m", "preprocessor_config.json", size={"shortest_edge": 36})
    for overrides, resized in (([], 72), (["Model.image.resized=70"], 70), (["Model.image.image_size=32"], 36)):
        overrides = [f"Model.like={folder}", "Model.image.image_size=64", *overrides]
        assert resolve_model_like(load_config(None, overrides)).Model.image.resized == resized


def test_model_that_replaces_another_one_is_read(tmp_path, monkeypatch):
    config, stored = load_config(None, ["Model.like=model"]), read_model(OFFICIAL)
    for folder, max_length in (("first", 48), ("first", 20), ("second", 30)):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        shutil.rmtree("model", ignore_errors=True)
        data = stored.config.Data.model_copy(update={"max_length": max_length})
        write_model(replace(stored, config=stored.config.model_copy(update={"Data": data})), "model", "ernie_vil2")
        assert resolve_model_like(config).Data.max_length == max_length


def test_missing_source_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match="Model.like=weights"):
        resolve_model_like(load_config(None, ["Model.like=weights"]))
    for source in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match=f"Model.like: .*{source}: no "):
            resolve_model_like(load_config(None, [f"Model.like={source}"]))
    shutil.copy(OFFICIAL / "model.pdparams", tmp_path)
    shutil.copy(OFFICIAL / "ernie_config.json", tmp_path)
    with pytest.raises(ConfigError, match="Model.like: .*: no vocab.txt"):
        resolve_model_like(load_config(None, [f"Model.like={tmp_path}"]))


def test_module_named_by_a_model_is_not_imported(tmp_path):
    write_model(read_model(OFFICIAL), tmp_path / "m", "ernie_vil2")
    (tmp_path / "m" / "integrity.json").unlink()
    text = (tmp_path / "m/config.yaml").read_text()
    (tmp_path / "m/config.yaml").write_text(text.replace("name: ViT", "name: antigravity:Tower"))
    with pytest.raises(ConfigError, match="antigravity:Tower"):
        resolve_model_like(load_config(None, [f"Model.like={tmp_path / 'm'}"]))


def test_finished_run_does_not_need_its_source(config, tmp_path):
    shutil.copytree(OFFICIAL, tmp_path / "source")
    overrides = [f"Model.like={tmp_path / 'source'}", f"Model.weights={tmp_path / 'source'}"]
    tiny_config = config(*overrides, "Training.steps=3")
    # The towers of the tiny run would override those of the source.
    trainer = Trainer(tiny_config.model_copy(update={"Model": load_config(None, overrides).Model}))
    assert trainer.fit()
    saved = load_config(trainer.run / "config.yaml")
    assert saved.Model.like is None and saved.Model.image.width == 32
    shutil.rmtree(tmp_path / "source")
    model = ernie_vil2.load_model(trainer.run)
    assert model.tokenizer.tokens[5] == "红" and model.encode_texts(TEXTS).shape == (3, 32)
