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
from http.client import HTTPException
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
# Folder of the package -> its name as a class, in English and Chinese.
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
SIDE = 128  # pixels of the longer side


class Stamp(NamedTuple):
    """An image: its path in the package without the suffix, and its names."""

    path: str
    caption_zh: str
    caption_en: str

    @property
    def label(self) -> str:
        """Name of the folder that is its class."""
        return self.path.partition("/")[0]


def fetch(mirror: str, folder: Path) -> Path:
    """Return the path of the package in a folder; a missing one is fetched under a temporary name first."""
    path = folder / PACKAGE
    if path.exists():
        return path
    address = f"{mirror.rstrip('/')}/pool/main/t/tuxpaint-stamps/{PACKAGE}"
    print(f"fetching {address}", flush=True)
    partial_path = path.with_name(f".{PACKAGE}.partial")
    try:
        with urllib.request.urlopen(address, timeout=60) as source, partial_path.open("wb") as target:  # noqa: S310  -- an address that the user or the script has named
            shutil.copyfileobj(source, target)
    except (OSError, ValueError, HTTPException) as error:  # the last two where the address is none
        sys.exit(f"error: {address}: {error}; name another --mirror, or a --package (apt-get download)")
    partial_path.replace(path)
    return path


def check_package(package: Path) -> None:
    """End the program if a file is not the package whose layout this script knows."""
    try:
        with package.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        sys.exit(f"error: {package}: {error.strerror}")
    if digest != SHA256:
        sys.exit(f"error: {package} is damaged, or another version than {PACKAGE}: remove it, or name this one")


def open_data(package: Path) -> tarfile.TarFile:
    """Open the files of a Debian package, which is an `ar` archive with a `data.tar.xz`."""
    with package.open("rb") as file:
        file.seek(8)  # the archive's signature
        while header := file.read(60):
            name, size = header[:16].rstrip(b" /"), int(header[48:58])
            if name == b"data.tar.xz":
                return tarfile.open(fileobj=io.BytesIO(file.read(size)), mode="r:xz")
            file.seek(size + size % 2, os.SEEK_CUR)
    sys.exit(f"error: {package} holds no data.tar.xz")


def read_package(package: Path) -> tuple[dict[Stamp, bytes], bytes]:
    """Return the PNG files of the images that have a name in both languages, and the text of the licence."""
    images: dict[str, bytes] = {}
    descriptions: dict[str, bytes] = {}
    licence = b""
    with open_data(package) as tar:
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
                images[stem] = file.read()
            else:
                descriptions[stem] = file.read()
    stamps = {}
    for stem, image in sorted(images.items()):
        # The first line is the English name, the others are `language=name`.
        english, *lines = descriptions.get(stem, b"").decode("utf-8").splitlines() or [""]
        chinese = ""
        for line in lines:
            language, _, name = line.partition("=")
            if language == "zh_CN.utf8":
                chinese = name
        if english and chinese:
            stamps[Stamp(stem, chinese.strip().rstrip("。"), english.strip().rstrip("."))] = image
    return stamps, licence


def group_by_name(stamps: list[Stamp]) -> list[list[Stamp]]:
    """Group the stamps that share a name in either language, directly or through others."""
    parents = {stamp: stamp for stamp in stamps}

    def find_root(stamp: Stamp) -> Stamp:
        while parents[stamp] is not stamp:
            stamp = parents[stamp]
        return stamp

    first_with_name: dict[str, Stamp] = {}
    for stamp in stamps:
        for name in (stamp.caption_zh, stamp.caption_en.lower()):
            parents[find_root(stamp)] = find_root(first_with_name.setdefault(name, stamp))
    groups = defaultdict(list)
    for stamp in stamps:
        groups[find_root(stamp)].append(stamp)
    return list(groups.values())


def split_stamps(stamps: list[Stamp]) -> dict[str, list[Stamp]]:
    """Split the stamps: a third of the groups of every class for testing, a ninth for validation.

    The order of the groups follows from digests of their names: it is random, and always the same.
    """
    groups_by_class = defaultdict(list)
    for group in group_by_name(stamps):
        groups_by_class[group[0].label].append(group)
    splits: dict[str, list[Stamp]] = {"train": [], "val": [], "test": []}
    for groups in groups_by_class.values():
        groups.sort(key=lambda group: hashlib.sha256(group[0].caption_en.encode()).digest())
        for position, group in enumerate(groups):
            if position % 3 == 0:
                splits["test"] += group
            elif position % 9 == 1:
                splits["val"] += group
            else:
                splits["train"] += group
    return {split: sorted(members) for split, members in splits.items()}


def put_on_white(png: bytes) -> Image.Image:
    """Return an image on white, its longer side at most `SIDE`."""
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    image.thumbnail((SIDE, SIDE))
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image)
    return paper.convert("RGB")


def write_stamps(folder: Path, images: dict[Stamp, bytes], licence: bytes) -> None:
    """Write images, tables, names of the classes, and the licence."""
    with tqdm(total=len(images), unit="stamp", desc="writing") as bar:
        for split, stamps in split_stamps(list(images)).items():
            rows = []
            for stamp in stamps:
                path = Path(split, stamp.label, f"{stamp.path.partition('/')[2].replace('/', '-')}.png")
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                put_on_white(images[stamp]).save(folder / path)
                source_folder = stamp.path.rpartition("/")[0]
                rows.append([path.as_posix(), stamp.caption_zh, stamp.caption_en, stamp.label, source_folder])
                bar.update()
            partial_path = folder / f".{split}.csv.partial"
            with partial_path.open("w", encoding="utf-8", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerow(["image", "caption_zh", "caption_en", "label", "folder"])
                table.writerows(rows)
            partial_path.replace(folder / f"{split}.csv")
            print(f"{split}: {len(rows)} images")
    for position, language in enumerate(("en", "zh")):
        lines = "".join(f"{label}\t{names[position]}\n" for label, names in CLASSES.items())
        (folder / f"names_{language}.txt").write_text(lines, encoding="utf-8")
    (folder / "copyright").write_bytes(licence)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "stamps", metavar="FOLDER")
    parser.add_argument("--mirror", default=MIRROR, metavar="ADDRESS", help=f"a mirror of Debian; default: {MIRROR}")
    parser.add_argument("--package", type=Path, metavar="FILE", help="the .deb file; default: fetched from the mirror")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    package = args.package or fetch(args.mirror, args.output)
    check_package(package)
    images, licence = read_package(package)
    write_stamps(args.output, images, licence)
    print(f"written: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
