"""Coloured shapes with sentences in two languages, in the folders of each benchmark as its authors publish it."""

import json
from itertools import cycle, islice

import numpy as np

from ernie_vil2.evaluation.scorers.cxc import NUM_RATINGS
from tests.support.published_files import format_clip_images, json_lines, make_clip_text, write_files
from tests.support.shapes import COLOURS, SHAPES, SPECIAL_TOKENS, draw, encode_png

TOKENS = [*SPECIAL_TOKENS, "a", *COLOURS, *SHAPES,
          *dict.fromkeys("".join([*(name for _, name in COLOURS.values()), *SHAPES.values(), "的图片"]))]  # fmt: skip
SPLITS = ("train", "val", "test")
COCO_FOLDERS = {"train": "train2014", "restval": "val2014", "val": "val2014", "test": "val2014"}


def draw_rows(split, copies):
    """Name, image, Chinese and English texts of shapes in colours."""
    rng = np.random.default_rng([len(split), copies])
    for copy in range(copies):
        for colour, (rgb, colour_zh) in COLOURS.items():
            for shape, shape_zh in SHAPES.items():
                chinese, english = [f"{colour_zh}的{shape_zh}", f"{colour_zh}{shape_zh}"], [f"a {colour} {shape}"]
                yield f"{split}{colour}{shape}{copy}", encode_png(draw(rgb, shape, rng)), chinese, english * 2


ROWS_BY_SPLIT = {split: list(draw_rows(split, 2 if split == "train" else 1)) for split in SPLITS}


def write_coco_cn(folder):
    names = {
        row[0]: f"COCO_{COCO_FOLDERS[split]}_{number:012}"
        for split in SPLITS
        for number, row in enumerate(ROWS_BY_SPLIT[split], 1000 * SPLITS.index(split))
    }
    home = folder / "coco-cn-version1805v1.1"
    captions = ""
    for split, rows in ROWS_BY_SPLIT.items():
        write_files(home, {f"coco-cn_{split}.txt": "".join(f"{names[row[0]]}\n" for row in rows)})
        captions += "".join(f"{names[row[0]]}#{n}\t{text}\n" for row in rows for n, text in enumerate(row[2]))
        write_files(folder, {f"{COCO_FOLDERS[split]}/{names[row[0]]}.jpg": row[1] for row in rows})
    write_files(home, {"imageid.human-written-caption.txt": captions})


def write_flickr30k_cn(folder):
    for split, collection in (("test", "flickr30kzhmbosontest"), ("val", "flickr30kzhbbosonval"),
                              ("train", "flickr30kzhbbosontrain")):  # fmt: skip
        kind = "zhm" if split == "test" else "zhb"
        rows = list(enumerate(ROWS_BY_SPLIT[split], 1000 * SPLITS.index(split)))
        captions = [f"{number}#{kind}#{n} {' '.join(f'{letter}:n' for letter in text)}\n"
                    for number, row in rows for n, text in enumerate(row[2])]  # fmt: skip
        write_files(folder, {f"{collection}/ImageSets/{collection}.txt": "".join(f"{number}\n" for number, _ in rows),
                       f"{collection}/TextData/seg.{collection}.caption.txt": "".join(captions)})  # fmt: skip
        write_files(folder, {f"flickr30k-images/{number}.jpg": row[1] for number, row in rows})


def write_muge(folder):
    for split, spelling in (("train", "train"), ("val", "valid")):
        rows = list(enumerate(ROWS_BY_SPLIT[split], 1000 * SPLITS.index(split)))
        texts = [make_clip_text(10 * number + n, text, number) for number, row in rows for n, text in enumerate(row[2])]
        images = format_clip_images(*((number, row[1]) for number, row in rows))
        write_files(folder, {f"{spelling}_imgs.tsv": images, f"{spelling}_texts.jsonl": json_lines(*texts)})


def write_aic_icc(folder):
    for split, date in (("train", "20170902"), ("validation", "20170910")):
        rows = ROWS_BY_SPLIT["val" if split == "validation" else split]
        home = f"ai_challenger_caption_{split}_{date}"
        annotations = [{"url": "", "image_id": f"{row[0]}.jpg", "caption": row[2]} for row in rows]
        write_files(folder, {f"{home}/caption_{split}_annotations_{date}.json": annotations})
        write_files(folder, {f"{home}/caption_{split}_images_{date}/{row[0]}.jpg": row[1] for row in rows})


