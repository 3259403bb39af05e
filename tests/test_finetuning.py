"""docs/finetuning.md, executed: every command as it is there, on small folders laid out as they are published."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2 import cli as commands
from ernie_vil2.config import load_config
from ernie_vil2.data.readers import open_benchmark
from ernie_vil2.evaluation.protocol import evaluate
from ernie_vil2.evaluation.protocols import protocol
from ernie_vil2.models.weights.stored import read_model
from tests.support.checkpoints import untrained_checkpoint
from tests.support.published_folders import (
    SMALL,
    SPLITS,
    TOKENS,
    aic_icc,
    coco_cn,
    flickr30k_cn,
    karpathy,
    muge,
    own,
)
from tests.support.shapes import shape_members, write_tar

PAGE = Path(__file__).parents[1] / "docs" / "finetuning.md"
OTHERS = {"chinese-clip-vit-base-patch16": "hf_chinese_clip_bin", "siglip2-base-patch16-256": "hf_siglip2_naflex"}
"""Small folders instead of published ones."""


def commands_of_the_page():
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The folder in which all commands of the page have been run, and what each of them printed."""
    folder = tmp_path_factory.mktemp("finetuning")
    untrained_checkpoint(folder / "MODEL", TOKENS)
    coco_cn(folder / "coco-cn")
    flickr30k_cn(folder / "Flickr30k-CN")
    muge(folder / "MUGE")
    aic_icc(folder / "aic-icc")
    karpathy(folder / "flickr30k", "flickr30k", "flickr30k-images")
    karpathy(folder / "mscoco", "coco", "")
    own(folder / "my-images")
    (folder / "texts.csv").write_text("caption_en,caption_zh\n" + "a cat,一只猫\na dog,一只狗\n" * 8, encoding="utf-8")
    for name, fixture in OTHERS.items():
        shutil.copytree(PAGE.parents[1] / "tests" / "fixtures" / "others" / fixture, folder / name)
    write_tar(folder / "other.tar", shape_members(1, seed=9))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for python, tool, *arguments in commands_of_the_page():
            assert python == "python"
            if any("small_student.yaml" in argument for argument in arguments):
                arguments += [part for setting in TINY for part in ("-o", setting)]
            code = commands.run(Path(tool).stem, arguments)
            assert code == 0, [tool, *arguments]
    return folder


def results(page, run, name):
    return json.loads((page / "runs" / run / "evaluation" / f"{name}.json").read_text())


RUNS = {"coco_cn": "coco-cn-test", "flickr30k_cn": "flickr30k-cn-test", "muge": "muge-val",
        "aic_icc": "aic-icc-val-10k", "flickr30k": "flickr30k-test", "mscoco": "mscoco-5k", "own": "pairs"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_every_set_is_scored_before_and_after_by_its_protocol(page, run):
    for name in ("before", "after"):
        (result,) = results(page, run, name)["results"].values()
        assert result["protocol"] == RUNS[run]
    split = 1 if run in ("muge", "aic_icc") else 2
    assert result["benchmark"]["images"] == len(SMALL[SPLITS[split]])


def test_the_configurations_of_the_page_are_those_that_there_are():
    named = {argument for command in commands_of_the_page() for argument in command if "configs/finetune/" in argument}
    there = {path.stem for path in PAGE.parents[1].glob("configs/finetune/*.yaml")}
    assert {Path(path).stem for path in named} == there


CONFIGURATIONS = sorted(PAGE.parents[1].glob("configs/finetune/*.yaml"))
ALL_PAIRS = ("chinese_clip", "siglip2", "small_student")
NO_IMAGES = "new_language"
TINY = [
    "Model.image.image_size=32",
    "Model.image.depth=1",
    "Model.text.depth=1",
    "Model.embed_dim=32",
    "Training.epochs=2",
]
"""What makes the training of a ViT-S from scratch one of seconds."""


@pytest.mark.parametrize("path", [path for path in CONFIGURATIONS if path.stem not in (*ALL_PAIRS, NO_IMAGES)],
                         ids=lambda path: path.stem)  # fmt: skip
def test_images_and_captions_alone_are_contrasted_and_one_switch_takes_all_view_pairs(path):
    def weights(*overrides):
        return load_config(path, overrides).Loss.weights.model_dump()

    assert weights() == {"image_image": 0, "text_text": 0, "image_text": 1, "text_image": 1}
    assert weights("Loss.weights={}") == dict.fromkeys(weights(), 1)


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_other_families_train_on_all_view_pairs_with_dropout_in_their_text_towers(name):
    config = load_config(PAGE.parents[1] / "configs" / "finetune" / f"{name}.yaml")
    assert set(config.Loss.weights.model_dump().values()) == {1.0} and config.Model.text.dropout == 0.1
    assert "kind" not in config.model_dump(exclude_unset=True).get("Loss", {}), "the folder says it"


@pytest.mark.slow
def test_a_model_of_another_family_is_scored_before_and_after_and_handed_back(page):
    for run, kind in (("chinese_clip", "info_nce"), ("siglip2", "sigmoid")):
        for name in ("before", "after"):
            assert results(page, run, name)["results"]
        assert load_config(page / "runs" / run / "config.yaml").Loss.kind == kind
    source, back = (read_model(page / name) for name in ("chinese-clip-vit-base-patch16", "handed-back"))
    assert source.family.names == back.family.names
    assert not np.array_equal(source.arrays["image.pos_embed"], back.arrays["image.pos_embed"])


@pytest.mark.slow
def test_the_report_shows_both_ends_with_the_published_rows_and_their_source(page):
    html = (page / "runs" / "coco_cn" / "report.html").read_text(encoding="utf-8")
    assert "before" in html and "after" in html and "Won and lost" in html
    assert "Chinese-CLIP ViT-B/16, fine-tuned" in html and "github.com/OFA-Sys/Chinese-CLIP" in html


@pytest.mark.slow
def test_a_fine_tuned_model_is_the_same_in_the_other_formats(page):
    ways = {"runs/own@best": "official/model.pdparams", "runs/lora@best": "paddlenlp"}
    for run, converted in ways.items():
        one, other = ernie_vil2.load_model(page / run), ernie_vil2.load_model(page / converted, heads=(1, 1))
        for name, value in one.backend.model.state_dict().items():
            assert np.array_equal(other.backend.model.state_dict()[name].numpy(), value.numpy()), name
    # The official code prepares images otherwise, so that only texts are equal.
    texts = ["红色的圆", "蓝色的方块"]
    official = ernie_vil2.load_model(page / "official" / "model.pdparams", heads=(1, 1))
    assert np.allclose(official.encode_texts(texts), ernie_vil2.load_model(page / "runs/own@best").encode_texts(texts),
                       atol=1e-5)  # fmt: skip


@pytest.mark.slow
def test_mixtures_lie_between_their_ends(page):
    record = json.loads((page / "interpolation" / "interpolation.json").read_text())
    assert [row["share"] for row in record["mixtures"]] == [f"{share / 10:g}" for share in range(11)]
    benchmark = open_benchmark(page / "my-images", split="test")
    for position, row in (("MODEL", record["mixtures"][0]), ("runs/own@best", record["mixtures"][-1])):
        scored = evaluate(ernie_vil2.load_model(page / position), benchmark, protocol("pairs")).mean_recall
        assert row["new"] == pytest.approx(scored)
    assert (page / "runs/mixed/model.safetensors").is_file() and (page / "runs/soup/model.safetensors").is_file()
