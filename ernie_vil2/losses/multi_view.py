"""The multi-view loss: InfoNCE (arXiv 2209.15270, equation 1) and its weighted sum over view pairs (equation 2)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle.autograd import PyLayer

from ernie_vil2.config import LossConfig
from ernie_vil2.config.sections import PAIRS
from ernie_vil2.device.cpu_kernels import keep
from ernie_vil2.io.terminal import RunError, counted
from ernie_vil2.registry import Registry

from .tiles import (
    DUPLICATES,
    Ids,
    Rows,
    Scalars,
    check_arguments,
    computed_whole,
    float32_products,
    same_sample,
    tiled_both_ways,
    tiled_info_nce,
)


def info_nce(
    rows: Tensor,
    columns: Tensor,
    logit_scale: Tensor,
    offset: int = 0,
    same: Tensor | None = None,
    duplicates: str = "ignored",
) -> Tensor:
    """Contrast every row with all columns: equation 1 of arXiv 2209.15270, row by row.

    The loss of row i is `-log(exp(s_ip) / sum_j exp(s_ij))`, where `s_ij` is `logit_scale` times the
    dot product of row i and column j, and `p = offset + i` is the row's own column.

    Args:
        rows: `[B, D]`, L2-normalised embeddings of one view, this rank's.
        columns: `[N, D]`, L2-normalised embeddings of the other view, all ranks'.
        logit_scale: scalar, the paper's 1/tau.
        offset: the column that belongs to row 0.
        same: bool `[B, N]` from `same_sample`: the duplicates of each row; "ignored" does without.
        duplicates: what a column is to a row that holds the same image or text: "ignored", a negative
            like any other (as in the paper); "masked", left out of the sum over j; "positives", a
            positive like the row's own column: the loss is the mean over the positives.

    Returns:
        `[B]`, the loss of every row, in nats; float64 for float64 rows, otherwise float32, under
        autocast too.

    Raises:
        ValueError: unknown `duplicates`, missing `same`, or a row without its own column.
    """
    check_arguments(rows, columns, offset, same is not None, duplicates)
    count, total = rows.shape[0], columns.shape[0]
    with paddle.amp.auto_cast(enable=False):
        dtype = rows.dtype if rows.dtype == paddle.float64 else paddle.float32
        # Scaling the rows instead of the logits makes the gradient of logit_scale a sum of B x D
        # terms behind a matrix product; a float32 sum of B x N terms is off by up to a percent at 4,096.
        scaled = rows.astype(dtype) * logit_scale.astype(dtype)
        logits = _Product.apply(scaled, columns.astype(dtype))  # [B, N]
        is_positive = paddle.arange(offset, offset + count).unsqueeze(1) == paddle.arange(total)  # [B, N]
        is_counted = is_positive | same if same is not None and duplicates == "positives" else is_positive
        positives = is_counted.astype(dtype)
        positive = (logits * positives).sum(axis=1, keepdim=True) / positives.sum(axis=1, keepdim=True)
        if same is not None and duplicates == "masked":
            logits = paddle.where(same & ~is_positive, paddle.full_like(logits, -float("inf")), logits)
        # Not cross_entropy or log_softmax: on CPU they cut a loss off at 64; at scale 100 it can reach 200.
        return paddle.logsumexp(logits - positive, axis=1)


class _Product(PyLayer):
    """`[B, D]` and `[N, D]` to `[B, N]`, in float32 also on GPUs, forward and backward."""

    @staticmethod
    @float32_products()
    def forward(ctx: Any, rows: Tensor, columns: Tensor) -> Tensor:
        keep(ctx, rows, columns)
        ctx.fixed = rows.stop_gradient, columns.stop_gradient  # Paddle wants None for these
        return paddle.matmul(rows, columns, transpose_y=True)

    @staticmethod
    @float32_products()
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        rows, columns = ctx.saved_tensor()
        of_rows = None if ctx.fixed[0] else paddle.matmul(gradient, columns)
        of_columns = None if ctx.fixed[1] else paddle.matmul(gradient, rows, transpose_x=True)
        return of_rows, of_columns


class PairLoss:
    """What a view pair costs; a loss in `PAIR_LOSSES` is made of these arguments and of those in `Loss.options`.

    Args:
        duplicates: what a column is to a row that holds the same image or text; see `info_nce`.
        tile: rows and columns of the tiles in which the logits are computed (see `losses.tiles`); None, and on GPUs
            where they are small: all at once.
        widths: of the prefixes of the embeddings whose losses are added up; none: the embeddings as they are.

    Attributes:
        has_bias: whether it needs `logit_bias` among its scalars, which begins at `Loss.bias` and is learned.
    """

    has_bias = False

    def __init__(self, duplicates: str, tile: int | None, widths: Sequence[int] = ()):
        self.duplicates, self.tile, self.widths = duplicates, tile, widths

    def __call__(
        self, rows: Tensor, columns: Tensor, scalars: Scalars, offset: int, row_ids: Ids, column_ids: Ids
    ) -> Tensor:
        """The loss of every row, `[B]`.

        Args:
            rows: `[B, D]`, L2-normalised embeddings of one view, this rank's.
            columns: `[N, D]`, L2-normalised embeddings of the other view, all ranks'.
            scalars: `logit_scale`, and `logit_bias` of a loss that has one.
            offset: the column that belongs to row 0.
            row_ids, column_ids: int64 `[B, 2]` and `[N, 2]`, image id and text id; None where duplicates are ignored.
        """
        raise NotImplementedError

    def both_ways(self, rows: Tensor, columns: Tensor, scalars: Scalars, ids: Ids) -> tuple[Tensor, Tensor]:
        """The losses of the rows among the columns and of the columns among the rows, where both are all there are."""
        return self(rows, columns, scalars, 0, ids, ids), self(columns, rows, scalars, 0, ids, ids)


class InfoNCE(PairLoss):
    """Equation 1, in tiles or all at once. A class derived from it may extend `both_ways`, which computes both at once,
    next to `__call__`."""

    def __call__(
        self, rows: Tensor, columns: Tensor, scalars: Scalars, offset: int, row_ids: Ids, column_ids: Ids
    ) -> Tensor:
        scale = scalars["logit_scale"]
        if in_tiles := self._in_tiles(rows, columns):
            return tiled_info_nce(rows, columns, scale, offset, row_ids, column_ids, self.duplicates, **in_tiles)
        same = None
        if row_ids is not None and column_ids is not None and self.duplicates != "ignored":
            same = same_sample(row_ids, column_ids)
        return info_nce(rows, columns, scale, offset, same, self.duplicates)

    def both_ways(self, rows: Tensor, columns: Tensor, scalars: Scalars, ids: Ids) -> tuple[Tensor, Tensor]:
        kind = type(self)
        if kind.both_ways is InfoNCE.both_ways and kind.__call__ is not InfoNCE.__call__:
            return super().both_ways(rows, columns, scalars, ids)
        if in_tiles := self._in_tiles(rows, columns):
            return tiled_both_ways(rows, columns, scalars["logit_scale"], ids, self.duplicates, **in_tiles)
        of_rows = InfoNCE.__call__(self, rows, columns, scalars, 0, ids, ids)
        return of_rows, InfoNCE.__call__(self, columns, rows, scalars, 0, ids, ids)

    def _in_tiles(self, rows: Tensor, columns: Tensor) -> dict[str, Any]:
        """The options of the loss in tiles; none where it is computed at once. Of several widths it always is in
        tiles, if only in one: that keeps the logits of no width for backward."""
        tile = None if computed_whole(rows, columns) else self.tile
        return {"tile": tile, "widths": self.widths} if tile or self.widths else {}


PAIR_LOSSES: Registry[Callable[..., PairLoss]] = Registry(
    "loss",
    {
        "info_nce": "ernie_vil2.losses.multi_view:InfoNCE",
        "sigmoid": "ernie_vil2.losses.sigmoid:SigmoidLoss",
    },
)
"""Losses of one view pair, by `Loss.kind`: the paper's equation 1, and the sigmoid loss of SigLIP."""


