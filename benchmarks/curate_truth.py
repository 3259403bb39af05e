"""What a curation found of the faults of the made crawl, whose truth is known, and what it lost of the good rows.

    python demo_data/crawl.py
    python tools/curate.py --data demo_data/crawl --output runs/crawl -c configs/curate/crawl.yaml
    python benchmarks/curate_truth.py --truth demo_data/crawl/truth.csv --table runs/crawl

By kind: the rows, how many of them were found (recall), and for which reasons they went. An image and its copies are a
family, of which one row should stay: a copy is found if it was removed, or if it alone is kept; a good row
is lost if none of its family stays. Lookalikes are good rows that resemble another one or a test drawing by nature, as
it is or mirrored. By step: the rows that went, how many rightly (precision: all but the lost ones, then with the lost
lookalikes as right), and how many are of the kinds that the step is for.
"""

import argparse
import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

COPIES = ("copy", "twin", "resized", "recompressed", "cropped", "bordered", "mirrored", "grey")
FOR = {
    "unreadable": ("broken", "tiny"),
    "text_rules": ("filename", "url", "markup", "phone", "placeholder", "language", "repeated", "length"),
    "image_rules": ("tiny", "blank", "banner"),
    "exact_duplicates": COPIES,
    "near_duplicates": COPIES,
    "leaks": ("leak",),
    "score": ("wrong",),
}
"""Kinds by the step that is for them."""


class Fate(NamedTuple):
    """What became of a row: the step and the reason are empty where it was kept."""

    kept: bool
    step: str
    reason: str


def read_truth(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a `truth.csv` by their keys."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


def read_fates(folder: Path, keys: Iterable[str]) -> dict[str, Fate]:
    """What became of every row, by the table of a curation.

    Raises:
        ValueError: the table is not of these rows.
    """
    from pyarrow import dataset

    table = dataset.dataset(folder / "table").to_table(["key", "is_kept", "step", "reason"])
    found = {
        Path(row["key"]).name.partition(".")[0]: Fate(row["is_kept"], row["step"] or "", row["reason"] or "")
        for row in table.to_pylist()
    }
    if missing := [key for key in keys if key not in found]:
        raise ValueError(f"{folder}: the table is not of these rows, it lacks {', '.join(missing[:10])}")
    return found


class Outcome:
    """Truth and fates of the same rows."""

    def __init__(self, truth: Mapping[str, Mapping[str, str]], fates: Mapping[str, Fate]):
        self.truth, self.fates = truth, fates
        self._staying = Counter(self._family(key) for key in truth if fates[key].kept)
        self.alike = {key for key, row in truth.items() if row["like"]} | {row["like"] for row in truth.values()}

    def _family(self, key: str) -> str:
        row = self.truth[key]
        return row["of"] if row["kind"] in COPIES else key

    def found(self, key: str) -> bool:
        """Whether a fault was found."""
        alone = self.truth[key]["kind"] in COPIES and self._staying[self._family(key)] == 1
        return alone or not self.fates[key].kept

    def lost(self, key: str) -> bool:
        """Whether a good row went with all of its copies."""
        return self.truth[key]["kind"] == "good" and not self._staying[key]

    def by_kind(self) -> list[list[str]]:
        """Kind, rows, found, recall in percent, and the reasons; of good rows those that were lost."""
        keys = defaultdict(list)
        for key, row in self.truth.items():
            name = row["kind"]
            if name == "good":
                name = f"good{', lookalikes' * (key in self.alike)}, lost"
            elif name == "leak":
                name = f"leak, {'as it is' if row['detail'].startswith('as') else row['detail'].split()[0]}"
            keys[name].append(key)
        rows = []
        for kind in sorted(keys, key=lambda kind: (not kind.startswith("good"), kind)):
            own = keys[kind]
            hit = list(filter(self.lost if kind.startswith("good") else self.found, own))
            reasons = Counter(self.fates[key].reason for key in hit if not self.fates[key].kept).most_common(3)
            rows.append(
                [
                    kind,
                    f"{len(own):,}",
                    f"{len(hit):,}",
                    f"{100 * len(hit) / len(own):.1f}",
                    ", ".join(f"{reason} {count:,}" for reason, count in reasons),
                ]
            )
        return rows

    def by_step(self) -> list[list[str]]:
        """Step, rows that went, precision, without lookalikes too, share of its kinds, good rows lost, lookalikes."""
        keys = defaultdict(list)
        for key, fate in self.fates.items():
            if not fate.kept:
                keys[fate.step].append(key)
        rows = []
        for step, own in keys.items():
            lost = [key for key in own if self.lost(key)]
            unlike = len(lost) - len(self.alike.intersection(lost))
            meant = sum(self.truth[key]["kind"] in FOR.get(step, ()) for key in own)
            if FOR.get(step) == COPIES:  # where a copy stays, the original is the copy that went
                meant += sum(self.truth[key]["kind"] == "good" and not self.lost(key) for key in own)
            rows.append(
                [
                    step,
                    f"{len(own):,}",
                    f"{100 * (1 - len(lost) / len(own)):.1f}",
                    f"{100 * (1 - unlike / len(own)):.1f}",
                    f"{100 * meant / len(own):.1f}",
                    f"{len(lost):,}",
                    f"{len(lost) - unlike:,}",
                ]
            )
        return rows


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; all columns but the first are aligned to the right."""
    head = list(head)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, required=True, metavar="FILE", help="truth.csv of demo_data/crawl.py")
    parser.add_argument("--table", type=Path, required=True, metavar="FOLDER", help="output of ernie-vil2 curate")
    args = parser.parse_args()
    truth = read_truth(args.truth)
    outcome = Outcome(truth, read_fates(args.table, truth))
    print(markdown(["kind", "rows", "found", "recall %", "reasons"], outcome.by_kind()))
    print()
    print(
        markdown(
            ["step", "went", "precision %", "without lookalikes %", "of its kinds %", "good lost", "lookalikes"],
            outcome.by_step(),
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
