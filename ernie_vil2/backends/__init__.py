"""What computes embeddings: a model in Paddle, or its exported towers in an inference library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ernie_vil2.config.section import Precision
from ernie_vil2.data.preprocessing import Preprocessing, normalize_images

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
    """A model as it is, without dropout and without gradient; a model in training is put back into training.

    Args:
        model: the two towers.
        preprocessing: whose mean and deviation normalise the pixels.
        precision: of the towers: float32, bfloat16 or float16.
    """

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
        made = paddle.empty(rows.shape, rows.dtype.name)
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
