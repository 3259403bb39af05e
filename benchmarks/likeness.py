"""Measure which altered copies of images are found as duplicates, by kind, and how many false pairs there are.

    python benchmarks/likeness.py --photos FOLDER                # photographs: crops of the JPEGs of a folder
    python benchmarks/likeness.py --half develop                 # the images and strengths that limits were chosen on

Every source image is altered once in each way, and the altered image is looked for among the sources and other images.
A pair with its source is a hit; a pair with another image is false, and so is a pair of originals. Drawings are the
demo's, alone and in scenes of two or three. Peers are compared (`likeness_peers.py`): imagehash's phash if it is
installed (pip install imagehash), ORB with a homography, and the embeddings of a model (`--model`).
"""

import argparse
import io
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "demo_data")]

from crawl import draw_scene, enlarge, find_lookalikes, read_drawings  # noqa: E402

from benchmarks.likeness_peers import Pairs, find_by_orb, find_by_phash, make_embedding_method  # noqa: E402
from ernie_vil2.apps.curation.guesses import Comparison  # noqa: E402
from ernie_vil2.apps.curation.image_pairs import find_matches  # noqa: E402
from ernie_vil2.apps.curation.likeness import make_thumbnails  # noqa: E402
from ernie_vil2.apps.curation.thumbnails import pack_thumbnails  # noqa: E402

HALVES = ("develop", "report")  # to choose limits, and to report with them
MIN_DEVIATION = 12  # least standard deviation of a photograph's luminance: plain skies cannot be told apart
CROP_SIDES = (300, 600)  # least and largest side of a photograph in pixels
PHOTO_SUFFIXES = (".jpg", ".jpeg")  # in any case: the photographs of ImageNet end in .JPEG


