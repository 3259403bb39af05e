"""An exported folder as the backend of an `ErnieViL2`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ernie_vil2.backends import described
from ernie_vil2.config import Config, load_config
from ernie_vil2.data.preprocessing import Geometry, Preprocessing
from ernie_vil2.device import runtime
from ernie_vil2.io.export_folder import ABOUT, AGAIN, CONFIG, BadExport, named_in_utf8, read_export
from ernie_vil2.io.terminal import silenced
from ernie_vil2.runtime_onnx import OnnxGraph, checked


class PaddleGraph:
    """One tower, as `OnnxGraph`, by Paddle Inference.

    On CPU it computes with oneDNN, and sets the threads of the whole process; bfloat16, in matrix products, needs one
    with AVX-512 (or AMX).
    """

    def __init__(self, folder: Path, tower: str, precision: str, device: str, threads: int):
        import paddle
        from paddle import inference

        config = inference.Config(str(folder / f"{tower}.json"), str(folder / f"{tower}.pdiparams"))
        config.disable_glog_info()
        if device == "cpu":
            config.disable_gpu()
            config.set_cpu_math_library_num_threads(threads)
            config.enable_mkldnn()
            if precision == "bfloat16":
                with silenced():
                    config.enable_mkldnn_bfloat16()
        else:
            kind = inference.PrecisionType.Bfloat16 if precision == "bfloat16" else inference.PrecisionType.Float32
            config.enable_use_gpu(256, int(device.partition(":")[2] or 0), kind)
        try:
            self._predictor = inference.create_predictor(config)
        except (RuntimeError, ValueError, OSError) as error:  # Paddle's own are of these
            raise BadExport(f"{folder}: Paddle {paddle.__version__} refuses the {tower} tower's graph") from error
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])
        self._lock = Lock()

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        with self._lock:
            self._input.reshape(rows.shape)
            self._input.copy_from_cpu(np.ascontiguousarray(rows))
            self._predictor.run()
            return self._output.copy_to_cpu()


LIBRARIES: dict[str, Callable[..., Callable[[np.ndarray], np.ndarray]]] = {
    "paddle_inference": PaddleGraph,
    "onnx": OnnxGraph,
}


class Exported:
    """The towers of an exported folder, see `backends.Backend`, about which `read_export` gave `about`.

    Raises:
        MissingPackage: the library is not installed.
        BadExport: it cannot use the graphs or the device; and of the two methods, if a graph does not run or gives no
            embeddings.
    """

    def __init__(self, folder: Path, about: dict[str, Any], device: str):
        self.name, self.precision, self.device = about["backend"], about["precision"], device
        self.embed_dim, self.scalars = about["embed_dim"], about["scalars"]
        self._digests = {"": about["weights"], "image": about.get("image_weights")}
        with named_in_utf8(folder) as plain:
            self.encode_pixels, self.encode_ids = (
                checked(LIBRARIES[self.name](plain, tower, self.precision, device, runtime.threads()),
                        f"{folder}: the {tower}", self.embed_dim)
                for tower in ("image", "text")
            )  # fmt: skip

    def __str__(self) -> str:
        return described(self)

    def digest(self, tower: str = "") -> str | None:
        """That of the weights that were exported: float32 embeddings are those of the checkpoint but for rounding."""
        return self._digests.get(tower)


def open_export(folder: Path, device: str | None, backend: str) -> tuple[Exported, Config]:
    """The towers of an exported folder, and its configuration.

    Args:
        device: by its name; None: Paddle's current device. For an ONNX export on CPU Paddle is not imported.
        backend: that it must be for; auto or fastest: any.

    Raises:
        MissingPackage: as `Exported`.
        BadExport: as `read_export` and `Exported`, or it is for another backend.
        ValueError: there is no such device.
    """
    about = read_export(folder)
    if backend not in ("auto", "fastest", about["backend"]):
        raise BadExport(f"{folder} is an export for {about['backend']}, not for {backend}")
    if about["backend"] == "onnx" and runtime.surely_cpu(device):
        device = "cpu"
    else:
        device = runtime.set_device(device, "this export")
    config = load_config(folder / CONFIG)
    _check_configured(folder, about, config)
    return Exported(folder, about, device), config


def _check_configured(folder: Path, about: Mapping[str, Any], config: Config) -> None:
    """BadExport where the preprocessing or the tokenizer of an export is not that of its configuration."""
    configured = {
        "preprocessing": Preprocessing.of(config.Model.image).described(),
        "tokenizer": {"max_length": config.Data.max_length, "rules": config.Model.text.tokenizer},
    }
    for section, values in configured.items():
        for key in values.keys() | (about[section].keys() & set(Geometry._fields)):
            value = values.get(key, getattr(Geometry(), key, None))
            given = about[section].get(key)
            if given != (list(value) if isinstance(value, tuple) else value):
                raise BadExport(f"{folder}: {section}.{key} is {given} in {ABOUT} and {value} in {CONFIG}: it is "
                                f"damaged; {AGAIN}")  # fmt: skip
