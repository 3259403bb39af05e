"""A detector whose weights are known, on drawn rectangles and on photographs."""

import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import sklearn

from ernie_vil2.apps.tagging.detector import Detections, Detector, DetectorPreprocessing, Phrases
from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.tags import TagsFile
from tests.support.paths import ROOT
from tests.support.processes import run_process
from tests.support.rectangles import SIZE, STEPS, draw_rectangles, export_detector
from tests.support.shapes import encode_png, write_tsv

PHOTOGRAPHS = Path(sklearn.__file__).parent / "datasets" / "images"
RED, BLUE = ("red", 10, 20, 60, 35), ("blue", 70, 5, 80, 45)
NORMALISED = STEPS[1:]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = export_detector(tmp_path_factory.mktemp("detector"))
    for name, text in (("classes_zh", "横条 方块"), ("colours_en", "red green blue"), ("colours_zh", "红色 绿色 蓝色")):
        (folder / f"{name}.txt").write_text(text.replace(" ", "\n"), encoding="utf-8")
    return folder


def test_boxes_are_where_the_rectangles_are(exported):
    detector = Detector(exported, "cpu", attributes=3)
    given = [
        draw_rectangles(50, 100, [RED, BLUE]),
        draw_rectangles(50, 100, []),
        draw_rectangles(90, 40, [("green", 0, 30, 40, 90)]),
    ]
    two, none, one = detector([detector.preprocess(image, "x") for image in given])
    pixel = np.array([100 / SIZE, 50 / SIZE] * 2)
    assert (np.abs(two.boxes - [RED[1:], BLUE[1:]]) <= pixel).all()
    assert two.classes.tolist() == [0, 1] and two.scores.tolist() == [1, 1]
    assert two.attributes.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert len(none.classes) == 0 and none.attributes.shape == (0, 3)
    assert (np.abs(one.boxes - [[0, 30, 40, 90]]) <= np.array([40 / SIZE, 90 / SIZE] * 2)).all()
    assert one.classes.tolist() == [1]


def test_an_integer_scale_gives_the_very_boxes(tmp_path):
    """Twice as large, padded to 128 x 224; another image in the batch has another size."""
    steps = [{"type": "Resize", "target_size": [100, 200], "keep_ratio": True, "interp": 0}, *NORMALISED,
             {"type": "PadStride", "stride": 32}]  # fmt: skip
    detector = Detector(export_detector(tmp_path, steps), "cpu")
    given = [detector.preprocess(draw_rectangles(*size, [RED]), "x") for size in ((50, 100), (50, 70), (50, 100))]
    assert given[0].image.shape == (3, 128, 224) and given[0].im_shape.tolist() == [100, 200]
    for found in detector(given):
        np.testing.assert_array_equal(found.boxes, [RED[1:]])


def test_preprocessing_against_opencv_and_numpy():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    steps = [
        {"type": "Resize", "target_size": [32, 45], "keep_ratio": True, "interp": 2},
        {"type": "NormalizeImage", "mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3], "is_scale": True},
        {"type": "Permute"},
        {"type": "PadStride", "stride": 16},
    ]
    made = DetectorPreprocessing(steps, "x")(image, "x")
    # The short side at 32 would make the long one 48, more than 45: the long side decides.
    resized = cv2.resize(image, (45, 30), interpolation=cv2.INTER_CUBIC)
    expected = np.zeros((3, 32, 48))
    expected[:, :30, :45] = ((resized / 255 - [0.4, 0.5, 0.6]) / [0.1, 0.2, 0.3]).transpose(2, 0, 1)
    np.testing.assert_allclose(made.image, expected, atol=1e-5)
    assert made.im_shape.tolist() == [30, 45] and made.scale_factor.tolist() == [0.75, 0.75]

    padded = DetectorPreprocessing([{"type": "Pad", "size": [50, 64], "fill_value": [1, 2, 3]}], "x")(image, "x").image
    np.testing.assert_array_equal(padded[:40, :60], image)
    assert (padded[40:] == [1, 2, 3]).all() and (padded[:, 60:] == [1, 2, 3]).all() and padded.shape == (50, 64, 3)


def test_an_image_of_which_nothing_would_be_left_is_a_bad_sample():
    resize = DetectorPreprocessing([{"type": "Resize", "target_size": 64, "keep_ratio": True}], "x")
    with pytest.raises(BadSample, match="thin: too narrow an image"):
        resize(np.zeros((5000, 1, 3), np.uint8), "thin")


def test_unknown_preprocessing_is_an_error():
    for step, culprit in (({"type": "WarpAffine"}, "infer_cfg.yml: .*WarpAffine"),
                          ({"type": "Resize", "target_size": 3, "mode": 1}, "'mode'")):  # fmt: skip
        with pytest.raises(ValueError, match=culprit):
            DetectorPreprocessing([step], "infer_cfg.yml")


def found(*rows):
    """Detections of rows (class, score, scores of attributes)."""
    classes, scores, attributes = zip(*rows, strict=True)
    return Detections(np.array(classes), np.array(scores), np.zeros((len(rows), 4)), np.array(attributes))


def test_phrases_by_hand():
    phrases = Phrases(
        {"en": ["car", "tree", ""], "zh": ["汽车", "树", ""]}, {"en": ["red", "tall"], "zh": ["红色", ""]}, 0.3, 0.6
    )
    objects = found((1, 0.5, [0.1, 0.9]), (0, 0.9, [0.7, 0.6]), (0, 0.4, [0.8, 0.0]), (0, 0.3, [0.59, 0.5]),
                    (2, 0.8, [0.9, 0.1]), (1, 0.29, [0.9, 0.1]))  # fmt: skip
    assert phrases(objects) == {"en": ("red car", "tall tree", "car"), "zh": ("红色汽车", "树", "汽车")}
    with pytest.raises(ValueError, match="class 3"):
        phrases(found((3, 0.1, [0, 0])))


def test_names_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="{'en': 1, 'zh': 2}"):
        Phrases({"en": ["a"], "zh": ["甲", "乙"]}, {})
    with pytest.raises(ValueError, match="attributes in zh"):
        Phrases({"en": ["a"]}, {"zh": ["红"]})


