"""What cannot be exported, and exported folders that cannot be used: one line that says which, why and what to do."""

import gc
import shutil
import sys
import traceback

import paddle
import pytest
from paddle import nn
from paddle.jit.dy2static.parameter_recorder import _global_parameter_recorder

import ernie_vil2
from ernie_vil2.device.extras import MissingPackage
from ernie_vil2.device.tracing import tracing
from ernie_vil2.export import NotExportable, export
from ernie_vil2.io.export_folder import BadExport
from ernie_vil2.io.files import INTEGRITY
from ernie_vil2.runtime_onnx import OnnxModel
from tests.support.checkpoints import write_untrained_checkpoint
from tests.support.commands import mount_small_disk
from tests.support.exported_models import GRAPHS, IMAGES, TEXT_TOWER, TEXTS, TOKENS, make_untrained_encoder


@pytest.fixture(params=GRAPHS)
def folder(request, exports, tmp_path):
    """A copy of an export, to be damaged."""
    return shutil.copytree(exports / request.param, tmp_path / "export")


def refused(folder, message):
    with pytest.raises(BadExport, match=message) as caught:
        ernie_vil2.load_model(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_every_file_that_is_missing_cut_off_or_changed_is_named(folder):
    for path in sorted(folder.iterdir()):
        if path.name == "export.json":
            continue
        content = path.read_bytes()
        for damaged in (None, content[: len(content) // 2], content[:-1] + bytes([content[-1] ^ 1]), b"", b"\xff[" * 9):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            refused(folder, f"{path.name} .*it is damaged; export the checkpoint again")
            path.write_bytes(content)
    ernie_vil2.load_model(folder)


@pytest.mark.parametrize("about", [b"\xff", b"[]", b"[" * 100_000, b'{"version": 1}'])
def test_an_export_json_that_is_none(folder, about):
    (folder / "export.json").write_bytes(about)
    refused(folder, "damaged")
    (folder / INTEGRITY).unlink()
    refused(folder, f"{INTEGRITY} is missing.*damaged")


def test_a_backend_that_lacks_its_package_or_device_says_so(exports, monkeypatch):
    with pytest.raises(BadExport, match="not built for gpu:0"):
        OnnxModel(exports / "onnx", device="gpu:0")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackage, match="onnx needs onnxruntime"):
        ernie_vil2.load_model(exports / "onnx")


def test_a_checkpoint_is_not_an_export_and_the_other_way_round(exports, tmp_path):
    checkpoint = tmp_path / "model"
    write_untrained_checkpoint(checkpoint, TOKENS)
    with pytest.raises(ValueError, match=f"{checkpoint} is not an export for onnx"):
        ernie_vil2.load_model(checkpoint, backend="onnx")
    with pytest.raises(BadExport, match="for onnx, not for paddle"):
        ernie_vil2.load_model(exports / "onnx", backend="paddle")
    with pytest.raises(BadExport, match="for paddle_inference"):
        OnnxModel(exports / "paddle_inference")
    with pytest.raises(NotExportable, match="an export already"):
        export(ernie_vil2.load_model(exports / "onnx"), tmp_path / "made", "onnx")
    with pytest.raises(FileExistsError):
        export(ernie_vil2.load_model(checkpoint), checkpoint, "onnx", inputs=(IMAGES, TEXTS))


class Peeking(nn.Layer):
    """A tower that looks at the numbers it computes, which no graph can."""

    width = 8

    def __init__(self, config):
        super().__init__()
        self.linear = nn.Linear(3, 8)

    def forward(self, images):
        return self.linear(images.mean(axis=[2, 3])) if float(images.numpy().max()) > 0 else None


class Sorting(Peeking):
    """A tower with an operator that has no counterpart in ONNX."""

    def forward(self, images):
        return self.linear(paddle.linalg.svd(images)[1].mean(axis=2))


@pytest.mark.parametrize(("tower", "backend", "message"), [
    ("Peeking", "paddle_inference", "the image tower cannot be traced into a graph: "),
    ("Sorting", "onnx", "the image tower cannot become ONNX: "),
])  # fmt: skip
def test_what_cannot_be_exported_says_why(tower, backend, message, tmp_path):
    sys.modules["peeking"] = sys.modules[__name__]
    model = make_untrained_encoder(
        f"Model.image={{name: 'peeking:{tower}', image_size: 32}}", TEXT_TOWER % ("ernie", "cls")
    )
    with pytest.raises(NotExportable, match=message) as caught:
        export(model, tmp_path / "made", backend, inputs=(IMAGES, TEXTS))
    assert "\n" not in str(caught.value) and len(str(caught.value)) > len(message)
    assert list(tmp_path.iterdir()) == []


def test_a_trace_that_failed_leaves_no_parameters():
    class Failing(nn.Linear):
        @paddle.jit.not_to_static
        def forward(self, rows):
            super().forward(rows)  # its parameters are in the graph by now
            raise RuntimeError("not today")

    layer, spec = Failing(3, 4), paddle.static.InputSpec([2, 3])
    with pytest.raises(RuntimeError, match="not today"), tracing():
        _ = paddle.jit.to_static(layer, input_spec=[spec], full_graph=True).forward.concrete_program
    assert not _global_parameter_recorder.params_dict and not _global_parameter_recorder.tensor2value


def frames_that_are_kept():
    gc.collect()
    return sum(isinstance(one, traceback.FrameSummary) for one in gc.get_objects())


def test_a_trace_keeps_no_python_stacks():
    before, layer, spec = frames_that_are_kept(), nn.Linear(3, 4), paddle.static.InputSpec([2, 3])
    with tracing():
        _ = paddle.jit.to_static(layer, input_spec=[spec], full_graph=True).forward.concrete_program
    assert frames_that_are_kept() == before and traceback.extract_stack()


@pytest.mark.parametrize("backend", GRAPHS)
def test_a_full_disk_is_reported_and_leaves_nothing(model, tmp_path, backend):
    with mount_small_disk(tmp_path / "disk", "160k") as disk:
        with pytest.raises(OSError, match="No space left"):
            export(model, disk / "made", backend)
        assert list(disk.iterdir()) == []
