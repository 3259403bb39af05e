"""Rebuild the demo shards from the npm packages they were drawn from and compare them with the shipped ones.

    pip install resvg-py==0.5.0 Pillow==13.0.0   # renderer and WebP encoder, needed by this script alone
    python demo_data/rebuild.py                  # writes demo_data/rebuilt/; needs npm (Node.js)
    python demo_data/rebuild.py --packages DIR   # reads the packages' .tgz from DIR, fetches missing ones

It prints, for each shard, how many samples agree with the shipped file and by how much the drawings differ.
The exit status is 1 if a sample, one of its fields or the order of the samples differs.
"""

import argparse
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

try:
    import resvg_py
except ImportError:
    sys.exit("rebuild.py draws with resvg-py, which is not installed: pip install resvg-py==0.5.0")

HERE = Path(__file__).resolve().parent

# style -> (version of @iconify-json/<style>, licence)
STYLES = {
    "noto": ("1.2.9", "Apache-2.0"),
    "noto-v1": ("1.2.5", "Apache-2.0"),
    "fluent-emoji": ("1.2.7", "MIT"),
    "fluent-emoji-flat": ("1.2.6", "MIT"),
    "fxemoji": ("1.2.2", "Apache-2.0"),
    "emojione": ("1.2.3", "CC-BY-4.0"),
    "twemoji": ("1.2.5", "CC-BY-4.0"),
}
SPLITS = {
    "train": ("noto", "noto-v1", "fluent-emoji", "fluent-emoji-flat", "fxemoji"),
    "val": ("emojione",),
    "test": ("twemoji",),
}
# 48.0.0 to 48.2.0 give the same names and keywords for these concepts; 47 lacks the keycaps.
ANNOTATIONS = ("cldr-annotations-full", "48.2.0")

# A concept with one of these English keywords is a `symbol`. The words were recovered from the shipped files:
# no word can be left out, and together they give the kind of every concept.
SYMBOL_KEYWORDS = frozenset(
    "Japanese arrow blood button circle clock face geometric hand heart keycap man mark moon music person"  # noqa: SIM905  -- words are read as a text
    " punctuation sign square symbol woman zodiac".split()
)
FIELDS = ("id", "style", "kind", "caption_zh", "caption_en", "tags_zh", "tags_en", "license")
SIZE = 64


