"""Make a crawl with the alt text of the web from the demo's drawings: 20,000 rows, 6,000 of them good, and their truth.

    python demo_data/crawl.py                        # demo_data/crawl: ten shards and truth.csv; two minutes
    python demo_data/crawl.py --rows 1000 --output runs/crawl

A shard is what img2dataset writes: `000000012.jpg` (or .png, .webp) and `000000012.json` with its `caption`, in Chinese
or English. `truth.csv` has a row per sample: `key`, `group` (as in demo_data/crawls), `kind` (see `KINDS`), `detail`
(how it was made), `of` (the key of the row whose image it copies, or the name of the test drawing) and `like` (of a
good row: the key of another one, or the name of a test drawing, that it resembles by nature).

Good rows are drawings of `emoji-train.tar` and `emoji-val.tar`, and scenes of several of them, each captioned by its
names and tags; a drawing with the pixels of another is a `twin`. Every fault is planted in a row of its own, with
nothing else wrong: rows with a bad caption have scenes that occur once. The leaks are drawings of `emoji-test.tar`;
`unseen/test.tar` has the others, which a model of the crawl can be scored on. Equal arguments give equal bytes, with
the same versions of Pillow and NumPy.
"""

import argparse
import csv
import io
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import crawl_texts as texts
import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
KINDS = {
    "good": 6000,
    "resized": 600,
    "recompressed": 600,
    "cropped": 600,
    "bordered": 600,
    "mirrored": 400,
    "grey": 600,
    "copy": 600,
    "tiny": 600,
    "blank": 600,
    "banner": 600,
    "broken": 200,
    "filename": 900,
    "url": 700,
    "markup": 700,
    "phone": 600,
    "placeholder": 800,
    "language": 1400,
    "repeated": 1200,
    "length": 300,
    "leak": 800,
    "wrong": 600,
}
"""Rows of each kind among 20,000."""
# Ways to alter an image, see `alter`.
ALTERED = ("resized", "recompressed", "cropped", "bordered", "mirrored", "grey")
GROUPS = {
    "good": ("good",),
    "copy": ("copy", "twin", *ALTERED),
    "image": ("tiny", "blank", "banner", "broken"),
    "text": (*texts.JUNK, "language", "repeated"),
    "leak": ("leak",),
    "mismatch": ("wrong",),
}
GROUP_OF_KIND: dict[str, str] = {}
for _group, _kinds in GROUPS.items():
    GROUP_OF_KIND |= dict.fromkeys(_kinds, _group)
NUM_ROWS = sum(KINDS.values())
SCENE_SHARE = 1 / 6  # of the good rows, and of those with a wrong caption
EXCLUDED_STYLE = "fluent-emoji-flat"  # its drawings are near-copies of another style
# Correlation of 32 x 32 pixels, without margins, from which two drawings are lookalikes.
LOOKALIKE_CORRELATION = 0.95
CELL_WIDTH = 96  # pixels of a scene's width for each drawing
BANNER_SIZES = ((468, 60), (728, 90), (120, 600), (960, 100), (300, 50))  # width and height of common advertisements
SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


@dataclass(frozen=True)
class Drawing:
    """A drawing of the demo.

    Attributes:
        name: its key in the shard.
        pixels: RGB, [64, 64, 3] uint8.
        names: what it shows, by language.
        tags: key words, by language.
    """

    name: str
    pixels: np.ndarray
    names: dict[str, str]
    tags: dict[str, list[str]]


@dataclass
class Row:
    """A row of the crawl.

    Attributes:
        kind: its kind, see `KINDS`.
        caption: its caption.
        suffix: suffix of the image's file.
        image: content of that file.
        detail: how the row was made.
        source: the row whose image it copies, or the name of the test drawing; column `of` of the truth.
        lookalike: a good row, or a test drawing's name, that it resembles; column `like`.
        key: its key, which follows from its place in the crawl.
    """

    kind: str
    caption: str
    suffix: str
    image: bytes
    detail: str = ""
    source: "Row | str | None" = None
    lookalike: "Row | str | None" = None
    key: str = field(default="", init=False)


@dataclass(frozen=True)
class Original:
    """A good row that can be copied, with its image before it was encoded, and the drawings in it."""

    row: Row
    image: Image.Image
    drawings: list[Drawing]


