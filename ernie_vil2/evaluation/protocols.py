"""Named protocols: each a complete definition of how a retrieval benchmark is scored.

The same embeddings get very different figures under the conventions in use, so that a figure means something only
with its protocol beside it. A protocol chooses the galleries from the benchmark's rows, then scores them.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ernie_vil2.data.benchmark import Benchmark
from ernie_vil2.evaluation.retrieval import DIRECTIONS, Matching


@dataclass(frozen=True)
class Protocol:
    """A complete definition: which rows are the galleries, what is right, how ties count, what is averaged.

    What asks what follows from `matchings` and `directions` alone: a protocol whose queries and galleries are of one
    side, or whose positives are not the benchmark's pairs, has a `matchings` of its own.

    Attributes:
        name: by which it is called.
        definition: in words, all of it.
        split: of the benchmark, where it is a fixed one.
        images, texts: how many the benchmark has after selection, where the benchmark is a fixed one.
        first_images: only so many images, the first in the order of the files.
        texts_per_image: only so many texts of each image, the first in the order of the files.
        fold: images of one fold; folds are cut in the order of the files and scored each on its own.
        row_labels: whether each pair is a row of its own, right for nothing but itself.
        directions: those that are scored.
        ties: see `ernie_vil2.evaluation.ranking.TIE_RULES`.
    """

    name: str
    definition: str
    split: str | None = None
    images: int | None = None
    texts: int | None = None
    first_images: int | None = None
    texts_per_image: int | None = None
    fold: int | None = None
    row_labels: bool = False
    directions: tuple[str, ...] = DIRECTIONS
    ties: str = "pessimistic"

    def select(self, benchmark: Benchmark) -> Benchmark:
        """The part of a benchmark that is in some gallery; see `select`."""
        return select(benchmark, [self])

    @property
    def expected(self) -> dict[str, int]:
        """Number of `images` and of `texts` after selection, of those that are fixed."""
        counts = {"images": self.images, "texts": self.texts}
        return {side: count for side, count in counts.items() if count is not None}

    def differences(self, benchmark: Benchmark) -> list[str]:
        """A sentence for each count of a selected benchmark that is not what the protocol expects."""
        here = {"images": len(benchmark.images), "texts": len(benchmark.texts)}
        return [
            f"{self.name} expects {count:,} {side}; here are {here[side]:,}, {abs(here[side] - count):,} "
            f"{'more' if here[side] > count else 'fewer'}."
            for side, count in self.expected.items()
            if here[side] != count
        ]

    def notes(self, benchmark: Benchmark) -> list[str]:
        """How a selected benchmark differs from what the protocol expects, and which of its rows are no queries."""
        sentences = self.differences(benchmark)
        for side, rows, column in (("images", benchmark.images, 0), ("texts", benchmark.texts, 1)):
            if unpaired := len(rows) - len(np.unique(benchmark.pairs[:, column])):
                sentences.append(f"{side.capitalize()} in no pair, in the gallery, but no queries: {unpaired:,}.")
        return sentences

    def matchings(self, benchmark: Benchmark) -> list[Matching]:
        """What is scored against what, and what is right: one matching, or one for each fold."""
        image_rows, pairs = np.arange(len(benchmark.images))[: self.first_images], benchmark.pairs
        keep = pairs[:, 0] < len(image_rows)
        if self.texts_per_image is not None:
            keep &= _place_within(pairs[:, 0]) < self.texts_per_image
        kept = pairs[keep]
        if self.row_labels:
            rows = np.arange(len(kept))
            return [Matching(*kept.T, np.stack([rows, rows], axis=1))]
        text_rows = np.setdiff1d(np.arange(len(benchmark.texts)), np.setdiff1d(pairs[:, 1], kept[:, 1]))
        if self.fold is None:
            return [_renumbered(image_rows, text_rows, kept)]
        folds = []
        for start in range(0, len(image_rows), self.fold):
            rows = image_rows[start : start + self.fold]
            own = kept[np.isin(kept[:, 0], rows)]
            folds.append(_renumbered(rows, np.unique(own[:, 1]), own))
        return folds


def _place_within(owners: np.ndarray) -> np.ndarray:
    """For each entry how many earlier entries have the same owner."""
    order = np.argsort(owners, kind="stable")
    ordered = owners[order]
    place = np.empty(len(owners), np.int64)
    place[order] = np.arange(len(owners)) - np.searchsorted(ordered, ordered)
    return place


def _renumbered(images: np.ndarray, texts: np.ndarray, pairs: np.ndarray) -> Matching:
    """A matching of ascending rows, from pairs that name rows of the benchmark."""
    places = [np.searchsorted(rows, column) for rows, column in zip((images, texts), pairs.T, strict=True)]
    return Matching(images, texts, np.stack(places, axis=1))


_IMAGE_TO_TEXT = "Every image asks for its texts among all texts of the gallery"
_TEXT_TO_IMAGE = "every text for its image among all images of the gallery"
_SCORE = "scores are dot products of the embeddings."
_BOTH_WAYS = f"{_IMAGE_TO_TEXT}, {_TEXT_TO_IMAGE}; {_SCORE}"
_ANY_OF = "Where several answers are right, any of them counts: a query's rank is that of the best placed."
_AGAINST = (
    "Ties count against the model: the rank is 1 + the number of wrong answers that score at least as high as the "
    "best right one."
)
_MEASURES = (
    "R@K is the share of queries of rank at most K, mR the mean of R@1, R@5 and R@10, and the two-way mR the mean of "
    "both directions."
)
_SCORED_AS_USUAL = f"{_BOTH_WAYS} {_ANY_OF} {_AGAINST} {_MEASURES}"

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="pairs",
            definition=(
                "All images and all texts of the benchmark are the galleries, each once, told apart by id. An answer "
                "is right when some pair holds both. A row without a pair is in the gallery, but no query. "
                f"{_SCORED_AS_USUAL}"
            ),
        ),
        Protocol(
            name="coco-cn-test",
            definition=(
                "The test split of COCO-CN: 1,000 images and their 1,053 human-written sentences, so that some images "
                "have two. Translated sentences and tags take no part. An answer is right when it is the image's own "
                f"sentence. {_SCORED_AS_USUAL}"
            ),
            split="test",
            images=1_000,
            texts=1_053,
        ),
        Protocol(
            name="aic-icc-val-10k",
            definition=(
                "The first 10,000 images of AIC-ICC's validation split in the order of its JSON file, with the five "
                f"sentences of each: 10,000 images and 50,000 texts. {_SCORED_AS_USUAL}"
            ),
            split="val",
            images=10_000,
            texts=50_000,
            first_images=10_000,
            texts_per_image=5,
        ),
        Protocol(
            name="flickr30k-test",
            definition=(
                "The test split of Flickr30K by Karpathy: 1,000 images with five sentences each, 5,000 texts. "
                f"{_SCORED_AS_USUAL}"
            ),
            split="test",
            images=1_000,
            texts=5_000,
            texts_per_image=5,
        ),
        Protocol(
            name="mscoco-5k",
            definition=(
                "The test split of MSCOCO by Karpathy: 5,000 images with the first five sentences of each in the order "
                "of the file, 25,000 texts; the few sentences beyond the fifth of an image take no part. "
                f"{_SCORED_AS_USUAL}"
            ),
            split="test",
            images=5_000,
            texts=25_000,
            texts_per_image=5,
        ),
        Protocol(
            name="mscoco-1k",
            definition=(
                "The images and texts of mscoco-5k, cut in the order of the file into five folds of 1,000 images with "
                "their 5,000 texts. Each fold is scored on its own, against its own galleries alone, and every figure "
                f"is the mean over the folds. {_SCORED_AS_USUAL}"
            ),
            split="test",
            images=5_000,
            texts=25_000,
            texts_per_image=5,
            fold=1_000,
        ),
        Protocol(
            name="flickr30k-cn-test",
            definition=(
                "The test split of Flickr30k-CN: 1,000 images with five Chinese sentences each, 5,000 texts. "
                f"{_SCORED_AS_USUAL}"
            ),
            split="test",
            images=1_000,
            texts=5_000,
            texts_per_image=5,
        ),
        Protocol(
            name="muge-val",
            definition=(
                "The validation split of MUGE's retrieval task: every query text asks for its product images among all "
                f"images of the split; {_SCORE} An image that no query asks for is in the gallery all the same, and a "
                f"text without images is no query. {_ANY_OF} {_AGAINST} R@K is the share of queries of rank at most K, "
                "and mR the mean of R@1, R@5 and R@10. Images ask for nothing: there is no other direction."
            ),
            split="val",
            directions=("text_to_image",),
        ),
        Protocol(
            name="first-text",
            definition=(
                "Each image keeps one text alone, its first in the order of the files. A text that is the first of no "
                "image leaves the gallery; all images stay. An answer is right when the text is the image's first one. "
                f"{_SCORED_AS_USUAL}"
            ),
            texts_per_image=1,
        ),
        Protocol(
            name="official-rows",
            definition=(
                "What the evaluator of the official ERNIE-ViL 2.0 release computes, for any number of rows. Every pair "
                "of image and text, in the order of the files, is a row with an image and a text of its own: an image "
                "with two texts is in the gallery twice. The label is the row number: only the row's own text is right "
                "for its image, and its own image for its text, even where another row holds the same. Every row's "
                f"image asks among all rows' texts, every row's text among all rows' images; {_SCORE} Ties count for "
                "the model: the rank is 1 + the number of rows that score more than the right one, so that equal "
                f"embeddings everywhere give R@1 = 100. {_MEASURES} MRR is the mean of 1 / rank."
            ),
            row_labels=True,
            ties="optimistic",
        ),
    )
}
DEFAULT_PROTOCOL = "pairs"
ALL_CONVENTIONS = "all-conventions"
CONVENTIONS = {"any-of": "pairs", "first-text": "first-text", "row-label": "official-rows"}
"""The conventions in use, by the protocol that follows each: the same embeddings score very differently under them."""


def protocol(name: str) -> Protocol:
    """The protocol of a name; ValueError with the nearest names for an unknown one."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    known = [*PROTOCOLS, ALL_CONVENTIONS]
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.7)
    meant = f"did you mean {' or '.join(near)}? All" if near else "known"
    raise ValueError(f"unknown protocol {name!r}; {meant}: {', '.join(known)}")


