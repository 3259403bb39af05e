"""docs/new_language.md, executed: Chinese for tiny folders of CLIP and SigLIP, by the commands of the page."""

import csv
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import ernie_vil2
from tests.support.checkpoints import untrained_checkpoint
from tests.support.commands import call
from tests.support.other_families import FOLDERS
from tests.support.published_folders import TOKENS

PAGE = Path(__file__).parents[1] / "docs" / "new_language.md"
BASE = "Model.text.name=ernie-base"
SMALL = ["Model.text.name=ernie", *(f"Model.text.{size}" for size in ("width=32", "depth=1", "heads=1"))]
"""Instead of twelve layers: the size of the small ERNIE of the test."""
WORDS = {"a cat": "一只猫", "a dog": "一只狗", "a red disc": "红色的圆", "a green square": "绿色的方块"}


def lines(text):
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The folder in which the page's commands have been run, and what each of them printed."""
    folder = tmp_path_factory.mktemp("new_language")
    for name in ("MODEL", "ERNIE"):
        untrained_checkpoint(folder / name, TOKENS)
    for name, fixture in (("clip-vit-base-patch16", "hf_clip"), ("siglip-base-patch16-224", "hf_siglip")):
        shutil.copytree(FOLDERS[fixture], folder / name)
    images = [path for path in (FOLDERS["hf_clip"] / "inputs").iterdir() if path.suffix != ".json"]
    (folder / "photos").mkdir()
    for image in images:
        shutil.copy(image, folder / "photos")
    with (folder / "texts.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("caption_en", "caption_zh"), *24 * list(WORDS.items())])
    text = PAGE.read_text(encoding="utf-8")
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for python, tool, *arguments in lines(text.partition("## What was measured")[0]):
            assert python == "python"
            if BASE in arguments:
                arguments[(at := arguments.index(BASE)) : at + 1] = [
                    SMALL[0],
                    *(x for size in SMALL[1:] for x in ("-o", size)),
                ]
            result = call(Path(tool).stem, *arguments)
            assert result.returncode == 0, [tool, *arguments, result.stderr]
            printed[tool, arguments[0]] = result.stdout
    return folder, printed


@pytest.mark.parametrize(
    ("before", "after"), [("clip-vit-base-patch16", "clip_zh"), ("siglip-base-patch16-224", "siglip_zh")]
)
def test_images_are_encoded_as_before_and_texts_nearer_to_what_they_mean(page, before, after):
    folder, _ = page
    source, student = ernie_vil2.load_model(folder / before), ernie_vil2.load_model(folder / "runs" / after)
    images = sorted((folder / "photos").iterdir())
    np.testing.assert_array_equal(student.encode_images(images), source.encode_images(images))
    if after == "clip_zh":
        english, chinese = list(WORDS), list(WORDS.values())
        known = source.encode_texts(english)
        cosines = [(known * model.encode_texts(chinese)).sum(axis=1).mean() for model in (source, student)]
        assert cosines[1] > cosines[0]
    assert student.config.Model.text.name == ("transformer" if after == "clip_zh" else "ernie")


def test_the_index_answers_the_student_and_its_export(page):
    folder, printed = page
    assert "photos/" in printed["tools/search.py", "query"] or ".png" in printed["tools/search.py", "query"]
    exported, student = (ernie_vil2.load_model(folder / name) for name in ("exported", "runs/clip_zh"))
    np.testing.assert_allclose(exported.encode_texts(["一只猫"]), student.encode_texts(["一只猫"]), atol=1e-5)