def tag(run_tool, exported, data, output, *options):
    return run_tool("detector", data, "--model", exported, "--classes", "en", f"zh={exported / 'classes_zh.txt'}",
                    "--device", "cpu", "--output", output, *options)  # fmt: skip


def with_colours(exported):
    return "--attributes", f"en={exported / 'colours_en.txt'}", f"zh={exported / 'colours_zh.txt'}"


@pytest.fixture
def data(tmp_path):
    """Rows of rectangles, and of a photograph without and with a bar."""
    photograph = (PHOTOGRAPHS / "flower.jpg").read_bytes()
    flower = decode_image(photograph, "flower")
    flower[300:420, 100:500] = (0, 255, 0)
    rows = [
        ("two", "two", encode_png(draw_rectangles(50, 100, [RED, BLUE]))),
        ("none", "none", encode_png(draw_rectangles(50, 100, []))),
        ("broken", "broken", b"GIF89a"),
        ("two again", "two", encode_png(draw_rectangles(50, 100, [RED, BLUE]))),
        ("faint", "faint", encode_png(draw_rectangles(50, 100, [((150, 10, 0), 10, 20, 60, 35)]))),
        ("flower", "flower", photograph),
        ("bar", "flower with a bar", encode_png(flower)),
    ]
    return write_tsv(tmp_path / "a.tsv", rows)


def test_images_and_photographs_get_phrases(run_tool, exported, data, tmp_path, capsys):
    tags = tmp_path / "tags.jsonl"
    assert tag(run_tool, exported, data, tags, *with_colours(exported), "--threshold", "0.52", "--batch-size", 3) == 0
    file = TagsFile(tags)
    assert file["two"] == {"en": ("red bar", "blue block"), "zh": ("红色横条", "蓝色方块")}
    assert file["faint"] == {"en": ("red bar",), "zh": ("红色横条",)}
    assert file["none"] == file["broken"] == {}
    assert "broken image: 1 (broken)" in capsys.readouterr().out
    assert "green bar" in file["flower with a bar"]["en"]

    assert tag(run_tool, exported, data, tmp_path / "plain.jsonl") == 0  # without attributes
    assert TagsFile(tmp_path / "plain.jsonl")["two"] == {"en": ("bar", "block"), "zh": ("横条", "方块")}


def test_what_does_not_fit_the_detector_is_explained(run_tool, exported, data, tmp_path, capsys):
    (tmp_path / "one.txt").write_text("red\n")
    broken = shutil.copytree(exported, tmp_path / "broken")
    (broken / "model.pdiparams").unlink()
    for options, culprit in (
        (("--attributes", f"en={tmp_path / 'one.txt'}", "--batch-size", 2), "2 rows of 1 attributes"),
        (("--model", broken), "model.pdiparams"),
    ):
        assert tag(run_tool, exported, data, tmp_path / "tags.jsonl", *options) == 2
        assert culprit in capsys.readouterr().err


def test_a_program_of_paddle_2_finds_the_same(exported, tmp_path):
    """`.pdmodel`, written by a process of its own, as the format is chosen before Paddle is imported."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FLAGS_enable_pir_api": "0"}
    command = [sys.executable, "-m", "tests.support.rectangles", str(tmp_path), "inference"]
    done = run_process(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    old, new = Detector(tmp_path, "cpu", 3), Detector(exported, "cpu", 3)
    assert old.files[0].name == "inference.pdmodel" and new.files[0].name == "model.json"
    image = draw_rectangles(50, 100, [RED, BLUE])
    for one, other in zip(old([old.preprocess(image, "x")])[0], new([new.preprocess(image, "x")])[0], strict=True):
        np.testing.assert_array_equal(one, other)