def read_drawings(shard: Path) -> list[Drawing]:
    """Return the drawings of one of the demo's shards, in their order."""
    with tarfile.open(shard) as archive:
        files = {}
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:  # a folder has no content
                files[member.name] = file.read()

    drawings = []
    for name, content in files.items():
        if not name.endswith(".json"):
            continue
        fields, stem = json.loads(content), name.removesuffix(".json")
        if fields["style"] == EXCLUDED_STYLE:
            continue
        pixels = np.asarray(Image.open(io.BytesIO(files[f"{stem}.webp"])).convert("RGB"))
        names = {language: fields[f"caption_{language}"] for language in ("zh", "en")}
        tags = {language: fields[f"tags_{language}"] for language in ("zh", "en")}
        drawings.append(Drawing(stem, pixels, names, tags))
    return drawings


def find_lookalikes(drawings: list[Drawing], others: list[Drawing] | None = None) -> dict[str, tuple[str, bool]]:
    """Find the drawings that resemble another one or its mirror image.

    Args:
        drawings: drawings to look at.
        others: drawings to compare them with; None: those before each of them.

    Returns:
        By the name of a drawing: name of the most similar other one, and whether their pixels are equal.
    """
    candidates = drawings if others is None else others
    vectors = _make_unit_vectors([drawing.pixels for drawing in drawings])
    candidate_vectors = _make_unit_vectors([drawing.pixels for drawing in candidates])
    mirrored_vectors = _make_unit_vectors([drawing.pixels[:, ::-1] for drawing in candidates])
    correlations = np.maximum(vectors @ candidate_vectors.T, vectors @ mirrored_vectors.T)  # [drawings, candidates]
    if others is None:
        correlations = np.tril(correlations, -1)

    lookalikes = {}
    for row, nearest in enumerate(correlations.argmax(axis=1)):
        if correlations[row, nearest] > LOOKALIKE_CORRELATION:
            drawing, candidate = drawings[row], candidates[nearest]
            lookalikes[drawing.name] = (candidate.name, np.array_equal(drawing.pixels, candidate.pixels))
    return lookalikes


def _make_unit_vectors(images: list[np.ndarray]) -> np.ndarray:
    """Return images without margins as vectors of mean 0 and length 1, [images, 3072]; products are correlations."""
    vectors = []
    for pixels in images:
        resized = Image.fromarray(_cut_margins(pixels)).resize((32, 32))
        vectors.append(np.asarray(resized, np.float32).ravel())
    centred = np.stack(vectors) - np.mean(vectors, axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1)


def _cut_margins(pixels: np.ndarray) -> np.ndarray:
    """Return a drawing without its white margins; a white image stays whole."""
    is_drawn = (pixels < 240).any(axis=2)  # [height, width]
    rows, columns = np.flatnonzero(is_drawn.any(axis=1)), np.flatnonzero(is_drawn.any(axis=0))
    if not len(rows):
        return pixels
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def enlarge(drawing: Drawing, rng: np.random.Generator) -> Image.Image:
    """Return a drawing at a random size that is usual on the web."""
    side = int(rng.choice([128, 144, 160, 192, 224]))
    return Image.fromarray(drawing.pixels).resize((side, side), Image.Resampling.LANCZOS)


def draw_scene(drawings: list[Drawing], rng: np.random.Generator) -> Image.Image:
    """Draw drawings next to each other on a ground that runs from one colour to another."""
    width, height = CELL_WIDTH * len(drawings), int(rng.integers(112, 160))
    end_colours = rng.integers(0, 256, (2, 3)).astype(float)
    steps = np.linspace(0, 1, width if rng.random() < 0.5 else height)[:, None]
    ramp = (end_colours[0] * (1 - steps) + end_colours[1] * steps).astype(np.uint8)  # [steps, 3]
    # The ramp runs across if it is as long as the image is wide: 192 or 288 pixels, and no height reaches 160.
    ground = ramp[None] if len(ramp) == width else ramp[:, None]
    image = Image.fromarray(np.broadcast_to(ground, (height, width, 3)).copy())
    for cell, drawing in enumerate(drawings):
        side = int(rng.integers(72, CELL_WIDTH))
        left = CELL_WIDTH * cell + int(rng.integers(0, CELL_WIDTH + 1 - side))
        top = int(rng.integers(0, height - side + 1))
        image.paste(Image.fromarray(drawing.pixels).resize((side, side), Image.Resampling.LANCZOS), (left, top))
    return image