def write_karpathy(folder, name, home):
    images, number = [], 0
    for split, rows in ROWS_BY_SPLIT.items():
        for row in rows:
            part = "restval" if name == "coco" and split == "train" and number % 4 == 0 else split
            file = f"COCO_{COCO_FOLDERS[part]}_{number:012}.jpg" if name == "coco" else f"{number}.jpg"
            sentences = [{"raw": text, "sentid": 10 * number + n, "imgid": number} for n, text in enumerate(row[3])]
            images.append({"filename": file, "split": part, "imgid": number, "sentences": sentences})
            write_files(folder, {f"{COCO_FOLDERS[part] if name == 'coco' else home}/{file}": row[1]})
            number += 1
    write_files(folder, {f"dataset_{name}.json": {"images": images, "dataset": name}})


def write_tables(folder):
    for split, rows in ROWS_BY_SPLIT.items():
        if split == "val":  # a table may be a .jsonl too
            lines = [{"image": f"{row[0]}.png", "caption_zh": row[2][0]} for row in rows]
            write_files(folder, {"val.jsonl": json_lines(*lines)})
        else:
            lines = [f"{row[0]}.png,{row[2][0]}\n" for row in rows]
            write_files(folder, {f"{split}.csv": "".join(["image,caption_zh\n", *lines])})
        write_files(folder, {f"{row[0]}.png": row[1] for row in rows})


def write_cxc(folder, split):
    """CxC's ratings of `karpathy(folder, "coco", "")`, again and again up to the number of rows that were published.

    An image and its own sentences belong together.
    """
    entries = json.loads((folder / "dataset_coco.json").read_text(encoding="utf-8"))["images"]
    entries = [entry for entry in entries if entry["split"] == split]
    images = [entry["filename"] for entry in entries]
    captions = [[f"COCO_val2014:sentid:{sentence['sentid']}" for sentence in entry["sentences"]] for entry in entries]
    rows = {
        "sits": [(caption, image, 4.0 + number / 2)
                 for image, own in zip(images, captions, strict=True) for number, caption in enumerate(own)],
        "sts": [(own[0], own[1], 3.0 + row % 3 / 2) for row, own in enumerate(captions)],
        "sis": [(images[row], images[row - 1], 1.0 + row % 4) for row in range(len(images))],
    }  # fmt: skip
    for kind, rated in rows.items():
        rated = islice(cycle(rated), NUM_RATINGS[kind, split])
        lines = "".join(f"{first},{second},{score},made\n" for first, second, score in rated)
        write_files(folder, {f"{kind}_{split}.csv": f"first,second,agg_score,sampling_method\n{lines}"})


def write_caption_lists(folder):
    """Flickr30K-CNA, LIT-CN and Crossmodal-3600."""
    rows = ROWS_BY_SPLIT["test"]
    lines = "".join(f"{number}#{n}\t{text}\n" for number, row in enumerate(rows) for n, text in enumerate(row[2]))
    write_files(folder / "Flickr30k-CNA", {"test/flickr30k_cna_test.txt": lines}
          | {f"flickr30k/images/{number}.jpg": row[1] for number, row in enumerate(rows)})  # fmt: skip
    lines = "".join(f"images/{row[0]}.jpg\t{row[2][0]}\n" for row in rows)
    write_files(
        folder / "LIT-CN", {"image_caption_long_cn.txt": lines} | {f"images/{row[0]}.jpg": row[1] for row in rows}
    )
    lines = [{"image/key": row[0], "image/locale": "zh", "zh": {"caption": row[2]}, "en": {"caption": row[3]}}
             for row in rows]  # fmt: skip
    write_files(folder / "xm3600", {"captions.jsonl": json_lines(*lines)}
          | {f"images/{row[0]}.jpg": row[1] for row in rows})  # fmt: skip


def write_sugar_crepe(folder):
    rows = ROWS_BY_SPLIT["test"]
    wrong = [*rows[1:], rows[0]]
    items = {str(number): {"filename": f"{row[0]}.jpg", "caption": row[3][0], "negative_caption": other[3][0]}
             for number, (row, other) in enumerate(zip(rows, wrong, strict=True))}  # fmt: skip
    write_files(folder / "sugar-crepe" / "data", {"swap_obj.json": items, "replace_rel.json": items}
          | {f"val2017/{row[0]}.jpg": row[1] for row in rows})  # fmt: skip
