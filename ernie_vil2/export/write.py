"""From a model to an exported folder, and how far the one's embeddings are from the other's."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.backends import Eager
from ernie_vil2.backends.exported import Exported
from ernie_vil2.config import dump_config
from ernie_vil2.device.extras import require
from ernie_vil2.encoder import ErnieViL2, ImageLike
from ernie_vil2.export.graphs import NotExportable, convert, save_graphs
from ernie_vil2.io.calibration import write_calibration
from ernie_vil2.io.export_folder import ABOUT, CONFIG, INPUTS, OUTPUTS, PARITY, PRECISIONS, VERSION, named_in_utf8
from ernie_vil2.io.files import atomic_folder, write_checksums, write_json, write_text
from ernie_vil2.runtime_onnx import reason

TOP = 10


def require_backend(backend: str) -> None:
    """MissingPackage if what makes and runs the graphs of a backend is not installed."""
    if backend == "onnx":
        require("an ONNX export", "paddle2onnx", "onnx", "onnxruntime")


def export(
    model: ErnieViL2,
    folder: str | Path,
    backend: str,
    precision: str = "float32",
    images: Sequence[ImageLike] = (),
    texts: Sequence[str] = (),
    source: str = "",
    width: int | None = None,
) -> dict[str, Any]:
    """Writes a model as graphs for an inference library, into a new folder that appears when it is whole.

    Args:
        backend: `paddle_inference` or `onnx`.
        precision: in which the towers compute: bfloat16 is computed by Paddle Inference's kernels from a graph in
            float32; int8 are the weights of matrix products in the ONNX file.
        images, texts: real inputs, on which the export is compared with the model.
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
    if not isinstance(model.backend, Eager):
        raise NotExportable(f"{source or 'this model'} is an export already; name the checkpoint that it was made of")
    if folder.exists():
        raise FileExistsError(errno.EEXIST, "is there already; name a new folder", str(folder))
    whole, model = model.backend, model.narrowed(width)
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
            "preprocessing": model.preprocessing.described(),
            "tokenizer": {"rules": model.tokenizer.rules, "max_length": model.tokenizer.max_length},
            "inputs": INPUTS,
            "outputs": OUTPUTS,
        }
        write_json(aside / ABOUT, about)
        for name, text in model.tokenizer.files().items():
            write_text(aside / name, text)
        write_text(aside / CONFIG, dump_config(model.config))
        exported = ErnieViL2(Exported(aside, about, model.device), model.tokenizer, model.config, model.batch_size)
        try:
            report = compare(model, exported, images, texts)
        except (RuntimeError, ValueError) as error:  # Paddle's and onnxruntime's own are of these
            raise NotExportable(f"the graphs for {backend} do not run: {reason(error)}") from error
        write_json(aside / PARITY, report)
        write_checksums(aside, sorted(path.name for path in aside.iterdir()))
        if model.calibration:  # after the checksums: it may be found again
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
