"""The multi-view loss: a weighted sum over view pairs (arXiv 2209.15270, equation 2)."""

from ernie_vil2.config.view_names import PAIRS

from .duplicates import DUPLICATES
from .info_nce import InfoNCE
from .sigmoid import SigmoidLoss

PAIR_LOSSES = {"info_nce": InfoNCE, "sigmoid": SigmoidLoss}
"""What one view pair costs, by `Loss.kind`: the paper's equation 1, or the sigmoid loss of SigLIP."""


def build_loss(config):
    """The loss that the section `Loss` of a configuration describes."""
    return MultiViewLoss(config.weights.model_dump(), config.duplicates, config.tile, config.kind)


class MultiViewLoss:
    """Equation 2 of arXiv 2209.15270 over the view pairs whose weight is not zero.

    Args:
        weights: the paper's lambda of each pair in `PAIRS`; a pair that is left out weighs zero.
        duplicates: what rows with the same image or text are to each other; see `info_nce`.
        tile: rows and columns of the tiles in which the logits are computed (see `losses.tiled`); None: all at once.
        kind: the loss of a pair, by its name in `PAIR_LOSSES`.

    Attributes:
        views: names of the views that these pairs need; no other view has to be encoded.

    Raises:
        ValueError: an unknown pair, kind or mode, a negative weight, no weight above zero, or a tile below 1.
    """

    def __init__(self, weights, duplicates="ignored", tile=1024, kind="info_nce"):
        for pair, weight in weights.items():
            if pair not in PAIRS:
                raise ValueError(f"unknown view pair {pair!r}; the pairs are {', '.join(PAIRS)}")
            if not weight >= 0:
                raise ValueError(f"the weight of {pair} is {weight}; it must be zero or above")
        if duplicates not in DUPLICATES:
            raise ValueError(f"duplicates is {duplicates!r}; choose one of {', '.join(DUPLICATES)}")
        if tile is not None and tile < 1:
            raise ValueError(f"a tile of {tile} rows holds nothing; give 1 or more, or None for all logits at once")
        if kind not in PAIR_LOSSES:
            raise ValueError(f"unknown loss {kind!r}; choose one of {', '.join(PAIR_LOSSES)}")
        self.weights = {pair: weights[pair] for pair in PAIRS if weights.get(pair)}
        if not self.weights:
            raise ValueError(f"every view pair weighs zero; give one of {', '.join(PAIRS)} a weight above it")
        self.views = {view for pair in self.weights for view in PAIRS[pair]}
        self._contrast = PAIR_LOSSES[kind](duplicates, tile)

    def __call__(self, local, gathered, scalars, local_ids=None, gathered_ids=None, offset=0):
        """Score this rank's rows against the columns of all ranks.

        Every returned loss is a sum over the `b` local rows divided by the `N` rows of all ranks: added
        up over the ranks it is the mean of the global batch, however unevenly the rows are spread.

        Args:
            local: view name -> `[b, D]`, this rank's L2-normalised embeddings; at least `views`.
            gathered: view name -> `[N, D]`, those of all ranks in rank order.
            scalars: `logit_scale`, the paper's 1/tau, and what else the loss learns beside the embeddings, by name.
            local_ids, gathered_ids: int64 `[b, 2]` and `[N, 2]`, image id and text id of each row;
                needed unless duplicates are "ignored".
            offset: the place of the first local row among the gathered ones.

        Returns:
            The weighted sum, a scalar, and the unweighted loss of each pair, name -> scalar.
        """
        by_row = {}
        if {"image_text", "text_image"} <= set(self.weights):
            images, texts = local["image_1"], gathered["text_1"]
            if images.shape[0] == texts.shape[0]:  # all rows are local, so that one product serves both pairs
                by_row["image_text"], by_row["text_image"] = self._contrast.both_ways(
                    images, texts, scalars, gathered_ids
                )
        for pair in self.weights:
            if pair not in by_row:
                rows, columns = (side[view] for side, view in zip((local, gathered), PAIRS[pair], strict=True))
                by_row[pair] = self._contrast(rows, columns, scalars, offset, local_ids, gathered_ids)
        total = gathered[next(iter(self.views))].shape[0]
        losses = {pair: by_row[pair].sum() / total for pair in self.weights}
        return sum(weight * losses[pair] for pair, weight in self.weights.items()), losses
