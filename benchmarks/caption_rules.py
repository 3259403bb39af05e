"""Apply the rules of captions to the captions of a file, and say what they remove and cut.

    python benchmarks/caption_rules.py captions.txt                          # a caption on each line
    python benchmarks/caption_rules.py captions.parquet --column TEXT --output judged.tsv

Captions that people have checked, such as those of COCO, should all stay; of captions of the web, read what goes.
`--output` has a line for each caption that is removed or cut: the reason, the caption, and what is left of it.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def read_captions(path: Path, column: str | None) -> list[str]:
    """Return the lines of a file, a column of its lines between tabs, counted from 0, or a column of a Parquet file."""
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return [caption or "" for caption in parquet.read_table(path, columns=[column])[column].to_pylist()]
    # Captions may hold other ends of lines, such as U+2028, at which `splitlines` would cut them.
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if column is None:
        return lines
    return [line.split("\t")[int(column)] for line in lines]


def judge_captions(captions: Sequence[str]) -> tuple[list[str], list[str | None]]:
    """Return captions as they are cut, and the rule that removes each, or None; languages are zh and en."""
    from ernie_vil2.apps.curation.caption_rules import load_rules
    from ernie_vil2.apps.curation.languages import detect_language

    rules = load_rules([ROOT / "configs" / "curate" / "rules" / "text.yaml"])
    cut_captions = rules.cut(captions)
    faults = rules.find_faults(cut_captions)
    for number, caption in enumerate(cut_captions):
        if faults[number] is None and detect_language(caption) == "other":
            faults[number] = "other language"
    return cut_captions, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path, metavar="FILE", help="text with a caption per line or tabs, or Parquet")
    parser.add_argument("--column", metavar="NAME", help="of a Parquet file; of text the number of a column, from 0")
    parser.add_argument("--output", type=Path, metavar="FILE", help="table of what is removed and cut")
    args = parser.parse_args()

    captions = read_captions(args.captions, args.column)
    start = time.process_time()
    cut_captions, faults = judge_captions(captions)
    seconds = time.process_time() - start

    rows = []
    for caption, cut_caption, fault in zip(captions, cut_captions, faults, strict=True):
        if fault or caption != cut_caption:
            rows.append(f"{fault or 'cut'}\t{caption!r}\t{cut_caption!r}\n")
    if args.output:
        args.output.write_text("".join(sorted(rows)), encoding="utf-8")

    reasons = Counter(filter(None, faults))
    num_removed = reasons.total()
    print(f"{len(captions):,} captions, {len(captions) / max(seconds, 1e-9):,.0f} a CPU second")
    percent = 100 / max(len(captions), 1)
    print(f"removed {percent * num_removed:.2f} %, cut {percent * (len(rows) - num_removed):.2f} %")
    for reason, count in reasons.most_common():
        print(f"{count:6,}  {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
