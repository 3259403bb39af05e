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
from ernie_vil2.device.cpu_kernels import save_for_backward
from ernie_vil2.io.terminal import RunError, pluralize
from ernie_vil2.registry import Registry

from .tiles import (
    DUPLICATES,
    EXCLUDED_LOGIT,
    Ids,
    LocalAndGathered,
    Scalars,
    check_arguments,
    find_duplicates,
    float32_products,
    should_compute_untiled,
    tiled_info_nce,
    tiled_info_nce_both_ways,
)


def info_nce(
    rows: Tensor,
    columns: Tensor,
    logit_scale: Tensor,
    offset: int = 0,
    is_duplicate: Tensor | None = None,
    duplicates: str = "ignored",
) -> Tensor:
    """Contrast every row with all columns: equation 1 of arXiv 2209.15270, row by row.

    The loss of row i is `-log(exp(s_ip) / sum_j exp(s_ij))`, where `s_ij` is `logit_scale` times the
    dot product of row i and column j, and `p = offset + i` is the row's own column.

    Args:
        rows: `[B, D]`, L2-normalised embeddings of one view on this rank.
        columns: `[N, D]`, L2-normalised embeddings of the other view on all ranks.
        logit_scale: scalar, the paper's 1/tau.
        offset: the column that belongs to row 0.
        is_duplicate: bool `[B, N]` from `find_duplicates`; not needed if duplicates are "ignored".
        duplicates: how a column that holds the same image or text counts for a row: "ignored", as a negative
            like any other (as in the paper); "masked", left out of the sum over j; "positives", as a
            positive like the row's own column: the loss is the mean over the positives.

    Returns:
        `[B]`, the loss of every row, in nats; float64 for float64 rows, otherwise float32, under
        autocast too.

    Raises:
        ValueError: unknown `duplicates`, missing `is_duplicate`, or rows without their own columns.
    """
    check_arguments(rows, columns, offset, is_duplicate is not None, duplicates)
    num_rows, num_columns = rows.shape[0], columns.shape[0]
    with paddle.amp.auto_cast(enable=False):
        dtype = rows.dtype if rows.dtype == paddle.float64 else paddle.float32
        # Scaling the rows instead of the logits makes the gradient of logit_scale a sum of B x D
        # terms behind a matrix product; a float32 sum of B x N terms is off by up to a percent at 4,096.
        scaled_rows = rows.astype(dtype) * logit_scale.astype(dtype)
        logits = _Float32Product.apply(scaled_rows, columns.astype(dtype))  # [B, N]
        is_own = paddle.arange(offset, offset + num_rows).unsqueeze(1) == paddle.arange(num_columns)  # [B, N]
        is_positive = is_own
        if is_duplicate is not None and duplicates == "positives":
            is_positive = is_own | is_duplicate
        positives = is_positive.astype(dtype)
        positive_logit = (logits * positives).sum(axis=1, keepdim=True) / positives.sum(axis=1, keepdim=True)
        if is_duplicate is not None and duplicates == "masked":
            logits = paddle.where(is_duplicate & ~is_own, paddle.full_like(logits, -float("inf")), logits)
        # Not cross_entropy or log_softmax: on CPU they cut a loss off at 64; at scale 100 it can reach 200.
        return paddle.logsumexp(logits - positive_logit, axis=1)


class _Float32Product(PyLayer):
    """Product of `[B, D]` and `[N, D]`, `[B, N]`, in float32 on GPUs too, forward and backward."""

    @staticmethod
    @float32_products()
    def forward(ctx: Any, rows: Tensor, columns: Tensor) -> Tensor:
        save_for_backward(ctx, rows, columns)
        # Paddle wants None as the gradient of an input that needs none.
        ctx.stop_gradients = rows.stop_gradient, columns.stop_gradient
        return paddle.matmul(rows, columns, transpose_y=True)

    @staticmethod
    @float32_products()
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        rows, columns = ctx.saved_tensor()
        row_gradient = None if ctx.stop_gradients[0] else paddle.matmul(gradient, columns)
        column_gradient = None if ctx.stop_gradients[1] else paddle.matmul(gradient, rows, transpose_x=True)
        return row_gradient, column_gradient


