"""Classifiers on the embeddings of a dual encoder (paper, appendix C)."""

from collections.abc import Callable, Collection, Sequence
from itertools import combinations

import numpy as np
import paddle
from paddle import nn

from ernie_vil2.config import HeadConfig, ModelConfig
from ernie_vil2.device.cpu_kernels import speed_up
from ernie_vil2.device.mixed_precision import keep_maps_narrow
from ernie_vil2.models.dual_encoder import DualEncoder, list_projected_towers

HEAD_PREFIX = "head."  # of the names of the head's parameters in the model
BATCH_SIZE = 4096  # embeddings classified at once; bounds the memory of the MLP's hidden layer


class EntailmentHead(nn.Layer):
    """Classifier that scores each label of a text about one image, or about a left and a right image.

    With `kind` "concatenation", as in the paper, an MLP reads the embeddings side by side; the embeddings of two images
    first pass an MLP that combines them into one. With `kind` "interaction", the MLP also reads the absolute difference
    and the product of every two embeddings.

    Args:
        embed_dim: D, width of the embeddings.
        num_images: one or two.
        num_labels: number of labels to score.
        config: kind, width and dropout of the MLPs.
    """

    def __init__(self, embed_dim: int, num_images: int, num_labels: int, config: HeadConfig):
        super().__init__()
        self.has_interaction, self.num_labels = config.kind == "interaction", num_labels
        # The coordinates of a unit vector have a size of 1 / sqrt(D); times this they are about 1, as the initial
        # weights of the MLPs expect.
        self.scale = embed_dim**0.5
        # Embeddings side by side: of the images and of the text, unless the images are combined first.
        num_inputs = num_images + 1
        self.pair = None
        if self.has_interaction:
            num_inputs += num_inputs * (num_inputs - 1)  # two features for each pair
        elif num_images > 1:
            self.pair, num_inputs = _build_mlp(num_images * embed_dim, embed_dim, embed_dim, config.dropout), 2
        width = config.width or 2 * embed_dim
        self.classifier = _build_mlp(num_inputs * embed_dim, width, num_labels, config.dropout)

    def forward(self, images: Sequence[paddle.Tensor], text: paddle.Tensor) -> paddle.Tensor:
        """Return `[B, num_labels]` logits for L2-normalised `[B, D]` embeddings of each image and of the text."""
        # The head computes in float32, the precision of the embeddings, even under AMP.
        with paddle.amp.auto_cast(enable=False):
            inputs = [embedding * self.scale for embedding in (*images, text)]
            if self.pair is not None:
                inputs = [self.pair(paddle.concat(inputs[:-1], axis=1)), inputs[-1]]
            if self.has_interaction:
                pairs = list(combinations(inputs, 2))
                inputs += [(left - right).abs() for left, right in pairs]
                inputs += [left * right for left, right in pairs]
            return self.classifier(paddle.concat(inputs, axis=1))


def _build_mlp(in_width: int, width: int, out_width: int, dropout: float) -> nn.Layer:
    return nn.Sequential(
        nn.Linear(in_width, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, out_width)
    )


class EntailmentClassifier(DualEncoder):
    """Dual encoder with a classification head; its embeddings remain usable on their own.

    The temperature is frozen, because the loss of the labels does not depend on it.
    """

    def __init__(
        self,
        image: nn.Layer,
        text: nn.Layer,
        embed_dim: int,
        head: EntailmentHead,
        projected_towers: Collection[str] = (),
    ):
        super().__init__(image, text, embed_dim, projected_towers=projected_towers)
        self.head = head
        self.log_logit_scale.stop_gradient = True

    def forward(
        self,
        views: dict[str, paddle.Tensor],
        normalize: Callable[[paddle.Tensor], paddle.Tensor] | None = None,
    ) -> tuple[dict[str, paddle.Tensor], dict[str, paddle.Tensor]]:
        """Classify the text `text_1` about the image `image_1`, or about `image_1` and `image_2`.

        Returns:
            `logits`, `[B, num_labels]`, and no scalars.
        """
        embeddings, _ = super().forward(views, normalize)
        text = embeddings.pop("text_1")
        return {"logits": self.head(list(embeddings.values()), text)}, {}

    @paddle.no_grad()
    def compute_label_logits(self, images: Sequence[np.ndarray], texts: np.ndarray) -> np.ndarray:
        """Return `[N, num_labels]` logits for computed embeddings, `[N, D]` for each image and for the text."""
        logits = [np.empty([0, self.head.num_labels], np.float32)]
        for start in range(0, len(texts), BATCH_SIZE):
            rows = slice(start, start + BATCH_SIZE)
            image_tensors = [paddle.to_tensor(embeddings[rows]) for embeddings in images]
            logits.append(self.head(image_tensors, paddle.to_tensor(texts[rows])).numpy())
        return np.concatenate(logits)


def build_classifier(
    config: ModelConfig, head: HeadConfig, vocab_size: int, num_images: int, num_labels: int
) -> EntailmentClassifier:
    """Build randomly initialised towers with a head for this number of images and labels."""
    image, text = config.image.build(), config.text.build(vocab_size)
    embed_dim = config.embed_dim or text.width
    classifier = EntailmentHead(embed_dim, num_images, num_labels, head)
    model = EntailmentClassifier(image, text, embed_dim, classifier, list_projected_towers(config))
    keep_maps_narrow(model)
    speed_up(model)
    return model
