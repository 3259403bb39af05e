"""Made-up ratings of Crisscrossed Captions in the files of their authors, and images that they are of."""

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
    """Quarters, so that many ratings are exactly the least that counts."""
    return round(4 * rng.uniform(0, 5)) / 4


@pytest.fixture(name="folder")
def rated_folder(tmp_path, monkeypatch):
    """Ratings of 30 images and 150 captions; the third image has no rated caption, its captions no image."""
    rng = np.random.default_rng(0)
    tables = {"sits": [], "sts": [], "sis": []}
    for image in range(IMAGES):
        for caption in range(image * TEXTS_PER_IMAGE, (image + 1) * TEXTS_PER_IMAGE):
            tables["sits"].append((make_caption_id(caption), make_image_id(image), 2.0 if image == 2 else 4.5))
    for _ in range(120):
        caption, image = rng.integers(5, IMAGES * TEXTS_PER_IMAGE), rng.integers(3, IMAGES)
        tables["sits"].append((make_caption_id(caption), make_image_id(image), draw_rating(rng)))
        a, b = rng.choice(IMAGES * TEXTS_PER_IMAGE, 2, replace=False)
        tables["sts"].append((make_caption_id(a), make_caption_id(b), draw_rating(rng)))
        a, b = rng.choice(IMAGES, 2, replace=False)
        tables["sis"].append((make_image_id(a), make_image_id(b), draw_rating(rng)))
    for kind, rows in tables.items():
        monkeypatch.setitem(cxc.NUM_RATINGS, (kind, "test"), len(rows))
        with (tmp_path / f"{kind}_test.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["first", "second", "agg_score", "sampling_method"])
            writer.writerows([*row, "made"] for row in rows)
    return tmp_path


def write_images(folder, split="test"):
    """The images that are rated, and Karpathy's JSON of them."""
    rng, rows = np.random.default_rng(0), []
    (folder / "val2014").mkdir()
    for image in range(IMAGES):
        (folder / "val2014" / make_image_id(image)).write_bytes(encode_png(draw((200, 30, 30), "disc", rng)))
        sentences = [{"raw": f"a {number}", "sentid": image * 5 + number, "imgid": image} for number in range(5)]
        rows.append({"filename": make_image_id(image), "filepath": "val2014", "split": split, "imgid": image,
                     "sentences": sentences})  # fmt: skip
    (folder / "dataset_coco.json").write_text(json.dumps({"images": rows}))


def write_ratings(tmp_path, rows, ending="", scores=None):
    """Ratings of captions that are as many as NUM_RATINGS says, unless `rows` differ."""
    path = tmp_path / f"sts_test.csv{ending}"
    scores = scores or [f"{number % 6}" for number in range(rows)]
    text = "caption1,caption2,agg_score,sampling_method\n"
    text += "".join(
        f"{make_caption_id(n)},{make_caption_id(n + 1)},{score},c2c_isim\n" for n, score in enumerate(scores)
    )
    (gzip.open if ending else open)(path, "wt").write(text)
    return path
