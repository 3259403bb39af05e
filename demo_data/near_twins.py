"""Counts the test drawings that have a near-twin among the icons which the demo's image tower was pretrained on.

    python demo_data/icons.py && python demo_data/icon_tower.py              # first: the icons
    python demo_data/near_twins.py --ranks runs/all_pairs/evaluation/*.csv   # also recall without these drawings

A near-twin is an icon whose pixels, 32 x 32 on white, correlate with the drawing by more than --above (0.95). `--ranks`
takes the ranks that `tools/eval_retrieval.py` left for emoji-test.tar; without the twins their queries are dropped, in
both directions, and the gallery stays.
"""

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.readers import open_sources
from ernie_vil2.data.readers.source import ShardedSource
from ernie_vil2.data.samples import Sample

HERE = Path(__file__).resolve().parent
SIDE, BLOCK = 32, 4096
CUTOFFS = (1, 5, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--icons", nargs="+", default=[str(HERE / "icon_tower" / "train.tar")], help="shards")
    parser.add_argument("--data", nargs="+", default=[str(HERE / "emoji-test.tar")], help="shards of drawings")
    parser.add_argument("--above", type=float, default=0.95, help="the least correlation of a near-twin")
    parser.add_argument("--ranks", nargs="+", type=Path, default=[], help="CSV files of tools/eval_retrieval.py")
    parser.add_argument("--output", type=Path, help="JSON of the twins: drawing, icon, correlation")
    args = parser.parse_args()

    drawing_source, icons = open_sources(args.data), open_sources(args.icons)
    drawings = [drawing_source[row] for row in range(len(drawing_source))]
    best, nearest = closest(vectors(drawings), icons)
    twins = {
        drawings[row].image_name: {
            "icon": icons[int(nearest[row])].image_name,
            "correlation": round(float(best[row]), 4),
        }
        for row in np.flatnonzero(best > args.above).tolist()
    }
    print(f"{len(twins):,} of {len(drawings):,} drawings have a near-twin among {len(icons):,} icons")
    if args.output:
        args.output.write_text(json.dumps(twins, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if args.ranks:
        captions = [set(drawing.captions.values()) for drawing in drawings if drawing.image_name in twins]
        left_out = {*twins, *(text for texts in captions for text in texts)}
        for line in recalls(args.ranks, left_out):
            print(line)


def vectors(samples: Iterable[Sample]) -> NDArray[np.float32]:
    """The pixels of images as unit vectors without their mean, [N, 3 * 32 * 32]; their products are correlations."""
    rows = []
    for sample in samples:
        pixels = decode_image(sample.image, sample.image_name)
        pixels = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)  # [32, 32, 3]
        row = pixels.astype(np.float32).ravel()
        row -= row.mean()
        rows.append(row / max(float(np.linalg.norm(row)), 1e-6))
    return np.stack(rows)


def closest(drawings: NDArray[np.float32], icons: ShardedSource) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """For each drawing the highest correlation with an icon, and the icon's row."""
    best, nearest = np.full(len(drawings), -1, np.float32), np.zeros(len(drawings), np.int64)
    for start in tqdm(range(0, len(icons), BLOCK), "icons", unit="block"):
        block = vectors(icons[row] for row in range(start, min(start + BLOCK, len(icons))))
        products = drawings @ block.T
        found = products.max(axis=1)
        nearest = np.where(found > best, start + products.argmax(axis=1), nearest)
        best = np.maximum(best, found)
    return best, nearest


def recalls(files: Iterable[Path], left_out: set[str]) -> Iterable[str]:
    """A line for each result and direction: recall of all queries, and of those that are not left out."""
    ranks: Mapping[tuple[str, str], list[tuple[bool, int]]] = defaultdict(list)
    for path in files:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                known = row["query_id"] in left_out or row["query"] in left_out
                ranks[row["result"], row["direction"]].append((known, int(row["rank"])))
    for (result, direction), found in ranks.items():
        for name, kept in (("all", found), ("without twins", [one for one in found if not one[0]])):
            shares = [100 * sum(rank <= cutoff for _, rank in kept) / max(len(kept), 1) for cutoff in CUTOFFS]
            figures = "  ".join(f"R@{cutoff} {share:5.2f}" for cutoff, share in zip(CUTOFFS, shares, strict=True))
            label = f"{result}, {direction}, {name} ({len(kept):,} queries)"
            yield f"{label:62} {figures}"


if __name__ == "__main__":
    main()
