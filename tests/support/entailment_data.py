"""Coloured shapes with statements about them, in the published files' form."""

from itertools import product

import numpy as np

from tests.support.published_files import json_lines, write_files
from tests.support.shapes import COLOURS, SHAPES, SPECIAL_TOKENS, draw, encode_png

CONCEPTS = list(product(COLOURS, SHAPES))
TOKENS = [*SPECIAL_TOKENS, "a", "the", "left", "one", "is", "both", "are", *COLOURS, *SHAPES]
"""A vocabulary for the statements."""


def _images(rng):
    return {concept: encode_png(draw(COLOURS[concept[0]][0], concept[1], rng)) for concept in CONCEPTS}


def write_entailment_folder(folder, splits=("train", "dev", "test")):
    """SNLI-VE: 16 images and 48 hypotheses in each split, a third of them entailed."""
    for number, split in enumerate(splits):
        rng, rows = np.random.default_rng(number), []
        for image, ((colour, shape), content) in enumerate(_images(rng).items()):
            name = str(1000 * number + image)
            write_files(folder, {f"flickr30k-images/{name}.jpg": content})
            other_colour = rng.choice([one for one in COLOURS if one != colour])
            other_shape = rng.choice([one for one in SHAPES if one != shape])
            for label, hypothesis in (
                ("entailment", f"a {colour} {shape}"),
                ("neutral", f"a {other_colour} {shape}"),
                ("contradiction", f"a {other_colour} {other_shape}"),
            ):
                row = {"Flikr30kID": name, "pairID": f"{name}#{label}", "sentence1": "a shape"}
                rows.append(row | {"sentence2": hypothesis, "gold_label": label, "annotator_labels": [label]})
        write_files(folder, {f"snli_ve_{split}.jsonl": json_lines(*rows)})
    return folder


def write_nlvr2_folder(folder, splits=("train", "dev", "test1")):
    """NLVR2: 64 rows in each split, on 32 pairs of images, half of them true; a half is `balanced`."""
    for number, split in enumerate(splits):
        rng, rows = np.random.default_rng(10 + number), []
        position = {"directory": 7} if split == "train" else {}
        home = folder / "images" / split / ("7" if position else "")
        for concept, (colour, shape) in enumerate(CONCEPTS):
            others = [one for one in CONCEPTS if one[0] != colour and one[1] != shape]
            for pair, left in enumerate(((colour, shape), others[rng.integers(len(others))])):
                name = f"{split}-{concept}-{pair}"
                for side, (one, kind) in enumerate((left, (colour, "bar"))):
                    write_files(home, {f"{name}-img{side}.png": encode_png(draw(COLOURS[one][0], kind, rng))})
                urls = {f"{side}_url": f"https://example.com/{name}-{side}" for side in ("left", "right")}
                for sentence, text in enumerate((f"both are {colour}", f"the left one is a {shape}")):
                    row = {"sentence": text, "label": "False" if pair else "True", "identifier": f"{name}-{sentence}"}
                    rows.append(row | urls | position)
        write_files(folder / "data", {f"{split}.json": json_lines(*rows)})
        if not position:
            write_files(folder / "data", {f"balanced/balanced_{split}.json": json_lines(*rows[:32]),
                                    f"unbalanced/unbalanced_{split}.json": json_lines(*rows[32:])})  # fmt: skip
    return folder
