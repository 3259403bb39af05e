"""Make a shop: images of products, and a table as Excel writes it in China, for docs/own_data.md.

    python demo_data/shop.py --output shop                  # 600 images of 300 products, in some seconds
    python demo_data/shop.py --output shop --products 40

Each product is a drawing of the demo's validation set, one to three times, on a card of some colour, photographed
twice: the title names colour, number and object, so that a model that knows the objects has something to learn. The
table, 商品.csv, is in GB18030 with semicolons; its columns are 图片, 标题, 货号, 类目 and 价格. The images lie in
photos/.
"""

import argparse
import csv
import io
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ernie_vil2.data.decoding import decode_image  # noqa: E402
from ernie_vil2.data.readers import open_sources  # noqa: E402
from ernie_vil2.io.files import write_text  # noqa: E402

DRAWINGS = ROOT / "demo_data" / "emoji-val.tar"
# Colours of the cards, RGB.
COLOURS = {
    "红色": (224, 92, 80),
    "黄色": (246, 208, 84),
    "绿色": (120, 190, 110),
    "蓝色": (104, 150, 224),
    "紫色": (170, 120, 200),
    "灰色": (170, 170, 170),
}
NUMBERS = {1: "一件", 2: "两件装", 3: "三件装"}
HEADER = ("图片", "标题", "货号", "类目", "价格")  # image, title, number, category, price
SIDE = 96  # of a photo, in pixels
# Number of objects -> side of an object, and their left and top edges.
OBJECT_SIDES = {1: 60, 2: 44, 3: 36}
CORNERS = {1: [(18, 18)], 2: [(3, 26), (49, 26)], 3: [(6, 6), (54, 6), (30, 54)]}


def photograph(drawing: np.ndarray, colour: tuple[int, int, int], number: int, rng: np.random.Generator) -> bytes:
    """Return a JPEG of one to three objects on a card.

    Args:
        drawing: RGB pixels of the object.
        colour: RGB of the card.
        number: number of objects.
        rng: changes shade, size and places a little.
    """
    shade = rng.integers(-14, 15, 3)
    photo = np.full((SIDE, SIDE, 3), np.clip(np.array(colour) + shade, 0, 255), np.uint8)
    side = OBJECT_SIDES[number] + int(rng.integers(-3, 4))
    small = cv2.resize(drawing, (side, side), interpolation=cv2.INTER_AREA)
    is_background = (small > 246).all(2)[..., None]  # [side, side, 1]
    for corner_left, corner_top in CORNERS[number]:
        left = int(np.clip(corner_left + rng.integers(-3, 4), 0, SIDE - side))
        top = int(np.clip(corner_top + rng.integers(-3, 4), 0, SIDE - side))
        patch = photo[top : top + side, left : left + side]
        photo[top : top + side, left : left + side] = np.where(is_background, patch, small)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return jpeg.tobytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--products", type=int, default=300, help="number of products")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random numbers")
    args = parser.parse_args()

    rng, source = np.random.default_rng(args.seed), open_sources([str(DRAWINGS)])
    (args.output / "photos").mkdir(parents=True, exist_ok=True)
    objects = [row for row in range(len(source)) if source[row].fields["kind"] == "object"]
    rows: list[tuple] = [HEADER]
    for product in range(args.products):
        sample = source[int(rng.choice(objects))]
        drawing = decode_image(sample.image, sample.image_name)
        colour, number = str(rng.choice(list(COLOURS))), int(rng.integers(1, 4))
        title = f"{colour}卡片 {sample.captions['zh']} {NUMBERS[number]}"
        price = f"{rng.integers(5, 200)}.{rng.integers(0, 10)}"
        for view in "ab":
            name = f"{product:04d}{view}.jpg"
            (args.output / "photos" / name).write_bytes(photograph(drawing, COLOURS[colour], number, rng))
            rows.append((name, title, f"A{product:05d}", colour, price))
    table = io.StringIO()
    csv.writer(table, delimiter=";", lineterminator="\r\n").writerows(rows)
    path = args.output / "商品.csv"
    path.write_bytes(table.getvalue().encode("gb18030"))
    write_text(args.output / "LICENSE.txt", "Drawings: see demo_data/LICENSES.md.\n")
    print(f"{len(rows) - 1} images of {args.products} products: {args.output / 'photos'}, {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
