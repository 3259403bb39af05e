"""Text towers whose position embedding is stretched: by the published formulas, from every layout, and back into it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import paddle
import pytest

import ernie_vil2
from ernie_vil2.config import ConfigError, load_config
from ernie_vil2.models.weights.files import read_weights, write_weights
from ernie_vil2.models.weights.format import find_weights, read_model, write_model
from ernie_vil2.models.weights.initial import resolve_model_like, stretch_positions
from ernie_vil2.models.weights.write_back import find_layout
from ernie_vil2.training.checkpoint import list_checkpoints
from ernie_vil2.training.trainer import Trainer
from tests.support.commands import succeed
from tests.support.other_families import FOLDERS, check_with_authors, read_expected
from tests.support.trainings import begin_with, build_seeded_task, crash_after, read_last_weights, resolve_like_folder

POSITIONS = "text.network.embeddings.position_embeddings.weight"


def by_four(table):
    """Long-CLIP's and FG-CLIP 2's initial positions: four of one after the first 20; the last ones go straight on."""
    rows = list(table[:20])
    following = [*table[21:], 2 * table[-1] - table[-2]]
    for this, after in zip(table[20:], following, strict=True):
        rows += [this, (3 * this + after) / 4, (this + after) / 2, (this + 3 * after) / 4]
    return np.stack(rows)


def test_positions_by_hand():
    """Squares, so that no two slopes are equal."""
    found = stretch_positions(np.arange(77.0)[:, None] ** 2, 248)[:, 0]
    assert found[:20].tolist() == [row**2 for row in range(20)]
    assert found[20:25].tolist() == [400, 410.25, 420.5, 430.75, 441]
    assert found[244:].tolist() == [5776, 5813.75, 5851.5, 5889.25]  # 76^2 and quarters of 76^2 - 75^2 = 151
    # RoBERTa's texts begin at row 2: of four positions two stay.
    rows = stretch_positions(np.array([[-5.0], [-7], [0], [1], [4], [9]]), 8, first_position=2)[:, 0]
    assert rows.tolist() == [-5, -7, 0, 1, 4, 6.5, 9, 11.5]


@pytest.mark.parametrize(("rows", "longer"), [(4, 5), (64, 65), (77, 1000)])
def test_other_lengths_lie_on_the_same_lines(rows, longer):
    table = np.random.default_rng(longer).normal(size=(rows, 8))
    kept = min(20, rows // 2)
    at = [*range(kept), *(kept + number * (rows - kept) / (longer - kept) for number in range(longer - kept))]
    behind = np.concatenate([table, [2 * table[-1] - table[-2]]])
    lines = np.stack([np.interp(at, range(rows + 1), column) for column in behind.T], axis=1)
    np.testing.assert_allclose(stretch_positions(table, longer), lines, atol=1e-12)


def stretched(name, length, *changes):
    """A folder's model with the positions that a training with texts of so many tokens would begin with."""
    config = resolve_like_folder(name, f"Data.max_length={length}", "Loss.weights.text_text=0", *changes)
    model = build_seeded_task(config).model.eval()
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    return replace(read_model(FOLDERS[name]), arrays=arrays, config=config), model


QUICK = ("hf_chinese_clip_bin", "hf_clip", "hf_siglip")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FOLDERS]
)
def test_every_layout_takes_longer_positions_and_gives_them_back(name, tmp_path):
    """The authors' own class reads the folder, where it is there, and encodes long texts as the model here does."""
    before = read_model(FOLDERS[name])
    first, tokens = before.config.Model.text.first_position, before.config.Model.text.longest
    longer = 4 * tokens - 60 if tokens > 40 else 2 * tokens
    model, built = stretched(name, longer)
    assert model.config.Model.text.longest == model.config.Data.max_length == longer
    if not first and tokens > 40:
        table = before.arrays[POSITIONS].astype("float32")  # Chinese-CLIP's files are float16
        np.testing.assert_allclose(model.arrays[POSITIONS], by_four(table), atol=1e-6)
    write_model(model, tmp_path / "back", find_layout(FOLDERS[name]), origin=FOLDERS[name])
    dialect = {"text": "long"} if name == "fgclip2" else None  # its authors' own 196 positions
    found = read_model(tmp_path / "back", dialect=dialect)
    assert found.config.Model.text == model.config.Model.text.model_copy(
        update={"vocabulary": None, "dropout": found.config.Model.text.dropout})  # fmt: skip
    for key, array in model.arrays.items():
        np.testing.assert_array_equal(found.arrays[key], array, err_msg=key)
    if name == "fgclip2":  # whose class is remote code
        return
    arrays = {key: value for key, value in read_expected(name).items() if key.startswith(("pixel", "spatial"))}
    texts = [" ".join(["a red disc 红色的圆"] * count) for count in (1, 20, 80)]
    ids = model.build_tokenizer(longer)(texts)
    padding = model.config.Model.text.variant.padding
    assert (ids[2, :-1] != padding).all()  # the end token is padding as well in SigLIP
    with paddle.no_grad():
        arrays["text_embeddings"] = built.encode_text(paddle.to_tensor(ids)).numpy()
    if "attention_mask" in read_expected(name):
        arrays["attention_mask"] = (ids != padding).astype("int64")
    arrays |= {"input_ids": ids, "image_embeddings": read_expected(name)["image_embeddings"]}
    (tmp_path / "fixture").mkdir()
    np.savez(tmp_path / "fixture/expected.npz", **arrays)
    shutil.copy(FOLDERS[name] / "expected.json", tmp_path / "fixture")
    check_with_authors(tmp_path / "back", tmp_path / "fixture")


