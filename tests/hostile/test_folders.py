"""Exports and calibrations with wrong content and valid checksums, as a stranger can make them.

Every value of their files is replaced by others, left out or nested deeply, and every file is replaced by a pipe that
no process writes to. Loading gives a model that answers, or one error that a command can explain. It never hangs.
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
EXPLAINED_ERRORS = (ValueError, OSError)  # that commands print in one line
MISSING = object()
VALUES = {
    "missing": MISSING, "null": None, "true": True, "text": "x", "list": [], "object": {}, "numbers": [1, 2, 3],
    "negative": -1, "zero": 0, "NaN": math.nan, "digits": 10**400,
}  # fmt: skip
settings.register_profile("folders", suppress_health_check=[HealthCheck.function_scoped_fixture])
few_examples = settings(settings.get_profile("folders"), max_examples=15)


@pytest.fixture(autouse=True)
def no_hang():
    with bounded_time(PATIENCE):
        yield


def list_paths(tree, prefix=()):
    """Yield the keys that lead to every value of a tree of dictionaries and lists, and to the tree itself."""
    yield prefix
    items = ()
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list):
        items = enumerate(tree)
    for key, value in items:
        yield from list_paths(value, (*prefix, key))


def replace_value(tree, path, value):
    """Return a copy of a tree with another value at a path, or without it if the value is MISSING."""
    if not path:
        return {} if value is MISSING else value
    tree = copy.deepcopy(tree)
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    if value is MISSING:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return tree


def nest_lists(depth):
    tree = []
    for _ in range(depth):
        tree = [tree]
    return tree


def list_damages(tree, values=VALUES):
    """Yield a name and a tree for every replacement of a value of the tree that changes it."""
    for path in list_paths(tree):
        for name, value in (values | {"deep": nest_lists(400)}).items():
            damaged_tree = replace_value(tree, path, value)
            if damaged_tree != tree:
                yield f"{'.'.join(map(str, path))} {name}", damaged_tree


def draw_damage(data, tree, depth=400):
    path = data.draw(st.sampled_from(list(list_paths(tree))))
    name = data.draw(st.sampled_from([*VALUES, "deep"]))
    return replace_value(tree, path, nest_lists(depth) if name == "deep" else VALUES[name])


def check_message(error, name):
    """Check that the message of an error is one line, not too long, that has a name."""
    message = str(error)
    assert name in message and "\n" not in message and len(message) < 3000, message


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Return a folder with an export of each kind."""
    folder = tmp_path_factory.mktemp("exports")
    for kind in EXPORTS:
        target, _, precision = kind.rpartition("-")
        options = ["--to", target, "--precision", precision, "--data", SHAPES / "val.tar"]
        succeed("export", SHAPES / "model", folder / kind, *options)
    return folder


@pytest.fixture
def export(exports, tmp_path):
    """Return `export(kind)`, which returns the folder of a copy of an export."""
    return lambda kind: Path(shutil.copytree(exports / kind, tmp_path / kind, dirs_exist_ok=True))


def rewrite(folder, name, text):
    """Write a text into a file of a folder, and the checksums of the folder anew."""
    (folder / name).write_text(text)
    write_integrity(folder, [path.name for path in folder.iterdir() if path.name not in (INTEGRITY, CALIBRATION)])


def test_wrong_value_in_an_export_json_is_refused_or_harmless(export):
    folder = export("onnx-float32")
    info, accepted = json.loads((folder / EXPORT_INFO).read_text()), []
    for name, damaged_info in list_damages(info):
        rewrite(folder, EXPORT_INFO, json.dumps(damaged_info))
        try:
            accepted.append(read_export(folder))
        except BadExport as error:
            check_message(error, str(folder))
            key = name.split(" ")[0].split(".")[0]
            if key and damaged_info != {}:
                assert key in str(error), name  # noqa: PT017  -- there may be no error
    # Keys of which `read_export` may accept other values.
    harmless = {"source", "inputs", "outputs", "weights", "image_weights", "embed_dim", "scalars", "preprocessing",
                "tokenizer", "precision"}  # fmt: skip
    for accepted_info in accepted:
        assert accepted_info["backend"] == info["backend"] and 0 < accepted_info["scalars"]["logit_scale"] < 1e9
        changed_keys = {key for key in {**info, **accepted_info} if info.get(key) != accepted_info.get(key)}
        assert changed_keys <= harmless


@few_examples
@given(st.data())
def test_export_with_wrong_values_answers_or_names_the_fault(exports, export, data):
    kind = data.draw(st.sampled_from(EXPORTS))
    folder = export(kind)
    name = data.draw(st.sampled_from([EXPORT_INFO, CONFIG, "parity.json"]))
    parse, dump = (yaml.safe_load, yaml.safe_dump) if name == CONFIG else (json.loads, json.dumps)
    tree = parse((exports / kind / name).read_text())
    rewrite(folder, name, dump(draw_damage(data, tree, 40 if name == CONFIG else 400)))
    for load in [load_model, OnnxModel] if kind.startswith("onnx") else [load_model]:
        try:
            model = load(folder)
            embeddings = model.encode_texts(["a red disc"])
            assert np.isfinite(embeddings).all() and np.isfinite(embeddings * model.logit_scale).all()
            pixels = np.zeros((40, 40, 3), np.uint8)
            assert np.isfinite(model.encode_images([pixels])).all()
        except EXPLAINED_ERRORS as error:
            check_message(error, str(folder))


