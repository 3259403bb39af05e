"""Fixed lists for the study of docs/notes/ablation.md: which icons of icons.py are train, validation and test data.

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from icon_families import Drawings, Icon, families, read_set, shape, shared_images
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
DRAWINGS = HERE / "emoji-train.tar"
SCORED = {
    "val": ("carbon",),
    "test": ("iconoir", "vaadin", "streamline-ultimate-color", "openmoji"),
}
"""By side the sets that are scored. What is of their families and not here is on no side."""
SIDES = ("train", "val", "test", "none")
SIZE, SMALL = 80_000, 20_000
WRONG = (30, 60)
FREQUENT_NAMES = 300
"""Names with 15 icons or more in train.tar. A small model learns these in minutes, but hardly any of all names."""


def side_of_sets(found: Sequence[Sequence[str]], known: Iterable[str]) -> dict[str, str]:
    """By set its side: train, val, test, or none for the rest of a scored family.

    Raises:
        ValueError: two sides have a family in common, or a set that is scored is not there.
    """
    scored = {name: side for side, names in SCORED.items() for name in names}
    if missing := sorted(set(scored) - set(known)):
        raise ValueError(f"the icons lack {', '.join(missing)}; render them: python demo_data/icons.py")
    sides: dict[str, str] = {}
    for family in found:
        own = {scored[name] for name in family if name in scored}
        if len(own) > 1:
            raise ValueError(f"{', '.join(family)} are one family and are on two sides: {', '.join(sorted(own))}")
        sides |= {name: scored.get(name, "none" if own else "train") for name in family}
    return sides


def left_out(drawings: Drawings, sides: Mapping[str, str]) -> set[str]:
    """The keys of icons that are drawn as one of another side: of training sets, and of val as one of test."""
    rank = {"train": 0, "val": 1, "test": 2}
    copies: set[str] = set()
    for group in drawings.alike():
        group = [row for row in group if sides[drawings.sets[row]] in rank]
        side = np.array([rank[sides[drawings.sets[row]]] for row in group])
        for own in (0, 1):
            lower, higher = ([row for row, at in zip(group, side, strict=True) if test(at)]
                             for test in (lambda at, own=own: at == own, lambda at, own=own: at > own))  # fmt: skip
            if lower and higher:
                same = drawings.same(lower, higher).any(axis=1)
                copies |= {drawings.keys[row] for row, copy in zip(lower, same, strict=True) if copy}
    return copies


def lexicon(drawings: Path = DRAWINGS) -> dict[str, dict]:
    """By the English name of a concept what the demo's drawings say of it in Chinese."""
    found = {}
    with tarfile.open(drawings) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None and member.name.endswith(".json"):
                fields = json.load(file)
                found[fields["caption_en"].casefold()] = {key: fields[key] for key in ("caption_zh", "tags_zh")}
    return found


def scored_icons(path: Path) -> Iterator[Icon]:
    """The icons of a set that is scored: of emoji in five skin tones the one without."""
    return (icon for icon in read_set(path) if "skin-tone" not in icon.fields["name"])


