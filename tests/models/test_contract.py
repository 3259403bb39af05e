"""The contract card: a folder that was changed is refused, and golden embeddings are those that were computed."""

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file, save_file

from ernie_vil2 import load_model
from ernie_vil2.cli import run
from ernie_vil2.models.weights.contract import Broken, NoGolden, check_golden
from ernie_vil2.models.weights.stored import read_model
from tests.support.other_families import OWN

SOURCE = Path(__file__).parents[1] / "fixtures" / "released" / "official_tiny" / "model.pdparams"


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contract") / "model"
    assert run("convert", [str(SOURCE), str(folder), "--to", "ernie_vil2"]) == 0
    return folder


@pytest.fixture
def folder(converted, tmp_path):
    shutil.copytree(converted, tmp_path / "model")
    (tmp_path / "model" / "checksums.json").unlink()  # what the card alone notices
    return tmp_path / "model"


def card(folder, change):
    path = folder / "contract.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_a_converted_folder_computes_what_its_card_says(folder, capsys):
    model = load_model(folder, verify=True)
    assert check_golden(folder, model) < 1e-6
    np.testing.assert_allclose(
        model.encode_texts(json.loads((folder / "contract.json").read_text())["golden"]["texts"]),
        load_model(SOURCE).encode_texts(json.loads((folder / "contract.json").read_text())["golden"]["texts"]),
        atol=1e-6,
    )
    assert run("doctor", [str(folder)]) == 0
    assert "ok   golden" in capsys.readouterr().out


def test_a_changed_convention_is_named(folder):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["Model"]["text"]["epsilon"] = 1e-6
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(Broken, match="written with Model.text.epsilon .*, the other files say 1e-06"):
        load_model(folder)


def test_another_file_is_named(folder):
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    (folder / "vocab.txt").write_text("\n".join([*lines[:5], lines[6], lines[5], *lines[7:]]), encoding="utf-8")
    with pytest.raises(Broken, match="vocab.txt is not the file that contract.json was written for"):
        load_model(folder)
    (folder / "vocab.txt").unlink()
    with pytest.raises(Broken, match="vocab.txt is missing"):
        load_model(folder)


