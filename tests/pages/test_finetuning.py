"""docs/finetuning.md, executed: every command as it is there, on small folders laid out as they are published."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2.config import load_config
from ernie_vil2.models.weights.stored import read_model
from tests.support import published_folders as published
from tests.support.checkpoints import untrained_checkpoint
from tests.support.commands import call
from tests.support.other_families import FOLDERS
from tests.support.page_commands import page_commands
from tests.support.paths import ROOT
from tests.support.published_folders import SMALL, SPLITS, TOKENS
from tests.support.shapes import shape_members, write_tar

CONFIGURATIONS = sorted((ROOT / "configs" / "finetune").glob("*.yaml"))
WITH_IMAGES = [path for path in CONFIGURATIONS if path.stem != "new_language"]
OTHERS = {"chinese-clip-vit-base-patch16": "hf_chinese_clip_bin", "siglip2-base-patch16-256": "hf_siglip2_naflex"}
"""Small folders instead of published ones."""
ALL_PAIRS = ("chinese_clip", "siglip2", "small_student")
"""Configurations that train on all view pairs."""
TINY = ["Model.image.image_size=32", "Model.image.depth=1", "Model.text.depth=1", "Model.embed_dim=32",
        "Training.epochs=2"]  # fmt: skip
"""What makes the training of a ViT-S from scratch one of seconds."""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The folder in which all commands of the page have been run."""
    folder = tmp_path_factory.mktemp("finetuning")
    untrained_checkpoint(folder / "MODEL", TOKENS)
    published.coco_cn(folder / "coco-cn")
    published.flickr30k_cn(folder / "Flickr30k-CN")
    published.muge(folder / "MUGE")
    published.aic_icc(folder / "aic-icc")
    published.own(folder / "my-images")
    published.karpathy(folder / "flickr30k", "flickr30k", "flickr30k-images")
    published.karpathy(folder / "mscoco", "coco", "")
    (folder / "texts.csv").write_text("caption_en,caption_zh\n" + "a cat,一只猫\na dog,一只狗\n" * 8, encoding="utf-8")
    for name, fixture in OTHERS.items():
        shutil.copytree(FOLDERS[fixture], folder / name)
    write_tar(folder / "other.tar", shape_members(1, seed=9))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for _, tool, *arguments in page_commands("finetuning.md"):
            if any("small_student.yaml" in argument for argument in arguments):
                arguments += [word for setting in TINY for word in ("-o", setting)]
            result = call(Path(tool).stem, *arguments)
            assert result.returncode == 0, [tool, *arguments, result.stderr]
    return folder


def results(page, run, name):
    return json.loads((page / "runs" / run / "evaluation" / f"{name}.json").read_text())


RUNS = {"coco_cn": "coco-cn-test", "flickr30k_cn": "flickr30k-cn-test", "muge": "muge-val",
        "aic_icc": "aic-icc-val-10k", "flickr30k": "flickr30k-test", "mscoco": "mscoco-5k", "own": "pairs"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_a_set_is_scored_before_and_after_by_its_protocol(page, run):
    for name in ("before", "after"):
        (result,) = results(page, run, name)["results"].values()
        assert result["protocol"] == RUNS[run]
    split = 1 if run in ("muge", "aic_icc") else 2
    assert result["benchmark"]["images"] == len(SMALL[SPLITS[split]])


def test_the_configurations_of_the_page_are_those_that_there_are():
    words = [word for command in page_commands("finetuning.md") for word in command]
    assert {Path(word) for word in words if "configs/finetune/" in word} == {
        path.relative_to(ROOT) for path in CONFIGURATIONS
    }


@pytest.mark.parametrize("path", WITH_IMAGES, ids=lambda path: path.stem)
def test_images_and_captions_alone_unless_all_pairs_are_meant(path):
    config = load_config(path)
    weights = config.Loss.weights.model_dump()
    if path.stem in ALL_PAIRS:
        assert set(weights.values()) == {1.0} and config.Model.text.dropout == 0.1
        assert "kind" not in config.model_dump(exclude_unset=True).get("Loss", {}), "the folder says it"
    else:
        assert weights == {"image_image": 0, "text_text": 0, "image_text": 1, "text_image": 1}
        switched = load_config(path, ["Loss.weights={}"]).Loss.weights.model_dump()
        assert set(switched.values()) == {1.0}


@pytest.mark.slow
def test_other_families_are_scored_twice_and_handed_back(page):
    for run, kind in (("chinese_clip", "info_nce"), ("siglip2", "sigmoid")):
        for name in ("before", "after"):
            assert results(page, run, name)["results"]
        assert load_config(page / "runs" / run / "config.yaml").Loss.kind == kind
    source, back = (read_model(page / name) for name in ("chinese-clip-vit-base-patch16", "handed-back"))
    assert source.family.names == back.family.names
    assert not np.array_equal(source.arrays["image.pos_embed"], back.arrays["image.pos_embed"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "converted"), [("runs/own@best", "official/model.pdparams"), ("runs/lora@best", "paddlenlp")]
)
def test_a_fine_tuned_model_is_the_same_in_another_format(page, run, converted):
    model, other = ernie_vil2.load_model(page / run), ernie_vil2.load_model(page / converted, heads=(1, 1))
    arrays = other.backend.model.state_dict()
    for name, value in model.backend.model.state_dict().items():
        assert np.array_equal(arrays[name].numpy(), value.numpy()), name
    # The official code prepares images otherwise, so that only texts are equal.
    texts = ["红色的圆", "蓝色的方块"]
    np.testing.assert_allclose(other.encode_texts(texts), model.encode_texts(texts), atol=1e-5)
