"""Coloured shapes with statements about them, in the files of SNLI-VE and NLVR2 as they are published."""

from itertools import product

import numpy as np

from tests.support.published_files import json_lines, write_files
from tests.support.shapes import COLOURS, SHAPES, SPECIAL_TOKENS, draw, encode_png

CONCEPTS = list(product(COLOURS, SHAPES))
TOKENS = [*SPECIAL_TOKENS, "a", "the", "left", "one", "is", "both", "are", *COLOURS, *SHAPES]
"""Vocabulary of the statements."""


def write_entailment_folder(folder, splits=("train", "dev", "test")):
    """Write SNLI-VE: 16 images and 48 hypotheses in each split, a third of them entailed."""
    for number, split in enumerate(splits):
        rng, rows = np.random.default_rng(number), []
        images = [encode_png(draw(COLOURS[colour][0], shape, rng)) for colour, shape in CONCEPTS]
        for concept, (colour, shape) in enumerate(CONCEPTS):
            name = str(1000 * number + concept)
            write_files(folder, {f"flickr30k-images/{name}.jpg": images[concept]})
            wrong_colour = rng.choice([hue for hue in COLOURS if hue != colour])
            wrong_shape = rng.choice([form for form in SHAPES if form != shape])
            for label, hypothesis in (
                ("entailment", f"a {colour} {shape}"),
                ("neutral", f"a {wrong_colour} {shape}"),
                ("contradiction", f"a {wrong_colour} {wrong_shape}"),
            ):
                row = {"Flikr30kID": name, "pairID": f"{name}#{label}", "sentence1": "a shape"}
                rows.append(row | {"sentence2": hypothesis, "gold_label": label, "annotator_labels": [label]})
        write_files(folder, {f"snli_ve_{split}.jsonl": json_lines(*rows)})
    return folder


def write_nlvr2_folder(folder, splits=("train", "dev", "test1")):
    """Write NLVR2: 64 rows in each split, on 32 pairs of images, half of them true; a half is `balanced`."""
    for number, split in enumerate(splits):
        rng, rows = np.random.default_rng(10 + number), []
        # Only the images of the training split lie in numbered directories.
        directory = {"directory": 7} if split == "train" else {}
        home = folder / "images" / split / ("7" if directory else "")
        for concept, (colour, shape) in enumerate(CONCEPTS):
            wrong_concepts = [(hue, form) for hue, form in CONCEPTS if hue != colour and form != shape]
            wrong_concept = wrong_concepts[rng.integers(len(wrong_concepts))]
            for label, left in (("True", (colour, shape)), ("False", wrong_concept)):
                name = f"{split}-{concept}-{0 if label == 'True' else 1}"
                for side, (hue, form) in enumerate((left, (colour, "bar"))):
                    write_files(home, {f"{name}-img{side}.png": encode_png(draw(COLOURS[hue][0], form, rng))})
                urls = {f"{side}_url": f"https://example.com/{name}-{side}" for side in ("left", "right")}
                for sentence, text in enumerate((f"both are {colour}", f"the left one is a {shape}")):
                    row = {"sentence": text, "label": label, "identifier": f"{name}-{sentence}"}
                    rows.append(row | urls | directory)
        write_files(folder / "data", {f"{split}.json": json_lines(*rows)})
        if not directory:
            write_files(folder / "data", {f"balanced/balanced_{split}.json": json_lines(*rows[:32]),
                                    f"unbalanced/unbalanced_{split}.json": json_lines(*rows[32:])})  # fmt: skip
    return folder
