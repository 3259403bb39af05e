"""The image tower of the demo is pretrained on no style of the demo, and its weights fit the demo's model."""

import json
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from ernie_vil2.config import load_config
from ernie_vil2.models import build_dual_encoder
from ernie_vil2.models.weights.initial import load_initial_weights
from tests.support.paths import DEMO_DATA, ROOT, import_demo_script
from tests.support.shapes import encode_png, read_fields, write_tar
from tests.support.trainings import assert_same_arrays


@pytest.fixture(scope="module")
def script():
    return import_demo_script("icon_tower")


def test_icons_of_other_styles_are_drawn_repeatably(script, monkeypatch, tmp_path):
    icons = tmp_path / "icons"
    icons.mkdir()
    image = encode_png(np.full([8, 8, 3], 255, np.uint8))
    has_colour = {"colours": True, "lines": False, "twemoji": True, "emojione-v1": True, "noto-v1": True}
    for name in has_colour:
        num_icons = 300 if name in ("colours", "lines") else 20
        captions = [f"{name} {number}" for number in range(num_icons)] + ["hand skin-tone"]
        set_icons = []
        for number, caption in enumerate(captions):
            fields = {"caption_en": caption, "tags_en": [], "name": caption}
            set_icons.append(script.Icon(f"{name}--{number}", fields, image))
        script.write_icons(icons / f"{name}.tar", set_icons)
    (icons / "sets.json").write_text(json.dumps({name: {"color": value} for name, value in has_colour.items()}))
    for folder in ("first", "second"):
        monkeypatch.setattr(sys, "argv", ["icon_tower.py", "--icons", str(icons), "--output", str(tmp_path / folder)])
        assert script.main() == 0
    set_names = [fields["name"].split()[0] for fields in read_fields(tmp_path / "first" / "train.tar")]
    assert set(set_names) == {"colours", "lines"}
    assert 220 < set_names.count("colours") < 260 and 30 < set_names.count("lines") < 70
    assert (tmp_path / "first" / "train.tar").read_bytes() == (tmp_path / "second" / "train.tar").read_bytes()
    assert "lines" in (tmp_path / "first" / "vocabulary.txt").read_text().split()


def test_demo_starts_from_the_shipped_tower():
    shipped = DEMO_DATA / "icon-tower.safetensors"
    settings = [f"Model.image.weights={shipped}", f"Model.text.vocabulary={DEMO_DATA / 'vocabulary.txt'}"]
    config = load_config(ROOT / "configs" / "demo" / "emoji.yaml", settings)
    model = build_dual_encoder(config.Model, 5_518)
    load_initial_weights(model, config.Model)
    expected = load_file(shipped)
    arrays = {name: value.numpy() for name, value in model.state_dict().items() if name.startswith("image.")}
    assert_same_arrays(arrays, expected)


def write_images(path, images):
    members = []
    for name, pixels in images.items():
        members += [(f"{name}.png", encode_png(pixels)), (f"{name}.txt", f"a {name}".encode())]
    write_tar(path, members)


def test_recall_is_printed_without_near_twins(tmp_path, monkeypatch, capsys):
    # Two of three drawings are among the icons: "same" unchanged, "dark" brighter, which correlates just as well.
    images = np.random.default_rng(0).integers(0, 200, [4, 32, 32, 3], dtype=np.uint8)
    write_images(tmp_path / "drawings.tar", {"same": images[0], "dark": images[1], "other": images[2]})
    write_images(tmp_path / "icons.tar", {"x": images[3], "y": images[0], "z": images[1] + 50})
    ranks = [f"m,image_to_text,{name},a {name},{rank}" for name, rank in (("same", 1), ("dark", 1), ("other", 3))]
    (tmp_path / "ranks.csv").write_text("\n".join(["result,direction,query_id,query,rank", *ranks]))
    files = ["--icons", tmp_path / "icons.tar", "--data", tmp_path / "drawings.tar", "--ranks", tmp_path / "ranks.csv"]
    monkeypatch.setattr(sys, "argv", ["near_twins.py", *map(str, files)])
    import_demo_script("near_twins").main()
    count_line, all_line, remaining_line = capsys.readouterr().out.splitlines()
    assert count_line.startswith("2 of 3 ")
    assert all_line.endswith("R@1 66.67  R@5 100.00  R@10 100.00")
    assert "(1 queries)" in remaining_line and remaining_line.endswith("R@1  0.00  R@5 100.00  R@10 100.00")
