"""InfoNCE, the sigmoid loss and their gradients in NumPy, as the formulas say."""

import numpy as np
import paddle


def compute_info_nce(rows, columns, scale, offset, is_duplicate, duplicates):
    """Return the loss of every row, and the gradients of their sum with respect to rows, columns and scale.

    With p the softmax over the columns that count and t uniform over the positives, the loss of a row is
    log(sum exp(s)) - t.s, so its gradient with respect to the logits s is p - t.
    """
    return compute_weighted_info_nce(rows, columns, scale, offset, is_duplicate, duplicates, np.ones(len(rows)))


def compute_scale_gradient(rows, columns, scale, block=256):
    """Return the gradient with respect to the scale for distinct samples, in blocks: not all logits need to fit."""
    is_duplicate = np.eye(len(columns), dtype=bool)
    gradient = 0
    for start in range(0, len(rows), block):
        end = start + block
        *_, block_gradient = compute_info_nce(
            rows[start:end], columns, scale, start, is_duplicate[start:end], "ignored"
        )
        gradient += block_gradient
    return gradient


def compute_weighted_info_nce(rows, columns, scale, offset, is_duplicate, duplicates, weights):
    """Return what `compute_info_nce` does, with gradients of the weighted sum of the losses; weights are `[B]`."""
    cosines = rows @ columns.T
    diagonal = np.eye(len(columns), dtype=bool)[offset : offset + len(rows)]  # [B, N], the pairs of the samples
    in_softmax = ~is_duplicate | diagonal if duplicates == "masked" else np.ones_like(diagonal)
    positives = is_duplicate | diagonal if duplicates == "positives" else diagonal
    logits = scale * cosines
    # Relative to the logit of the pair, and without it in the sum, so that small losses keep their digits.
    exponents = logits - logits[diagonal][:, None]
    masked_exponents = np.where(in_softmax, exponents, -np.inf)
    top = masked_exponents.max(axis=1, keepdims=True)
    exps = np.exp(masked_exponents - top)
    off_diagonal_sum = (exps * ~diagonal).sum(axis=1)
    target = positives / positives.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):  # the sum is 0 where the pair stands alone
        losses = np.logaddexp(0, np.log(off_diagonal_sum) + top[:, 0]) - (target * exponents).sum(axis=1)
    grad_logits = exps / exps.sum(axis=1, keepdims=True) - target
    if duplicates != "positives":
        # p - 1 of the pair, without the difference of two numbers near 1.
        grad_logits[diagonal] = -off_diagonal_sum / exps.sum(axis=1)
    grad_logits *= weights[:, None]
    return losses, scale * grad_logits @ columns, scale * grad_logits.T @ rows, (grad_logits * cosines).sum()


def compute_sigmoid_loss(rows, columns, scale, bias, offset, is_duplicate, duplicates, weights):
    """Return SigLIP's loss of every row, and the gradients of their weighted sum in rows, columns, scale and bias.

    With z = 1 for a positive and -1 for a negative, an entry costs -log sigmoid(z * (scale * cosine + bias)).
    """
    cosines = rows @ columns.T
    diagonal = np.eye(len(columns), dtype=bool)[offset : offset + len(rows)]
    positives = diagonal | is_duplicate if duplicates == "positives" else diagonal
    in_sum = ~is_duplicate | diagonal if duplicates == "masked" else np.ones_like(diagonal)
    z = np.where(positives, 1.0, -1.0)
    exponents = -z * (scale * cosines + bias)
    losses = np.logaddexp(0, exponents) * in_sum
    grad_logits = -z / (1 + np.exp(-exponents)) * in_sum * weights[:, None]
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
    """Return which rows and columns share an id of either kind, `[B, N]`."""
    return (row_ids[:, None] == column_ids[None]).any(axis=-1)


def compute_weighted_gradients(loss, arrays, weights, dtype="float64"):
    """Return the losses of both directions for the arrays, and the gradients of their weighted sum."""
    leaves = [paddle.to_tensor(np.asarray(array, dtype), stop_gradient=False) for array in arrays]
    losses = loss(*leaves)
    weighted_sums = []
    for direction_losses, direction_weights in zip(losses, weights, strict=True):
        weighted_sums.append((direction_losses * paddle.to_tensor(np.asarray(direction_weights, dtype))).sum())
    paddle.add_n(weighted_sums).backward()
    gradients = [leaf.grad.numpy() for leaf in leaves if leaf.grad is not None]
    return [direction_losses.numpy() for direction_losses in losses], gradients
