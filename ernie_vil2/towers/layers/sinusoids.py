"""Sinusoids as positions of tokens (Vaswani et al. 2017, section 3.5), in the order of M2M-100 and NLLB."""

import numpy as np

BASE = 10_000  # ratio of the first frequency to the last one; of the paper and all models


def compute_sinusoids(rows: int, width: int) -> np.ndarray:
    """Return the position embedding `[rows, width]` in float32: the sines of all frequencies, then their cosines.

    The width is an even number of at least 4.
    """
    half = width // 2
    # In float32, as the authors' code: far positions times rounded frequencies differ by more than rounding.
    exponents = np.arange(half, dtype=np.float32) * np.float32(-np.log(BASE) / (half - 1))
    angles = np.arange(rows, dtype=np.float32)[:, None] * np.exp(exponents)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
