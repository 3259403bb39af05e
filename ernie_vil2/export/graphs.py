"""Towers as static graphs: traced by Paddle, and converted to ONNX with named values, and perhaps 8-bit weights."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import paddle
from paddle import nn
from paddle.static import InputSpec

from ernie_vil2.data.preprocessing import Preprocessing, normalize_images
from ernie_vil2.device.extras import require
from ernie_vil2.device.tracing import tracing
from ernie_vil2.encoder import ErnieViL2, PaddleBackend, TruncatedBackend
from ernie_vil2.io.export_folder import INPUTS, OUTPUTS
from ernie_vil2.io.terminal import suppress_output
from ernie_vil2.models import DualEncoder
from ernie_vil2.runtime_onnx import last_line

OPSET = 17  # first version of ONNX with LayerNormalization; a newer one needs a newer onnxruntime

# Runs in a new process, since paddle2onnx ends its process at an operator that it does not know; one process for both
# towers, as importing it takes longer than a conversion. Its arguments are the opset and the paths without suffix.
_CONVERT_GRAPHS = """
import os, sys, paddle2onnx

opset, *stems = sys.argv[1:]
for stem in stems:
    partial = f"{stem}.partial"
    # paddle2onnx's default optimiser runs pip, and what it installs breaks NumPy and OpenCV.
    paddle2onnx.export(f"{stem}.json", f"{stem}.pdiparams", partial, opset_version=int(opset), optimize_tool="None")
    os.replace(partial, f"{stem}.onnx")
"""


class NotExportable(ValueError):  # noqa: N818  -- named by what has happened
    """A tower that cannot become a graph; the message says why."""


def require_onnx() -> None:
    """Raise MissingPackage if the packages that make and run ONNX graphs are not installed."""
    require("an ONNX export", "paddle2onnx", "onnx", "onnxruntime")


def get_network(model: ErnieViL2, source: str = "") -> DualEncoder:
    """Return the Paddle model of an encoder.

    Args:
        model: encoder to export.
        source: where it came from, for the message.

    Raises:
        NotExportable: it is an export, or its embeddings are cut already.
    """
    if isinstance(model.backend, TruncatedBackend):
        width = model.embed_dim
        raise NotExportable(f"the embeddings are cut to {width} numbers; export the whole model with width={width}")
    if not isinstance(model.backend, PaddleBackend):
        raise NotExportable(f"{source or 'this model'} is an export already; name the checkpoint that it was made of")
    return model.backend.model


class TowerGraph(NamedTuple):
    """A tower that becomes a graph.

    layer: computes embeddings.
    input: form and name of its input.
    axes: names of the dynamic axes of the input in ONNX.
    output: name of the output in ONNX.
    """

    layer: nn.Layer
    input: InputSpec
    axes: tuple[str, ...]
    output: str


def make_graphs(
    model: DualEncoder, preprocessing: Preprocessing, embed_dim: int | None = None
) -> dict[str, TowerGraph]:
    """Return the graphs of an export by tower; `embed_dim` cuts embeddings to so many numbers."""
    size = None if preprocessing.kind == "naflex" else preprocessing.size  # NaFlex: any height and width
    image_input = InputSpec([None, size, size, 3], "uint8", INPUTS["image"])
    text_input = InputSpec([None, None], "int64", INPUTS["text"])
    image_layer, text_layer = _ImageGraph(model, preprocessing, embed_dim), _TextGraph(model, embed_dim)
    return {
        "image": TowerGraph(image_layer, image_input, ("batch", "height", "width"), OUTPUTS["image"]),
        "text": TowerGraph(text_layer, text_input, ("batch", "length"), OUTPUTS["text"]),
    }


def save_graphs(model: DualEncoder, graphs: Mapping[str, TowerGraph], folder: Path) -> None:
    """Write the graphs of a model's towers into a folder.

    Raises:
        NotExportable: the code of a tower cannot be traced.
        OSError: a file cannot be written completely.
    """
    # Dropout and batch norms must be traced as in evaluation.
    was_training = model.training
    for tower, graph in graphs.items():
        graph.layer.eval()
        try:
            with suppress_output(), warnings.catch_warnings(action="ignore"), tracing():
                static = paddle.jit.to_static(graph.layer, input_spec=[graph.input], full_graph=True)
                paddle.jit.save(static, str(folder / tower))
        except OSError:
            raise
        except Exception as error:  # tracing runs the code of the tower, which may raise anything
            raise NotExportable(f"the {tower} tower cannot be traced into a graph: {last_line(error)}") from error
        finally:
            if was_training:
                model.train()
            else:
                model.eval()
        _check_complete(folder / f"{tower}.json", folder / f"{tower}.pdiparams")


def _check_complete(*files: Path) -> None:
    """Raise OSError if a file was cut off: Paddle raises nothing on a full disk or at a limit of the file size."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    for file in files:
        if limit != resource.RLIM_INFINITY and file.stat().st_size >= limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(file))
    # On a disk that is full, not even one more page can be written, and this raises.
    probe = files[0].with_name("probe")
    probe.write_bytes(bytes(resource.getpagesize()))
    probe.unlink()


