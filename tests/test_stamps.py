"""demo_data/stamps.py on a package made here: what it writes, and that its splits share no name."""

import csv
import hashlib
import importlib.util
import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ernie_vil2.data.readers import open_benchmarks
from ernie_vil2.data.readers.labelled import open_labelled

SCRIPT = Path(__file__).parents[1] / "demo_data" / "stamps.py"


@pytest.fixture
def stamps():
    spec = importlib.util.spec_from_file_location("stamps", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stamp_image(seed, size=(200, 100)):
    pixels = np.random.default_rng(seed).integers(0, 256, [size[1], size[0], 4], np.uint8)
    pixels[:, : size[0] // 2, 3] = 0  # transparent
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG")
    return file.getvalue()


def package(path, stamps):
    """A Debian package of stamps, as {path: (image, English name, Chinese name)}."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for name, (png, english, chinese) in stamps.items():
            text = f"{english}\nde.utf8=etwas\n" + f"zh_CN.utf8={chinese}\n" * bool(chinese)
            for suffix, content in (("png", png), ("txt", text.encode()), ("ogg", b"sound")):
                member = tarfile.TarInfo(f"./usr/share/tuxpaint/stamps/{name}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        member = tarfile.TarInfo("./usr/share/doc/tuxpaint-stamps-default/copyright")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"GPL-2"))
    content = b"!<arch>\n"
    for name, part in (("debian-binary", b"2.0"), ("data.tar.xz", data.getvalue())):
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode()
        content += part + b"\n" * (len(part) % 2)
    path.write_bytes(content)
    return path


def run(stamps, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["stamps.py", *map(str, arguments)])
    return stamps.main()


MADE = {
    **{f"animals/birds/b{n}": (stamp_image(n), f"A bird {n}.", f"鸟{n}。") for n in range(9)},
    **{f"food/f{n}": (stamp_image(100 + n, (40, 60)), f"A pie {n}.", f"派{n}。") for n in range(6)},
    "food/again": (stamp_image(200), "A pie 0.", "另一个派"),  # shares its English name with one,
    "food/chain": (stamp_image(201), "Another pie.", "另一个派。"),  # and that its Chinese name with another
    "food/silent": (stamp_image(202), "Not named in Chinese.", ""),
}


def test_tables_and_folders_of_classes(stamps, tmp_path, monkeypatch, capsys):
    made = package(tmp_path / "made.deb", MADE)
    monkeypatch.setattr(stamps, "SHA256", hashlib.sha256(made.read_bytes()).hexdigest())
    out = tmp_path / "stamps"
    assert run(stamps, monkeypatch, "--package", made, "--output", out) == 0
    assert "17 images" not in capsys.readouterr().out and (out / "copyright").read_bytes() == b"GPL-2"
    rows = {
        split: list(csv.DictReader((out / f"{split}.csv").open(encoding="utf-8", newline="")))
        for split in ("train", "val", "test")
    }
    assert sum(map(len, rows.values())) == 17
    names = {split: {row[name].lower() for row in own for name in ("caption_zh", "caption_en")}
             for split, own in rows.items()}  # fmt: skip
    assert not names["train"] & names["test"] and not names["train"] & names["val"] and not names["val"] & names["test"]
    assert not any(name.endswith((".", "。")) for own in names.values() for name in own)
    first = next(row for own in rows.values() for row in own if row["caption_en"] == "A bird 0")
    assert first["caption_zh"] == "鸟0" and first["label"] == "animals" and first["folder"] == "animals/birds"
    image = Image.open(out / first["image"])
    assert image.mode == "RGB" and image.size == (128, 64) and image.getpixel((3, 3)) == (255, 255, 255)

    classes = open_labelled([out], {language: str(out / f"names_{language}.txt") for language in ("zh", "en")})
    assert len(classes.texts) == 16 and classes.texts[0].fields == {"zh": "动物", "en": "an animal"}
    assert len(classes.images) == len(rows["test"]) and not classes.rows.counts
    table = open_labelled([out / "test.csv"])
    assert len(table.images) == len(rows["test"])
    assert {language: len(each.images) for language, each in open_benchmarks(out).items()} == dict.fromkeys(
        ("zh", "en"), len(rows["test"])
    )
    # Every class has images of its own in every split, as far as there are.
    assert {row["label"] for row in rows["train"]} == {row["label"] for row in rows["test"]} == {"animals", "food"}


def test_another_package_and_a_silent_mirror_are_explained(stamps, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="error: .*made.deb is damaged, or another version"):
        run(stamps, monkeypatch, "--package", package(tmp_path / "made.deb", {}), "--output", tmp_path / "out")
    with pytest.raises(SystemExit, match="error: .*none.deb: No such file"):
        run(stamps, monkeypatch, "--package", tmp_path / "none.deb", "--output", tmp_path / "out")
    with pytest.raises(SystemExit, match="error: http://127.0.0.1:9/pool/.*; name another --mirror, or a --package"):
        run(stamps, monkeypatch, "--mirror", "http://127.0.0.1:9", "--output", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
