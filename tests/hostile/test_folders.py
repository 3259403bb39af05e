"""Folders of strangers whose checksums are right and whose content is not: exports and calibrations.

Each value of their files is replaced by others, left out, or nested deeply, and each file by a pipe that nobody writes
to. What comes of it is the answer or one clear error, of the kinds that a command line explains; never a hang.
"""

import copy
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ernie_vil2 import cli as commands
from ernie_vil2 import load_model
from ernie_vil2.io.calibration import CALIBRATION, read_calibration
from ernie_vil2.io.export_folder import CONFIG, EXPORT_INFO, BadExport, read_export
from ernie_vil2.io.files import INTEGRITY, write_integrity
from ernie_vil2.io.run_folder import MODEL
from ernie_vil2.runtime_onnx import OnnxModel, check_outputs
from tests.hostile.bad_input.case import bounded_time
from tests.support.commands import succeed
from tests.support.limits import PATIENCE

SHAPES = Path(__file__).parents[1] / "fixtures" / "shapes"
EXPORTS = ("onnx-float32", "onnx-int8", "paddle-inference-float32")
EXPLAINED = (ValueError, OSError)
MISSING = object()
VALUES = {
    "missing": MISSING, "null": None, "true": True, "text": "x", "list": [], "object": {}, "numbers": [1, 2, 3],
    "negative": -1, "zero": 0, "NaN": math.nan, "digits": 10**400,
}  # fmt: skip
settings.register_profile("folders", suppress_health_check=[HealthCheck.function_scoped_fixture])
few = settings(settings.get_profile("folders"), max_examples=15)


@pytest.fixture(autouse=True)
def no_hang():
    with bounded_time(PATIENCE):
        yield


def paths(tree, prefix=()):
    """The keys that lead to each value of a tree, the whole among them."""
    yield prefix
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield from paths(value, (*prefix, key))


def replaced(tree, path, value):
    if not path:
        return {} if value is MISSING else value
    tree = copy.deepcopy(tree)
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return tree


def nested(depth):
    tree = []
    for _ in range(depth):
        tree = [tree]
    return tree


def damages(tree, values=VALUES):
    """All trees with one other value, each with a name; that of the value itself is left out."""
    for path in paths(tree):
        for name, value in (values | {"deep": nested(400)}).items():
            made = replaced(tree, path, value)
            if made != tree:
                yield f"{'.'.join(map(str, path))} {name}", made


def draw_damage(data, tree, deepest=400):
    path = data.draw(st.sampled_from(list(paths(tree))))
    name = data.draw(st.sampled_from([*VALUES, "deep"]))
    return replaced(tree, path, nested(deepest) if name == "deep" else VALUES[name])


def one_line(error, name):
    text = str(error)
    assert name in text and "\n" not in text and len(text) < 3000, text


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """The folder of an export of each kind."""
    folder = tmp_path_factory.mktemp("exports")
    for kind in EXPORTS:
        target, _, precision = kind.rpartition("-")
        options = ["--to", target, "--precision", precision, "--data", SHAPES / "val.tar"]
        succeed("export", SHAPES / "model", folder / kind, *options)
    return folder


@pytest.fixture
def export(exports, tmp_path):
    """`export(kind)`: a copy of an export of that kind."""
    return lambda kind: Path(shutil.copytree(exports / kind, tmp_path / kind, dirs_exist_ok=True))


def rewrite(folder, name, text):
    (folder / name).write_text(text)
    write_integrity(folder, [path.name for path in folder.iterdir() if path.name not in (INTEGRITY, CALIBRATION)])


def test_another_value_in_an_export_json_is_refused_or_harmless(export):
    folder = export("onnx-float32")
    about, passed = json.loads((folder / EXPORT_INFO).read_text()), []
    for name, damaged in damages(about):
        rewrite(folder, EXPORT_INFO, json.dumps(damaged))
        try:
            passed.append(read_export(folder))
        except BadExport as error:
            one_line(error, str(folder))
            if (key := name.split(" ")[0].split(".")[0]) and damaged != {}:
                assert key in str(error), name  # noqa: PT017  -- there may be no error
    harmless = {"source", "inputs", "outputs", "weights", "image_weights", "embed_dim", "scalars", "preprocessing",
                "tokenizer", "precision"}  # fmt: skip
    for found in passed:
        assert found["backend"] == about["backend"] and 0 < found["scalars"]["logit_scale"] < 1e9
        assert {key for key in {**about, **found} if about.get(key) != found.get(key)} <= harmless


@few
@given(st.data())
def test_an_export_with_other_values_answers_or_says_why(exports, export, data):
    kind = data.draw(st.sampled_from(EXPORTS))
    folder = export(kind)
    name = data.draw(st.sampled_from([EXPORT_INFO, CONFIG, "parity.json"]))
    parse, dump = (yaml.safe_load, yaml.safe_dump) if name == CONFIG else (json.loads, json.dumps)
    tree = parse((exports / kind / name).read_text())
    rewrite(folder, name, dump(draw_damage(data, tree, 40 if name == CONFIG else 400)))
    for load in [load_model, OnnxModel] if kind.startswith("onnx") else [load_model]:
        try:
            model = load(folder)
            found = model.encode_texts(["a red disc"])
            assert np.isfinite(found).all() and np.isfinite(found * model.logit_scale).all()
            pixels = np.zeros((40, 40, 3), np.uint8)
            assert np.isfinite(model.encode_images([pixels])).all()
        except EXPLAINED as error:
            one_line(error, str(folder))