class PairLoss:
    """Loss of a view pair; a class in `PAIR_LOSSES` takes these arguments and those in `Loss.options`.

    Args:
        duplicates: how a column that holds the same image or text counts for a row; see `info_nce`.
        tile: rows and columns of the tiles in which the logits are computed (see `losses.tiles`); None: all at once.
            On GPUs few logits are always computed at once.
        widths: widths of the prefixes of the embeddings whose losses are added up; empty: the whole embeddings.

    Attributes:
        has_bias: whether the loss needs `logit_bias` among its scalars, which begins at `Loss.bias` and is learned.
    """

    has_bias = False

    def __init__(self, duplicates: str, tile: int | None, widths: Sequence[int] = ()):
        self.duplicates, self.tile, self.widths = duplicates, tile, widths

    def __call__(
        self, rows: Tensor, columns: Tensor, scalars: Scalars, offset: int, row_ids: Ids, column_ids: Ids
    ) -> Tensor:
        """Return the loss of every row, `[B]`.

        Args:
            rows: `[B, D]`, L2-normalised embeddings of one view on this rank.
            columns: `[N, D]`, L2-normalised embeddings of the other view on all ranks.
            scalars: `logit_scale`, and `logit_bias` if the loss has one.
            offset: the column that belongs to row 0.
            row_ids: int64 `[B, 2]`, image id and text id; None if duplicates are ignored.
            column_ids: int64 `[N, 2]`, image id and text id; None if duplicates are ignored.
        """
        raise NotImplementedError

    def both_ways(self, rows: Tensor, columns: Tensor, scalars: Scalars, ids: Ids) -> tuple[Tensor, Tensor]:
        """Return the losses of rows against columns and of columns against rows, if all rows are on this rank."""
        return self(rows, columns, scalars, 0, ids, ids), self(columns, rows, scalars, 0, ids, ids)


class InfoNCE(PairLoss):
    """Equation 1, in tiles or all at once.

    A subclass that changes `__call__` may also override `both_ways`, which computes both directions from one product.
    """

    def __call__(
        self, rows: Tensor, columns: Tensor, scalars: Scalars, offset: int, row_ids: Ids, column_ids: Ids
    ) -> Tensor:
        scale = scalars["logit_scale"]
        tiling = self._tiling_options(rows, columns)
        if tiling:
            return tiled_info_nce(rows, columns, scale, offset, row_ids, column_ids, self.duplicates, **tiling)
        is_duplicate = None
        if row_ids is not None and column_ids is not None and self.duplicates != "ignored":
            is_duplicate = find_duplicates(row_ids, column_ids)
        return info_nce(rows, columns, scale, offset, is_duplicate, self.duplicates)

    def both_ways(self, rows: Tensor, columns: Tensor, scalars: Scalars, ids: Ids) -> tuple[Tensor, Tensor]:
        # A subclass with another `__call__` alone must not lose what that adds.
        kind = type(self)
        if kind.both_ways is InfoNCE.both_ways and kind.__call__ is not InfoNCE.__call__:
            return super().both_ways(rows, columns, scalars, ids)
        tiling = self._tiling_options(rows, columns)
        if tiling:
            return tiled_info_nce_both_ways(rows, columns, scalars["logit_scale"], ids, self.duplicates, **tiling)
        row_losses = InfoNCE.__call__(self, rows, columns, scalars, 0, ids, ids)
        return row_losses, InfoNCE.__call__(self, columns, rows, scalars, 0, ids, ids)

    def _tiling_options(self, rows: Tensor, columns: Tensor) -> dict[str, Any]:
        """Return the options of the tiled loss, empty if the logits are computed at once.

        Several widths are always computed in tiles, if only in one: no logits are then kept for backward.
        """
        tile = None if should_compute_untiled(rows, columns) else self.tile
        return {"tile": tile, "widths": self.widths} if tile or self.widths else {}


# Losses of one view pair, by `Loss.kind`: the paper's equation 1, and the sigmoid loss of SigLIP.
PAIR_LOSSES: Registry[Callable[..., PairLoss]] = Registry(
    "loss",
    {
        "info_nce": "ernie_vil2.losses.multi_view:InfoNCE",
        "sigmoid": "ernie_vil2.losses.sigmoid:SigmoidLoss",
    },
)


def build_loss(config: LossConfig) -> MultiViewLoss:
    """Build the loss that the section `Loss` of a configuration describes."""
    weights = config.weights.model_dump()
    return MultiViewLoss(weights, config.duplicates, config.tile, config.kind, config.widths, config.options)


def get_initial_bias(config: LossConfig) -> float | None:
    """Return the initial bias of the logits of a new model; None if the loss has no bias."""
    return config.bias if getattr(PAIR_LOSSES.find(config.kind), "has_bias", False) else None


