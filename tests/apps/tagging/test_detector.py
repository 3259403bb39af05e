"""Tags of a detector of coloured rectangles, whose answers are known, on drawn images and on photographs."""

import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import sklearn
import yaml

from ernie_vil2.apps.tagging.detector import Detections, Detector, DetectorPreprocessing, Phrases
from ernie_vil2.apps.tagging.taggers import read_names
from ernie_vil2.data.decoding import decode_image
from ernie_vil2.data.samples import BadSample
from ernie_vil2.data.tags import TagsFile
from tests.support.paths import ROOT
from tests.support.processes import run_process
from tests.support.rectangles import SIZE, STEPS, draw_rectangles, export_detector
from tests.support.shapes import encode_png, write_tsv

PHOTOGRAPHS = Path(sklearn.__file__).parent / "datasets" / "images"
RED, BLUE = ("red", 10, 20, 60, 35), ("blue", 70, 5, 80, 45)
NORMALISATION = STEPS[1:]


@pytest.fixture(scope="module")
def detector_folder(tmp_path_factory):
    folder = export_detector(tmp_path_factory.mktemp("detector"))
    for name, text in (("classes_zh", "横条 方块"), ("colours_en", "red green blue"), ("colours_zh", "红色 绿色 蓝色")):
        (folder / f"{name}.txt").write_text(text.replace(" ", "\n"), encoding="utf-8")
    return folder


def test_boxes_match_the_rectangles(detector_folder):
    detector = Detector(detector_folder, "cpu", attributes=3)
    images = [
        draw_rectangles(50, 100, [RED, BLUE]),
        draw_rectangles(50, 100, []),
        draw_rectangles(90, 40, [("green", 0, 30, 40, 90)]),
    ]
    bar_and_block, nothing, green_block = detector([detector.preprocess(image, "x") for image in images])
    # The detector sees 64 x 64 pixels: a pixel of its own is that large in the image.
    tolerance = np.array([100 / SIZE, 50 / SIZE] * 2)
    assert (np.abs(bar_and_block.boxes - [RED[1:], BLUE[1:]]) <= tolerance).all()
    assert bar_and_block.classes.tolist() == [0, 1] and bar_and_block.scores.tolist() == [1, 1]
    assert bar_and_block.attributes.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert len(nothing.classes) == 0 and nothing.attributes.shape == (0, 3)
    assert (np.abs(green_block.boxes - [[0, 30, 40, 90]]) <= np.array([40 / SIZE, 90 / SIZE] * 2)).all()
    assert green_block.classes.tolist() == [1]


def test_integer_scale_gives_exact_boxes(tmp_path):
    # Images are enlarged twice and padded to 128 x 224. The second image of the batch has another size.
    steps = [{"type": "Resize", "target_size": [100, 200], "keep_ratio": True, "interp": 0}, *NORMALISATION,
             {"type": "PadStride", "stride": 32}]  # fmt: skip
    detector = Detector(export_detector(tmp_path, steps), "cpu")
    inputs = [detector.preprocess(draw_rectangles(*size, [RED]), "x") for size in ((50, 100), (50, 70), (50, 100))]
    assert inputs[0].image.shape == (3, 128, 224) and inputs[0].im_shape.tolist() == [100, 200]
    for detections in detector(inputs):
        np.testing.assert_array_equal(detections.boxes, [RED[1:]])


