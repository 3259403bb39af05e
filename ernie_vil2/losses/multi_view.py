"""The multi-view loss: a weighted sum of InfoNCE over view pairs (arXiv 2209.15270, equation 2)."""

from .info_nce import DUPLICATES, info_nce, same_sample
from .tiled import tiled_both_ways, tiled_info_nce

PAIRS = {
    "image_image": ("image_1", "image_2"),
    "text_text": ("text_1", "text_2"),
    "image_text": ("image_1", "text_1"),
    "text_image": ("text_1", "image_1"),
}
"""The view pairs by name: the view of the rows and the view of the columns."""


class MultiViewLoss:
    """Equation 2 of arXiv 2209.15270 over the view pairs whose weight is not zero.

    Args:
        weights: the paper's lambda of each pair in `PAIRS`; a pair that is left out weighs zero.
        duplicates: what rows with the same image or text are to each other; see `info_nce`.
        tile: rows and columns of the tiles in which the logits are computed (see `losses.tiled`); None: all at once.

    Attributes:
        views: names of the views that these pairs need; no other view has to be encoded.

    Raises:
        ValueError: an unknown pair or mode, a negative weight, no weight above zero, or a tile below 1.
    """

    def __init__(self, weights, duplicates="ignored", tile=1024):
        for pair, weight in weights.items():
            if pair not in PAIRS:
                raise ValueError(f"unknown view pair {pair!r}; the pairs are {', '.join(PAIRS)}")
            if not weight >= 0:
                raise ValueError(f"the weight of {pair} is {weight}; it must be zero or above")
        if duplicates not in DUPLICATES:
            raise ValueError(f"duplicates is {duplicates!r}; choose one of {', '.join(DUPLICATES)}")
        if tile is not None and tile < 1:
            raise ValueError(f"a tile of {tile} rows holds nothing; give 1 or more, or None for all logits at once")
        self.weights = {pair: weights[pair] for pair in PAIRS if weights.get(pair)}
        if not self.weights:
            raise ValueError(f"every view pair weighs zero; give one of {', '.join(PAIRS)} a weight above it")
        self.duplicates = duplicates
        self.tile = tile
        self.views = {view for pair in self.weights for view in PAIRS[pair]}

    def __call__(self, local, gathered, logit_scale, local_ids=None, gathered_ids=None, offset=0):
        """Score this rank's rows against the columns of all ranks.

        Every returned loss is a sum over the `b` local rows divided by the `N` rows of all ranks: added
        up over the ranks it is the mean of the global batch, however unevenly the rows are spread.

        Args:
            local: view name -> `[b, D]`, this rank's L2-normalised embeddings; at least `views`.
            gathered: view name -> `[N, D]`, those of all ranks in rank order.
            logit_scale: scalar, the paper's 1/tau.
            local_ids, gathered_ids: int64 `[b, 2]` and `[N, 2]`, image id and text id of each row;
                needed unless duplicates are "ignored".
            offset: the place of the first local row among the gathered ones.

        Returns:
            The weighted sum, a scalar, and the unweighted loss of each pair, name -> scalar.
        """
        by_row = self._by_row(local, gathered, logit_scale, local_ids, gathered_ids, offset)
        total = gathered[next(iter(self.views))].shape[0]
        losses = {pair: by_row[pair].sum() / total for pair in self.weights}
        return sum(weight * losses[pair] for pair, weight in self.weights.items()), losses

    def _by_row(self, local, gathered, logit_scale, local_ids, gathered_ids, offset):
        """The loss of every local row, pair -> `[b]`."""
        if self.tile is None:
            same = None
            if self.duplicates != "ignored" and local_ids is not None and gathered_ids is not None:
                same = same_sample(local_ids, gathered_ids)
            arguments, contrast = (logit_scale, offset, same, self.duplicates), info_nce
        else:
            arguments = (logit_scale, offset, local_ids, gathered_ids, self.duplicates, self.tile)
            contrast = tiled_info_nce
        by_row = {}
        if self.tile is not None and {"image_text", "text_image"} <= set(self.weights):
            images, texts = local["image_1"], gathered["text_1"]
            if images.shape[0] == texts.shape[0]:  # all rows are local, so that one product serves both pairs
                by_row["image_text"], by_row["text_image"] = tiled_both_ways(
                    images, texts, logit_scale, gathered_ids, self.duplicates, self.tile
                )
        for pair in self.weights:
            if pair not in by_row:
                row_view, column_view = PAIRS[pair]
                by_row[pair] = contrast(local[row_view], gathered[column_view], *arguments)
        return by_row