@pytest.mark.parametrize(("section", "key", "value"), [
    ("preprocessing", "background", [0, 0, 0]), ("tokenizer", "max_length", 12), ("tokenizer", "rules", "paddlenlp"),
])  # fmt: skip
def test_settings_that_differ_from_the_configuration_are_refused(export, section, key, value):
    folder = export("onnx-float32")
    info = json.loads((folder / EXPORT_INFO).read_text())
    info[section][key] = value
    rewrite(folder, EXPORT_INFO, json.dumps(info))
    with pytest.raises(BadExport, match=f"{section}.{key}"):
        load_model(folder)


@pytest.mark.parametrize("sums", [
    "[[]]", "[" * 100_000, '{"a": 1, "a": 1}', '{"../x": {"bytes": 1, "sha256": ""}}',
    *(json.dumps({EXPORT_INFO: {"bytes": value, "sha256": value}}) for value in [None, math.inf, 10**400]),
], ids=lambda text: text[:20])  # fmt: skip
def test_malformed_integrity_file_is_refused(export, sums):
    folder = export("onnx-float32")
    (folder / INTEGRITY).write_text(f'{{"version": 1, "files": {sums}, "conventions": null, "golden": null}}')
    with pytest.raises(BadExport, match=INTEGRITY) as error:
        read_export(folder)
    check_message(error.value, str(folder))


def set_weights(folder, value):
    """Set all weight matrices of the text graph to a value."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(folder / "text.onnx")
    for weight in graph.graph.initializer:
        array = onnx.numpy_helper.to_array(weight)
        if array.dtype == np.float32 and array.ndim > 1:
            weight.CopyFrom(onnx.numpy_helper.from_array(np.full_like(array, value), weight.name))
    onnx.save(graph, folder / "text.onnx")
    rewrite(folder, EXPORT_INFO, (folder / EXPORT_INFO).read_text())


def test_graph_of_nan_or_of_another_shape_is_refused(export):
    folder = export("onnx-float32")
    set_weights(folder, math.nan)
    for load in (load_model, OnnxModel):
        with pytest.raises(BadExport, match="the text tower's graph .* not finite") as error:
            load(folder).encode_texts(["a red disc"])
        check_message(error.value, str(folder))
    (folder / "text.onnx").write_bytes((folder / "image.onnx").read_bytes())
    rewrite(folder, EXPORT_INFO, (folder / EXPORT_INFO).read_text())
    with pytest.raises(BadExport, match="the text tower's graph does not run"):
        OnnxModel(folder).encode_texts(["a red disc"])
    folder = export("onnx-int8")
    info = json.loads((folder / EXPORT_INFO).read_text())
    rewrite(folder, EXPORT_INFO, json.dumps(info | {"embed_dim": 17}))
    for load in (load_model, OnnxModel):
        with pytest.raises(BadExport, match=r"the text tower's graph .* \[1, 16\], not float32 \[1, 17\]"):
            load(folder).encode_texts(["a red disc"])


@pytest.mark.parametrize("row", [[math.inf, 0], [0, 0], [0.9, 0]])
def test_only_finite_embeddings_of_unit_length_are_returned(row):
    valid = np.array([[0.6, 0.8], [1, 0]], np.float32)
    assert (check_outputs(lambda rows: valid, "x", 2)(valid) == valid).all()
    with pytest.raises(BadExport, match="not finite or not of length 1"):
        check_outputs(lambda rows: np.array([[1, 0], row], np.float32), "x", 2)(valid)


def test_calibration_with_a_wrong_value_is_damaged_or_usable(tmp_path):
    record = json.loads((SHAPES / "model" / CALIBRATION).read_text())
    path = tmp_path / CALIBRATION
    for name, damaged_record in list_damages(record):
        path.write_text(json.dumps(damaged_record))
        try:
            calibration = read_calibration(tmp_path, record["fingerprint"])
        except ValueError as error:
            check_message(error, str(path))
            continue
        if calibration is None:  # it is of another model
            assert name.split(".")[0].split(" ")[0] in ("fingerprint", "data", "date"), name
            continue
        assert calibration.describe("image_to_text"), name
        for threshold in calibration.thresholds.values():
            assert math.isfinite(threshold.cosine) and 0 <= threshold.recall <= 100


def replace_by_pipes(folder):
    """Replace every file of a folder in turn by a pipe that no process writes to, and yield its path."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        yield path
        path.unlink()
        path.write_bytes(content)


@pytest.mark.parametrize("kind", ["onnx-float32", "paddle-inference-float32"])
def test_pipe_in_an_export_is_refused_at_once(export, kind):
    folder = export(kind)
    for path in replace_by_pipes(folder):
        with pytest.raises(EXPLAINED_ERRORS) as error:
            load_model(folder)
        check_message(error.value, str(folder))
        assert path.name in commands.format_error(error.value) or path.name == EXPORT_INFO


def test_pipe_in_a_checkpoint_is_refused_at_once(tmp_path):
    folder = Path(shutil.copytree(SHAPES / "model", tmp_path / "model"))
    for path in replace_by_pipes(folder):
        if path.name in (MODEL, CONFIG, INTEGRITY):
            with pytest.raises(EXPLAINED_ERRORS) as error:
                load_model(folder)
            assert str(folder) in commands.format_error(error.value)
