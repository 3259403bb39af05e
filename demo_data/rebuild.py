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
import zlib
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
SIZE = 64  # side of a drawing in pixels


def fetch(name: str, version: str, folder: Path) -> Path:
    """Return the path of a package's .tgz in a folder; npm fetches a missing one into a temporary folder first."""
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
    """Read JSON files of an npm package, without unpacking anything to disk."""
    try:
        with tarfile.open(package, "r:gz") as tar:
            contents = []
            for member in members:
                file = tar.extractfile(f"package/{member}")
                if file is None:
                    raise ValueError(f"{member} is not a file")
                contents.append(json.load(file))
            return contents
    except (KeyError, tarfile.TarError, EOFError, ValueError, zlib.error) as error:
        sys.exit(f"{package} cannot be read ({error}): remove it and run again")


class IconSet:
    """Icons of a style by name, and by code points where the package has a table of these."""

    def __init__(self, package: Path):
        self.data, self.names_by_id = read_json(package, "icons.json", "chars.json")
        # An alias that also turns or flips its parent is not a drawing of its own and is left out.
        aliases = self.data.get("aliases", {})
        self.aliases = {name: alias["parent"] for name, alias in aliases.items() if set(alias) == {"parent"}}

    def find(self, concept: str, names: list[str]) -> str | None:
        """Return the name of a concept's icon, or None.

        Args:
            concept: its code points; only they count if the package lists them.
            names: names that it may have otherwise, the likely ones first.
        """
        if self.names_by_id:
            return self.names_by_id.get(concept)
        names_without_hyphens = [name.replace("-", "") for name in names]  # fxemoji writes `alarmclock`
        for name in names + names_without_hyphens:
            if name in self.data["icons"] or name in self.aliases:
                return name
        return None

    def draw(self, name: str) -> bytes:
        """Return an icon as WebP, `SIZE` x `SIZE`, RGB, centred on white; drawn at twice the size and reduced."""
        while name in self.aliases:
            name = self.aliases[name]
        icon = {"left": 0, "top": 0, **self.data, **self.data["icons"][name]}
        width, height = icon["width"], icon["height"]
        view_box = f"{icon['left']} {icon['top']} {width} {height}"
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
            f' width="{width}" height="{height}" viewBox="{view_box}">{icon["body"]}</svg>'
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
    """Return all samples in the order of the shards, each as its JSON fields and the name of its icon.

    A concept is an entry of the CLDR annotations (written without variation selectors) that at least two of
    the training styles draw. Packages that do not list code points are searched by the names that the others
    give them, then by the English name of the concept.

    Args:
        icons: icons of each style.
        zh: annotations in Chinese, by concept.
        en: annotations in English.
    """
    samples = []
    for text, entry in en.items():
        concept = "-".join(f"{ord(character):x}" for character in text)
        names = [style.names_by_id[concept] for style in icons.values() if concept in style.names_by_id]
        names.append(re.sub("[^a-z0-9]+", "-", entry["tts"][0].lower()).strip("-"))
        icon_names = {}
        for style in STYLES:
            name = icons[style].find(concept, names)
            if name:
                icon_names[style] = name
        if sum(style in icon_names for style in SPLITS["train"]) < 2:
            continue
        for style, name in icon_names.items():
            fields = {
                "id": concept,
                "style": style,
                "kind": "symbol" if SYMBOL_KEYWORDS & set(entry["default"]) else "object",
                "caption_zh": zh[text]["tts"][0],
                "caption_en": entry["tts"][0],
                "tags_zh": zh[text]["default"],
                "tags_en": entry["default"],
                "license": STYLES[style][1],
            }
            samples.append((fields, name))
    # A fixed order without a pattern: a few samples in a row are of all kinds and styles.
    samples.sort(key=lambda sample: hashlib.md5((sample[0]["id"] + sample[0]["style"]).encode()).digest())  # noqa: S324  -- a number, not a secret
    return samples


def make_shard(samples: list[tuple[dict, str]], icons: dict[str, IconSet]) -> bytes:
    """Return a tar file of the samples with headers that hold nothing but names and sizes."""
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
    """Return JSON fields and WebP of each sample by key, `<code points>_<style>`, in the order of the file."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        files = {}
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:  # a folder has no content
                files[member.name] = file.read()
    keys = [name.removesuffix(".json") for name in files if name.endswith(".json")]
    return {key: (json.loads(files[f"{key}.json"]), files[f"{key}.webp"]) for key in keys}


def decode(webp: bytes) -> np.ndarray:
    """Return the pixels of an image, [H, W, 3] float, 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(webp)).convert("RGB"), dtype=float)


def compare(file: str, rebuilt: bytes, shipped: bytes) -> bool:
    """Print how two shards agree and return whether they have the same samples, in order, with the same fields."""
    rebuilt_samples, shipped_samples = read_shard(rebuilt), read_shard(shipped)
    common_keys = [key for key in shipped_samples if key in rebuilt_samples]
    has_same_order = list(rebuilt_samples) == list(shipped_samples)
    equal_fields = dict.fromkeys(FIELDS, 0)
    num_equal_drawings = 0
    differences = []
    for key in common_keys:
        rebuilt_fields, rebuilt_webp = rebuilt_samples[key]
        shipped_fields, shipped_webp = shipped_samples[key]
        for field in FIELDS:
            equal_fields[field] += rebuilt_fields[field] == shipped_fields[field]
        num_equal_drawings += rebuilt_webp == shipped_webp
        differences.append(abs(decode(rebuilt_webp) - decode(shipped_webp)).mean())
    print(
        f"{file}: {len(shipped_samples)} samples shipped, {len(common_keys)} of them rebuilt, "
        f"{len(rebuilt_samples) - len(common_keys)} others; same order: {'yes' if has_same_order else 'no'}"
    )
    print("  same " + ", ".join(f"{field} {count}" for field, count in equal_fields.items()))
    print(
        f"  drawings: {num_equal_drawings} the same to the byte, "
        f"mean absolute difference {np.mean(differences):.3f} of 255; "
        f"file the same: {'yes' if rebuilt == shipped else 'no'}"
    )
    return has_same_order and all(count == len(shipped_samples) for count in equal_fields.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "rebuilt", help="folder for the three shards")
    parser.add_argument("--packages", type=Path, help="folder of the packages' .tgz files (OUTPUT/packages)")
    options = parser.parse_args()
    packages = options.packages or options.output / "packages"
    for folder in (options.output, packages):
        folder.mkdir(parents=True, exist_ok=True)

    icons = {}
    for style, (version, _) in STYLES.items():
        icons[style] = IconSet(fetch(f"@iconify-json/{style}", version, packages))
    members = ("annotations/zh/annotations.json", "annotations/en/annotations.json")
    zh, en = (table["annotations"]["annotations"] for table in read_json(fetch(*ANNOTATIONS, packages), *members))
    samples = select(icons, zh, en)

    all_agree = True
    for split, styles in SPLITS.items():
        samples_of_split = [sample for sample in samples if sample[0]["style"] in styles]
        file = f"emoji-{split}.tar"
        print(f"drawing {len(samples_of_split)} samples of {file}", flush=True)
        rebuilt = make_shard(samples_of_split, icons)
        if (HERE / file).exists():
            all_agree &= compare(file, rebuilt, (HERE / file).read_bytes())
        else:
            print(f"{file}: no shipped file next to this script to compare with")
        partial = options.output / f"{file}.partial"
        partial.write_bytes(rebuilt)
        partial.replace(options.output / file)
    return 0 if all_agree else 1


if __name__ == "__main__":
    sys.exit(main())
