"""Text towers with stretched position embeddings: by the published formulas, from every layout and back into it."""

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


def stretch_by_four(table):
    """Return the initial positions of Long-CLIP and FG-CLIP 2.

    The first 20 rows stay, and each later one becomes four on the line to the next row. The line of the last two rows
    goes on beyond the end.
    """
    rows = list(table[:20])
    next_rows = [*table[21:], 2 * table[-1] - table[-2]]
    for row, next_row in zip(table[20:], next_rows, strict=True):
        rows += [row, (3 * row + next_row) / 4, (row + next_row) / 2, (row + 3 * next_row) / 4]
    return np.stack(rows)


def test_positions_are_stretched_as_by_hand():
    # Squares, so that no two slopes are equal.
    positions = stretch_positions(np.arange(77.0)[:, None] ** 2, 248)[:, 0]
    assert positions[:20].tolist() == [row**2 for row in range(20)]
    assert positions[20:25].tolist() == [400, 410.25, 420.5, 430.75, 441]
    assert positions[244:].tolist() == [5776, 5813.75, 5851.5, 5889.25]  # 76^2 and quarters of 76^2 - 75^2 = 151
    # RoBERTa's texts begin at row 2: of its four positions two stay.
    positions = stretch_positions(np.array([[-5.0], [-7], [0], [1], [4], [9]]), 8, first_position=2)[:, 0]
    assert positions.tolist() == [-5, -7, 0, 1, 4, 6.5, 9, 11.5]


@pytest.mark.parametrize(("rows", "longer"), [(4, 5), (64, 65), (77, 1000)])
def test_any_length_is_interpolated_linearly(rows, longer):
    table = np.random.default_rng(longer).normal(size=(rows, 8))
    num_fixed = min(20, rows // 2)
    step = (rows - num_fixed) / (longer - num_fixed)
    places = [*range(num_fixed), *(num_fixed + number * step for number in range(longer - num_fixed))]
    extended_table = np.concatenate([table, [2 * table[-1] - table[-2]]])
    expected = np.stack([np.interp(places, range(rows + 1), column) for column in extended_table.T], axis=1)
    np.testing.assert_allclose(stretch_positions(table, longer), expected, atol=1e-12)


def stretch_model(name, length, *changes):
    """Return a folder's model with the positions with which a training on texts of so many tokens would begin."""
    config = resolve_like_folder(name, f"Data.max_length={length}", "Loss.weights.text_text=0", *changes)
    model = build_seeded_task(config).model.eval()
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    return replace(read_model(FOLDERS[name]), arrays=arrays, config=config), model


QUICK = ("hf_chinese_clip_bin", "hf_clip", "hf_siglip")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FOLDERS]
)
def test_stretched_positions_go_back_into_every_layout(name, tmp_path):
    original = read_model(FOLDERS[name])
    first, tokens = original.config.Model.text.first_position, original.config.Model.text.max_tokens
    longer = 4 * tokens - 60 if tokens > 40 else 2 * tokens  # 20 positions stay, the others become four each
    stored, model = stretch_model(name, longer)
    assert stored.config.Model.text.max_tokens == stored.config.Data.max_length == longer
    if not first and tokens > 40:
        table = original.arrays[POSITIONS].astype("float32")  # Chinese-CLIP's files are float16
        np.testing.assert_allclose(stored.arrays[POSITIONS], stretch_by_four(table), atol=1e-6)
    obstacle = original.family.format.explain_obstacle(original.config.Model, stored.config.Model, False)
    if obstacle:
        with pytest.raises(ValueError, match=obstacle):
            write_model(stored, tmp_path / "back", find_layout(FOLDERS[name]), origin=FOLDERS[name])
        return
    write_model(stored, tmp_path / "back", find_layout(FOLDERS[name]), origin=FOLDERS[name])
    dialect = {"text": "long"} if name == "fgclip2" else None  # its authors' 196 positions
    reread = read_model(tmp_path / "back", dialect=dialect)
    changes = {"vocabulary": None, "dropout": reread.config.Model.text.dropout}
    assert reread.config.Model.text == stored.config.Model.text.model_copy(update=changes)
    for key, array in stored.arrays.items():
        np.testing.assert_array_equal(reread.arrays[key], array, err_msg=key)
    if name == "fgclip2":  # its class is remote code
        return

    # The authors' class, where it is installed, encodes long texts as the model here does.
    arrays = {key: value for key, value in read_expected(name).items() if key.startswith(("pixel", "spatial"))}
    texts = [" ".join(["a red disc 红色的圆"] * count) for count in (1, 20, 80)]
    ids = stored.build_tokenizer(longer)(texts)
    padding = stored.config.Model.text.variant.padding
    assert (ids[2, :-1] != padding).all()  # the longest text fills all positions; SigLIP's end token is its padding
    with paddle.no_grad():
        arrays["text_embeddings"] = model.encode_text(paddle.to_tensor(ids)).numpy()
    if "attention_mask" in read_expected(name):
        arrays["attention_mask"] = (ids != padding).astype("int64")
    arrays |= {"input_ids": ids, "image_embeddings": read_expected(name)["image_embeddings"]}
    (tmp_path / "fixture").mkdir()
    np.savez(tmp_path / "fixture/expected.npz", **arrays)
    shutil.copy(FOLDERS[name] / "expected.json", tmp_path / "fixture")
    check_with_authors(tmp_path / "back", tmp_path / "fixture")


