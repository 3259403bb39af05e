"""Make a crawl of alt text as the web has it, of the demo's drawings: 20,000 rows, 6,000 of them good, and the truth.

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
from collections.abc import Iterator
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
ALTERED = ("resized", "recompressed", "cropped", "bordered", "mirrored", "grey")
GROUPS = {
    "good": ("good",),
    "copy": ("copy", "twin", *ALTERED),
    "image": ("tiny", "blank", "banner", "broken"),
    "text": (*texts.JUNK, "language", "repeated"),
    "leak": ("leak",),
    "mismatch": ("wrong",),
}
GROUP_OF_KIND = {kind: group for group, kinds in GROUPS.items() for kind in kinds}
ROWS = sum(KINDS.values())
SCENES = 1 / 6  # of the good rows, and of those with a wrong caption
LEFT_OUT = "fluent-emoji-flat"  # near-copies of another style
ALIKE = 0.95  # correlation of 32 x 32 pixels, without margins, from which two drawings are lookalikes


@dataclass(frozen=True)
class Drawing:
    """One drawing: its name in the shard, its pixels [64, 64, 3], and what it shows, by language."""

    name: str
    pixels: np.ndarray
    names: dict[str, str]
    tags: dict[str, list[str]]


@dataclass
class Row:
    """A row of the crawl, before it has a key: `of` and `like` are rows, or names of test drawings."""

    kind: str
    caption: str
    suffix: str
    image: bytes
    detail: str = ""
    of: "Row | str | None" = None
    like: "Row | str | None" = None
    key: str = field(default="", init=False)


def drawings(shard: Path) -> list[Drawing]:
    """The drawings of one of the demo's shards, in their order."""
    with tarfile.open(shard) as archive:
        files = {}
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:  # a folder has no content
                files[member.name] = file.read()
    found = []
    for name in (name for name in files if name.endswith(".json")):
        fields, stem = json.loads(files[name]), name.removesuffix(".json")
        if fields["style"] != LEFT_OUT:
            pixels = np.asarray(Image.open(io.BytesIO(files[f"{stem}.webp"])).convert("RGB"))
            names, tags = (
                {language: fields[f"{what}_{language}"] for language in ("zh", "en")} for what in ("caption", "tags")
            )
            found.append(Drawing(stem, pixels, names, tags))
    return found


def lookalikes(found: list[Drawing], others: list[Drawing] | None = None) -> dict[str, tuple[str, bool]]:
    """For each drawing that resembles another, or its mirror image, its name, and whether their pixels are equal.

    Args:
        others: among which the other is; None: those that come earlier.
    """

    def small(drawings: list[Drawing], mirrored: bool = False) -> np.ndarray:
        parts = [_within_margins(one.pixels[:, ::-1] if mirrored else one.pixels) for one in drawings]
        rows = [np.asarray(Image.fromarray(part).resize((32, 32)), np.float32).ravel() for part in parts]
        centred = np.stack(rows) - np.mean(rows, axis=1, keepdims=True)
        return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1)

    rows = small(found)
    likeness = np.maximum(rows @ small(others or found).T, rows @ small(others or found, mirrored=True).T)
    if others is None:
        likeness, others = np.tril(likeness, -1), found
    nearest = likeness.argmax(axis=1)
    return {
        one.name: (others[other].name, np.array_equal(one.pixels, others[other].pixels))
        for row, (one, other) in enumerate(zip(found, nearest, strict=True))
        if likeness[row, other] > ALIKE
    }


def _within_margins(pixels: np.ndarray) -> np.ndarray:
    """The part of a drawing within its white margins."""
    rows, columns = (np.flatnonzero((pixels < 240).any(axis=(other, 2))) for other in (1, 0))
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else pixels


def large(drawing: Drawing, rng: np.random.Generator) -> Image.Image:
    """A drawing at one of the sizes that the web has it in."""
    side = int(rng.choice([128, 144, 160, 192, 224]))
    return Image.fromarray(drawing.pixels).resize((side, side), Image.Resampling.LANCZOS)


