"""Classification of an image by the words of its text, next to the contrast (SuperCLIP, arXiv 2512.14480).

Words are token ids; unlike in that paper, special tokens are no words.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.autograd import PyLayer
from paddle.nn import functional as F

from ernie_vil2.device.cpu_kernels import save_for_backward

WORDS = "words"  # name of the loss, and of the rows' losses among the outputs of the model
WORD_IDS, WORD_WEIGHTS = "word_ids", "word_weights"  # names of the targets among the views
# Bytes of the logits of a chunk of rows. A chunk of 839 rows for the packaged vocabulary of 39,979 tokens is enough to
# keep the matrix products of a GPU efficient; all 16,384 rows of a large batch would take 2.6 GB, three times.
MAX_LOGIT_BYTES = 2**27
# Matrices of a chunk that backward uses at once: logits, softmax, and its difference from the targets.
WORKING_MATRICES = 3


def count_rows_at_once(vocab_size: int) -> int:
    """Return how many rows' logits, of 4 bytes each, are computed at once."""
    return max(1, MAX_LOGIT_BYTES // (4 * vocab_size))


class WordHead(nn.Layer):
    """Linear classifier from the mean of an image's patches to the words of its text, in training only.

    The target of an image is a distribution over the different words of its text. A word weighs
    `idf = log((n + 1/N) / (f + 1/N))` before the weights are divided by their sum: `n` batches have been seen, this one
    of `N` texts included, and `f` is the sum over them of the share of texts with the word. A word of every text
    weighs nothing.

    Args:
        width: width of the mean of the patches.
        vocab_size: V, number of token ids.
        special_ids: ids that are no words.

    Attributes:
        frequencies: f of each id, float64 `[V]`. It is saved with the training's state, as are the weights.
        num_batches: n, float64 `[1]`.
    """

    frequencies: Tensor
    num_batches: Tensor
    is_word: Tensor

    def __init__(self, width: int, vocab_size: int, special_ids: Collection[int]):
        super().__init__()
        # Parameters of its own instead of nn.Linear, so that the patterns of Tuning.lora do not match it.
        self.weight = self.create_parameter([width, vocab_size])
        self.bias = self.create_parameter([vocab_size], is_bias=True)
        self.register_buffer("frequencies", paddle.zeros([vocab_size], "float64"))
        self.register_buffer("num_batches", paddle.zeros([1], "float64"))
        is_word = np.ones(vocab_size)
        is_word[list(special_ids)] = 0
        self.register_buffer("is_word", paddle.to_tensor(is_word), persistable=False)

    def find_words(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ids of texts `[b, L]` in ascending order, and float64 `[b, L]`: 1 where a word comes first."""
        ids = paddle.sort(ids, axis=1)
        is_first = paddle.concat([paddle.ones_like(ids[:, :1]), (ids[:, 1:] != ids[:, :-1]).astype(ids.dtype)], axis=1)
        is_word = self.is_word.gather(ids.flatten()).reshape(ids.shape)
        return ids, is_word * is_first.astype(is_word.dtype)

    def count_texts(self, ids: Tensor, is_first: Tensor) -> Tensor:
        """Return float64 `[V + 1]`: the texts with each word, then all texts; arguments are those of `find_words`."""
        # Sums of ones are exact in any order.
        counts = paddle.zeros([len(self.is_word)], is_first.dtype)
        counts = paddle.scatter_nd_add(counts, ids.flatten().unsqueeze(1), is_first.flatten())
        return paddle.concat([counts, paddle.full([1], len(ids), counts.dtype)])

    def update_frequencies(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return `frequencies` and `num_batches` with a batch added to them; nothing changes.

        Args:
            counts: sum over the ranks of `count_texts`.
        """
        return self.frequencies + counts[:-1] / counts[-1], self.num_batches + 1

    def compute_targets(self, ids: Tensor, is_first: Tensor, counts: Tensor) -> Tensor:
        """Return the share of each id in the target of its text, `[b, L]`; zeros for a text without a word.

        Args:
            ids: from `find_words`.
            is_first: from `find_words`.
            counts: sum over the ranks of `count_texts`.
        """
        frequencies, num_batches = self.update_frequencies(counts)
        smoothing = 1 / counts[-1]
        idf = ((num_batches + smoothing) / (frequencies + smoothing)).log()
        weights = idf.gather(ids.flatten()).reshape(ids.shape) * is_first
        sums = weights.sum(axis=1, keepdim=True)
        targets = weights / paddle.where(sums > 0, sums, paddle.ones_like(sums))
        return targets.astype(self.weight.dtype)

    def forward(self, patch_means: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each image's words, `[b]`.

        Args:
            patch_means: `[b, width]`.
            ids: `[b, L]`, from `find_words`.
            targets: `[b, L]`, from `compute_targets`.
        """
        # In float32 under mixed precision, too, as the contrastive loss.
        with paddle.amp.auto_cast(enable=False):
            return _CrossEntropy.apply(patch_means.astype(self.weight.dtype), self.weight, self.bias, ids, targets)


class _CrossEntropy(PyLayer):
    """Cross-entropy of sparse targets under a linear classifier; backward computes the logits again.

    Inputs are features `[b, D]`, weight `[D, V]`, bias `[V]`, ids `[b, L]` and targets `[b, L]`; the result is `[b]`.
    Only the logits of a chunk of rows are in memory.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
        losses = []
        for rows in _split_rows(features, bias):
            logits = F.linear(features[rows], weight, bias)
            # The largest logit minus the log of its softmax. On a CPU logsumexp takes longer, and cross_entropy would
            # cut a loss off at 64.
            log_sum = logits.max(axis=1, keepdim=True) - F.softmax(logits, axis=1).max(axis=1, keepdim=True).log()
            word_logits = paddle.take_along_axis(logits, ids[rows], axis=1)
            losses.append((targets[rows] * (log_sum - word_logits)).sum(axis=1))
        save_for_backward(ctx, features, weight, bias, ids, targets)
        # Paddle wants None as the gradient of an input that needs none.
        ctx.needs_gradient = [not value.stop_gradient for value in (features, weight, bias)]
        return paddle.concat(losses)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        features, weight, bias, ids, targets = ctx.saved_tensor()
        # Targets add up to 1, or to 0 in a row without words, which has no gradient.
        gradient = (gradient * (targets.sum(axis=1) > 0).astype(gradient.dtype)).unsqueeze(1)
        feature_gradients = []
        weight_gradient, bias_gradient = paddle.zeros_like(weight), paddle.zeros_like(bias)
        for rows in _split_rows(features, bias):
            # Softmax minus targets is the gradient of the logits, but for the factor of the row: multiplied with other,
            # smaller matrices.
            logits = F.linear(features[rows], weight, bias)
            differences = paddle.put_along_axis(
                F.softmax(logits, axis=1), ids[rows], -targets[rows], axis=1, reduce="add"
            )
            feature_gradients.append(gradient[rows] * paddle.matmul(differences, weight, transpose_y=True))
            weight_gradient += paddle.matmul(features[rows] * gradient[rows], differences, transpose_x=True)
            bias_gradient += paddle.matmul(differences, gradient[rows], transpose_x=True).squeeze(1)
        gradients = paddle.concat(feature_gradients), weight_gradient, bias_gradient
        needed = []
        for value, is_needed in zip(gradients, ctx.needs_gradient, strict=True):
            needed.append(value if is_needed else None)
        return *needed, None, None


def _split_rows(features: Tensor, bias: Tensor) -> Iterator[slice]:
    """Yield the rows of each chunk."""
    step = count_rows_at_once(len(bias))
    for start in range(0, len(features), step):
        yield slice(start, start + step)
