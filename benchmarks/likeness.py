"""Which altered copies of an image are found, by kind, and how many false pairs there are.

    python benchmarks/likeness.py --photos FOLDER                # photographs: crops of the JPEGs of a folder
    python benchmarks/likeness.py --half develop                 # the images and strengths that limits were chosen on

Every source image is altered in every way once, and each altered image is a query among the source images and others.
Found: the query is a duplicate of its source. A pair with another image is false; so is one of two originals. Drawings
are the demo's, alone and in scenes of two or three. Other methods are compared (`likeness_peers.py`): imagehash's phash
where it is installed (pip install imagehash), ORB with a homography, and the embeddings of a model (`--model`).
"""

import argparse
import io
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "demo_data")]

from crawl import drawings, large, lookalikes, scene  # noqa: E402

from benchmarks.likeness_peers import find_by_orb, find_by_phash, make_embedding_method  # noqa: E402
from ernie_vil2.apps.curation.guesses import Comparison  # noqa: E402
from ernie_vil2.apps.curation.image_pairs import find_matches  # noqa: E402
from ernie_vil2.apps.curation.likeness import make_thumbnails  # noqa: E402
from ernie_vil2.apps.curation.thumbnails import pack_thumbnails  # noqa: E402

HALVES = ("develop", "report")
MIN_DEVIATION = 12  # of a photograph's luminance: less is a plain sky, in which nothing can be told apart