def scene(parts: list[Drawing], rng: np.random.Generator) -> Image.Image:
    """Drawings next to each other, on a ground that runs from one colour to another."""
    width, height = 96 * len(parts), int(rng.integers(112, 160))
    ends = rng.integers(0, 256, (2, 3)).astype(float)
    steps = np.linspace(0, 1, width if rng.random() < 0.5 else height)[:, None]
    ramp = (ends[0] * (1 - steps) + ends[1] * steps).astype(np.uint8)
    ground = ramp[None] if len(ramp) == width else ramp[:, None]
    image = Image.fromarray(np.broadcast_to(ground, (height, width, 3)).copy())
    for position, part in enumerate(parts):
        side = int(rng.integers(72, 96))
        left, top = 96 * position + int(rng.integers(0, 97 - side)), int(rng.integers(0, height - side + 1))
        image.paste(Image.fromarray(part.pixels).resize((side, side), Image.Resampling.LANCZOS), (left, top))
    return image


def encoded(image: Image.Image, rng: np.random.Generator, quality: int | None = None) -> tuple[str, bytes]:
    """An image as a file, and its ending: mostly JPEG; always JPEG if the quality is given."""
    form = "JPEG" if quality else str(rng.choice(["JPEG", "JPEG", "JPEG", "PNG", "WEBP"]))
    file = io.BytesIO()
    image.save(file, form, **({} if form == "PNG" else {"quality": quality or int(rng.integers(85, 96))}))
    return {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[form], file.getvalue()


def altered(image: Image.Image, kind: str, rng: np.random.Generator) -> tuple[str, str, bytes]:
    """A copy of an image as others put it up: what was done to it, the ending of the file, and its bytes."""
    width, height = image.size
    detail, quality = "", None
    if kind == "resized":
        share = float(rng.choice([0.5, 0.6, 0.75, 1.25, 1.5]))
        image = image.resize((round(width * share), round(height * share)), Image.Resampling.BICUBIC)
        detail = f"{share:g} times the size"
    elif kind == "recompressed":
        quality = int(rng.integers(30, 91))
        detail = f"JPEG {quality}"
    elif kind == "cropped":  # a tenth of either side, from anywhere
        left, top = (int(rng.integers(0, side // 10 + 1)) for side in (width, height))
        image = image.crop((left, top, left + width - width // 10, top + height - height // 10))
        detail = f"from {left}, {top}"
    elif kind == "bordered":
        edge, colour = int(rng.integers(4, width // 10)), tuple(map(int, rng.integers(0, 256, 3)))
        framed = Image.new("RGB", (width + 2 * edge, height + 2 * edge), colour)
        framed.paste(image, (edge, edge))
        image, detail = framed, f"{edge} pixels"
    elif kind == "mirrored":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    else:
        image = image.convert("L").convert("RGB")
    return detail, *encoded(image, rng, quality)


class Crawl:
    """The rows of a crawl as they are made; `counts` says how many of each kind."""

    def __init__(self, counts: dict[str, int], seed: int):
        self.counts, self.rng = counts, np.random.default_rng(seed)
        self.texts = texts.Texts(self.rng)
        self.pool = [one for split in ("train", "val") for one in drawings(HERE / f"emoji-{split}.tar")]
        self.pool = [self.pool[row] for row in self.rng.permutation(len(self.pool))]
        self.test = drawings(HERE / "emoji-test.tar")
        self.alike, self.like_test = lookalikes(self.pool), lookalikes(self.pool, self.test)

    def rows(self) -> list[Row]:
        """All rows, in random order, with their keys."""
        good, originals = self._good()
        rows = [*good, *self._copies(good, originals), *self._images(), *self._captions(), *self._leaks()]
        rows = [rows[position] for position in self.rng.permutation(len(rows))]
        for number, row in enumerate(rows):
            row.key = f"{number:09}"
        return rows

    def _good(self) -> tuple[list[Row], list[tuple[Image.Image, list[Drawing]]]]:
        """Good rows, and of each its image and what that shows; behind them their twins, and wrong captions."""
        wanted = {kind: self.counts[kind] - round(self.counts[kind] * SCENES) for kind in ("good", "wrong")}
        good, originals, others = list[Row](), list[tuple[Image.Image, list[Drawing]]](), list[Row]()
        by_name: dict[str, Row] = {}
        for drawing in self.pool:
            earlier, equal = self.alike.get(drawing.name, ("", False))
            like = by_name.get(earlier)
            if wanted["good"] <= 0 and (wanted["wrong"] <= 0 or like):
                continue
            image = large(drawing, self.rng)
            row = Row("good", self.texts.caption([drawing]), *encoded(image, self.rng), drawing.name, like=like)
            if wanted["good"] <= 0:
                others.append(self._miscaptioned(row, [drawing]))
                wanted["wrong"] -= 1
                continue
            wanted["good"] -= 1
            if like and equal:
                row.kind, row.of = "twin", like
                others.append(row)
            else:
                by_name[drawing.name] = row
                row.like = like or self.like_test.get(drawing.name, (None,))[0]
                good.append(row)
                originals.append((image, [drawing]))
        for kind in ("good", "wrong"):
            for _ in range(round(self.counts[kind] * SCENES)):
                parts = self._parts()
                image = scene(parts, self.rng)
                row = Row("good", self.texts.caption(parts), *encoded(image, self.rng), "scene")
                if kind == "good":
                    good.append(row)
                    originals.append((image, parts))
                else:
                    others.append(self._miscaptioned(row, parts))
        return good + others, originals

    def _copies(self, good: list[Row], originals: list[tuple[Image.Image, list[Drawing]]]) -> Iterator[Row]:
        """Copies of good rows, each of another one: with the same caption, or with another that fits as well."""
        kinds = [kind for kind in ("copy", *ALTERED) for _ in range(self.counts[kind])]
        for kind, position in zip(kinds, self.rng.permutation(len(originals)), strict=False):
            row, (image, parts) = good[position], originals[position]
            same = self.rng.random() < 0.5
            caption = row.caption if same else self.texts.caption(parts, other_than=row.caption)
            if kind == "copy":
                detail, suffix, content = "equal bytes", row.suffix, row.image
            else:
                detail, suffix, content = altered(image, kind, self.rng)
            yield Row(kind, caption, suffix, content, f"{detail}{', other caption' * (not same)}", of=row)

    def _images(self) -> Iterator[Row]:
        """Images that are of no use, with good captions."""
        for kind in ("tiny", "blank", "banner", "broken"):
            for _ in range(self.counts[kind]):
                parts = self._parts()
                image = scene(parts, self.rng)
                if kind == "tiny":
                    side = int(self.rng.integers(1, 33))
                    image = image.resize((side, max(1, side + int(self.rng.integers(-2, 3)))))
                elif kind == "blank":
                    image = self._blank()
                elif kind == "banner":
                    size = ((468, 60), (728, 90), (120, 600), (960, 100), (300, 50))[self.rng.integers(5)]
                    image = image.resize(size)
                suffix, content = encoded(image, self.rng)
                if kind == "broken":
                    cut = content[: int(self.rng.integers(20, len(content) // 2))]
                    content = (b"", b"<html><body>404 Not Found</body></html>", cut)[self.rng.integers(3)]
                yield Row(kind, self.texts.caption(parts), suffix, content, f"{image.width} x {image.height}")

    def _captions(self) -> Iterator[Row]:
        """Bad captions, each on a scene of its own."""
        for kind in (*texts.JUNK, "language", "repeated"):
            for number in range(self.counts[kind]):
                if kind == "repeated":
                    several = max(1, self.counts[kind] // len(texts.REPEATED))
                    caption, detail = texts.REPEATED[min(number // several, len(texts.REPEATED) - 1)], ""
                else:
                    caption, detail = self.texts.junk(kind)
                yield Row(kind, caption, *encoded(scene(self._parts(), self.rng), self.rng), detail)

    def _leaks(self) -> Iterator[Row]:
        """Test drawings with captions of their own, most of them altered."""
        kinds = ("as it is", *ALTERED)
        for number, position in enumerate(self.rng.permutation(len(self.test))[: self.counts["leak"]]):
            drawing, kind = self.test[position], kinds[number % len(kinds)]
            image = large(drawing, self.rng)
            detail, suffix, content = (
                ("", *encoded(image, self.rng)) if number % len(kinds) == 0 else altered(image, kind, self.rng)
            )
            yield Row(
                "leak", self.texts.caption([drawing]), suffix, content, f"{kind} {detail}".strip(), of=drawing.name
            )

    def _parts(self) -> list[Drawing]:
        chosen = self.rng.choice(len(self.pool), int(self.rng.integers(2, 4)), replace=False)
        return [self.pool[position] for position in chosen]

    def _blank(self) -> Image.Image:
        """One colour, or one with the noise of a scanner."""
        side = int(self.rng.integers(100, 240))
        colour = self.rng.integers(0, 256, 3) if self.rng.random() < 0.6 else np.full(3, 255)
        noise = self.rng.integers(-2, 3, (side, side, 1)) if self.rng.random() < 0.5 else np.zeros((side, side, 1), int)
        return Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8))

    def _miscaptioned(self, row: Row, parts: list[Drawing]) -> Row:
        """The row with the caption of another drawing, with which it shares no word."""
        own = {word for part in parts for words in (part.names, part.tags) for word in _words(words)}
        while True:
            other = self.pool[int(self.rng.integers(len(self.pool)))]
            if own.isdisjoint(_words(other.names) | _words(other.tags)):
                row.kind, row.caption, row.detail = "wrong", self.texts.caption([other]), other.name
                return row


def _words(texts_by_language: dict) -> set[str]:
    english = texts_by_language["en"]
    return {word for text in ([english] if isinstance(english, str) else english) for word in text.lower().split()}


def write(folder: Path, rows: list[Row], per_shard: int) -> None:
    """Writes shards and truth, each whole or not at all."""
    for start in range(0, len(rows), per_shard):
        path = folder / f"{start // per_shard:05}.tar"
        aside = path.with_name(f".{path.name}.partial")
        with tarfile.open(aside, "w") as archive:
            for row in rows[start : start + per_shard]:
                fields = json.dumps({"caption": row.caption}, ensure_ascii=False).encode()
                for suffix, content in ((row.suffix, row.image), ("json", fields)):
                    member = tarfile.TarInfo(f"{row.key}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        aside.replace(path)
    aside = folder / ".truth.csv.partial"
    with aside.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["key", "group", "kind", "detail", "of", "like"])
        for row in rows:
            others = [other.key if isinstance(other, Row) else other for other in (row.of, row.like)]
            table.writerow([row.key, GROUP_OF_KIND[row.kind], row.kind, row.detail, *others])
    aside.replace(folder / "truth.csv")


def write_unseen(path: Path, rows: list[Row]) -> None:
    """Writes the test drawings that no row shows."""
    leaked = {row.of for row in rows if row.kind == "leak"}
    path.parent.mkdir(exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    with tarfile.open(HERE / "emoji-test.tar") as source, tarfile.open(aside, "w") as target:
        for member in source:
            if member.name.partition(".")[0] not in leaked:
                target.addfile(member, source.extractfile(member))
    aside.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "crawl", metavar="FOLDER")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"100 to {ROWS:,}")
    parser.add_argument("--per-shard", type=int, default=2000, metavar="ROWS")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not 100 <= args.rows <= ROWS:
        sys.exit(f"error: --rows is 100 to {ROWS:,}, got {args.rows:,}")
    counts = {kind: round(count * args.rows / ROWS) for kind, count in KINDS.items()}
    counts["good"] += args.rows - sum(counts.values())
    rows = Crawl(counts, args.seed).rows()
    args.output.mkdir(parents=True, exist_ok=True)
    write(args.output, rows, args.per_shard)
    write_unseen(args.output / "unseen" / "test.tar", rows)
    found = Counter(row.kind for row in rows)
    print(f"{len(rows):,} rows in {args.output}: " + ", ".join(f"{count:,} {kind}" for kind, count in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
