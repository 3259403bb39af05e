"""Make two small data sets of statements about the demo's drawings, in the form of SNLI-VE and of NLVR2.

    python demo_data/entailment.py                    # runs/entailment/snli-ve and runs/entailment/nlvr2; a minute
    python demo_data/entailment.py --blind text       # the same with one image everywhere: text alone is left
    python demo_data/entailment.py --blind images     # or with one text: images alone are left

Concepts are dealt to train, dev and test, so that those of dev and test occur in no row of train; these are drawn by
other teams, too. Labels come from captions, tags and pixels:

- snli-ve: an image entails its own caption, or one of its tags ("fruit" of an apple); it contradicts the caption or
  tag of a concept with which it shares no word; with that of one with which it shares a tag it is neutral. Every
  hypothesis occurs equally often with each label, and so does every image.
- nlvr2: of two drawings, "both are red", "exactly one is an animal", "the left one is larger". Colour and size are
  measured; animals, food and vehicles are recognised by tags. Of every sentence half the pairs are true, and every
  pair has a sentence that is true and one that is false.

So neither the text nor the images alone determine a label: with one of them, a model does no better than chance.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment

HERE = Path(__file__).resolve().parent
SPLITS = {"train": ("train", 0.6), "dev": ("val", 0.15), "test": ("test", 0.25)}
"""For each split the shard of its drawings, and its share of the concepts."""
ROUNDS = 20, 4  # snli-ve: hypotheses of each concept, of train and of the others
GROUPS = 3000, 300  # nlvr2: groups of eight rows
COMMON_TAG = 5  # concepts that have a tag which can denote one of them
IMPOSSIBLE = 1e3
HUES = {"red": (170, 8), "yellow": (21, 34), "green": (36, 85), "blue": (90, 130)}  # OpenCV's, 0 to 179
KINDS = {
    "an animal": {"animal", "bird", "insect"},
    "food": {"food", "fruit", "vegetable", "dessert", "sweet"},
    "a vehicle": {"vehicle", "car", "train", "railway", "boat", "ship"},
}
LARGER = 1.5  # times the area, to be called larger
TRUE, FALSE = "True", "False"
POOL = 20_000  # pairs of drawings, of which those of the sentences are taken


@dataclass(frozen=True)
class Drawing:
    """One drawing of a concept: its file, and what is true of it."""

    concept: str
    image: bytes
    caption: str
    tags: frozenset[str]
    colours: dict[str, bool | None]
    area: float

    @property
    def words(self) -> frozenset[str]:
        """All that is true of the concept."""
        return self.tags | frozenset(self.caption.split())


def drawings(shard: Path) -> Iterator[Drawing]:
    """Those of things, with English words."""
    with tarfile.open(shard) as archive:
        files = {}
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:  # a folder has no content
                files[member.name] = file.read()
    for name, content in files.items():
        if not name.endswith(".json"):
            continue
        fields = json.loads(content)
        if fields["kind"] == "object":
            image = files[name.replace(".json", ".webp")]
            colours, area = measured(np.asarray(Image.open(io.BytesIO(image)).convert("RGB")))
            tags = frozenset(tag.lower() for tag in fields["tags_en"]) - {"no", "not"}
            yield Drawing(fields["id"], image, fields["caption_en"].lower(), tags, colours, area)


def measured(pixels: np.ndarray) -> tuple[dict[str, bool | None], float]:
    """Whether a drawing is of a colour, None where that is arguable; and the share of the image that it covers."""
    hue, saturation, value = np.moveaxis(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), -1, 0)
    drawn = (pixels < 245).any(axis=2)
    coloured = drawn & (saturation > 90) & (value > 60)
    colours = {}
    for name, (low, high) in HUES.items():
        inside = (hue >= low) & (hue <= high) if low < high else (hue >= low) | (hue <= high)
        share = (coloured & inside).sum() / max(1, drawn.sum())
        colours[name] = True if share > 0.5 else False if share < 0.15 else None
    return colours, float(drawn.mean())


def dealt(concepts: Sequence[str], available: dict[str, set[str]], rng: np.random.Generator) -> dict[str, set[str]]:
    """Every concept in one split at most, among those that have drawings there."""
    order, found = rng.permutation(sorted(concepts)).tolist(), {}
    for split, (_, share) in sorted(SPLITS.items(), key=lambda item: len(available[item[0]])):
        own = [concept for concept in order if concept in available[split]][: round(share * len(concepts))]
        found[split] = set(own)
        order = [concept for concept in order if concept not in found[split]]
    return found


def matched(allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random column for every row, each once, from those that are allowed; -1 where there is none."""
    costs = np.where(allowed, rng.random(allowed.shape), IMPOSSIBLE)
    _, columns = linear_sum_assignment(costs)
    return np.where(allowed[np.arange(len(columns)), columns], columns, -1)


