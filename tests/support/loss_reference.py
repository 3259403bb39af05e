"""InfoNCE, the sigmoid loss and their gradients in NumPy, written from the formulas."""

import numpy as np
import paddle


def compute_info_nce(rows, columns, scale, offset, same, duplicates):
    """Loss of every row and the gradients of their sum with respect to rows, columns and scale.

    With p the softmax over the columns that count and t uniform over the positives, the loss of a row is
    log(sum exp(s)) - t.s, so its gradient with respect to the logits s is p - t.
    """
    return compute_weighted_info_nce(rows, columns, scale, offset, same, duplicates, np.ones(len(rows)))


def compute_scale_gradient(rows, columns, scale, block=256):
    """The last of `reference` for distinct samples, a block of rows at a time: the logits of all need not fit."""
    own = np.eye(len(columns), dtype=bool)
    return sum(
        compute_info_nce(rows[first : first + block], columns, scale, first, own[first : first + block], "ignored")[-1]
        for first in range(0, len(rows), block)
    )


def compute_weighted_info_nce(rows, columns, scale, offset, same, duplicates, weights):
    """`reference` for the sum of the losses times the weights `[B]` instead of the sum."""
    cosines = rows @ columns.T
    own = np.eye(len(columns), dtype=bool)[offset : offset + len(rows)]
    counts = ~same | own if duplicates == "masked" else np.ones_like(own)
    positives = same | own if duplicates == "positives" else own
    logits = scale * cosines
    # Relative to the own logit, and without it in the sum, so that small losses keep their digits.
    exponents = logits - logits[own][:, None]
    counted = np.where(counts, exponents, -np.inf)
    top = counted.max(axis=1, keepdims=True)
    exps = np.exp(counted - top)
    others = (exps * ~own).sum(axis=1)
    target = positives / positives.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):  # where there are no others
        losses = np.logaddexp(0, np.log(others) + top[:, 0]) - (target * exponents).sum(axis=1)
    grad_logits = exps / exps.sum(axis=1, keepdims=True) - target
    if duplicates != "positives":
        grad_logits[own] = -others / exps.sum(axis=1)
    grad_logits *= weights[:, None]
    return losses, scale * grad_logits @ columns, scale * grad_logits.T @ rows, (grad_logits * cosines).sum()


def compute_sigmoid_loss(rows, columns, scale, bias, offset, same, duplicates, weights):
    """SigLIP's loss of every row, and the gradients of their sum times the weights in rows, columns, scale and bias.

    With z = 1 for a positive and -1 for a negative, an entry costs -log sigmoid(z * (scale * cosine + bias)).
    """
    cosines = rows @ columns.T
    own = np.eye(len(columns), dtype=bool)[offset : offset + len(rows)]
    positive = own | same if duplicates == "positives" else own
    counts = ~same | own if duplicates == "masked" else np.ones_like(own)
    z = np.where(positive, 1.0, -1.0)
    exponents = -z * (scale * cosines + bias)
    losses = np.logaddexp(0, exponents) * counts
    grad_logits = -z / (1 + np.exp(-exponents)) * counts * weights[:, None]
    return (
        losses.sum(axis=1),
        scale * grad_logits @ columns,
        scale * grad_logits.T @ rows,
        (grad_logits * cosines).sum(),
        grad_logits.sum(),
    )


def draw_unit_rows(rng, count, width):
    rows = rng.normal(size=(count, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def find_shared_ids(row_ids, column_ids):
    """Which rows and columns have an id of either kind in common, `[B, N]`."""
    return (row_ids[:, None] == column_ids[None]).any(axis=-1)


def compute_weighted_gradients(loss, arrays, weights, dtype="float64"):
    """The losses each way that `loss` gives for the arrays, and the gradients of their sum times the weights."""
    leaves = [paddle.to_tensor(np.asarray(array, dtype), stop_gradient=False) for array in arrays]
    ways = loss(*leaves)
    products = [(way * paddle.to_tensor(np.asarray(w, dtype))).sum() for way, w in zip(ways, weights, strict=True)]
    paddle.add_n(products).backward()
    gradients = [leaf.grad.numpy() for leaf in leaves if leaf.grad is not None]
    return [way.numpy() for way in ways], gradients
