"""A dual encoder with its tokenizer and preprocessing: images and texts to embeddings."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from PIL import Image
from tqdm import tqdm

from ernie_vil2.backends import Engine
from ernie_vil2.config import Config
from ernie_vil2.data.preprocessing import Preprocessing
from ernie_vil2.data.samples import BadSample, Reason
from ernie_vil2.data.source_files import read_file
from ernie_vil2.data.tokenizer import Tokenizer
from ernie_vil2.device import cpu
from ernie_vil2.io.calibration import Calibration

ImageLike = str | os.PathLike | bytes | Image.Image | np.ndarray
"""An image file's path or bytes, a Pillow image, or `[H, W, 3]` uint8 RGB."""


class EncodedImages(NamedTuple):
    """N images of which M could be used.

    embeddings: `[M, D]` float32, L2-normalised, in the order of the images.
    rows: `[M]` int64, the number of each among the N.
    skipped: why the others could not be used, by their number.
    """

    embeddings: np.ndarray
    rows: np.ndarray
    skipped: dict[int, BadSample]


class Ranking(NamedTuple):
    """How N images and M texts match.

    scores: `[N, M]` float32, `logit_scale` times the cosine of the embeddings, and `logit_bias` where there is one.
    probabilities: `[N, M]` float32, softmax of an image's scores over the texts; of a model trained by the sigmoid loss
        the sigmoid of each score, so that an image may match several texts or none. Of a calibrated model the softmax
        has the calibration's logit scale, and a text whose cosine is below its threshold has probability 0: a row of
        zeros says that nothing matches.
    """

    scores: np.ndarray
    probabilities: np.ndarray


