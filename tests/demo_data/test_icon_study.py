"""The lists of the ablation's icons group sets into families, and no family and no copy is on two sides."""

import json
import sys

import numpy as np
import pytest

from tests.support.paths import DEMO_DATA, import_demo_script
from tests.support.shapes import encode_png, read_fields

L = [(8, 8, 8, 48), (8, 48, 40, 8)]
T = [(8, 8, 48, 8), (28, 8, 8, 48)]
"""Boxes (x, y, width, height) of letters."""


@pytest.fixture(scope="module")
def families():
    return import_demo_script("icon_families")


@pytest.fixture(scope="module")
def study():
    return import_demo_script("icon_study")


def draw_boxes(*boxes, size=64):
    """Return a PNG of dark boxes on white."""
    image = np.full([size, size], 255, np.uint8)
    for x, y, width, height in boxes:
        image[y : y + height, x : x + width] = 34
    return encode_png(image[..., None].repeat(3, axis=2))


def test_shape_ignores_position_and_size(families):
    half_size = (np.array(L) // 2).tolist()
    shapes = [families.make_shape(draw_boxes(*boxes)) for boxes in (L, half_size, T)]
    assert shapes[0].bits == shapes[1].bits != shapes[2].bits
    drawings = families.Drawings()
    for name, shape in zip("abc", shapes, strict=True):
        drawings.add(name, f"{name}--x", shape)
    assert [sorted(group) for group in drawings.group_by_hash()] == [[0, 1]]
    assert drawings.compare([0, 2], [1]).tolist() == [[True], [False]]
    assert families.make_shape(draw_boxes()) is None


def make_sets(**fields):
    """Return the entries of icon sets, each by an author of its name, with changes by name."""
    default = {"category": "UI 24px", "samples": 100}
    return {name: default | {"author": name} | changes for name, changes in fields.items()}


def test_authors_prefixes_names_and_pixels_join_families(families):
    names = {}
    for name in ("a", "b", "c-one", "c-two", "d", "e", "f", "g", "h"):
        names[name] = {f"{name} {number}" for number in range(20)}
    names["e"] = set(list(names["d"])[:12]) | {f"e {number}" for number in range(8)}
    names["g"] = names["h"]  # emoji of all vendors have the same names
    entries = make_sets(**{name: {} for name in names})
    entries |= make_sets(a={"author": "Team"}, b={"author": "team"}, g={"category": "Emoji"}, h={"category": "Emoji"})
    num_shared_images = {("f", "g"): 99, ("a", "h"): int(100 * families.SHARED_IMAGES) - 1}
    groups, joined = families.find_families(entries, names, num_shared_images)
    assert sorted(map(tuple, groups)) == [("a", "b"), ("c-one", "c-two"), ("d", "e"), ("f", "g"), ("h",)]
    assert [pair for *pair, _ in joined["name"]] == [["a", "b"], ["c-one", "c-two"], ["d", "e"]]
    assert joined["pixels"] == [("f", "g", "99 of 100 images")]


def test_lists_are_written_from_rendered_sets(families, study, monkeypatch, tmp_path):
    icons, output = tmp_path / "icons", tmp_path / "lists"
    icons.mkdir()
    rendered = {
        "ours": {"umbrella": L, "corner": [(8, 8, 8, 8)], "blank": [], "copied": T},
        "kept": {"tee": T},
        "unseen": {"umbrella": [(8, 8, 40, 8), (8, 16, 8, 8)]},
    }
    for name, images in rendered.items():
        set_icons = []
        for caption, boxes in images.items():
            fields = {"caption_en": caption, "tags_en": [], "name": caption, "set": name, "license": "MIT"}
            set_icons.append(families.Icon(f"{name}--{caption}", fields, draw_boxes(*boxes)))
        study.write_icons(icons / f"{name}.tar", set_icons)
    entries = make_sets(**{name: {"samples": len(images)} for name, images in rendered.items()})
    (icons / "sets.json").write_text(json.dumps(entries))
    lexicon = study.read_lexicon(DEMO_DATA / "emoji-val.tar")
    monkeypatch.setattr(study, "read_lexicon", lambda: lexicon)
    monkeypatch.setattr(study, "SCORED_SETS", {"val": ("kept",), "test": ("unseen",)})
    monkeypatch.setattr(sys, "argv", ["icon_study.py", "--icons", str(icons), "--output", str(output)])
    assert study.main() == 0
    lists = json.loads((output / "lists.json").read_text(encoding="utf-8"))
    assert (lists["icons"], lists["blank"], lists["training_icons"]) == (6, 1, 2)
    assert lists["copies_left_out"] == {"train": 1}
    assert lists["sides"] == {"train": ["ours"], "val": ["kept"], "test": ["unseen"], "none": []}
    (fields,) = read_fields(output / "train-lexicon.tar")
    assert (fields["name"], fields["caption_zh"]) == ("umbrella", lexicon["umbrella"]["caption_zh"])
    assert {"corner", "umbrella"} <= set((output / "vocabulary.txt").read_text(encoding="utf-8").split())
