"""What a teacher thinks of a batch: its distributions over the rows of the other side, for a student to learn."""

from __future__ import annotations

import paddle
from paddle import Tensor

Rows = tuple[Tensor, Tensor]  # `[b, D]` of this rank, `[N, D]` of all ranks


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


def _known(rows: Tensor) -> Tensor:
    """bool `[n]`."""
    return rows.abs().sum(axis=1) > 0


def _log_softmax(logits: Tensor, known: Tensor) -> Tensor:
    # Not Paddle's own: on CPU it cuts at 64.
    logits = paddle.where(known, logits, paddle.full_like(logits, -1e30))
    return logits - paddle.logsumexp(logits, axis=1, keepdim=True)
