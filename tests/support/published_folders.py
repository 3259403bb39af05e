"""Coloured shapes with sentences in two languages, in the folders of each benchmark as its authors publish it."""

import json
from itertools import cycle, islice
from typing import NamedTuple

import numpy as np

from ernie_vil2.evaluation.scorers.cxc import NUM_RATINGS
from tests.support.published_files import format_clip_images, json_lines, make_clip_text, write_files
from tests.support.shapes import COLOURS, SHAPES, SPECIAL_TOKENS, draw, encode_png

COLOURS_ZH = [colour_zh for _, colour_zh in COLOURS.values()]
TOKENS = [*SPECIAL_TOKENS, "a", *COLOURS, *SHAPES, *dict.fromkeys("".join([*COLOURS_ZH, *SHAPES.values(), "的图片"]))]
SPLITS = ("train", "val", "test")
COCO_FOLDERS = {"train": "train2014", "restval": "val2014", "val": "val2014", "test": "val2014"}


class Row(NamedTuple):
    """A drawn shape with its captions."""

    name: str
    image: bytes
    chinese: list[str]
    english: list[str]


def draw_rows(split, copies):
    """Yield rows of each shape in each colour, in so many drawings; captions may repeat."""
    rng = np.random.default_rng([len(split), copies])
    for copy in range(copies):
        for colour, (rgb, colour_zh) in COLOURS.items():
            for shape, shape_zh in SHAPES.items():
                chinese, english = [f"{colour_zh}的{shape_zh}", f"{colour_zh}{shape_zh}"], [f"a {colour} {shape}"]
                yield Row(f"{split}{colour}{shape}{copy}", encode_png(draw(rgb, shape, rng)), chinese, english * 2)


ROWS_BY_SPLIT = {split: list(draw_rows(split, 2 if split == "train" else 1)) for split in SPLITS}


def number_rows(split):
    """Return the rows of a split with numbers that no other split has."""
    return list(enumerate(ROWS_BY_SPLIT[split], 1000 * SPLITS.index(split)))


def write_coco_cn(folder):
    home = folder / "coco-cn-version1805v1.1"
    captions = ""
    for split in SPLITS:
        names = []
        for number, row in number_rows(split):
            name = f"COCO_{COCO_FOLDERS[split]}_{number:012}"
            names.append(name)
            captions += "".join(f"{name}#{n}\t{text}\n" for n, text in enumerate(row.chinese))
            write_files(folder, {f"{COCO_FOLDERS[split]}/{name}.jpg": row.image})
        write_files(home, {f"coco-cn_{split}.txt": "".join(f"{name}\n" for name in names)})
    write_files(home, {"imageid.human-written-caption.txt": captions})


def write_flickr30k_cn(folder):
    for split, collection in (("test", "flickr30kzhmbosontest"), ("val", "flickr30kzhbbosonval"),
                              ("train", "flickr30kzhbbosontrain")):  # fmt: skip
        kind = "zhm" if split == "test" else "zhb"  # translated by people, or by a machine
        numbers, captions = "", ""
        for number, row in number_rows(split):
            numbers += f"{number}\n"
            for n, text in enumerate(row.chinese):
                words = " ".join(f"{letter}:n" for letter in text)  # segmented, with a part of speech for each word
                captions += f"{number}#{kind}#{n} {words}\n"
            write_files(folder, {f"flickr30k-images/{number}.jpg": row.image})
        write_files(folder, {f"{collection}/ImageSets/{collection}.txt": numbers,
                             f"{collection}/TextData/seg.{collection}.caption.txt": captions})  # fmt: skip


def write_muge(folder):
    for split, spelling in (("train", "train"), ("val", "valid")):
        images, texts = [], []
        for number, row in number_rows(split):
            images.append((number, row.image))
            texts += [make_clip_text(10 * number + n, text, number) for n, text in enumerate(row.chinese)]
        write_files(folder, {f"{spelling}_imgs.tsv": format_clip_images(*images),
                             f"{spelling}_texts.jsonl": json_lines(*texts)})  # fmt: skip


def write_aic_icc(folder):
    for split, date in (("train", "20170902"), ("validation", "20170910")):
        rows = ROWS_BY_SPLIT["val" if split == "validation" else split]
        home = f"ai_challenger_caption_{split}_{date}"
        annotations = [{"url": "", "image_id": f"{row.name}.jpg", "caption": row.chinese} for row in rows]
        write_files(folder, {f"{home}/caption_{split}_annotations_{date}.json": annotations})
        write_files(folder, {f"{home}/caption_{split}_images_{date}/{row.name}.jpg": row.image for row in rows})


