"""A trained dual encoder with its tokenizer and preprocessing: images and texts to embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import paddle

from ernie_vil2 import runtime
from ernie_vil2.config import load_config
from ernie_vil2.data.tokenizer import Tokenizer
from ernie_vil2.models import DualEncoder, build_dual_encoder, load_weights
from ernie_vil2.views import normalize_images


class Encoder:
    """Encodes in batches, without dropout and without gradient.

    Args:
        model: the two towers.
        tokenizer: the one it was trained with.
        image_size: side of the image input in pixels.
        batch_size: rows encoded at once.
    """

    def __init__(self, model: DualEncoder, tokenizer: Tokenizer, image_size: int, batch_size: int = 256):
        self.model = model
        self.tokenizer = tokenizer
        self.image_size = image_size
        self.batch_size = batch_size

    @classmethod
    def load(cls, path: str | Path, batch_size: int = 256, device: str = "auto") -> Encoder:
        """From a checkpoint folder, or from a run folder: then its newest checkpoint.

        Args:
            device: auto, cpu, gpu, gpu:0, ...; auto: GPU where Paddle has one.

        Raises:
            FileNotFoundError: there is no checkpoint at `path`.
            ValueError: its weights are not whole, or not those of its configuration.
        """
        folder = checkpoint_folder(path)
        runtime.set_device(device)
        config = load_config(folder / "config.yaml")
        tokenizer = Tokenizer(config.Model.text.vocabulary, config.Data.max_length)
        model = build_dual_encoder(config.Model, tokenizer.vocab_size, config.Loss.temperature)
        load_weights(model, folder / "model.safetensors")
        return cls(model, tokenizer, config.Model.image.image_size, batch_size)

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        """`[N, image_size, image_size, 3]` uint8 to `[N, D]` float32, L2-normalised."""
        with self._evaluating():
            return _joined(
                self.model.encode_image(normalize_images(paddle.to_tensor(images[start : start + self.batch_size])))
                for start in range(0, len(images), self.batch_size)
            )

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts to `[N, D]` float32, L2-normalised."""
        with self._evaluating():
            return _joined(
                self.model.encode_text(paddle.to_tensor(self.tokenizer(texts[start : start + self.batch_size])))
                for start in range(0, len(texts), self.batch_size)
            )

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


def checkpoint_folder(path: str | Path) -> Path:
    """The checkpoint at `path`, or the newest one of the run at `path`; FileNotFoundError if there is none."""
    path = Path(path)
    candidates = [path, *sorted(path.glob("checkpoints/step_*"), reverse=True)]
    for folder in candidates:
        if (folder / "model.safetensors").is_file() and (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(f"{path}: no checkpoint here; give a run folder or one of its checkpoints/step_... folders")


def _joined(parts: Iterator[paddle.Tensor]) -> np.ndarray:
    return np.concatenate([part.numpy() for part in parts])
