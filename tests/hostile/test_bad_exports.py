"""Models that cannot be exported, and damaged exports: an error of one line says which, why and what to do."""

import gc
import json
import shutil
import sys
import traceback

import paddle
import pytest
from paddle import nn
from paddle.jit.dy2static.parameter_recorder import _global_parameter_recorder

import ernie_vil2
from ernie_vil2.data.samples import BadSample
from ernie_vil2.device.extras import MissingPackage
from ernie_vil2.device.tracing import tracing
from ernie_vil2.export import NotExportable, export, graphs
from ernie_vil2.io.export_folder import BadExport
from ernie_vil2.io.files import INTEGRITY, write_integrity
from ernie_vil2.runtime_onnx import OnnxModel
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.commands import mount_small_disk
from tests.support.exported_models import GRAPHS, IMAGES, TEXT_TOWER, TEXTS, TOKENS, make_untrained_encoder


@pytest.fixture(params=GRAPHS)
def folder(request, exports, tmp_path):
    """Return the folder of a copy of an export, which the test may damage."""
    return shutil.copytree(exports / request.param, tmp_path / "export")


def expect_refusal(folder, message):
    with pytest.raises(BadExport, match=message) as error:
        ernie_vil2.load_model(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_missing_or_damaged_file_of_an_export_is_named(folder):
    for path in sorted(folder.iterdir()):
        if path.name == "export.json":
            continue
        content = path.read_bytes()
        for damaged in (None, content[: len(content) // 2], content[:-1] + bytes([content[-1] ^ 1]), b"", b"\xff[" * 9):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            expect_refusal(folder, f"{path.name} .*it is damaged; export the checkpoint again")
            path.write_bytes(content)
    ernie_vil2.load_model(folder)


@pytest.mark.parametrize("about", [b"\xff", b"[]", b"[" * 100_000, b'{"version": 1}'])
def test_export_json_without_an_export_is_damaged(folder, about):
    (folder / "export.json").write_bytes(about)
    expect_refusal(folder, "damaged")
    (folder / INTEGRITY).unlink()
    expect_refusal(folder, f"{INTEGRITY} is missing.*damaged")


@pytest.mark.parametrize("values", [
    {"patch_size": 65_536}, {"patch_size": 1024}, {"patch_size": 2048, "most_patches": 5}, {"resized": 65_536},
])  # fmt: skip
def test_preprocessing_that_would_fill_the_memory_is_refused(exports, tmp_path, values):
    folder = shutil.copytree(exports / "onnx", tmp_path / "export")
    about = json.loads((folder / "export.json").read_text())
    about["preprocessing"] |= {"kind": "naflex"} | values
    (folder / "export.json").write_text(json.dumps(about))
    write_integrity(folder, [path.name for path in folder.iterdir() if path.name != INTEGRITY])
    with pytest.raises(BadExport, match=f"preprocessing.{next(iter(values))}"):
        OnnxModel(folder)


def test_missing_package_or_device_of_a_backend_is_named(exports, monkeypatch):
    with pytest.raises(BadExport, match="not built for gpu:0"):
        OnnxModel(exports / "onnx", device="gpu:0")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackage, match="onnx needs onnxruntime"):
        ernie_vil2.load_model(exports / "onnx")


def test_checkpoints_and_exports_are_not_confused(exports, tmp_path):
    checkpoint = tmp_path / "model"
    write_untrained_checkpoint(checkpoint, TOKENS)
    with pytest.raises(ValueError, match=f"{checkpoint} is not an export for onnx"):
        ernie_vil2.load_model(checkpoint, backend="onnx")
    with pytest.raises(BadExport, match="for onnx, not for paddle"):
        ernie_vil2.load_model(exports / "onnx", backend="paddle")
    with pytest.raises(BadExport, match="for paddle_inference"):
        OnnxModel(exports / "paddle_inference")
    with pytest.raises(NotExportable, match="an export already"):
        export(ernie_vil2.load_model(exports / "onnx"), tmp_path / "export", "onnx")
    with pytest.raises(FileExistsError):
        export(ernie_vil2.load_model(checkpoint), checkpoint, "onnx", inputs=(IMAGES, TEXTS))


def test_unknown_backend_is_named(exports, model, tmp_path):
    for use in (lambda: ernie_vil2.load_model(exports / "onnx", backend="tensorrt"),
                lambda: ernie_vil2.load_model(tmp_path, backend="tensorrt"),
                lambda: export(model, tmp_path / "export", "tensorrt")):  # fmt: skip
        with pytest.raises(ValueError, match="backend is 'tensorrt'"):
            use()


def test_bad_image_to_compare_on_is_no_fault_of_the_graphs(model, tmp_path):
    with pytest.raises(BadSample, match="image 1: broken image"):
        export(model, tmp_path / "export", "paddle_inference", inputs=([*IMAGES[:1], b"broken"], TEXTS))
    assert list(tmp_path.iterdir()) == []


class Peeking(nn.Layer):
    """Tower that reads the numbers it computes, which a graph cannot do."""

    width = 8

    def __init__(self, config):
        super().__init__()
        self.linear = nn.Linear(3, 8)

    def forward(self, images):
        return self.linear(images.mean(axis=[2, 3])) if float(images.numpy().max()) > 0 else None


class Sorting(Peeking):
    """Tower with an operator that has no counterpart in ONNX."""

    def forward(self, images):
        return self.linear(paddle.linalg.svd(images)[1].mean(axis=2))


@pytest.mark.parametrize(("tower", "backend", "message"), [
    ("Peeking", "paddle_inference", "the image tower cannot be traced into a graph: "),
    ("Sorting", "onnx", "the image tower cannot become ONNX: "),
])  # fmt: skip
def test_error_of_an_export_names_tower_and_reason(tower, backend, message, tmp_path):
    sys.modules["peeking"] = sys.modules[__name__]  # a short name for this module, whose class the configuration names
    model = make_untrained_encoder(
        f"Model.image={{name: 'peeking:{tower}', image_size: 32}}", TEXT_TOWER % ("ernie", "cls")
    )
    with pytest.raises(NotExportable, match=message) as error:
        export(model, tmp_path / "export", backend, inputs=(IMAGES, TEXTS))
    assert "\n" not in str(error.value) and len(str(error.value)) > len(message)
    assert list(tmp_path.iterdir()) == []


def test_killed_conversion_names_the_signal(model, tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "_CONVERT_GRAPHS", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(NotExportable, match="the image tower cannot become ONNX: .*SIGKILL"):
        export(model, tmp_path / "export", "onnx")


def test_failed_trace_leaves_no_parameters():
    class Failing(nn.Linear):
        @paddle.jit.not_to_static
        def forward(self, rows):
            super().forward(rows)  # adds the parameters to the graph
            raise RuntimeError("not today")

    layer, spec = Failing(3, 4), paddle.static.InputSpec([2, 3])
    with pytest.raises(RuntimeError, match="not today"), tracing():
        _ = paddle.jit.to_static(layer, input_spec=[spec], full_graph=True).forward.concrete_program
    assert not _global_parameter_recorder.params_dict and not _global_parameter_recorder.tensor2value


def count_stack_frames():
    gc.collect()
    return sum(isinstance(value, traceback.FrameSummary) for value in gc.get_objects())


def test_trace_keeps_no_python_stacks():
    num_frames, layer, spec = count_stack_frames(), nn.Linear(3, 4), paddle.static.InputSpec([2, 3])
    with tracing():
        _ = paddle.jit.to_static(layer, input_spec=[spec], full_graph=True).forward.concrete_program
    # `tracing` limits stacks to no frame while it runs; afterwards, stacks have frames again.
    assert count_stack_frames() == num_frames and traceback.extract_stack()


@pytest.mark.parametrize("backend", GRAPHS)
def test_full_disk_is_reported_and_leaves_no_export(model, tmp_path, backend):
    with mount_small_disk(tmp_path / "disk", "160k") as disk:
        with pytest.raises(OSError, match="No space left"):
            export(model, disk / "export", backend)
        assert list(disk.iterdir()) == []
