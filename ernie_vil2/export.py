"""Export of a model: its towers as static graphs in a folder, which an inference library runs without Paddle's layers.

The graphs are for Paddle Inference or ONNX, in float32 or with 8-bit weights.

- `image.json`, `image.pdiparams`: `pixels` `[B, S, S, 3]` uint8 RGB (NaFlex: `[B, H, W, 3]` in whole patches) to
  `image_embeddings` `[B, D]` float32 of length 1. The graph normalises the pixels.
- `text.json`, `text.pdiparams`: `token_ids` `[B, L]` int64, padded, to `text_embeddings` of the same form.
- `image.onnx` and `text.onnx` are converted from these.
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
from ernie_vil2.io.export_folder import CONFIG, EXPORT_INFO, INPUTS, OUTPUTS, PARITY, PRECISIONS, VERSION, utf8_path
from ernie_vil2.io.files import atomic_folder, write_integrity, write_json, write_text
from ernie_vil2.io.terminal import suppress_output
from ernie_vil2.models import DualEncoder
from ernie_vil2.runtime_onnx import last_line

TOP_K = 10  # closest images that `compare_rankings` looks at, as many as R@10
OPSET = 17  # first version of ONNX with LayerNormalization; a newer one needs a newer onnxruntime

# Runs in a new process, since paddle2onnx ends its process at an operator that it does not know; one process for both
# towers, as importing it takes longer than a conversion. Without its optimiser: the default one lets pip install
# packages that break NumPy and OpenCV.
_CONVERT_GRAPHS = """
import os, sys, paddle2onnx

opset, *graphs = sys.argv[1:]
for graph in graphs:
    partial = f"{graph}.partial"
    paddle2onnx.export(f"{graph}.json", f"{graph}.pdiparams", partial, opset_version=int(opset), optimize_tool="None")
    os.replace(partial, f"{graph}.onnx")
"""
_AXES = {"image": ("batch", "height", "width"), "text": ("batch", "length")}  # names of the inputs' dynamic axes


class NotExportable(ValueError):  # noqa: N818  -- named by what has happened
    """A tower that cannot become a graph; the message says why."""


def require_backend(backend: str) -> None:
    """Raise MissingPackage if the packages that make and run the graphs of a backend are not installed."""
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
    """Write a model as graphs for an inference library into a new folder, which appears when it is complete.

    Args:
        model: model that runs in Paddle.
        folder: new folder.
        backend: `paddle_inference` or `onnx`.
        precision: precision of the towers. bfloat16: Paddle Inference computes the float32 graph by bfloat16 kernels;
            int8: the ONNX file has 8-bit weights in matrix products.
        inputs: real images and texts, on which the export is compared with the model.
        source: where the model came from, recorded for people.
        width: width of the embeddings, one of the model's `widths`, which keeps their first numbers; None: all.

    Returns:
        The result of `compare`, which the folder holds as well.

    Raises:
        NotExportable: a tower cannot become a graph, or the backend does not have the precision.
        ValueError: the model was not trained with this width.
        FileExistsError: `folder` exists.
        OSError: the folder cannot be written.
        MissingPackage: see `require_backend`.
    """
    require_backend(backend)
    folder = Path(folder)
    if precision not in PRECISIONS[backend]:
        supported = " or ".join(PRECISIONS[backend])
        raise NotExportable(f"{backend} computes in {supported}, not in {precision}; name another --precision or --to")
    if not isinstance(model.backend, PaddleBackend):
        raise NotExportable(f"{source or 'this model'} is an export already; name the checkpoint that it was made of")
    if folder.exists():
        raise FileExistsError(errno.EEXIST, "exists already; name a new folder", str(folder))

    full_width_backend, model = model.backend, model.with_width(width)
    with atomic_folder(folder) as new_folder, utf8_path(new_folder) as utf8_folder:
        # The graphs cut the embeddings of the full model themselves.
        save_graphs(full_width_backend, model.preprocessing, utf8_folder, width)
        if backend == "onnx":
            convert_to_onnx(utf8_folder, should_quantize=precision == "int8")

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
                "entries": model.tokenizer.num_tokens,
            },
            "inputs": INPUTS,
            "outputs": OUTPUTS,
        }
        write_json(utf8_folder / EXPORT_INFO, about)
        for name, text in model.tokenizer.files().items():
            write_text(utf8_folder / name, text)
        write_text(utf8_folder / CONFIG, dump_config(model.config))

        # Load the export as a user would, and compare its embeddings with the model's.
        exported_backend = ExportedBackend(utf8_folder, about, model.device)
        exported = ErnieViL2(exported_backend, model.tokenizer, model.config, model.batch_size)
        try:
            report = compare(model, exported, *inputs)
        except (RuntimeError, ValueError) as error:  # the errors of Paddle and onnxruntime derive from these
            raise NotExportable(f"the graphs for {backend} do not run: {last_line(error)}") from error
        write_json(utf8_folder / PARITY, report)
        write_integrity(utf8_folder, sorted(path.name for path in utf8_folder.iterdir()))
        if model.calibration:
            # After the integrity file, which must not list it: a new calibration may replace it later.
            calibration = dataclasses.replace(model.calibration, fingerprint=exported.fingerprint)
            write_calibration(calibration, utf8_folder)
    return report


def compare(
    model: ErnieViL2, exported: ErnieViL2, images: Sequence[ImageLike], texts: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Measure how far the embeddings of an export are from those of the model.

    Returns:
        For `images` and for `texts`, if there are any: `num_inputs`, `max_difference` between two numbers, and
        `min_cosine` between two embeddings. If there are both, `top_10` from `compare_rankings`.
    """
    report: dict[str, dict[str, float]] = {}
    embeddings = {}
    for side, inputs in (("images", images), ("texts", texts)):
        if not len(inputs):
            continue
        expected = getattr(model, f"encode_{side}")(inputs)
        actual = getattr(exported, f"encode_{side}")(inputs)
        embeddings[side] = expected, actual
        report[side] = {
            "num_inputs": len(inputs),
            "max_difference": float(np.abs(expected - actual).max()),
            "min_cosine": float((expected * actual).sum(axis=1).min()),
        }
    if len(embeddings) == 2:
        report["top_10"] = compare_rankings(embeddings["images"], embeddings["texts"])
    return report