def select(benchmark: Benchmark, protocols: Sequence[Protocol]) -> Benchmark:
    """The part of a benchmark that any of the protocols puts into a gallery: all that has to be encoded for them.

    Select before encoding: an image that turns out broken then leaves a gap that is counted, and no image beyond
    a protocol's first so many takes its place.
    """
    chosen: dict[str, list[np.ndarray]] = {"image": [], "text": []}
    for matching in (one for protocol in protocols for one in protocol.matchings(benchmark)):
        for side, rows in zip(matching.sides, matching[:2], strict=True):
            chosen[side].append(rows)
    images, texts = (np.unique(np.concatenate([np.zeros(0, np.int64), *rows])) for rows in chosen.values())
    return benchmark.select(images, texts)


def conventions(rows_of: Protocol | None = None) -> dict[str, Protocol]:
    """The three conventions, on a whole benchmark or on the images and texts that another protocol selects."""
    found = {convention: PROTOCOLS[name] for convention, name in CONVENTIONS.items()}
    if rows_of is None:
        return found
    return {
        convention: replace(
            scoring,
            definition=f"On the images and texts that {rows_of.name} selects. {scoring.definition}",
            first_images=rows_of.first_images,
            texts_per_image=scoring.texts_per_image or rows_of.texts_per_image,
        )
        for convention, scoring in found.items()
    }


def choose(names: Sequence[str]) -> dict[str, Protocol]:
    """Protocols by label, as a command line names them: a single one has the empty label.

    `all-conventions` stands for three, on the images and texts that the first other protocol selects, if there is one.

    Raises:
        ValueError: a name is unknown; see `protocol`.
    """
    own = [protocol(name) for name in names if name != ALL_CONVENTIONS]
    chosen = {one.name: one for one in own}
    if ALL_CONVENTIONS in names:
        chosen |= conventions(own[0] if own else None)
    return {"": own[0]} if len(chosen) == 1 else chosen
