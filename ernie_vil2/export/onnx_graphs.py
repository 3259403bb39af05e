"""The static graphs as ONNX, in float32 or with 8-bit weights."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

from ernie_vil2.export.graphs import NotExportable, reason
from ernie_vil2.io.export_folder import INPUTS, OUTPUTS

OPSET = 17
# In a process of its own, which it ends over an operator that it does not know. Without an optimiser: the default one
# has pip install a package that breaks NumPy and OpenCV.
_CONVERT = """
import sys, paddle2onnx

paddle2onnx.export(*sys.argv[1:4], opset_version=int(sys.argv[4]), optimize_tool="None")
"""
_AXES = {"image": ("batch",), "text": ("batch", "length")}


def convert(folder: Path, quantize: bool) -> None:
    """Makes `image.onnx` and `text.onnx` of the graphs in `folder`, and removes those.

    Args:
        quantize: weights of matrix products as 8-bit integers, with activations quantised as they come.

    Raises:
        NotExportable: an operator has no counterpart in ONNX.
    """
    import onnx

    for tower in INPUTS:
        made = folder / f"{tower}.onnx"
        sources = [folder / f"{tower}.json", folder / f"{tower}.pdiparams"]
        child = subprocess.run([sys.executable, "-c", _CONVERT, *sources, made, str(OPSET)], capture_output=True,
                               text=True, errors="replace")  # fmt: skip
        if child.returncode:
            if "Errno 28" in child.stderr:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(made))
            raise NotExportable(f"the {tower} tower cannot become ONNX: {reason(child.stdout + child.stderr)}")
        model = onnx.load(str(made))
        for source in sources:
            source.unlink()
        _name(model.graph, tower)
        _constants_to_initializers(model.graph)
        onnx.save(model, str(made))
        if quantize:
            _quantize(made)
        onnx.checker.check_model(str(made))


def _name(graph, tower: str) -> None:
    """Names the output, which paddle2onnx calls fetch_name_0, and the dynamic axes."""
    (given,), (output,) = graph.input, graph.output
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == output.name:
                    names[place] = OUTPUTS[tower]
    output.name = OUTPUTS[tower]
    for value, axes in ((given, _AXES[tower]), (output, ("batch",))):
        for dimension, axis in zip(value.type.tensor_type.shape.dim, axes, strict=False):
            dimension.dim_param = axis


def _constants_to_initializers(graph) -> None:
    """Weights arrive as nodes; quantisation and runtimes look for them among the initializers."""
    constants = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    for node in constants:
        tensor = graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.node.remove(node)


def _quantize(path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_suffix(".float32.onnx")
    path.rename(whole)
    log = logging.getLogger()
    level, _ = log.level, log.setLevel(logging.ERROR)  # it advises a preparation that changes nothing here
    try:
        quantize_dynamic(str(whole), str(path), weight_type=QuantType.QInt8, per_channel=True,
                         op_types_to_quantize=["MatMul", "Gemm"])  # fmt: skip
    finally:
        log.setLevel(level)
    whole.unlink()
