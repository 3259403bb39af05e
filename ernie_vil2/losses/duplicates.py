"""Rows of a batch that hold the same image or the same text."""

DUPLICATES = ("ignored", "masked", "positives")
"""What a column is to a row that holds the same image or text: a negative like any other, left out, or a positive."""


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
    """Raise a ValueError for an unknown mode, missing ids, or a row without its own column."""
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
