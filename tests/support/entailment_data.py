"""Coloured shapes with statements about them, in the published files' form."""

import json
from itertools import product

import numpy as np

from tests.support.shapes import COLOURS, SHAPES, draw, png

CONCEPTS = list(product(COLOURS, SHAPES))
TOKENS = [*"[PAD] [CLS] [SEP] [MASK] [UNK] a the left one is both are".split(), *COLOURS, *SHAPES]  # noqa: SIM905  -- words are read as a text
"""A vocabulary for the statements."""


def _images(rng):
    return {concept: png(draw(COLOURS[concept[0]][0], concept[1], rng)) for concept in CONCEPTS}


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else "".join(f"{json.dumps(r)}\n" for r in content).encode())


def entailment_folder(folder, splits=("train", "dev", "test")):
    """SNLI-VE: 16 images and 48 hypotheses in each split, a third of them entailed."""
    for number, split in enumerate(splits):
        rng, rows = np.random.default_rng(number), []
        for image, ((colour, shape), content) in enumerate(_images(rng).items()):
            name = str(1000 * number + image)
            _write(folder / "flickr30k-images" / f"{name}.jpg", content)
            other_colour = rng.choice([one for one in COLOURS if one != colour])
            other_shape = rng.choice([one for one in SHAPES if one != shape])
            for label, hypothesis in (
                ("entailment", f"a {colour} {shape}"),
                ("neutral", f"a {other_colour} {shape}"),
                ("contradiction", f"a {other_colour} {other_shape}"),
            ):
                row = {"Flikr30kID": name, "pairID": f"{name}#{label}", "sentence1": "a shape"}
                rows.append(row | {"sentence2": hypothesis, "gold_label": label, "annotator_labels": [label]})
        _write(folder / f"snli_ve_{split}.jsonl", rows)
    return folder


def nlvr2_folder(folder, splits=("train", "dev", "test1")):
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
                    _write(home / f"{name}-img{side}.png", png(draw(COLOURS[one][0], kind, rng)))
                urls = {f"{side}_url": f"https://example.com/{name}-{side}" for side in ("left", "right")}
                for sentence, text in enumerate((f"both are {colour}", f"the left one is a {shape}")):
                    row = {"sentence": text, "label": "False" if pair else "True", "identifier": f"{name}-{sentence}"}
                    rows.append(row | urls | position)
        _write(folder / "data" / f"{split}.json", rows)
        if not position:
            _write(folder / "data" / "balanced" / f"balanced_{split}.json", rows[:32])
            _write(folder / "data" / "unbalanced" / f"unbalanced_{split}.json", rows[32:])
    return folder
