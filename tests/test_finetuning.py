"""docs/finetuning.md, executed: every command as it stands there, on small folders laid out as they are published."""

import base64
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import ernie_vil2
from ernie_vil2 import commands
from ernie_vil2.config import load_config
from ernie_vil2.data.sources import open_benchmark
from ernie_vil2.evaluation.protocol import evaluate
from ernie_vil2.evaluation.protocols import protocol
from tests.conftest import COLOURS, SHAPES, draw, png, shape_members, untrained_checkpoint, write_tar
from tests.data.sources.published.conftest import write

PAGE = Path(__file__).parents[1] / "docs" / "finetuning.md"
TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "a", *COLOURS, *SHAPES,
          *dict.fromkeys("".join([*(name for _, name in COLOURS.values()), *SHAPES.values(), "的图片"]))]  # fmt: skip
SPLITS = ("train", "val", "test")
OF_COCO = {"train": "train2014", "restval": "val2014", "val": "val2014", "test": "val2014"}


def pictures(split, copies):
    """Name, image, Chinese and English texts of shapes in colours."""
    rng = np.random.default_rng([len(split), copies])
    for copy in range(copies):
        for colour, (rgb, colour_zh) in COLOURS.items():
            for shape, shape_zh in SHAPES.items():
                chinese, english = [f"{colour_zh}的{shape_zh}", f"{colour_zh}{shape_zh}"], [f"a {colour} {shape}"]
                yield f"{split}{colour}{shape}{copy}", png(draw(rgb, shape, rng)), chinese, english * 2


SMALL = {split: list(pictures(split, 2 if split == "train" else 1)) for split in SPLITS}


def coco_cn(folder):
    names = {row[0]: f"COCO_{OF_COCO[split]}_{number:012}"
             for split in SPLITS for number, row in enumerate(SMALL[split], 1000 * SPLITS.index(split))}  # fmt: skip
    home = folder / "coco-cn-version1805v1.1"
    captions = ""
    for split, rows in SMALL.items():
        write(home, {f"coco-cn_{split}.txt": "".join(f"{names[row[0]]}\n" for row in rows)})
        captions += "".join(f"{names[row[0]]}#{n}\t{text}\n" for row in rows for n, text in enumerate(row[2]))
        write(folder, {f"{OF_COCO[split]}/{names[row[0]]}.jpg": row[1] for row in rows})
    write(home, {"imageid.human-written-caption.txt": captions})


def flickr30k_cn(folder):
    for split, collection in (("test", "flickr30kzhmbosontest"), ("val", "flickr30kzhbbosonval"),
                              ("train", "flickr30kzhbbosontrain")):  # fmt: skip
        kind = "zhm" if split == "test" else "zhb"
        rows = list(enumerate(SMALL[split], 1000 * SPLITS.index(split)))
        captions = [f"{number}#{kind}#{n} {' '.join(f'{sign}:n' for sign in text)}\n"
                    for number, row in rows for n, text in enumerate(row[2])]  # fmt: skip
        write(folder, {f"{collection}/ImageSets/{collection}.txt": "".join(f"{number}\n" for number, _ in rows),
                       f"{collection}/TextData/seg.{collection}.caption.txt": "".join(captions)})  # fmt: skip
        write(folder, {f"flickr30k-images/{number}.jpg": row[1] for number, row in rows})


def muge(folder):
    for split, spelling in (("train", "train"), ("val", "valid")):
        rows = list(enumerate(SMALL[split], 1000 * SPLITS.index(split)))
        images = "".join(f"{number}\t{base64.b64encode(row[1]).decode()}\n" for number, row in rows)
        texts = "".join(json.dumps({"text_id": 10 * number + n, "text": text, "image_ids": [number]}) + "\n"
                        for number, row in rows for n, text in enumerate(row[2]))  # fmt: skip
        write(folder, {f"{spelling}_imgs.tsv": images, f"{spelling}_texts.jsonl": texts})


def aic_icc(folder):
    for split, date in (("train", "20170902"), ("validation", "20170910")):
        rows = SMALL["val" if split == "validation" else split]
        home = f"ai_challenger_caption_{split}_{date}"
        annotations = [{"url": "", "image_id": f"{row[0]}.jpg", "caption": row[2]} for row in rows]
        write(folder, {f"{home}/caption_{split}_annotations_{date}.json": annotations})
        write(folder, {f"{home}/caption_{split}_images_{date}/{row[0]}.jpg": row[1] for row in rows})


def karpathy(folder, name, home):
    images, number = [], 0
    for split, rows in SMALL.items():
        for row in rows:
            part = "restval" if name == "coco" and split == "train" and number % 4 == 0 else split
            file = f"COCO_{OF_COCO[part]}_{number:012}.jpg" if name == "coco" else f"{number}.jpg"
            sentences = [{"raw": text, "sentid": 10 * number + n, "imgid": number} for n, text in enumerate(row[3])]
            images.append({"filename": file, "split": part, "imgid": number, "sentences": sentences})
            write(folder, {f"{OF_COCO[part] if name == 'coco' else home}/{file}": row[1]})
            number += 1
    write(folder, {f"dataset_{name}.json": {"images": images, "dataset": name}})


