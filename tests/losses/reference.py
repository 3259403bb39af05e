"""InfoNCE and its gradients in NumPy, written from the formula."""

import numpy as np


def reference(rows, columns, scale, offset, same, duplicates):
    """Loss of every row and the gradients of their sum with respect to rows, columns and scale.

    With p the softmax over the columns that count and t uniform over the answers, the loss of a row is
    log(sum exp(s)) - t.s, so its gradient with respect to the logits s is p - t.
    """
    return weighted_reference(rows, columns, scale, offset, same, duplicates, np.ones(len(rows)))


def weighted_reference(rows, columns, scale, offset, same, duplicates, weights):
    """`reference` for the sum of the losses times the weights `[B]` in place of the sum."""
    cosines = rows @ columns.T
    own = np.eye(len(columns), dtype=bool)[offset : offset + len(rows)]
    counts = ~same | own if duplicates == "masked" else np.ones_like(own)
    answers = same | own if duplicates == "positives" else own
    logits = scale * cosines
    # Relative to the own logit, and without it in the sum, so that small losses keep their digits.
    exponents = logits - logits[own][:, None]
    top = exponents.max(axis=1, keepdims=True)
    exps = np.exp(exponents - top) * counts
    others = (exps * ~own).sum(axis=1)
    target = answers / answers.sum(axis=1, keepdims=True)
    losses = np.log1p(others * np.exp(top[:, 0])) - (target * exponents).sum(axis=1)
    slope = exps / exps.sum(axis=1, keepdims=True) - target
    if duplicates != "positives":
        slope[own] = -others / exps.sum(axis=1)
    slope *= weights[:, None]
    return losses, scale * slope @ columns, scale * slope.T @ rows, (slope * cosines).sum()


def normalised(rng, count, width):
    rows = rng.normal(size=(count, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
