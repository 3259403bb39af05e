"""A dual encoder with its tokenizer and preprocessing: images and texts to embeddings."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import paddle
from PIL import Image

from ernie_vil2.config import Config
from ernie_vil2.data.samples import BadSample, Reason
from ernie_vil2.data.tokenizer import Tokenizer
from ernie_vil2.models import DualEncoder
from ernie_vil2.views import Preprocessing, normalize_images

ImageLike = str | os.PathLike | bytes | Image.Image | np.ndarray
"""An image file's path or bytes, a Pillow image, or `[H, W, 3]` uint8 RGB."""


class Ranking(NamedTuple):
    """How N images and M texts match.

    scores: `[N, M]` float32, `logit_scale` times the cosine of the embeddings, and `logit_bias` where there is one.
    probabilities: `[N, M]` float32, softmax of an image's scores over the texts; of a model trained by the sigmoid loss
        the sigmoid of each score, so that an image may match several texts or none.
    """

    scores: np.ndarray
    probabilities: np.ndarray


class ErnieViL2:
    """Encodes images and texts in batches, without dropout and without gradient.

    `load_model` makes one from a file, a folder or a known name. During training it stands on the live model,
    whose mode it restores.

    Args:
        model: the two towers.
        tokenizer: the one they were trained with.
        config: theirs; `Model.image` says how images are preprocessed.
        batch_size: rows encoded at once.
    """

    def __init__(self, model: DualEncoder, tokenizer: Tokenizer, config: Config, batch_size: int = 64):
        self.model = model
        self.tokenizer = tokenizer
        self.config = config
        self.preprocessing = Preprocessing.of(config.Model.image)
        self.batch_size = batch_size

    def encode_images(self, images: Iterable[ImageLike], batch_size: int | None = None) -> np.ndarray:
        """N images to `[N, D]` float32, L2-normalised.

        Args:
            batch_size: rows encoded at once; None: the model's own `batch_size`.

        Raises:
            BadSample: a file or its bytes are not an image; the message names it.
        """
        _no_single(images, "encode_images", "image")
        numbered = enumerate(images)
        return self._in_batches(
            numbered,
            batch_size,
            lambda rows: self._encode_pixels(np.stack([self.preprocess(image, f"image {row}") for row, image in rows])),
        )

    def encode_texts(self, texts: Iterable[str], batch_size: int | None = None) -> np.ndarray:
        """N texts to `[N, D]` float32, L2-normalised; see `encode_images`."""
        _no_single(texts, "encode_texts", "text")
        return self._in_batches(
            texts, batch_size, lambda rows: self.model.encode_text(paddle.to_tensor(self.tokenizer(rows)))
        )

    def encode_pixels(self, pixels: np.ndarray, batch_size: int | None = None) -> np.ndarray:
        """What `preprocess` gave, `[N, S, S, 3]` uint8, to `[N, D]` float32, L2-normalised."""
        return self._in_batches(pixels, batch_size, lambda rows: self._encode_pixels(np.stack(rows)))

    def preprocess(self, image: ImageLike, name: str = "image") -> np.ndarray:
        """An image as the model sees it, before normalisation: `[S, S, 3]` uint8 RGB.

        Args:
            name: the image's in the error; a file is named by its path.

        Raises:
            BadSample: it is not an image, or there is no such file.
        """
        if isinstance(image, str | os.PathLike):
            name = str(image)
            try:
                image = Path(image).read_bytes()
            except FileNotFoundError as error:
                raise BadSample(Reason.MISSING_IMAGE, name) from error
            except OSError as error:
                raise BadSample(Reason.UNREADABLE_FILE, f"{name} ({error.strerror})") from error
        return self.preprocessing(image, name)

    def rank(self, images: Iterable[ImageLike], texts: Iterable[str]) -> Ranking:
        """Scores every image against every text; see `Ranking`."""
        scalars = {name: float(value) for name, value in self.model.scalars.items()}
        scores = self.encode_images(images) @ self.encode_texts(texts).T * scalars["logit_scale"]
        if "logit_bias" in scalars:
            scores += scalars["logit_bias"]
            return Ranking(scores, 1 / (1 + np.exp(-scores)))
        weights = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf))
        return Ranking(scores, weights / weights.sum(axis=1, keepdims=True))

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change with the weights, the tokenizer or the preprocessing; for caches.

        They are computed anew from the weights, about a second for 200 million parameters.
        """
        digest = blake2b(digest_size=16)
        # Where vocabulary and initial weights came from says nothing that their content does not.
        origins = {"weights": True, "image": {"weights"}, "text": {"weights", "vocabulary"}}
        parts = {
            "tokens": self.tokenizer.tokens,
            "rules": self.tokenizer.rules,
            "max_length": self.tokenizer.max_length,
            "preprocessing": dataclasses.asdict(self.preprocessing),
            "model": self.config.Model.model_dump(exclude=origins),
        }
        digest.update(json.dumps(parts, sort_keys=True).encode())
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {value.dtype} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value.numpy()))
        return digest.hexdigest()

    def _encode_pixels(self, pixels: np.ndarray) -> paddle.Tensor:
        images = normalize_images(paddle.to_tensor(pixels), self.preprocessing.mean, self.preprocessing.std)
        return self.model.encode_image(images)

    def _in_batches(
        self, rows: Iterable[Any], batch_size: int | None, encode: Callable[[list[Any]], paddle.Tensor]
    ) -> np.ndarray:
        size = batch_size or self.batch_size
        rows = iter(rows)
        embeddings = [np.empty([0, self.model.embed_dim], np.float32)]
        with self._evaluating():
            while batch := list(islice(rows, size)):
                embeddings.append(encode(batch).numpy())
        return np.concatenate(embeddings)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.model.training
        self.model.eval()
        try:
            with paddle.no_grad():
                yield
        finally:
            if was_training:
                self.model.train()


def _no_single(values: Any, method: str, kind: str) -> None:
    if isinstance(values, str | os.PathLike | bytes | Image.Image):
        raise TypeError(f"{method} takes a list; for a single {kind} write {method}([{kind}])")
