"""Make the image tower that the demo starts from, pretrained on icons of other teams than those of the demo's data.

    python demo_data/icons.py                                 # first: the icons
    python demo_data/icon_tower.py                            # demo_data/icon_tower/train.tar and vocabulary.txt
    python tools/train.py -c configs/demo/icon_tower.yaml     # runs/icon_tower, a quarter of an hour on one core
    python demo_data/icon_tower.py --keep runs/icon_tower     # demo_data/icon-tower.safetensors

The sets of the demo's seven styles and their relatives are left out: what the demo is tuned and scored on stays unseen.
Of colour sets four icons in five are drawn, of the others, which are many, every sixth.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from icon_families import Icon, read_set
from icon_study import write_icons
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from ernie_vil2.io.run_folder import resolve_checkpoint

HERE = Path(__file__).resolve().parent
# Names of the demo's styles and of their relatives.
DEMO_STYLES = re.compile(r"twemoji|emojione|fluent-emoji|^noto|fxemoji")
# Shares of the icons that are drawn from sets in colour, and from the other sets, which are many.
COLOUR_SHARE, PLAIN_SHARE = 0.8, 0.16
TOWER_PREFIX = "image."  # of the names of the tower's weights in a checkpoint


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--icons", type=Path, default=HERE / "icons", metavar="FOLDER", help="output of icons.py")
    parser.add_argument("--output", type=Path, default=HERE / "icon_tower", metavar="FOLDER")
    parser.add_argument("--keep", type=Path, metavar="RUN", help="write the image tower of the run's newest checkpoint")
    args = parser.parse_args()
    if args.keep:
        checkpoint = resolve_checkpoint(args.keep)
        if checkpoint is None:
            sys.exit(f"error: {args.keep} is not a run; run: python tools/train.py -c configs/demo/icon_tower.yaml")
        write_tower(HERE / "icon-tower.safetensors", load_file(checkpoint / "model.safetensors"))
        return 0
    if not (args.icons / "sets.json").exists():
        sys.exit(f"error: {args.icons} holds no icons; render them: python demo_data/icons.py")
    args.output.mkdir(parents=True, exist_ok=True)
    sets = json.loads((args.icons / "sets.json").read_text(encoding="utf-8"))
    train = args.output / "train.tar"
    write_icons(train, draw_icons(args.icons, sets))
    trim = [HERE.parent / "tools" / "trim.py", "--data", train, "--output", args.output / "vocabulary.txt"]
    subprocess.run([sys.executable, *map(str, trim)], check=True)  # noqa: S603  -- a command of this script
    return 0


def draw_icons(folder: Path, sets: dict[str, dict]) -> list[Icon]:
    """Return the icons to train on, in a random order that is always the same.

    Args:
        folder: folder of the sets.
        sets: entries of sets.json.
    """
    rng = np.random.default_rng(0)
    icons = []
    for name, entry in tqdm(sets.items(), "drawing", unit="set"):
        if DEMO_STYLES.search(name):
            continue
        share = COLOUR_SHARE if entry["color"] else PLAIN_SHARE
        for icon in read_set(folder / f"{name}.tar"):
            # A number is drawn for emoji in five skin tones as well, though they are never taken.
            if rng.random() < share and "skin-tone" not in icon.fields["name"]:
                icons.append(icon)
    return [icons[row] for row in rng.permutation(len(icons))]


def write_tower(path: Path, weights: dict[str, np.ndarray]) -> None:
    """Write the image tower of a model's weights to a file of its own, whole or not at all."""
    partial_path = path.with_name(f".{path.name}.partial")
    save_file({name: array for name, array in weights.items() if name.startswith(TOWER_PREFIX)}, partial_path)
    partial_path.replace(path)


if __name__ == "__main__":
    sys.exit(main())