class Altering:
    """Random alterations of one half: the two halves have other strengths."""

    def __init__(self, half: str, seed: int = 0):
        self.half = HALVES.index(half)
        self.rng = np.random.default_rng(seed + self.half)

    def pick(self, *strengths: Sequence[float]) -> float:
        """Return one of the strengths of this half."""
        return float(self.rng.choice(strengths[self.half]))

    def change_levels(self, image: Image.Image, curve: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
        levels = np.clip(curve(np.arange(256.0)), 0, 255).round().astype(int).tolist()
        return image.point(levels * 3)

    def brightness(self, image: Image.Image) -> Image.Image:
        factor = self.pick((0.5, 0.7, 1.3, 1.6), (0.55, 0.8, 1.2, 1.5))
        return self.change_levels(image, lambda levels: levels * factor)

    def contrast(self, image: Image.Image) -> Image.Image:
        factor = self.pick((0.6, 0.8, 1.3, 1.6), (0.65, 0.75, 1.25, 1.5))
        mean = np.asarray(image.convert("L")).mean()
        return self.change_levels(image, lambda levels: (levels - mean) * factor + mean)

    def gamma(self, image: Image.Image) -> Image.Image:
        power = self.pick((0.5, 0.7, 1.5, 2.0), (0.6, 0.8, 1.3, 1.8))
        return self.change_levels(image, lambda levels: 255 * (levels / 255) ** power)

    def saturation(self, image: Image.Image) -> Image.Image:
        return ImageEnhance.Color(image).enhance(self.pick((0, 0.4, 1.6, 2.0), (0, 0.5, 1.4, 1.8)))

    def tint(self, image: Image.Image) -> Image.Image:
        tint = self.pick((0.1, 0.14), (0.08, 0.12))
        gains = np.full(3, 1 - tint / 2)
        gains[self.rng.integers(3)] = 1 + tint / 2
        return Image.fromarray(np.clip(np.asarray(image) * gains, 0, 255).astype(np.uint8))

    def jpeg(self, image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(self.pick((20, 40), (25, 30, 50))))
        return Image.open(file).convert("RGB")

    def blur(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(self.pick((1, 2), (1.5, 1.8)) * max(image.size) / 224))

    def noise(self, image: Image.Image) -> Image.Image:
        pixels = np.asarray(image, float)
        noise = self.rng.normal(0, self.pick((8, 20), (12, 16)), pixels.shape)
        return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))

    def resize(self, image: Image.Image) -> Image.Image:
        factor = self.pick((0.5, 0.75, 1.5), (0.6, 1.25))
        return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)

    def stretch(self, image: Image.Image) -> Image.Image:
        factor = self.pick((0.7, 0.85, 1.2, 1.4), (0.75, 0.8, 1.15, 1.3))
        return image.resize((round(image.width * factor), image.height), Image.Resampling.BICUBIC)

    def border(self, image: Image.Image) -> Image.Image:
        edge = int(self.pick((0.03, 0.12), (0.05, 0.1)) * max(image.size))
        colour = tuple(self.rng.integers(0, 256, 3).tolist())
        framed = Image.new("RGB", (image.width + 2 * edge, image.height + 2 * edge), colour)
        framed.paste(image, (edge, edge))
        return framed

    def bar(self, image: Image.Image) -> Image.Image:
        """Add a bar with an address at the top or the bottom."""
        height = int(self.pick((0.08, 0.15), (0.1, 0.12)) * image.height)
        is_dark = self.rng.random() < 0.5
        colour = tuple((self.rng.integers(0, 80, 3) if is_dark else self.rng.integers(200, 256, 3)).tolist())
        bar = Image.new("RGB", (image.width, height), colour)
        ink = (255, 255, 255) if is_dark else (30, 30, 30)
        draw_text(bar, (height * 0.3, height * 0.2), "www.example.com  buy now", height * 0.55, ink)
        is_top = self.rng.random() < 0.5
        longer = Image.new("RGB", (image.width, image.height + height))
        longer.paste(image, (0, height if is_top else 0))
        longer.paste(bar, (0, 0 if is_top else image.height))
        return longer

    def crop(self, image: Image.Image) -> Image.Image:
        share = self.pick((0.6, 0.75, 0.9), (0.62, 0.7, 0.85))
        width, height = round(image.width * share), round(image.height * share)
        left, top = (int(self.rng.integers(0, room + 1)) for room in (image.width - width, image.height - height))
        return image.crop((left, top, left + width, top + height))

    def tiled_marks(self, image: Image.Image) -> Image.Image:
        size, word = max(image.size) * self.rng.uniform(0.05, 0.09), str(self.rng.choice(["SAMPLE", "watermark"]))
        level, alpha = int(self.rng.choice([90, 255])), int(255 * self.pick((0.2, 0.4), (0.25, 0.35)))
        layer = Image.new("RGBA", (2 * max(image.size),) * 2, (0, 0, 0, 0))
        for row, top in enumerate(np.arange(0, layer.height, 2.6 * size)):
            for left in np.arange(-(row % 2) * 3 * size, layer.width, 7 * size):
                draw_text(layer, (left, top), word, size, (level, level, level, alpha))
        layer = layer.rotate(self.pick((30, 45), (20, 35)))
        left, top = (layer.width - image.width) // 2, (layer.height - image.height) // 2
        marked = image.convert("RGBA")
        marked.alpha_composite(layer.crop((left, top, left + image.width, top + image.height)))
        return marked.convert("RGB")

    def corner_mark(self, image: Image.Image) -> Image.Image:
        size = max(image.size) * self.pick((0.06, 0.1), (0.07, 0.09))
        left = image.width * float(self.rng.choice([0.02, 0.5]))
        top = float(self.rng.choice([image.height * 0.02, image.height * 0.96 - size]))
        marked = image.copy()
        ink = (255, 255, 255) if self.rng.random() < 0.6 else (200, 30, 30)
        draw_text(marked, (left, top), str(self.rng.choice(["@photo_7", "© Studio", "shop.com"])), size, ink)
        return marked

    def mirror(self, image: Image.Image) -> Image.Image:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    def quarter_turn(self, image: Image.Image) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(image), self.rng.integers(1, 4))))

    def turn_3(self, image: Image.Image) -> Image.Image:
        """Turn by 3 degrees, with black or white corners or without corners."""
        turned_colour = self.rng.choice([0, 255])
        turned = image.rotate(
            float(self.rng.choice([3, -3])), Image.Resampling.BICUBIC, fillcolor=(int(turned_colour),) * 3
        )
        edge = int(0.06 * max(image.size)) if self.rng.random() < 0.3 else 0
        return turned.crop((edge, edge, image.width - edge, image.height - edge))

    def sticker(self, image: Image.Image) -> Image.Image:
        """Cover up to 15 % of the area; the caption stays the same."""
        share, ratio = self.pick((0.08, 0.15), (0.1, 0.15)), self.rng.uniform(0.7, 1.4)
        width, height = round(image.width * (share * ratio) ** 0.5), round(image.height * (share / ratio) ** 0.5)
        left, top = (int(self.rng.integers(0, room + 1)) for room in (image.width - width, image.height - height))
        covered = image.copy()
        colour = tuple(self.rng.integers(0, 256, 3).tolist())
        ImageDraw.Draw(covered).rectangle((left, top, left + width, top + height), fill=colour)
        draw_text(covered, (left + 0.1 * width, top + 0.3 * height), "SALE", width * 0.25, (255, 255, 255))
        return covered

    def other_hue(self, image: Image.Image) -> Image.Image:
        """Turn the hues, as of a product in another colour: such an image is another one, and must not be found."""
        pixels = np.asarray(image.convert("HSV")).copy()
        pixels[..., 0] = (pixels[..., 0].astype(int) + int(self.pick((40, 90, 128), (60, 110, 170)))) % 256
        return Image.fromarray(pixels, "HSV").convert("RGB")


