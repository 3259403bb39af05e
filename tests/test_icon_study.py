"""The fixed lists of the ablation: what makes sets a family, and that no family and no copy is on two sides."""

import importlib
import json
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "demo_data"


@pytest.fixture(scope="module")
def modules():
    """The two scripts, which import each other by their folder."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("icon_families"), importlib.import_module("icon_study")
    finally:
        sys.path.remove(str(FOLDER))


def drawn(*boxes, size=64):
    """A PNG of dark boxes (x, y, width, height) on white."""
    image = np.full([size, size], 255, np.uint8)
    for x, y, width, height in boxes:
        image[y : y + height, x : x + width] = 34
    return cv2.imencode(".png", image)[1].tobytes()


L = [(8, 8, 8, 48), (8, 48, 40, 8)]
T = [(8, 8, 48, 8), (28, 8, 8, 48)]


def test_a_drawing_is_the_same_wherever_it_is_and_at_any_size(modules):
    families, _ = modules
    here, half = families.shape(drawn(*L)), families.shape(drawn(*[[v // 2 for v in box] for box in L]))
    other = families.shape(drawn(*T))
    assert here.bits == half.bits != other.bits
    drawings = families.Drawings()
    for row, found in enumerate((here, half, other)):
        drawings.add("abc"[row], f"{'abc'[row]}--x", found)
    assert [sorted(group) for group in drawings.alike()] == [[0, 1]]
    assert drawings.same([0, 2], [1]).tolist() == [[True], [False]]
    assert families.shape(drawn()) is None


def sets(**more):
    plain = {"author": "", "category": "UI 24px", "samples": 100}
    return {name: plain | {"author": name} | fields for name, fields in more.items()}


def test_authors_prefixes_names_and_pixels_make_a_family(modules):
    families, _ = modules
    names = {name: {f"{name} {n}" for n in range(20)} for name in ("a", "b", "c-one", "c-two", "d", "e", "f", "g", "h")}
    names["e"] = set(list(names["d"])[:12]) | {f"e {n}" for n in range(8)}
    names["g"] = names["h"]
    known = sets(**{name: {} for name in names}) | sets(a={"author": "Team"}, b={"author": "team"},
                                                       g={"category": "Emoji"}, h={"category": "Emoji"})  # fmt: skip
    images = {("f", "g"): 99, ("a", "h"): int(100 * families.SHARED_IMAGES) - 1}
    found, joined = families.families(known, names, images)
    assert sorted(map(tuple, found)) == [("a", "b"), ("c-one", "c-two"), ("d", "e"), ("f", "g"), ("h",)]
    assert [(left, right) for left, right, _ in joined["name"]] == [("a", "b"), ("c-one", "c-two"), ("d", "e")]
    assert joined["pixels"] == [("f", "g", "99 of 100 images")]


def test_a_family_is_on_one_side(modules, monkeypatch):
    _, study = modules
    monkeypatch.setattr(study, "SCORED", {"val": ("v",), "test": ("t",)})
    sides = study.side_of_sets([["v", "v-filled"], ["t"], ["x", "y"]], ["v", "v-filled", "t", "x", "y"])
    assert sides == {"v": "val", "v-filled": "none", "t": "test", "x": "train", "y": "train"}
    with pytest.raises(ValueError, match="v, t are one family and are on two sides: test, val"):
        study.side_of_sets([["v", "t"]], ["v", "t"])
    with pytest.raises(ValueError, match="the icons lack t; render them"):
        study.side_of_sets([["v"]], ["v"])


def test_copies_of_scored_icons_are_left_out_of_the_side_below(modules):
    families, study = modules
    drawings = families.Drawings()
    for name, boxes in (("train", L), ("val", L), ("test", L), ("train", T), ("none", T)):
        drawings.add(name, f"{name}--{len(drawings.keys)}", families.shape(drawn(*boxes)))
    sides = {name: name for name in ("train", "val", "test", "none")}
    assert study.left_out(drawings, sides) == {"train--0", "val--1"}


def test_as_many_captions_are_wrong_as_asked_for(modules):
    families, study = modules
    icons = [families.Icon(f"s--{n}", {"caption_en": f"name {n}", "tags_en": [str(n)], "set": "s"}, b"")
             for n in range(200)]  # fmt: skip
    for percent in (30, 60):
        found = study.corrupted(icons, percent)
        wrong = [n for n, icon in enumerate(found) if icon.fields["caption_en"] != f"name {n}"]
        assert len(wrong) == 2 * percent
        assert all(found[n].fields["tags_en"] == [found[n].fields["caption_en"].split()[1]] for n in range(200))
        assert sorted(icon.fields["caption_en"] for icon in found) == sorted(f"name {n}" for n in range(200))
        assert [icon.key for icon in found] == [icon.key for icon in icons]


def test_the_lexicon_knows_the_drawings_names(modules):
    _, study = modules
    known = study.lexicon()
    assert known["umbrella"]["caption_zh"] and len(known) > 1500
    assert json.dumps(known["umbrella"])


def test_the_lists_are_written_from_rendered_sets(modules, monkeypatch, tmp_path):
    families, study = modules
    icons, output = tmp_path / "icons", tmp_path / "lists"
    icons.mkdir()
    named = {
        "ours": {"umbrella": L, "corner": [(8, 8, 8, 8)], "blank": [], "copied": T},
        "kept": {"tee": T},
        "unseen": {"umbrella": [(8, 8, 40, 8), (8, 16, 8, 8)]},
    }
    for name, images in named.items():
        study.write(icons / f"{name}.tar", [
            families.Icon(f"{name}--{caption}", {"caption_en": caption, "tags_en": [], "name": caption, "set": name,
                                                 "license": "MIT"}, drawn(*boxes))
            for caption, boxes in images.items()
        ])  # fmt: skip
    (icons / "sets.json").write_text(json.dumps(sets(**{name: {"samples": len(named[name])} for name in named})))
    monkeypatch.setattr(study, "SCORED", {"val": ("kept",), "test": ("unseen",)})
    monkeypatch.setattr(sys, "argv", ["icon_study.py", "--icons", str(icons), "--output", str(output)])
    assert study.main() == 0
    lists = json.loads((output / "lists.json").read_text(encoding="utf-8"))
    assert (lists["icons"], lists["blank"], lists["training_icons"]) == (6, 1, 2)
    assert lists["copies_left_out"] == {"train": 1}
    assert lists["sides"] == {"train": ["ours"], "val": ["kept"], "test": ["unseen"], "none": []}
    with tarfile.open(output / "train-lexicon.tar") as tar:
        (fields,) = [json.load(tar.extractfile(name)) for name in tar.getnames() if name.endswith(".json")]
    assert (fields["name"], fields["caption_zh"]) == ("umbrella", study.lexicon()["umbrella"]["caption_zh"])
    assert {"corner", "umbrella"} <= set((output / "vocabulary.txt").read_text(encoding="utf-8").split())


def test_long_captions_are_of_name_tags_style_and_set(modules):
    _, study = modules
    fields = {"caption_en": "user alt", "tags_en": ["user and group", "people"], "styles": ["fill"], "color": False,
              "set_name": "Lets Icons", "author": "Leonid Tsvetkov"}  # fmt: skip
    plain = {**fields, "tags_en": [], "styles": [], "color": True}
    found = [study.with_long_caption(study.Icon("k", each, b"png")) for each in (fields, plain)]
    assert [icon.fields["caption_long_en"] for icon in found] == [
        "user alt, tagged user and group, people: a fill plain icon of the set Lets Icons by Leonid Tsvetkov",
        "user alt: a colourful icon of the set Lets Icons by Leonid Tsvetkov",
    ]
    assert all(icon.fields["caption_en"] == "user alt" and icon.png == b"png" for icon in found)