def test_preprocessing_agrees_with_opencv_and_numpy():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    steps = [
        {"type": "Resize", "target_size": [32, 45], "keep_ratio": True, "interp": 2},
        {"type": "NormalizeImage", "mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3], "is_scale": True},
        {"type": "Permute"},
        {"type": "PadStride", "stride": 16},
    ]
    actual = DetectorPreprocessing(steps, "x")(image, "x")
    # A short side of 32 would make the long side 48, more than 45: the long side decides.
    resized = cv2.resize(image, (45, 30), interpolation=cv2.INTER_CUBIC)
    expected = np.zeros((3, 32, 48))
    expected[:, :30, :45] = ((resized / 255 - [0.4, 0.5, 0.6]) / [0.1, 0.2, 0.3]).transpose(2, 0, 1)
    np.testing.assert_allclose(actual.image, expected, atol=1e-5)
    assert actual.im_shape.tolist() == [30, 45] and actual.scale_factor.tolist() == [0.75, 0.75]

    padded = DetectorPreprocessing([{"type": "Pad", "size": [50, 64], "fill_value": [1, 2, 3]}], "x")(image, "x").image
    np.testing.assert_array_equal(padded[:40, :60], image)
    assert (padded[40:] == [1, 2, 3]).all() and (padded[:, 60:] == [1, 2, 3]).all() and padded.shape == (50, 64, 3)


def test_image_that_would_become_empty_is_a_bad_sample():
    resize = DetectorPreprocessing([{"type": "Resize", "target_size": 64, "keep_ratio": True}], "x")
    with pytest.raises(BadSample, match="thin: too narrow an image"):
        resize(np.zeros((5000, 1, 3), np.uint8), "thin")


def test_unknown_preprocessing_is_refused():
    for step, culprit in (({"type": "WarpAffine"}, "infer_cfg.yml: .*WarpAffine"),
                          ({"type": "Resize", "target_size": 3, "mode": 1}, "'mode'")):  # fmt: skip
        with pytest.raises(ValueError, match=culprit):
            DetectorPreprocessing([step], "infer_cfg.yml")


@pytest.mark.parametrize("steps", [
    ["Resize"],
    [{"type": ["Resize"]}],
    [{"type": "Resize", "target_size": "640"}],
    [{"type": "Resize", "target_size": []}],
    [{"type": "Resize", "target_size": 0}],
    [{"type": "Resize", "target_size": [64, 64], "interp": 99}],
    [{"type": "NormalizeImage", "mean": [0.5, 0.5], "std": [1, 1]}],
    [{"type": "NormalizeImage", "mean": None, "std": [1, 1, 1]}],
    [{"type": "NormalizeImage", "mean": [0, 0, 0], "std": [0, 0, 0]}],
    [{"type": "PadStride", "stride": "32"}],
    [{"type": "Resize", "target_size": [100_000, 16], "keep_ratio": False}],
    [{"type": "Pad", "size": [16, 100_000]}],
    [{"type": "Permute"}, {"type": "PadStride", "stride": 20_000}],
])  # fmt: skip
def test_step_with_which_no_image_can_be_used_is_refused(steps):
    with pytest.raises(ValueError, match="^infer_cfg.yml: "):
        DetectorPreprocessing(steps, "infer_cfg.yml")


def test_image_larger_than_its_padding_is_named():
    pad = DetectorPreprocessing([{"type": "Pad", "size": [40, 30]}], "infer_cfg.yml")
    assert pad(np.zeros((40, 30, 3), np.uint8), "fits").image.shape == (40, 30, 3)
    with pytest.raises(ValueError, match="infer_cfg.yml: large: "):
        pad(np.zeros((40, 31, 3), np.uint8), "large")


def test_classes_may_be_words_that_yaml_reads_as_booleans(detector_folder, tmp_path):
    folder = shutil.copytree(detector_folder, tmp_path / "detector")
    config = yaml.safe_load((folder / "infer_cfg.yml").read_text())
    del config["label_list"]
    (folder / "infer_cfg.yml").write_text(f"{yaml.safe_dump(config)}label_list: [no, On, 3]\n")
    detector = Detector(folder, "cpu")
    assert detector.label_list == ["no", "On", "3"]
    # keep_ratio remains false: the image is not square.
    assert detector.preprocess(draw_rectangles(50, 100, [RED]), "x").image.shape == (3, SIZE, SIZE)


@pytest.mark.parametrize("labels", ["person", 3])
def test_list_of_classes_that_is_no_list_is_refused(detector_folder, tmp_path, labels):
    folder = shutil.copytree(detector_folder, tmp_path / "detector")
    config = yaml.safe_load((folder / "infer_cfg.yml").read_text())
    (folder / "infer_cfg.yml").write_text(yaml.safe_dump({**config, "label_list": labels}))
    with pytest.raises(ValueError, match=f"infer_cfg.yml: .*{labels}"):
        Detector(folder, "cpu")


def make_detections(*rows):
    """Return detections of rows (class, score, scores of attributes)."""
    classes, scores, attributes = zip(*rows, strict=True)
    return Detections(np.array(classes), np.array(scores), np.zeros((len(rows), 4)), np.array(attributes))


def test_phrases_name_classes_and_attributes():
    phrases = Phrases(
        {"en": ["car", "tree", ""], "zh": ["汽车", "树", ""]}, {"en": ["red", "tall"], "zh": ["红色", ""]}, 0.3, 0.6
    )
    objects = make_detections((1, 0.5, [0.1, 0.9]), (0, 0.9, [0.7, 0.6]), (0, 0.4, [0.8, 0.0]), (0, 0.3, [0.59, 0.5]),
                    (2, 0.8, [0.9, 0.1]), (1, 0.29, [0.9, 0.1]))  # fmt: skip
    # Objects from a score of 0.3 with the attribute of the best score, from 0.6; the third class has no name.
    assert phrases(objects) == {"en": ("red car", "tall tree", "car"), "zh": ("红色汽车", "树", "汽车")}
    with pytest.raises(ValueError, match="class 3"):
        phrases(make_detections((3, 0.1, [0, 0])))


def test_names_end_with_the_last_line_that_is_not_blank(tmp_path):
    (tmp_path / "names.txt").write_text("\n red  car \n\nbus\n \t\n\n")
    assert read_names(tmp_path / "names.txt") == ["", "red car", "", "bus"]


def test_names_of_unequal_number_are_refused():
    with pytest.raises(ValueError, match="{'en': 1, 'zh': 2}"):
        Phrases({"en": ["a"], "zh": ["甲", "乙"]}, {})
    with pytest.raises(ValueError, match="attributes in zh"):
        Phrases({"en": ["a"]}, {"zh": ["红"]})


def run_detector(run_tool, detector_folder, data, output, *options):
    classes = ["--classes", "en", f"zh={detector_folder / 'classes_zh.txt'}"]
    files = ["--model", detector_folder, *classes, "--output", output]
    return run_tool("detector", data, *files, "--device", "cpu", *options)


def colour_options(detector_folder):
    return "--attributes", f"en={detector_folder / 'colours_en.txt'}", f"zh={detector_folder / 'colours_zh.txt'}"


@pytest.fixture
def data(tmp_path):
    """Write rows of drawn rectangles, and of a photograph without and with a green bar."""
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


def test_drawings_and_photographs_get_phrases(run_tool, detector_folder, data, tmp_path, capsys):
    tags = tmp_path / "tags.jsonl"
    options = [*colour_options(detector_folder), "--threshold", "0.52", "--batch-size", 3]
    assert run_detector(run_tool, detector_folder, data, tags, *options) == 0
    file = TagsFile(tags)
    assert file["two"] == {"en": ("red bar", "blue block"), "zh": ("红色横条", "蓝色方块")}
    assert file["faint"] == {"en": ("red bar",), "zh": ("红色横条",)}
    assert file["none"] == file["broken"] == {}
    assert "broken image: 1 (broken)" in capsys.readouterr().out
    assert "green bar" in file["flower with a bar"]["en"]

    assert run_detector(run_tool, detector_folder, data, tmp_path / "plain.jsonl") == 0  # without attributes
    assert TagsFile(tmp_path / "plain.jsonl")["two"] == {"en": ("bar", "block"), "zh": ("横条", "方块")}


def test_attributes_or_files_that_do_not_fit_are_named(run_tool, detector_folder, data, tmp_path, capsys):
    (tmp_path / "one.txt").write_text("red\n")
    broken = shutil.copytree(detector_folder, tmp_path / "broken")
    (broken / "model.pdiparams").unlink()
    for options, culprit in (
        (("--attributes", f"en={tmp_path / 'one.txt'}", "--batch-size", 2), "2 rows of 1 attributes"),
        (("--model", broken), "model.pdiparams"),
    ):
        assert run_detector(run_tool, detector_folder, data, tmp_path / "tags.jsonl", *options) == 2
        assert culprit in capsys.readouterr().err


def test_detector_of_paddle_2_gives_equal_detections(detector_folder, tmp_path):
    # A separate process writes the `.pdmodel`, because the format is chosen when Paddle is imported.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FLAGS_enable_pir_api": "0"}
    command = [sys.executable, "-m", "tests.support.rectangles", str(tmp_path), "inference"]
    result = run_process(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    old, new = Detector(tmp_path, "cpu", 3), Detector(detector_folder, "cpu", 3)
    assert old.files[0].name == "inference.pdmodel" and new.files[0].name == "model.json"
    image = draw_rectangles(50, 100, [RED, BLUE])
    old_detections = old([old.preprocess(image, "x")])[0]
    new_detections = new([new.preprocess(image, "x")])[0]
    for actual, expected in zip(old_detections, new_detections, strict=True):
        np.testing.assert_array_equal(actual, expected)
