"""Exported towers as backend: graphs that run in Paddle Inference or onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ernie_vil2.config import Config, load_config
from ernie_vil2.data.preprocessing import Geometry, Preprocessing, make_start_function
from ernie_vil2.device import runtime
from ernie_vil2.io.export_folder import CONFIG, EXPORT_AGAIN, EXPORT_INFO, BadExport, read_export, utf8_path
from ernie_vil2.io.terminal import suppress_output
from ernie_vil2.runtime_onnx import OnnxGraph, check_outputs


class PaddleGraph:
    """One tower in Paddle Inference; arguments and calls as in `OnnxGraph`.

    On CPU it computes with oneDNN, and sets the number of threads of the whole process. bfloat16, in matrix products,
    needs a processor with AVX-512 or AMX.
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
                with suppress_output():
                    config.enable_mkldnn_bfloat16()
        else:
            precision_type = inference.PrecisionType.Float32
            if precision == "bfloat16":
                precision_type = inference.PrecisionType.Bfloat16
            # 256 MB are the first piece of Paddle's memory pool, which grows.
            config.enable_use_gpu(256, int(device.partition(":")[2] or 0), precision_type)
        try:
            self._predictor = inference.create_predictor(config)
        except (RuntimeError, ValueError, OSError) as error:  # the classes that Paddle's own errors have
            raise BadExport(f"{folder}: Paddle {paddle.__version__} refuses the {tower} tower's graph") from error
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])
        self._lock = Lock()  # a predictor has one set of inputs and outputs

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        with self._lock:
            self._input.reshape(rows.shape)
            self._input.copy_from_cpu(np.ascontiguousarray(rows))
            self._predictor.run()
            return self._output.copy_to_cpu()


GRAPHS: dict[str, Callable[..., Callable[[np.ndarray], np.ndarray]]] = {
    "paddle_inference": PaddleGraph,
    "onnx": OnnxGraph,
}


class ExportedBackend:
    """Backend that runs the graphs of an exported folder.

    Args:
        folder: exported folder.
        about: content of its `export.json`, as `read_export` returned it.
        device: name of the device.

    Raises:
        MissingPackage: the library is not installed.
        BadExport: the library cannot use the graphs or the device. `start_pixels` and `start_ids` raise it, too, if a
            graph does not run or does not give embeddings.
    """

    def __init__(self, folder: Path, about: dict[str, Any], device: str):
        self.name, self.precision, self.device = about["backend"], about["precision"], device
        self.embed_dim = about["embed_dim"]
        self.scalars = about["scalars"]  # logit_scale, and logit_bias of a model that has one
        # Digests of all weights of the exported checkpoint, and of those of its image tower.
        self._digests = {None: about["weights"], "image": about["image_weights"]}

        open_graph = GRAPHS[self.name]
        with utf8_path(folder) as utf8_folder:
            image = open_graph(utf8_folder, "image", self.precision, device, runtime.num_threads())
            text = open_graph(utf8_folder, "text", self.precision, device, runtime.num_threads())
        # A graph has no queue: it encodes before `start_...` returns, and there is nothing to wait for later.
        self.start_pixels = make_start_function(check_outputs(image, f"{folder}: the image", self.embed_dim))
        self.start_ids = make_start_function(check_outputs(text, f"{folder}: the text", self.embed_dim))

    def __str__(self) -> str:
        return f"{self.name}, {self.precision} on {self.device}"

    def digest(self, tower: str | None = None) -> str | None:
        # The digest of the exported checkpoint and not of the graphs: embeddings of a float32 export equal those of the
        # checkpoint up to rounding, so that caches of them stay valid.
        return self._digests.get(tower)


def open_export(folder: Path, device: str | None, backend: str) -> tuple[ExportedBackend, Config, dict[str, Any]]:
    """Open an exported folder: its towers, its configuration and the content of its `export.json`.

    Args:
        folder: exported folder.
        device: name of the device; None: Paddle's current device. An ONNX export on CPU does not import Paddle.
        backend: backend that the export must be made for; auto or fastest: any.

    Raises:
        MissingPackage: as `ExportedBackend`.
        BadExport: as `read_export` and `ExportedBackend`, or the export is made for another backend.
        ValueError: there is no such device.
    """
    about = read_export(folder)
    if backend not in ("auto", "fastest", about["backend"]):
        raise BadExport(f"{folder} is an export for {about['backend']}, not for {backend}")
    if about["backend"] == "onnx" and runtime.is_surely_cpu(device):
        device = "cpu"
    else:
        device = runtime.set_device(device, "this export")
    config = load_config(folder / CONFIG, is_untrusted=True)
    _check_config(folder, about, config)
    return ExportedBackend(folder, about, device), config, about


def _check_config(folder: Path, about: Mapping[str, Any], config: Config) -> None:
    """Raise BadExport if preprocessing or tokenizer of `export.json` differ from the configuration."""
    configured_sections = {
        "preprocessing": Preprocessing.from_config(config.Model.image).as_dict(),
        "tokenizer": {"max_length": config.Data.max_length, "rules": config.Model.text.tokenizer},
    }
    default_geometry = Geometry()
    for section, configured in configured_sections.items():
        # Either side leaves out fields of the geometry that have their default: compare the fields of both.
        exported_geometry = about[section].keys() & set(Geometry._fields)
        for key in configured.keys() | exported_geometry:
            value = configured.get(key, getattr(default_geometry, key, None))
            if isinstance(value, tuple):
                value = list(value)  # as JSON has it
            exported = about[section].get(key)
            if exported != value:
                raise BadExport(
                    f"{folder}: {section}.{key} is {exported} in {EXPORT_INFO} and {value} in {CONFIG}: it is damaged; "
                    f"{EXPORT_AGAIN}"
                )
