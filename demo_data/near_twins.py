"""Count the test drawings that have a near-twin among the icons which the demo's image tower was pretrained on.

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
from collections.abc import Iterable, Iterator
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
SIDE = 32  # pixels
BLOCK_SIZE = 4096  # icons that are in memory at a time, 50 MB
CUTOFFS = (1, 5, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--icons", nargs="+", default=[str(HERE / "icon_tower" / "train.tar")], help="shards of icons")
    parser.add_argument("--data", nargs="+", default=[str(HERE / "emoji-test.tar")], help="shards of drawings")
    parser.add_argument("--above", type=float, default=0.95, help="correlation above which an icon is a near-twin")
    parser.add_argument("--ranks", nargs="+", type=Path, default=[], help="CSV files of tools/eval_retrieval.py")
    parser.add_argument("--output", type=Path, help="JSON of the twins: drawing, icon, correlation")
    args = parser.parse_args()

    drawing_source, icons = open_sources(args.data), open_sources(args.icons)
    drawings = [drawing_source[row] for row in range(len(drawing_source))]
    correlations, nearest_rows = find_nearest_icons(make_unit_vectors(drawings), icons)
    twins = {}
    for row in np.flatnonzero(correlations > args.above).tolist():
        icon_name = icons[int(nearest_rows[row])].image_name
        twins[drawings[row].image_name] = {"icon": icon_name, "correlation": round(float(correlations[row]), 4)}
    print(f"{len(twins):,} of {len(drawings):,} drawings have a near-twin among {len(icons):,} icons")
    if args.output:
        args.output.write_text(json.dumps(twins, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if args.ranks:
        # Queries are image names in one direction and captions in the other.
        twin_queries = set(twins)
        for drawing in drawings:
            if drawing.image_name in twins:
                twin_queries.update(drawing.captions.values())
        for line in format_recalls(args.ranks, twin_queries):
            print(line)


def make_unit_vectors(samples: Iterable[Sample]) -> NDArray[np.float32]:
    """Return images as vectors of mean 0 and length 1, [N, 3 * 32 * 32]; their products are correlations."""
    vectors = []
    for sample in samples:
        pixels = decode_image(sample.image, sample.image_name)
        pixels = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)  # [32, 32, 3]
        vector = pixels.astype(np.float32).ravel()
        vector -= vector.mean()
        vectors.append(vector / max(float(np.linalg.norm(vector)), 1e-6))  # an image of one colour has length 0
    return np.stack(vectors)


def find_nearest_icons(
    drawings: NDArray[np.float32], icons: ShardedSource
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return for each drawing the highest correlation with an icon, and the icon's row.

    Args:
        drawings: vectors of the drawings, see `make_unit_vectors`.
        icons: the icons, which are read block by block.
    """
    correlations = np.full(len(drawings), -1, np.float32)
    nearest_rows = np.zeros(len(drawings), np.int64)
    for start in tqdm(range(0, len(icons), BLOCK_SIZE), "icons", unit="block"):
        block = make_unit_vectors(icons[row] for row in range(start, min(start + BLOCK_SIZE, len(icons))))
        products = drawings @ block.T  # [drawings, icons of the block]
        block_correlations = products.max(axis=1)
        is_nearer = block_correlations > correlations
        nearest_rows = np.where(is_nearer, start + products.argmax(axis=1), nearest_rows)
        correlations = np.maximum(correlations, block_correlations)
    return correlations, nearest_rows


def format_recalls(files: Iterable[Path], twin_queries: set[str]) -> Iterator[str]:
    """Yield two lines for each result and direction: recall of all queries, and without those of near-twins.

    Args:
        files: CSV files of ranks.
        twin_queries: names and captions of the drawings that have a near-twin.
    """
    all_ranks: dict[tuple[str, str], list[int]] = defaultdict(list)
    ranks_without_twins: dict[tuple[str, str], list[int]] = defaultdict(list)
    for path in files:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                key, rank = (row["result"], row["direction"]), int(row["rank"])
                all_ranks[key].append(rank)
                if row["query_id"] not in twin_queries and row["query"] not in twin_queries:
                    ranks_without_twins[key].append(rank)
    for (result, direction), ranks in all_ranks.items():
        for name, selected in (("all", ranks), ("without twins", ranks_without_twins[result, direction])):
            figures = []
            for cutoff in CUTOFFS:
                recall = 100 * sum(rank <= cutoff for rank in selected) / max(len(selected), 1)
                figures.append(f"R@{cutoff} {recall:5.2f}")
            label = f"{result}, {direction}, {name} ({len(selected):,} queries)"
            yield f"{label:62} {'  '.join(figures)}"


if __name__ == "__main__":
    main()
