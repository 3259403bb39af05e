"""What computes embeddings: a model in Paddle, or its exported towers in an inference library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ernie_vil2.config import Config, load_config
from ernie_vil2.data.preprocessing import Geometry, Preprocessing, normalize_images
from ernie_vil2.device import runtime
from ernie_vil2.io.export_folder import ABOUT, AGAIN, CONFIG, BadExport, named_in_utf8, read_export
from ernie_vil2.io.terminal import silenced
from ernie_vil2.runtime_onnx import OnnxGraph, checked
from ernie_vil2.section import Precision

if TYPE_CHECKING:  # an export runs without Paddle
    import paddle

    from ernie_vil2.models import DualEncoder


class Backend(Protocol):
    """Two towers that compute; the backend of an `ErnieViL2`."""

    name: str
    """paddle, paddle_inference or onnx."""

    @property
    def precision(self) -> str:
        """In which it computes; embeddings are float32."""

    @property
    def device(self) -> str:
        """Where: `cpu`, `gpu:0`, ..."""

    @property
    def embed_dim(self) -> int:
        """D, the width of the embeddings."""

    @property
    def scalars(self) -> Mapping[str, float]:
        """`logit_scale`, and `logit_bias` where there is one."""

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """`[B, H, W, 3]` uint8 RGB, as the tower takes them, to `[B, D]` float32, L2-normalised."""

    def encode_ids(self, ids: np.ndarray) -> np.ndarray:
        """`[B, L]` int64 token ids, padded with 0, likewise."""

    def digest(self, tower: str = "") -> str | None:
        """Hexadecimal digits that change with the weights, or those of a tower and its projection; None: not known."""


class Eager:
    """A model as it is, without dropout and without gradient; a model in training is put back into training. Mean and
    deviation of the preprocessing normalise the pixels."""

    name = "paddle"

    def __init__(self, model: DualEncoder, preprocessing: Preprocessing, precision: Precision = "float32"):
        self.model, self.precision = model, precision
        self._mean, self._std = preprocessing.mean, preprocessing.std

    def __str__(self) -> str:
        parameters = sum(parameter.size for parameter in self.model.parameters())
        return f"{parameters:,} parameters, {self.precision} on {self.device}"

    @property
    def embed_dim(self) -> int:
        return self.model.embed_dim

    @property
    def device(self) -> str:
        device = self._device
        return f"gpu:{device.gpu_device_id()}" if device.is_gpu_place() else "cpu"

    @property
    def scalars(self) -> dict[str, float]:
        return {name: value.numpy().item() for name, value in self.model.scalars.items()}

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        with self._evaluating():
            images = normalize_images(self._tensor(pixels), self._mean, self._std)
            return self.model.encode_image(images).numpy()

    def encode_ids(self, ids: np.ndarray) -> np.ndarray:
        with self._evaluating():
            return self.model.encode_text(self._tensor(ids)).numpy()

    def digest(self, tower: str = "") -> str:
        """Computed again from the weights, about a second for 200 million parameters."""
        digest = blake2b(digest_size=16)
        for name, value in sorted(self.model.state_dict().items()):
            if not name.startswith(tower):
                continue
            digest.update(f"{name} {value.dtype} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value.numpy()).data)
        return digest.hexdigest()

    @property
    def _device(self) -> Any:
        return self.model.log_logit_scale.place

    def _tensor(self, rows: np.ndarray) -> paddle.Tensor:
        import paddle

        if not self._device.is_cpu_place():
            return paddle.to_tensor(rows, place=self._device)
        # Of each tensor that it makes of an array, Paddle 3.3 keeps a list for good: 11 MB in 100,000 requests.
        made = paddle.empty(rows.shape, rows.dtype.type)
        made.get_tensor().set(np.ascontiguousarray(rows), paddle.CPUPlace())
        return made

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        import paddle

        was_training, reduced = self.model.training, self.precision != "float32"
        self.model.eval()
        try:
            with (
                paddle.no_grad(),
                paddle.amp.auto_cast(enable=reduced, dtype=self.precision if reduced else "float16"),
            ):
                yield
        finally:
            if was_training:
                self.model.train()


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
    """The towers of an exported folder, see `Backend`, about which `read_export` gave `about`.

    Raises:
        MissingPackage: the library is not installed.
        BadExport: it cannot use the graphs or the device; and of the two methods, if a graph does not run or gives no
            embeddings.
    """

    def __init__(self, folder: Path, about: dict[str, Any], device: str):
        self.name, self.precision, self.device = about["backend"], about["precision"], device
        self.embed_dim, self.scalars = about["embed_dim"], about["scalars"]
        self._digests = {"": about["weights"], "image": about["image_weights"]}
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


def open_export(folder: Path, device: str | None, backend: str) -> tuple[Exported, Config, dict[str, Any]]:
    """The towers of an exported folder, its configuration, and what its `export.json` says.

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
    config = load_config(folder / CONFIG, is_strangers=True)
    _check_configured(folder, about, config)
    return Exported(folder, about, device), config, about


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


class Narrowed:
    """The first `width` numbers of another backend's embeddings, L2-normalised again."""

    def __init__(self, backend: Backend, width: int):
        self.whole, self.embed_dim = backend, width
        self.name, self.digest = backend.name, backend.digest

    def __str__(self) -> str:
        return str(self.whole)

    @property
    def precision(self) -> str:
        return self.whole.precision

    @property
    def device(self) -> str:
        return self.whole.device

    @property
    def scalars(self) -> Mapping[str, float]:
        return self.whole.scalars

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        return prefixes(self.whole.encode_pixels(pixels), self.embed_dim)

    def encode_ids(self, ids: np.ndarray) -> np.ndarray:
        return prefixes(self.whole.encode_ids(ids), self.embed_dim)


def prefixes(embeddings: np.ndarray, width: int) -> np.ndarray:
    """The first numbers of embeddings `[N, D]`, L2-normalised again: `[N, width]`."""
    cut = embeddings[:, :width]
    return cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)


def described(backend: Backend) -> str:
    """A backend as it is shown: paddle, float32 on cpu."""
    return f"{backend.name}, {backend.precision} on {backend.device}"