class MultiViewLoss:
    """Equation 2 of arXiv 2209.15270 over the view pairs whose weight is not zero.

    Args:
        weights: the paper's lambda of each pair in `PAIRS`; missing pairs weigh zero.
        duplicates: how rows with the same image or text count for each other; see `info_nce`.
        tile: rows and columns of the tiles in which the logits are computed (see `losses.tiles`); None: all at once.
        kind: the loss of a pair, by its name in `PAIR_LOSSES`.
        widths: widths of the prefixes of the embeddings whose losses are added up with equal weights, the narrowest
            first; each prefix is normalised again (Matryoshka, Kusupati et al. 2022, arXiv 2205.13147). Empty: the
            whole embeddings.
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
        self.views = set[str]().union(*(PAIRS[pair] for pair in self.weights))
        self.widths = list(widths)
        self._pair_loss = _build_pair_loss(kind, duplicates, tile, self.widths, options or {})

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
            local: view name -> `[b, D]`, L2-normalised embeddings on this rank; at least `views`.
            gathered: view name -> `[N, D]`, those of all ranks in rank order.
            scalars: `logit_scale`, the paper's 1/tau, and other learned scalars of the loss, by name.
            local_ids: int64 `[b, 2]`, image id and text id of each row; not needed if duplicates are "ignored".
            gathered_ids: int64 `[N, 2]`, image id and text id; not needed if duplicates are "ignored".
            offset: the position of the first local row among the gathered rows.

        Returns:
            The weighted sum, a scalar, and the unweighted loss of each pair, name -> scalar.
        """
        some_view = next(iter(self.views))
        width = local[some_view].shape[1]
        if self.widths and self.widths[-1] != width:
            raise ValueError(
                f"Loss.widths ends with {self.widths[-1]}; its last is the width of the embeddings, {width}"
            )
        row_losses = {}
        if {"image_text", "text_image"} <= set(self.weights):
            images, texts = local["image_1"], gathered["text_1"]
            # If all rows are on this rank, one product serves both pairs.
            if images.shape[0] == texts.shape[0]:
                row_losses["image_text"], row_losses["text_image"] = self._pair_loss.both_ways(
                    images, texts, scalars, gathered_ids
                )
        for pair in self.weights:
            if pair not in row_losses:
                row_view, column_view = PAIRS[pair]
                row_losses[pair] = self._pair_loss(
                    local[row_view], gathered[column_view], scalars, offset, local_ids, gathered_ids
                )
        # Each rank divides by the rows of all ranks, so that the sum over the ranks is the mean.
        num_rows = gathered[some_view].shape[0]
        losses = {pair: row_losses[pair].sum() / num_rows for pair in self.weights}
        return paddle.add_n([weight * losses[pair] for pair, weight in self.weights.items()]), losses


def _build_pair_loss(
    kind: str, duplicates: str, tile: int | None, widths: Sequence[int], options: Mapping[str, Any]
) -> PairLoss:
    """Build the loss of a pair; raise ValueError that says which arguments its class does not take."""
    loss_class = PAIR_LOSSES.find(kind)
    # Widths are the third argument, and only passed if set: a loss of the user's own may not know them.
    arguments: list[Any] = [duplicates, tile]
    _check_signature(
        loss_class,
        arguments,
        f"Loss.kind={kind} does not take what a loss is made of, duplicates and tile: see docs/extending.md",
    )
    if widths:
        arguments.append(widths)
        _check_signature(
            loss_class,
            arguments,
            f"Loss.kind={kind} takes no widths: leave out Loss.widths, or give its class a third argument for them",
        )
    try:
        inspect.signature(loss_class).bind(*arguments, **options)
    except TypeError as error:
        raise ValueError(f"Loss.options does not fit Loss.kind={kind}: {error}") from None
    return loss_class(*arguments, **options)


def _check_signature(loss_class: Callable[..., PairLoss], arguments: Sequence[Any], message: str) -> None:
    try:
        inspect.signature(loss_class).bind_partial(*arguments)
    except TypeError:
        raise ValueError(message) from None


class NoNegatives(RunError):  # noqa: N818  -- named by what has happened
    """Most rows of a batch hold the same image or text: nothing can be learnt from them."""


