"""What applications need of a model that embeds, wherever it computes: in this process or on a server."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ernie_vil2.config.sections import ViewsConfig
from ernie_vil2.data.preprocessing import PendingEmbeddings
from ernie_vil2.io.calibration import Calibration

ImageLike = str | os.PathLike | bytes | Image.Image | np.ndarray
"""An image file's path or bytes, a Pillow image, or `[H, W, 3]` uint8 RGB."""
Images = Iterable[ImageLike]


class Encoder(Protocol):
    """A model that embeds images and texts; `ErnieViL2` is one, and `RemoteEncoder` another.

    Attributes:
        calibration: smallest cosine of a match and logit scale for probabilities; None: unknown.
        labels: labels that it gives to statements; empty: it gives none.
    """

    calibration: Calibration | None
    labels: tuple[str, ...]

    @property
    def embed_dim(self) -> int:
        """D, the width of the embeddings."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digits that change with the embeddings; for caches."""

    @property
    def device(self) -> str:
        """Device on which its embeddings should be compared: `cpu`, `gpu:0`, ..."""

    @property
    def logit_scale(self) -> float:
        """Factor from cosine similarity to score."""

    @property
    def languages(self) -> Sequence[str]:
        """Languages that it was trained on; empty: unknown."""

    @property
    def views(self) -> ViewsConfig:
        """Templates by which tags become texts for this model."""

    def with_width(self, width: int | None) -> Encoder:
        """Return this model with embeddings cut to a width that it was trained with; None: itself."""

    def preprocess(self, image: ImageLike, name: str = "image") -> Any:
        """Return the image in the form that `start_pixels` takes.

        Raises:
            BadSample: the image cannot be used; the message names its file, or else `name`.
        """

    def start_pixels(self, pixels: Sequence[Any]) -> PendingEmbeddings:
        """Start to encode N outputs of `preprocess`; return a function that waits for `[N, D]` float32, normalised."""

    def start_texts(self, texts: Sequence[str]) -> PendingEmbeddings:
        """Start to encode N texts, as `start_pixels`."""

    def encode_images(self, images: Images) -> np.ndarray:
        """Encode N images to `[N, D]` float32, L2-normalised.

        Raises:
            BadSample: an image cannot be used.
        """

    def encode_texts(self, texts: Iterable[str]) -> np.ndarray:
        """Encode N texts to `[N, D]` float32, L2-normalised."""