KINDS = [name for name in vars(Altering) if name not in ("pick", "change_levels") and not name.startswith("_")]


def draw_text(image: Image.Image, place: tuple[float, float], text: str, size: float, ink: tuple[int, ...]) -> None:
    """Draw a text with Pillow's own font."""
    ImageDraw.Draw(image).text(place, text, fill=ink, font=ImageFont.load_default(max(8, round(size))))


def cut_photos(folder: Path, half: str) -> list[Image.Image]:
    """Return disjoint crops of 300 to 600 pixels of every other JPEG of a folder."""
    rng = np.random.default_rng(0)
    photos = []
    for path in sorted(folder.glob("*.jpg"))[HALVES.index(half) :: 2]:
        image = Image.open(path).convert("RGB")
        top = 0
        while top + 300 <= image.height:
            height = int(rng.integers(300, min(600, image.height - top) + 1))
            left = 0
            while left + 300 <= image.width:
                width = int(rng.integers(300, min(600, image.width - left) + 1))
                photo = image.crop((left, top, left + width, top + height))
                if np.asarray(photo.convert("L")).std() > MIN_DEVIATION:
                    photos.append(photo)
                left += width
            top += height
    return photos


def make_drawings(half: str) -> list[Image.Image]:
    """Return the demo's drawings without those that resemble another one, and as many scenes."""
    rng = np.random.default_rng(0)
    pool = []
    for split in ("train",) if half == "develop" else ("val", "test"):
        pool += drawings(ROOT / "demo_data" / f"emoji-{split}.tar")
    alike_names = lookalikes(pool)
    pool = [drawing for drawing in pool if drawing.name not in alike_names]
    images = []
    for drawing in pool:
        images.append(large(drawing, rng))
        chosen = rng.choice(len(pool), int(rng.integers(2, 4)), replace=False)
        images.append(scene([pool[number] for number in chosen], rng))
    return images


