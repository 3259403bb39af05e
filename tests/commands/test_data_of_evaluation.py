"""Evaluation reads languages, names of texts and lines as captions from its data, whatever the model's run used."""

import json
import shutil

import pytest

from ernie_vil2.config import dump_config, load_config
from ernie_vil2.data.readers import open_sources
from tests.support.commands import call, succeed
from tests.support.shapes import write_tar, write_tsv


@pytest.fixture
def model(inputs, tmp_path):
    """Return a checkpoint of a run whose training data name texts by a field `id`, in two languages."""
    folder = shutil.copytree(inputs / "model", tmp_path / "model")
    config = load_config(folder / "config.yaml", ["Data.text_id=id", "Views.languages={zh: 1.0, en: 1.0}"])
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    return folder


@pytest.fixture
def evaluate(model, tmp_path):
    """Return a function that evaluates, and returns the number of texts of each result and the printed output."""

    def run(*arguments):
        out = tmp_path / "out"
        options = ["--checkpoint", model, "--output", out, "--name", "x", "--device", "cpu"]
        printed = succeed("eval", *options, "--data", *arguments)
        results = json.loads((out / "x.json").read_text())["results"]
        return {label: result["benchmark"]["texts"] for label, result in results.items()}, printed

    return run


@pytest.fixture
def pairs(inputs):
    """Return caption, name and image of each sample."""
    source = open_sources([str(inputs / "val.tar")])
    return [(sample.caption("en"), sample.image_name, sample.image) for sample in map(source.__getitem__, range(16))]


@pytest.fixture
def write_captions(pairs, tmp_path):
    """Return a function that writes a shard of images with plain captions; CAPTION stands for the image's caption."""

    def write(text):
        members = []
        for row, (caption, _, image) in enumerate(pairs):
            members += [(f"{row}.png", image), (f"{row}.txt", text.replace("CAPTION", caption).encode())]
        return write_tar(tmp_path / "captions.tar", members)

    return write


def test_folder_of_shards_is_scored_in_its_languages(inputs, evaluate, tmp_path):
    shutil.copy(inputs / "val.tar", tmp_path)
    assert evaluate(tmp_path)[0] == {"model, zh": 16, "model, en": 16}
    assert evaluate(tmp_path, "--language", "en")[0] == {"model, en": 16}


def test_captions_without_a_language_are_scored_once(evaluate, write_captions):
    path = write_captions("CAPTION")
    assert evaluate(path)[0] == {"model": 16}  # although they lack the field that the run's data have
    assert evaluate(path, "--language", "zh", "en")[0] == {"model, zh, en": 16}


def test_lines_are_captions_with_the_option_else_reported(evaluate, write_captions):
    path = write_captions("CAPTION\nit is CAPTION")
    labels, printed = evaluate(path)
    assert labels == {"model": 16} and "caption of several lines" in printed
    labels, printed = evaluate(path, "--caption-lines")
    assert labels == {"model": 32} and "several lines" not in printed


def test_embed_asks_for_a_single_language(model, inputs, tmp_path):
    result = call("embed", "--checkpoint", model, "--data", inputs / "val.tar", "--output", tmp_path / "x")
    assert result.returncode == 2 and "--language" in result.stderr


def test_pixel_baseline_counts_bad_samples(inputs, pairs, evaluate, tmp_path):
    path = write_tsv(tmp_path / "train.tsv", [*pairs, ("a red disc", "broken", b"\x89PNG")])
    path.write_text(path.read_text() + "no columns\n")
    options = ["--pixel-baseline", path, "--language", "en", "--text-id", "caption_en"]
    _, printed = evaluate(inputs / "val.tar", *options)
    assert "pixel baseline: 2 of 34 samples" in printed and "  broken image: 1 (broken)\n" in printed
    assert "nearest train image by pixels 100.00" in " ".join(printed.split())