def check_negatives(ids: np.ndarray) -> None:
    """Raise NoNegatives if more than half of the rows of a batch have no negative.

    A row has none if every other row holds its image or its text. Unless duplicates are "ignored", its loss is then
    the same whatever the model does, and looks like a very good one.

    Args:
        ids: int64 `[N, 2]` array, the image id and the text id of every row of all ranks.
    """
    num_rows = len(ids)
    image_numbers, image_counts = _count_equal(ids[:, 0])
    text_numbers, text_counts = _count_equal(ids[:, 1])
    _, pair_counts = _count_equal(image_numbers * num_rows + text_numbers)
    num_duplicates = image_counts + text_counts - pair_counts  # rows with the same image or text, the row among them
    num_without = int((num_duplicates == num_rows).sum())
    if num_rows > 1 and 2 * num_without > num_rows:
        raise NoNegatives(
            f"{num_without} of the {num_rows} rows of a batch have no negative left, so that nothing is learnt from "
            f"them: one image is in {pluralize(image_counts.max(), 'row')}, one text in {text_counts.max():,}. Look at "
            "images, captions and Data.text_id, raise Training.global_batch, or set Loss.duplicates=ignored"
        )


def _count_equal(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each key its number among the distinct keys, and how many keys are equal to it."""
    _, numbers, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return numbers, counts[numbers]


def teacher_loss(
    images: LocalAndGathered,
    texts: LocalAndGathered,
    teacher: LocalAndGathered,
    logit_scale: Tensor,
    teacher_scale: float,
) -> Tensor:
    """Return the Kullback-Leibler divergence of the student's distributions from the teacher's, in both directions.

    The distribution of an image is the softmax of its logits over all texts, that of a text the softmax over all
    images, so teacher and student may have different widths. Only rows that the teacher knows take part, as rows and
    as columns.

    Args:
        images: `[b, D]` of this rank and `[N, D]` of all ranks, the student's L2-normalised image embeddings.
        texts: `[b, D]` of this rank and `[N, D]` of all ranks, the student's L2-normalised text embeddings.
        teacher: `[b, 2 W]` of this rank and `[N, 2 W]` of all ranks, the teacher's L2-normalised image and text
            embeddings side by side; zeros in rows that it does not know.
        logit_scale: the student's scale, a scalar.
        teacher_scale: the teacher's scale.

    Returns:
        This rank's share, a scalar: over all ranks they add up to the mean over the known rows and both directions.
    """
    local_teacher, all_teacher = teacher
    is_known_row, is_known_column = _is_known(local_teacher), _is_known(all_teacher)
    num_known = is_known_column.astype("float32").sum().clip(min=1.0)
    teacher_images, teacher_texts = local_teacher.chunk(2, axis=1)
    all_teacher_images, all_teacher_texts = all_teacher.chunk(2, axis=1)

    # For each direction: the student's rows and columns, then the teacher's.
    directions = (
        (images[0], texts[1], teacher_images, all_teacher_texts),
        (texts[0], images[1], teacher_texts, all_teacher_images),
    )
    divergence_sums = []
    with paddle.amp.auto_cast(enable=False):
        for rows, columns, teacher_rows, teacher_columns in directions:
            teacher_logits = teacher_scale * _Float32Product.apply(teacher_rows, teacher_columns)  # [b, N]
            target = _log_softmax(teacher_logits, is_known_column)
            log_softmax = _log_softmax(_Float32Product.apply(rows * logit_scale, columns), is_known_column)
            # An unknown column has no share in the divergence; its huge logits only leave rounding errors.
            terms = target.exp() * (target - log_softmax)
            divergence = paddle.where(is_known_column, terms, paddle.zeros_like(log_softmax)).sum(axis=1)  # [b]
            divergence_sums.append((divergence * is_known_row.astype(divergence.dtype)).sum())
    return sum(divergence_sums) / (2 * num_known)


def teacher_distance(embeddings: Tensor, teacher: LocalAndGathered) -> Tensor:
    """Return the squared distance of embeddings to the teacher's, `2 - 2 cos`, summed over images and texts.

    Args:
        embeddings: `[b, 2 W]`, the image and text embeddings of this rank's rows side by side.
        teacher: see `teacher_loss`.

    Returns:
        This rank's share, a scalar: over all ranks they add up to the mean over the known rows.
    """
    local_teacher, all_teacher = teacher
    is_known_row, is_known_column = _is_known(local_teacher).astype("float32"), _is_known(all_teacher).astype("float32")
    distances = (embeddings - local_teacher).square().sum(axis=1)
    return (distances * is_known_row).sum() / is_known_column.sum().clip(min=1.0)


def _is_known(teacher_rows: Tensor) -> Tensor:
    """Return bool `[n]`, true for rows that the teacher knows."""
    return teacher_rows.abs().sum(axis=1) > 0


def _log_softmax(logits: Tensor, is_counted: Tensor) -> Tensor:
    # Not Paddle's own: on CPU it cuts at 64.
    logits = paddle.where(is_counted, logits, paddle.full_like(logits, EXCLUDED_LOGIT))
    return logits - paddle.logsumexp(logits, axis=1, keepdim=True)
