"""What the synthetic crawls share: rows with their truth, pictures to build them from, and changes of pictures.

A script of this folder invents a source: it adds `Row`s to a `Crawl`, each with a picture, a caption and what is known
of it, and the crawl writes them as img2dataset would, with a table of the truth. Everything random is drawn from one
generator, so that equal arguments give equal bytes.
"""

import argparse
import csv
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

DEMO_DATA = Path(__file__).resolve().parents[1]
MIN_ROWS = 300  # with fewer, some kinds of rows lack others that they are made from
ROWS_PER_SHARD = 1000  # img2dataset writes 10,000; smaller ones let a trial of a few thousand rows have several
TRUTH_COLUMNS = ("key", "group", "kind", "of", "like", "keep", "detail", "clean")
WHITE = (255, 255, 255)

# Fonts with Chinese characters as distributions install them; without one of them the signs in pictures are English.
CHINESE_FONTS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
    "/System/Library/Fonts/PingFang.ttc",
)


# ---------------------------------------------------------------------------------------------------------------------
# Rows and how they are written


@dataclass(eq=False)
class Row:
    """One sample of the crawl, or an image of the benchmark's test set, and the truth about it."""

    image: bytes
    suffix: str
    caption: str
    group: str = "good"
    kind: str = ""
    of: "Row | None" = None
    like: "Row | None" = None
    keep: "Row | None" = None
    detail: str = ""
    clean: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    key: str = ""

    def open(self) -> Image.Image:
        """Decode the picture."""
        return Image.open(io.BytesIO(self.image)).convert("RGB")


class Crawl:
    """Rows of a crawl and images of a benchmark's test set, written as shards with a table of the truth."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.rows: list[Row] = []
        self.test_rows: list[Row] = []

    def add(self, picture: Image.Image | bytes, caption: str, suffix: str = "jpg", **truth: Any) -> Row:
        """Add a sample; a picture is encoded as the suffix says, bytes are taken as they are."""
        row = Row(self._encode(picture, suffix), suffix, caption, **truth)
        self.rows.append(row)
        return row

    def add_test_image(self, picture: Image.Image, caption: str) -> Row:
        """Add an image to the benchmark's test set."""
        row = Row(self._encode(picture, "jpg"), "jpg", caption, key=f"test{len(self.test_rows):05d}")
        self.test_rows.append(row)
        return row

    def write(self, folder: Path) -> None:
        """Shuffle the rows, give them their keys and write shards, truth.csv and benchmark/test.tar."""
        self.rng.shuffle(self.rows)
        for index, row in enumerate(self.rows):
            shard, position = divmod(index, ROWS_PER_SHARD)
            row.key = f"{shard:05d}{position:04d}"

        folder.mkdir(parents=True, exist_ok=True)
        # An earlier crawl may have had more shards, with rows that this truth does not know. Without a truth, the
        # shards are somebody else's.
        if (folder / "truth.csv").exists():
            for path in folder.glob("[0-9][0-9][0-9][0-9][0-9].tar"):
                path.unlink()
            (folder / "truth.csv").unlink()
        for start in range(0, len(self.rows), ROWS_PER_SHARD):
            write_shard(folder / f"{start // ROWS_PER_SHARD:05d}.tar", self.rows[start : start + ROWS_PER_SHARD])
        (folder / "benchmark").mkdir(exist_ok=True)
        write_shard(folder / "benchmark" / "test.tar", self.test_rows)

        with (folder / "truth.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(TRUTH_COLUMNS)
            for row in self.rows:
                references = [other.key if other else "" for other in (row.of, row.like, row.keep)]
                table.writerow([row.key, row.group, row.kind, *references, row.detail, row.clean])

    def describe(self) -> str:
        """Return how many rows and test images the crawl has, as a line to print."""
        num_good = sum(row.group == "good" for row in self.rows)
        return f"{len(self.rows):,} rows, {num_good:,} of them good, and {len(self.test_rows):,} test images"

    def _encode(self, picture: Image.Image | bytes, suffix: str) -> bytes:
        if isinstance(picture, bytes):
            return picture
        # The qualities at which shops and phones save JPEGs.
        return encode_image(picture, suffix, quality=self.rng.choice((80, 85, 88, 90, 92, 95)))


def write_shard(path: Path, rows: list[Row]) -> None:
    """Write rows as a plain tar, image and JSON next to each other, without times and owners."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
        for row in rows:
            width, height = Image.open(io.BytesIO(row.image)).size
            record = {
                "caption": row.caption,
                **row.fields,
                "key": row.key,
                "status": "success",
                "error_message": None,
                "width": width,
                "height": height,
                "original_width": width,
                "original_height": height,
                "sha256": hashlib.sha256(row.image).hexdigest(),
            }
            text = json.dumps(record, ensure_ascii=False).encode()
            for name, content in ((f"{row.key}.{row.suffix}", row.image), (f"{row.key}.json", text)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))


def encode_image(picture: Image.Image, suffix: str = "jpg", quality: int = 90) -> bytes:
    """Encode a picture as JPEG, PNG or WebP."""
    buffer = io.BytesIO()
    if suffix == "png":
        picture.save(buffer, "PNG", compress_level=3)
    elif suffix == "webp":
        picture.save(buffer, "WEBP", quality=quality, method=1)
    else:
        picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def parse_arguments(description: str | None, num_rows: int = 5000) -> argparse.Namespace:
    """Parse the options that every script of the folder has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the shards, the truth and the benchmark")
    parser.add_argument("--rows", type=int, default=num_rows,
                        help=f"about how many samples, {MIN_ROWS} or more; default: %(default)s")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=Path, help="folder of large JPEGs named by what they show; default: made ones")
    parser.add_argument("--font", type=Path, help="font with Chinese characters; default: one that is installed")
    args = parser.parse_args()
    if args.rows < MIN_ROWS:
        parser.error(f"--rows: {MIN_ROWS} or more, got {args.rows}")
    if args.images and not list_photographs(args.images):
        parser.error(f"--images: {args.images} holds no .jpg or .jpeg file")
    return args


