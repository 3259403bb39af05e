"""Deal the icons of icons.py to training, validation and test data, for the study of docs/notes/ablation.md.

    python demo_data/icons.py                  # first: the icons
    python demo_data/icon_study.py             # demo_data/icon_study/, about three minutes on one core

Families of sets (icon_families.py) are on one side only, and of the training sets every icon is left out that is
drawn as one of another side. lists.json says which sets are where, what joined them, and all counts. A sample keeps
what icons.py gave it: caption, tags, name, set, author, licence, styles.

    train.tar                      80,000 icons, drawn at random from the training sets
    train-20k.tar                  the first 20,000 of them
    train-wrong30.tar, -wrong60    the same icons; 30 and 60 % have the caption and the tags of another of these
    train-lexicon.tar              those of them whose name is that of a demo drawing, with its Chinese name
    val.tar, test-SET.tar          the icons of these sets, without variants by skin tone
    vocabulary.txt                 the tokens of train.tar and of the demo's drawings

    python demo_data/icon_study.py --long      # afterwards: train-long.tar and test-long-SET.tar, the same icons with
                                               # a long caption as well, of name, tags, style and set
    python demo_data/icon_study.py --frequent  # afterwards: train-frequent.tar, val-frequent.tar and
                                               # test-frequent-SET.tar, the icons of the 300 most frequent names
"""

import argparse
import io
import json
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from icon_families import Drawings, Icon, Shape, count_shared_images, find_families, make_shape, read_set
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
DEMO_DRAWINGS = HERE / "emoji-train.tar"
# Side -> the sets that are scored. A set of their families that is not here is on no side.
SCORED_SETS = {
    "val": ("carbon",),
    "test": ("iconoir", "vaadin", "streamline-ultimate-color", "openmoji"),
}
SIDES = ("train", "val", "test", "none")
NUM_TRAINING_ICONS, NUM_FEWER_ICONS = 80_000, 20_000
WRONG_PERCENTS = (30, 60)
# Names with 15 icons or more in train.tar. A small model learns these in minutes, but hardly any of all names.
NUM_FREQUENT_NAMES = 300


def assign_sides(families: Sequence[Sequence[str]], set_names: Iterable[str]) -> dict[str, str]:
    """Return the side of each set: train, val, test, or none for the rest of a scored family.

    Raises:
        ValueError: two sides have a family in common, or a set that is scored is missing.
    """
    side_by_scored_set: dict[str, str] = {}
    for side, names in SCORED_SETS.items():
        side_by_scored_set |= dict.fromkeys(names, side)
    missing = sorted(set(side_by_scored_set) - set(set_names))
    if missing:
        raise ValueError(f"the icons lack {', '.join(missing)}; render them: python demo_data/icons.py")
    sides: dict[str, str] = {}
    for family in families:
        scored_sides = {side_by_scored_set[name] for name in family if name in side_by_scored_set}
        if len(scored_sides) > 1:
            listed = ", ".join(sorted(scored_sides))
            raise ValueError(f"{', '.join(family)} are one family and are on two sides: {listed}")
        for name in family:
            sides[name] = side_by_scored_set.get(name, "none" if scored_sides else "train")
    return sides


def find_copies(drawings: Drawings, sides: Mapping[str, str]) -> set[str]:
    """Return the keys of training icons that are drawn as one of val or test, and of val as one of test."""
    copies: set[str] = set()
    for group in drawings.group_by_hash():
        rows_by_side: dict[str, list[int]] = {side: [] for side in SIDES}
        for row in group:
            rows_by_side[sides[drawings.sets[row]]].append(row)
        train, val, test = rows_by_side["train"], rows_by_side["val"], rows_by_side["test"]
        for rows, later_rows in ((train, val + test), (val, test)):
            if rows and later_rows:
                is_copy = drawings.compare(rows, later_rows).any(axis=1)
                copies |= {drawings.keys[rows[position]] for position in np.flatnonzero(is_copy)}
    return copies


def read_lexicon(drawings: Path = DEMO_DRAWINGS) -> dict[str, dict]:
    """Return the Chinese name and tags of the demo's concepts, by English name in lower case."""
    lexicon = {}
    with tarfile.open(drawings) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None and member.name.endswith(".json"):
                fields = json.load(file)
                lexicon[fields["caption_en"].casefold()] = {key: fields[key] for key in ("caption_zh", "tags_zh")}
    return lexicon


def get_name(icon: Icon) -> str:
    """Return the name of an icon as names are compared: its caption in lower case."""
    return icon.fields["caption_en"].casefold()


def read_scored_set(path: Path) -> list[Icon]:
    """Return the icons of a set that is scored, without the emoji in five skin tones."""
    return [icon for icon in read_set(path) if "skin-tone" not in icon.fields["name"]]