class Altering:
    """Random alterations of images; each public method is a kind of alteration.

    Args:
        half: of `HALVES`, which differ in the strengths.
        seed: seed of the strengths and places.
    """

    def __init__(self, half: str, seed: int = 0):
        self.half = HALVES.index(half)
        self.rng = np.random.default_rng(seed + self.half)

    def _pick(self, *strengths: Sequence[float]) -> float:
        """Return one of the strengths of this half; each argument has those of one half."""
        return float(self.rng.choice(strengths[self.half]))

    def _pick_corner(self, max_left: int, max_top: int) -> tuple[int, int]:
        """Return a random left and top in pixels."""
        left = int(self.rng.integers(0, max_left + 1))
        return left, int(self.rng.integers(0, max_top + 1))

    def _change_levels(self, image: Image.Image, curve: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
        """Map the levels 0 to 255 of all channels by a curve."""
        levels = np.clip(curve(np.arange(256.0)), 0, 255).round().astype(int).tolist()
        return image.point(levels * 3)

    def brightness(self, image: Image.Image) -> Image.Image:
        factor = self._pick((0.5, 0.7, 1.3, 1.6), (0.55, 0.8, 1.2, 1.5))
        return self._change_levels(image, lambda levels: levels * factor)

    def contrast(self, image: Image.Image) -> Image.Image:
        factor = self._pick((0.6, 0.8, 1.3, 1.6), (0.65, 0.75, 1.25, 1.5))
        mean = np.asarray(image.convert("L")).mean()
        return self._change_levels(image, lambda levels: (levels - mean) * factor + mean)

    def gamma(self, image: Image.Image) -> Image.Image:
        power = self._pick((0.5, 0.7, 1.5, 2.0), (0.6, 0.8, 1.3, 1.8))
        return self._change_levels(image, lambda levels: 255 * (levels / 255) ** power)

    def saturation(self, image: Image.Image) -> Image.Image:
        return ImageEnhance.Color(image).enhance(self._pick((0, 0.4, 1.6, 2.0), (0, 0.5, 1.4, 1.8)))

    def tint(self, image: Image.Image) -> Image.Image:
        tint = self._pick((0.1, 0.14), (0.08, 0.12))
        gains = np.full(3, 1 - tint / 2)
        gains[self.rng.integers(3)] = 1 + tint / 2
        return Image.fromarray(np.clip(np.asarray(image) * gains, 0, 255).astype(np.uint8))

    def jpeg(self, image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(self._pick((20, 40), (25, 30, 50))))
        return Image.open(file).convert("RGB")

    def blur(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(self._pick((1, 2), (1.5, 1.8)) * max(image.size) / 224))

    def noise(self, image: Image.Image) -> Image.Image:
        pixels = np.asarray(image, float)
        noise = self.rng.normal(0, self._pick((8, 20), (12, 16)), pixels.shape)
        return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))

    def resize(self, image: Image.Image) -> Image.Image:
        factor = self._pick((0.5, 0.75, 1.5), (0.6, 1.25))
        return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)

    def stretch(self, image: Image.Image) -> Image.Image:
        factor = self._pick((0.7, 0.85, 1.2, 1.4), (0.75, 0.8, 1.15, 1.3))
        return image.resize((round(image.width * factor), image.height), Image.Resampling.BICUBIC)

    def border(self, image: Image.Image) -> Image.Image:
        edge = int(self._pick((0.03, 0.12), (0.05, 0.1)) * max(image.size))
        colour = tuple(self.rng.integers(0, 256, 3).tolist())
        framed = Image.new("RGB", (image.width + 2 * edge, image.height + 2 * edge), colour)
        framed.paste(image, (edge, edge))
        return framed

    def bar(self, image: Image.Image) -> Image.Image:
        """Add a bar with an address at the top or the bottom."""
        height = int(self._pick((0.08, 0.15), (0.1, 0.12)) * image.height)
        is_dark = self.rng.random() < 0.5
        levels = self.rng.integers(0, 80, 3) if is_dark else self.rng.integers(200, 256, 3)
        bar = Image.new("RGB", (image.width, height), tuple(levels.tolist()))
        ink = (255, 255, 255) if is_dark else (30, 30, 30)
        draw_text(bar, (height * 0.3, height * 0.2), "www.example.com  buy now", height * 0.55, ink)
        is_top = self.rng.random() < 0.5
        longer = Image.new("RGB", (image.width, image.height + height))
        longer.paste(image, (0, height if is_top else 0))
        longer.paste(bar, (0, 0 if is_top else image.height))
        return longer

    def crop(self, image: Image.Image) -> Image.Image:
        share = self._pick((0.6, 0.75, 0.9), (0.62, 0.7, 0.85))
        width, height = round(image.width * share), round(image.height * share)
        left, top = self._pick_corner(image.width - width, image.height - height)
        return image.crop((left, top, left + width, top + height))

    def tiled_marks(self, image: Image.Image) -> Image.Image:
        """Cover the image with a slanted, translucent word."""
        size = max(image.size) * self.rng.uniform(0.05, 0.09)
        word = str(self.rng.choice(["SAMPLE", "watermark"]))
        level = int(self.rng.choice([90, 255]))
        alpha = int(255 * self._pick((0.2, 0.4), (0.25, 0.35)))
        layer = Image.new("RGBA", (2 * max(image.size),) * 2, (0, 0, 0, 0))  # covers the image at any angle
        for row, top in enumerate(np.arange(0, layer.height, 2.6 * size)):
            for left in np.arange(-(row % 2) * 3 * size, layer.width, 7 * size):
                draw_text(layer, (left, top), word, size, (level, level, level, alpha))
        layer = layer.rotate(self._pick((30, 45), (20, 35)))
        left, top = (layer.width - image.width) // 2, (layer.height - image.height) // 2
        marked = image.convert("RGBA")
        marked.alpha_composite(layer.crop((left, top, left + image.width, top + image.height)))
        return marked.convert("RGB")

    def corner_mark(self, image: Image.Image) -> Image.Image:
        size = max(image.size) * self._pick((0.06, 0.1), (0.07, 0.09))
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
        corner_level = int(self.rng.choice([0, 255]))
        degrees = float(self.rng.choice([3, -3]))
        turned = image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(corner_level,) * 3)
        edge = int(0.06 * max(image.size)) if self.rng.random() < 0.3 else 0
        return turned.crop((edge, edge, image.width - edge, image.height - edge))

    def sticker(self, image: Image.Image) -> Image.Image:
        """Cover up to 15 % of the area; the caption stays the same."""
        share = self._pick((0.08, 0.15), (0.1, 0.15))
        aspect = self.rng.uniform(0.7, 1.4)
        width = round(image.width * (share * aspect) ** 0.5)
        height = round(image.height * (share / aspect) ** 0.5)
        left, top = self._pick_corner(image.width - width, image.height - height)
        covered = image.copy()
        colour = tuple(self.rng.integers(0, 256, 3).tolist())
        ImageDraw.Draw(covered).rectangle((left, top, left + width, top + height), fill=colour)
        draw_text(covered, (left + 0.1 * width, top + 0.3 * height), "SALE", width * 0.25, (255, 255, 255))
        return covered

    def other_hue(self, image: Image.Image) -> Image.Image:
        """Turn the hues, as of a product in another colour, which is not a duplicate and must not be found."""
        pixels = np.asarray(image.convert("HSV")).copy()
        pixels[..., 0] = (pixels[..., 0].astype(int) + int(self._pick((40, 90, 128), (60, 110, 170)))) % 256
        return Image.fromarray(pixels, "HSV").convert("RGB")