def test_settings_without_a_length_say_it_afterwards(tmp_path):
    """OpenAI's config.json names no length, and older files count the positions."""
    for path in FOLDERS["hf_clip"].iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    sizes = json.loads((tmp_path / "config.json").read_text())
    assert sizes["text_config"].pop("max_position_embeddings") == 77
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    arrays = read_weights(find_weights(FOLDERS["hf_clip"]))
    counted = {"text_model.embeddings.position_ids": np.arange(77)[None]}
    write_weights(tmp_path / "model.safetensors", {**arrays, **counted})
    model, _ = stretched("hf_clip", 248)
    write_model(model, tmp_path / "back", "hf", origin=tmp_path)
    sizes = json.loads((tmp_path / "back/config.json").read_text())
    assert sizes["text_config"]["max_position_embeddings"] == 248
    assert json.loads((tmp_path / "back/tokenizer_config.json").read_text())["model_max_length"] == 248
    assert read_weights(find_weights(tmp_path / "back")).keys() == arrays.keys()


def test_what_a_folder_cuts_at_is_noted(tmp_path):
    """Chinese-CLIP reads 52 tokens, however many positions there are."""
    model, _ = stretched("hf_chinese_clip_bin", 100)
    notes = write_model(model, tmp_path / "back", "hf", origin=FOLDERS["hf_chinese_clip_bin"])
    assert "52 tokens" in notes[-1] and "100" in notes[-1]
    assert ernie_vil2.load_model(tmp_path / "back", max_length=100).tokenizer.max_length == 100


def test_a_stretched_run_resumes_and_is_a_model_like_others(overrides, tmp_path, capsys):
    def config(*changes):
        return load_config(None, begin_with(overrides, "hf_clip", "Data.max_length=100", "Data.workers=0", *changes))

    whole = Trainer(config(f"Training.output={tmp_path / 'whole'}"))
    assert "stretched from 77 to 100 positions" in capsys.readouterr().out
    assert whole.fit()
    crash_after(Trainer(config("Training.checkpoint_every=5")), 5)
    second = Trainer(config("Training.checkpoint_every=5"), resume=True)
    assert second.step == 5 and second.fit()
    for key, value in read_last_weights(whole).items():
        assert np.array_equal(value, read_last_weights(second)[key]), key
    run = list_checkpoints(whole.run)[-1]
    saved = read_model(run).config
    assert (saved.Model.text.max_positions, saved.Data.max_length) == (100, 100)
    assert len(read_last_weights(whole)[POSITIONS]) == 100
    succeed("convert", whole.run, tmp_path / "back")
    long = ["a red disc 红色的圆 " * 30]
    one, other = (ernie_vil2.load_model(each, max_length=100) for each in (run, tmp_path / "back"))
    np.testing.assert_array_equal(one.tokenizer(long), other.tokenizer(long))
    np.testing.assert_allclose(one.encode_texts(long), other.encode_texts(long), atol=1e-6)
    succeed("export", run, tmp_path / "onnx", "--to", "onnx")
    exported = ernie_vil2.load_model(tmp_path / "onnx")
    np.testing.assert_allclose(exported.encode_texts(long), one.encode_texts(long), atol=1e-5)
    with pytest.raises(ValueError, match="max_length is 101.*Model.text.max_positions"):
        ernie_vil2.load_model(run, max_length=101)


def test_texts_beyond_the_positions_name_the_option():
    few = ["Model.text.max_positions=16", "Data.max_length=20"]
    with pytest.raises(ConfigError, match="Data.max_length .20. .*Model.text.max_positions=20"):
        load_config(None, few)
    if "hf_altclip" in FOLDERS:  # its first position is row 2
        source = read_model(FOLDERS["hf_altclip"]).config.Model.text
        like = ["Model.like=weights", f"Model.weights={FOLDERS['hf_altclip']}", f"Data.max_length={source.longest + 1}"]
        assert resolve_model_like(load_config(None, like)).Model.text.max_positions == source.max_positions + 1
        kept = f"Model.text.max_positions={source.max_positions}"
        with pytest.raises(ConfigError, match=f"set Model.text.max_positions={source.max_positions + 1}"):
            resolve_model_like(load_config(None, [*like, kept]))
