"""The named protocols, in words and as `Protocol`s; docs/protocols.md has them all."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

from ernie_vil2.evaluation.cxc import CXC_PROTOCOLS
from ernie_vil2.evaluation.protocol import AGAINST, ANY_OF, MEASURES, SCORE, SCORED_AS_USUAL, Protocol

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="pairs",
            definition=(
                "All images and all texts of the benchmark are the galleries, each once, distinguished by id. An "
                "answer is right when some pair holds both. A row without a pair is in the gallery, but no query. "
                f"{SCORED_AS_USUAL}"
            ),
        ),
        Protocol(
            name="coco-cn-test",
            definition=(
                "The test split of COCO-CN: 1,000 images and their 1,053 human-written sentences, so that some images "
                "have two. Translated sentences and tags take no part. An answer is right when it is the image's own "
                f"sentence. {SCORED_AS_USUAL}"
            ),
            split="test",
            images=1_000,
            texts=1_053,
        ),
        Protocol(
            name="aic-icc-val-10k",
            definition=(
                "The first 10,000 images of AIC-ICC's validation split in the order of its JSON file, with the five "
                f"sentences of each: 10,000 images and 50,000 texts. {SCORED_AS_USUAL}"
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
                f"{SCORED_AS_USUAL}"
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
                f"{SCORED_AS_USUAL}"
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
                f"is the mean over the folds. {SCORED_AS_USUAL}"
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
                f"{SCORED_AS_USUAL}"
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
                f"images of the split; {SCORE} An image that no query asks for is in the gallery all the same, and a "
                f"text without images is no query. {ANY_OF} {AGAINST} R@K is the share of queries of rank at most K, "
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
                f"{SCORED_AS_USUAL}"
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
                f"image asks among all rows' texts, every row's text among all rows' images; {SCORE} Ties count for "
                "the model: the rank is 1 + the number of rows that score more than the right one, so that equal "
                f"embeddings everywhere give R@1 = 100. {MEASURES} MRR is the mean of 1 / rank."
            ),
            row_labels=True,
            ties="optimistic",
        ),
        *CXC_PROTOCOLS,
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
