"""Small benchmarks and training data as they are published: every image is filled with its number."""

import base64
import json
import pickle

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ernie_vil2.data.samples import BadSample
from tests.support.shapes import encode_png, write_tar


def make_image(number):
    """Return an encoded image that is filled with a number."""
    return encode_png(np.full([8, 8, 3], number, np.uint8))


def write_files(folder, files):
    """Write files by their path below a folder; contents are bytes, text, or values to be written as JSON."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, (bytes, str)):
            content = json.dumps(content, ensure_ascii=False)
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(content)
    return folder


def json_lines(*rows):
    """Return rows as the content of a JSON lines file."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def list_pairs(benchmark):
    """Return the pairs of a benchmark as (image id, text id)."""
    return [(benchmark.images[image].id, benchmark.texts[text].id) for image, text in benchmark.pairs.tolist()]


def read_all(source):
    """Return the samples of a source; in place of a bad sample, the message of its error."""
    samples = []
    for row in range(len(source)):
        try:
            samples.append(source[row])
        except BadSample as error:
            samples.append(str(error))
    return samples


def list_problems(benchmark):
    """Return the names of the unusable entries by reason."""
    return {reason: entry["names"] for reason, entry in benchmark.entry_report.as_dict()["reasons"].items()}


# COCO-CN

COCO_CN = "coco-cn-version1805v1.1"
CN_TEST_2, CN_TEST_1 = "COCO_val2014_000000000001", "COCO_train2014_000000000002"
CN_VAL, CN_TRAIN = "COCO_val2014_000000000003", "COCO_train2014_000000000004"
COCO_CN_CAPTIONS = f"{COCO_CN}/imageid.human-written-caption.txt"
COCO_CN_FILES = {
    f"{COCO_CN}/coco-cn_train.txt": f"{CN_TRAIN}\n",
    f"{COCO_CN}/coco-cn_val.txt": f"{CN_VAL}\n",
    f"{COCO_CN}/coco-cn_test.txt": f"{CN_TEST_1}\n{CN_TEST_2}\n",
    COCO_CN_CAPTIONS: (
        f"{CN_TEST_2}#0\t一只猫\n{CN_TRAIN}#0\t房子\n{CN_TEST_1}#0\t两只 狗\n{CN_TEST_2}#1\t猫 \n{CN_VAL}#0\t鸟\n"
    ),
    f"{COCO_CN}/imageid.human-written-tags.txt": f"{CN_TEST_2} 猫 狗\n",
    f"{COCO_CN}/imageid.manually-translated-caption.txt": f"{CN_TEST_2}#0\t不读\n",
    f"val2014/{CN_TEST_2}.jpg": make_image(1),
    f"train2014/{CN_TEST_1}.jpg": make_image(2),
    f"val2014/{CN_VAL}.jpg": make_image(3),
    f"train2014/{CN_TRAIN}.jpg": make_image(4),
}


# AIC-ICC

AIC_ICC = "ai_challenger_caption_validation_20170910"
AIC_ICC_ANNOTATIONS = f"{AIC_ICC}/caption_validation_annotations_20170910.json"


def make_aic_icc_row(name, *captions):
    return {"url": f"http://img/{name}", "image_id": name, "caption": list(captions)}


AIC_ICC_FILES = {
    AIC_ICC_ANNOTATIONS: [make_aic_icc_row("b.jpg", *"一二三四五"), make_aic_icc_row("a.jpg", *"六七八九十")],
    f"{AIC_ICC}/caption_validation_images_20170910/a.jpg": make_image(1),
    f"{AIC_ICC}/caption_validation_images_20170910/b.jpg": make_image(2),
    "ai_challenger_caption_train_20170902/caption_train_annotations_20170902.json": [make_aic_icc_row("c.jpg", "天")],
    "ai_challenger_caption_train_20170902/caption_train_images_20170902/c.jpg": make_image(3),
}


# Karpathy's splits of MSCOCO and Flickr30K


def make_karpathy_row(imgid, split, filename, sentids, **fields):
    sentences = []
    for number in sentids:
        sentences.append({"raw": f"Sentence {number}.", "tokens": ["sentence"], "sentid": number, "imgid": imgid})
    return {"filename": filename, "split": split, "imgid": imgid, "sentids": sentids, "sentences": sentences, **fields}


def make_karpathy_coco_row(imgid, split, filepath, sentids):
    return make_karpathy_row(imgid, split, f"COCO_{filepath}_{imgid:012}.jpg", sentids, filepath=filepath, cocoid=imgid)


