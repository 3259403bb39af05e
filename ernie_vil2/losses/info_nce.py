"""InfoNCE (arXiv 2209.15270, equation 1), aware of rows that hold the same image or text."""

import paddle

DUPLICATES = ("ignored", "masked", "positives")


def same_sample(row_ids, column_ids):
    """Which rows and columns hold the same image or the same text.

    Args:
        row_ids: int64 `[B, 2]`, the image id and the text id of every row.
        column_ids: int64 `[N, 2]`, likewise for the columns.

    Returns:
        bool `[B, N]`, true where the image ids are equal or the text ids are equal.
    """
    shape = [row_ids.shape[0], column_ids.shape[0]]
    # Expanded by hand, one kind of id at a time: broadcasting the comparison costs Paddle on CPU five times as much.
    images, texts = (
        row_ids[:, kind].unsqueeze(1).expand(shape) == column_ids[:, kind].unsqueeze(0).expand(shape) for kind in (0, 1)
    )
    return images | texts


def check_arguments(rows, columns, offset, has_ids, duplicates):
    """Raise the ValueError of `info_nce` for an unknown mode, missing ids, or a row without its own column."""
    if duplicates not in DUPLICATES:
        raise ValueError(f"duplicates is {duplicates!r}; choose one of {', '.join(DUPLICATES)}")
    if duplicates != "ignored" and not has_ids:
        raise ValueError(f"duplicates={duplicates!r} needs the ids of the rows and of the columns")
    count, total = rows.shape[0], columns.shape[0]
    if not 0 <= offset <= total - count:
        raise ValueError(
            f"{count} rows from offset {offset} do not fit into {total} columns; "
            "pass the columns of all ranks and the offset that the gather returns"
        )


def info_nce(rows, columns, logit_scale, offset=0, same=None, duplicates="ignored"):
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
            like any other (as in the paper); "masked", left out of the sum over j; "positives", as
            good an answer as the row's own column: the loss is the mean over these answers.

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
        logits = paddle.matmul(scaled, columns.astype(dtype), transpose_y=True)  # [B, N]
        is_own = paddle.arange(offset, offset + count).unsqueeze(1) == paddle.arange(total)  # [B, N]
        answers = (is_own | same if duplicates == "positives" else is_own).astype(dtype)
        answer = (logits * answers).sum(axis=1, keepdim=True) / answers.sum(axis=1, keepdim=True)
        if duplicates == "masked":
            logits = paddle.where(same & ~is_own, paddle.full_like(logits, -float("inf")), logits)
        # Not cross_entropy or log_softmax: on CPU they cut a loss off at 64; at scale 100 it can reach 200.
        return paddle.logsumexp(logits - answer, axis=1)