def list_photographs(folder: Path) -> list[Path]:
    """Return the JPEGs of a folder, sorted; none if there is no such folder."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in (".jpg", ".jpeg"))


# ---------------------------------------------------------------------------------------------------------------------
# Pictures to build from


@dataclass(frozen=True)
class Drawing:
    """A drawing of the demo data, 64 x 64 RGBA: its white surroundings are transparent."""

    identifier: str
    style: str
    kind: str
    name_zh: str
    name_en: str
    image: Image.Image


def read_drawings(name: str, names_en: Collection[str]) -> list[Drawing]:
    """Read the drawings with one of these English names from a shard of demo_data, such as emoji-train.tar."""
    drawings = []
    with tarfile.open(DEMO_DATA / name) as shard:
        contents = {member.name: shard.extractfile(member).read() for member in shard}  # type: ignore[union-attr]
    for member_name, content in contents.items():
        if member_name.endswith(".json"):
            record = json.loads(content)
            if record["caption_en"] not in names_en:
                continue
            image = cut_out(Image.open(io.BytesIO(contents[member_name.removesuffix(".json") + ".webp"])))
            names = (record["caption_zh"], record["caption_en"])
            drawings.append(Drawing(record["id"], record["style"], record["kind"], *names, image))
    return drawings


def cut_out(image: Image.Image) -> Image.Image:
    """Make the white surroundings of a drawing transparent; white inside of it stays."""
    pixels = np.array(image.convert("RGB"))
    height, width = pixels.shape[:2]
    padded = cv2.copyMakeBorder(pixels, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=WHITE)
    mask = np.zeros((height + 4, width + 4), np.uint8)
    # Within 12 levels of white: WebP leaves faint noise around a drawing; more would eat into pale ones.
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (255 << 8)
    cv2.floodFill(padded, mask, (0, 0), 0, (12, 12, 12), (12, 12, 12), flags)
    # The outermost pixels are mixed with white, which would shine on dark backgrounds.
    solid = cv2.erode(255 - mask[2:-2, 2:-2], cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    return Image.fromarray(np.dstack([pixels, cv2.GaussianBlur(solid, (3, 3), 0)]))


def is_solid(drawing: Image.Image) -> bool:
    """Return whether cutting out left the body of a drawing: white ones are lost with their surroundings."""
    mask = (np.asarray(drawing.getchannel("A")) > 128).astype(np.uint8)
    closed = cv2.morphologyEx(
        cv2.copyMakeBorder(mask, 8, 8, 8, 8, cv2.BORDER_CONSTANT), cv2.MORPH_CLOSE, np.ones((9, 9))
    )
    # Both bounds were set by looking: sheets of paper without an outline lie below them, scissors above.
    return int(mask.sum()) > 0.65 * int(closed.sum()) and int(mask.sum()) > 250


def paste_drawing(
    canvas: Image.Image, drawing: Image.Image, side: int, center: tuple[int, int], shadow: float = 0.35, turn: float = 0
) -> None:
    """Paste a drawing of this side into a canvas, with a soft shadow below it."""
    enlarged = drawing.resize((side, side), Image.Resampling.LANCZOS)
    if turn:
        enlarged = enlarged.rotate(turn, Image.Resampling.BICUBIC, expand=True)
    left, top = center[0] - enlarged.width // 2, center[1] - enlarged.height // 2
    if shadow:
        # The shadow is blurred at a quarter of the size: it is smooth anyway.
        alpha = enlarged.getchannel("A").point(lambda value: int(value * shadow))
        small = alpha.resize((max(1, alpha.width // 4), max(1, alpha.height // 4)))
        small = ImageOps.expand(small, 6).filter(ImageFilter.GaussianBlur(3))
        soft = small.resize((small.width * 4, small.height * 4))
        canvas.paste((20, 20, 30), (left - 24 + side // 30, top - 24 + side // 16), soft)
    canvas.paste(enlarged.convert("RGB"), (left, top), enlarged.getchannel("A"))


def shift_hue(drawing: Image.Image, degrees: float) -> Image.Image:
    """Turn the hue of a drawing, as the colour variants of one product differ."""
    hue, saturation, value = drawing.convert("RGB").convert("HSV").split()
    offset = round(degrees * 256 / 360)
    shifted = hue.point(lambda level: (level + offset) % 256)
    recoloured = Image.merge("HSV", (shifted, saturation, value)).convert("RGB")
    recoloured.putalpha(drawing.getchannel("A"))
    return recoloured


# Upper ends of the hues, in degrees, with the colours that people call them.
HUES = (
    (15, "红色", "red"), (42, "橙色", "orange"), (68, "黄色", "yellow"), (160, "绿色", "green"),
    (195, "青色", "teal"), (255, "蓝色", "blue"), (295, "紫色", "purple"), (340, "粉色", "pink"), (361, "红色", "red"),
)  # fmt: skip


def name_colour(image: Image.Image) -> tuple[str, str]:
    """Return the name of the colour that most of a picture or drawing has, in Chinese and English."""
    pixels = np.asarray(image.convert("RGBA").resize((32, 32))).reshape(-1, 4)
    pixels = pixels[pixels[:, 3] > 128][:, :3]
    if not len(pixels):
        return "白色", "white"
    hsv = cv2.cvtColor(pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2HSV)[0]
    vivid = hsv[(hsv[:, 1] > 0.3) & (hsv[:, 2] > 0.25)]
    if len(vivid) * 4 < len(hsv):
        brightness = float(hsv[:, 2].mean())
        if brightness > 0.75:
            return "白色", "white"
        return ("灰色", "grey") if brightness > 0.35 else ("黑色", "black")
    names = [next(hue[1:] for hue in HUES if degrees < hue[0]) for degrees in vivid[:, 0].tolist()]
    return max(sorted(set(names)), key=names.count)


@dataclass(frozen=True)
class Photo:
    """A photograph, or one made to look like it, and what it shows."""

    image: Image.Image
    name: str


class PhotoSource:
    """Disjoint crops of large photographs, each given once; made photographs when there are no more.

    Args:
        folder: JPEGs whose file names say what they show, words separated by hyphens; None makes all photographs.
        rng: draws the order.
        num_expected: how many will be taken, so that made ones are spread evenly if there are not enough crops.
        least_scale: photographs are reduced to between this and `greatest_scale` before they are cut: the smaller, the
            more of a photograph does a crop show, and the fewer crops there are.
        detail: least detail of a crop, in grey levels.
        accept: whether a crop with enough detail is given; default: all are.
        make: makes a photograph when there are no crops; told whether it is the subject of a picture.
    """

    NUM_OPEN = 10  # photographs in memory at a time, so that crops of one are spread over the crawl

    def __init__(
        self,
        folder: Path | None,
        rng: random.Random,
        num_expected: int,
        least_scale: float = 1,
        greatest_scale: float = 1,
        detail: float = 5,
        accept: Callable[[Image.Image], bool] = lambda crop: True,
        make: "Callable[[random.Random, bool], Photo] | None" = None,
    ) -> None:
        self.rng, self.detail = rng, detail
        self.least_scale, self.greatest_scale = least_scale, greatest_scale
        self.accept, self.make = accept, make or make_photograph
        self.paths = list_photographs(folder) if folder else []
        rng.shuffle(self.paths)
        sizes = [Image.open(path).size for path in self.paths]
        # A crop has some 370 x 345 pixels, and two thirds of them show something.
        area_share = ((greatest_scale + least_scale) / 2) ** 2
        num_crops = 0.67 * area_share * sum((width // 370) * (height // 345) for width, height in sizes)
        self.share_of_crops = min(1, num_crops / num_expected)
        self.open_photos: list[tuple[str, list[Image.Image]]] = []
        self.num_crops = 0
        self.num_made = 0

    def take(self, is_subject: bool = True) -> Photo:
        """Return a photograph of 300 to 520 pixels a side that was not given before.

        Args:
            is_subject: the photograph is what matters, not what lies on it: made ones are landscapes only.
        """
        self._open_more()
        if not self.open_photos or self.rng.random() > self.share_of_crops:
            self.num_made += 1
            return self.make(self.rng, is_subject)
        return self._take_crops(self.rng.randrange(len(self.open_photos)), 1)[0]

    def take_series(self, count: int) -> list[Photo]:
        """Return up to so many crops of one photograph that were not given before; none when there are no more."""
        self._open_more()
        indices = [index for index, (_, crops) in enumerate(self.open_photos) if len(crops) >= count]
        return self._take_crops(self.rng.choice(indices), count) if indices else []

    def _open_more(self) -> None:
        while self.paths and len(self.open_photos) < self.NUM_OPEN:
            path = self.paths.pop()
            crops = list(self._cut(Image.open(path).convert("RGB")))
            if crops:
                self.open_photos.append((path.stem.replace("-", " "), crops))

    def _take_crops(self, index: int, count: int) -> list[Photo]:
        name, crops = self.open_photos[index]
        photos = [Photo(crops.pop(), name) for _ in range(count)]
        if not crops:
            del self.open_photos[index]
        self.num_crops += count
        return photos

    def _cut(self, image: Image.Image) -> Iterator[Image.Image]:
        """Cut a photograph into cells of a random size."""
        crops = []
        if self.least_scale < 1:
            image = resize_by(image, self.rng.uniform(self.least_scale, self.greatest_scale))
        width = min(self.rng.randint(300, 430), image.width)
        height = min(self.rng.randint(300, 390), image.height)
        for top in range(0, image.height - height + 1, height):
            for left in range(0, image.width - width + 1, width):
                crop = image.crop((left, top, left + width, top + height))
                if has_detail(crop, self.detail) and self.accept(crop):
                    crops.append(crop)
        self.rng.shuffle(crops)
        yield from crops


def has_detail(image: Image.Image, least: float = 5) -> bool:
    """Return whether a picture shows more than sky, wall or blur."""
    grey = np.asarray(image.convert("L").resize((64, 64))).astype(np.float32)
    # 5 grey levels around the mean of the surroundings: set by looking at crops of wallpapers.
    return float((grey - cv2.GaussianBlur(grey, (0, 0), 5)).std()) > least


SKIES = {
    "blue sky": ((70, 130, 200), (205, 225, 240)),
    "pink evening sky": ((110, 90, 150), (245, 175, 150)),
    "grey sky": ((130, 138, 146), (215, 216, 214)),
    "golden sky": ((190, 120, 60), (250, 220, 150)),
    "night sky": ((10, 14, 35), (50, 60, 95)),
}
GROUNDS = {
    "green hills": (60, 100, 45),
    "brown hills": (115, 85, 55),
    "blue mountains": (60, 80, 115),
    "snowy hills": (205, 212, 222),
    "red dunes": (170, 85, 50),
}


SURFACES = {
    "wooden table": ((150, 105, 65), (60, 3)),
    "dark wood": ((75, 50, 38), (50, 2)),
    "linen cloth": ((205, 195, 175), (60, 60)),
    "grey concrete": ((150, 150, 148), (8, 8)),
    "green lawn": ((80, 125, 50), (70, 50)),
    "white marble": ((225, 224, 222), (4, 3)),
    "blue water": ((55, 115, 150), (10, 40)),
    "sand": ((200, 175, 135), (60, 45)),
}


def make_photograph(rng: random.Random, is_subject: bool = True) -> Photo:
    """Make what passes for a photograph, with grain: a landscape, or as a background a surface or blurred lights."""
    noise = np.random.default_rng(rng.getrandbits(32))
    width, height = rng.randint(320, 520), rng.randint(300, 460)
    make = rng.choices((make_landscape, make_surface, make_lights), (1, 0, 0) if is_subject else (3, 5, 2))[0]
    pixels, name = make(rng, noise, height, width)
    pixels += noise.normal(0, 4, (height, width, 1))
    return Photo(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), name)


def make_landscape(rng: random.Random, noise: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, str]:
    """Make a sky with clouds and two to five ridges that pale with distance."""
    sky, ground = rng.choice(list(SKIES)), rng.choice(list(GROUNDS))
    upper, lower = (np.array(colour, np.float32) for colour in SKIES[sky])
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    pixels = np.repeat(upper + (lower - upper) * share, width, axis=1)
    clouds = make_smooth_noise(noise, height, width, (rng.randint(3, 6), rng.randint(2, 4)))
    pixels += np.clip(clouds, 0, None)[..., None] * rng.uniform(5, 35)

    texture = make_smooth_noise(noise, height, width, (24, 24))
    rows = np.arange(height, dtype=np.float32)[:, None]
    num_ridges = rng.randint(2, 5)
    roughness = rng.uniform(0.25, 0.5)
    highest = rng.uniform(0.25, 0.5)
    for ridge in range(num_ridges):
        nearness = (ridge + 1) / num_ridges
        profile = make_smooth_noise(noise, 1, width, (1, rng.choice((2, 3, 5))), roughness)[0]
        horizon = height * (highest + (0.9 - highest) * nearness * rng.uniform(0.8, 1)) + profile * height * 0.07
        colour = np.array(GROUNDS[ground], np.float32) * nearness * rng.uniform(0.75, 1.1) + lower * (1 - nearness)
        below = (rows > horizon[None])[..., None]
        pixels = np.where(below, colour + texture[..., None] * 22 * nearness, pixels)
    return pixels, f"{ground} under a {sky}"


def make_surface(rng: random.Random, noise: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, str]:
    """Make a surface as goods are laid on, lit from one side."""
    name = rng.choice(list(SURFACES))
    colour, (cells_x, cells_y) = SURFACES[name]
    grain = make_smooth_noise(noise, height, width, (cells_y, cells_x), 0.7)
    light = np.linspace(rng.uniform(0.75, 1), rng.uniform(1, 1.2), width)[None, :, None]
    pixels = (np.array(colour, np.float32) + grain[..., None] * rng.uniform(9, 16)) * light
    if "wood" in name:  # joints between boards
        for x in range(rng.randint(20, 90), width, rng.randint(80, 140)):
            pixels[:, x : x + 2] *= 0.55
    return pixels, name


def make_lights(rng: random.Random, noise: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, str]:
    """Make lights of a street at night, out of focus."""
    canvas = make_gradient(width, height, (12, 14, 30), (45, 35, 50))
    layer = Image.new("RGB", canvas.size)
    draw = ImageDraw.Draw(layer)
    for _ in range(rng.randint(25, 60)):
        x, y, radius = rng.randint(0, width), rng.randint(0, height), rng.randint(6, 32)
        tone = rng.choice(((200, 140, 60), (180, 70, 50), (90, 140, 200), (210, 190, 140), (70, 160, 110)))
        dimmed = tuple(int(level * rng.uniform(0.4, 0.9)) for level in tone)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=dimmed)
    lights = np.asarray(layer.filter(ImageFilter.GaussianBlur(1.5)), np.float32)
    return np.asarray(canvas, np.float32) + lights, "blurred lights at night"


def make_smooth_noise(
    noise: np.random.Generator, height: int, width: int, cells: tuple[int, int], roughness: float = 0.6
) -> np.ndarray:
    """Return noise of standard deviation 1 or so.

    Args:
        cells: blobs of the coarsest noise, down and across; each finer one doubles them.
        roughness: amplitude of a finer noise as a share of that of the coarser.
    """
    total = np.zeros((height, width), np.float32)
    down, across = cells
    amplitude = 1.0
    while max(down, across) < max(height, width) // 2:
        coarse = noise.normal(0, amplitude, (min(down, height), across)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        down, across, amplitude = down * 2, across * 2, amplitude * roughness
    return total


# ---------------------------------------------------------------------------------------------------------------------
# Signs


class Signs:
    """Writes text into pictures, in Chinese where a font for it is there.

    Args:
        font_path: a font with Chinese characters; None looks for an installed one.
    """

    def __init__(self, font_path: Path | None) -> None:
        installed = [path for path in CHINESE_FONTS if Path(path).exists()]
        self.path = str(font_path) if font_path else next(iter(installed), None)
        self.fonts: dict[int, Any] = {}

    @property
    def language(self) -> str:
        return self.choose("Chinese", "English (no Chinese font found)")

    def choose(self, chinese: str, english: str) -> str:
        """Return the sign in the language that the font can write."""
        return chinese if self.path else english

    def font(self, size: int) -> Any:
        if size not in self.fonts:
            self.fonts[size] = ImageFont.truetype(self.path, size) if self.path else ImageFont.load_default(size)
        return self.fonts[size]

    def write(
        self, image: Image.Image, text: str, at: tuple[float, float], size: int, colour: Any, anchor: str = "mm"
    ) -> None:
        """Write a line into a picture; `anchor` is Pillow's."""
        ImageDraw.Draw(image).text(at, text, font=self.font(size), fill=colour, anchor=anchor)

    def tile(self, image: Image.Image, text: str, opacity: float, size: int = 22) -> Image.Image:
        """Lay a slanting text over the whole picture, again and again."""
        box = self.font(size).getbbox(text)
        step_x, step_y = int(box[2]) + 50, size * 4
        reach = image.width + image.height
        layer = Image.new("L", (reach, reach))
        draw = ImageDraw.Draw(layer)
        for line, top in enumerate(range(0, reach, step_y)):
            for left in range(-(line % 2) * step_x // 2, reach, step_x):
                draw.text((left, top), text, font=self.font(size), fill=int(255 * opacity))
        layer = layer.rotate(30, Image.Resampling.BILINEAR)
        left, top = (reach - image.width) // 2, (reach - image.height) // 2
        mask = layer.crop((left, top, left + image.width, top + image.height))
        marked = image.copy()
        marked.paste((245, 245, 245) if np.asarray(image).mean() < 170 else (120, 120, 120), (0, 0), mask)
        return marked

    def mark_corner(self, image: Image.Image, text: str, corner: str = "lower right") -> Image.Image:
        """Write a small text into a corner."""
        marked = image.copy()
        size = max(12, image.height // 24)
        x = image.width - 8 if "right" in corner else 8
        y = image.height - 6 if "lower" in corner else 6
        anchor = ("r" if "right" in corner else "l") + ("d" if "lower" in corner else "a")
        self.write(marked, text, (x + 1, y + 1), size, (60, 60, 60), anchor)
        self.write(marked, text, (x, y), size, (250, 250, 250), anchor)
        return marked

    def add_strip(self, image: Image.Image, text: str, colour: Any, share: float = 0.14) -> Image.Image:
        """Cover the lower edge with a coloured strip that bears a text."""
        marked = image.copy()
        height = int(image.height * share)
        marked.paste(colour, (0, image.height - height, image.width, image.height))
        size = max(10, min(int(height * 0.55), int(image.width / (len(text) * (1.05 if self.path else 0.6) + 1))))
        self.write(marked, text, (image.width / 2, image.height - height / 2), size, WHITE)
        return marked


# ---------------------------------------------------------------------------------------------------------------------
# Changes of pictures


def change_brightness(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def change_saturation(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def change_contrast(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def desaturate(image: Image.Image) -> Image.Image:
    """Make a black-and-white picture of three equal channels."""
    return image.convert("L").convert("RGB")


def tint(image: Image.Image, colour: tuple[int, int, int], strength: float) -> Image.Image:
    """Mix every pixel with a colour."""
    return Image.blend(image, Image.new("RGB", image.size, colour), strength)


def blur(image: Image.Image, radius: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def add_noise(image: Image.Image, deviation: float, rng: random.Random) -> Image.Image:
    """Add grain of this standard deviation, in levels of 255."""
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, deviation, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8))


def change_gamma(image: Image.Image, gamma: float) -> Image.Image:
    """Raise the levels to a power: below 1 brightens the shadows, above 1 darkens them."""
    return image.point([round(255 * (level / 255) ** gamma) for level in range(256)] * 3)


def recompress(image: Image.Image, quality: int) -> Image.Image:
    """Save as JPEG and open again."""
    return Image.open(io.BytesIO(encode_image(image, "jpg", quality))).convert("RGB")


def resize_by(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))


def crop_margins(image: Image.Image, share: float, rng: random.Random) -> Image.Image:
    """Cut this share off the width and off the height, split over both sides at random."""
    left = int(image.width * share * rng.random())
    top = int(image.height * share * rng.random())
    width, height = int(image.width * (1 - share)), int(image.height * (1 - share))
    return image.crop((left, top, left + width, top + height))


def add_bars(image: Image.Image, share: float, colour: Any = (0, 0, 0), upright: bool = False) -> Image.Image:
    """Add bars above and below, or at the sides, each of this share of the picture."""
    x, y = (int(image.width * share), 0) if upright else (0, int(image.height * share))
    return ImageOps.expand(image, (x, y, x, y), colour)


def pad_to_square(image: Image.Image, colour: Any = WHITE) -> Image.Image:
    side = max(image.size)
    return ImageOps.pad(image, (side, side), color=colour)


def add_frame(image: Image.Image, width: int, colour: Any) -> Image.Image:
    """Draw a frame over the outermost pixels."""
    framed = image.copy()
    ImageDraw.Draw(framed).rectangle((0, 0, image.width - 1, image.height - 1), outline=colour, width=width)
    return framed


def mirror(image: Image.Image) -> Image.Image:
    return ImageOps.mirror(image)


def turn(image: Image.Image, degrees: float) -> Image.Image:
    """Turn by a few degrees and cut off the corners that become empty."""
    turned = image.rotate(degrees, Image.Resampling.BICUBIC)
    margin = abs(float(np.sin(np.deg2rad(degrees)))) / 2
    x, y = int(image.height * margin) + 1, int(image.width * margin) + 1
    return turned.crop((x, y, image.width - x, image.height - y))


def pixelate(image: Image.Image, cells: int) -> Image.Image:
    """Reduce to so many cells a side, as a preview that never loaded."""
    return image.resize((cells, cells), Image.Resampling.BOX).resize(image.size, Image.Resampling.BILINEAR)


def grey_out_lower(image: Image.Image, share: float) -> Image.Image:
    """Fill the lower share with grey, as of a file that was cut off."""
    broken = image.copy()
    broken.paste((128, 128, 128), (0, int(image.height * (1 - share)), image.width, image.height))
    return broken


def make_collage(images: list[Image.Image], side: int = 260, gap: int = 6) -> Image.Image:
    """Lay four pictures out two by two."""
    collage = Image.new("RGB", (2 * side + gap, 2 * side + gap), WHITE)
    for index, image in enumerate(images[:4]):
        at = (index % 2 * (side + gap), index // 2 * (side + gap))
        collage.paste(ImageOps.fit(image, (side, side)), at)
    return collage


def make_gradient(width: int, height: int, upper: Any, lower: Any) -> Image.Image:
    """Make a background that goes from one colour to another, top to bottom."""
    share = np.linspace(0, 1, height)[:, None, None]
    pixels = np.array(upper) * (1 - share) + np.array(lower) * share
    return Image.fromarray(np.repeat(pixels, width, axis=1).astype(np.uint8))


# ---------------------------------------------------------------------------------------------------------------------
# Damage of texts


def misread(text: str, encoding: str) -> str:
    """Return UTF-8 text as a program shows it that takes its bytes for those of another encoding."""
    return text.encode().decode(encoding, errors="replace")


Alteration = Callable[[Image.Image], Image.Image]