def build_loss(config: LossConfig) -> MultiViewLoss:
    """The loss that the section `Loss` of a configuration describes."""
    weights = config.weights.model_dump()
    return MultiViewLoss(weights, config.duplicates, config.tile, config.kind, config.widths, config.options)


def initial_bias(config: LossConfig) -> float | None:
    """Of the logits of a new model; None where the loss has no bias."""
    return config.bias if getattr(PAIR_LOSSES.find(config.kind), "has_bias", False) else None


class MultiViewLoss:
    """Equation 2 of arXiv 2209.15270 over the view pairs whose weight is not zero.

    Args:
        weights: the paper's lambda of each pair in `PAIRS`; a pair that is left out weighs zero.
        duplicates: what rows with the same image or text are to each other; see `info_nce`.
        tile: rows and columns of the tiles in which the logits are computed (see `losses.tiles`); None: all at once.
        kind: the loss of a pair, by its name in `PAIR_LOSSES`.
        widths: of the prefixes of the embeddings whose losses are added up with equal weights, each prefix normalised
            again (Matryoshka, Kusupati et al. 2022, arXiv 2205.13147), the narrowest first; none: all D numbers alone.
        options: further arguments of the loss of a pair, by name.

    Attributes:
        views: names of the views that these pairs need; no other view has to be encoded.

    Raises:
        ValueError: an unknown pair, kind, mode or option, a negative weight, no weight above zero, or a tile below 1.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        duplicates: str = "ignored",
        tile: int | None = 1024,
        kind: str = "info_nce",
        widths: Sequence[int] = (),
        options: Mapping[str, Any] | None = None,
    ):
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
        self.views = {view for pair in self.weights for view in PAIRS[pair]}
        self.widths = list(widths)
        self._contrast = _pair_loss(kind, duplicates, tile, self.widths, options or {})

    def __call__(
        self,
        local: Mapping[str, Tensor],
        gathered: Mapping[str, Tensor],
        scalars: Scalars,
        local_ids: Ids = None,
        gathered_ids: Ids = None,
        offset: int = 0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Score this rank's rows against the columns of all ranks.

        Every returned loss is a sum over the `b` local rows divided by the `N` rows of all ranks: added
        up over the ranks it is the mean of the global batch, however unevenly the rows are spread.

        Args:
            local: view name -> `[b, D]`, this rank's L2-normalised embeddings; at least `views`.
            gathered: view name -> `[N, D]`, those of all ranks in rank order.
            scalars: `logit_scale`, the paper's 1/tau, and what else the loss learns besides the embeddings, by name.
            local_ids, gathered_ids: int64 `[b, 2]` and `[N, 2]`, image id and text id of each row;
                needed unless duplicates are "ignored".
            offset: the position of the first local row among the gathered ones.

        Returns:
            The weighted sum, a scalar, and the unweighted loss of each pair, name -> scalar.
        """
        if self.widths and self.widths[-1] != (found := local[next(iter(self.views))].shape[1]):
            raise ValueError(
                f"Loss.widths ends with {self.widths[-1]}; its last is the width of the embeddings, {found}"
            )
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
        return paddle.add_n([weight * losses[pair] for pair, weight in self.weights.items()]), losses


