"""Export of a model: its towers as static graphs in a folder, which an inference library runs without Paddle's layers.

The graphs are for Paddle Inference or ONNX, in float32 or with 8-bit weights.

- `image.json`, `image.pdiparams`: `pixels` `[B, S, S, 3]` uint8 RGB (NaFlex: `[B, H, W, 3]` in whole patches) to
  `image_embeddings` `[B, D]` float32 of length 1. The graph normalises the pixels.
- `text.json`, `text.pdiparams`: `token_ids` `[B, L]` int64, padded, to `text_embeddings` of the same form.
- `image.onnx` and `text.onnx` are converted from these.

`export.immich` writes another layout of the same towers.
"""

import dataclasses
import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ernie_vil2.config import dump_config
from ernie_vil2.data.samples import BadSample
from ernie_vil2.encoder import ErnieViL2, ImageLike
from ernie_vil2.encoder.exports import ExportedBackend
from ernie_vil2.export.graphs import NotExportable, convert_to_onnx, get_network, make_graphs, require_onnx, save_graphs
from ernie_vil2.export.parity import compare
from ernie_vil2.io.calibration import write_calibration
from ernie_vil2.io.export_folder import CONFIG, EXPORT_INFO, INPUTS, OUTPUTS, PARITY, PRECISIONS, VERSION, utf8_path
from ernie_vil2.io.files import atomic_folder, write_integrity, write_json, write_text
from ernie_vil2.runtime_onnx import last_line

__all__ = ["NotExportable", "export", "require_backend"]


def require_backend(backend: str) -> None:
    """Raise MissingPackage if the packages that make and run the graphs of a backend are not installed."""
    if backend == "onnx":
        require_onnx()


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
        BadSample: an image of `inputs` cannot be used.
        NotExportable: a tower cannot become a graph, there is no such backend or it does not have the precision, or the
            model is an export or has cut embeddings.
        ValueError: the model was not trained with this width.
        FileExistsError: `folder` exists.
        OSError: the folder cannot be written.
        MissingPackage: see `require_backend`.
    """
    require_backend(backend)
    folder = Path(folder)
    if backend not in PRECISIONS:
        raise NotExportable(f"backend is {backend!r}; exports are made for {' or '.join(PRECISIONS)}")
    if precision not in PRECISIONS[backend]:
        supported = " or ".join(PRECISIONS[backend])
        raise NotExportable(f"{backend} computes in {supported}, not in {precision}; name another --precision or --to")
    network = get_network(model, source)
    if folder.exists():
        raise FileExistsError(errno.EEXIST, "exists already; name a new folder", str(folder))

    # The graphs cut the embeddings of the full model themselves.
    graphs = make_graphs(network, model.preprocessing, width)
    model = model.with_width(width)
    with atomic_folder(folder) as new_folder, utf8_path(new_folder) as utf8_folder:
        save_graphs(network, graphs, utf8_folder)
        if backend == "onnx":
            convert_to_onnx(graphs, utf8_folder, should_quantize=precision == "int8")

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
        except BadSample:  # an image of the caller
            raise
        except (RuntimeError, ValueError) as error:  # the errors of Paddle and onnxruntime derive from these
            raise NotExportable(f"the graphs for {backend} do not run: {last_line(error)}") from error
        write_json(utf8_folder / PARITY, report)
        write_integrity(utf8_folder, sorted(path.name for path in utf8_folder.iterdir()))
        if model.calibration:
            # After the integrity file, which must not list it: a new calibration may replace it later.
            calibration = dataclasses.replace(model.calibration, fingerprint=exported.fingerprint)
            write_calibration(calibration, utf8_folder)
    return report
