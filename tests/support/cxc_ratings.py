"""Made-up ratings of Crisscrossed Captions in the files of their authors, and the images that they rate."""

import csv
import gzip
import json

import numpy as np
import pytest

from ernie_vil2.evaluation.scorers import cxc
from tests.support.shapes import draw, encode_png

IMAGES, TEXTS_PER_IMAGE = 30, 5


def make_image_id(number):
    return f"COCO_val2014_{number:012d}.jpg"


def make_caption_id(number):
    return f"COCO_val2014:sentid:{number}"


def draw_rating(rng):
    """Draw a rating in quarters, so that many ratings lie exactly on the threshold."""
    return round(4 * rng.uniform(0, 5)) / 4


@pytest.fixture(name="folder")
def rated_folder(tmp_path, monkeypatch):
    """Write ratings of 30 images and 150 captions; the third image has no rated caption, its captions no image."""
    rng = np.random.default_rng(0)
    tables = {"sits": [], "sts": [], "sis": []}
    for image in range(IMAGES):
        for caption in range(image * TEXTS_PER_IMAGE, (image + 1) * TEXTS_PER_IMAGE):
            tables["sits"].append((make_caption_id(caption), make_image_id(image), 2.0 if image == 2 else 4.5))
    for _ in range(120):
        caption, image = rng.integers(5, IMAGES * TEXTS_PER_IMAGE), rng.integers(3, IMAGES)
        tables["sits"].append((make_caption_id(caption), make_image_id(image), draw_rating(rng)))
        first, second = rng.choice(IMAGES * TEXTS_PER_IMAGE, 2, replace=False)
        tables["sts"].append((make_caption_id(first), make_caption_id(second), draw_rating(rng)))
        first, second = rng.choice(IMAGES, 2, replace=False)
        tables["sis"].append((make_image_id(first), make_image_id(second), draw_rating(rng)))
    for kind, rows in tables.items():
        # The published numbers of ratings, which the scorer checks.
        monkeypatch.setitem(cxc.NUM_RATINGS, (kind, "test"), len(rows))
        with (tmp_path / f"{kind}_test.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["first", "second", "agg_score", "sampling_method"])
            writer.writerows([*row, "made"] for row in rows)
    return tmp_path


def write_images(folder, split="test"):
    """Write the rated images, and Karpathy's JSON file of them."""
    rng, rows = np.random.default_rng(0), []
    (folder / "val2014").mkdir()
    for image in range(IMAGES):
        (folder / "val2014" / make_image_id(image)).write_bytes(encode_png(draw((200, 30, 30), "disc", rng)))
        sentences = [{"raw": f"a {number}", "sentid": image * 5 + number, "imgid": image} for number in range(5)]
        rows.append({"filename": make_image_id(image), "filepath": "val2014", "split": split, "imgid": image,
                     "sentences": sentences})  # fmt: skip
    (folder / "dataset_coco.json").write_text(json.dumps({"images": rows}))


def write_ratings(tmp_path, rows, ending="", scores=None):
    """Write a file with a number of ratings of captions; the scorer expects NUM_RATINGS of them."""
    path = tmp_path / f"sts_test.csv{ending}"
    scores = scores or [f"{number % 6}" for number in range(rows)]
    text = "caption1,caption2,agg_score,sampling_method\n"
    for number, score in enumerate(scores):
        text += f"{make_caption_id(number)},{make_caption_id(number + 1)},{score},c2c_isim\n"
    open_file = gzip.open if ending else open
    open_file(path, "wt").write(text)
    return path
