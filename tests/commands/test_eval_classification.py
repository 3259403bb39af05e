"""The eval-classification command writes the scores of a model on classes of images."""

import csv
import json

import numpy as np
import pytest

from ernie_vil2 import cli as commands
from ernie_vil2 import load_model
from ernie_vil2.io.calibration import DIRECTIONS, Calibration, Threshold, write_calibration
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.html_pages import Page
from tests.support.published_files import make_image, write_files
from tests.support.shapes import COLOURS, SHAPES, SPECIAL_TOKENS, draw, encode_png

TOKENS = [*SPECIAL_TOKENS, "a", *COLOURS, *SHAPES, *"红绿蓝黄色圆方块条十字"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_untrained_checkpoint(tmp_path_factory.mktemp("model"), TOKENS)


@pytest.fixture
def data(tmp_path):
    """Return four classes in the layout of Chinese-CLIP, each with three test images and five training images."""
    files = {"label_cn.txt": "".join(f"{SHAPES[shape]}\n" for shape in sorted(SHAPES))}
    for row, shape in enumerate(sorted(SHAPES)):
        for copy, (rgb, _) in enumerate(list(COLOURS.values()) * 2):
            split = "test" if copy < 3 else "train"
            files[f"{split}/{row}/{copy}.png"] = encode_png(draw(rgb, shape, np.random.default_rng([row, copy])))
    return write_files(tmp_path / "shapes", files)


def evaluate(*arguments):
    return commands.run("eval_classification", [*map(str, arguments), "--device", "cpu"])


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_chinese_clip_layout_is_scored_and_shown_on_a_page(tmp_path, model, data, capsys):
    out, figures = tmp_path / "out", tmp_path / "figures.json"
    (data / "test" / "2" / "broken.png").write_bytes(b"broken")
    assert evaluate("--checkpoint", model, "--data", data, "--linear-probe", "--output", out, "--json", figures) == 0
    printed = capsys.readouterr().out
    assert "12 images, 4 classes" in printed and "20 training images" in printed
    (stem,) = {path.stem for path in out.glob("*.json")}
    record = read_json(out / f"{stem}.json")
    assert record == read_json(figures)
    assert [entry["names"] for entry in record["classes"]] == [{"zh": SHAPES[shape]} for shape in sorted(SHAPES)]
    assert record["encoded"]["reasons"] == {"broken image": {"count": 1, "names": ["2/broken.png"]}}

    rows = list(csv.DictReader((out / f"{stem}.csv").open(encoding="utf-8", newline="")))
    assert len(rows) == 24
    for result, metrics in record["results"].items():
        # Compute the metrics from the rows of the CSV.
        hits_by_class = {str(label): [] for label in range(4)}
        for row in rows:
            if row["result"] == result:
                is_right = row["right"] == "1"
                assert (row["rank"] == "1") == (row["answer"] == row["labels"]) == is_right
                hits_by_class[row["labels"]].append(is_right)
        recalls = [100 * np.mean(hits) for hits in hits_by_class.values()]
        assert metrics["acc1"] == pytest.approx(100 * np.mean(np.concatenate([*hits_by_class.values()])))
        assert metrics["mean_per_class_recall"] == pytest.approx(np.mean(recalls))
        assert [entry["percent"][result] for entry in record["classes"]] == pytest.approx(recalls)

    page = Page((out / f"{stem}.html").read_text(encoding="utf-8"))
    assert page.find_all("script") == [] and page.find_all("img")


def test_command_and_python_give_the_same_scores(tmp_path, model, data):
    out = tmp_path / "out"
    (tmp_path / "t.txt").write_text("{}\na {c}\n")
    templates = f"zh={tmp_path / 't.txt'}"
    assert evaluate("--checkpoint", model, "--data", data, "--templates", templates, "--output", out) == 0
    (path,) = out.glob("*.csv")
    loaded = load_model(model)
    names = [SHAPES[shape] for shape in sorted(SHAPES)]
    classes = loaded.encode_texts(names) + loaded.encode_texts([f"a {name}" for name in names])
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    for row in csv.DictReader(path.open(encoding="utf-8", newline="")):
        cosines = loaded.encode_images([data / "test" / row["image_id"]])[0] @ classes.T
        assert float(row["score"]) == pytest.approx(cosines.max(), abs=1e-5)
        weights = np.exp(loaded.logit_scale * cosines)
        assert float(row["probability"]) == pytest.approx((weights / weights.sum()).max(), abs=1e-4)


def test_images_of_several_classes_are_scored_by_map(tmp_path, model, shapes):
    out = tmp_path / "out"
    probe = ("--linear-probe", shapes["train"])
    assert evaluate("--checkpoint", model, "--data", shapes["val"], "--label", "tags_en", "--output", out, *probe) == 0
    (path,) = out.glob("*.json")
    record = read_json(path)
    assert set(record["results"]["linear probe"]) == {"mAP"} and record["chance"] == {}
    assert record["results"]["linear probe"]["mAP"] > record["results"]["zero-shot, en"]["mAP"]


def test_broken_image_of_several_classes_keeps_map(tmp_path, model):
    images = {"disc.png": make_image(1), "both.png": b"broken"}
    table = "image,label\ndisc.png,disc\nboth.png,disc|square\n"
    data = write_files(tmp_path / "data", {"labels.csv": table, **images}) / "labels.csv"
    assert evaluate("--checkpoint", model, "--data", data, "--output", tmp_path / "out") == 0
    (path,) = (tmp_path / "out").glob("*.json")
    assert read_json(path)["results"] == {"zero-shot, en": {"mAP": 100}}


def test_calibration_sets_threshold_and_probabilities(tmp_path, data, capsys):
    checkpoint = write_untrained_checkpoint(tmp_path / "model", TOKENS)
    arguments = ("--checkpoint", checkpoint, "--data", data, "--output", tmp_path / "out")
    assert evaluate(*arguments, "--threshold", "calibrated") == 2
    assert "tools/calibrate.py" in capsys.readouterr().err
    assert evaluate(*arguments, "--threshold", "-1") == 0
    assert "answered 100.0 %" in capsys.readouterr().out

    thresholds = {direction: Threshold(1.01, 90.0, 80.0, 70.0) for direction in DIRECTIONS}
    write_calibration(Calibration(load_model(checkpoint).fingerprint, "val.tar", 3.0, thresholds), checkpoint)
    assert evaluate(*arguments) == 0
    assert "cosines of 1.010 or more: answered 0.0 %" in capsys.readouterr().out
    (path,) = (tmp_path / "out").glob("*.csv")
    probabilities = [float(row["probability"]) for row in csv.DictReader(path.open(encoding="utf-8", newline=""))]
    # Softmax of four classes: cosines differ by at most 2, and the calibration multiplies them by 3.
    assert max(probabilities) < 1 / (1 + 3 * np.exp(-6)) + 1e-6


def test_check_finds_broken_and_repeated_images(tmp_path, data, capsys):
    assert evaluate("--check", "--data", data) == 0
    (data / "test" / "3" / "broken.png").write_bytes(b"broken")
    for folder in ("2", "3"):
        (data / "test" / folder / "again.png").write_bytes((data / "test" / "2" / "0.png").read_bytes())
    assert evaluate("--check", "--data", data) == 1
    printed = capsys.readouterr().out
    for reason in ("broken image: 1 (3/broken.png)", "2/again.png as 2/0.png", "3/again.png as 2/0.png"):
        assert reason in printed