def corrupted(icons: Sequence[Icon], percent: int) -> list[Icon]:
    """The icons, of which so many have captions and tags of another one of these; which, follows from `percent`."""
    rng = np.random.default_rng(percent)
    chosen = rng.permutation(len(icons))[: len(icons) * percent // 100]
    result = list(icons)
    for taker, giver in zip(chosen, np.roll(chosen, 1), strict=True):
        own = {key: icons[giver].fields[key] for key in ("caption_en", "tags_en")}
        result[taker] = icons[taker]._replace(fields={**icons[taker].fields, **own})
    return result


def with_long_caption(icon: Icon) -> Icon:
    """The icon with a `caption_long_en`, in one sentence: its name, its tags, its style, and its set."""
    fields = icon.fields
    tags = f", tagged {', '.join(fields['tags_en'])}" if fields["tags_en"] else ""
    style = " ".join(["a", *fields["styles"], "colourful" if fields["color"] else "plain"])
    long = f"{fields['caption_en']}{tags}: {style} icon of the set {fields['set_name']} by {fields['author']}"
    return icon._replace(fields={**fields, "caption_long_en": long})


def select_frequent(icons: Iterable[Icon]) -> set[str]:
    """Return the most frequent captions, in lower case."""
    counts = Counter(icon.fields["caption_en"].casefold() for icon in icons)
    return {caption for caption, _ in counts.most_common(FREQUENT_NAMES)}


def write_frequent(folder: Path) -> None:
    """Write the icons of the most frequent names of train.tar, from each shard that is trained on or scored."""
    captions = select_frequent(read_set(folder / "train.tar"))
    for name in ("train", "val", *(f"test-{name}" for name in SCORED["test"])):
        side, _, rest = name.partition("-")
        target = "-".join(filter(None, (side, "frequent", rest)))
        icons = read_set(folder / f"{name}.tar")
        write(folder / f"{target}.tar", (icon for icon in icons if icon.fields["caption_en"].casefold() in captions))


def write(path: Path, icons: Iterable[Icon]) -> None:
    """Writes a shard, whole or not at all."""
    aside = path.with_name(f".{path.name}.partial")
    with tarfile.open(aside, "w") as tar:
        for key, fields, png in icons:
            for ending, content in (("png", png), ("json", json.dumps(fields, ensure_ascii=False).encode())):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    aside.replace(path)


def look(path: Path) -> list[tuple]:
    """Of every icon of a set its key, caption and shape; in a process of its own."""
    return [(icon.key, icon.fields["caption_en"], shape(icon.png)) for icon in read_set(path)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--icons", type=Path, default=HERE / "icons", metavar="FOLDER", help="what icons.py wrote")
    parser.add_argument("--output", type=Path, default=HERE / "icon_study", metavar="FOLDER")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--long", action="store_true", help="write the shards with long captions, of those without")
    parser.add_argument("--frequent", action="store_true", help="write the shards of frequent names, of those of all")
    args = parser.parse_args()
    if args.frequent:
        write_frequent(args.output)
        return 0
    if args.long:
        for name in ("train", *(f"test-{name}" for name in SCORED["test"])):
            long = name.replace("train", "train-long").replace("test-", "test-long-")
            write(args.output / f"{long}.tar", map(with_long_caption, read_set(args.output / f"{name}.tar")))
        return 0
    if not (args.icons / "sets.json").exists():
        sys.exit(f"error: {args.icons} holds no icons; render them: python demo_data/icons.py")
    args.output.mkdir(parents=True, exist_ok=True)
    sets = json.loads((args.icons / "sets.json").read_text(encoding="utf-8"))

    drawings, names, blank, keys = Drawings(), {}, 0, {}
    with ProcessPoolExecutor(args.processes) as processes:
        looked = processes.map(look, [args.icons / f"{name}.tar" for name in sets])
        for name, icons in tqdm(zip(sets, looked, strict=True), "looking", len(sets), unit="set"):
            names[name] = {caption for _, caption, _ in icons if " " in caption}
            keys[name] = [key for key, _, found in icons if found]
            for key, _, found in icons:
                if found:
                    drawings.add(name, key, found)
                else:
                    blank += 1
    found, joined = families(sets, names, shared_images(drawings))
    try:
        sides = side_of_sets(found, sets)
    except ValueError as error:
        sys.exit(f"error: {error}")
    copies = left_out(drawings, sides)

    pool = [(name, key) for name in sorted(sets) if sides[name] == "train" for key in keys[name] if key not in copies]
    drawn = [pool[row] for row in np.random.default_rng(0).permutation(len(pool))[:SIZE]]
    position, wanted = {key: row for row, (_, key) in enumerate(drawn)}, {name for name, _ in drawn}
    train = sorted(
        (icon for name in tqdm(sorted(wanted), "reading", unit="set") for icon in read_set(args.icons / f"{name}.tar")
         if icon.key in position), key=lambda icon: position[icon.key],
    )  # fmt: skip
    chinese = lexicon()
    named = [icon._replace(fields={**icon.fields, **known}) for icon in train
             if (known := chinese.get(icon.fields["caption_en"].casefold()))]  # fmt: skip
    scored = {
        "val": [icon for name in SCORED["val"] for icon in scored_icons(args.icons / f"{name}.tar")],
        **{f"test-{name}": list(scored_icons(args.icons / f"{name}.tar")) for name in SCORED["test"]},
    }
    shards = {
        "train": train,
        "train-20k": train[:SMALL],
        **{f"train-wrong{percent}": corrupted(train, percent) for percent in WRONG},
        "train-lexicon": named,
        **{name: [icon for icon in icons if icon.key not in copies] for name, icons in scored.items()},
    }
    for name, icons in tqdm(shards.items(), "writing", unit="shard"):
        write(args.output / f"{name}.tar", icons)

    several = [family for family in found if len(family) > 1]
    lists = {
        "icons": sum(entry["samples"] for entry in sets.values()),
        "blank": blank,
        "sides": {side: [name for name in sorted(sets) if sides[name] == side] for side in SIDES},
        "families": several,
        "sets_in_families": sum(map(len, several)),
        "joined_by_name": joined["name"],
        "joined_by_pixels": joined["pixels"],
        "copies_left_out": dict(Counter(sides[key.split("--")[0]] for key in copies)),
        "training_icons": len(pool),
        "samples": {name: len(icons) for name, icons in shards.items()},
        "with_tags": {name: sum(bool(icon.fields["tags_en"]) for icon in icons) for name, icons in shards.items()},
        "names_known_from_drawings": {
            name: sum(icon.fields["caption_en"].casefold() in chinese for icon in icons)
            for name, icons in shards.items()
        },
        "licenses": dict(Counter(icon.fields["license"] for icon in train).most_common()),
    }  # fmt: skip
    (args.output / "lists.json").write_text(json.dumps(lists, ensure_ascii=False, indent=1), encoding="utf-8")
    texts = [args.output / "train.tar", DRAWINGS]
    trim = [HERE.parent / "tools" / "trim.py", "--data", *texts, "--output", args.output / "vocabulary.txt"]
    subprocess.run([sys.executable, *map(str, trim)], check=True)  # noqa: S603  -- a command of this repository
    print(f"{len(several)} families of {lists['sets_in_families']} sets; {len(joined['name'])} pairs joined by name, "
          f"{len(joined['pixels'])} by pixels; {len(copies)} icons left out as copies; "
          f"{len(pool):,} icons to train on, {len(train):,} drawn")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
