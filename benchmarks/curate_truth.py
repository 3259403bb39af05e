"""Compare a curation with the truth of a synthetic crawl: what it found of every kind, and which good rows it lost.

    python demo_data/crawls/shop.py --output runs/shop
    python tools/curate.py --data runs/shop --output runs/shop/curated \\
        -o 'leaks.benchmarks=[runs/shop/benchmark/test.tar]'
    python benchmarks/curate_truth.py --truth runs/shop/truth.csv --table runs/shop/curated

`--truth` takes the truth of demo_data/crawl.py and of the scripts of demo_data/crawls, whose README explains its
columns. An image and its copies are a family, of which one row should stay: a copy is found if it was removed, or if it
alone is kept; a good row is lost if none of its family stays. So is a local change whose captions are the same; where
captions differ, both rows should stay, and the change is lost if it was removed. Lookalikes are good rows that resemble
another one, or a test image, without being it.

Printed are a table by group, with the kinds of which less than 97 % were found; one by kind; and one by step: the rows
that went, how many rightly (precision: all but the lost ones, then with the lost lookalikes as right), and how many are
of the group that the step is for. Then follows how often the better image stays.
"""

import argparse
import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

GROUPS_OF_STEPS = {
    "unreadable": "image",
    "text_rules": "text",
    "image_rules": "image",
    "exact_duplicates": "copy",
    "near_duplicates": "copy",
    "leaks": "leak",
    "score": "mismatch",
}
"""The group that a step is for."""
AIM = 97.0  # percent; kinds of which less is found are listed


class Fate(NamedTuple):
    """What became of a row: the step and the reason are empty if it was kept; captions are those that were cut."""

    kept: bool
    step: str
    reason: str
    captions: Sequence[str] = ()


