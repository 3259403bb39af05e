"""Classifiers on the embeddings of a dual encoder (paper, appendix C)."""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import paddle
from paddle import nn

from ernie_vil2.config import HeadConfig, ModelConfig
from ernie_vil2.device.cpu_kernels import speed_up
from ernie_vil2.models.dual_encoder import DualEncoder

HEAD = "head."  # what the names of its parameters begin with, in the model
ROWS = 4096  # rows of embeddings that are classified at once


class EntailmentHead(nn.Layer):
    """Scores the labels that a text can have to an image, or to a left and a right one.

    As in the paper (`kind` "concatenation"): an MLP on the embeddings side by side; those of two images first pass
    an MLP that makes one of them. With `kind` "interaction": on the embeddings side by side and, for every two of
    them, their absolute difference and their product.

    Args:
        embed_dim: D, width of the embeddings.
        images: one or two.
        labels: how many there are.
    """

    def __init__(self, embed_dim: int, images: int, labels: int, config: HeadConfig):
        super().__init__()
        self.interaction, self.labels = config.kind == "interaction", labels
        self.scale = embed_dim**0.5  # to numbers of size 1, as the layers that follow expect
        sides = images + 1
        width = config.width or 2 * embed_dim
        self.pair = None
        if self.interaction:
            sides += sides * (sides - 1)
        elif images > 1:
            self.pair, sides = _mlp(images * embed_dim, embed_dim, embed_dim, config.dropout), 2
        self.classifier = _mlp(sides * embed_dim, width, labels, config.dropout)

    def forward(self, images: Sequence[paddle.Tensor], text: paddle.Tensor) -> paddle.Tensor:
        """`[B, D]` embeddings of each image and of the text, L2-normalised, to `[B, labels]` in their precision."""
        with paddle.amp.auto_cast(enable=False):
            sides = [embedding * self.scale for embedding in (*images, text)]
            if self.pair is not None:
                sides = [self.pair(paddle.concat(sides[:-1], axis=1)), sides[-1]]
            if self.interaction:
                pairs = list(combinations(sides, 2))
                sides += [(one - other).abs() for one, other in pairs] + [one * other for one, other in pairs]
            return self.classifier(paddle.concat(sides, axis=1))


def _mlp(inputs: int, width: int, outputs: int, dropout: float) -> nn.Layer:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, outputs)
    )


class EntailmentClassifier(DualEncoder):
    """A dual encoder with a head; it remains one, with embeddings of its own.

    The temperature stays as it is: no label asks for it.
    """

    def __init__(self, image: nn.Layer, text: nn.Layer, embed_dim: int, head: EntailmentHead):
        super().__init__(image, text, embed_dim)
        self.head = head
        self.log_logit_scale.stop_gradient = True

    def forward(
        self,
        views: dict[str, paddle.Tensor],
        normalize: Callable[[paddle.Tensor], paddle.Tensor] | None = None,
    ) -> tuple[dict[str, paddle.Tensor], dict[str, paddle.Tensor]]:
        """`image_1`, of two images `image_2` as well, and `text_1` to `logits` `[B, labels]`; there are no scalars."""
        embeddings, _ = super().forward(views, normalize)
        text = embeddings.pop("text_1")
        return {"logits": self.head(list(embeddings.values()), text)}, {}

    @paddle.no_grad()
    def label_logits(self, images: Sequence[np.ndarray], texts: np.ndarray) -> np.ndarray:
        """As `forward`, of embeddings that there are already, `[N, D]` each: `[N, labels]`."""
        parts = [np.empty([0, self.head.labels], np.float32)]
        for start in range(0, len(texts), ROWS):
            *sides, text = (paddle.to_tensor(side[start : start + ROWS]) for side in (*images, texts))
            parts.append(self.head(sides, text).numpy())
        return np.concatenate(parts)


def build_classifier(
    config: ModelConfig, head: HeadConfig, vocab_size: int, images: int, labels: int
) -> EntailmentClassifier:
    """The towers of `config` with a head for so many images and labels, randomly initialised."""
    image, text = config.image.build(), config.text.build(vocab_size)
    embed_dim = config.embed_dim or text.width
    model = EntailmentClassifier(image, text, embed_dim, EntailmentHead(embed_dim, images, labels, head))
    speed_up(model)
    return model