MSCOCO = [
    make_karpathy_coco_row(0, "test", "val2014", [5, 3, 4, 9, 8, 7]),
    make_karpathy_coco_row(1, "restval", "val2014", [10]),
    make_karpathy_coco_row(2, "train", "train2014", [11]),
    make_karpathy_coco_row(3, "test", "val2014", [12]),
    make_karpathy_coco_row(4, "val", "val2014", [13]),
]
MSCOCO_FILES = {
    "dataset_coco.json": {"images": MSCOCO, "dataset": "coco"},
    **{f"{row['filepath']}/{row['filename']}": make_image(row["imgid"]) for row in MSCOCO},
}
FLICKR30K = {
    "images": [make_karpathy_row(0, "train", "1.jpg", [0]), make_karpathy_row(1, "test", "2.jpg", [1, 2])],
    "dataset": "flickr30k",
}


# COCO's own files of captions


def make_coco_captions(images, texts):
    """Return COCO's file of images as (id, file name) and texts as (id, image id, caption)."""
    return {
        "info": {},
        "licenses": [],
        "images": [{"license": 5, "file_name": file, "id": number, "height": 8, "width": 8} for number, file in images],
        "annotations": [{"image_id": image_id, "id": number, "caption": text} for number, image_id, text in texts],
    }


COCO_CAPTIONS_FILES = {
    "annotations/captions_train2014.json": make_coco_captions(
        [(9, "COCO_train2014_000000000009.jpg"), (7, "COCO_train2014_000000000007.jpg")],
        [(48, 9, "A cat."), (49, 9, "Two cats."), (50, 7, "A dog.")],
    ),
    "annotations/captions_val2014.json": make_coco_captions(
        [(42, "COCO_val2014_000000000042.jpg")], [(1, 42, "A bird. ")]
    ),
    "annotations/instances_val2014.json": {},
    "train2014/COCO_train2014_000000000009.jpg": make_image(9),
    "train2014/COCO_train2014_000000000007.jpg": make_image(7),
    "val2014/COCO_val2014_000000000042.jpg": make_image(42),
}


# Flickr30K-CN

FLICKR_CN_TEST, FLICKR_CN_TRAIN = "flickr30kzhmbosontest", "flickr30kzhbbosontrain"
FLICKR30K_CN_FILES = {
    f"{FLICKR_CN_TEST}/ImageSets/{FLICKR_CN_TEST}.txt": "1007129816\n1009434119\n",
    f"{FLICKR_CN_TEST}/TextData/seg.{FLICKR_CN_TEST}.caption.txt": (
        "1007129816#zhm#0 一个:m 男人:n ，:wd 戴:v 帽子:n\n1007129816#zhm#1 男人:n\n1009434119#zhm#0 黑:a 狗:n 。:wj\n"
    ),
    f"{FLICKR_CN_TRAIN}/ImageSets/{FLICKR_CN_TRAIN}.txt": "36979\n",
    f"{FLICKR_CN_TRAIN}/TextData/seg.{FLICKR_CN_TRAIN}.caption.txt": "36979#zhb#0 两个 年轻人\n",
    "flickr30k-images/1007129816.jpg": make_image(1),
    "flickr30k-images/1009434119.jpg": make_image(2),
    "flickr30k-images/36979.jpg": make_image(3),
}


# Chinese-CLIP's files and LMDB


def format_clip_images(*rows, encode=base64.b64encode):
    """Return Chinese-CLIP's file of images as (id, bytes)."""
    return "".join(f"{name}\t{encode(content).decode()}\n" for name, content in rows)


def make_clip_text(text_id, words, *image_ids):
    return {"text_id": text_id, "text": words, "image_ids": list(image_ids)}


CLIP_FILES = {
    "train_imgs.tsv": format_clip_images((5, make_image(5)), (6, make_image(6))),
    "train_texts.jsonl": json_lines(make_clip_text(1, "猫", 5, 6), make_clip_text(2, "狗", 6)),
    "valid_imgs.tsv": format_clip_images((1076345, make_image(1)), (517602, make_image(2)), (9, make_image(3))),
    "valid_texts.jsonl": json_lines(
        make_clip_text(8428, "托特包", 1076345, 517602), make_clip_text(7, "帽子 ", 1076345), make_clip_text(6, "靴子")
    ),
    "test_imgs.tsv": format_clip_images((11, make_image(4))),
    "test_texts.jsonl": json_lines(make_clip_text(12, "裙子")),
}
CLIP_IMAGES = {"7": b"\xfb\xff seven", "8": b"eight", "9": b"nine"}
CLIP_TEXTS = [("1", "猫", ["7", "8"]), ("2", "狗", ["9"]), ("3", "猫", ["9"])]