def test_settings_without_a_length_get_the_stretched_one(tmp_path):
    # OpenAI's config.json names no length, and older files hold the numbers of the positions.
    for path in FOLDERS["hf_clip"].iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    sizes = json.loads((tmp_path / "config.json").read_text())
    assert sizes["text_config"].pop("max_position_embeddings") == 77
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    arrays = read_weights(find_weights(FOLDERS["hf_clip"]))
    position_ids = {"text_model.embeddings.position_ids": np.arange(77)[None]}
    write_weights(tmp_path / "model.safetensors", {**arrays, **position_ids})
    stored, _ = stretch_model("hf_clip", 248)
    write_model(stored, tmp_path / "back", "hf", origin=tmp_path)
    sizes = json.loads((tmp_path / "back/config.json").read_text())
    assert sizes["text_config"]["max_position_embeddings"] == 248
    assert json.loads((tmp_path / "back/tokenizer_config.json").read_text())["model_max_length"] == 248
    assert read_weights(find_weights(tmp_path / "back")).keys() == arrays.keys()


def test_length_that_a_layout_cannot_state_is_noted(tmp_path):
    # Chinese-CLIP reads 52 tokens, however many positions there are.
    stored, _ = stretch_model("hf_chinese_clip_bin", 100)
    notes = write_model(stored, tmp_path / "back", "hf", origin=FOLDERS["hf_chinese_clip_bin"])
    assert "52 tokens" in notes[-1] and "100" in notes[-1]
    assert ernie_vil2.load_model(tmp_path / "back", max_length=100).tokenizer.max_length == 100


def test_stretched_run_resumes_converts_and_exports(overrides, tmp_path, capsys):
    def make_config(*changes):
        return load_config(None, begin_with(overrides, "hf_clip", "Data.max_length=100", "Data.workers=0", *changes))

    uninterrupted = Trainer(make_config(f"Training.output={tmp_path / 'whole'}"))
    assert "stretched from 77 to 100 positions" in capsys.readouterr().out
    assert uninterrupted.fit()
    crash_after(Trainer(make_config("Training.checkpoint_every=5")), 5)
    resumed = Trainer(make_config("Training.checkpoint_every=5"), resume=True)
    assert resumed.step == 5 and resumed.fit()
    for key, value in read_last_weights(uninterrupted).items():
        assert np.array_equal(value, read_last_weights(resumed)[key]), key

    checkpoint = list_checkpoints(uninterrupted.run)[-1]
    config = read_model(checkpoint).config
    assert (config.Model.text.max_positions, config.Data.max_length) == (100, 100)
    assert len(read_last_weights(uninterrupted)[POSITIONS]) == 100

    succeed("convert", uninterrupted.run, tmp_path / "back")
    texts = ["a red disc 红色的圆 " * 30]
    model = ernie_vil2.load_model(checkpoint, max_length=100)
    converted = ernie_vil2.load_model(tmp_path / "back", max_length=100)
    np.testing.assert_array_equal(model.tokenizer(texts), converted.tokenizer(texts))
    np.testing.assert_allclose(model.encode_texts(texts), converted.encode_texts(texts), atol=1e-6)
    succeed("export", checkpoint, tmp_path / "onnx", "--to", "onnx")
    exported = ernie_vil2.load_model(tmp_path / "onnx")
    np.testing.assert_allclose(exported.encode_texts(texts), model.encode_texts(texts), atol=1e-5)
    with pytest.raises(ValueError, match="max_length is 101.*Model.text.max_positions"):
        ernie_vil2.load_model(checkpoint, max_length=101)


def test_texts_beyond_the_positions_name_the_option():
    with pytest.raises(ConfigError, match="Data.max_length .20. .*Model.text.max_positions=20"):
        load_config(None, ["Model.text.max_positions=16", "Data.max_length=20"])
    if "hf_altclip" in FOLDERS:  # its first position is row 2
        source = read_model(FOLDERS["hf_altclip"]).config.Model.text
        like = [
            "Model.like=weights",
            f"Model.weights={FOLDERS['hf_altclip']}",
            f"Data.max_length={source.max_tokens + 1}",
        ]
        assert resolve_model_like(load_config(None, like)).Model.text.max_positions == source.max_positions + 1
        with pytest.raises(ConfigError, match=f"set Model.text.max_positions={source.max_positions + 1}"):
            resolve_model_like(load_config(None, [*like, f"Model.text.max_positions={source.max_positions}"]))