def _pair_loss(
    kind: str, duplicates: str, tile: int | None, widths: Sequence[int], options: Mapping[str, Any]
) -> PairLoss:
    make, arguments = PAIR_LOSSES.find(kind), (duplicates, tile, *([widths] if widths else []))
    for given, lacking in (
        ((duplicates, tile), "does not take what a loss is made of, duplicates and tile: see docs/extending.md"),
        (arguments, "takes no widths: leave out Loss.widths, or give its class a third argument for them"),
    ):
        try:
            inspect.signature(make).bind_partial(*given)
        except TypeError:
            raise ValueError(f"Loss.kind={kind} {lacking}") from None
    try:
        inspect.signature(make).bind(*arguments, **options)
    except TypeError as error:
        raise ValueError(f"Loss.options does not fit Loss.kind={kind}: {error}") from None
    return make(*arguments, **options)


class NoNegatives(RunError):  # noqa: N818  -- named by what has happened
    """Most rows of a batch hold the same image or text: nothing can be learnt from them."""


def refuse_without_negatives(ids: np.ndarray) -> None:
    """Raise NoNegatives where more than half of the rows of a batch have no negative left.

    A row has none if every other row holds its image or its text; unless duplicates are "ignored", its loss is then
    the same whatever the model does, and looks like a very good one.

    Args:
        ids: int64 `[N, 2]` array, the image id and the text id of every row of all ranks.
    """
    rows = len(ids)
    image, images = _alike(ids[:, 0])
    text, texts = _alike(ids[:, 1])
    _, both = _alike(image * rows + text)
    without = int((images + texts - both == rows).sum())
    if rows > 1 and 2 * without > rows:
        raise NoNegatives(
            f"{without} of the {rows} rows of a batch have no negative left, so that nothing is learnt from them: one "
            f"image is in {counted(images.max(), 'row')}, one text in {texts.max():,}. Look at images, captions and "
            "Data.text_id, raise Training.global_batch, or set Loss.duplicates=ignored"
        )


