"""The multi-view loss: a weighted sum of InfoNCE over view pairs (arXiv 2209.15270, equations 1 and 2).

`multi_view` has both equations and the terms of a teacher; `tiles` computes equation 1 without ever holding all logits;
`sigmoid` is SigLIP's loss, which replaces equation 1.
"""

from .multi_view import (
    PAIR_LOSSES,
    InfoNCE,
    MultiViewLoss,
    NoNegatives,
    PairLoss,
    build_loss,
    check_negatives,
    get_initial_bias,
    info_nce,
)
from .sigmoid import SigmoidLoss
from .tiles import DUPLICATES, find_duplicates, tiled_info_nce, tiled_info_nce_both_ways

__all__ = [
    "DUPLICATES",
    "PAIR_LOSSES",
    "InfoNCE",
    "MultiViewLoss",
    "NoNegatives",
    "PairLoss",
    "SigmoidLoss",
    "build_loss",
    "check_negatives",
    "find_duplicates",
    "get_initial_bias",
    "info_nce",
    "tiled_info_nce",
    "tiled_info_nce_both_ways",
]