def swap_captions(icons: Sequence[Icon], percent: int) -> list[Icon]:
    """Give a random share of the icons captions and tags of another one of these.

    Args:
        icons: the icons.
        percent: the share; it is the seed as well, so equal arguments give equal icons.
    """
    rng = np.random.default_rng(percent)
    takers = rng.permutation(len(icons))[: len(icons) * percent // 100]
    result = list(icons)
    for taker, giver in zip(takers, np.roll(takers, 1), strict=True):
        texts = {key: icons[giver].fields[key] for key in ("caption_en", "tags_en")}
        result[taker] = icons[taker]._replace(fields={**icons[taker].fields, **texts})
    return result


def translate(icons: Sequence[Icon], lexicon: Mapping[str, dict]) -> list[Icon]:
    """Return the icons whose name is in the lexicon, with Chinese name and tags."""
    translated = []
    for icon in icons:
        chinese_fields = lexicon.get(get_name(icon))
        if chinese_fields:
            translated.append(icon._replace(fields={**icon.fields, **chinese_fields}))
    return translated


def add_long_caption(icon: Icon) -> Icon:
    """Add `caption_long_en` to an icon: its name, tags, style and set in one sentence."""
    fields = icon.fields
    tags = f", tagged {', '.join(fields['tags_en'])}" if fields["tags_en"] else ""
    style = " ".join(["a", *fields["styles"], "colourful" if fields["color"] else "plain"])
    caption = f"{fields['caption_en']}{tags}: {style} icon of the set {fields['set_name']} by {fields['author']}"
    return icon._replace(fields={**fields, "caption_long_en": caption})


def select_frequent(icons: Iterable[Icon]) -> set[str]:
    """Return the most frequent captions, in lower case."""
    counts = Counter(map(get_name, icons))
    return {caption for caption, _ in counts.most_common(NUM_FREQUENT_NAMES)}


def write_frequent(folder: Path) -> None:
    """Write the icons of the most frequent names of train.tar, from each shard that is trained on or scored."""
    captions = select_frequent(read_set(folder / "train.tar"))
    targets = {"train": "train-frequent", "val": "val-frequent"}
    targets |= {f"test-{name}": f"test-frequent-{name}" for name in SCORED_SETS["test"]}
    for source, target in targets.items():
        icons = read_set(folder / f"{source}.tar")
        write_icons(folder / f"{target}.tar", (icon for icon in icons if get_name(icon) in captions))


def write_long(folder: Path) -> None:
    """Write the icons of train.tar and of the test sets with a long caption as well."""
    targets = {"train": "train-long"}
    targets |= {f"test-{name}": f"test-long-{name}" for name in SCORED_SETS["test"]}
    for source, target in targets.items():
        write_icons(folder / f"{target}.tar", map(add_long_caption, read_set(folder / f"{source}.tar")))


def write_icons(path: Path, icons: Iterable[Icon]) -> None:
    """Write a shard, whole or not at all."""
    partial_path = path.with_name(f".{path.name}.partial")
    with tarfile.open(partial_path, "w") as tar:
        for key, fields, png in icons:
            for suffix, content in (("png", png), ("json", json.dumps(fields, ensure_ascii=False).encode())):
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    partial_path.replace(path)


def read_shapes(path: Path) -> list[tuple[str, str, Shape | None]]:
    """Return key, caption and shape of every icon of a set; runs in a process of its own."""
    return [(icon.key, icon.fields["caption_en"], make_shape(icon.png)) for icon in read_set(path)]


def draw_training_icons(folder: Path, candidates: Sequence[tuple[str, str]]) -> list[Icon]:
    """Read random icons, in random order.

    Args:
        folder: folder of the sets.
        candidates: set and key of the icons to draw from.
    """
    order = np.random.default_rng(0).permutation(len(candidates))[:NUM_TRAINING_ICONS]
    position_by_key = {candidates[row][1]: position for position, row in enumerate(order)}
    set_names = sorted({candidates[row][0] for row in order})
    icons = []
    for name in tqdm(set_names, "reading", unit="set"):
        icons += [icon for icon in read_set(folder / f"{name}.tar") if icon.key in position_by_key]
    return sorted(icons, key=lambda icon: position_by_key[icon.key])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--icons", type=Path, default=HERE / "icons", metavar="FOLDER", help="output of icons.py")
    parser.add_argument("--output", type=Path, default=HERE / "icon_study", metavar="FOLDER")
    parser.add_argument("--processes", type=int, default=1, help="processes that read the sets")
    parser.add_argument("--long", action="store_true", help="add long captions to the shards that are there")
    parser.add_argument("--frequent", action="store_true", help="take frequent names from the shards that are there")
    args = parser.parse_args()
    if (args.frequent or args.long) and not (args.output / "train.tar").exists():
        sys.exit(f"error: {args.output} has no train.tar; run this script without --long and --frequent first")
    if args.frequent:
        write_frequent(args.output)
        return 0
    if args.long:
        write_long(args.output)
        return 0
    if not (args.icons / "sets.json").exists():
        sys.exit(f"error: {args.icons} holds no icons; render them: python demo_data/icons.py")
    args.output.mkdir(parents=True, exist_ok=True)
    sets = json.loads((args.icons / "sets.json").read_text(encoding="utf-8"))

    drawings = Drawings()
    names: dict[str, set[str]] = {}  # set -> captions of several words
    keys: dict[str, list[str]] = {}  # set -> icons that are not blank
    num_blank = 0
    with ProcessPoolExecutor(args.processes) as processes:
        shapes_of_sets = processes.map(read_shapes, [args.icons / f"{name}.tar" for name in sets])
        for name, shapes in tqdm(zip(sets, shapes_of_sets, strict=True), "looking", len(sets), unit="set"):
            names[name] = {caption for _, caption, _ in shapes if " " in caption}
            keys[name] = [key for key, _, shape in shapes if shape]
            for key, _, shape in shapes:
                if shape:
                    drawings.add(name, key, shape)
                else:
                    num_blank += 1
    families, joined_pairs = find_families(sets, names, count_shared_images(drawings))
    try:
        sides = assign_sides(families, sets)
    except ValueError as error:
        sys.exit(f"error: {error}")
    copies = find_copies(drawings, sides)

    candidates: list[tuple[str, str]] = []
    for name in sorted(sets):
        if sides[name] == "train":
            candidates += [(name, key) for key in keys[name] if key not in copies]
    train = draw_training_icons(args.icons, candidates)
    lexicon = read_lexicon()
    shards = {"train": train, "train-20k": train[:NUM_FEWER_ICONS]}
    for percent in WRONG_PERCENTS:
        shards[f"train-wrong{percent}"] = swap_captions(train, percent)
    shards["train-lexicon"] = translate(train, lexicon)
    shards["val"] = []
    for name in SCORED_SETS["val"]:
        shards["val"] += read_scored_set(args.icons / f"{name}.tar")
    for name in SCORED_SETS["test"]:
        shards[f"test-{name}"] = read_scored_set(args.icons / f"{name}.tar")
    for name in ("val", *(f"test-{name}" for name in SCORED_SETS["test"])):
        shards[name] = [icon for icon in shards[name] if icon.key not in copies]
    for name, icons in tqdm(shards.items(), "writing", unit="shard"):
        write_icons(args.output / f"{name}.tar", icons)

    families_of_several = [family for family in families if len(family) > 1]
    sets_by_side: dict[str, list[str]] = {side: [] for side in SIDES}
    for name in sorted(sets):
        sets_by_side[sides[name]].append(name)
    num_tagged, num_translatable = {}, {}
    for name, icons in shards.items():
        num_tagged[name] = sum(bool(icon.fields["tags_en"]) for icon in icons)
        num_translatable[name] = sum(get_name(icon) in lexicon for icon in icons)
    lists = {
        "icons": sum(entry["samples"] for entry in sets.values()),
        "blank": num_blank,
        "sides": sets_by_side,
        "families": families_of_several,
        "sets_in_families": sum(map(len, families_of_several)),
        "joined_by_name": joined_pairs["name"],
        "joined_by_pixels": joined_pairs["pixels"],
        # A key is SET--NAME, see icons.py.
        "copies_left_out": dict(Counter(sides[key.split("--")[0]] for key in sorted(copies))),
        "training_icons": len(candidates),
        "samples": {name: len(icons) for name, icons in shards.items()},
        "with_tags": num_tagged,
        "names_known_from_drawings": num_translatable,
        "licenses": dict(Counter(icon.fields["license"] for icon in train).most_common()),
    }
    (args.output / "lists.json").write_text(json.dumps(lists, ensure_ascii=False, indent=1), encoding="utf-8")
    texts = [args.output / "train.tar", DEMO_DRAWINGS]
    trim = [HERE.parent / "tools" / "trim.py", "--data", *texts, "--output", args.output / "vocabulary.txt"]
    subprocess.run([sys.executable, *map(str, trim)], check=True)  # noqa: S603  -- a command of this repository
    print(
        f"{len(families_of_several)} families of {lists['sets_in_families']} sets; "
        f"{len(joined_pairs['name'])} pairs joined by name, {len(joined_pairs['pixels'])} by pixels; "
        f"{len(copies)} icons left out as copies; {len(candidates):,} icons to train on, {len(train):,} drawn"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
