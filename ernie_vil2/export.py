"""A model as an exported folder: its towers as static graphs, which an inference library runs without the code that
trained them, and how far their embeddings are from its own.

The graphs are for Paddle Inference, or ONNX, in float32 or with 8-bit weights.

`image.json`, `image.pdiparams`: `pixels` `[B, S, S, 3]` uint8 RGB, of NaFlex `[B, H, W, 3]` of whole patches, to
`image_embeddings` `[B, D]` float32, normalised to length 1; the normalisation of the pixels is part of the graph.
`text.json`, `text.pdiparams`: `token_ids` `[B, L]` int64, padded, to `text_embeddings` likewise. `image.onnx` and
`text.onnx` are made of these.
"""

import dataclasses
import errno
import logging
import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from ernie_vil2.config import dump_config
from ernie_vil2.data.preprocessing import Preprocessing, normalize_images
from ernie_vil2.device.extras import require
from ernie_vil2.device.tracing import tracing
from ernie_vil2.encoder import ErnieViL2, ImageLike, PaddleBackend
from ernie_vil2.encoder.exports import ExportedBackend
from ernie_vil2.io.calibration import write_calibration
from ernie_vil2.io.export_folder import ABOUT, CONFIG, INPUTS, OUTPUTS, PARITY, PRECISIONS, VERSION, named_in_utf8
from ernie_vil2.io.files import atomic_folder, write_integrity, write_json, write_text
from ernie_vil2.io.terminal import silenced
from ernie_vil2.models import DualEncoder
from ernie_vil2.runtime_onnx import reason

TOP = 10
OPSET = 17


class NotExportable(ValueError):  # noqa: N818  -- named by what has happened
    """A tower that cannot become a graph; the message says why."""


def require_backend(backend: str) -> None:
    """MissingPackage if what makes and runs the graphs of a backend is not installed."""
    if backend == "onnx":
        require("an ONNX export", "paddle2onnx", "onnx", "onnxruntime")


def export(
    model: ErnieViL2,
    folder: str | Path,
    backend: str,
    precision: str = "float32",
    inputs: tuple[Sequence[ImageLike], Sequence[str]] = ((), ()),
    source: str = "",
    width: int | None = None,
) -> dict[str, Any]:
    """Writes a model as graphs for an inference library, into a new folder that appears when it is whole.

    Args:
        backend: `paddle_inference` or `onnx`.
        precision: in which the towers compute: bfloat16 is computed by Paddle Inference's kernels from a graph in
            float32; int8 are the weights of matrix products in the ONNX file.
        inputs: real images and texts, on which the export is compared with the model.
        source: where the model came from, for people.
        width: of the embeddings, one of the model's `widths`: the first numbers alone; None: all.

    Returns:
        What `compare` found, which is in the folder as well.

    Raises:
        NotExportable: a tower cannot become a graph, or the backend does not have the precision.
        ValueError: the model was not trained with this width.
        FileExistsError: there is something at `folder`.
        OSError: it cannot be written.
        MissingPackage: see `require_backend`.
    """
    require_backend(backend)
    folder = Path(folder)
    if precision not in PRECISIONS[backend]:
        known = " or ".join(PRECISIONS[backend])
        raise NotExportable(f"{backend} computes in {known}, not in {precision}; name another --precision or --to")
    if not isinstance(model.backend, PaddleBackend):
        raise NotExportable(f"{source or 'this model'} is an export already; name the checkpoint that it was made of")
    if folder.exists():
        raise FileExistsError(errno.EEXIST, "is there already; name a new folder", str(folder))
    whole, model = model.backend, model.with_width(width)
    with atomic_folder(folder) as made, named_in_utf8(made) as aside:
        save_graphs(whole, model.preprocessing, aside, width)
        if backend == "onnx":
            convert(aside, quantize=precision == "int8")
        about = {
            "version": VERSION,
            "backend": backend,
            "precision": precision,
            "source": source,
            "weights": model.backend.digest(),
            "image_weights": model.backend.digest("image"),
            "embed_dim": model.embed_dim,
            "scalars": model.backend.scalars,
            "preprocessing": model.preprocessing.as_dict(),
            "tokenizer": {
                "rules": model.tokenizer.rules,
                "max_length": model.tokenizer.max_length,
                "entries": model.tokenizer.entries,
            },
            "inputs": INPUTS,
            "outputs": OUTPUTS,
        }
        write_json(aside / ABOUT, about)
        for name, text in model.tokenizer.files().items():
            write_text(aside / name, text)
        write_text(aside / CONFIG, dump_config(model.config))
        exported = ErnieViL2(
            ExportedBackend(aside, about, model.device), model.tokenizer, model.config, model.batch_size
        )
        try:
            report = compare(model, exported, *inputs)
        except (RuntimeError, ValueError) as error:  # Paddle's and onnxruntime's own are of these
            raise NotExportable(f"the graphs for {backend} do not run: {reason(error)}") from error
        write_json(aside / PARITY, report)
        write_integrity(aside, sorted(path.name for path in aside.iterdir()))
        if model.calibration:  # after the integrity file: it may be found again
            write_calibration(dataclasses.replace(model.calibration, fingerprint=exported.fingerprint), aside)
    return report


