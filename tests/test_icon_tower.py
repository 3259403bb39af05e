"""The image tower that the demo starts from: what it is pretrained on, and that the demo's model takes it."""

import importlib
import json
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file

from ernie_vil2.config import load_config
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.models.weights.initial import load_initial_weights
from tests.support.shapes import write_tar

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "demo_data"))
    try:
        yield importlib.import_module("icon_tower")
    finally:
        sys.path.remove(str(ROOT / "demo_data"))


def names_in(shard):
    with tarfile.open(shard) as tar:
        return [json.load(tar.extractfile(name))["name"] for name in tar.getnames() if name.endswith(".json")]


def test_no_style_of_the_demo_is_drawn_from_and_the_same_icons_always(script, monkeypatch, tmp_path):
    icons = tmp_path / "icons"
    icons.mkdir()
    png = cv2.imencode(".png", np.full([8, 8, 3], 255, np.uint8))[1].tobytes()
    sets = {"colours": True, "lines": False, "twemoji": True, "emojione-v1": True, "noto-v1": True}
    for name in sets:
        captions = [f"{name} {number}" for number in range(300)] + ["hand skin-tone"]
        script.write(icons / f"{name}.tar", [
            script.Icon(f"{name}--{number}", {"caption_en": caption, "tags_en": [], "name": caption}, png)
            for number, caption in enumerate(captions)
        ])  # fmt: skip
    (icons / "sets.json").write_text(json.dumps({name: {"color": color} for name, color in sets.items()}))
    for folder in ("one", "two"):
        monkeypatch.setattr(sys, "argv", ["icon_tower.py", "--icons", str(icons), "--output", str(tmp_path / folder)])
        assert script.main() == 0
    drawn = names_in(tmp_path / "one" / "train.tar")
    assert {name.split()[0] for name in drawn} == {"colours", "lines"}
    assert 220 < sum(name.startswith("colours") for name in drawn) < 260
    assert 30 < sum(name.startswith("lines") for name in drawn) < 70
    assert (tmp_path / "one" / "train.tar").read_bytes() == (tmp_path / "two" / "train.tar").read_bytes()
    assert "lines" in (tmp_path / "one" / "vocabulary.txt").read_text().split()


def test_the_demo_starts_from_the_tower_that_is_shipped():
    config = load_config(ROOT / "configs" / "demo" / "emoji.yaml", [
        f"Model.image.weights={ROOT / 'demo_data' / 'icon-tower.safetensors'}",
        f"Model.text.vocabulary={ROOT / 'demo_data' / 'vocabulary.txt'}",
    ])  # fmt: skip
    model = build_dual_encoder(config.Model, 5_518)
    load_initial_weights(model, config.Model)
    shipped = load_file(ROOT / "demo_data" / "icon-tower.safetensors")
    own = {name: value.numpy() for name, value in model.state_dict().items() if name.startswith("image.")}
    assert shipped.keys() == own.keys()
    for name, array in own.items():
        np.testing.assert_array_equal(array, shipped[name])


def test_the_tower_alone_is_kept_of_a_model(script, tmp_path):
    weights = {"image.a": np.ones(2, np.float32), "text.a": np.ones(2, np.float32), "logit_scale": np.ones(1)}
    script.write_tower(tmp_path / "tower.safetensors", weights)
    assert list(load_file(tmp_path / "tower.safetensors")) == ["image.a"]
    assert [path.name for path in tmp_path.iterdir()] == ["tower.safetensors"]


def test_near_twins_are_counted_and_recall_is_given_without_them(tmp_path, monkeypatch, capsys):
    """Of three drawings two are among the icons: one as it is, one brighter, which correlates just as well."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 200, [32, 32, 3], dtype=np.uint8) for _ in range(5)]
    encode = lambda pixels: cv2.imencode(".png", pixels)[1].tobytes()  # noqa: E731

    def members(chosen):
        return [(f"{name}{end}", content) for name, pixels in chosen.items()
                for end, content in ((".png", encode(pixels)), (".txt", f"a {name}".encode()))]  # fmt: skip

    drawn = {"same": images[0], "dark": images[1], "other": images[2]}
    write_tar(tmp_path / "drawings.tar", members(drawn))
    write_tar(tmp_path / "icons.tar", members({"x": images[3], "y": images[0], "z": images[1] + 50}))
    rows = [("image_to_text", name, f"a {name}", rank) for name, rank in (("same", 1), ("dark", 1), ("other", 3))]
    lines = ["result,direction,query_id,query,rank", *(",".join(["m", *map(str, row)]) for row in rows)]
    (tmp_path / "ranks.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(ROOT / "demo_data"))
    files = ["--icons", tmp_path / "icons.tar", "--data", tmp_path / "drawings.tar", "--ranks", tmp_path / "ranks.csv"]
    monkeypatch.setattr(sys, "argv", ["near_twins.py", *map(str, files)])
    importlib.import_module("near_twins").main()
    count, everything, without = capsys.readouterr().out.splitlines()
    assert count == "2 of 3 drawings have a near-twin among 3 icons"
    assert "(3 queries)" in everything and everything.endswith("R@1 66.67  R@5 100.00  R@10 100.00")
    assert "(1 queries)" in without and without.endswith("R@1  0.00  R@5 100.00  R@10 100.00")