def encode(image: Image.Image, rng: np.random.Generator, jpeg_quality: int | None = None) -> tuple[str, bytes]:
    """Return the suffix and the content of an image's file.

    Args:
        image: the image.
        rng: draws the format, mostly JPEG, and a quality of 85 to 95.
        jpeg_quality: with it, the format is JPEG and nothing is drawn.
    """
    image_format, options = "JPEG", {"quality": jpeg_quality}
    if jpeg_quality is None:
        image_format = str(rng.choice(["JPEG", "JPEG", "JPEG", "PNG", "WEBP"]))
        options = {} if image_format == "PNG" else {"quality": int(rng.integers(85, 96))}
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return SUFFIXES[image_format], file.getvalue()


def alter(image: Image.Image, kind: str, rng: np.random.Generator) -> tuple[str, str, bytes]:
    """Alter an image as people do who publish it again.

    Returns:
        What was done, suffix of the file, and its content.
    """
    width, height = image.size
    detail, quality = "", None
    if kind == "resized":
        scale = float(rng.choice([0.5, 0.6, 0.75, 1.25, 1.5]))
        image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
        detail = f"{scale:g} times the size"
    elif kind == "recompressed":
        quality = int(rng.integers(30, 91))
        detail = f"JPEG {quality}"
    elif kind == "cropped":  # by a tenth of both sides, anywhere
        left = int(rng.integers(0, width // 10 + 1))
        top = int(rng.integers(0, height // 10 + 1))
        image = image.crop((left, top, left + width - width // 10, top + height - height // 10))
        detail = f"from {left}, {top}"
    elif kind == "bordered":
        border = int(rng.integers(4, width // 10))
        colour = tuple(map(int, rng.integers(0, 256, 3)))
        framed = Image.new("RGB", (width + 2 * border, height + 2 * border), colour)
        framed.paste(image, (border, border))
        image, detail = framed, f"{border} pixels"
    elif kind == "mirrored":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    elif kind == "grey":
        image = image.convert("L").convert("RGB")
    else:
        raise ValueError(f"no way to alter an image is called {kind}")
    return detail, *encode(image, rng, quality)


class Crawl:
    """Makes the rows of a crawl.

    Args:
        counts: number of rows of each kind.
        seed: of the random numbers.
    """

    def __init__(self, counts: dict[str, int], seed: int):
        self.counts, self.rng = counts, np.random.default_rng(seed)
        self.texts = texts.Texts(self.rng)
        pool = [*read_drawings(HERE / "emoji-train.tar"), *read_drawings(HERE / "emoji-val.tar")]
        self.pool = [pool[position] for position in self.rng.permutation(len(pool))]
        self.test_drawings = read_drawings(HERE / "emoji-test.tar")
        self.lookalikes = find_lookalikes(self.pool)
        self.test_lookalikes = find_lookalikes(self.pool, self.test_drawings)

    def make_rows(self) -> list[Row]:
        """Return all rows, in random order, with their keys."""
        originals, twins_and_wrong = self._make_single_drawings()
        scenes, wrong_scenes = self._make_scenes()
        originals += scenes
        rows = [original.row for original in originals]
        rows += [*twins_and_wrong, *wrong_scenes]
        rows += [*self._make_copies(originals), *self._make_bad_images(), *self._make_bad_captions()]
        rows += self._make_leaks()

        rows = [rows[position] for position in self.rng.permutation(len(rows))]
        for number, row in enumerate(rows):
            row.key = f"{number:09}"
        return rows

    def _make_single_drawings(self) -> tuple[list[Original], list[Row]]:
        """Show each drawing of the pool in a row, as long as rows are missing.

        Returns:
            Good rows, which can be copied; and twins of these, and rows with a wrong caption.
        """
        missing = {kind: self.counts[kind] - round(self.counts[kind] * SCENE_SHARE) for kind in ("good", "wrong")}
        originals: list[Original] = []
        other_rows: list[Row] = []
        row_by_name: dict[str, Row] = {}
        for drawing in self.pool:
            name_of_lookalike, has_equal_pixels = self.lookalikes.get(drawing.name, ("", False))
            lookalike = row_by_name.get(name_of_lookalike)
            # A wrong caption is the only fault of its row, so its image must resemble no other one.
            can_be_wrong = missing["wrong"] > 0 and lookalike is None
            if missing["good"] <= 0 and not can_be_wrong:
                continue
            image = enlarge(drawing, self.rng)
            caption = self.texts.make_caption([drawing])
            row = Row("good", caption, *encode(image, self.rng), drawing.name, lookalike=lookalike)
            if missing["good"] <= 0:
                missing["wrong"] -= 1
                self._give_wrong_caption(row, [drawing])
                other_rows.append(row)
                continue

            missing["good"] -= 1
            if lookalike and has_equal_pixels:
                row.kind, row.source = "twin", lookalike
                other_rows.append(row)
                continue
            if lookalike is None and drawing.name in self.test_lookalikes:
                row.lookalike, _ = self.test_lookalikes[drawing.name]
            row_by_name[drawing.name] = row
            originals.append(Original(row, image, [drawing]))
        return originals, other_rows

    def _make_scenes(self) -> tuple[list[Original], list[Row]]:
        """Return good rows of scenes, which can be copied, and scenes with a wrong caption."""
        originals: list[Original] = []
        wrong_rows: list[Row] = []
        for kind in ("good", "wrong"):
            for _ in range(round(self.counts[kind] * SCENE_SHARE)):
                drawings = self._pick_drawings()
                image = draw_scene(drawings, self.rng)
                row = Row("good", self.texts.make_caption(drawings), *encode(image, self.rng), "scene")
                if kind == "good":
                    originals.append(Original(row, image, drawings))
                else:
                    self._give_wrong_caption(row, drawings)
                    wrong_rows.append(row)
        return originals, wrong_rows

    def _make_copies(self, originals: list[Original]) -> Iterator[Row]:
        """Yield copies of good rows, at most one of each: half with its caption, half with another one that fits."""
        kinds: list[str] = []
        for kind in ("copy", *ALTERED):
            kinds += [kind] * self.counts[kind]
        # There may be fewer originals than copies are wanted.
        for kind, position in zip(kinds, self.rng.permutation(len(originals)), strict=False):
            original = originals[position]
            row = original.row
            caption, remark = row.caption, ""
            if self.rng.random() >= 0.5:
                caption = self.texts.make_caption(original.drawings, different_from=row.caption)
                remark = ", other caption"
            if kind == "copy":
                detail, suffix, content = "equal bytes", row.suffix, row.image
            else:
                detail, suffix, content = alter(original.image, kind, self.rng)
            yield Row(kind, caption, suffix, content, f"{detail}{remark}", source=row)

    def _make_bad_images(self) -> Iterator[Row]:
        """Yield rows with a good caption whose image is of no use."""
        for kind in GROUPS["image"]:
            for _ in range(self.counts[kind]):
                drawings = self._pick_drawings()
                image = draw_scene(drawings, self.rng)
                if kind == "tiny":
                    side = int(self.rng.integers(1, 33))
                    image = image.resize((side, max(1, side + int(self.rng.integers(-2, 3)))))
                elif kind == "blank":
                    image = self._draw_blank()
                elif kind == "banner":
                    image = image.resize(BANNER_SIZES[self.rng.integers(5)])
                suffix, content = encode(image, self.rng)
                if kind == "broken":
                    beginning = content[: int(self.rng.integers(20, len(content) // 2))]
                    content = (b"", b"<html><body>404 Not Found</body></html>", beginning)[self.rng.integers(3)]
                caption = self.texts.make_caption(drawings)
                yield Row(kind, caption, suffix, content, f"{image.width} x {image.height}")

    def _make_bad_captions(self) -> Iterator[Row]:
        """Yield rows with a bad caption and a scene that occurs once."""
        for kind in (*texts.JUNK, "language", "repeated"):
            for number in range(self.counts[kind]):
                if kind == "repeated":
                    # Each of these captions stands in a run of rows; the last one takes what is left over.
                    repetitions = max(1, self.counts[kind] // len(texts.REPEATED))
                    caption = texts.REPEATED[min(number // repetitions, len(texts.REPEATED) - 1)]
                    detail = ""
                else:
                    caption, detail = self.texts.make_junk(kind)
                scene = draw_scene(self._pick_drawings(), self.rng)
                yield Row(kind, caption, *encode(scene, self.rng), detail)

    def _make_leaks(self) -> Iterator[Row]:
        """Yield test drawings with new captions: one in seven as it is, the others altered in turn."""
        alterations = ("as it is", *ALTERED)
        positions = self.rng.permutation(len(self.test_drawings))[: self.counts["leak"]]
        for number, position in enumerate(positions):
            drawing, alteration = self.test_drawings[position], alterations[number % len(alterations)]
            image = enlarge(drawing, self.rng)
            if alteration == "as it is":
                detail = alteration
                suffix, content = encode(image, self.rng)
            else:
                detail, suffix, content = alter(image, alteration, self.rng)
                detail = f"{alteration} {detail}".strip()
            caption = self.texts.make_caption([drawing])
            yield Row("leak", caption, suffix, content, detail, source=drawing.name)

    def _pick_drawings(self) -> list[Drawing]:
        """Return two or three drawings of the pool."""
        positions = self.rng.choice(len(self.pool), int(self.rng.integers(2, 4)), replace=False)
        return [self.pool[position] for position in positions]

    def _draw_blank(self) -> Image.Image:
        """Draw a square of one colour, half of them with the noise of a scanner."""
        side = int(self.rng.integers(100, 240))
        has_colour = self.rng.random() < 0.6
        colour = self.rng.integers(0, 256, 3) if has_colour else np.full(3, 255)
        has_noise = self.rng.random() < 0.5
        noise = self.rng.integers(-2, 3, (side, side, 1)) if has_noise else np.zeros((side, side, 1), int)
        return Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8))

    def _give_wrong_caption(self, row: Row, drawings: list[Drawing]) -> None:
        """Give a row the caption of a drawing that shares no English word with those in its image."""
        words = set().union(*map(_list_words, drawings))
        while True:
            stranger = self.pool[int(self.rng.integers(len(self.pool)))]
            if words.isdisjoint(_list_words(stranger)):
                break
        row.kind, row.caption, row.detail = "wrong", self.texts.make_caption([stranger]), stranger.name


def _list_words(drawing: Drawing) -> set[str]:
    """Return the English words of a drawing's name and tags, in lower case."""
    return set(" ".join([drawing.names["en"], *drawing.tags["en"]]).lower().split())


def write_crawl(folder: Path, rows: Sequence[Row], rows_per_shard: int) -> None:
    """Write shards and truth, each whole or not at all."""
    paths = []
    for start in range(0, len(rows), rows_per_shard):
        path = folder / f"{start // rows_per_shard:05}.tar"
        paths.append(path)
        partial_path = path.with_name(f".{path.name}.partial")
        with tarfile.open(partial_path, "w") as archive:
            for row in rows[start : start + rows_per_shard]:
                fields = json.dumps({"caption": row.caption}, ensure_ascii=False).encode()
                for suffix, content in ((row.suffix, row.image), ("json", fields)):
                    member = tarfile.TarInfo(f"{row.key}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        partial_path.replace(path)
    # Shards of an earlier crawl with more rows have keys that mean others in this truth. Without a truth, shards are
    # somebody else's.
    if (folder / "truth.csv").exists():
        for path in folder.glob("[0-9][0-9][0-9][0-9][0-9].tar"):
            if path not in paths:
                path.unlink()

    partial_path = folder / ".truth.csv.partial"
    with partial_path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["key", "group", "kind", "detail", "of", "like"])
        for row in rows:
            references = [_format_reference(row.source), _format_reference(row.lookalike)]
            table.writerow([row.key, GROUP_OF_KIND[row.kind], row.kind, row.detail, *references])
    partial_path.replace(folder / "truth.csv")


def _format_reference(target: Row | str | None) -> str | None:
    return target.key if isinstance(target, Row) else target


def write_unseen(path: Path, rows: Sequence[Row]) -> None:
    """Write the test drawings that no row shows."""
    leaked_names = {row.source for row in rows if row.kind == "leak"}
    path.parent.mkdir(exist_ok=True)
    partial_path = path.with_name(f".{path.name}.partial")
    with tarfile.open(HERE / "emoji-test.tar") as source, tarfile.open(partial_path, "w") as target:
        for member in source:
            if member.name.partition(".")[0] not in leaked_names:
                target.addfile(member, source.extractfile(member))
    partial_path.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "crawl", metavar="FOLDER")
    parser.add_argument("--rows", type=int, default=NUM_ROWS, help=f"number of rows, 100 to {NUM_ROWS:,}")
    parser.add_argument("--per-shard", type=int, default=2000, metavar="ROWS", help="rows of a shard")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random numbers")
    args = parser.parse_args()
    if not 100 <= args.rows <= NUM_ROWS:
        sys.exit(f"error: --rows is 100 to {NUM_ROWS:,}, got {args.rows:,}")
    if args.per_shard < 1:
        sys.exit(f"error: --per-shard is 1 or more, got {args.per_shard}")

    counts = {kind: round(count * args.rows / NUM_ROWS) for kind, count in KINDS.items()}
    counts["good"] += args.rows - sum(counts.values())  # what rounding has left
    rows = Crawl(counts, args.seed).make_rows()
    args.output.mkdir(parents=True, exist_ok=True)
    write_crawl(args.output, rows, args.per_shard)
    write_unseen(args.output / "unseen" / "test.tar", rows)

    row_counts = Counter(row.kind for row in rows)
    summary = ", ".join(f"{count:,} {kind}" for kind, count in row_counts.items())
    print(f"{len(rows):,} rows in {args.output}: {summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