class ErnieViL2:
    """Encodes images and texts in batches.

    `load_model` makes one from a file, a folder or a known name. During training it stands on the live model.

    Args:
        engine: computes the two towers.
        tokenizer: the one they were trained with.
        config: theirs; `Model.image` says how images are preprocessed.
        batch_size: rows encoded at once.

    Attributes:
        calibration: what the scores mean, where `tools/calibrate.py` has left it beside the weights; else None.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer, config: Config, batch_size: int = 64):
        self.calibration: Calibration | None = None
        self.labels: tuple[str, ...] = ()
        self.engine = engine
        self.tokenizer = tokenizer
        self.config = config
        self.preprocessing = Preprocessing.of(config.Model.image)
        self.batch_size = batch_size

    def __repr__(self) -> str:
        image, text = self.config.Model.image, self.config.Model.text
        return (
            f"<ErnieViL2: images of {image.image_size} pixels by {image.name}, texts of {self.tokenizer.max_length} "
            f"tokens by {text.name}, embeddings of {self.embed_dim} numbers; {self.engine}>"
        )

    @property
    def embed_dim(self) -> int:
        """D, the width of the embeddings."""
        return self.engine.embed_dim

    @property
    def logit_scale(self) -> float:
        """By which the cosine of two embeddings is multiplied to a score, 1 / tau of equation 1."""
        return self.engine.scalars["logit_scale"]

    @property
    def device(self) -> str:
        """Where the weights are and rows are encoded: `cpu`, `gpu:0`, ..."""
        return self.engine.device

    @property
    def precision(self) -> str:
        """In which the towers compute: float32, bfloat16, ...; embeddings are float32."""
        return self.engine.precision

    @overload
    def encode_images(
        self,
        images: Iterable[ImageLike],
        batch_size: int | None = None,
        *,
        progress: bool = False,
        on_error: Literal["raise"] = "raise",
    ) -> np.ndarray: ...

    @overload
    def encode_images(
        self,
        images: Iterable[ImageLike],
        batch_size: int | None = None,
        *,
        progress: bool = False,
        on_error: Literal["skip"],
    ) -> EncodedImages: ...

    def encode_images(
        self,
        images: Iterable[ImageLike],
        batch_size: int | None = None,
        *,
        progress: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> np.ndarray | EncodedImages:
        """N images to `[N, D]` float32, L2-normalised. They are decoded on threads while others are encoded.

        Args:
            images: paths, bytes, Pillow images or arrays; see `ImageLike`.
            batch_size: rows encoded at once; None: the model's own `batch_size`.
            progress: show a bar.
            on_error: what becomes of an image that cannot be used: "raise" its error, or "skip" it.

        Returns:
            The embeddings; with on_error="skip" an `EncodedImages` with those of the images that could be used.

        Raises:
            BadSample: a file or its bytes are not an image; the message names it. Only with on_error="raise".
        """
        _no_single(images, "encode_images", "image")
        if on_error not in ("raise", "skip"):
            raise ValueError(f'on_error is {on_error!r}; "raise" and "skip" are known')
        size = batch_size or self.batch_size
        rows: list[int] = []
        skipped: dict[int, BadSample] = {}

        def usable(bar: tqdm) -> Iterator[np.ndarray]:
            with closing(self._decoded(images, ahead=2 * size)) as decoded:
                for row, found in enumerate(decoded):
                    bar.update()
                    if not isinstance(found, BadSample):
                        rows.append(row)
                        yield found
                    elif on_error == "raise":
                        raise found
                    else:
                        skipped[row] = found

        with _bar(images, "image", progress) as bar:
            embeddings = self._in_batches(usable(bar), size, lambda rows: self.engine.encode_pixels(np.stack(rows)))
        return embeddings if on_error == "raise" else EncodedImages(embeddings, np.array(rows, np.int64), skipped)

    def encode_texts(
        self, texts: Iterable[str], batch_size: int | None = None, *, progress: bool = False
    ) -> np.ndarray:
        """N texts to `[N, D]` float32, L2-normalised; see `encode_images`."""
        _no_single(texts, "encode_texts", "text")
        with _bar(texts, "text", progress) as bar:
            return self._in_batches(
                texts,
                batch_size,
                lambda rows: self.engine.encode_ids(self.tokenizer(rows)),
                lambda rows: bar.update(len(rows)),
            )

    def encode_pixels(self, pixels: np.ndarray, batch_size: int | None = None) -> np.ndarray:
        """What `preprocess` gave, `[N, S, S, 3]` uint8, to `[N, D]` float32, L2-normalised."""
        return self._in_batches(pixels, batch_size, lambda rows: self.engine.encode_pixels(np.stack(rows)))

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
                image = read_file(Path(image))
            except FileNotFoundError as error:
                raise BadSample(Reason.MISSING_IMAGE, name) from error
        return self.preprocessing(image, name)

    def rank(self, images: Iterable[ImageLike], texts: Iterable[str]) -> Ranking:
        """Scores every image against every text; see `Ranking`."""
        scalars, calibration = self.engine.scalars, self.calibration
        cosines = self.encode_images(images) @ self.encode_texts(texts).T
        scores = cosines * scalars["logit_scale"]
        if "logit_bias" in scalars:
            scores += scalars["logit_bias"]
            probabilities = 1 / (1 + np.exp(-scores))
        else:
            logits = cosines * calibration.logit_scale if calibration else scores
            weights = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
            probabilities = weights / weights.sum(axis=1, keepdims=True)
        if calibration:
            probabilities[cosines < calibration.thresholds["image_to_text"].cosine] = 0
        return Ranking(scores, probabilities)

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change with the weights, the tokenizer or the preprocessing; for caches.

        An export in float32 has that of its checkpoint.
        """
        # Where vocabulary and initial weights came from says nothing that their content does not. What is as by default
        # is left out, so that settings of later versions change no fingerprint of today.
        skip: dict[str, Any] = {"weights": True, "like": True, "image": {"weights"}, "text": {"weights", "vocabulary"}}
        parts = {
            "tokens": self.tokenizer.tokens,
            "rules": self.tokenizer.rules,
            "max_length": self.tokenizer.max_length,
            "preprocessing": dataclasses.asdict(self.preprocessing),
            "precision": self.precision,
            "model": self.config.Model.model_dump(exclude=skip, exclude_defaults=True),
            "weights": self.engine.digest(),
        }
        return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()

    def _decoded(self, images: Iterable[ImageLike], ahead: int) -> Generator[np.ndarray | BadSample, None, None]:
        """What `preprocess` makes of each image, in their order; up to `ahead` images before they are asked for."""

        def attempt(row: int, image: ImageLike) -> np.ndarray | BadSample:
            try:
                return self.preprocess(image, f"image {row}")
            except BadSample as bad:
                return BadSample(bad.reason, bad.name)  # the frames of the one raised hold the picture

        pool, waiting = ThreadPoolExecutor(min(8, cpu.usable_cores())), deque[Future[np.ndarray | BadSample]]()
        try:
            for row, image in enumerate(images):
                waiting.append(pool.submit(attempt, row, image))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _in_batches(
        self,
        rows: Iterable[Any],
        batch_size: int | None,
        encode: Callable[[list[Any]], np.ndarray],
        done: Callable[[list[Any]], None] = lambda rows: None,
    ) -> np.ndarray:
        size = batch_size or self.batch_size
        rows = iter(rows)
        embeddings = [np.empty([0, self.embed_dim], np.float32)]
        while batch := list(islice(rows, size)):
            embeddings.append(encode(batch))
            done(batch)
        return np.concatenate(embeddings)


def _no_single(values: Any, method: str, kind: str) -> None:
    if isinstance(values, str | os.PathLike | bytes | Image.Image):
        raise TypeError(f"{method} takes a list; for a single {kind} write {method}([{kind}])")


def _bar(rows: Iterable[Any], unit: str, shown: bool) -> tqdm:
    return tqdm(total=len(rows) if isinstance(rows, Sized) else None, unit=unit, disable=not shown)