class _ImageGraph(nn.Layer):
    def __init__(self, model: DualEncoder, preprocessing: Preprocessing, embed_dim: int | None):
        super().__init__()
        self.model, self.mean, self.std, self.embed_dim = model, preprocessing.mean, preprocessing.std, embed_dim

    def forward(self, pixels: paddle.Tensor) -> paddle.Tensor:
        return self.model.encode_image(normalize_images(pixels, self.mean, self.std), self.embed_dim)


class _TextGraph(nn.Layer):
    def __init__(self, model: DualEncoder, embed_dim: int | None):
        super().__init__()
        self.model, self.embed_dim = model, embed_dim

    def forward(self, token_ids: paddle.Tensor) -> paddle.Tensor:
        return self.model.encode_text(token_ids, self.embed_dim)


def convert_to_onnx(graphs: Mapping[str, TowerGraph], folder: Path, should_quantize: bool) -> None:
    """Convert the graphs in a folder to `image.onnx` and `text.onnx`, and remove the former.

    Args:
        graphs: the graphs by tower, as `save_graphs` wrote them.
        folder: folder of the graphs.
        should_quantize: whether weights of matrix products become 8-bit integers.

    Raises:
        NotExportable: an operator has no counterpart in ONNX.
        OSError: the disk is full.
    """
    import onnx

    stems = [str(folder / tower) for tower in graphs]
    command = [sys.executable, "-c", _CONVERT_GRAPHS, str(OPSET), *stems]
    child = subprocess.run(command, capture_output=True, text=True, errors="replace")  # noqa: S603  -- this Python, with code of ours
    for tower, graph in graphs.items():
        path = folder / f"{tower}.onnx"
        if not path.exists():
            if "Errno 28" in child.stderr:  # no space left on the device
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            output = child.stdout + child.stderr
            if child.returncode < 0 and not output.strip():  # killed by a signal, such as for want of memory
                output = f"paddle2onnx was ended by {signal.Signals(-child.returncode).name}; is there enough memory?"
            raise NotExportable(f"the {tower} tower cannot become ONNX: {last_line(output)}")
        # The ONNX file replaces Paddle's graph.
        for suffix in ("json", "pdiparams"):
            (folder / f"{tower}.{suffix}").unlink()

        model = onnx.load(str(path))
        _name_values(model.graph, graph)
        _constants_to_initializers(model.graph)
        onnx.save(model, str(path))
        if should_quantize:
            _quantize(path)
        onnx.checker.check_model(str(path))


def _name_values(onnx_graph: Any, graph: TowerGraph) -> None:
    """Give the output, which paddle2onnx calls fetch_name_0, and the dynamic axes the names that callers use."""
    (graph_input,), (graph_output,) = onnx_graph.input, onnx_graph.output
    for node in onnx_graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == graph_output.name:
                    names[position] = graph.output
    graph_output.name = graph.output
    for value, axes in ((graph_input, graph.axes), (graph_output, ("batch",))):
        for dimension, axis in zip(value.type.tensor_type.shape.dim, axes, strict=False):
            if dimension.dim_value <= 0:  # the sides of a square input are fixed
                dimension.dim_param = axis


def _constants_to_initializers(onnx_graph: Any) -> None:
    """Turn weights, which paddle2onnx writes as nodes, into initializers: quantisation and runtimes expect these."""
    constants = [node for node in onnx_graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    for node in constants:
        tensor = onnx_graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        onnx_graph.node.remove(node)


def _quantize(path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    float32_path = path.with_suffix(".float32.onnx")
    path.rename(float32_path)
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # hides the advice to preprocess the model, which would change nothing here
    try:
        quantize_dynamic(
            str(float32_path),
            str(path),
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
        )
    finally:
        logger.setLevel(level)
    float32_path.unlink()
