"""The commands of docs/classification.md and docs/new_language.md run on small data in the layouts that they name."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

import ernie_vil2
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.commands import succeed
from tests.support.other_families import FOLDERS
from tests.support.page_commands import list_commands
from tests.support.paths import ROOT
from tests.support.published_files import write_files
from tests.support.published_folders import TOKENS
from tests.support.shapes import COLOURS, SHAPES, SPECIAL_TOKENS, draw, encode_png
from tests.support.trainings import to_arguments


def lay_out_classes(folder, shapes):
    """Write the models and data that the commands of classification.md name."""
    write_untrained_checkpoint(folder / "runs" / "emoji", [*SPECIAL_TOKENS, "a", *SHAPES])
    (folder / "demo_data").mkdir()
    for split, source in (("train", "train"), ("val", "val"), ("test", "val")):
        shutil.copy(shapes[source], folder / "demo_data" / f"emoji-{split}.tar")
    shutil.copy(ROOT / "demo_data" / "vocabulary.txt", folder / "demo_data")
    for label, shape in enumerate(SHAPES):
        for copy, (rgb, _) in enumerate([*COLOURS.values(), COLOURS["red"]]):
            drawing = encode_png(draw(rgb, shape, np.random.default_rng([label, copy])))
            names = (f"cifar-10/test/{label}/{copy}.png", f"cifar-10/train/{label}/{copy}.png", f"{shape}.png")
            write_files(folder, dict.fromkeys(names, drawing))
    texts = {
        "kinds.txt": [f"{shape}\ta {shape}" for shape in SHAPES],
        "cifar-10/label_cn.txt": SHAPES.values(),
        "mine.txt": ["{}", "一个{}"],
        "birds.csv": ["image,species", *(f"{shape}.png,{shape}" for shape in SHAPES)],
        "zh.txt": [f"{shape}\t{name}" for shape, name in SHAPES.items()],
        "en.txt": sorted(SHAPES),
    }
    write_files(folder, {name: "\n".join([*lines, ""]) for name, lines in texts.items()})


def test_every_command_of_classification_runs(tmp_path, shapes, monkeypatch):
    lay_out_classes(tmp_path, shapes)
    monkeypatch.chdir(tmp_path)
    short = ["Model.image.weights=null", "Data.workers=0", "Schedule.warmup_steps=1", "Training.steps=2",
             "Evaluation.every=2", "Training.output=new"]  # fmt: skip
    for _, tool, *arguments in list_commands("classification.md"):
        if tool == "tools/train.py":
            succeed(Path(tool).stem, *arguments, *to_arguments(short))
            assert "zh/acc1" in Path("new/log.jsonl").read_text()
        else:
            assert "mean per class recall" in succeed(Path(tool).stem, *arguments, "--device", "cpu")
    assert len(list(Path("classification").glob("*.html"))) == 3


BASE = "Model.text.name=ernie-base"
SMALL = ["Model.text.name=ernie", *(f"Model.text.{size}" for size in ("width=32", "depth=1", "heads=1"))]
"""In place of twelve layers, the size of the small ERNIE of the test."""
WORDS = {"a cat": "一只猫", "a dog": "一只狗", "a red disc": "红色的圆", "a green square": "绿色的方块"}


@pytest.fixture(scope="module")
def languages(tmp_path_factory):
    """Run the commands of new_language.md, Chinese for tiny CLIP and SigLIP, and return their folder."""
    folder = tmp_path_factory.mktemp("new_language")
    for name in ("MODEL", "ERNIE"):
        write_untrained_checkpoint(folder / name, TOKENS)
    for name, fixture in (("clip-vit-base-patch16", "hf_clip"), ("siglip-base-patch16-224", "hf_siglip")):
        shutil.copytree(FOLDERS[fixture], folder / name)
    shutil.copytree(FOLDERS["hf_clip"] / "inputs", folder / "photos", ignore=shutil.ignore_patterns("*.json"))
    with (folder / "texts.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("caption_en", "caption_zh"), *24 * list(WORDS.items())])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for _, tool, *arguments in list_commands("new_language.md", until="## What was measured"):
            if BASE in arguments:
                arguments[arguments.index(BASE)] = SMALL[0]
                arguments += to_arguments(SMALL[1:])
            printed = succeed(Path(tool).stem, *arguments)
            if tool == "tools/search.py" and arguments[0] == "query":
                assert ".png" in printed
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("teacher", "student", "tower"),
    [("clip-vit-base-patch16", "clip_zh", "transformer"), ("siglip-base-patch16-224", "siglip_zh", "ernie")],
)
def test_new_language_leaves_image_embeddings_unchanged(languages, teacher, student, tower):
    name, teacher = student, ernie_vil2.load_model(languages / teacher)
    student = ernie_vil2.load_model(languages / "runs" / name)
    images = sorted((languages / "photos").iterdir())
    np.testing.assert_array_equal(student.encode_images(images), teacher.encode_images(images))
    assert student.config.Model.text.name == tower
    if name == "clip_zh":
        # The student has Chinese texts nearer to their English translations than the teacher has.
        chinese, english = list(WORDS.values()), teacher.encode_texts(list(WORDS))
        student_cosine = (english * student.encode_texts(chinese)).sum(axis=1).mean()
        assert student_cosine > (english * teacher.encode_texts(chinese)).sum(axis=1).mean()
        exported = ernie_vil2.load_model(languages / "exported")
        np.testing.assert_allclose(exported.encode_texts(chinese), student.encode_texts(chinese), atol=1e-5)
