"""Image tokens that are left out in training: a random share of the patches goes on (FLIP, Li et al. 2022).

Unlike FLIP's and OpenCLIP's code, a draw belongs to a row of the global batch: see `tasks.dropout`.
"""

import paddle


def draw_kept_tokens(tokens: paddle.Tensor, share: float, num_fixed: int) -> paddle.Tensor:
    """Draw the tokens of each row that go on.

    Args:
        tokens: `[B, T, width]`, the fixed tokens first, then the patches.
        share: share of the patches that go on, rounded down to a number of at least 1, as in OpenCLIP.
        num_fixed: tokens before the patches that always go on, such as a class token.

    Returns:
        Positions of the tokens, int64 `[B, K]`, ascending in each row.
    """
    num_rows, num_tokens = tokens.shape[:2]
    num_patches = num_tokens - num_fixed
    num_kept = max(1, int(num_patches * share))
    # `tasks.dropout` replaces `paddle.rand` in training, so that the keys belong to the rows.
    keys = paddle.rand([num_rows, num_patches])
    # Among 196 keys of 24 bits two are equal once in 900 rows. A stable order then keeps the first patch, where the
    # kernel would otherwise choose.
    order = paddle.argsort(keys, axis=1, descending=True, stable=True)
    # Attention takes tokens in any order; ascending ones are read from memory in one direction.
    kept = paddle.sort(order[:, :num_kept], axis=1) + num_fixed
    fixed = paddle.arange(num_fixed).expand([num_rows, num_fixed])
    return paddle.concat([fixed, kept], axis=1)


def gather_tokens(tokens: paddle.Tensor, positions: paddle.Tensor) -> paddle.Tensor:
    """Return the tokens `[B, K, width]` at positions `[B, K]` of tokens `[B, T, width]`."""
    num_rows, num_tokens, width = tokens.shape
    first_tokens = num_tokens * paddle.arange(num_rows).unsqueeze(1)
    tokens = tokens.reshape([-1, width]).gather((first_tokens + positions).flatten())
    return tokens.reshape([num_rows, -1, width])


def gather_turns(turns: paddle.Tensor, positions: paddle.Tensor) -> paddle.Tensor:
    """Return the rotary turns of each row's tokens, `[2, B, 1, K, d]`, from those of all positions, `[2, T, d]`."""
    num_rows, num_kept = positions.shape
    return turns.gather(positions.flatten(), axis=1).reshape([2, num_rows, 1, num_kept, -1])