def _alike(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each key its number among the distinct ones, and how many are equal to it."""
    _, numbers, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return numbers, counts[numbers]


def teacher_loss(images: Rows, texts: Rows, teacher: Rows, logit_scale: Tensor, teacher_scale: float) -> Tensor:
    """Kullback-Leibler divergence of the student's distribution from the teacher's, both ways, row by row.

    An image's distribution is the softmax of its logits over all texts, a text's over all images, so that teacher and
    student need not be of one width. Only rows that the teacher knows take part, as rows and as columns.

    Args:
        images, texts: (`[b, D]` of this rank, `[N, D]` of all ranks), L2-normalised, of the student.
        teacher: (`[b, 2 W]` of this rank, `[N, 2 W]` of all ranks): its image and text embeddings side by side,
            L2-normalised; zeros where it knows the row not.
        logit_scale: of the student, a scalar.
        teacher_scale: of the teacher, a number.

    Returns:
        This rank's share, a scalar: over all ranks they add up to the mean over the known rows and both directions.
    """
    rows, columns = teacher
    known_rows, known = (_known(side) for side in (rows, columns))
    (own_images, own_texts), (all_images, all_texts) = (side.chunk(2, axis=1) for side in (rows, columns))
    count = known.astype("float32").sum().clip(min=1.0)
    sums = []
    with paddle.amp.auto_cast(enable=False):
        for student, theirs in (
            ((images[0], texts[1]), (own_images, all_texts)),
            ((texts[0], images[1]), (own_texts, all_images)),
        ):
            target = _log_softmax(teacher_scale * paddle.matmul(*theirs, transpose_y=True), known)  # [b, N]
            found = _log_softmax(paddle.matmul(student[0] * logit_scale, student[1], transpose_y=True), known)
            divergence = paddle.where(known, target.exp() * (target - found), paddle.zeros_like(found)).sum(axis=1)
            sums.append((divergence * known_rows.astype(divergence.dtype)).sum())
    return sum(sums) / (2 * count)


def teacher_distance(embeddings: Tensor, teacher: Rows) -> Tensor:
    """The squared distance of embeddings to the teacher's, `2 - 2 cos`, summed over images and texts.

    Args:
        embeddings: `[b, 2 W]` of this rank's rows, those of image and text side by side.
        teacher: as for `teacher_loss`.

    Returns:
        This rank's share, a scalar: over all ranks they add up to the mean over the known rows.
    """
    rows, columns = teacher
    known_rows, known = (_known(side).astype("float32") for side in (rows, columns))
    return ((embeddings - rows).square().sum(axis=1) * known_rows).sum() / known.sum().clip(min=1.0)


def _known(rows: Tensor) -> Tensor:
    """bool `[n]`."""
    return rows.abs().sum(axis=1) > 0


def _log_softmax(logits: Tensor, known: Tensor) -> Tensor:
    # Not Paddle's own: on CPU it cuts at 64.
    logits = paddle.where(known, logits, paddle.full_like(logits, -1e30))
    return logits - paddle.logsumexp(logits, axis=1, keepdim=True)
