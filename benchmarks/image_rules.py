"""Print what the image rules of a curation remove of folders of images, and how long they take.

    python benchmarks/image_rules.py --config configs/curate/web_zh_en.yaml FOLDER [FOLDER ...]

A folder holds images of one kind, good or bad. An image counts for the first rule that removes it.
"""

import argparse
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import duckdb
import pyarrow as pa

from ernie_vil2.apps.curation import Pair, Step, load_steps
from ernie_vil2.data.samples import BadSample, Sample

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--config", default="configs/curate/web_zh_en.yaml", metavar="YAML")
    args = parser.parse_args()

    cv2.setNumThreads(0)
    (step,) = (step for step in load_steps(args.config) if step.name == "image_rules")
    print("| folder | images | removed | by rule | ms an image |\n|---|---:|---:|---|---:|")
    for folder in args.folders:
        measures, seconds = measure_folder(step, folder)
        counts = count_reasons(step, measures)
        by_rule = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
        milliseconds = 1000 * seconds / max(1, len(measures))
        print(f"| {folder.name} | {len(measures)} | {counts.total()} | {by_rule} | {milliseconds:.1f} |", flush=True)
    return 0


def measure_folder(step: Step, folder: Path) -> tuple[list[Mapping[str, Any]], float]:
    """Return the measures of all readable images, and the CPU seconds that they took once the images were decoded."""
    measures: list[Mapping[str, Any]] = []
    seconds = 0.0
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        pair = Pair(Sample(path.name, path.name, path.read_bytes(), {"": "a picture"}))
        try:
            _ = pair.pixels
        except BadSample:
            continue
        start = time.process_time()
        measures.append(step.measure(pair))
        seconds += time.process_time() - start
    return measures, seconds


def count_reasons(step: Step, measures: list[Mapping[str, Any]]) -> Counter[str]:
    """Return how many images each rule removes that no rule before it does."""
    counts: Counter[str] = Counter()
    if not measures:
        return counts
    connection = duckdb.connect()
    connection.register("measures", pa.Table.from_pylist(measures))
    cases = " ".join(f"when {rule.condition} then '{rule.reason}'" for rule in step.rules())
    for reason, count in connection.sql(f"select case {cases} end, count(*) from measures group by 1").fetchall():  # noqa: S608  -- the rules' own SQL
        if reason:
            counts[reason] = count
    return counts


if __name__ == "__main__":
    raise SystemExit(main())