@pytest.mark.parametrize(("section", "key", "value"), [
    ("preprocessing", "background", [0, 0, 0]), ("tokenizer", "max_length", 12), ("tokenizer", "rules", "paddlenlp"),
])  # fmt: skip
def test_preprocessing_of_another_configuration_is_refused(export, section, key, value):
    folder = export("onnx-float32")
    about = json.loads((folder / EXPORT_INFO).read_text())
    about[section][key] = value
    rewrite(folder, EXPORT_INFO, json.dumps(about))
    with pytest.raises(BadExport, match=f"{section}.{key}"):
        load_model(folder)


@pytest.mark.parametrize("sums", [
    "[[]]", "[" * 100_000, '{"a": 1, "a": 1}', '{"../x": {"bytes": 1, "sha256": ""}}',
    *(json.dumps({EXPORT_INFO: {"bytes": value, "sha256": value}}) for value in [None, math.inf, 10**400]),
], ids=lambda text: text[:20])  # fmt: skip
def test_integrity_files_of_another_form_are_refused(export, sums):
    folder = export("onnx-float32")
    (folder / INTEGRITY).write_text(f'{{"version": 1, "files": {sums}, "conventions": null, "golden": null}}')
    with pytest.raises(BadExport, match=INTEGRITY) as caught:
        read_export(folder)
    one_line(caught.value, str(folder))


def with_constants(folder, value):
    """The text graph with another value for all that it has learnt."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(folder / "text.onnx")
    for weight in graph.graph.initializer:
        array = onnx.numpy_helper.to_array(weight)
        if array.dtype == np.float32 and array.ndim > 1:
            weight.CopyFrom(onnx.numpy_helper.from_array(np.full_like(array, value), weight.name))
    onnx.save(graph, folder / "text.onnx")
    rewrite(folder, EXPORT_INFO, (folder / EXPORT_INFO).read_text())


def test_graphs_that_give_nan_or_do_not_fit_are_refused(export):
    folder = export("onnx-float32")
    with_constants(folder, math.nan)
    for load in (load_model, OnnxModel):
        with pytest.raises(BadExport, match="the text tower's graph .* not finite") as caught:
            load(folder).encode_texts(["a red disc"])
        one_line(caught.value, str(folder))
    (folder / "text.onnx").write_bytes((folder / "image.onnx").read_bytes())
    rewrite(folder, EXPORT_INFO, (folder / EXPORT_INFO).read_text())
    with pytest.raises(BadExport, match="the text tower's graph does not run"):
        OnnxModel(folder).encode_texts(["a red disc"])
    folder = export("onnx-int8")
    about = json.loads((folder / EXPORT_INFO).read_text())
    rewrite(folder, EXPORT_INFO, json.dumps(about | {"embed_dim": 17}))
    for load in (load_model, OnnxModel):
        with pytest.raises(BadExport, match=r"the text tower's graph .* \[1, 16\], not float32 \[1, 17\]"):
            load(folder).encode_texts(["a red disc"])


@pytest.mark.parametrize("row", [[math.inf, 0], [0, 0], [0.9, 0]])
def test_only_finite_embeddings_of_unit_length_pass(row):
    good = np.array([[0.6, 0.8], [1, 0]], np.float32)
    assert (check_outputs(lambda rows: good, "x", 2)(good) == good).all()
    with pytest.raises(BadExport, match="not finite or not of length 1"):
        check_outputs(lambda rows: np.array([[1, 0], row], np.float32), "x", 2)(good)


def test_a_calibration_with_another_value_is_damaged(tmp_path):
    record = json.loads((SHAPES / "model" / CALIBRATION).read_text())
    path = tmp_path / CALIBRATION
    for name, damaged in damages(record):
        path.write_text(json.dumps(damaged))
        try:
            found = read_calibration(tmp_path, record["fingerprint"])
        except ValueError as error:
            one_line(error, str(path))
        else:
            assert found is None or found.describe("image_to_text"), name
            assert name.split(".")[0].split(" ")[0] in ("fingerprint", "data", "date") or found is not None
            assert found is None or all(math.isfinite(one.cosine) and 0 <= one.recall <= 100
                                        for one in found.thresholds.values())  # fmt: skip


def pipes_instead(folder):
    """Each file in its turn as a pipe that nobody writes to."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        yield path
        path.unlink()
        path.write_bytes(content)


@pytest.mark.parametrize("kind", ["onnx-float32", "paddle-inference-float32"])
def test_a_pipe_in_an_export_is_not_waited_for(export, kind):
    folder = export(kind)
    for path in pipes_instead(folder):
        with pytest.raises(EXPLAINED) as caught:
            load_model(folder)
        one_line(caught.value, str(folder))
        assert path.name in commands.format_error(caught.value) or path.name == EXPORT_INFO


def test_a_pipe_in_a_checkpoint_is_not_waited_for(tmp_path):
    folder = Path(shutil.copytree(SHAPES / "model", tmp_path / "model"))
    for path in pipes_instead(folder):
        if path.name in (MODEL, CONFIG, INTEGRITY):
            with pytest.raises(EXPLAINED) as caught:
                load_model(folder)
            assert str(folder) in commands.format_error(caught.value)