def write_karpathy(folder, name, home):
    """Write Karpathy's splits of MSCOCO (name "coco", images in its folders) or Flickr30K (images in `home`)."""
    images, number = [], 0
    for split, rows in ROWS_BY_SPLIT.items():
        for row in rows:
            file_split, file, image_home = split, f"{number}.jpg", home
            if name == "coco":
                if split == "train" and number % 4 == 0:
                    file_split = "restval"  # images of val2014 that Karpathy trains on
                image_home = COCO_FOLDERS[file_split]
                file = f"COCO_{image_home}_{number:012}.jpg"
            sentences = [
                {"raw": text, "sentid": 10 * number + n, "imgid": number} for n, text in enumerate(row.english)
            ]
            images.append({"filename": file, "split": file_split, "imgid": number, "sentences": sentences})
            write_files(folder, {f"{image_home}/{file}": row.image})
            number += 1
    write_files(folder, {f"dataset_{name}.json": {"images": images, "dataset": name}})


def write_tables(folder):
    """Write a table of images and captions for each split, as people make them for their data."""
    for split, rows in ROWS_BY_SPLIT.items():
        if split == "val":  # a table may be a .jsonl too
            lines = [{"image": f"{row.name}.png", "caption_zh": row.chinese[0]} for row in rows]
            write_files(folder, {"val.jsonl": json_lines(*lines)})
        else:
            lines = [f"{row.name}.png,{row.chinese[0]}\n" for row in rows]
            write_files(folder, {f"{split}.csv": "".join(["image,caption_zh\n", *lines])})
        write_files(folder, {f"{row.name}.png": row.image for row in rows})


def write_cxc(folder, split):
    """Write CxC's ratings of `write_karpathy(folder, "coco", "")`, repeated up to the published number of rows.

    An image and its sentences belong together.
    """
    entries = json.loads((folder / "dataset_coco.json").read_text(encoding="utf-8"))["images"]
    ratings = {"sits": [], "sts": [], "sis": []}
    split_entries = [entry for entry in entries if entry["split"] == split]
    previous_image = split_entries[-1]["filename"]  # the first image is rated with the last one
    for row, entry in enumerate(split_entries):
        image = entry["filename"]
        captions = [f"COCO_val2014:sentid:{sentence['sentid']}" for sentence in entry["sentences"]]
        for number, caption in enumerate(captions):
            ratings["sits"].append((caption, image, 4.0 + number / 2))
        ratings["sts"].append((captions[0], captions[1], 3.0 + row % 3 / 2))
        ratings["sis"].append((image, previous_image, 1.0 + row % 4))
        previous_image = image
    for kind, rows in ratings.items():
        repeated_rows = islice(cycle(rows), NUM_RATINGS[kind, split])
        lines = "".join(f"{first},{second},{score},made\n" for first, second, score in repeated_rows)
        write_files(folder, {f"{kind}_{split}.csv": f"first,second,agg_score,sampling_method\n{lines}"})


def write_caption_lists(folder):
    """Write Flickr30K-CNA, LIT-CN and Crossmodal-3600."""
    rows = ROWS_BY_SPLIT["test"]

    home, lines = folder / "Flickr30k-CNA", ""
    for number, row in enumerate(rows):
        lines += "".join(f"{number}#{n}\t{text}\n" for n, text in enumerate(row.chinese))
        write_files(home, {f"flickr30k/images/{number}.jpg": row.image})
    write_files(home, {"test/flickr30k_cna_test.txt": lines})

    lines = "".join(f"images/{row.name}.jpg\t{row.chinese[0]}\n" for row in rows)
    write_files(folder / "LIT-CN", {"image_caption_long_cn.txt": lines})
    write_files(folder / "LIT-CN", {f"images/{row.name}.jpg": row.image for row in rows})

    captions = []
    for row in rows:
        texts = {"zh": {"caption": row.chinese}, "en": {"caption": row.english}}
        captions.append({"image/key": row.name, "image/locale": "zh", **texts})
    write_files(folder / "xm3600", {"captions.jsonl": json_lines(*captions)})
    write_files(folder / "xm3600", {f"images/{row.name}.jpg": row.image for row in rows})


def write_sugar_crepe(folder):
    """Write two of SugarCrepe's files, in which the wrong caption of an image is that of the next one."""
    rows = ROWS_BY_SPLIT["test"]
    items = {}
    for number, row in enumerate(rows):
        next_row = rows[(number + 1) % len(rows)]
        items[str(number)] = {"filename": f"{row.name}.jpg", "caption": row.english[0],
                              "negative_caption": next_row.english[0]}  # fmt: skip
    write_files(folder / "sugar-crepe" / "data", {"swap_obj.json": items, "replace_rel.json": items})
    write_files(folder / "sugar-crepe" / "data", {f"val2017/{row.name}.jpg": row.image for row in rows})
