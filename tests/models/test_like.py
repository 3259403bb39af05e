"""`Model.like`: a training's model as another one is, in any of the formats."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.config import ConfigError, dump_config, load_config
from ernie_vil2.encoder import PaddleBackend
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.models.weights.files import read_weights
from ernie_vil2.models.weights.format import find_weights, read_model, write_model
from ernie_vil2.models.weights.initial import _read_like, load_initial_weights, resolve_model_like
from ernie_vil2.training.trainer import Trainer
from tests.support.commands import succeed
from tests.support.other_families import FOLDERS, measure_text_difference, read_expected

RELEASED = Path(__file__).parents[1] / "fixtures" / "released"
OFFICIAL, PADDLENLP = RELEASED / "official_tiny", RELEASED / "paddlenlp_tiny"
TEXTS = ["红色的圆", "two discs", "bars, discs"]
POSITIONS = "text_model.embeddings.position_embedding"
"""What FG-CLIP 2 calls them; those of long texts end in _ori and _res."""


@pytest.fixture(autouse=True)
def forgotten():
    _read_like.cache_clear()


@pytest.mark.parametrize("folder", [OFFICIAL, PADDLENLP], ids=lambda folder: folder.name)
def test_towers_tokeniser_and_preprocessing_are_taken(folder, tmp_path):
    read = load_config(None, [f"Model.like={folder}", f"Model.weights={folder}", "Model.text.dropout=0.0"])
    found = resolve_model_like(read)
    source = read_model(folder).config
    expected = source.Model.model_dump()
    expected["text"] |= {"vocabulary": str(folder / "vocab.txt"), "dropout": 0.0}
    assert found.Model.model_dump() == expected | {"weights": str(folder), "like": None}
    assert found.Data.max_length == source.Data.max_length
    assert found.model_dump(exclude={"Model", "Data"}) == read.model_dump(exclude={"Model", "Data"})
    (tmp_path / "config.yaml").write_text(dump_config(found))
    assert load_config(tmp_path / "config.yaml") == found == resolve_model_like(found)

    original = ernie_vil2.load_model(folder)
    model = build_dual_encoder(found.Model, len(original.tokenizer.tokens))
    load_initial_weights(model, found.Model)
    again = ernie_vil2.ErnieViL2(PaddleBackend(model, original.preprocessing), original.tokenizer, found)
    np.testing.assert_allclose(again.encode_texts(TEXTS), original.encode_texts(TEXTS), atol=1e-6)
    assert again.preprocessing == original.preprocessing


def test_a_way_of_reading_another_family_is_chosen_and_kept(tmp_path):
    """OpenCLIP's tokenizer on CLIP, also in a run after that run."""
    chosen = ["Model.like=weights", f"Model.weights={FOLDERS['hf_clip']}", "Model.dialect={tokenizer: open_clip}"]
    found = resolve_model_like(load_config(None, chosen))
    assert (found.Model.text.tokenizer, found.Model.dialect) == ("open_clip", {"tokenizer": "open_clip"})
    stored = read_model(FOLDERS["hf_clip"], dialect=found.Model.dialect)
    write_model(stored, tmp_path / "run", "ernie_vil2")
    again = resolve_model_like(load_config(None, [chosen[0], f"Model.weights={tmp_path / 'run'}"])).Model
    assert (again.text.tokenizer, again.dialect) == ("open_clip", found.Model.dialect)
    (report,) = load_initial_weights(build_dual_encoder(again, stored.vocab_size), again)
    assert len(report.matched) == len(stored.arrays)
    for source, message in ((FOLDERS["hf_clip"], "CLIP has no dialect text=long"), (OFFICIAL, "has no dialects")):
        with pytest.raises(ConfigError, match=message):
            resolve_model_like(load_config(None, [f"Model.like={source}", "Model.dialect={text: long}"]))