def entailment_rows(
    concepts: Sequence[Drawing], rounds: int, rng: np.random.Generator
) -> Iterator[tuple[int, int, str, str]]:
    """Round, concept of the image, hypothesis and label; in a round every concept has each label once.

    Args:
        concepts: one drawing of each, as of `with_neighbours`.
    """
    common = Counter(tag for one in concepts for tag in one.tags)
    unrelated = ~table(concepts, lambda one, other: bool(one.words & other.words))
    for number in range(rounds):
        hypotheses = [one.caption for one in concepts]
        for position, one in enumerate(concepts):
            above = sorted(tag for tag in one.tags if common[tag] >= COMMON_TAG and tag not in one.caption.split())
            if above and rng.random() < 0.5:
                hypotheses[position] = above[rng.integers(len(above))]
        while ((neutral := matched(near(concepts, hypotheses), rng)) < 0).any():
            # Too many that share a tag with one are what its hypothesis says; captions alone can be matched.
            back = (neutral < 0) | (rng.random(len(concepts)) < 0.02)
            hypotheses = [
                one.caption if undo else own for one, undo, own in zip(concepts, back, hypotheses, strict=True)
            ]
        contradicted = matched(unrelated & ~true_of(concepts, hypotheses), rng)
        if (contradicted < 0).any():
            raise ValueError("too few concepts")
        for position, hypothesis in enumerate(hypotheses):
            yield number, position, hypothesis, "entailment"
            yield number, int(neutral[position]), hypothesis, "neutral"
            yield number, int(contradicted[position]), hypothesis, "contradiction"


def table(concepts: Sequence[Drawing], related: Callable[[Drawing, Drawing], bool]) -> np.ndarray:
    """A relation between concepts, bool `[N, N]`."""
    return np.array([[related(one, other) for other in concepts] for one in concepts])


def true_of(concepts: Sequence[Drawing], hypotheses: Sequence[str]) -> np.ndarray:
    """Whether a hypothesis (row) is among what is true of a concept (column)."""
    return np.array(
        [[hypothesis in one.words or hypothesis == one.caption for one in concepts] for hypothesis in hypotheses]
    )


def near(concepts: Sequence[Drawing], hypotheses: Sequence[str]) -> np.ndarray:
    """Whether a concept (column) shares a tag with that of a hypothesis (row), which does not hold of it."""
    shares = table(concepts, lambda one, other: bool(one.tags & other.tags))
    return shares & ~true_of(concepts, hypotheses)


def with_neighbours(concepts: Sequence[Drawing], rng: np.random.Generator) -> list[Drawing]:
    """As many of the concepts as can be matched with another each that shares a tag, so that all can."""
    while True:
        found = matched(near(concepts, [one.caption for one in concepts]), rng)
        lonely = set(np.flatnonzero(found < 0)) | (set(range(len(concepts))) - set(found.tolist()))
        if not lonely:
            return list(concepts)
        concepts = [one for position, one in enumerate(concepts) if position not in lonely]


def sentences() -> dict[str, dict[str, Callable[[Drawing, Drawing], bool | None]]]:
    """By subject statements on two drawings, and whether they are true; None where that is arguable."""

    def has(what: str, one: Drawing) -> bool | None:
        return one.colours[what] if what in HUES else bool(KINDS[what] & one.tags)

    def ways(what: str) -> dict[str, Callable[[bool, bool], bool]]:
        plural = {"an animal": "animals", "a vehicle": "vehicles"}.get(what, what)
        return {
            f"both are {plural}": lambda left, right: left and right,
            f"neither is {what}": lambda left, right: not (left or right),
            f"exactly one is {what}": lambda left, right: left != right,
            f"the left one is {what}": lambda left, right: left,
            f"the right one is {what}": lambda left, right: right,
        }

    def judged(what: str, way: Callable[[bool, bool], bool]) -> Callable[[Drawing, Drawing], bool | None]:
        def judge(left: Drawing, right: Drawing) -> bool | None:
            has_left, has_right = has(what, left), has(what, right)
            if has_left is None or has_right is None:
                return None
            return way(has_left, has_right)

        return judge

    found = {what: {text: judged(what, way) for text, way in ways(what).items()} for what in (*HUES, *KINDS)}

    def larger(first: float, second: float) -> bool | None:
        return None if max(first, second) < LARGER * min(first, second) else first > second

    found["size"] = {
        "the left one is larger": lambda left, right: larger(left.area, right.area),
        "the right one is larger": lambda left, right: larger(right.area, left.area),
    }
    return found