def write_clip_files(folder, split="train", images=CLIP_IMAGES, texts=CLIP_TEXTS,
                     keys=("text_id", "text", "image_ids"), suffix="texts"):  # fmt: skip
    """Write Chinese-CLIP's files of images by id and texts as (id, text, image ids); return the file of images."""
    rows = [dict(zip(keys, text, strict=True)) for text in texts]
    files = {
        f"{split}_imgs.tsv": format_clip_images(*images.items(), encode=base64.urlsafe_b64encode),
        f"{split}_{suffix}.jsonl": json_lines(*rows),
    }
    return write_files(folder, files) / f"{split}_imgs.tsv"


def write_lmdb(folder, pairs, images=CLIP_IMAGES):
    """Write the databases of Chinese-CLIP's build_lmdb_dataset.py.

    They hold pickled tuples by number, base64 images by id, and the counts of both.
    """
    encoded_images = {key: base64.urlsafe_b64encode(image) for key, image in images.items()}
    for name, count_key, items in (
        ("pairs", b"num_samples", dict(enumerate(pairs))),
        ("imgs", b"num_images", encoded_images),
    ):
        with lmdb.open(str(folder / name), map_size=1 << 24) as database, database.begin(write=True) as transaction:
            for key, value in items.items():
                transaction.put(str(key).encode(), value)
            transaction.put(count_key, str(len(items)).encode())
    return folder


def pickle_pairs(texts):
    """Return a pickle for each pair of an image and a text; texts are (id, text, image ids)."""
    pickles = []
    for text_id, text, image_ids in texts:
        pickles += [pickle.dumps((image_id, text_id, text)) for image_id in image_ids]
    return pickles


# img2dataset


def write_img2dataset(folder, output_format, shards=2, rows=2):
    """Write the files of img2dataset 1.x: samples by key, and for each shard a .parquet and a _stats.json."""
    folder.mkdir()
    for shard in range(shards):
        name, members, metadata = f"{shard:05d}", [], []
        for row in range(rows):
            key = f"{shard:05d}{row:04d}"
            fields = {
                "caption": f"caption {key}", "url": f"https://example.org/{key}", "key": key, "status": "success",
                "error_message": None, "width": 256, "height": 256, "exif": "{}", "sha256": "0" * 64,
            }  # fmt: skip
            metadata.append(fields)
            members += [
                (f"{key}.jpg", f"image {key}".encode()),
                (f"{key}.txt", fields["caption"].encode()),
                (f"{key}.json", json.dumps(fields, indent=4).encode()),
            ]
        if output_format == "webdataset":
            write_tar(folder / f"{name}.tar", members)
        elif output_format == "files":
            write_files(folder / name, dict(members))
        else:
            images = [content for member, content in members if member.endswith(".jpg")]
            metadata = [{**fields, "jpg": image} for fields, image in zip(metadata, images, strict=True)]
        pq.write_table(pa.Table.from_pylist(metadata), folder / f"{name}.parquet")
        (folder / f"{name}_stats.json").write_text(json.dumps({"count": rows, "successes": rows}))
    return folder


# Layout -> files, and the samples of their train split as (image name, text, number in the image).
TRAIN_SPLITS = {
    "coco-cn": (COCO_CN_FILES, [(CN_TRAIN, "房子", 4)]),
    "aic-icc": (AIC_ICC_FILES, [("c.jpg", "天", 3)]),
    "mscoco": (
        MSCOCO_FILES,
        [
            ("COCO_val2014_000000000001.jpg", "Sentence 10.", 1),  # restval
            ("COCO_train2014_000000000002.jpg", "Sentence 11.", 2),
        ],
    ),
    "flickr30k": (
        {"dataset_flickr30k.json": FLICKR30K, "flickr30k-images/1.jpg": make_image(1)},
        [("1.jpg", "Sentence 0.", 1)],
    ),
    "flickr30k-cn": (FLICKR30K_CN_FILES, [("36979", "两个年轻人", 3)]),
    "chinese-clip": (CLIP_FILES, [("5", "猫", 5), ("6", "猫", 6), ("6", "狗", 6)]),
    "coco-captions": (COCO_CAPTIONS_FILES, [("9", "A cat.", 9), ("9", "Two cats.", 9), ("7", "A dog.", 7)]),
}
