"""Rows of a batch that hold the same image or the same text."""

import numpy as np

from ernie_vil2.errors import RunError
from ernie_vil2.wording import counted

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
    images, texts = (row_ids[:, kind].unsqueeze(1) == column_ids[:, kind] for kind in (0, 1))
    return images | texts


class NoNegatives(RunError):
    """Most rows of a batch hold the same image or text: nothing can be learnt from them."""


def refuse_without_negatives(ids):
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


def _alike(keys):
    """For each key its number among the distinct ones, and how many are equal to it."""
    _, numbers, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return numbers, counts[numbers]


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
