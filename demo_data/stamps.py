"""Lay out Tux Paint's stamps, 900 photographs and drawings with names, as tables and as a folder per class.

    python demo_data/stamps.py                            # demo_data/stamps; fetches 81 MB from Debian
    python demo_data/stamps.py --mirror http://ftp.de.debian.org/debian
    python demo_data/stamps.py --package tuxpaint-stamps-default_2025.03.31-1_all.deb    # one that is here already

Writes `train/`, `val/` and `test/` with a folder of images for each of the sixteen folders of the package, the tables
`train.csv`, `val.csv` and `test.csv` (`image`, `caption_zh`, `caption_en`, `label`, `folder`), and the names of the
classes in `names_zh.txt` and `names_en.txt`. Images that share a name in either language are in one split. The
stamps are under the GPL, version 2 or later (Bill Kendrick and others): the package's `copyright` is kept next to them.
"""

import argparse
import csv
import hashlib
import io
import os
import shutil
import sys
import tarfile
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
MIRROR = "http://deb.debian.org/debian"
PACKAGE = "tuxpaint-stamps-default_2025.03.31-1_all.deb"
SHA256 = "6312d03a37d0220b10fc91a7467bf2a2a2336e08c2f416de04311d25fd7aeacb"
STAMPS = "./usr/share/tuxpaint/stamps/"
COPYRIGHT = "./usr/share/doc/tuxpaint-stamps-default/copyright"
CLASSES = {
    "animals": ("an animal", "动物"),
    "clothes": ("clothes", "衣物"),
    "food": ("food", "食物"),
    "hobbies": ("a musical instrument or a hobby", "乐器或爱好"),
    "household": ("a household item", "家用物品"),
    "medical": ("medical equipment", "医疗用品"),
    "military": ("military equipment", "军事装备"),
    "naturalforces": ("a force of nature", "自然现象"),
    "people": ("people", "人物"),
    "plants": ("a plant", "植物"),
    "seasonal": ("something for a holiday", "节日物品"),
    "space": ("something in outer space", "太空"),
    "sports": ("sports equipment", "体育用品"),
    "symbols": ("a symbol", "符号"),
    "town": ("something in a town", "城镇"),
    "vehicles": ("a vehicle", "交通工具"),
}
"""Folders of the package with their names in English and Chinese."""
SIDE = 128  # pixels of the longer side


class Stamp(NamedTuple):
    """An image, by its path in the package, and its names."""

    path: str
    caption_zh: str
    caption_en: str

    @property
    def label(self) -> str:
        """The folder that is its class."""
        return self.path.partition("/")[0]


def fetch(mirror: str, folder: Path) -> Path:
    """The package in `folder`; from the mirror, under a temporary name first, if it is missing."""
    path = folder / PACKAGE
    if path.exists():
        return path
    address = f"{mirror.rstrip('/')}/pool/main/t/tuxpaint-stamps/{PACKAGE}"
    print(f"fetching {address}", flush=True)
    aside = path.with_name(f".{PACKAGE}.partial")
    try:
        with urllib.request.urlopen(address, timeout=60) as source, aside.open("wb") as target:  # noqa: S310  -- an address that the user or the script has named
            shutil.copyfileobj(source, target)
    except OSError as error:
        sys.exit(f"error: {address}: {error}; name another --mirror, or a --package (apt-get download)")
    aside.replace(path)
    return path


def checked(package: Path) -> Path:
    """The package, if it is the one whose layout is known here."""
    try:
        with package.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        sys.exit(f"error: {package}: {error.strerror}")
    if digest != SHA256:
        sys.exit(f"error: {package} is damaged, or another version than {PACKAGE}: remove it, or name this one")
    return package


def data_of(package: Path) -> tarfile.TarFile:
    """The files of a Debian package: an `ar` archive that holds a `data.tar.xz`."""
    with package.open("rb") as file:
        file.seek(8)  # the archive's signature
        while header := file.read(60):
            name, size = header[:16].rstrip(b" /"), int(header[48:58])
            if name == b"data.tar.xz":
                return tarfile.open(fileobj=io.BytesIO(file.read(size)), mode="r:xz")
            file.seek(size + size % 2, os.SEEK_CUR)
    sys.exit(f"error: {package} holds no data.tar.xz")


