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
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment

HERE = Path(__file__).resolve().parent
# Split -> the shard of its drawings, and its share of the concepts.
SPLITS = {"train": ("train", 0.6), "dev": ("val", 0.15), "test": ("test", 0.25)}
# snli-ve: rounds of hypotheses, three rows for each concept, of train and of the other splits.
NUM_ROUNDS = 20, 4
# nlvr2: groups of eight rows, of train and of the other splits.
NUM_GROUPS = 3000, 300
MIN_TAG_CONCEPTS = 5  # a tag can be a hypothesis if so many concepts of the split have it
CAPTION_SHARE = 0.02  # hypotheses that become captions again, at random, when not all can be matched
# Above the sum of the costs of all allowed columns, which are below 1 each: as many rows as possible get one.
FORBIDDEN_COST = 1e3
HUES = {"red": (170, 8), "yellow": (21, 34), "green": (36, 85), "blue": (90, 130)}  # of OpenCV, 0 to 179
# A drawing is of a colour if that covers more than half of it, and is not if less than 15 %; between is arguable.
COLOUR_SHARE, NO_COLOUR_SHARE = 0.5, 0.15
# Kind of things -> tags that tell it.
KINDS = {
    "an animal": {"animal", "bird", "insect"},
    "food": {"food", "fruit", "vegetable", "dessert", "sweet"},
    "a vehicle": {"vehicle", "car", "train", "railway", "boat", "ship"},
}
PLURALS = {"an animal": "animals", "a vehicle": "vehicles"}
LARGER = 1.5  # times the area, to be called larger
TRUE, FALSE = "True", "False"
NUM_PAIRS = 20_000  # pairs of drawings, from which those of the sentences are taken

# Judges a pair of drawings, the left and the right one; None where the answer is arguable.
Judge = Callable[["Drawing", "Drawing"], "bool | None"]


@dataclass(frozen=True)
class Drawing:
    """A drawing of a concept.

    Attributes:
        concept: id of the concept.
        image: content of the image's file.
        caption: English name in lower case.
        tags: English tags in lower case.
        colours: whether it is of a colour, by name; None where that is arguable.
        area: share of the image that it covers.
    """

    concept: str
    image: bytes
    caption: str
    tags: frozenset[str]
    colours: dict[str, bool | None]
    area: float

    @property
    def words(self) -> frozenset[str]:
        """All words that are true of the concept."""
        return self.tags | frozenset(self.caption.split())


class EntailmentRow(NamedTuple):
    """A row of snli-ve: number of the round, position of the image's concept, hypothesis and label."""

    round_number: int
    concept: int
    hypothesis: str
    label: str


class Statement(NamedTuple):
    """A row of nlvr2: position of the pair in its group, sentence and label."""

    pair: int
    sentence: str
    label: str


def read_drawings(shard: Path) -> Iterator[Drawing]:
    """Yield the drawings of things, not of symbols, of one of the demo's shards."""
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
            colours, area = measure_drawing(np.asarray(Image.open(io.BytesIO(image)).convert("RGB")))
            tags = frozenset(tag.lower() for tag in fields["tags_en"]) - {"no", "not"}
            yield Drawing(fields["id"], image, fields["caption_en"].lower(), tags, colours, area)


def measure_drawing(pixels: np.ndarray) -> tuple[dict[str, bool | None], float]:
    """Return `colours` and `area` of a drawing, see `Drawing`, from its RGB pixels, [H, W, 3] uint8."""
    hue, saturation, value = np.moveaxis(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), -1, 0)
    is_drawn = (pixels < 245).any(axis=2)
    is_coloured = is_drawn & (saturation > 90) & (value > 60)
    colours: dict[str, bool | None] = {}
    for name, (low, high) in HUES.items():
        # Red lies on both sides of 0.
        has_hue = (hue >= low) & (hue <= high) if low < high else (hue >= low) | (hue <= high)
        share = (is_coloured & has_hue).sum() / max(1, is_drawn.sum())
        if share > COLOUR_SHARE:
            colours[name] = True
        elif share < NO_COLOUR_SHARE:
            colours[name] = False
        else:
            colours[name] = None
    return colours, float(is_drawn.mean())


