"""An exported folder as the engine of an `ErnieViL2`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ernie_vil2.backends import described
from ernie_vil2.backends.paddle_inference import PaddleGraph
from ernie_vil2.device import cpu
from ernie_vil2.io.export_folder import named_in_utf8
from ernie_vil2.runtime_onnx import OnnxGraph, checked

LIBRARIES: dict[str, Callable[..., Callable[[np.ndarray], np.ndarray]]] = {
    "paddle_inference": PaddleGraph,
    "onnx": OnnxGraph,
}


class Exported:
    """The towers of an exported folder, see `engines.Engine`.

    Args:
        folder: of the export.
        about: what `read_export` gave.
        device: `cpu`, or `gpu:0` and so on.

    Raises:
        BadExport: the library is not installed, or cannot use the graphs or the device; and of the two methods, if a
            graph does not run or gives no embeddings.
    """

    def __init__(self, folder: Path, about: dict[str, Any], device: str):
        self.name, self.precision, self.device = about["engine"], about["precision"], device
        self.embed_dim, self.scalars = about["embed_dim"], about["scalars"]
        self._weights = about["weights"]
        with named_in_utf8(folder) as plain:
            self.encode_pixels, self.encode_ids = (
                checked(LIBRARIES[self.name](plain, tower, self.precision, device, cpu.threads()),
                        f"{folder}: the {tower}", self.embed_dim)
                for tower in ("image", "text")
            )  # fmt: skip

    def __str__(self) -> str:
        return described(self)

    def digest(self) -> str:
        """That of the weights that were exported: float32 embeddings are those of the checkpoint but for rounding."""
        return self._weights