def compare_rankings(images: Sequence[np.ndarray], texts: Sequence[np.ndarray]) -> dict[str, float]:
    """Compare the ten images closest to each text in two backends.

    Args:
        images: embeddings of the images in both backends, `[N, D]` each.
        texts: embeddings of the texts in both backends, `[M, D]` each.

    Returns:
        `same_images`: share of the texts with the same ten images; `same_order`: also in the same order;
        `mean_overlap`: share of the ten images that both backends find, mean over the texts.
    """
    closest = []
    for image_embeddings, text_embeddings in zip(images, texts, strict=True):
        scores = text_embeddings @ image_embeddings.T
        closest.append(np.argsort(-scores, axis=1, kind="stable")[:, :TOP_K])
    expected, actual = closest
    overlaps = [len(np.intersect1d(*rows)) / len(rows[0]) for rows in zip(expected, actual, strict=True)]
    return {
        "same_images": float((np.array(overlaps) == 1).mean()),
        "same_order": float((expected == actual).all(axis=1).mean()),
        "mean_overlap": float(np.mean(overlaps)),
    }


def save_graphs(backend: PaddleBackend, preprocessing: Preprocessing, folder: Path, width: int | None = None) -> None:
    """Write the graphs of both towers into a folder; `width` cuts embeddings to their first numbers.

    Raises:
        NotExportable: the code of a tower cannot be traced.
        OSError: a file cannot be written completely.
    """
    model = backend.model
    size = None if preprocessing.kind == "naflex" else preprocessing.size  # NaFlex: any height and width
    image_spec = InputSpec([None, size, size, 3], "uint8", INPUTS["image"])
    text_spec = InputSpec([None, None], "int64", INPUTS["text"])
    graphs = {
        "image": (_ImageGraph(model, preprocessing, width), image_spec),
        "text": (_TextGraph(model, width), text_spec),
    }
    # Dropout and batch norms must be traced as in evaluation.
    was_training = model.training
    for tower, (layer, spec) in graphs.items():
        layer.eval()
        try:
            with suppress_output(), warnings.catch_warnings(action="ignore"), tracing():
                static = paddle.jit.to_static(layer, input_spec=[spec], full_graph=True)
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
    def __init__(self, model: DualEncoder, preprocessing: Preprocessing, width: int | None):
        super().__init__()
        self.model, self.mean, self.std, self.width = model, preprocessing.mean, preprocessing.std, width

    def forward(self, pixels: paddle.Tensor) -> paddle.Tensor:
        return self.model.encode_image(normalize_images(pixels, self.mean, self.std), self.width)


class _TextGraph(nn.Layer):
    def __init__(self, model: DualEncoder, width: int | None):
        super().__init__()
        self.model, self.width = model, width

    def forward(self, token_ids: paddle.Tensor) -> paddle.Tensor:
        return self.model.encode_text(token_ids, self.width)


def convert_to_onnx(folder: Path, should_quantize: bool) -> None:
    """Convert the graphs in a folder to `image.onnx` and `text.onnx`, and remove the former.

    Args:
        folder: folder of the graphs.
        should_quantize: whether weights of matrix products become 8-bit integers.

    Raises:
        NotExportable: an operator has no counterpart in ONNX.
        OSError: the disk is full.
    """
    import onnx

    command = [sys.executable, "-c", _CONVERT_GRAPHS, str(OPSET), *(str(folder / tower) for tower in INPUTS)]
    child = subprocess.run(command, capture_output=True, text=True, errors="replace")  # noqa: S603  -- this Python, with code of ours
    for tower in INPUTS:
        path = folder / f"{tower}.onnx"
        if not path.exists():
            if "Errno 28" in child.stderr:  # no space left on the device
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            raise NotExportable(f"the {tower} tower cannot become ONNX: {last_line(child.stdout + child.stderr)}")
        # The ONNX file replaces Paddle's graph.
        for suffix in ("json", "pdiparams"):
            (folder / f"{tower}.{suffix}").unlink()

        model = onnx.load(str(path))
        _name_values(model.graph, tower)
        _constants_to_initializers(model.graph)
        onnx.save(model, str(path))
        if should_quantize:
            _quantize(path)
        onnx.checker.check_model(str(path))


def _name_values(graph: Any, tower: str) -> None:
    """Name the output of a graph, which paddle2onnx calls fetch_name_0, and the dynamic axes."""
    # The names that ONNX Runtime's callers use, see `INPUTS` and `OUTPUTS`.
    (graph_input,), (graph_output,) = graph.input, graph.output
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == graph_output.name:
                    names[position] = OUTPUTS[tower]
    graph_output.name = OUTPUTS[tower]
    for value, axes in ((graph_input, _AXES[tower]), (graph_output, ("batch",))):
        for dimension, axis in zip(value.type.tensor_type.shape.dim, axes, strict=False):
            if dimension.dim_value <= 0:  # the sides of a square input are fixed
                dimension.dim_param = axis


def _constants_to_initializers(graph: Any) -> None:
    """Turn weights, which paddle2onnx writes as nodes, into initializers: quantisation and runtimes expect these."""
    constants = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    for node in constants:
        tensor = graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        graph.node.remove(node)


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