KINDS = [name for name in vars(Altering) if not name.startswith("_")]


def draw_text(image: Image.Image, corner: tuple[float, float], text: str, size: float, ink: tuple[int, ...]) -> None:
    """Draw a text with Pillow's own font, its left and top at a corner in pixels."""
    ImageDraw.Draw(image).text(corner, text, fill=ink, font=ImageFont.load_default(max(8, round(size))))


def cut_photos(folder: Path, half: str) -> list[Image.Image]:
    """Return disjoint crops of every other JPEG of a folder, with sides of `CROP_SIDES`."""
    rng = np.random.default_rng(0)
    min_side, max_side = CROP_SIDES
    photos = []
    paths = [path for path in sorted(folder.glob("*")) if path.suffix.lower() in PHOTO_SUFFIXES]
    for path in paths[HALVES.index(half) :: 2]:
        image = Image.open(path).convert("RGB")
        # Rows of crops from the top down, each row from left to right.
        top = 0
        while top + min_side <= image.height:
            height = int(rng.integers(min_side, min(max_side, image.height - top) + 1))
            left = 0
            while left + min_side <= image.width:
                width = int(rng.integers(min_side, min(max_side, image.width - left) + 1))
                photo = image.crop((left, top, left + width, top + height))
                if np.asarray(photo.convert("L")).std() > MIN_DEVIATION:
                    photos.append(photo)
                left += width
            top += height
    return photos


def make_drawings(half: str) -> list[Image.Image]:
    """Return the demo's drawings without those that resemble another one, and as many scenes."""
    rng = np.random.default_rng(0)
    splits = ["train"] if half == "develop" else ["val", "test"]
    pool = []
    for split in splits:
        pool += read_drawings(ROOT / "demo_data" / f"emoji-{split}.tar")
    alike_names = find_lookalikes(pool)
    pool = [drawing for drawing in pool if drawing.name not in alike_names]
    images = []
    for drawing in pool:
        images.append(enlarge(drawing, rng))
        members = rng.choice(len(pool), int(rng.integers(2, 4)), replace=False)
        images.append(draw_scene([pool[number] for number in members], rng))
    return images