def deal_concepts(
    concepts: Sequence[str], available: dict[str, set[str]], rng: np.random.Generator
) -> dict[str, set[str]]:
    """Deal each concept to at most one split.

    Args:
        concepts: all concepts.
        available: concepts that have drawings in a split, by split.
        rng: shuffles the concepts.
    """
    remaining = rng.permutation(sorted(concepts)).tolist()
    concepts_by_split = {}
    # The split with the fewest drawings chooses first.
    for split, (_, share) in sorted(SPLITS.items(), key=lambda item: len(available[item[0]])):
        candidates = [concept for concept in remaining if concept in available[split]]
        concepts_by_split[split] = set(candidates[: round(share * len(concepts))])
        remaining = [concept for concept in remaining if concept not in concepts_by_split[split]]
    return concepts_by_split


def match(is_allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Assign to each row a random column that is allowed for it, no column twice; -1 to rows that get none.

    Args:
        is_allowed: bool, [N, N].
        rng: draws the costs of the assignment.

    Returns:
        Columns, [N].
    """
    costs = np.where(is_allowed, rng.random(is_allowed.shape), FORBIDDEN_COST)
    _, columns = linear_sum_assignment(costs)
    return np.where(is_allowed[np.arange(len(columns)), columns], columns, -1)


def make_entailment_rows(
    concepts: Sequence[Drawing], num_rounds: int, rng: np.random.Generator
) -> Iterator[EntailmentRow]:
    """Yield the rows of snli-ve; in each round every hypothesis and every concept has each label once.

    Args:
        concepts: a drawing of each concept, see `keep_matchable`.
        num_rounds: number of rounds.
        rng: draws hypotheses and images.

    Raises:
        ValueError: there are too few concepts to contradict each other.
    """
    num_concepts_by_tag: Counter[str] = Counter()
    for drawing in concepts:
        num_concepts_by_tag.update(drawing.tags)
    shares_word = relate(concepts, lambda left, right: bool(left.words & right.words))
    for round_number in range(num_rounds):
        hypotheses = [drawing.caption for drawing in concepts]
        for position, drawing in enumerate(concepts):
            general_tags = [tag for tag in drawing.tags if num_concepts_by_tag[tag] >= MIN_TAG_CONCEPTS]
            general_tags = sorted(set(general_tags) - set(drawing.caption.split()))
            if general_tags and rng.random() < 0.5:
                hypotheses[position] = general_tags[rng.integers(len(general_tags))]

        neutral = match(find_neutral(concepts, hypotheses), rng)
        while (neutral < 0).any():
            # A tag is true of many of the concepts that share a tag, so few are left that it may be neutral to. With
            # captions alone there is a match: `keep_matchable` has made sure of it.
            becomes_caption = (neutral < 0) | (rng.random(len(concepts)) < CAPTION_SHARE)
            for position in np.flatnonzero(becomes_caption).tolist():
                hypotheses[position] = concepts[position].caption
            neutral = match(find_neutral(concepts, hypotheses), rng)
        contradicted = match(~shares_word & ~find_true(concepts, hypotheses), rng)
        if (contradicted < 0).any():
            raise ValueError("too few concepts")
        for position, hypothesis in enumerate(hypotheses):
            yield EntailmentRow(round_number, position, hypothesis, "entailment")
            yield EntailmentRow(round_number, int(neutral[position]), hypothesis, "neutral")
            yield EntailmentRow(round_number, int(contradicted[position]), hypothesis, "contradiction")


def relate(concepts: Sequence[Drawing], are_related: Callable[[Drawing, Drawing], bool]) -> np.ndarray:
    """Return a relation between concepts, bool [N, N]."""
    table = []
    for left in concepts:
        table.append([are_related(left, right) for right in concepts])
    return np.array(table)


def find_true(concepts: Sequence[Drawing], hypotheses: Sequence[str]) -> np.ndarray:
    """Return whether a hypothesis is true of a concept, bool [hypotheses, concepts]."""
    table = []
    for hypothesis in hypotheses:
        table.append([hypothesis in drawing.words or hypothesis == drawing.caption for drawing in concepts])
    return np.array(table)


def find_neutral(concepts: Sequence[Drawing], hypotheses: Sequence[str]) -> np.ndarray:
    """Return which concepts share a tag with that of a hypothesis that is not true of them, [hypotheses, concepts].

    Args:
        concepts: the concepts.
        hypotheses: a hypothesis of each concept.
    """
    shares_tag = relate(concepts, lambda left, right: bool(left.tags & right.tags))
    return shares_tag & ~find_true(concepts, hypotheses)


def keep_matchable(concepts: Sequence[Drawing], rng: np.random.Generator) -> list[Drawing]:
    """Drop concepts until each can be matched with another one that shares a tag, and no one twice."""
    while True:
        columns = match(find_neutral(concepts, [drawing.caption for drawing in concepts]), rng)
        without_neighbour = set(np.flatnonzero(columns < 0).tolist())
        without_neighbour |= set(range(len(concepts))) - set(columns.tolist())
        if not without_neighbour:
            return list(concepts)
        concepts = [drawing for position, drawing in enumerate(concepts) if position not in without_neighbour]


def make_judges() -> dict[str, dict[str, Judge]]:
    """Return sentences about two drawings with their judges, by subject."""
    judges = {subject: make_judges_of(subject) for subject in (*HUES, *KINDS)}
    judges["size"] = {
        "the left one is larger": lambda left, right: is_larger(left.area, right.area),
        "the right one is larger": lambda left, right: is_larger(right.area, left.area),
    }
    return judges


def make_judges_of(subject: str) -> dict[str, Judge]:
    """Return sentences about a colour or a kind of things with their judges."""
    rules: dict[str, Callable[[bool, bool], bool]] = {
        f"both are {PLURALS.get(subject, subject)}": lambda left, right: left and right,
        f"neither is {subject}": lambda left, right: not (left or right),
        f"exactly one is {subject}": lambda left, right: left != right,
        f"the left one is {subject}": lambda left, right: left,
        f"the right one is {subject}": lambda left, right: right,
    }

    def has_subject(drawing: Drawing) -> bool | None:
        return drawing.colours[subject] if subject in HUES else bool(KINDS[subject] & drawing.tags)

    def make_judge(rule: Callable[[bool, bool], bool]) -> Judge:
        def judge(left: Drawing, right: Drawing) -> bool | None:
            left_has, right_has = has_subject(left), has_subject(right)
            if left_has is None or right_has is None:
                return None
            return rule(left_has, right_has)

        return judge

    return {sentence: make_judge(rule) for sentence, rule in rules.items()}


def is_larger(area: float, other_area: float) -> bool | None:
    """Return whether an area is clearly larger than another one; None if the two are similar."""
    if max(area, other_area) < LARGER * min(area, other_area):
        return None
    return area > other_area


def make_pair_rows(
    drawings: Sequence[Drawing], num_groups: int, rng: np.random.Generator
) -> Iterator[tuple[int, list[tuple[int, int]], list[Statement]]]:
    """Yield groups of two sentences and four pairs of drawings.

    Each sentence is true of the two pairs of which the other one is false.

    Args:
        drawings: drawings of a split.
        num_groups: number of groups.
        rng: draws pairs and sentences.

    Yields:
        Number of the group, its pairs as positions in `drawings`, and its eight rows.
    """
    judges_by_subject = make_judges()
    subjects = [list(judges) for judges in judges_by_subject.values()]
    # More than needed, because pairs of one concept are dropped.
    pairs = rng.integers(len(drawings), size=[NUM_PAIRS * 4, 2]).tolist()
    pairs = [(left, right) for left, right in pairs if drawings[left].concept != drawings[right].concept][:NUM_PAIRS]
    verdicts: dict[str, np.ndarray] = {}  # sentence -> for each pair 1, 0, or -1 where it is arguable
    for judges in judges_by_subject.values():
        for sentence, judge in judges.items():
            answers = [judge(drawings[left], drawings[right]) for left, right in pairs]
            verdicts[sentence] = np.array([-1 if answer is None else int(answer) for answer in answers])

    number = 0
    while number < num_groups:
        first_subject, second_subject = rng.choice(len(subjects), 2, replace=False)
        first = subjects[first_subject][rng.integers(len(subjects[first_subject]))]
        second = subjects[second_subject][rng.integers(len(subjects[second_subject]))]
        pair_numbers: list[int] = []
        for is_first_true in (1, 0):
            is_fitting = (verdicts[first] == is_first_true) & (verdicts[second] == 1 - is_first_true)
            fitting = np.flatnonzero(is_fitting)
            if len(fitting) >= 2:
                pair_numbers += rng.choice(fitting, 2, replace=False).tolist()
        if len(pair_numbers) < 4:
            continue
        statements = []
        for position in range(4):
            is_first_true = position < 2
            statements.append(Statement(position, first, TRUE if is_first_true else FALSE))
            statements.append(Statement(position, second, FALSE if is_first_true else TRUE))
        yield number, [pairs[pair_number] for pair_number in pair_numbers], statements
        number += 1


def write_lines(path: Path, rows: Sequence[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def write_image(path: Path, image: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image)


def write_entailment(
    folder: Path, split: str, drawings: Sequence[Drawing], num_rounds: int, blind: str | None, rng: np.random.Generator
) -> Counter:
    """Write a split in the format of SNLI-VE.

    Args:
        folder: folder of the data set.
        split: "train", "dev" or "test".
        drawings: drawings of the split.
        num_rounds: rounds of hypotheses.
        blind: "text" or "images", the only one that differs between rows; None: both do.
        rng: draws the rows.

    Returns:
        Number of rows of each label.
    """
    positions_by_concept: dict[str, list[int]] = {}
    for position, drawing in enumerate(drawings):
        positions_by_concept.setdefault(drawing.concept, []).append(position)
    concepts = keep_matchable([drawings[positions[0]] for positions in positions_by_concept.values()], rng)
    # Images of all splits are in one folder, and named by a number as in Flickr30k.
    offset = {"train": 0, "dev": 1_000_000, "test": 2_000_000}[split]
    rows = []
    for round_number, concept, hypothesis, label in make_entailment_rows(concepts, num_rounds, rng):
        # Styles of drawing take turns.
        positions = positions_by_concept[concepts[concept].concept]
        position = positions[round_number % len(positions)]
        name = str(offset + position)
        image = drawings[0 if blind == "text" else position].image
        write_image(folder / "flickr30k-images" / f"{name}.jpg", image)
        rows.append(
            {
                "annotator_labels": [label],
                "captionID": f"{name}.jpg#0",
                "Flikr30kID": name,  # spelled so in SNLI-VE
                "gold_label": label,
                "pairID": f"{name}.jpg#0r{round_number}{label[0]}",
                "sentence1": drawings[position].caption,
                "sentence2": "x" if blind == "images" else hypothesis,
            }
        )
    write_lines(folder / f"snli_ve_{split}.jsonl", rows)
    return Counter(row["gold_label"] for row in rows)


def write_pairs(
    folder: Path, split: str, drawings: Sequence[Drawing], num_groups: int, blind: str | None, rng: np.random.Generator
) -> Counter:
    """Write a split in the format of NLVR2; arguments and result as of `write_entailment`."""
    name = "test1" if split == "test" else split
    rows = []
    for number, pairs, statements in make_pair_rows(drawings, num_groups, rng):
        # The images of train are in a hundred folders.
        directory = number % 100
        image_folder = folder / "images" / name
        if split == "train":
            image_folder = image_folder / str(directory)
        for pair, positions in enumerate(pairs):
            for side, position in enumerate(positions):
                image = drawings[0 if blind == "text" else position].image
                write_image(image_folder / f"{name}-{number}-{pair}-img{side}.png", image)

        sentences = sorted({statement.sentence for statement in statements})
        for pair, sentence, label in statements:
            left, right = pairs[pair]
            row: dict[str, Any] = {
                "sentence": "x" if blind == "images" else sentence,
                "label": label,
                "identifier": f"{name}-{number}-{pair}-{sentences.index(sentence)}",
                "left_url": f"demo:{drawings[left].concept}/{left}/{split}",
                "right_url": f"demo:{drawings[right].concept}/{right}/{split}",
                "synset": "",
                "query": "",
                "writer": "0",
            }
            if split == "train":
                row["directory"] = directory
            rows.append(row)
    write_lines(folder / "data" / f"{name}.json", rows)
    return Counter(row["label"] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/entailment"), metavar="FOLDER")
    parser.add_argument(
        "--blind", choices=("text", "images"), help="leave only these, so that the labels cannot be known"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random numbers")
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    drawings_by_split, available = {}, {}
    for split, (shard, _) in SPLITS.items():
        drawings_by_split[split] = list(read_drawings(HERE / f"emoji-{shard}.tar"))
        available[split] = {drawing.concept for drawing in drawings_by_split[split]}
    concepts = deal_concepts(sorted(set().union(*available.values())), available, rng)

    suffix = f"-{args.blind}-alone" if args.blind else ""
    tasks = (("snli-ve", write_entailment, NUM_ROUNDS), ("nlvr2", write_pairs, NUM_GROUPS))
    for split, all_drawings in drawings_by_split.items():
        drawings = [drawing for drawing in all_drawings if drawing.concept in concepts[split]]
        for name, write, (train_size, other_size) in tasks:
            folder = args.output / f"{name}{suffix}"
            size = train_size if split == "train" else other_size
            labels = write(folder, split, drawings, size, args.blind, rng)
            print(
                f"{folder}, {split}: {labels.total():,} rows, {dict(labels)}; {len(concepts[split])} concepts, "
                f"{len(drawings):,} drawings"
            )


if __name__ == "__main__":
    main()