def compare(
    model: ErnieViL2, other: ErnieViL2, images: Sequence[ImageLike], texts: Sequence[str]
) -> dict[str, dict[str, float]]:
    """How far another backend's embeddings are from a model's own.

    Returns:
        For `images` and for `texts`, where there are any: the number of `inputs`, the `largest_difference` of two
        numbers, and the `least_cosine`; for `top_10`, where there are both: of the texts the share whose ten closest
        images are the `same_ten`, and `same_order`, and of these ten images the mean share `in_both`.
    """
    report, found = {}, []
    for side, inputs in (("images", images), ("texts", texts)):
        if len(inputs):
            ours, theirs = (getattr(one, f"encode_{side}")(inputs) for one in (model, other))
            found.append((ours, theirs))
            report[side] = {
                "inputs": len(inputs),
                "largest_difference": float(np.abs(ours - theirs).max()),
                "least_cosine": float((ours * theirs).sum(axis=1).min()),
            }
    if len(found) == 2:
        report["top_10"] = ranked_alike(*found)
    return report


def ranked_alike(images: Sequence[np.ndarray], texts: Sequence[np.ndarray]) -> dict[str, float]:
    """`top_10` of `compare`, of two backends' embeddings of images `[N, D]` and of texts `[M, D]`."""
    ours, theirs = (
        np.argsort(-(text @ image.T), axis=1, kind="stable")[:, :TOP] for image, text in zip(images, texts, strict=True)
    )
    shared = np.array([len(np.intersect1d(*rows)) / len(rows[0]) for rows in zip(ours, theirs, strict=True)])
    same_order = (ours == theirs).all(axis=1)
    return {
        "same_ten": float((shared == 1).mean()),
        "same_order": float(same_order.mean()),
        "in_both": float(shared.mean()),
    }


def save_graphs(backend: PaddleBackend, preprocessing: Preprocessing, folder: Path, width: int | None = None) -> None:
    """Writes both towers into `folder`, with a width of embeddings that are cut to their first numbers; NotExportable
    if a tower's code cannot be traced."""
    model, size = backend.model, None if preprocessing.kind == "naflex" else preprocessing.size
    graphs = {
        "image": (_Image(model, preprocessing, width), InputSpec([None, size, size, 3], "uint8", INPUTS["image"])),
        "text": (_Text(model, width), InputSpec([None, None], "int64", INPUTS["text"])),
    }
    was_training = model.training
    for tower, (layer, spec) in graphs.items():
        layer.eval()
        try:
            with silenced(), warnings.catch_warnings(action="ignore"), tracing():
                static = paddle.jit.to_static(layer, input_spec=[spec], full_graph=True)
                paddle.jit.save(static, str(folder / tower))
        except OSError:
            raise
        except Exception as error:  # tracing runs the tower's own code, which may raise anything
            raise NotExportable(f"the {tower} tower cannot be traced into a graph: {reason(error)}") from error
        finally:
            model.train() if was_training else model.eval()
        _check_written(folder / f"{tower}.json", folder / f"{tower}.pdiparams")