def read_truth(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a `truth.csv` by their keys."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


def read_fates(folder: Path, keys: Collection[str]) -> dict[str, Fate]:
    """Return what became of the rows of these keys, from the table of a curation, which may be of other rows as well.

    Raises:
        ValueError: the table lacks a row.
    """
    from pyarrow import dataset

    table = dataset.dataset(folder / "table")
    columns = ["key", "is_kept", "step", "reason"]
    if "cut_captions" in table.schema.names:
        columns.append("cut_captions")
    fates = {}
    for row in table.to_table(columns).to_pylist():
        key = Path(row["key"]).name.partition(".")[0]
        if key in keys:
            fates[key] = Fate(row["is_kept"], row["step"] or "", row["reason"] or "", row.get("cut_captions") or ())
    missing = [key for key in keys if key not in fates]
    if missing:
        raise ValueError(f"{folder}: the table is not of these rows, it lacks {', '.join(missing[:10])}")
    return fates


class Outcome:
    """Truth and fates of the same rows."""

    def __init__(self, truth: Mapping[str, Mapping[str, str]], fates: Mapping[str, Fate]):
        self.truth, self.fates = truth, fates
        self._staying = Counter(self._family(key) for key in truth if fates[key].kept)
        self.alike = {key for key, row in truth.items() if row["like"]} | {row["like"] for row in truth.values()}

    def _is_copy(self, key: str) -> bool:
        row = self.truth[key]
        return row["group"] == "copy" or (row["group"] == "local" and not self._should_stay(key))

    def _should_stay(self, key: str) -> bool:
        row = self.truth[key]
        return row["group"] == "good" or (row["group"] == "local" and "captions differ" in row["detail"])

    def _family(self, key: str) -> str:
        # A copy of a copy belongs to the original.
        while self._is_copy(key):
            key = self.truth[key]["of"]
        return key

    def found(self, key: str) -> bool:
        """Return whether a fault was found."""
        is_alone = self._is_copy(key) and self._staying[self._family(key)] == 1
        return is_alone or not self.fates[key].kept

    def lost(self, key: str) -> bool:
        """Return whether a good row went with all of its copies."""
        return self._should_stay(key) and not self._staying[key]

    def _label(self, key: str) -> str:
        """Return the kind of a row as the tables call it."""
        row = self.truth[key]
        kind = row["kind"]
        if row["group"] == "good":
            return "good, lookalikes, lost" if key in self.alike else "good, lost"
        if row["group"] == "local":
            differ = self._should_stay(key)
            return f"{kind}, captions differ, lost" if differ else f"{kind}, captions the same"
        if kind == "leak":
            return f"leak, {'as it is' if row['detail'].startswith('as') else row['detail'].split()[0]}"
        return kind

    def _is_hit(self, key: str) -> bool:
        return self.lost(key) if self._should_stay(key) else self.found(key)

    def agreement(self, keys: Iterable[str]) -> str:
        """Return in percent how often the row that an editor would keep stays, of copies of which one row stays."""
        agreed = []
        for key in keys:
            row = self.truth[key]
            original, editors_choice = row.get("of"), row.get("keep")
            if original and editors_choice and self.fates[key].kept != self.fates[original].kept:
                agreed.append(self.fates[editors_choice].kept)
        return percent(sum(agreed), len(agreed))

    def exact_cuts(self, keys: Iterable[str]) -> str:
        """Return in percent how many captions with something to be cut off were cut as an editor would."""
        clean = {key: self.truth[key]["clean"] for key in keys if self.truth[key].get("clean")}
        exact = [list(self.fates[key].captions) == [caption] for key, caption in clean.items()]
        return percent(sum(exact), len(exact))

    def by_group(self) -> list[list[str]]:
        """Return group, rows, found, recall in percent, and the kinds below the aim; of good rows those lost."""
        groups: dict[str, list[str]] = defaultdict(list)
        kinds: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for key, row in self.truth.items():
            group, label = row["group"], self._label(key)
            if group == "good":
                group = label
            elif group == "local":
                group = "local, captions differ, lost" if self._should_stay(key) else "local, captions the same"
                label = row["kind"]
            groups[group].append(key)
            kinds[group][row["kind"] if "good" in group else label].append(key)

        rows = []
        for group, keys in sorted(groups.items(), key=lambda item: (not item[0].startswith("good"), item[0])):
            shares = []
            for kind, keys_of_kind in sorted(kinds[group].items()):
                share = 100 * sum(map(self._is_hit, keys_of_kind)) / len(keys_of_kind)
                if share > 1 if self._should_stay(keys[0]) else share < AIM:
                    shares.append(f"{kind} {share:.0f}")
            hits = sum(map(self._is_hit, keys))
            rows.append([group, f"{len(keys):,}", f"{hits:,}", percent(hits, len(keys)), ", ".join(shares)])
        return rows

    def by_kind(self) -> list[list[str]]:
        """Return kind, rows, found, recall, agreement on what stays, exact cuts, and the reasons."""
        keys_by_label = defaultdict(list)
        for key, row in self.truth.items():
            keys_by_label[self._label(key)].append(key)
            if row.get("clean"):
                keys_by_label[row["kind"]].append(key)
        rows = []
        for label in sorted(keys_by_label, key=lambda label: (not label.startswith("good"), label)):
            keys = keys_by_label[label]
            hits = list(filter(self._is_hit, keys))
            reasons = Counter(self.fates[key].reason for key in hits if not self.fates[key].kept).most_common(3)
            rows.append(
                [
                    label,
                    f"{len(keys):,}",
                    f"{len(hits):,}",
                    percent(len(hits), len(keys)),
                    self.agreement(keys),
                    self.exact_cuts(keys) if label.startswith("good_with") else "",
                    ", ".join(f"{reason} {count:,}" for reason, count in reasons),
                ]
            )
        return rows

    def by_step(self) -> list[list[str]]:
        """Return step, rows that went, precision, without lookalikes, share of its group, good rows lost.

        The share is empty for a step that is for none of the groups.
        """
        keys_by_step = defaultdict(list)
        for key, fate in self.fates.items():
            if not fate.kept:
                keys_by_step[fate.step].append(key)
        rows = []
        for step, keys in keys_by_step.items():
            lost = [key for key in keys if self.lost(key)]
            num_unlike = len(lost) - len(self.alike.intersection(lost))
            group = GROUPS_OF_STEPS.get(step)
            num_meant = sum(self.truth[key]["group"] == group for key in keys)
            if group == "copy":  # where a copy stays, the original is the copy that went
                num_meant += sum(self._is_copy(key) and self.truth[key]["group"] != "copy" for key in keys)
                num_meant += sum(self._should_stay(key) and not self.lost(key) for key in keys)
            rows.append(
                [
                    step,
                    f"{len(keys):,}",
                    percent(len(keys) - len(lost), len(keys)),
                    percent(len(keys) - num_unlike, len(keys)),
                    percent(num_meant, len(keys)) if group else "",
                    f"{len(lost):,}",
                    f"{len(lost) - num_unlike:,}",
                ]
            )
        return rows


def percent(count: int, total: int) -> str:
    """Return a share in percent, empty if there is nothing to share."""
    return f"{100 * count / total:.1f}" if total else ""


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; all columns but the first are aligned to the right."""
    head = list(head)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, required=True, metavar="FILE", help="truth.csv of a synthetic crawl")
    parser.add_argument("--table", type=Path, required=True, metavar="FOLDER", help="output of ernie-vil2 curate")
    args = parser.parse_args()
    truth = read_truth(args.truth)
    outcome = Outcome(truth, read_fates(args.table, truth))
    print(markdown(["group", "rows", "found", "%", f"kinds below {AIM:g} %"], outcome.by_group()))
    print()
    print(markdown(["kind", "rows", "found", "%", "better stays %", "cut exactly %", "reasons"], outcome.by_kind()))
    print()
    head = ["step", "went", "precision %", "without lookalikes %", "of its group %", "good lost", "lookalikes"]
    print(markdown(head, outcome.by_step()))
    print()
    copies = [key for key, row in truth.items() if row["group"] == "copy"]
    print(f"if a copy or its original stays, it is the one that an editor would keep: {outcome.agreement(copies)} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
