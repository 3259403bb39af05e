"""A shop of its own: images of products and a table as Excel writes it in China, for docs/own_data.md.

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
COLOURS = {"红色": (224, 92, 80), "黄色": (246, 208, 84), "绿色": (120, 190, 110), "蓝色": (104, 150, 224),
           "紫色": (170, 120, 200), "灰色": (170, 170, 170)}  # fmt: skip
NUMBERS = {1: "一件", 2: "两件装", 3: "三件装"}
HEADER = ("图片", "标题", "货号", "类目", "价格")
SIDE = 96


def photograph(drawing: np.ndarray, colour: tuple[int, int, int], number: int, random: np.random.Generator) -> bytes:
    """A JPEG of so many of a drawing on a card, a little differently each time."""
    shade = random.integers(-14, 15, 3)
    photo = np.full((SIDE, SIDE, 3), np.clip(np.array(colour) + shade, 0, 255), np.uint8)
    side = {1: 60, 2: 44, 3: 36}[number] + int(random.integers(-3, 4))
    small = cv2.resize(drawing, (side, side), interpolation=cv2.INTER_AREA)
    background = (small > 246).all(2)[..., None]
    corners = {1: [(18, 18)], 2: [(3, 26), (49, 26)], 3: [(6, 6), (54, 6), (30, 54)]}[number]
    for left, top in corners:
        left, top = (int(np.clip(at + random.integers(-3, 4), 0, SIDE - side)) for at in (left, top))
        patch = photo[top : top + side, left : left + side]
        photo[top : top + side, left : left + side] = np.where(background, patch, small)
    return cv2.imencode(".jpg", cv2.cvtColor(photo, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--products", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random, source = np.random.default_rng(args.seed), open_sources([str(DRAWINGS)])
    (args.output / "photos").mkdir(parents=True, exist_ok=True)
    objects = [row for row in range(len(source)) if source[row].fields["kind"] == "object"]
    rows: list[tuple] = [HEADER]
    for product in range(args.products):
        sample = source[int(random.choice(objects))]
        drawing = decode_image(sample.image, sample.image_name)
        colour, number = str(random.choice(list(COLOURS))), int(random.integers(1, 4))
        title = f"{colour}卡片 {sample.captions['zh']} {NUMBERS[number]}"
        price = f"{random.integers(5, 200)}.{random.integers(0, 10)}"
        for view in "ab":
            name = f"{product:04d}{view}.jpg"
            (args.output / "photos" / name).write_bytes(photograph(drawing, COLOURS[colour], number, random))
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
