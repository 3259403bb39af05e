"""The integrity file: a changed folder is refused, and golden embeddings are compared with computed ones."""

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ernie_vil2 import load_model
from ernie_vil2.cli import run
from ernie_vil2.io.files import read_integrity, write_integrity
from ernie_vil2.models.weights.integrity import IntegrityError, MissingGoldenError, check_golden
from tests.support.other_families import FAMILY_FIXTURES

SOURCE = Path(__file__).parents[1] / "fixtures" / "released" / "official_tiny" / "model.pdparams"


@pytest.fixture(scope="module")
def converted_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("integrity") / "model"
    assert run("convert", [str(SOURCE), str(folder), "--to", "ernie_vil2"]) == 0
    return folder


@pytest.fixture
def folder(converted_folder, tmp_path):
    shutil.copytree(converted_folder, tmp_path / "model")
    return tmp_path / "model"


def change_integrity(folder, change):
    path = folder / "integrity.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_converted_folder_computes_its_golden_embeddings(folder, capsys):
    model = load_model(folder, verify=True)
    assert check_golden(folder, model) < 1e-6
    texts = json.loads((folder / "integrity.json").read_text())["golden"]["texts"]
    np.testing.assert_allclose(model.encode_texts(texts), load_model(SOURCE).encode_texts(texts), atol=1e-6)
    assert run("doctor", [str(folder)]) == 0
    assert "ok   golden" in capsys.readouterr().out
    assert load_model(folder, verify=True, max_length=3).tokenizer.max_length == 3  # an option is no damage


def change_epsilon(folder):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["Model"]["text"]["epsilon"] = 1e-6
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    # New sums, so that only the conventions differ, as when a later version changes a default.
    integrity = read_integrity(folder)
    write_integrity(folder, integrity.files, integrity.conventions, integrity.golden)


def swap_words(folder):
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    lines[5], lines[6] = lines[6], lines[5]
    (folder / "vocab.txt").write_text("\n".join(lines), encoding="utf-8")


def flip_bit(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(content))


def remove_weights_from_list(folder):
    # The same happens when somebody adds a file of weights that goes before the listed one.
    change_integrity(folder, lambda values: values["files"].pop("model.safetensors"))


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (change_epsilon, "Model.text.epsilon .*1e-06"),
        (swap_words, "vocab.txt differs"),
        (lambda folder: (folder / "vocab.txt").unlink(), "vocab.txt is missing"),
        (flip_bit, "model.safetensors differs"),
        (remove_weights_from_list, "does not list model.safetensors"),
    ],
)
def test_changed_file_or_setting_is_named(folder, change, culprit):
    change(folder)
    with pytest.raises(IntegrityError, match=culprit):
        load_model(folder)


def test_changed_golden_embeddings_and_ids_are_refused(folder):
    def move_embedding(values):
        values["golden"]["text_embeddings"][1][3] += 1e-4

    def change_id(values):
        values["golden"]["ids"][0][2] += 1

    change_integrity(folder, move_embedding)
    load_model(folder)  # without verify=True no embeddings are computed
    with pytest.raises(IntegrityError, match=r"golden text embeddings .* 1.0e-04"):
        load_model(folder, verify=True)
    change_integrity(folder, change_id)
    with pytest.raises(IntegrityError, match="token ids"):
        load_model(folder, verify=True)


def test_damaged_integrity_file_is_refused(folder, capsys):
    change_integrity(folder, lambda values: values.update(golden=None))
    with pytest.raises(MissingGoldenError, match="no golden embeddings"):
        load_model(folder, verify=True)
    change_integrity(folder, lambda values: values.update(version=2))
    with pytest.raises(IntegrityError, match="version 2"):
        load_model(folder)
    (folder / "integrity.json").write_text("[]")
    with pytest.raises(IntegrityError, match="cannot be read"):
        load_model(folder)
    assert run("doctor", [str(folder)]) == 1 and "FAIL model" in capsys.readouterr().out


def add_large_image(golden):
    # 16 million pixels in 16 KB. Pillow would refuse only 400 million, with the same message here.
    content = io.BytesIO()
    Image.new("L", (4096, 4096)).save(content, "PNG")
    golden["images"] = [base64.b64encode(content.getvalue()).decode()]


def break_image(golden):
    content = bytearray(base64.b64decode(golden["images"][0]))
    content[35] ^= 1  # the length of the first chunk with pixels
    golden["images"] = [base64.b64encode(content).decode()]


def set_number_beyond_float64(golden):
    golden["text_embeddings"][0][0] = 10**400


@pytest.mark.parametrize(
    "damage",
    [
        add_large_image,
        break_image,
        set_number_beyond_float64,
        lambda golden: golden.update(texts=[], ids=[], text_embeddings=[]),
        lambda golden: golden.update(texts=golden["texts"] * 1000, ids=golden["ids"] * 1000),
        lambda golden: golden.update(text_embeddings=1.0),
    ],
)
def test_damaged_golden_inputs_are_refused(folder, damage):
    change_integrity(folder, lambda values: damage(values["golden"]))
    with pytest.raises(IntegrityError, match="golden inputs are damaged"):
        load_model(folder, verify=True)


def test_golden_image_starts_no_program(folder, tmp_path, monkeypatch):
    # Pillow reads EPS with Ghostscript, if there is one.
    script = tmp_path / "gs"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    image = base64.b64encode(content).decode()
    change_integrity(folder, lambda values: values["golden"].update(images=[image]))
    with pytest.raises(IntegrityError, match="golden inputs are damaged"):
        load_model(folder, verify=True)
    assert not (tmp_path / "started").exists()


def test_converted_formats_have_their_golden_embeddings(tmp_path, capsys):
    for source, layout in ((SOURCE, "paddlenlp"), (FAMILY_FIXTURES / "cn_clip_pt", "hf")):
        folder = tmp_path / layout
        assert run("convert", [str(source), str(folder), "--to", layout]) == 0
        assert "note: " in capsys.readouterr().out
        assert check_golden(folder, load_model(folder)) < 1e-6
    with pytest.raises(IntegrityError):
        check_golden(tmp_path / "paddlenlp", load_model(SOURCE))
    settings = json.loads((folder / "config.json").read_text())
    settings["text_config"]["hidden_act"] = "quick_gelu"
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(IntegrityError, match="config.json has"):
        load_model(folder)


def test_readme_licence_and_code_may_be_edited(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(FAMILY_FIXTURES / "hf_clip", source)
    for name in ("README.md", "LICENSE", "modeling.py"):
        (source / name).write_text("before")
    assert run("convert", [str(source), str(tmp_path / "back")]) == 0
    for name in ("README.md", "LICENSE", "modeling.py"):
        (tmp_path / "back" / name).write_text("after")
    (tmp_path / "back" / "LICENSE").unlink()
    load_model(tmp_path / "back", verify=True)


def test_verifying_another_dialect_is_refused():
    with pytest.raises(ValueError, match="dialect"):
        load_model(FAMILY_FIXTURES / "hf_clip", dialect={"tokenizer": "open_clip"}, verify=True)