@pytest.mark.skipif("fgclip2" not in FOLDERS, reason="its folder is not carried")
@pytest.mark.parametrize("way", ["box", "long"])
def test_fgclip_2_reads_texts_in_the_chosen_way(way, tmp_path):
    folder = FOLDERS["fgclip2"]
    chosen = ["Model.like=weights", f"Model.weights={folder}", f"Model.dialect={{text: {way}}}"]
    read = resolve_model_like(load_config(None, chosen))
    stored = read_model(folder, dialect={"text": way})
    model = build_dual_encoder(read.Model, stored.vocab_size, bias=0.0)
    load_initial_weights(model, read.Model)
    model.eval()
    assert measure_text_difference(model, "fgclip2", f"/{way}") < 5e-6
    assert read.Data.max_length == read_expected("fgclip2")[f"input_ids{'/long' if way == 'long' else ''}"].shape[1]

    arrays = {name: value.numpy() + np.float32(0.25) for name, value in model.state_dict().items()}
    write_model(replace(stored, arrays=arrays, config=read, family=None), tmp_path / "run", "ernie_vil2")
    succeed("convert", tmp_path / "run", tmp_path / "back")
    before, after = read_weights(find_weights(folder)), read_weights(find_weights(tmp_path / "back"))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    prefixes = {"box": ("boxtext_head", f"{POSITIONS}."), "long": ("longtext_head", f"{POSITIONS}_")}[way]
    of_any_way = ("text_model.head", "boxtext_head", "longtext_head", "dense_feature_head", POSITIONS)
    assert all(name.startswith(prefixes) for name in changed if name.startswith(of_any_way))
    for prefix in prefixes:
        assert any(name.startswith(prefix) for name in changed)


def test_what_the_configuration_sets_itself_stays():
    found = resolve_model_like(load_config(None, [
        f"Model.like={PADDLENLP}", "Model.image.mean=[0.5, 0.5, 0.5]", "Model.embed_dim=16", "Data.max_length=20",
        "Views.resize=40",
    ]))  # fmt: skip
    image = found.Model.image
    assert (image.mean, image.heads, image.preprocessing) == ([0.5] * 3, 4, "paddlenlp")
    assert (found.Model.embed_dim, found.Data.max_length, found.Views.resize) == (16, 20, 40)
    other = resolve_model_like(load_config(None, [f"Model.like={OFFICIAL}", "Model.image.name=PPLCNet_x0_25"])).Model
    assert (other.image.name, other.image.image_size, other.image.sizes) == ("PPLCNet_x0_25", 32, {})
    few = [f"Model.like={OFFICIAL}", "Data.max_length=100", "Model.text.max_positions=64"]
    with pytest.raises(ConfigError, match="Data.max_length .100. .* Model.text.max_positions .64"):
        resolve_model_like(load_config(None, few))


def test_what_cannot_be_taken_is_explained(tmp_path):
    with pytest.raises(ConfigError, match="Model.like=weights"):
        resolve_model_like(load_config(None, ["Model.like=weights"]))
    for source in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match=f"Model.like: .*{source}: no "):
            resolve_model_like(load_config(None, [f"Model.like={source}"]))
    shutil.copy(OFFICIAL / "model.pdparams", tmp_path)
    shutil.copy(OFFICIAL / "ernie_config.json", tmp_path)
    with pytest.raises(ConfigError, match="Model.like: .*: no vocab.txt"):
        resolve_model_like(load_config(None, [f"Model.like={tmp_path}"]))


def test_a_module_that_a_model_names_is_not_imported_for_it(tmp_path):
    write_model(read_model(OFFICIAL), tmp_path / "m", "ernie_vil2")
    (tmp_path / "m" / "integrity.json").unlink()
    text = (tmp_path / "m/config.yaml").read_text()
    (tmp_path / "m/config.yaml").write_text(text.replace("name: ViT", "name: antigravity:Tower"))
    with pytest.raises(ConfigError, match="antigravity:Tower"):
        resolve_model_like(load_config(None, [f"Model.like={tmp_path / 'm'}"]))


def test_a_run_needs_its_source_no_more(config, tmp_path):
    shutil.copytree(OFFICIAL, tmp_path / "source")
    changes = [f"Model.like={tmp_path / 'source'}", f"Model.weights={tmp_path / 'source'}"]
    read = config(*changes)
    plain = read.model_copy(update={"Model": load_config(None, changes).Model})  # without the towers of the tiny run
    trainer = Trainer(plain.model_copy(update={"Training": read.Training.model_copy(update={"steps": 3})}))
    assert trainer.fit()
    saved = load_config(trainer.run / "config.yaml")
    assert saved.Model.like is None and saved.Model.image.width == 32
    shutil.rmtree(tmp_path / "source")
    model = ernie_vil2.load_model(trainer.run)
    assert model.tokenizer.tokens[5] == "红" and model.encode_texts(TEXTS).shape == (3, 32)
