"""The word head in training: its targets from the texts of all ranks, and its term of the loss; see `losses.words`."""

from collections.abc import Callable, Sequence
from typing import Any

import paddle
import paddle.distributed as dist

from ernie_vil2.data.tokenizer import TextTokenizer
from ernie_vil2.losses.words import WORD_IDS, WORD_WEIGHTS, WORDS, WordHead
from ernie_vil2.models import DualEncoder
from ernie_vil2.models.dual_encoder import get_patch_width
from ernie_vil2.parallel import collectives
from ernie_vil2.tasks.contrastive_step import Losses, Tensors, Views


class Words:
    """Word head of a model, and the words of the batch that it learns from.

    Args:
        model: the dual encoder, which gets the head.
        tower_name: name of its image tower, for the error.
        tokenizer: tokenizer of the texts.

    Raises:
        ConfigError: the image tower does not return the mean of its patches.
    """

    def __init__(self, model: DualEncoder, tower_name: str, tokenizer: TextTokenizer):
        special_ids = {*tokenizer.encode(""), tokenizer.pad_id}
        if tokenizer.unknown_id is not None:
            special_ids.add(tokenizer.unknown_id)
        self._head = WordHead(get_patch_width(model.image, tower_name), tokenizer.vocab_size, special_ids)
        model.word_head = self._head
        self._counts: paddle.Tensor | None = None

    @paddle.no_grad()
    def make_targets(self, texts: Sequence[paddle.Tensor]) -> Tensors:
        """Return the words of the rows and their shares in the targets, `[b, L]`, as views of the model. A collective.

        Args:
            texts: token ids `[b, M]` of the texts drawn for each row, whose words are joined.
        """
        ids, is_first = self._head.find_words(paddle.concat(list(texts), axis=1))
        counts = self._head.count_texts(ids, is_first)
        if dist.get_world_size() > 1:
            counts = collectives.all_reduce(counts)
        self._counts = counts
        return {WORD_IDS: ids, WORD_WEIGHTS: self._head.compute_targets(ids, is_first, counts)}

    @paddle.no_grad()
    def add_batch(self) -> None:
        """Add the newest batch to the head's counts, after its update: a step that is left out does not count."""
        if self._counts is None:
            return
        frequencies, num_batches = self._head.update_frequencies(self._counts)
        self._head.frequencies.set_value(frequencies)
        self._head.num_batches.set_value(num_batches)
        self._counts = None


class LossWithWords:
    """A loss over view pairs with the words' term added; see `MultiViewLoss`.

    Args:
        loss: the loss over view pairs.
        weight: weight of the words, `Loss.weights.words`.
    """

    def __init__(self, loss: Any, weight: float):
        self.views = loss.views
        self._loss: Callable[..., Losses] = loss
        self._weight = weight

    def __call__(self, local: Views, gathered: Views, *loss_arguments: Any, **loss_inputs: paddle.Tensor) -> Losses:
        """Return the weighted sum, and the losses by name with "words" among them.

        Args:
            local: embeddings of this rank's rows, see `MultiViewLoss`, and the rows' losses of their words.
            gathered: as for `MultiViewLoss`.
            loss_arguments: the other arguments of `MultiViewLoss`.
            loss_inputs: further arguments of the loss.
        """
        total, losses = self._loss(local, gathered, *loss_arguments, **loss_inputs)
        # The divisor is the number of rows of all ranks, so that the sum over the ranks is the mean.
        words = local[WORDS].sum() / gathered["image_1"].shape[0]
        return total + self._weight * words, {**losses, WORDS: words}