def fetch(name: str, version: str, folder: Path) -> Path:
    """The package's .tgz in `folder`; packed there by npm, under a temporary name first, if it is missing."""
    path = folder / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    if path.exists():
        return path
    print(f"fetching {name}@{version}", flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = ["npm", "pack", "--loglevel=error", "--pack-destination", scratch, f"{name}@{version}"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  -- a command of this script
        except FileNotFoundError:
            sys.exit(f"npm is not on the PATH: install Node.js, or put {path.name} into {folder}")
        except subprocess.CalledProcessError as error:
            reason = f"npm could not fetch {name}@{version}: {error.stderr.strip()}"
            sys.exit(f"{reason}\nTry again, or put {path.name} into {folder}")
        (Path(scratch) / path.name).replace(path)
    return path


def read_json(package: Path, *members: str) -> list:
    """The named JSON members of an npm package, read without unpacking anything to disk."""
    try:
        with tarfile.open(package, "r:gz") as tar:
            contents = []
            for member in members:
                file = tar.extractfile(f"package/{member}")
                if file is None:
                    raise ValueError(f"{member} is not a file")
                contents.append(json.load(file))
            return contents
    except (KeyError, tarfile.TarError, EOFError, ValueError) as error:
        sys.exit(f"{package} cannot be read ({error}): remove it and run again")


class IconSet:
    """One style: its icons by name, and, where the package has such a table, their names by code points."""

    def __init__(self, package: Path):
        self.data, self.names_by_id = read_json(package, "icons.json", "chars.json")
        # An alias that also turns or flips its parent is not a drawing of its own and is left out.
        aliases = self.data.get("aliases", {})
        self.aliases = {name: alias["parent"] for name, alias in aliases.items() if set(alias) == {"parent"}}

    def find(self, concept: str, names: list[str]) -> str | None:
        """The icon's name: by code points if the package lists them, else the first known one of `names`."""
        if self.names_by_id:
            return self.names_by_id.get(concept)
        names = names + [name.replace("-", "") for name in names]  # fxemoji writes `alarmclock`
        return next((name for name in names if name in self.data["icons"] or name in self.aliases), None)

    def draw(self, name: str) -> bytes:
        """The icon as WebP, `SIZE` x `SIZE`, RGB, centred on white; drawn at twice the size and reduced."""
        while name in self.aliases:
            name = self.aliases[name]
        icon = {"left": 0, "top": 0, **self.data, **self.data["icons"][name]}
        left, top, width, height = (icon[key] for key in ("left", "top", "width", "height"))
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
            f' width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
        )
        side = 2 * SIZE
        # No icon holds text, so the machine's fonts cannot matter and need not be read.
        png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, skip_system_fonts=True)
        drawing = Image.open(io.BytesIO(png)).convert("RGBA")  # fits the square, a side may be shorter
        canvas = Image.new("RGBA", (side, side), "white")
        canvas.alpha_composite(drawing, ((side - drawing.width) // 2, (side - drawing.height) // 2))
        webp = io.BytesIO()
        canvas.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS).save(webp, "WEBP", quality=80, method=6)
        return webp.getvalue()


def select(icons: dict[str, IconSet], zh: dict, en: dict) -> list[tuple[dict, str]]:
    """Every sample as (its JSON fields, name of its icon), in shard order.

    A concept is an entry of the CLDR annotations (written without variation selectors) that at least two of
    the training styles draw. Packages that do not list code points are searched by the names that the others
    give them, then by the English name of the concept.
    """
    samples = []
    for text, entry in en.items():
        concept = "-".join(f"{ord(character):x}" for character in text)
        names = [known.names_by_id[concept] for known in icons.values() if concept in known.names_by_id]
        names.append(re.sub("[^a-z0-9]+", "-", entry["tts"][0].lower()).strip("-"))
        found = {style: name for style in STYLES if (name := icons[style].find(concept, names))}
        if sum(style in found for style in SPLITS["train"]) < 2:
            continue
        for style, name in found.items():
            kind = "symbol" if SYMBOL_KEYWORDS & set(entry["default"]) else "object"
            captions_and_tags = zh[text]["tts"][0], entry["tts"][0], zh[text]["default"], entry["default"]
            values = (concept, style, kind, *captions_and_tags, STYLES[style][1])
            samples.append((dict(zip(FIELDS, values, strict=True)), name))
    samples.sort(key=lambda sample: hashlib.md5((sample[0]["id"] + sample[0]["style"]).encode()).digest())  # noqa: S324  -- a number, not a secret
    return samples


def shard(samples: list[tuple[dict, str]], icons: dict[str, IconSet]) -> bytes:
    """A tar file of the samples with headers that hold nothing but names and sizes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for fields, name in samples:
            drawing = icons[fields["style"]].draw(name)
            text = json.dumps(fields, ensure_ascii=False).encode()
            for suffix, content in (("webp", drawing), ("json", text)):
                member = tarfile.TarInfo(f"{fields['id']}_{fields['style']}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def read_shard(content: bytes) -> dict[str, tuple[dict, bytes]]:
    """`<code points>_<style>` -> (JSON fields, WebP bytes), in the file's order."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        files = {}
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:  # a folder has no content
                files[member.name] = file.read()
    keys = [name.removesuffix(".json") for name in files if name.endswith(".json")]
    return {key: (json.loads(files[f"{key}.json"]), files[f"{key}.webp"]) for key in keys}


def pixels(webp: bytes) -> np.ndarray:
    """`[H, W, 3]`, float, 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(webp)).convert("RGB"), dtype=float)


def compare(file: str, rebuilt: bytes, shipped: bytes) -> bool:
    """Print how the two shards agree; True if they hold the same samples, in order, with the same fields."""
    ours, theirs = read_shard(rebuilt), read_shard(shipped)
    common = [key for key in theirs if key in ours]
    same = {field: sum(ours[key][0][field] == theirs[key][0][field] for key in common) for field in FIELDS}
    order = list(ours) == list(theirs)
    identical = sum(ours[key][1] == theirs[key][1] for key in common)
    difference = np.mean([abs(pixels(ours[key][1]) - pixels(theirs[key][1])).mean() for key in common])
    print(
        f"{file}: {len(theirs)} samples shipped, {len(common)} of them rebuilt, "
        f"{len(ours) - len(common)} others; same order: {'yes' if order else 'no'}"
    )
    print("  same " + ", ".join(f"{field} {count}" for field, count in same.items()))
    print(
        f"  drawings: {identical} the same to the byte, mean absolute difference {difference:.3f} of 255; "
        f"file the same: {'yes' if rebuilt == shipped else 'no'}"
    )
    return order and all(count == len(theirs) for count in same.values())


def main() -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--output", type=Path, default=HERE / "rebuilt", help="folder for the three shards")
    parser.add_argument("--packages", type=Path, help="folder of the packages' .tgz files (OUTPUT/packages)")
    options = parser.parse_args()
    packages = options.packages or options.output / "packages"
    for folder in (options.output, packages):
        folder.mkdir(parents=True, exist_ok=True)

    icons = {
        style: IconSet(fetch(f"@iconify-json/{style}", version, packages)) for style, (version, _) in STYLES.items()
    }
    languages = ("annotations/zh/annotations.json", "annotations/en/annotations.json")
    tables = read_json(fetch(*ANNOTATIONS, packages), *languages)
    samples = select(icons, *(table["annotations"]["annotations"] for table in tables))

    agree = True
    for split, styles in SPLITS.items():
        chosen = [sample for sample in samples if sample[0]["style"] in styles]
        file = f"emoji-{split}.tar"
        print(f"drawing {len(chosen)} samples of {file}", flush=True)
        rebuilt = shard(chosen, icons)
        if (HERE / file).exists():
            agree &= compare(file, rebuilt, (HERE / file).read_bytes())
        else:
            print(f"{file}: no shipped file next to this script to compare with")
        partial = options.output / f"{file}.partial"
        partial.write_bytes(rebuilt)
        partial.replace(options.output / file)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
