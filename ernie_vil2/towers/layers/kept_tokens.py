"""Image tokens that are left out in training: blocks see a random share of the patches (FLIP, Li et al. 2022).

Unlike in FLIP's and OpenCLIP's code, the draw of a row depends on its position in the global batch and not on the rank
or micro batch that encodes it: see `tasks.dropout`.
"""

import paddle


def draw_kept_tokens(tokens: paddle.Tensor, share: float, num_fixed: int) -> paddle.Tensor:
    """Draw the tokens of each row that are kept.

    Args:
        tokens: `[B, T, width]`, the fixed tokens first, then the patches.
        share: share of the patches that are kept, rounded down to a number of at least 1, as in OpenCLIP.
        num_fixed: number of tokens before the patches that are always kept, such as a class token.

    Returns:
        Positions of the kept tokens, int64 `[B, K]`, ascending in each row.
    """
    num_rows, num_tokens = tokens.shape[:2]
    num_patches = num_tokens - num_fixed
    num_kept = max(1, int(num_patches * share))
    # `tasks.dropout` replaces `paddle.rand` in training, so that the keys belong to the rows.
    keys = paddle.rand([num_rows, num_patches])
    # The patches with the largest keys are kept. Of 196 keys of 24 bits, two are equal in one row of 900: with a stable
    # order their first patch comes first, whichever kernel sorts.
    order = paddle.argsort(keys, axis=1, descending=True, stable=True)
    # Attention takes tokens in any order; ascending ones are read from memory in one direction.
    patch_positions = paddle.sort(order[:, :num_kept], axis=1) + num_fixed
    fixed_positions = paddle.arange(num_fixed).expand([num_rows, num_fixed])
    return paddle.concat([fixed_positions, patch_positions], axis=1)


def gather_tokens(tokens: paddle.Tensor, positions: paddle.Tensor) -> paddle.Tensor:
    """Return the tokens `[B, K, width]` at positions `[B, K]` of tokens `[B, T, width]`."""
    num_rows, num_tokens, width = tokens.shape
    # One gather in the flattened batch `[B * T, width]`, in which row b begins at b * T.
    first_tokens = num_tokens * paddle.arange(num_rows).unsqueeze(1)
    tokens = tokens.reshape([-1, width]).gather((first_tokens + positions).flatten())
    return tokens.reshape([num_rows, -1, width])


def gather_rope(rope: paddle.Tensor, positions: paddle.Tensor) -> paddle.Tensor:
    """Return the cosines and sines of each row's tokens.

    Args:
        rope: cosines and sines of all tokens, `[2, T, d]`, see `rotary.compute_rope`.
        positions: positions of each row's tokens, `[B, K]`.

    Returns:
        `[2, B, 1, K, d]`, which broadcasts over heads.
    """
    num_rows, num_kept = positions.shape
    return rope.gather(positions.flatten(), axis=1).reshape([2, num_rows, 1, num_kept, -1])