def find_pairs(
    images: Sequence[Image.Image],
    queries: Sequence[Image.Image] | None,
    equal_captions: Sequence[tuple[int, int]] = (),
) -> dict[tuple[int, int], bool]:
    """Return pairs of a query and an image, and whether they differ in a spot or an object.

    Args:
        images: images.
        queries: what is looked for among them; None: the images among themselves.
        equal_captions: numbers of queries and images that have the same caption.
    """
    packed = pack_thumbnails([make_thumbnails(np.asarray(image)) for image in images])
    asked = None if queries is None else pack_thumbnails([make_thumbnails(np.asarray(query)) for query in queries])
    query_samples = packed.samples if asked is None else asked.samples
    pairs: dict[tuple[int, int], bool] = {}
    with tempfile.TemporaryDirectory() as folder:
        suspects = np.array(equal_captions, np.int64).reshape(-1, 2)
        for matches in find_matches(packed, Path(folder), Comparison(), asked, suspects=suspects):
            first, second = query_samples[matches.queries].tolist(), packed.samples[matches.rows].tolist()
            differs = (matches.is_local | matches.has_object).tolist()  # such a pair stays unless its captions agree
            for pair, is_local in zip(zip(first, second, strict=True), differs, strict=True):
                pairs[pair] = pairs.get(pair, True) and is_local
    return pairs


def measure(images: list[Image.Image], num_sources: int, half: str, method: Callable) -> tuple[dict[str, float], str]:
    """Return the percentage of sources found by kind, and a line with the false pairs and the CPU time.

    Of the kind `other_hue` none should be found.
    """
    altering = Altering(half)
    queries, labels = [], []
    for source in range(num_sources):
        for kind in KINDS:
            queries.append(getattr(altering, kind)(images[source]))
            labels.append((source, kind))
    arguments: list = [images, queries]
    # A stickered copy keeps its caption, so that the step compares it in any case, and removes it although it differs
    # in a spot. The other methods compare all pairs.
    if method is find_pairs:
        arguments.append([(query, source) for query, (source, kind) in enumerate(labels) if kind == "sticker"])
    start = time.process_time()
    pairs = method(*arguments)
    spent = time.process_time() - start
    hits: Counter[str] = Counter()
    false: defaultdict[str, int] = defaultdict(int)
    for (query, image), is_local in pairs.items():
        source, kind = labels[query]
        if image == source:
            hits[kind] += kind == "sticker" or not is_local
        else:
            false["altered"] += not is_local
    false["originals"] = sum(not is_local for is_local in method(images, None).values())
    num_queries = len(queries) * (len(images) - 1)
    num_originals = len(images) * (len(images) - 1) // 2
    shares = {kind: 100 * hits[kind] / num_sources for kind in KINDS}
    report = (
        f"false pairs: {false['altered']} of {num_queries:,} with an altered image, {false['originals']} of "
        f"{num_originals:,} originals; {1000 * spent / (len(queries) + len(images)):.1f} ms of CPU an image"
    )
    return shares, report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="large JPEGs; without it: drawings alone")
    parser.add_argument("--sources", type=int, default=40, help="images that are altered in every way")
    parser.add_argument("--images", type=int, default=400, help="images in all")
    parser.add_argument("--model", help="run, folder or name of a model whose embeddings are compared")
    parser.add_argument("--half", choices=HALVES, default="report")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    threadpool_limits(1)  # threads that wait for each other would count as time
    sets = {"drawings": make_drawings(args.half)}
    if args.photos:
        sets["photographs"] = cut_photos(args.photos, args.half)
    methods: dict[str, Callable] = {"this": find_pairs, "ORB": find_by_orb}
    if find_spec("imagehash"):
        methods["phash"] = find_by_phash
    else:
        print("imagehash is not installed: its columns are left out", file=sys.stderr)
    if args.model:
        methods["embeddings"] = make_embedding_method(args.model)
    columns: dict[str, dict[str, float]] = {}
    for domain, images in sets.items():
        order = np.random.default_rng(1).permutation(len(images))[: args.images]
        chosen = [images[number] for number in order]
        for name, method in methods.items():
            title = f"{domain}, {name}"
            columns[title], report = measure(chosen, min(args.sources, len(chosen)), args.half, method)
            print(f"{title}: {report}", flush=True)
    print(f"\n| % found | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}")
    for kind in KINDS:
        print(f"| {kind} | {' | '.join(f'{shares[kind]:.0f}' for shares in columns.values())} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
