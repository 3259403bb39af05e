"""Render the icons of npm's @iconify/json into shards: some 377,000 real images with names, one shard per icon set.

    pip install resvg-py==0.5.0          # the renderer, needed by this script alone
    python demo_data/icons.py            # demo_data/icons/SET.tar; needs npm (Node.js), about five minutes on two cores
    python demo_data/icons.py --sets mdi tabler twemoji
    python demo_data/icons.py --package iconify-json-2.2.535.tgz     # a package that is already here

A sample is a PNG and a JSON of `caption_en` (the icon's name without the words for its style), `tags_en` (its
categories and other names), `name`, `set`, `set_name`, `author`, `license` (SPDX), `color` and `styles` (the words
taken off). Sets under licences that forbid commercial use or are of the GPL family are left out unless
--restricted asks for them. Icons hidden by their authors are not samples. A run that was stopped goes on with the
sets that are missing; demo_data/icons/sets.json says what every set holds.
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
STYLES = frozenset(
    "outline outlined filled fill line linear solid bold thin light regular duotone twotone sharp rounded round"  # noqa: SIM905  -- words are read as a text
    " broken bulk flat color colored mono stroke 12 14 16 20 24 28 32 36 40 48 64".split()
)
"""Last words of names that mean the style or the grid of an icon, not what it shows."""


def caption_and_styles(name: str, affixes: frozenset[str]) -> tuple[str, list[str]]:
    """The words of an icon's name without those for its style, and these.

    Args:
        name: as `file-music-outline`.
        affixes: words that the set itself says are styles.
    """
    words = name.replace("two-tone", "twotone").split("-")
    styles: list[str] = []
    while len(words) > 1 and words[-1] in STYLES | affixes:
        styles.insert(0, words.pop())
    return " ".join(words), styles


def drawing(icons: dict, icon: dict, size: int) -> bytes:
    """An icon as PNG, `size` x `size`, centred on white; what takes the colour of its text becomes dark grey.

    Raises:
        ValueError: it cannot be rendered.
    """
    left, top = (icon.get(key, icons.get(key, 0)) for key in ("left", "top"))
    width, height = (icon.get(key, icons.get(key, 16)) for key in ("width", "height"))
    side = max(width, height)
    box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' width="{size}" height="{size}" viewBox="{box}" color="{INK}">{icon["body"]}</svg>'
    )
    return resvg_py.svg_to_bytes(svg_string=svg, background=PAPER, width=size, height=size, skip_system_fonts=True)


def tags_by_name(icons: dict, affixes: frozenset[str]) -> dict[str, list[str]]:
    """The categories of every icon and the other names that it is known by, as words."""
    tags: dict[str, dict[str, None]] = {name: {} for name in icons["icons"]}
    for category, names in icons.get("categories", {}).items():
        for name in names:
            for part in re.split(r"\s*[/,&]\s*", category.lower()):
                tags.get(name, {})[part.strip()] = None
    for alias, parent in icons.get("aliases", {}).items():
        if set(parent) == {"parent"}:  # others turn or flip their parent
            caption, _ = caption_and_styles(alias, affixes)
            tags.get(parent["parent"], {})[caption] = None
    return {name: [tag for tag in found if tag] for name, found in tags.items()}


def render_set(prefix: str, icons: dict, folder: Path, size: int) -> dict:
    """Writes the shard of a set; returns what `sets.json` says of it."""
    info = icons["info"]
    affixes = frozenset(
        word for key in ("suffixes", "prefixes") for affix in icons.get(key, {}) for word in affix.split("-") if word
    )
    tags = tags_by_name(icons, affixes)
    failed: Counter[str] = Counter()
    aside = folder / f".{prefix}.{os.getpid()}.partial"
    samples = 0
    with tarfile.open(aside, "w") as tar:
        for name, icon in icons["icons"].items():
            if icon.get("hidden"):
                continue
            try:
                png = drawing(icons, icon, size)
            except ValueError as error:
                failed[str(error).split(":")[0][:80]] += 1
                continue
            caption, styles = caption_and_styles(name, affixes)
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
            for ending, content in (("png", png), ("json", json.dumps(fields, ensure_ascii=False).encode())):
                # A member's key ends at the first dot of its name.
                member = tarfile.TarInfo(f"{prefix}--{name.replace('.', '_')}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            samples += 1
    aside.replace(folder / f"{prefix}.tar")
    return {
        "name": info["name"],
        "author": info["author"]["name"],
        "license": info["license"]["spdx"],
        "license_url": info["license"].get("url"),
        "color": bool(info.get("palette")),
        "category": info.get("category"),
        "samples": samples,
        "failed": dict(failed),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "icons", metavar="FOLDER")
    parser.add_argument("--package", type=Path, metavar="FILE", help="the .tgz of @iconify/json; default: npm fetches")
    parser.add_argument("--sets", nargs="+", metavar="SET", help="only these; default: all")
    parser.add_argument("--restricted", action="store_true", help="also sets under NC or GPL licences")
    parser.add_argument("--size", type=int, default=64, help="side of an image in pixels")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()

    args.output.mkdir(parents=True, exist_ok=True)
    package = args.package or fetch(*PACKAGE, args.output)
    table = args.output / "sets.json"
    known = json.loads(table.read_text(encoding="utf-8")) if table.exists() else {}
    wanted, found = set(args.sets or ()), set()
    with ProcessPoolExecutor(args.processes) as pool, tarfile.open(package, "r:gz") as tar:
        jobs = {}
        for member in tqdm(tar, "reading", unit="set", leave=False):
            match = re.fullmatch(r"package/json/([a-z0-9-]+)\.json", member.name)
            if not match or (wanted and match[1] not in wanted):
                continue
            file = tar.extractfile(member)
            if file is None:  # a folder has no content
                continue
            prefix, icons = match[1], json.load(file)
            found.add(prefix)
            if RESTRICTED.search(icons["info"]["license"]["spdx"]) and not args.restricted and prefix not in wanted:
                continue
            if not (prefix in known and (args.output / f"{prefix}.tar").exists()):
                jobs[pool.submit(render_set, prefix, icons, args.output, args.size)] = prefix
        if missing := wanted - found:
            sys.exit(f"error: {package} has no set {', '.join(sorted(missing))}")
        for job in tqdm(as_completed(jobs), "rendering", len(jobs), unit="set"):
            known[jobs[job]] = job.result()
            aside = table.with_name(".sets.json.partial")
            aside.write_text(json.dumps(dict(sorted(known.items())), ensure_ascii=False, indent=1), encoding="utf-8")
            aside.replace(table)
    failed = sum(sum(entry["failed"].values()) for entry in known.values())
    print(f"{sum(entry['samples'] for entry in known.values()):,} icons of {len(known)} sets in {args.output}")
    if failed:
        print(f"{failed:,} could not be rendered; sets.json says which sets they are of")
    return 0


if __name__ == "__main__":
    sys.exit(main())
