"""Render the icons of npm's @iconify/json into shards: some 377,000 real images with names, one shard per icon set.

    pip install resvg-py==0.5.0          # the renderer, needed by this script alone
    python demo_data/icons.py            # demo_data/icons/SET.tar; needs npm (Node.js), about five minutes on two cores
    python demo_data/icons.py --sets mdi tabler twemoji
    python demo_data/icons.py --package iconify-json-2.2.535.tgz     # a package that is already here

A sample is a PNG and a JSON of `caption_en` (the icon's name without the words for its style), `tags_en` (its
categories and other names), `name`, `set`, `set_name`, `author`, `license` (SPDX), `color` and `styles` (the words
taken off). Sets under licences that forbid commercial use or are of the GPL family are left out unless
--restricted or --sets asks for them. Icons hidden by their authors are not samples. A run that was stopped goes on with
the sets that are missing or of another --size; demo_data/icons/sets.json describes every set.
"""

import argparse
import io
import json
import os
import re
import sys
import tarfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import resvg_py
from rebuild import fetch
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
PACKAGE = ("@iconify/json", "2.2.535")
RESTRICTED = re.compile(r"-NC-|GPL")
INK, PAPER = "#222222", "#ffffff"
IMAGE_SIDE = 64  # pixels; also of sets in a sets.json that names no size
DEFAULT_SIDE = 16  # units of an icon whose set gives no size, as Iconify defines it
# Last words of names that mean the style or the grid of an icon, not what it shows.
STYLES = frozenset(
    "outline outlined filled fill line linear solid bold thin light regular duotone twotone sharp rounded round"  # noqa: SIM905  -- words are read as a text
    " broken bulk flat color colored mono stroke 12 14 16 20 24 28 32 36 40 48 64".split()
)


def split_name(name: str, affixes: frozenset[str]) -> tuple[str, list[str]]:
    """Split an icon's name into a caption and the words for its style.

    Args:
        name: name such as `file-music-outline`.
        affixes: words that the set itself declares as styles.
    """
    words = name.replace("two-tone", "twotone").split("-")
    styles: list[str] = []
    while len(words) > 1 and words[-1] in STYLES | affixes:
        styles.insert(0, words.pop())
    return " ".join(words), styles


def render_icon(icon_set: dict, icon: dict, size: int) -> bytes:
    """Render an icon as PNG, `size` x `size` pixels, centred on white.

    What takes the colour of the text around it becomes dark grey.

    Args:
        icon_set: content of the set's file, whose place and size are those of icons without their own.
        icon: its entry.
        size: side of the image in pixels.

    Raises:
        ValueError: it cannot be rendered.
    """
    defaults = {"left": 0, "top": 0, "width": DEFAULT_SIDE, "height": DEFAULT_SIDE}
    left, top, width, height = (icon.get(key, icon_set.get(key, default)) for key, default in defaults.items())
    side = max(width, height)
    box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' width="{size}" height="{size}" viewBox="{box}" color="{INK}">{icon["body"]}</svg>'
    )
    return resvg_py.svg_to_bytes(svg_string=svg, background=PAPER, width=size, height=size, skip_system_fonts=True)


def collect_tags(icon_set: dict, affixes: frozenset[str]) -> dict[str, list[str]]:
    """Return the tags of each icon by name: its categories and the other names that it has."""
    # Dictionaries without values: tags are in order, and none comes twice.
    tags: dict[str, dict[str, None]] = {name: {} for name in icon_set["icons"]}
    for category, names in icon_set.get("categories", {}).items():
        category_tags = [tag.strip() for tag in re.split(r"[/,&]", category.lower())]
        for name in names:
            if name in tags:
                tags[name] |= dict.fromkeys(category_tags)
    for alias, entry in icon_set.get("aliases", {}).items():
        # An alias with further fields turns or flips its parent.
        if set(entry) == {"parent"} and entry["parent"] in tags:
            caption, _ = split_name(alias, affixes)
            tags[entry["parent"]][caption] = None
    return {name: list(filter(None, icon_tags)) for name, icon_tags in tags.items()}