def _check_written(*files: Path) -> None:
    """OSError if the disk is full or a file has reached the limit of its size: Paddle writes what fits, silently."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    for file in files:
        if limit != resource.RLIM_INFINITY and file.stat().st_size >= limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(file))
    probe = files[0].with_name("probe")
    probe.write_bytes(bytes(resource.getpagesize()))  # had one of them been cut off, there would be no page left
    probe.unlink()


class _Image(nn.Layer):
    def __init__(self, model: DualEncoder, preprocessing: Preprocessing, width: int | None):
        super().__init__()
        self.model, self.mean, self.std, self.width = model, preprocessing.mean, preprocessing.std, width

    def forward(self, pixels: paddle.Tensor) -> paddle.Tensor:
        return self.model.encode_image(normalize_images(pixels, self.mean, self.std), self.width)


class _Text(nn.Layer):
    def __init__(self, model: DualEncoder, width: int | None):
        super().__init__()
        self.model, self.width = model, width

    def forward(self, token_ids: paddle.Tensor) -> paddle.Tensor:
        return self.model.encode_text(token_ids, self.width)


# In a process of its own, which it ends over an operator that it does not know; one for both towers, as importing it
# takes longer than they do. Without an optimiser: the default one has pip install what breaks NumPy and OpenCV.
_CONVERT = """
import os, sys, paddle2onnx

opset, *graphs = sys.argv[1:]
for graph in graphs:
    made = f"{graph}.partial"
    paddle2onnx.export(f"{graph}.json", f"{graph}.pdiparams", made, opset_version=int(opset), optimize_tool="None")
    os.replace(made, f"{graph}.onnx")
"""
_AXES = {"image": ("batch", "height", "width"), "text": ("batch", "length")}


def convert(folder: Path, quantize: bool) -> None:
    """Makes `image.onnx` and `text.onnx` of the graphs in `folder`, and removes those; quantised, weights of matrix
    products are 8-bit integers. NotExportable if an operator has no counterpart in ONNX."""
    import onnx

    command = [sys.executable, "-c", _CONVERT, str(OPSET), *(str(folder / tower) for tower in INPUTS)]
    child = subprocess.run(command, capture_output=True, text=True, errors="replace")  # noqa: S603  -- this Python, with code of ours
    for tower in INPUTS:
        made = folder / f"{tower}.onnx"
        if not made.exists():
            if "Errno 28" in child.stderr:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(made))
            raise NotExportable(f"the {tower} tower cannot become ONNX: {reason(child.stdout + child.stderr)}")
        model = onnx.load(str(made))
        for ending in ("json", "pdiparams"):
            (folder / f"{tower}.{ending}").unlink()
        _name(model.graph, tower)
        _constants_to_initializers(model.graph)
        onnx.save(model, str(made))
        if quantize:
            _quantize(made)
        onnx.checker.check_model(str(made))


def _name(graph: Any, tower: str) -> None:
    """Names the output, which paddle2onnx calls fetch_name_0, and the dynamic axes."""
    (given,), (output,) = graph.input, graph.output
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == output.name:
                    names[position] = OUTPUTS[tower]
    output.name = OUTPUTS[tower]
    for value, axes in ((given, _AXES[tower]), (output, ("batch",))):
        for dimension, axis in zip(value.type.tensor_type.shape.dim, axes, strict=False):
            if dimension.dim_value <= 0:  # a square input's sides are known
                dimension.dim_param = axis


def _constants_to_initializers(graph: Any) -> None:
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
    level = log.level
    log.setLevel(logging.ERROR)  # it advises a preparation that changes nothing here
    try:
        quantize_dynamic(str(whole), str(path), weight_type=QuantType.QInt8, per_channel=True,
                         op_types_to_quantize=["MatMul", "Gemm"])  # fmt: skip
    finally:
        log.setLevel(level)
    whole.unlink()