def test_weights_of_another_model_are_noticed(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(Broken, match="model.safetensors is not the file"):
        read_model(folder)


def test_other_golden_embeddings_and_ids_are_refused(folder):
    def moved(values):
        values["golden"]["text_embeddings"][1][3] += 1e-4

    def other(values):
        values["golden"]["ids"][0][2] += 1

    card(folder, moved)
    load_model(folder)  # it does not compute them
    with pytest.raises(Broken, match=r"golden text embeddings are up to 1.0e-04 from those in contract.json"):
        load_model(folder, verify=True)
    card(folder, other)
    with pytest.raises(Broken, match="has other token ids"):
        load_model(folder, verify=True)


def test_a_card_that_is_none(folder, capsys):
    card(folder, lambda values: values.update(golden=None))
    with pytest.raises(NoGolden, match="no golden embeddings .*; ernie-vil2 convert writes them"):
        load_model(folder, verify=True)
    card(folder, lambda values: values.update(version=2))
    with pytest.raises(Broken, match="version 2; 1 is read here"):
        load_model(folder)
    (folder / "contract.json").write_text("[]")
    with pytest.raises(Broken, match="not a contract card"):
        load_model(folder)
    assert run("doctor", [str(folder)]) == 1 and "FAIL model" in capsys.readouterr().out


def emptied(golden):
    golden.update(texts=[], ids=[], text_embeddings=[])


def bombed(golden):
    """16 million pixels in 16 KB; of the 400 million that Pillow refuses by itself, the message is the same."""
    content = io.BytesIO()
    Image.new("L", (4096, 4096)).save(content, "PNG")
    golden["images"] = [base64.b64encode(content.getvalue()).decode()]


@pytest.mark.parametrize(
    "damage",
    [
        lambda golden: golden.clear(),
        emptied,
        bombed,
        lambda golden: golden["ids"].pop(),
        lambda golden: golden.update(texts=golden["texts"] * 1000, ids=golden["ids"] * 1000),
        lambda golden: golden["image_embeddings"].append(golden["image_embeddings"][0]),
        lambda golden: golden.update(text_embeddings=1.0),
    ],
)
def test_damaged_golden_inputs_are_one_error(folder, damage):
    card(folder, lambda values: damage(values["golden"]))
    load_model(folder)
    with pytest.raises(Broken, match="contract.json: its golden inputs are damaged"):
        load_model(folder, verify=True)


def test_weights_that_the_card_does_not_name(folder):
    """As where a file that is preferred to the one that was written is put next to it, or the list is emptied."""
    card(folder, lambda values: values["files"].pop("model.safetensors"))
    with pytest.raises(Broken, match="contract.json: not written for model.safetensors"):
        load_model(folder)


def test_the_card_of_another_familys_folder(tmp_path):
    folder = tmp_path / "clip"
    assert run("convert", [str(OWN / "hf_clip"), str(folder)]) == 0
    load_model(folder, verify=True)
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"]["hidden_act"] = "gelu"
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(Broken, match="with Model.text.variant.activation 'quick_gelu', the other files say"):
        load_model(folder)


def test_a_format_in_which_it_computes_otherwise_has_embeddings_of_its_own(tmp_path, capsys):
    for source, layout in ((SOURCE, "paddlenlp"), (OWN / "cn_clip_pt", "hf")):
        folder = tmp_path / layout
        assert run("convert", [str(source), str(folder), "--to", layout]) == 0
        assert "note: " in capsys.readouterr().out
        assert check_golden(folder, load_model(folder)) < 1e-6
    with pytest.raises(Broken):
        check_golden(tmp_path / "paddlenlp", load_model(SOURCE))
    with pytest.raises(Broken, match="config.json is not the file|written with Model.text.variant.activation"):  # noqa: PT012  -- what comes before the error belongs to it
        settings = json.loads((folder / "config.json").read_text())
        settings["text_config"]["hidden_act"] = "quick_gelu"
        (folder / "config.json").write_text(json.dumps(settings))
        load_model(folder)


def test_a_release_does_not_hold_another_dual_encoder(tmp_path, capsys):
    for layout in ("official", "paddlenlp"):
        assert run("convert", [str(OWN / "hf_clip"), str(tmp_path / "new"), "--to", layout]) == 2
        assert f"the {layout} format holds the towers of ERNIE-ViL 2.0, not those of" in capsys.readouterr().err


def test_a_mixture_has_embeddings_of_its_own(folder, tmp_path):
    assert run("interpolate", [str(folder), str(folder), "--alpha", "0.5", "--write", str(tmp_path / "mixed")]) == 0
    load_model(tmp_path / "mixed", verify=True)


def test_what_a_call_changes_on_purpose_is_not_compared(folder):
    assert load_model(folder, verify=True, max_length=3).tokenizer.max_length == 3


def test_an_export_or_another_dialect_is_not_verified_in_silence(folder, tmp_path):
    assert run("export", [str(folder), str(tmp_path / "graphs"), "--to", "paddle-inference"]) == 0
    with pytest.raises(ValueError, match="golden embeddings are of weights in their own dialect, not of exports"):
        load_model(tmp_path / "graphs", verify=True)
    with pytest.raises(ValueError, match="golden embeddings are of weights in their own dialect"):
        load_model(OWN / "hf_clip", dialect={"tokenizer": "open_clip"}, verify=True)


def test_what_people_read_may_be_edited(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(OWN / "hf_clip", source)
    for name in ("README.md", "LICENSE", "modeling.py"):
        (source / name).write_text("before")
    assert run("convert", [str(source), str(tmp_path / "back")]) == 0
    for name in ("README.md", "LICENSE", "modeling.py"):
        (tmp_path / "back" / name).write_text("after")
    (tmp_path / "back" / "LICENSE").unlink()
    load_model(tmp_path / "back", verify=True)


def test_weights_that_are_not_finite_are_one_error_in_every_layout(folder):
    arrays = load_file(folder / "model.safetensors")
    arrays["image.blocks.0.norm1.bias"][1] = np.nan
    save_file(arrays, folder / "model.safetensors")
    (folder / "contract.json").unlink()
    with pytest.raises(ValueError, match="image.blocks.0.norm1.bias holds numbers that are not finite"):
        load_model(folder)
    assert run("convert", [str(folder), str(folder.parent / "new"), "--to", "official"]) == 2
    assert not (folder.parent / "new").exists()


def test_a_folder_without_its_tokenizer(tmp_path):
    assert run("convert", [str(OWN / "hf_clip"), str(tmp_path / "own"), "--to", "ernie_vil2"]) == 0
    for name in ("contract.json", "checksums.json", "tokenizer.json"):
        (tmp_path / "own" / name).unlink()
    with pytest.raises(ValueError, match="own: no vocab.txt or tokenizer.json next to it; give the vocabulary file"):
        load_model(tmp_path / "own")