def pair_rows(
    drawn: Sequence[Drawing], groups: int, rng: np.random.Generator
) -> Iterator[tuple[int, list[tuple[int, int]], list[tuple[int, str, str]]]]:
    """Groups of two sentences and four pairs of drawings: the pairs, and (pair, sentence, label) of each row."""
    judges = [(text, judge) for texts in sentences().values() for text, judge in texts.items()]
    pairs = rng.integers(len(drawn), size=[POOL * 4, 2])
    pairs = np.array([(a, b) for a, b in pairs.tolist() if drawn[a].concept != drawn[b].concept])[:POOL]
    truth = {}
    for text, judge in judges:
        found = [judge(drawn[a], drawn[b]) for a, b in pairs.tolist()]
        truth[text] = np.array([-1 if one is None else int(one) for one in found])
    subjects, number = [list(texts) for texts in sentences().values()], 0
    while number < groups:
        one, other = (subjects[subject] for subject in rng.choice(len(subjects), 2, replace=False))
        one, other = one[rng.integers(len(one))], other[rng.integers(len(other))]
        first, second = truth[one], truth[other]
        chosen = []
        for wanted in ((1, 0), (0, 1)):
            fitting = np.flatnonzero((first == wanted[0]) & (second == wanted[1]))
            if len(fitting) >= 2:
                chosen += rng.choice(fitting, 2, replace=False).tolist()
        if len(chosen) < 4:
            continue
        rows = [(position, text, TRUE if (position < 2) == (text == one) else FALSE)
                for position in range(4) for text in (one, other)]  # fmt: skip
        yield number, [tuple(pairs[pair].tolist()) for pair in chosen], rows
        number += 1


def write_lines(path: Path, rows: Sequence[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def write_image(path: Path, image: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image)


def write_entailment(
    folder: Path, split: str, drawn: Sequence[Drawing], rounds: int, blind: str | None, rng: np.random.Generator
) -> Counter:
    """Writes a split in the form of SNLI-VE; returns how many rows there are of each label."""
    styles: dict[str, list[int]] = {}
    for position, one in enumerate(drawn):
        styles.setdefault(one.concept, []).append(position)
    concepts = with_neighbours([drawn[positions[0]] for positions in styles.values()], rng)
    offset, rows = {"train": 0, "dev": 1_000_000, "test": 2_000_000}[split], []
    for number, position, hypothesis, label in entailment_rows(concepts, rounds, rng):
        own = styles[concepts[position].concept]
        image = own[number % len(own)]
        name = str(offset + image)
        write_image(folder / "flickr30k-images" / f"{name}.jpg", drawn[0 if blind == "text" else image].image)
        rows.append({
            "annotator_labels": [label], "captionID": f"{name}.jpg#0", "Flikr30kID": name, "gold_label": label,
            "pairID": f"{name}.jpg#0r{number}{label[0]}", "sentence1": drawn[image].caption,
            "sentence2": "x" if blind == "images" else hypothesis,
        })  # fmt: skip
    write_lines(folder / f"snli_ve_{split}.jsonl", rows)
    return Counter(row["gold_label"] for row in rows)


def write_pairs(
    folder: Path, split: str, drawn: Sequence[Drawing], groups: int, blind: str | None, rng: np.random.Generator
) -> Counter:
    """Writes a split in the form of NLVR2; returns how many rows there are of each label."""
    name, rows = "test1" if split == "test" else split, []
    for number, pairs, statements in pair_rows(drawn, groups, rng):
        directory = number % 100
        home = folder / "images" / name / (str(directory) if split == "train" else "")
        for position, pair in enumerate(pairs):
            for side, image in enumerate(pair):
                path = home / f"{name}-{number}-{position}-img{side}.png"
                write_image(path, drawn[0 if blind == "text" else image].image)
        texts = sorted({text for _, text, _ in statements})
        for position, text, label in statements:
            left, right = pairs[position]
            rows.append({
                "sentence": "x" if blind == "images" else text, "label": label,
                "identifier": f"{name}-{number}-{position}-{texts.index(text)}",
                "left_url": f"demo:{drawn[left].concept}/{left}/{split}",
                "right_url": f"demo:{drawn[right].concept}/{right}/{split}", "synset": "", "query": "", "writer": "0",
            } | ({"directory": directory} if split == "train" else {}))  # fmt: skip
    write_lines(folder / "data" / f"{name}.json", rows)
    return Counter(row["label"] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/entailment"))
    parser.add_argument(
        "--blind", choices=("text", "images"), help="leave only these, so that the labels cannot be known"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    every = {split: list(drawings(HERE / f"emoji-{shard}.tar")) for split, (shard, _) in SPLITS.items()}
    available = {split: {one.concept for one in drawn} for split, drawn in every.items()}
    concepts = dealt(sorted(set().union(*available.values())), available, rng)
    ending = f"-{args.blind}-alone" if args.blind else ""
    for split, drawn in every.items():
        own = [one for one in drawn if one.concept in concepts[split]]
        for name, write, (train, others) in (
            ("snli-ve", write_entailment, ROUNDS),
            ("nlvr2", write_pairs, GROUPS),
        ):
            folder = args.output / f"{name}{ending}"
            labels = write(folder, split, own, train if split == "train" else others, args.blind, rng)
            print(f"{folder}, {split}: {labels.total():,} rows, {dict(labels)}; {len(concepts[split])} concepts, "
                  f"{len(own):,} drawings")  # fmt: skip


if __name__ == "__main__":
    main()