def read(package: Path) -> tuple[dict[Stamp, bytes], bytes]:
    """The images that have a name in both languages, and what the package says of its licence."""
    contents: dict[str, bytes] = {}
    names: dict[str, bytes] = {}
    licence = b""
    with data_of(package) as tar:
        for member in tar:
            stem, _, suffix = member.name.removeprefix(STAMPS).rpartition(".")
            is_stamp = member.name.startswith(STAMPS) and suffix in ("png", "txt")
            if not (is_stamp and member.isfile()) and member.name != COPYRIGHT:
                continue
            file = tar.extractfile(member)
            if file is None:  # a folder has no content
                continue
            if not is_stamp:
                licence = file.read()
            elif suffix == "png":
                contents[stem] = file.read()
            else:
                names[stem] = file.read()
    found = {}
    for stem, content in sorted(contents.items()):
        english, *others = names.get(stem, b"").decode("utf-8").splitlines() or [""]
        chinese = dict(line.partition("=")[::2] for line in others).get("zh_CN.utf8", "")
        if english and chinese:
            found[Stamp(stem, chinese.strip().rstrip("。"), english.strip().rstrip("."))] = content
    return found, licence


def groups(stamps: list[Stamp]) -> Iterator[list[Stamp]]:
    """Stamps that share a name in either language, directly or through others."""
    leader = {stamp: stamp for stamp in stamps}

    def find(stamp: Stamp) -> Stamp:
        while leader[stamp] is not stamp:
            stamp = leader[stamp]
        return stamp

    first: dict[str, Stamp] = {}
    for stamp in stamps:
        for name in (stamp.caption_zh, stamp.caption_en.lower()):
            leader[find(stamp)] = find(first.setdefault(name, stamp))
    joined = defaultdict(list)
    for stamp in stamps:
        joined[find(stamp)].append(stamp)
    yield from joined.values()


def splits(stamps: list[Stamp]) -> dict[str, list[Stamp]]:
    """A third of every class for testing, a ninth for validation, in an order that is drawn by the names' digests."""
    by_class = defaultdict(list)
    for group in groups(stamps):
        by_class[group[0].label].append(group)
    found: dict[str, list[Stamp]] = {"train": [], "val": [], "test": []}
    for members in by_class.values():
        members.sort(key=lambda group: hashlib.sha256(group[0].caption_en.encode()).digest())
        for position, group in enumerate(members):
            found["test" if position % 3 == 0 else "val" if position % 9 == 1 else "train"] += group
    return {split: sorted(members) for split, members in found.items()}


def drawing(content: bytes) -> Image.Image:
    """An image on white, its longer side at most `SIDE`."""
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    image.thumbnail((SIDE, SIDE))
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image)
    return paper.convert("RGB")


def write(folder: Path, contents: dict[Stamp, bytes], licence: bytes) -> None:
    """Writes images, tables, and names of the classes."""
    with tqdm(total=len(contents), unit="stamp", desc="writing") as bar:
        for split, stamps in splits(list(contents)).items():
            rows = []
            for stamp in stamps:
                file = Path(split, stamp.label, f"{stamp.path.partition('/')[2].replace('/', '-')}.png")
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                drawing(contents[stamp]).save(folder / file)
                within = stamp.path.rpartition("/")[0]
                rows.append([file.as_posix(), stamp.caption_zh, stamp.caption_en, stamp.label, within])
                bar.update()
            aside = folder / f".{split}.csv.partial"
            with aside.open("w", encoding="utf-8", newline="") as table:
                csv.writer(table, lineterminator="\n").writerows(
                    [["image", "caption_zh", "caption_en", "label", "folder"], *rows]
                )
            aside.replace(folder / f"{split}.csv")
            print(f"{split}: {len(rows)} images")
    for position, language in enumerate(("en", "zh")):
        lines = "".join(f"{label}\t{names[position]}\n" for label, names in CLASSES.items())
        (folder / f"names_{language}.txt").write_text(lines, encoding="utf-8")
    (folder / "copyright").write_bytes(licence)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "stamps", metavar="FOLDER")
    parser.add_argument("--mirror", default=MIRROR, metavar="ADDRESS", help=f"of Debian; default: {MIRROR}")
    parser.add_argument("--package", type=Path, metavar="FILE", help="the .deb; default: it is fetched")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    write(args.output, *read(checked(args.package or fetch(args.mirror, args.output))))
    print(f"written: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