def own(folder):
    for split, rows in SMALL.items():
        if split == "val":  # a table may be a .jsonl too
            lines = [json.dumps({"image": f"{row[0]}.png", "caption_zh": row[2][0]}) for row in rows]
            write(folder, {"val.jsonl": "\n".join(lines) + "\n"})
        else:
            lines = [f"{row[0]}.png,{row[2][0]}\n" for row in rows]
            write(folder, {f"{split}.csv": "".join(["image,caption_zh\n", *lines])})
        write(folder, {f"{row[0]}.png": row[1] for row in rows})


def commands_of_the_page():
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The folder in which all commands of the page have been run, and what each of them printed."""
    folder = tmp_path_factory.mktemp("finetuning")
    (folder / "MODEL").mkdir()
    untrained_checkpoint(folder / "MODEL", TOKENS)
    coco_cn(folder / "coco-cn")
    flickr30k_cn(folder / "Flickr30k-CN")
    muge(folder / "MUGE")
    aic_icc(folder / "aic-icc")
    karpathy(folder / "flickr30k", "flickr30k", "flickr30k-images")
    karpathy(folder / "mscoco", "coco", "")
    own(folder / "my-pictures")
    write_tar(folder / "other.tar", shape_members(1, seed=9))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tools = {"train": "train", "report": "report", "plan": "plan", "interpolate": "interpolate",
                 "extract_embeddings": "embed", "convert_checkpoint": "convert", "eval_retrieval": "eval"}  # fmt: skip
        for python, tool, *arguments in commands_of_the_page():
            assert python == "python"
            code = commands.run(tools[Path(tool).stem], arguments)
            assert code == 0, [tool, *arguments]
    return folder


def results(page, run, name):
    return json.loads((page / "runs" / run / "evaluation" / f"{name}.json").read_text())


RUNS = {"coco_cn": "coco-cn-test", "flickr30k_cn": "flickr30k-cn-test", "muge": "muge-val",
        "aic_icc": "aic-icc-val-10k", "flickr30k": "flickr30k-test", "mscoco": "mscoco-5k", "own": "pairs"}  # fmt: skip


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


@pytest.mark.parametrize("path", sorted(PAGE.parents[1].glob("configs/finetune/*.yaml")), ids=lambda path: path.stem)
def test_images_and_captions_alone_are_contrasted_and_one_switch_takes_all_view_pairs(path):
    def weights(*overrides):
        return load_config(path, overrides).Loss.weights.model_dump()

    assert weights() == {"image_image": 0, "text_text": 0, "image_text": 1, "text_image": 1}
    assert weights("Loss.weights={}") == dict.fromkeys(weights(), 1)


def test_the_report_shows_both_ends_with_the_published_rows_and_their_source(page):
    html = (page / "runs" / "coco_cn" / "report.html").read_text(encoding="utf-8")
    assert "before" in html and "after" in html and "Won and lost" in html
    assert "Chinese-CLIP ViT-B/16, fine-tuned" in html and "github.com/OFA-Sys/Chinese-CLIP" in html


def test_a_fine_tuned_model_is_the_same_in_the_other_formats(page):
    ways = {"runs/own@best": "official/model.pdparams", "runs/lora@best": "paddlenlp"}
    for run, converted in ways.items():
        one, other = ernie_vil2.load_model(page / run), ernie_vil2.load_model(page / converted, heads=(1, 1))
        for name, value in one.engine.model.state_dict().items():
            assert np.array_equal(other.engine.model.state_dict()[name].numpy(), value.numpy()), name
    # The official code prepares images otherwise, so that only texts are equal.
    texts = ["红色的圆", "蓝色的方块"]
    official = ernie_vil2.load_model(page / "official" / "model.pdparams", heads=(1, 1))
    assert np.allclose(official.encode_texts(texts), ernie_vil2.load_model(page / "runs/own@best").encode_texts(texts),
                       atol=1e-5)  # fmt: skip


def test_mixtures_lie_between_their_ends(page):
    record = json.loads((page / "interpolation" / "interpolation.json").read_text())
    assert [row["share"] for row in record["mixtures"]] == [f"{share / 10:g}" for share in range(11)]
    benchmark = open_benchmark(page / "my-pictures", split="test")
    for place, row in (("MODEL", record["mixtures"][0]), ("runs/own@best", record["mixtures"][-1])):
        scored = evaluate(ernie_vil2.load_model(page / place), benchmark, protocol("pairs")).mean_recall
        assert row["new"] == pytest.approx(scored)
    assert (page / "runs/mixed/model.safetensors").is_file() and (page / "runs/soup/model.safetensors").is_file()