def find_pairs(
    images: Sequence[Image.Image],
    queries: Sequence[Image.Image] | None,
    equal_captions: Sequence[tuple[int, int]] = (),
) -> Pairs:
    """Find the pairs of a query and an image that this package takes for duplicates.

    Args:
        images: images.
        queries: images to look for among them; None: the images among themselves.
        equal_captions: numbers of queries and images with the same caption.

    Returns:
        Numbers of a query and an image -> whether the two differ in a spot or an object. Such a pair is no duplicate
        unless its captions agree.
    """
    gallery = pack_thumbnails([make_thumbnails(np.asarray(image)) for image in images])
    packed_queries = None
    if queries is not None:
        packed_queries = pack_thumbnails([make_thumbnails(np.asarray(query)) for query in queries])
    query_samples = gallery.samples if packed_queries is None else packed_queries.samples
    pairs: Pairs = {}
    with tempfile.TemporaryDirectory() as folder:
        suspects = np.array(equal_captions, np.int64).reshape(-1, 2)
        for matches in find_matches(gallery, Path(folder), Comparison(), packed_queries, suspects=suspects):
            query_numbers = query_samples[matches.queries].tolist()
            image_numbers = gallery.samples[matches.rows].tolist()
            differences = (matches.is_local | matches.has_object).tolist()
            for query, image, differs in zip(query_numbers, image_numbers, differences, strict=True):
                pairs[query, image] = pairs.get((query, image), True) and differs
    return pairs


def measure(images: list[Image.Image], num_sources: int, half: str, method: Callable) -> tuple[dict[str, float], str]:
    """Measure what a method finds.

    Args:
        images: images, the sources first.
        num_sources: number of images that are altered.
        half: of `HALVES`.
        method: `find_pairs` or one of `likeness_peers`.

    Returns:
        Percentage of sources that are found, by kind of alteration; of the kind `other_hue` none should be. And a line
        with the numbers of false pairs and the CPU time.
    """
    altering = Altering(half)
    queries: list[Image.Image] = []
    labels: list[tuple[int, str]] = []  # source and kind of each query
    for source in range(num_sources):
        for kind in KINDS:
            queries.append(getattr(altering, kind)(images[source]))
            labels.append((source, kind))
    arguments: list = [images, queries]
    # A stickered copy keeps its caption, so this package compares it with its source in any case, and removes it
    # although it differs in a spot. The other methods compare all pairs.
    if method is find_pairs:
        arguments.append([(query, source) for query, (source, kind) in enumerate(labels) if kind == "sticker"])
    start = time.process_time()
    pairs = method(*arguments)
    seconds = time.process_time() - start

    hits: Counter[str] = Counter()
    num_false = 0
    for (query, image), differs in pairs.items():
        source, kind = labels[query]
        if image != source:
            num_false += not differs
        elif kind == "sticker" or not differs:
            hits[kind] += 1
    num_false_originals = sum(not differs for differs in method(images, None).values())

    num_pairs = len(queries) * (len(images) - 1)
    num_original_pairs = len(images) * (len(images) - 1) // 2
    milliseconds = 1000 * seconds / (len(queries) + len(images))
    report = (
        f"false pairs: {num_false} of {num_pairs:,} with an altered image, {num_false_originals} of "
        f"{num_original_pairs:,} originals; {milliseconds:.1f} ms of CPU an image"
    )
    return {kind: 100 * hits[kind] / num_sources for kind in KINDS}, report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="folder of large JPEGs; default: drawings alone")
    parser.add_argument("--sources", type=int, default=40, help="number of images that are altered; default: 40")
    parser.add_argument("--images", type=int, default=400, help="number of images with the sources; default: 400")
    parser.add_argument("--model", help="run, folder or name of a model whose embeddings are compared")
    parser.add_argument("--half", choices=HALVES, default="report", help="images and strengths; default: report")
    args = parser.parse_args()
    # Threads that wait for each other would count as CPU time.
    cv2.setNumThreads(1)
    threadpool_limits(1)
    sets = {"drawings": make_drawings(args.half)}
    if args.photos:
        sets["photographs"] = cut_photos(args.photos, args.half)
        if not sets["photographs"]:
            parser.error(f"--photos: no JPEG of {args.photos} for this half has {CROP_SIDES[0]} pixels on each side")
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
        sample = [images[number] for number in order]
        for name, method in methods.items():
            title = f"{domain}, {name}"
            columns[title], report = measure(sample, min(args.sources, len(sample)), args.half, method)
            print(f"{title}: {report}", flush=True)
    print(f"\n| % found | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}")
    for kind in KINDS:
        cells = [f"{percentages[kind]:.0f}" for percentages in columns.values()]
        print(f"| {kind} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
