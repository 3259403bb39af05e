"""The image tower that the demo starts from: pretrained on icons of other teams than those that drew the demo's data.

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
from icon_study import write
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from ernie_vil2.io.run_folder import resolve_checkpoint

HERE = Path(__file__).resolve().parent
STYLES = re.compile(r"twemoji|emojione|fluent-emoji|^noto|fxemoji")
"""Of the demo, and their relatives."""
IN_COLOUR, OTHERS = 0.8, 0.16
TOWER = "image."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--icons", type=Path, default=HERE / "icons", metavar="FOLDER", help="what icons.py wrote")
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
    write(args.output / "train.tar", drawn(args.icons, sets))
    trim = [HERE.parent / "tools" / "trim.py", "--data", args.output / "train.tar", "--output",
            args.output / "vocabulary.txt"]  # fmt: skip
    subprocess.run([sys.executable, *map(str, trim)], check=True)  # noqa: S603  -- a command of this script
    return 0


def drawn(icons: Path, sets: dict[str, dict]) -> list[Icon]:
    """The icons to train on, in a random order that is always the same."""
    rng = np.random.default_rng(0)
    found = []
    for name, about in tqdm(sets.items(), "drawing", unit="set"):
        if STYLES.search(name):
            continue
        share = IN_COLOUR if about["color"] else OTHERS
        found += [icon for icon in read_set(icons / f"{name}.tar")
                  if rng.random() < share and "skin-tone" not in icon.fields["name"]]  # fmt: skip
    return [found[row] for row in rng.permutation(len(found))]


def write_tower(path: Path, weights: dict[str, np.ndarray]) -> None:
    """The image tower of a model's weights as a file of its own, whole or not at all."""
    aside = path.with_name(f".{path.name}.partial")
    save_file({name: array for name, array in weights.items() if name.startswith(TOWER)}, aside)
    aside.replace(path)


if __name__ == "__main__":
    sys.exit(main())