def render_set(prefix: str, icon_set: dict, folder: Path, size: int) -> dict:
    """Write the shard of a set and return its entry of `sets.json`.

    Args:
        prefix: name of the set, as `mdi`.
        icon_set: content of its file in the package.
        folder: folder of the shards.
        size: side of the images in pixels.
    """
    info = icon_set["info"]
    affixes: set[str] = set()
    for key in ("suffixes", "prefixes"):
        for affix in icon_set.get(key, {}):
            affixes.update(affix.split("-"))
    style_words = frozenset(affixes - {""})
    tags = collect_tags(icon_set, style_words)

    errors: Counter[str] = Counter()
    num_samples = 0
    partial_path = folder / f".{prefix}.{os.getpid()}.partial"
    with tarfile.open(partial_path, "w") as tar:
        for name, icon in icon_set["icons"].items():
            if icon.get("hidden"):
                continue
            try:
                png = render_icon(icon_set, icon, size)
            except ValueError as error:
                errors[str(error).split(":")[0][:80]] += 1
                continue
            caption, styles = split_name(name, style_words)
            fields = {
                "caption_en": caption,
                "tags_en": tags[name],
                "name": name,
                "set": prefix,
                "set_name": info["name"],
                "author": info["author"]["name"],
                "license": info["license"]["spdx"],
                "color": bool(info.get("palette")),
                "styles": styles,
            }
            for suffix, content in (("png", png), ("json", json.dumps(fields, ensure_ascii=False).encode())):
                # A member's key ends at the first dot of its name.
                member = tarfile.TarInfo(f"{prefix}--{name.replace('.', '_')}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            num_samples += 1
    partial_path.replace(folder / f"{prefix}.tar")
    return {
        "name": info["name"],
        "author": info["author"]["name"],
        "license": info["license"]["spdx"],
        "license_url": info["license"].get("url"),
        "color": bool(info.get("palette")),
        "category": info.get("category"),
        "size": size,
        "samples": num_samples,
        "failed": dict(errors),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "icons", metavar="FOLDER")
    parser.add_argument("--package", type=Path, metavar="FILE", help="the .tgz of @iconify/json; default: npm fetches")
    parser.add_argument("--sets", nargs="+", metavar="SET", help="only these; default: all")
    parser.add_argument("--restricted", action="store_true", help="also sets under NC or GPL licences")
    parser.add_argument("--size", type=int, default=IMAGE_SIDE, help="side of an image in pixels")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="processes that render")
    args = parser.parse_args()

    args.output.mkdir(parents=True, exist_ok=True)
    package = args.package or fetch(*PACKAGE, args.output)
    table = args.output / "sets.json"
    entries = json.loads(table.read_text(encoding="utf-8")) if table.exists() else {}
    wanted_sets, sets_in_package = set(args.sets or ()), set()
    with ProcessPoolExecutor(args.processes) as pool, tarfile.open(package, "r:gz") as tar:
        jobs = {}
        for member in tqdm(tar, "reading", unit="set", leave=False):
            match = re.fullmatch(r"package/json/([a-z0-9-]+)\.json", member.name)
            if not match or (wanted_sets and match[1] not in wanted_sets):
                continue
            file = tar.extractfile(member)
            if file is None:  # a folder has no content
                continue
            prefix, icon_set = match[1], json.load(file)
            sets_in_package.add(prefix)
            is_restricted = bool(RESTRICTED.search(icon_set["info"]["license"]["spdx"]))
            if is_restricted and not args.restricted and prefix not in wanted_sets:
                continue
            is_rendered = prefix in entries and (args.output / f"{prefix}.tar").exists()
            if not is_rendered or entries[prefix].get("size", IMAGE_SIDE) != args.size:
                jobs[pool.submit(render_set, prefix, icon_set, args.output, args.size)] = prefix
        if missing := wanted_sets - sets_in_package:
            sys.exit(f"error: {package} has no set {', '.join(sorted(missing))}")
        for job in tqdm(as_completed(jobs), "rendering", len(jobs), unit="set"):
            entries[jobs[job]] = job.result()
            # After each set, so that a run that is stopped keeps what it has rendered.
            partial_path = table.with_name(".sets.json.partial")
            text = json.dumps(dict(sorted(entries.items())), ensure_ascii=False, indent=1)
            partial_path.write_text(text, encoding="utf-8")
            partial_path.replace(table)
    num_icons = sum(entry["samples"] for entry in entries.values())
    num_failed = sum(sum(entry["failed"].values()) for entry in entries.values())
    print(f"{num_icons:,} icons of {len(entries)} sets in {args.output}")
    if num_failed:
        print(f"{num_failed:,} could not be rendered; sets.json says which sets they are of")
    return 0


if __name__ == "__main__":
    sys.exit(main())
