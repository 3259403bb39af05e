"""demo_data/stamps.py writes tables and folders of classes whose splits share no name."""

import csv
import hashlib
import lzma
import sys

import numpy as np
import pytest
from PIL import Image

from ernie_vil2.data.readers import open_benchmarks
from ernie_vil2.data.readers.labelled import open_labelled
from tests.support.image_formats import encode_image
from tests.support.paths import import_demo_script
from tests.support.shapes import write_tar

SPLITS = ("train", "val", "test")


def draw_stamp(seed, size=(200, 100)):
    pixels = np.random.default_rng(seed).integers(0, 256, [size[1], size[0], 4], np.uint8)
    pixels[:, : size[0] // 2, 3] = 0  # transparent
    return encode_image(pixels)


def write_package(path, stamps):
    """Write a Debian package of stamps, {path: (image, English name, Chinese name)}."""
    members = {"doc/tuxpaint-stamps-default/copyright": b"GPL-2"}
    for name, (png, english, chinese) in stamps.items():
        text = f"{english}\nde.utf8=etwas\n"
        if chinese:
            text += f"zh_CN.utf8={chinese}\n"
        for suffix, content in (("png", png), ("txt", text.encode()), ("ogg", b"sound")):
            members[f"tuxpaint/stamps/{name}.{suffix}"] = content
    data = write_tar(path.with_suffix(".tar"), [(f"./usr/share/{name}", members[name]) for name in members])
    package = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0"), ("data.tar.xz", lzma.compress(data.read_bytes()))):
        package += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        package += content + b"\n" * (len(content) % 2)
    path.write_bytes(package)
    return path


STAMPS = {
    **{f"animals/birds/b{n}": (draw_stamp(n), f"A bird {n}.", f"鸟{n}。") for n in range(9)},
    **{f"food/f{n}": (draw_stamp(100 + n, (40, 60)), f"A pie {n}.", f"派{n}。") for n in range(6)},
    # The English name of a pie above, and a Chinese name that the next stamp has as well.
    "food/again": (draw_stamp(200), "A pie 0.", "另一个派"),
    "food/chain": (draw_stamp(201), "Another pie.", "另一个派。"),
    "food/silent": (draw_stamp(202), "Not named in Chinese.", ""),
}


def test_tables_and_classes_share_no_name_between_splits(tmp_path, monkeypatch):
    package, out = write_package(tmp_path / "made.deb", STAMPS), tmp_path / "stamps"
    script = import_demo_script("stamps")
    monkeypatch.setattr(script, "SHA256", hashlib.sha256(package.read_bytes()).hexdigest())
    monkeypatch.setattr(sys, "argv", ["stamps.py", "--package", str(package), "--output", str(out)])
    assert script.main() == 0
    assert (out / "copyright").read_bytes() == b"GPL-2"
    rows, names, all_rows = {}, {}, []
    for split in SPLITS:
        rows[split] = list(csv.DictReader((out / f"{split}.csv").read_text(encoding="utf-8").splitlines()))
        all_rows += rows[split]
        names[split] = {row["caption_zh"].lower() for row in rows[split]}
        names[split] |= {row["caption_en"].lower() for row in rows[split]}
    all_names = set().union(*names.values())
    assert len(all_names) == sum(map(len, names.values())), "a name is in two splits"
    assert not any(name.endswith((".", "。")) for name in all_names)
    assert len(all_rows) == 17
    (bird,) = [row for row in all_rows if row["caption_en"] == "A bird 0"]
    assert (bird["caption_zh"], bird["label"], bird["folder"]) == ("鸟0", "animals", "animals/birds")
    image = Image.open(out / bird["image"])
    assert image.mode == "RGB" and image.size == (128, 64) and image.getpixel((3, 3)) == (255, 255, 255)

    classes = open_labelled([out], {language: str(out / f"names_{language}.txt") for language in ("zh", "en")})
    assert len(classes.texts) == 16 and classes.texts[0].fields == {"zh": "动物", "en": "an animal"}
    assert len(classes.images) == len(rows["test"]) and not classes.entry_report.counts
    assert len(open_labelled([out / "test.csv"]).images) == len(rows["test"])
    counts = {language: len(benchmark.images) for language, benchmark in open_benchmarks(out).items()}
    assert counts == dict.fromkeys(("zh", "en"), len(rows["test"]))
    # Every class has images in both splits.
    assert {row["label"] for row in rows["train"]} == {row["label"] for row in rows["test"]} == {"animals", "food"}


@pytest.mark.parametrize("mirror", ["deb.debian.org/debian", "http://a b/debian"])
def test_mirror_that_is_no_address_is_named(mirror, tmp_path, monkeypatch):
    script = import_demo_script("stamps")
    monkeypatch.setattr(sys, "argv", ["stamps.py", "--mirror", mirror, "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"error: {mirror}.*--mirror"):
        script.main()
